"""Linear algebra under the names of `torch.linalg`, on batches of matrices [..., m, n]."""

from __future__ import annotations

import math
from operator import index as whole
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..autograd.engine import Variable, as_array, wrap
from . import functions as f
from .checks import one_dtype, refuse
from .dtypes import category
from .elementwise import conj
from .ops import linalg as _l
from .ops import pointwise as _p
from .ops import reduce as _r
from .ops import shape as _s
from .ops import spectral as _e
from .ops.declare import axes_of, axis_of
from .ops.linalg import LinAlgError as LinAlgError
from .products import cross as _cross
from .products import multi_dot as multi_dot

if TYPE_CHECKING:
    from .tensor import Tensor


class QR(NamedTuple):
    """A = Q R."""

    Q: Any
    R: Any


class SVD(NamedTuple):
    """A = U diag(S) Vh."""

    U: Any
    S: Any
    Vh: Any


class OldSVD(NamedTuple):
    """A = U diag(S) V^H."""

    U: Any
    S: Any
    V: Any


class Eigen(NamedTuple):
    """Eigenvalues and, in columns, eigenvectors."""

    eigenvalues: Any
    eigenvectors: Any


class SignLog(NamedTuple):
    """A determinant as its sign and the logarithm of its size."""

    sign: Any
    logabsdet: Any


class LeastSquares(NamedTuple):
    """What `lstsq` found."""

    solution: Any
    residuals: Any
    rank: Any
    singular_values: Any


def _mh(x: Any) -> Any:
    return conj(_s.transpose(x, dim0=-2, dim1=-1))


# ---- solving


def inv(A: Tensor) -> Tensor:
    """The inverse; LinAlgError where a matrix is singular."""
    return _l.inv(A)


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B (or X A = B); a B of one dimension fewer than A holds vectors."""
    if not left:
        return _s.transpose(
            solve(_s.transpose(A, dim0=-2, dim1=-1), _s.transpose(B, dim0=-2, dim1=-1)), dim0=-2, dim1=-1
        )
    vector = B.ndim == 1 or (A.ndim - 1 == B.ndim and tuple(B.shape) == tuple(A.shape[:-1]))
    if not vector:
        return _l.solve(A, B)
    return _s.squeeze(_l.solve(A, _s.unsqueeze(B, dim=-1)), dim=-1)


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """X with A X = B (or X A = B) for triangular A, of which the other triangle is not read."""
    if left:
        return _l.solve_triangular(A, B, upper=upper, unitriangular=unitriangular)
    X = _l.solve_triangular(
        _s.transpose(A, dim0=-2, dim1=-1),
        _s.transpose(B, dim0=-2, dim1=-1),
        upper=not upper,
        unitriangular=unitriangular,
    )
    return _s.transpose(X, dim0=-2, dim1=-1)


def _tolerance(A: Any, atol: Any, rtol: Any) -> Any:
    """The relative tolerance, a number or an array over the batch: PyTorch's where none is given."""
    if rtol is None:
        rtol = 0.0 if atol is not None else max(A.shape[-2:]) * float(np.finfo(A.array.dtype).eps)
    return _plain(rtol)


def _plain(value: Any) -> Any:
    if not isinstance(value, Variable):
        return float(value)
    if category(value.array.dtype) == 3:
        raise RuntimeError(f"[linalg] tolerances must be real, came {value.dtype}")
    return value.array if value.ndim else float(value)


