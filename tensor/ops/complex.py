"""Complex numbers: their parts, conjugates and views.

Gradients follow PyTorch's convention: for a real loss L and z = a + ib the gradient is dL/da + i dL/db.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...autograd.engine import Variable
from ...autograd.op import Op, describe
from ..dtypes import category
from .declare import unary
from .pointwise import _zero, real_sign

Prepared = tuple[tuple[Any, ...], dict[str, Any]]
Array = Any


def _dtype(x: Any) -> Any:
    return x.array.dtype if isinstance(x, Variable) else x.dtype


def _must_be_complex(name: str) -> Any:
    def prepare(x: Any) -> Prepared:
        if category(_dtype(x)) != 3:
            raise RuntimeError(f"[{name}] the dtype must be complex, came {describe(x)}")
        return (x,), {}

    return prepare


def _join(xp: Any, real: Array, imag: Array) -> Array:
    y = xp.empty(
        np.broadcast_shapes(real.shape, imag.shape), "complex128" if real.dtype == xp.float64 else "complex64"
    )
    y.real, y.imag = real, imag
    return y


def _join_prepare(real: Any, imag: Any) -> Prepared:
    if _dtype(real) != _dtype(imag) or category(_dtype(real)) != 2:
        raise RuntimeError(
            f"[complex] both parts must be floating and of one dtype, came {describe(real)} and {describe(imag)}"
        )
    return (real, imag), {}


make_complex = Op(
    "complex",
    _join,
    [lambda ops, g: ops.clone(ops.real(g)), lambda ops, g: ops.clone(ops.imag(g))],
    broadcast=True,
    prepare=_join_prepare,
)
real = Op(
    "real",
    lambda xp, x: x.real,
    [lambda ops, g: ops.complex(g, g * 0)],
    view=True,
    prepare=_must_be_complex("real"),
)
imag = Op(
    "imag",
    lambda xp, x: x.imag,
    [lambda ops, g: ops.complex(g * 0, g)],
    view=True,
    prepare=_must_be_complex("imag"),
)
conj = unary("conj", lambda xp, x: xp.conj(x), lambda ops, g: ops.conj(g))


def _pairs(xp: Any, x: Array) -> Array:
    part = xp.float64 if x.dtype == xp.complex128 else xp.float32
    return xp.expand_dims(x, -1).view(part)


def _unpair_prepare(x: Any) -> Prepared:
    if category(_dtype(x)) != 2 or _dtype(x).itemsize < 4:
        raise RuntimeError(f"[view_as_complex] the dtype must be float32 or float64, came {describe(x)}")
    if not x.ndim or x.shape[-1] != 2:
        raise RuntimeError(
            f"[view_as_complex] the last dimension must have size 2, came shape {list(x.shape)}"
        )
    return (x,), {}


def _unpair(xp: Any, x: Array) -> Array:
    if x.strides[-1] != x.itemsize and x.size:
        raise RuntimeError("[view_as_complex] the last dimension must have stride 1: use contiguous()")
    return x.view(xp.complex128 if x.dtype == xp.float64 else xp.complex64)[..., 0]


view_as_real = Op(
    "view_as_real",
    _pairs,
    [lambda ops, g: ops.view_as_complex(ops.contiguous(g))],
    view=True,
    half="native",
    prepare=_must_be_complex("view_as_real"),
)
view_as_complex = Op(
    "view_as_complex",
    _unpair,
    [lambda ops, g: ops.view_as_real(ops.contiguous(g))],
    view=True,
    half="native",
    prepare=_unpair_prepare,
)


def _angle(xp: Any, x: Array) -> Array:
    if category(x.dtype) == 3:
        return xp.angle(x)
    y = xp.where(x < 0, x.dtype.type(np.pi), x.dtype.type(0))
    return xp.where(x != x, x, y)


def _angle_rule(ops: Any, g: Any, x: Any) -> Any:
    if category(_dtype(x)) != 3:
        return g * 0
    a, b = ops.real(x), ops.imag(x)
    square = a * a + b * b
    scale = ops.where(square == 0, _zero(g), g / ops.where(square == 0, square + 1, square))
    return ops.complex(-b * scale, a * scale)


angle = unary("angle", _angle, _angle_rule, floating=True)


def _sgn(xp: Any, x: Array) -> Array:
    if category(x.dtype) != 3:
        return real_sign(xp, x)
    size = xp.abs(x)
    return xp.where(size == 0, x * 0, x / xp.where(size == 0, 1, size))


def _sgn_rule(ops: Any, g: Any, x: Any, y: Any) -> Any:
    """The part of g across the direction y, divided by |x|."""
    if category(_dtype(x)) != 3:
        return g * 0
    a, b = ops.real(y), ops.imag(y)
    across = ops.imag(g) * a - ops.real(g) * b
    size = ops.abs(x)
    scale = ops.where(size == 0, size * 0, across / ops.where(size == 0, size + 1, size))
    return ops.complex(-b * scale, a * scale)


sgn = unary("sgn", _sgn, _sgn_rule)
