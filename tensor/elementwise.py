"""Rarer elementwise functions, sums of products and complex numbers under PyTorch's names."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.engine import Variable, as_array, wrap
from . import functions as f
from .checks import one_dtype, refuse, tensors
from .dtypes import F64, category
from .functions import Number
from .ops import complex as _c
from .ops import elementwise as _e
from .ops import pointwise as _p

if TYPE_CHECKING:
    from .tensor import Tensor


asinh = arcsinh = _e.asinh
acosh = arccosh = _e.acosh
atanh = arctanh = _e.atanh
deg2rad, rad2deg, signbit, sinc = _e.deg2rad, _e.rad2deg, _e.signbit, _e.sinc
isposinf, isneginf, isreal = _e.isposinf, _e.isneginf, _e.isreal
fmax, fmin, hypot, copysign, nextafter = (
    _e.fmax,
    _e.fmin,
    _e.hypot,
    _e.copysign,
    _e.nextafter,
)
gcd, lcm, logaddexp, logaddexp2, xlogy = _e.gcd, _e.lcm, _e.logaddexp, _e.logaddexp2, _e.xlogy
sgn, angle = _c.sgn, _c.angle


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 for negative elements, 1 for positive ones, `values` at 0."""
    one_dtype("heaviside", input, values)
    return _e.heaviside(input, values)


def frac(input: Tensor) -> Tensor:
    """The part after the point, with the sign of the number."""
    if category(input.array.dtype) < 2:
        raise RuntimeError(f"[frac] the dtype must be floating, came {input.dtype}")
    return _e.frac(input)


def positive(input: Tensor) -> Tensor:
    """The tensor itself; bool tensors are refused."""
    if input.array.dtype == bool:
        raise RuntimeError("[positive] the dtype must be numeric, came bool")
    return input


def nan_to_num(
    input: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """NaN and infinities replaced: by default with 0 and the largest finite numbers."""
    return _e.nan_to_num(input, nan=nan, posinf=posinf, neginf=neginf)


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)), of the input clamped into [eps, 1 - eps]."""
    tensors("logit", input)
    return _e.logit(input, eps=eps)


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """max(input, min)."""
    if min is None:
        raise TypeError("[clamp_min] min must be a number or a Tensor, came None")
    return f.clamp(input, min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """min(input, max)."""
    if max is None:
        raise TypeError("[clamp_max] max must be a number or a Tensor, came None")
    return f.clamp(input, None, max)


def float_power(input: Any, exponent: Any) -> Tensor:
    """input to the power of exponent, in float64."""
    for value in (input, exponent):
        if not isinstance(value, Variable | int | float | builtins.complex):
            raise TypeError(
                f"[float_power] must be called with Tensors or numbers, came {type(value).__name__}"
            )
    complex_ones = [t for t in (input, exponent) if category(as_array(getattr(t, "array", t)).dtype) == 3]
    wide_type = np.dtype("complex128") if complex_ones else F64
    wide = [_p.cast(t, dtype=wide_type) if isinstance(t, Variable) else t for t in (input, exponent)]
    if not isinstance(wide[0], Variable):
        wide[0] = wrap(as_array(wide[0], wide_type))
    return _p.pow(*wide)


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2 ** other."""
    if isinstance(input, Variable) and input.is_floating_point():
        refuse("ldexp", "b", other)
    return _p.mul(input, _p.exp2(other))


def frexp(input: Tensor) -> tuple[Tensor, Tensor]:
    """Mantissas in [0.5, 1) and integer exponents of 2."""
    refuse("frexp", "biuc", input)
    mantissa, exponent = np.frexp(input.array)
    return wrap(as_array(mantissa)), wrap(as_array(exponent))


def rsub(input: Tensor, other: Any, alpha: Number = 1) -> Tensor:
    """other - alpha * input."""
    return _p.sub(other, input if alpha == 1 else _p.mul(input, alpha))


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like `input` with one value everywhere."""
    if value is None:
        raise TypeError("[fill] the value must be a number, came None")
    return input.clone().fill_(value)


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy, recorded."""
    return _p.clone(input)


def detach(input: Tensor) -> Tensor:
    """The same memory, without a graph."""
    return input.detach()


# ---- sums of products


def _scaled_sum(input: Tensor, product: Tensor, beta: Number, alpha: Number) -> Tensor:
    product = product if alpha == 1 else _p.mul(product, alpha)
    if beta == 0:
        return product
    return _p.add(input if beta == 1 else _p.mul(input, beta), product)


def _products_fit(name: str, dims: int, input: Tensor, a: Tensor, b: Tensor) -> None:
    one_dtype(name, input, a, b)
    if input.ndim > dims:
        raise RuntimeError(
            f"[{name}] the input must have at most {dims} dimensions, came {list(input.shape)}"
        )


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2)."""
    _products_fit("baddbmm", 3, input, batch1, batch2)
    if batch1.ndim < 2 or batch2.ndim < 3:
        raise IndexError(
            f"[baddbmm] must be batches of matrices, came {list(batch1.shape)} and {list(batch2.shape)}"
        )
    return _scaled_sum(input, f.bmm(batch1, batch2), beta, alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta * input + alpha * the sum of all matrix products of two batches."""
    _products_fit("addbmm", 2, input, batch1, batch2)
    return _scaled_sum(input, f.sum(f.bmm(batch1, batch2), 0), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)."""
    _products_fit("addmv", 1, input, mat, vec)
    if mat.ndim != 2:
        raise RuntimeError(f"[addmv] must be a matrix, came {list(mat.shape)}")
    return _scaled_sum(input, f.mv(mat, vec), beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta * input + alpha * the outer product of two vectors."""
    return _scaled_sum(input, f.outer(vec1, vec2), beta, alpha)


ger = f.outer


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimension of both."""
    if not input.ndim or not other.ndim:
        return _p.mul(input, other)
    one_dtype("inner", input, other)
    from .products import tensordot

    return tensordot(input, other, ([input.ndim - 1], [other.ndim - 1]))


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """Inner product of two vectors, the first conjugated."""
    return f.dot(conj(input), other)


# ---- complex numbers


def is_complex(input: Tensor) -> bool:
    """Whether the dtype is a complex one."""
    return input.dtype.is_complex


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return input.dtype.is_signed


def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not zero."""
    return bool(input)


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether the shapes are equal."""
    return input.array.shape == other.array.shape


def real(input: Tensor) -> Tensor:
    """A view of the real parts; a real tensor itself."""
    return _c.real(input) if input.is_complex() else input


def imag(input: Tensor) -> Tensor:
    """A view of the imaginary parts."""
    return _c.imag(input)


def conj(input: Tensor) -> Tensor:
    """The complex conjugate; a real tensor itself."""
    return _c.conj(input) if input.is_complex() else input


conj_physical = conj


def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: conjugates are computed at once here."""
    tensors("resolve_conj", input)
    return input


resolve_neg = resolve_conj


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """real + i imag."""
    return _c.make_complex(real, imag)


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """Complex numbers of given size and angle (radians)."""
    refuse("polar", "biu", abs, angle)
    one_dtype("polar", abs, angle)
    return _c.make_complex(_p.mul(abs, _p.cos(angle)), _p.mul(abs, _p.sin(angle)))


def view_as_real(input: Tensor) -> Tensor:
    """A view of complex numbers as pairs [..., 2] of real ones."""
    return _c.view_as_real(input)


def view_as_complex(input: Tensor) -> Tensor:
    """A view of pairs [..., 2] as complex numbers."""
    return _c.view_as_complex(input)