def pinv(
    A: Tensor, rcond: Any = None, *, atol: Any = None, rtol: Any = None, hermitian: bool = False
) -> Tensor:
    """The pseudo-inverse (Moore-Penrose); singular values below max(atol, rtol * largest) count as 0.

    rcond is PyTorch's older name of rtol.
    """
    rtol = rcond if rtol is None else rtol
    limit = _tolerance(A, atol, rtol)
    if atol is not None and A.array.size:
        top = np.linalg.norm(A.array, 2, axis=(-2, -1))
        limit = np.maximum(limit, _plain(atol) / np.maximum(top, 1e-300))
    if np.ndim(limit):  # PyTorch broadcasts tolerances and batches against each other
        batch = np.broadcast_shapes(np.shape(limit), A.array.shape[:-2])
        A = _s.expand(A, shape=(*batch, *A.array.shape[-2:]))
    return _l.pinv(A, rtol=limit, hermitian=hermitian)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverse; singular values below rcond * largest count as 0."""
    return _l.pinv(input, rtol=rcond, hermitian=False)


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LeastSquares:
    """X that makes |A X - B| smallest, with residuals, rank and singular values."""
    if B.ndim not in (A.ndim, A.ndim - 1):
        raise RuntimeError(
            f"[linalg.lstsq] B must have A's dimensions or one less, came {list(A.shape)} and {list(B.shape)}"
        )
    vector = B.ndim == A.ndim - 1
    right = _s.unsqueeze(B, dim=-1) if vector else B
    limit = _tolerance(A, None, rcond)
    m, n = A.shape[-2:]
    u, s, vh = np.linalg.svd(A.array, full_matrices=False)
    used = s > limit * s.max(axis=-1, keepdims=True, initial=0)
    rank = wrap(as_array(used.sum(axis=-1) if driver != "gels" else np.zeros(0, np.int64)))
    if A.requires_grad:
        X = f.matmul(_l.pinv(A, rtol=limit, hermitian=False), right)
    else:
        scaled = np.where(used, 1 / np.where(used, s, 1), 0)[..., None] * u.conj().swapaxes(-1, -2)
        X = f.matmul(wrap(vh.conj().swapaxes(-1, -2)), f.matmul(wrap(scaled), right))
    residuals = A.new_empty((0,))
    if m > n and driver not in (None, "gelsy") and bool(used.all()):
        residuals = f.sum(_p.square(_p.abs(_p.sub(f.matmul(A, X), right))), -2)
    values = svdvals(A) if driver in ("gelsd", "gelss") else A.new_empty((0,))
    return LeastSquares(_s.squeeze(X, dim=-1) if vector else X, residuals, rank, values)


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with A X = B, given the Cholesky factor of A."""
    low = _mh(L) if upper else L
    inner = _l.solve_triangular(low, B, upper=False, unitriangular=False)
    return _l.solve_triangular(_mh(low), inner, upper=True, unitriangular=False)


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, given its Cholesky factor."""
    return cholesky_solve(wrap(np.broadcast_to(np.eye(L.shape[-1], dtype=L.array.dtype), L.shape)), L, upper)


# ---- determinants


def det(A: Tensor) -> Tensor:
    """The determinant."""
    return _l.det(A)


def slogdet(A: Tensor) -> SignLog:
    """(sign, log |det|)."""
    return SignLog(*_l.slogdet(A))


def logdet(input: Tensor) -> Tensor:
    """log det; NaN where that is negative."""
    sign, size = slogdet(input)
    return _p.add(size, _p.log(sign))


# ---- factorisations


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """L with A = L L^H for positive definite A (or U with A = U^H U); only one triangle is read."""
    return _l.cholesky(_mh(A) if upper else A, upper=upper)


def qr(A: Tensor, mode: str = "reduced") -> QR:
    """(Q, R): orthonormal columns and an upper triangle; mode "reduced", "complete" or "r"."""
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"[linalg.qr] mode must be 'reduced', 'complete' or 'r', came {mode!r}")
    return QR(*_l.qr(A, mode=mode))


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """(U, S, Vh): the singular value decomposition, values in descending order."""
    return SVD(*_e.svd(A, full_matrices=full_matrices))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """Singular values in descending order."""
    return _e.svd(A, full_matrices=False)[1] if A.requires_grad else _e.svd_values(A)


def eigh(A: Tensor, UPLO: str = "L") -> Eigen:
    """(eigenvalues ascending, eigenvectors) of Hermitian matrices, of which one triangle is read."""
    return Eigen(*_e.eigh(A, UPLO=UPLO))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Eigenvalues of Hermitian matrices, ascending."""
    return _e.eigh(A, UPLO=UPLO)[0]


def eig(A: Tensor) -> Eigen:
    """(eigenvalues, eigenvectors), both complex."""
    return Eigen(*_e.eig(A))


