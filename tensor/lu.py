"""LU factorisation with partial pivoting, its gradient, and what solves by it: loaded when first used.

The gradient is that of the factors of rows already in order (Walter and Lehmann, arXiv:1009.6112):
L^-H (tril(L^H gL, -1) + triu(gU U^H)) U^-H. Wide and tall matrices are a square one and triangular solves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..autograd.engine import array_namespace, wrap
from ..autograd.function import Function
from . import functions as f
from .checks import tensors
from .linalg import _mh, solve_triangular
from .ops.linalg import checked

if TYPE_CHECKING:
    from .tensor import Tensor


class Factors(NamedTuple):
    """P, L and U with A = P L U."""

    P: Any
    L: Any
    U: Any


class Compact(NamedTuple):
    """L below the diagonal and U on and above it in one matrix; row i was swapped with pivots[i], counted from 1."""

    LU: Any
    pivots: Any


class CompactInfo(NamedTuple):
    """As Compact, with the number of the first pivot that is 0 (0: none is)."""

    LU: Any
    pivots: Any
    info: Any


def _eliminated(a: Any, pivots: Any = None) -> Any:
    """L and U of (batch, m, n) in place; rows are swapped, and the swaps noted, where pivots are given."""
    rows = np.arange(len(a))
    for k in range(min(a.shape[1:])):
        if pivots is not None:
            left = a[:, k:, k]
            best = (abs(left.real) + abs(left.imag)).argmax(axis=1) + k  # how LAPACK measures complex numbers
            pivots[:, k] = best + 1
            a[rows, k], a[rows, best] = a[rows, best], a[rows, k].copy()
        top = a[:, k : k + 1, k]
        a[:, k + 1 :, k] /= np.where(top == 0, 1, top)
        a[:, k + 1 :, k + 1 :] -= a[:, k + 1 :, k, None] * a[:, k, None, k + 1 :]
    return a


class _InOrder(Function):
    """L and U of square matrices, without swaps."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        n = x.shape[-1]
        y = wrap(_eliminated(np.array(x.array).reshape(math.prod(x.shape[:-2]), n, n)).reshape(x.shape))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (y,) = ctx.saved_tensors
        lower, upper = f.tril(y, -1) + _eye(y, *y.shape[-2:]), f.triu(y)
        inner = f.tril(f.matmul(_mh(lower), f.tril(g, -1)), -1) + f.triu(f.matmul(f.triu(g), _mh(upper)))
        left = solve_triangular(_mh(lower), inner, upper=True, unitriangular=True)
        return _mh(solve_triangular(upper, _mh(left), upper=True))


def _eye(like: Any, m: int, n: int) -> Any:
    return wrap(array_namespace[type(like.array)].eye(m, n, dtype=like.array.dtype))


def _order(pivots: Any, m: int) -> Any:
    """The rows' numbers after the swaps, (batch, m)."""
    order = np.tile(np.arange(m), (len(pivots), 1))
    rows = np.arange(len(pivots))
    for k in range(pivots.shape[1]):
        other = pivots[:, k] - 1
        order[rows, k], order[rows, other] = order[rows, other], order[rows, k].copy()
    return order


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> CompactInfo:
    """L and U in one matrix, the row swaps, and which pivot is 0."""
    tensors("linalg.lu_factor_ex", A)
    checked("linalg.lu_factor_ex", A, square=False)
    m, n = A.array.shape[-2:]
    k = min(m, n)
    batch = A.array.shape[:-2]
    count = math.prod(batch)
    pivots = np.tile(np.arange(1, k + 1, dtype=np.int32), (count, 1))
    found = _eliminated(np.array(A.array).reshape(count, m, n), pivots if pivot else None)
    zero = found[:, range(k), range(k)] == 0
    first = zero.argmax(axis=1) + 1 if k else 0
    info = np.where(zero.any(axis=1), first, 0).astype(np.int32).reshape(batch)
    if check_errors and info.any():
        raise RuntimeError(f"[linalg.lu_factor_ex] no pivot may be 0, came one at {int(info.max())}")
    if A.requires_grad:
        whole = _recorded(A, _order(pivots, m).reshape(*batch, m), k)
    else:
        whole = wrap(found.reshape(A.array.shape))
    return CompactInfo(whole, wrap(pivots.reshape(*batch, k)), wrap(info))


def _recorded(A: Any, order: Any, k: int) -> Any:
    """The same through ops that have gradients."""
    index = wrap(np.broadcast_to(order[..., None], A.array.shape).copy())
    x = f.gather(A, -2, index)
    square = _InOrder.apply(x[..., :k, :k])
    if A.shape[-1] > k:
        right = solve_triangular(square, x[..., :k, k:], upper=False, unitriangular=True)
        return f.cat([square, right], -1)
    if A.shape[-2] > k:
        below = solve_triangular(square, x[..., k:, :k], upper=True, left=False)
        return f.cat([square, below], -2)
    return square


def lu_factor(A: Tensor, *, pivot: bool = True) -> Compact:
    """L and U in one matrix, and the row swaps."""
    LU, pivots, info = lu_factor_ex(A, pivot=pivot)
    if bool((info.array != 0).any()):
        raise RuntimeError(f"[linalg.lu_factor] no pivot may be 0, came one at {int(info.array.max())}")
    return Compact(LU, pivots)


def lu(A: Tensor, *, pivot: bool = True) -> Factors:
    """P, L and U with A = P L U; without pivoting P is empty."""
    LU, pivots, _ = lu_factor_ex(A, pivot=pivot)
    P, L, U = lu_unpack(LU, pivots, True, pivot)
    return Factors(P, L, U)


def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> Factors:
    """P, L and U of a compact factorisation; empty where not wanted."""
    m, n = LU_data.array.shape[-2:]
    k = min(m, n)
    P = L = U = LU_data.new_empty((0,))
    if unpack_data:
        L = f.tril(LU_data[..., :k], -1) + _eye(LU_data, m, k)
        U = f.triu(LU_data[..., :k, :])
    if unpack_pivots:
        order = _order(LU_pivots.array.reshape(math.prod(LU_pivots.shape[:-1]), k), m).reshape(
            *LU_pivots.array.shape[:-1], m
        )
        P = wrap((np.arange(m)[:, None] == order[..., None, :]).astype(LU_data.array.dtype))
    return Factors(P, L, U)


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X with A X = B (X A = B; A^H X = B) for A given by its factors."""
    P, L, U = lu_unpack(LU, pivots)
    if not left:
        return _mh(lu_solve(LU, pivots, _mh(B), adjoint=not adjoint))
    if adjoint:
        inner = solve_triangular(_mh(U), B, upper=False)
        return f.matmul(P, solve_triangular(_mh(L), inner, upper=True, unitriangular=True))
    inner = solve_triangular(L, f.matmul(_mh(P), B), upper=False, unitriangular=True)
    return solve_triangular(U, inner, upper=True)


def old_lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """`torch.lu`: (LU, pivots), and the infos where wanted."""
    found = lu_factor_ex(A, pivot=pivot)
    return tuple(found) if get_infos else tuple(found[:2])


def old_lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """`torch.lu_solve`: X with A X = b."""
    return lu_solve(LU_data, LU_pivots, b)
