"""Singular values, eigenvalues and the matrix exponential, with gradients.

The gradients of vectors hold for functions that do not depend on their sign (or phase), as in PyTorch; they are
infinite where values are equal.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...autograd.op import Op
from .linalg import H, LinAlgError, _any, _diag, _diagonal, _eye, _raising, _square, is_complex

Array = Any


def _gaps(ops: Any, values: Any) -> Any:
    """values_j - values_i, with ones on the diagonal."""
    gap = ops.unsqueeze(values, dim=-2) - ops.unsqueeze(values, dim=-1)
    return gap + _eye(ops, gap)


def _svd(xp: Any, x: Array, *, full_matrices: bool) -> list[Array]:
    try:
        u, s, vh = xp.linalg.svd(x, full_matrices=full_matrices)
    except np.linalg.LinAlgError as error:
        raise _raising("linalg.svd", error) from None
    return [u, s, vh]


svd_values = Op(
    "svd_values", lambda xp, x: xp.linalg.svd(x, compute_uv=False), prepare=_any("linalg.svdvals")
)


def _svd_rule(ops: Any, g: Any, needs: Any, x_shape: Any, y: Any, full_matrices: bool) -> list[Any]:
    (gu, gs, gvh), (u, s, vh), mm = g, y, ops.matmul
    m, n = x_shape[-2], x_shape[-1]
    k = min(m, n)
    if full_matrices and (gu is not None or gvh is not None):
        u, vh = ops.narrow(u, dim=-1, start=0, length=k), ops.narrow(vh, dim=-2, start=0, length=k)
        gu = None if gu is None else ops.narrow(gu, dim=-1, start=0, length=k)
        gvh = None if gvh is None else ops.narrow(gvh, dim=-2, start=0, length=k)
    elif full_matrices:
        u, vh = ops.narrow(u, dim=-1, start=0, length=k), ops.narrow(vh, dim=-2, start=0, length=k)
    column, row = ops.unsqueeze(s, dim=-1), ops.unsqueeze(s, dim=-2)
    inner = None if gs is None else _diag(ops, gs)
    if is_complex(u):
        inner = None if inner is None else ops.complex(inner, inner * 0)
    gaps = _gaps(ops, s * s) if gu is not None or gvh is not None else None
    if gu is not None:
        skew = mm(H(ops, u), gu)
        part = (skew - H(ops, skew)) / gaps * row
        if is_complex(u):
            phase = ops.imag(_diagonal(ops, skew)) / s
            part = part + _diag(ops, ops.complex(phase * 0, phase))
        inner = part if inner is None else inner + part
    if gvh is not None:
        skew = mm(vh, H(ops, gvh))
        part = (skew - H(ops, skew)) / gaps * column
        inner = part if inner is None else inner + part
    left = mm(u, inner)
    if gu is not None and m > k:
        left = left + (gu - mm(u, mm(H(ops, u), gu))) / row
    grad = mm(left, vh)
    if gvh is not None and n > k:
        grad = grad + mm(u, (gvh - mm(mm(gvh, H(ops, vh)), vh)) / column)
    return [grad]


svd = Op(
    "svd",
    _svd,
    _svd_rule,
    outputs=3,
    prepare=lambda x, *, full_matrices=False: _any("linalg.svd")(x, full_matrices=full_matrices),
)


def _eigh(xp: Any, x: Array, *, UPLO: str) -> list[Array]:
    try:
        return list(xp.linalg.eigh(x, UPLO))
    except np.linalg.LinAlgError as error:
        raise _raising("linalg.eigh", error) from None


def _eigh_rule(ops: Any, g: Any, needs: Any, y: Any) -> list[Any]:
    (gl, gv), (values, v), mm = g, y, ops.matmul
    inner = None
    if gv is not None:
        inner = mm(H(ops, v), gv)
        inner = (inner - _diag(ops, _diagonal(ops, inner))) / _gaps(ops, values)
    if gl is not None:
        d = _diag(ops, gl)
        if is_complex(v):
            d = ops.complex(d, d * 0)
        inner = d if inner is None else inner + d
    return [mm(mm(v, inner), H(ops, v))]


eigh = Op(
    "eigh",
    _eigh,
    _eigh_rule,
    outputs=2,
    prepare=lambda x, *, UPLO="L": _square("linalg.eigh")(x, UPLO=UPLO.upper()),
)


def _complex(xp: Any, x: Array, dtype: Any) -> Array:
    return x.astype("complex128" if dtype.name in ("float64", "complex128") else "complex64", copy=False)


def _eig(xp: Any, x: Array) -> list[Array]:
    try:
        values, vectors = xp.linalg.eig(x)
    except np.linalg.LinAlgError as error:
        raise _raising("linalg.eig", error) from None
    return [_complex(xp, values, x.dtype), _complex(xp, vectors, x.dtype)]


def _eig_rule(ops: Any, g: Any, needs: Any, x_dtype: Any, y: Any) -> list[Any]:
    (gl, gv), (values, v), mm = g, y, ops.matmul
    vh = H(ops, v)
    inner = None
    if gv is not None:
        vhgv = mm(vh, gv)
        along = ops.real(_diagonal(ops, vhgv))
        inner = vhgv - mm(vh, v * ops.unsqueeze(ops.complex(along, along * 0), dim=-2))
        gaps = ops.unsqueeze(values, dim=-2) - ops.unsqueeze(values, dim=-1)
        inner = (inner - _diag(ops, _diagonal(ops, inner))) / ops.conj(gaps + _eye(ops, gaps))
    if gl is not None:
        d = _diag(ops, gl)
        inner = d if inner is None else inner + d
    grad = ops.solve(vh, mm(inner, vh))
    return [grad if x_dtype.kind == "c" else ops.clone(ops.real(grad))]


eig = Op("eig", _eig, _eig_rule, outputs=2, prepare=_square("linalg.eig"))

# N. Higham, The scaling and squaring method for the matrix exponential revisited (2005): Pade of degree 13.
_PADE: tuple[float, ...] = (
    64764752532480000.0,
    32382376266240000.0,
    7771770303897600.0,
    1187353796428800.0,
    129060195264000.0,
)
_PADE += (
    10559470521600.0,
    670442572800.0,
    33522128640.0,
    1323241920.0,
    40840800.0,
    960960.0,
    16380.0,
    182.0,
    1.0,
)


def _matrix_exp(xp: Any, x: Array) -> Array:
    if not x.size:
        return x.copy()
    wide = x.astype("complex128" if x.dtype.kind == "c" else "float64")
    norm = float(xp.abs(wide).sum(axis=-2).max())
    if not math.isfinite(norm):
        return xp.full_like(x, xp.nan)
    squarings = max(0, math.ceil(math.log2(norm / 5.37))) if norm > 5.37 else 0
    a = wide / 2**squarings
    one, c = xp.eye(a.shape[-1]), _PADE
    a2 = a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    odd = a6 @ (c[13] * a6 + c[11] * a4 + c[9] * a2) + c[7] * a6 + c[5] * a4 + c[3] * a2 + c[1] * one
    even = a6 @ (c[12] * a6 + c[10] * a4 + c[8] * a2) + c[6] * a6 + c[4] * a4 + c[2] * a2 + c[0] * one
    odd = a @ odd
    y = xp.linalg.solve(even - odd, even + odd)
    for _ in range(squarings):
        y = y @ y
    return y.astype(x.dtype)


def _matrix_exp_rule(ops: Any, g: Any, x: Any) -> Any:
    """The upper right block of exp [[A^H, G], [0, A^H]]."""
    n = x.shape[-1]
    ah = H(ops, x)
    block = ops.cat(ops.cat(ah, g, dim=-1), ops.cat(ah * 0, ah, dim=-1), dim=-2)
    right = ops.narrow(ops.matrix_exp(block), dim=-1, start=n, length=n)
    return ops.narrow(right, dim=-2, start=0, length=n)


matrix_exp = Op("matrix_exp", _matrix_exp, [_matrix_exp_rule], prepare=_square("matrix_exp"))

__all__ = ["LinAlgError", "eig", "eigh", "matrix_exp", "svd"]
