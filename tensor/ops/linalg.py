"""Matrix factorisations, solvers and their gradients, on batches of matrices.

Sources of the gradients: M. Giles, Collected matrix derivative results (2008); Seeger et al., Auto-differentiating
linear algebra (2017). A^H is the conjugate transpose, so the rules hold for complex matrices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...autograd.engine import Variable
from ...autograd.op import Op, describe
from ..dtypes import category

Prepared = tuple[tuple[Any, ...], dict[str, Any]]
Array = Any


class LinAlgError(RuntimeError):
    """A matrix was singular, not positive definite, or an iteration did not converge."""


def _dtype(x: Any) -> Any:
    return x.array.dtype if isinstance(x, Variable) else x.dtype


def is_complex(x: Any) -> bool:
    return category(_dtype(x)) == 3


def checked(name: str, x: Any, square: bool = True) -> None:
    if x.ndim < 2:
        raise RuntimeError(f"[{name}] needs matrices, with at least 2 dimensions, came shape {list(x.shape)}")
    if square and x.shape[-1] != x.shape[-2]:
        raise RuntimeError(f"[{name}] the matrices must be square, came shape {list(x.shape)}")
    if category(_dtype(x)) < 2:
        raise RuntimeError(f"[{name}] the dtype must be floating or complex, came {describe(x)}")


def _square(name: str) -> Any:
    def prepare(x: Any, **kw: Any) -> Prepared:
        checked(name, x)
        return (x,), kw

    return prepare


def _any(name: str) -> Any:
    def prepare(x: Any, **kw: Any) -> Prepared:
        checked(name, x, square=False)
        return (x,), kw

    return prepare


def T(ops: Any, x: Any) -> Any:
    return ops.transpose(x, dim0=-2, dim1=-1)


def H(ops: Any, x: Any) -> Any:
    """The conjugate transpose."""
    x = T(ops, x)
    return ops.conj(x) if is_complex(x) else x


def _diag(ops: Any, x: Any) -> Any:
    """Vectors as the diagonals of matrices."""
    n = x.shape[-1]
    return ops.diagonal_adjoint(x, shape=(*x.shape, n), offset=0, dim1=x.ndim - 1, dim2=x.ndim)


def _diagonal(ops: Any, x: Any) -> Any:
    return ops.diagonal(x, offset=0, dim1=-2, dim2=-1)


def _eye(ops: Any, like: Any) -> Any:
    """Ones on the diagonal, of the shape and kind of a batch of square matrices."""
    return _diag(ops, _diagonal(ops, like) * 0 + 1)


def _raising(name: str, error: np.linalg.LinAlgError) -> LinAlgError:
    return LinAlgError(
        f"[{name}] failed: {error}; the input is singular, not positive definite or not finite"
    )


# ---- inverses and solutions


def _inv(xp: Any, x: Array) -> Array:
    try:
        return xp.linalg.inv(x)
    except np.linalg.LinAlgError as error:
        raise _raising("linalg.inv", error) from None


def _inv_rule(ops: Any, g: Any, y: Any) -> Any:
    yh = H(ops, y)
    return -ops.matmul(ops.matmul(yh, g), yh)


inv = Op("inv", _inv, [_inv_rule], prepare=_square("linalg.inv"))


def _solve(xp: Any, a: Array, b: Array) -> Array:
    try:
        return xp.linalg.solve(a, b)
    except np.linalg.LinAlgError as error:
        raise _raising("linalg.solve", error) from None


def _solve_prepare(a: Any, b: Any) -> Prepared:
    checked("linalg.solve", a)
    if b.ndim < 2 or b.shape[-2] != a.shape[-1]:
        raise RuntimeError(f"[linalg.solve] shapes must fit, came A {describe(a)} and B {describe(b)}")
    if _dtype(a) != _dtype(b):
        raise RuntimeError(f"[linalg.solve] dtypes must be equal, came A {describe(a)} and B {describe(b)}")
    return (a, b), {}


def _solve_rule(
    ops: Any, g: Any, needs: Any, a: Any, y: Any, a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> list[Any]:
    gb = ops.solve(H(ops, a), g)
    ga = ops.sum_to_shape(-ops.matmul(gb, H(ops, y)), shape=a_shape) if needs[0] else None
    return [ga, ops.sum_to_shape(gb, shape=b_shape) if needs[1] else None]


solve = Op("solve", _solve, _solve_rule, prepare=_solve_prepare)


def _triangle(xp: Any, a: Array, upper: bool, unit: bool) -> Array:
    a = xp.triu(a) if upper else xp.tril(a)
    if unit:
        a = xp.array(a)
        at = xp.arange(a.shape[-1])
        a[..., at, at] = 1
    return a


def _solve_triangular(xp: Any, a: Array, b: Array, *, upper: bool, unitriangular: bool) -> Array:
    try:
        return xp.linalg.solve(_triangle(xp, a, upper, unitriangular), b)
    except np.linalg.LinAlgError as error:
        raise _raising("linalg.solve_triangular", error) from None


def _solve_triangular_rule(
    ops: Any,
    g: Any,
    needs: Any,
    a: Any,
    y: Any,
    a_shape: tuple[int, ...],
    b_shape: tuple[int, ...],
    upper: bool,
    unitriangular: bool,
) -> list[Any]:
    gb = ops.solve_triangular(H(ops, a), g, upper=not upper, unitriangular=unitriangular)
    ga = None
    if needs[0]:
        ga = -ops.matmul(gb, H(ops, y))
        shift = int(unitriangular)
        ga = ops.triu(ga, diagonal=shift) if upper else ops.tril(ga, diagonal=-shift)
        ga = ops.sum_to_shape(ga, shape=a_shape)
    return [ga, ops.sum_to_shape(gb, shape=b_shape)]


solve_triangular = Op("solve_triangular", _solve_triangular, _solve_triangular_rule)


def _pinv(xp: Any, x: Array, *, rtol: float, hermitian: bool) -> Array:
    options = (
        {"hermitian": True} if hermitian and xp is np else {}
    )  # elsewhere the general way, which is right too
    return xp.linalg.pinv(x, rcond=rtol, **options)


def _pinv_rule(ops: Any, g: Any, x: Any, y: Any) -> Any:
    mm, yh, gh = ops.matmul, H(ops, y), H(ops, g)
    if x.shape[-2] <= x.shape[-1]:
        k = mm(gh, y)
        kyh = mm(k, yh)
        return -H(ops, mm(y, k)) + kyh - mm(mm(x, y), kyh) + mm(mm(yh, y), gh - mm(k, x))
    k = mm(y, gh)
    yhk = mm(yh, k)
    return -H(ops, mm(k, y)) + mm(mm(gh - mm(x, k), y), yh) + yhk - mm(mm(yhk, y), x)


pinv = Op("pinv", _pinv, [_pinv_rule], prepare=_any("linalg.pinv"))

# ---- determinants


def _svd_cofactor(ops: Any, x: Any) -> Any:
    """The matrix of cofactors of matrices that may be singular, by way of their singular values."""
    u, s, vh = ops.svd(x)
    n = s.shape[-1]
    one = s[..., :1] * 0 + 1
    before = ops.cumprod(ops.cat(one, s[..., : n - 1], dim=-1), dim=-1)
    after = ops.cumprod(ops.cat(one, ops.flip(s, dims=(-1,))[..., : n - 1], dim=-1), dim=-1)
    others = before * ops.flip(after, dims=(-1,))
    sign = (ops.det(u) * ops.det(vh)).reshape((*s.shape[:-1], 1, 1))
    return sign * ops.matmul(u * ops.unsqueeze(others, dim=-2), vh)


def _det_rule(ops: Any, g: Any, x: Any, y: Any) -> Any:
    wide = (*tuple(y.shape), 1, 1)
    plain = y.array if isinstance(y, Variable) else y
    if (plain == 0).any() and x.shape[-1]:
        return g.reshape(wide) * _svd_cofactor(ops, x)
    scale = g * (ops.conj(y) if is_complex(x) else y)
    return scale.reshape(wide) * H(ops, ops.inv(x))


det = Op("det", lambda xp, x: xp.asarray(xp.linalg.det(x)), [_det_rule], prepare=_square("linalg.det"))


def _slogdet_rule(ops: Any, g: Any, needs: Any, x: Any) -> list[Any]:
    if g[1] is None:
        return [x * 0]
    return [g[1].reshape((*g[1].shape, 1, 1)) * H(ops, ops.inv(x))]


slogdet = Op(
    "slogdet",
    lambda xp, x: list(xp.linalg.slogdet(x)),
    _slogdet_rule,
    outputs=2,
    prepare=_square("linalg.slogdet"),
)

# ---- factorisations


def _cholesky(xp: Any, x: Array, *, upper: bool) -> Array:
    try:
        y = xp.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            "[linalg.cholesky] the matrices must be positive definite, came one that is not"
        ) from None
    return xp.conj(y.swapaxes(-1, -2)) if upper else y


def _cholesky_rule(ops: Any, g: Any, y: Any, upper: bool) -> Any:
    low, gl = (H(ops, y), H(ops, g)) if upper else (y, g)
    inner = ops.tril(ops.matmul(H(ops, low), gl))
    inner = inner - _diag(ops, _diagonal(ops, inner) * 0.5)
    inner = (inner + H(ops, inner)) * 0.5
    left = ops.solve_triangular(H(ops, low), inner, upper=True, unitriangular=False)
    return H(ops, ops.solve_triangular(H(ops, low), H(ops, left), upper=True, unitriangular=False))


cholesky = Op(
    "cholesky",
    _cholesky,
    [_cholesky_rule],
    prepare=lambda x, *, upper=False: _square("linalg.cholesky")(x, upper=upper),
)


def _qr(xp: Any, x: Array, *, mode: str) -> list[Array]:
    if mode == "r":
        return [xp.empty((0,), x.dtype), xp.linalg.qr(x, "r")]
    return list(xp.linalg.qr(x, mode))


def _qr_tall(ops: Any, gq: Any, gr: Any, q: Any, r: Any) -> Any:
    """The gradient of a matrix with at least as many rows as columns."""
    mm = ops.matmul
    inner = 0
    if gr is not None:
        inner = mm(r, H(ops, gr))
    if gq is not None:
        inner = inner - mm(H(ops, gq), q)
    low = ops.tril(inner, diagonal=-1)
    mirrored = low + H(ops, low) + _diag(ops, _diagonal(ops, inner))
    right = mm(q, mirrored) if gq is None else gq + mm(q, mirrored)
    return H(ops, ops.solve_triangular(r, H(ops, right), upper=True, unitriangular=False))


def _qr_rule(ops: Any, g: Any, needs: Any, x: Any, y: Any, mode: str) -> list[Any]:
    if mode != "reduced":
        raise RuntimeError(f"[linalg.qr] has a gradient for mode 'reduced' only, came {mode!r}")
    (gq, gr), (q, r), m, n = g, y, x.shape[-2], x.shape[-1]
    if m >= n:
        return [_qr_tall(ops, gq, gr, q, r)]
    first = ops.narrow(r, dim=-1, start=0, length=m)
    if gr is None:
        gx = _qr_tall(ops, gq, None, q, first)
        return [ops.cat(gx, ops.narrow(x, dim=-1, start=m, length=n - m) * 0, dim=-1)]
    rest, gv = ops.narrow(x, dim=-1, start=m, length=n - m), ops.narrow(gr, dim=-1, start=m, length=n - m)
    from_rest = ops.matmul(rest, H(ops, gv))
    gq = from_rest if gq is None else gq + from_rest
    gx = _qr_tall(ops, gq, ops.narrow(gr, dim=-1, start=0, length=m), q, first)
    return [ops.cat(gx, ops.matmul(q, gv), dim=-1)]


qr = Op(
    "qr",
    _qr,
    _qr_rule,
    outputs=2,
    prepare=lambda x, *, mode="reduced": _any("linalg.qr")(x, mode=mode),
)