def eigvals(A: Tensor) -> Tensor:
    """Eigenvalues, complex."""
    return _e.eig(A)[0]


def matrix_exp(A: Tensor) -> Tensor:
    """The matrix exponential."""
    return _e.matrix_exp(A)


def matrix_power(A: Tensor, n: int) -> Tensor:
    """The n-th power of square matrices; negative powers by the inverse."""
    n = whole(n)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        _l.checked("linalg.matrix_power", A)
    if n < 0:
        return matrix_power(inv(A), -n)
    if n == 0:
        return wrap(np.broadcast_to(np.eye(A.shape[-1], dtype=A.array.dtype), A.shape).copy())
    half = matrix_power(A, n // 2) if n > 1 else None
    square = None if half is None else f.matmul(half, half)
    if square is None:
        return A
    return f.matmul(square, A) if n % 2 else square


# ---- norms


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """(sum |x|^ord)^(1/ord) over `dim`, or over all elements."""
    if category(x.array.dtype) < 2:
        raise RuntimeError(f"[linalg.vector_norm] the dtype must be floating or complex, came {x.dtype}")
    if x.is_complex():
        x = _p.abs(x)
    axes = None if isinstance(dim, tuple | list) and not dim else dim
    return f.norm(x, float(ord), axes, keepdim, dtype)


def _matrix_by_values(A: Any, ord: Any, d: tuple[int, int], keepdim: bool) -> Any:
    order = [k for k in range(A.ndim) if k not in d]
    values = svdvals(_s.permute(A, dims=(*order, *d)))
    if ord == "nuc":
        y = f.sum(values, -1)
    else:
        y = values[..., 0] if ord == 2 else values[..., -1]
    for k in sorted(d) if keepdim else ():
        y = _s.unsqueeze(y, dim=k)
    return y


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The norm of matrices: "fro", "nuc", or ord of 1, -1, 2, -2, inf, -inf."""
    refuse("linalg.matrix_norm", "biu", A)
    if A.ndim < 2:
        raise RuntimeError(f"[linalg.matrix_norm] must have at least 2 dimensions, came {list(A.shape)}")
    if isinstance(ord, str) and ord not in ("fro", "nuc"):
        raise RuntimeError(f"[linalg.matrix_norm] ord must be 'fro', 'nuc' or a number, came {ord!r}")
    A = A if dtype is None else f.cast(A, dtype)
    d = (axis_of("linalg.matrix_norm", dim[0], A.ndim), axis_of("linalg.matrix_norm", dim[1], A.ndim))
    if ord == "fro":
        return vector_norm(A, 2, d, keepdim)
    if ord == "nuc" or abs(ord) == 2:
        return _matrix_by_values(A, ord, d, keepdim)
    if abs(ord) not in (1, math.inf):
        raise RuntimeError(f"[linalg.matrix_norm] ord must be 'fro', 'nuc', ±1, ±2 or ±inf, came {ord!r}")
    first, second = d if abs(ord) == 1 else d[::-1]
    sums = f.sum(_p.abs(A), first, True)
    y = (_r.amax if ord > 0 else _r.amin)(sums, dim=second, keepdim=True)
    return y if keepdim else _s.squeeze(y, dim=d)


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """A matrix norm over two dimensions where `ord` names one, else a vector norm."""
    pair = isinstance(dim, tuple | list) and len(dim) == 2
    if ord is not None and dim is None and A.ndim not in (1, 2):
        raise RuntimeError(f"[linalg.norm] ord without dim is for vectors and matrices, came {list(A.shape)}")
    if ord is not None and (pair or (dim is None and A.ndim == 2)):
        return matrix_norm(A, ord, dim if pair else (-2, -1), keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise RuntimeError(f"[linalg.norm] ord {ord!r} is for matrices, came dim={dim} of {list(A.shape)}")
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number in a matrix norm."""
    if A.ndim > 1 and not A.array.size:
        return wrap(np.zeros(A.array.shape[:-2], A.array.real.dtype))
    if p is None or abs(p) == 2 if not isinstance(p, str) else False:
        values = svdvals(A)
        high, low = values[..., 0], values[..., -1]
        return _p.div(low, high) if p == -2 else _p.div(high, low)
    return _p.mul(matrix_norm(A, p), matrix_norm(inv(A), p))


def matrix_rank(
    A: Tensor, tol: Any = None, *, atol: Any = None, rtol: Any = None, hermitian: bool = False
) -> Tensor:
    """How many singular values are above max(atol, rtol * largest)."""
    refuse("linalg.matrix_rank", "biu", A)
    values = np.abs(np.linalg.eigvalsh(A.array)) if hermitian else np.linalg.svd(A.array, compute_uv=False)
    top = values.max(axis=-1, keepdims=True, initial=0)
    given = tol if atol is None else atol
    absolute, relative = (
        np.asarray(t)[..., None]
        for t in (0.0 if given is None else _plain(given), _tolerance(A, given, rtol))
    )
    limit = np.maximum(absolute, relative * top)
    return wrap(as_array((values > limit).sum(axis=-1)))


# ---- products


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Inner products along a dimension, the first vector conjugated."""
    refuse("linalg.vecdot", "biu", x, y)
    one_dtype("linalg.vecdot", x, y)
    return f.sum(_p.mul(conj(x), y), dim)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product."""
    return f.matmul(input, other)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product along a dimension of size 3."""
    return _cross(input, other, dim)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonals."""
    return f.diagonal(A, offset, dim1, dim2)


def inv_ex(A: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    """(inverse, info): info is 0 where it was found."""
    return inv(A), wrap(np.zeros(A.array.shape[:-2], np.int32))


def tensorsolve(A: Tensor, B: Tensor, dims: Any = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B."""
    if dims is not None:
        axes = axes_of("linalg.tensorsolve", dims, A.ndim)
        A = _s.permute(A, dims=(*(d for d in range(A.ndim) if d not in axes), *axes))
    shape = A.array.shape[B.ndim :]
    X = solve(_s.reshape(A, shape=(B.array.size, -1)), _s.reshape(B, shape=(-1,)))
    return _s.reshape(X, shape=shape)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Rows 1, x, x^2 ... x^(N - 1) of the elements of vectors [..., n]; N is n unless named."""
    refuse("linalg.vander", "b", x)
    n = x.shape[-1] if N is None else N
    if n <= 1:
        raise RuntimeError(f"[linalg.vander] N must be larger than 1, came {n}")
    return _p.pow(_s.unsqueeze(x, dim=-1), wrap(np.arange(n).astype(x.array.dtype)))


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse under tensordot(A, B, ind)."""
    if not 0 < ind <= A.ndim:
        raise RuntimeError(f"[linalg.tensorinv] ind must be in [1, {A.ndim}], came {ind}")
    first, last = A.array.shape[:ind], A.array.shape[ind:]
    return _s.reshape(inv(_s.reshape(A, shape=(math.prod(first), -1))), shape=(*last, *first))


# ---- older names


def old_svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> OldSVD:
    """(U, S, V): as `linalg.svd`, with V itself."""
    U, S, Vh = _e.svd(input, full_matrices=not some)
    if not compute_uv:
        U, Vh = (
            wrap(np.zeros((*input.array.shape[:-2], n, n), input.array.dtype)) for n in input.array.shape[-2:]
        )
    return OldSVD(U, S, _mh(Vh))


def old_qr(input: Tensor, some: bool = True) -> QR:
    """(Q, R): as `linalg.qr`."""
    return qr(input, "reduced" if some else "complete")


def old_cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """The Cholesky factor."""
    return cholesky(input, upper=upper)


def old_eig(input: Tensor, eigenvectors: bool = False) -> Any:
    """Removed from PyTorch: RuntimeError names what to use instead."""
    raise RuntimeError("[eig] was removed from PyTorch: use linalg.eig, whose results are complex")


def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Tensor, Tensor]:
    """(X with A X = b, A)."""
    matrix = _s.transpose(A, dim0=-2, dim1=-1) if transpose else A
    X = _l.solve_triangular(matrix, b, upper=upper != transpose, unitriangular=unitriangular)
    return X, A
