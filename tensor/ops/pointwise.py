"""Elementwise ops: arithmetic, functions, comparisons, selection."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from ...autograd.engine import Variable, array_namespace
from ...autograd.op import Op, low_floats
from ..dtypes import BOOL, F32, F64, I64, category, to_numpy
from . import choose
from .declare import binary, comparison, promoted, unary
from .faster import faster
from .index import mask_of
from .rows import LARGE, blocks, bounded

# ---- arithmetic


def _pow(xp: Any, a: Any, b: Any) -> Any:
    if a.dtype == BOOL:
        return xp.logical_or(a, xp.logical_not(b))
    if type(b) in array_namespace:
        if category(a.dtype) == 1 and category(b.dtype) == 1 and (b < 0).any():
            raise RuntimeError("[pow] integers cannot be raised to negative powers, came a negative exponent")
        if category(a.dtype) == 3:
            return _complex_power(xp, a, b)
        if b.ndim:
            return a**b
        b = b.item() if b.dtype.kind != "V" else float(b)
    if category(a.dtype) == 3:
        return _complex_power(xp, a, a.dtype.type(b))
    return _number_power(xp, a, b) if category(a.dtype) == 2 else a**b


def _complex_power(xp: Any, a: Any, b: Any) -> Any:
    """As PyTorch: products for small numbers, else the C library's cpow; NumPy multiplies for all whole exponents."""
    if xp.ndim(b) == 0 and complex(b) in (-1, 0, 0.5, 1, 2, 3):
        return a * a if b == 2 else a * a * a if b == 3 else a ** complex(b)
    return xp.exp(b * xp.log(a))


def _number_power(xp: Any, a: Any, b: float) -> Any:
    """a**b of floats, by products and roots where PyTorch does so too."""
    if b == 2:
        return a * a
    if b == 3:
        return a * a * a
    if b in (0.5, -0.5):
        return xp.sqrt(a) if b > 0 else 1 / xp.sqrt(a)
    if b in (-1, -2):
        return 1 / (a if b == -1 else a * a)
    if xp is not np or a.size < 512 or not math.isfinite(b):
        return a**b
    return _signed_power(a, b)


def _signed_power(a: Any, b: float) -> Any:
    """The power of the absolute values, then the sign: NumPy takes negative ones one by one."""
    y = np.abs(a)
    np.power(y, a.dtype.type(b), out=y)
    if b % 2 == 1:
        return np.copysign(y, a, out=y)
    if b % 1 != 0:
        return choose.where(np, (a < 0) & (a > -np.inf), np.asarray(np.nan, a.dtype), y)
    return y


def _pow_a(ops: Any, g: Any, a: Any, b: Any) -> Any:
    if b.shape == () and b.item() == 2:
        return g * a * 2
    # 0 * inf must be 0 where the exponent is 0
    return ops.where(b == 0, _zero(g), g * b * ops.pow(a, b - 1))


def _pow_b(ops: Any, g: Any, a: Any, b: Any, y: Any) -> Any:
    settled = a == 0 if _complex(b) else (a == 0) & (b >= 0)
    return ops.where(settled, _zero(g), g * y * ops.log(a))


def _complex(t: Any) -> bool:
    return t.is_complex() if isinstance(t, Variable) else t.dtype.kind == "c"


def _zero(like: Any) -> Any:
    """A 0-d zero of the kind (array or Tensor) and dtype of `like`."""
    return like.new_zeros(()) if isinstance(like, Variable) else np.zeros((), like.dtype)


add = binary("add", lambda xp, a, b: a + b, lambda g: g, lambda g: g)
sub = binary("sub", lambda xp, a, b: a - b, lambda g: g, lambda g: -g, bools=False)
mul = binary("mul", lambda xp, a, b: a * b, lambda g, b: g * b, lambda g, a: g * a, analytic=True)
div = binary(
    "div",
    lambda xp, a, b: a / b,
    lambda g, b: g / b,
    lambda g, a, b: -g * a / (b * b),
    least=2,
    analytic=True,
)
pow = binary("pow", _pow, _pow_a, _pow_b, analytic=True)
maximum = binary(
    "maximum",
    lambda xp, a, b: xp.maximum(a, b),
    lambda g, a, b: g * (a > b) + g * (a == b) * 0.5,
    lambda g, a, b: g * (b > a) + g * (a == b) * 0.5,
)
minimum = binary(
    "minimum",
    lambda xp, a, b: xp.minimum(a, b),
    lambda g, a, b: g * (a < b) + g * (a == b) * 0.5,
    lambda g, a, b: g * (b < a) + g * (a == b) * 0.5,
)


def _floor_divide(xp: Any, a: Any, b: Any) -> Any:
    if category(a.dtype) <= 1 and xp.any(b == 0):
        raise RuntimeError("[floor_divide] integers cannot be divided by zero, came a zero divisor")
    return xp.floor_divide(a, b)


def _remainder(xp: Any, a: Any, b: Any) -> Any:
    if category(a.dtype) <= 1 and xp.any(b == 0):
        raise RuntimeError("[remainder] integers cannot be divided by zero, came a zero divisor")
    if xp is np and a.dtype.kind == "f" and a.size > 512:
        return _float_remainder(a, b)
    return xp.remainder(a, b)


def _float_remainder(a: Any, b: Any) -> Any:
    """C's fmod moved to the sign of the divisor: several times faster than NumPy's remainder, and PyTorch's way."""
    y = np.fmod(a, b)
    b = np.asarray(b, y.dtype)
    return choose.where(np, (y != 0) & ((y < 0) != (b < 0)), y + b, y)


def _fmod(xp: Any, a: Any, b: Any) -> Any:
    if a.dtype == BOOL:
        raise RuntimeError("[fmod] the dtype must be a number's, came bool")
    if category(a.dtype) == 1 and xp.any(b == 0):
        raise RuntimeError("[fmod] integers cannot be divided by zero, came a zero divisor")
    return xp.fmod(a, b)


floor_divide = binary("floor_divide", _floor_divide)
remainder = binary("remainder", _remainder, lambda g: g, lambda ops, g, a, b: -g * ops.floor(a / b))
fmod = binary("fmod", _fmod, lambda g: g, lambda ops, g, a, b: -g * ops.trunc(a / b))
atan2 = binary(
    "atan2",
    lambda xp, a, b: xp.arctan2(a, b),
    lambda g, a, b: g * b / (a * a + b * b),
    lambda g, a, b: -g * a / (a * a + b * b),
    least=2,
)

# ---- functions of one tensor


def real_sign(xp: Any, x: Any) -> Any:
    """0 for NaN, as PyTorch has it."""
    if x.dtype == BOOL:
        return x.copy()
    if x.dtype.kind != "f":
        return xp.sign(x)
    return ((x > 0).view(np.int8) - (x < 0).view(np.int8)).astype(x.dtype)


neg = unary("neg", lambda xp, x: -x, lambda g: -g, hint="bool tensors cannot be negated: use ~")
abs = unary("abs", lambda xp, x: xp.abs(x), lambda ops, g, x: g * ops.sign(x))
sign = unary("sign", real_sign, lambda g: g * 0)
square = unary(
    "square", lambda xp, x: x.astype(I64) if x.dtype == BOOL else x * x, lambda g, x: g * x * 2, analytic=True
)
exp = unary("exp", lambda xp, x: xp.exp(x), lambda g, y: g * y, floating=True, analytic=True)
expm1 = unary("expm1", lambda xp, x: xp.expm1(x), lambda g, y: g * (y + 1), floating=True, analytic=True)
exp2 = unary("exp2", lambda xp, x: xp.exp2(x), lambda g, y: g * y * math.log(2), floating=True, analytic=True)
log = unary("log", lambda xp, x: xp.log(x), lambda g, x: g / x, floating=True, analytic=True)
log2 = unary(
    "log2", lambda xp, x: xp.log2(x), lambda g, x: g / (x * math.log(2)), floating=True, analytic=True
)
log10 = unary(
    "log10", lambda xp, x: xp.log10(x), lambda g, x: g / (x * math.log(10)), floating=True, analytic=True
)
log1p = unary("log1p", lambda xp, x: xp.log1p(x), lambda g, x: g / (x + 1), floating=True, analytic=True)
sqrt = unary("sqrt", lambda xp, x: xp.sqrt(x), lambda g, y: g / (y * 2), floating=True, analytic=True)
rsqrt = unary(
    "rsqrt", lambda xp, x: 1 / xp.sqrt(x), lambda g, y: g * y * y * y * -0.5, floating=True, analytic=True
)
reciprocal = unary(
    "reciprocal",
    lambda xp, x: 1 / x,
    lambda g, y: -g * y * y,
    floating=True,
    analytic=True,
)
sin = unary("sin", lambda xp, x: xp.sin(x), lambda ops, g, x: g * ops.cos(x), floating=True, analytic=True)
cos = unary(
    "cos",
    lambda xp, x: xp.cos(x),
    lambda ops, g, x: -g * ops.sin(x),
    floating=True,
    analytic=True,
)
tan = unary("tan", lambda xp, x: xp.tan(x), lambda g, y: g * (y * y + 1), floating=True, analytic=True)
asin = unary(
    "asin",
    lambda xp, x: xp.arcsin(x),
    lambda ops, g, x: g * ops.rsqrt(1 - x * x),
    floating=True,
    analytic=True,
)
acos = unary(
    "acos",
    lambda xp, x: xp.arccos(x),
    lambda ops, g, x: -g * ops.rsqrt(1 - x * x),
    floating=True,
    analytic=True,
)
atan = unary(
    "atan",
    lambda xp, x: xp.arctan(x),
    lambda g, x: g / (x * x + 1),
    floating=True,
    analytic=True,
)
sinh = unary(
    "sinh",
    lambda xp, x: xp.sinh(x),
    lambda ops, g, x: g * ops.cosh(x),
    floating=True,
    analytic=True,
)
cosh = unary(
    "cosh",
    lambda xp, x: xp.cosh(x),
    lambda ops, g, x: g * ops.sinh(x),
    floating=True,
    analytic=True,
)
tanh = unary("tanh", lambda xp, x: xp.tanh(x), lambda g, y: g * (1 - y * y), floating=True, analytic=True)
floor = unary("floor", lambda xp, x: x.copy() if category(x.dtype) < 2 else xp.floor(x), lambda g: g * 0)
ceil = unary("ceil", lambda xp, x: x.copy() if category(x.dtype) < 2 else xp.ceil(x), lambda g: g * 0)
trunc = unary("trunc", lambda xp, x: x.copy() if category(x.dtype) < 2 else xp.trunc(x), lambda g: g * 0)


def _round(xp: Any, x: Any, *, decimals: int = 0) -> Any:
    return xp.round(x, decimals)


round = Op("round", _round, [lambda g: g * 0])


sigmoid = unary(
    "sigmoid",
    lambda xp, x: 1 / (1 + xp.exp(-x)),
    lambda g, y: g * (y * (1 - y)),
    floating=True,
    analytic=True,
)


def _erf(xp: Any, x: Any) -> Any:
    return erf_float32(xp, x) if x.dtype == F32 else _cody_erf(xp, x)


# atanh(erf(x)) / x as a polynomial in x^2: minimax in the relative error of erf, 7e-8 before rounding; the leading
# terms grow, so that tanh saturates beyond the fitted range [0, 4.2].
_LOGIT: tuple[float, ...] = (5.688856804952405e-09, 2.217219800385625e-08, -4.754765153692429e-06)
_LOGIT += (8.446236383136089e-05, -0.000614626096000715, -0.0001954326397664376, 0.10276989707810846)
_LOGIT += (1.1283792461177768,)


def erf_float32(xp: Any, x: Any) -> Any:
    """erf in float32 as tanh of an odd polynomial, in pieces that stay in the cache."""
    y = xp.empty(x.shape, x.dtype)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for part in blocks(flat_x.size):
        out = flat_y[part]
        z = xp.square(flat_x[part])
        xp.multiply(z, _LOGIT[0], out=out)
        for c in _LOGIT[1:-1]:
            out += c
            out *= z
        out += _LOGIT[-1]
        out *= flat_x[part]
        xp.tanh(out, out=out)
    return y


# W. J. Cody, Rational Chebyshev approximations for the error function (1969): float64.
_C1: tuple[float, ...] = (
    1.85777706184603153e-1,
    3.16112374387056560e00,
    1.13864154151050156e02,
    3.77485237685302021e02,
)
_C1 += (3.20937758913846947e03,)
_D1: tuple[float, ...] = (
    1.0,
    2.36012909523441209e01,
    2.44024637934444173e02,
    1.28261652607737228e03,
    2.84423683343917062e03,
)
_C2: tuple[float, ...] = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e00,
    6.61191906371416295e01,
)
_C2 += (2.98635138197400131e02, 8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03)
_C2 += (1.23033935479799725e03,)
_D2: tuple[float, ...] = (
    1.0,
    1.57449261107098347e01,
    1.17693950891312499e02,
    5.37181101862009858e02,
    1.62138957456669019e03,
)
_D2 += (3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03)
_C3: tuple[float, ...] = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
)
_C3 += (1.60837851487422766e-2, 6.58749161529837803e-4)
_D3: tuple[float, ...] = (
    1.0,
    2.56852019228982242e00,
    1.87295284992346047e00,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
)
_D3 += (2.33520497626869185e-3,)


def _ratio(xp: Any, c: tuple[float, ...], d: tuple[float, ...], z: Any) -> Any:
    return xp.polyval(xp.asarray(c), z) / xp.polyval(xp.asarray(d), z)


def _cody_erf(xp: Any, x: Any) -> Any:
    ax = xp.abs(x)
    inner = x * _ratio(xp, _C1, _D1, xp.minimum(ax, 0.5) ** 2)
    middle = 1 - xp.exp(-ax * ax) * _ratio(xp, _C2, _D2, xp.clip(ax, 0.46875, 4.0))
    z = 1 / xp.maximum(ax, 4.0) ** 2
    outer = 1 - xp.exp(-ax * ax) * (1 / math.sqrt(math.pi) - z * _ratio(xp, _C3, _D3, z)) / xp.maximum(
        ax, 4.0
    )
    y = xp.copysign(xp.where(ax > 4.0, outer, middle), x)
    return xp.where(xp.isnan(x), x, xp.where(ax <= 0.46875, inner, y))


erf = unary("erf", _erf, lambda ops, g, x: g * ops.exp(-x * x) * (2 / math.sqrt(math.pi)), floating=True)
# ---- comparisons and bits

eq = comparison("eq", lambda xp, a, b: a == b)
ne = comparison("ne", lambda xp, a, b: a != b)
lt = comparison("lt", lambda xp, a, b: a < b)
le = comparison("le", lambda xp, a, b: a <= b)
gt = comparison("gt", lambda xp, a, b: a > b)
ge = comparison("ge", lambda xp, a, b: a >= b)
logical_and = comparison("logical_and", lambda xp, a, b: xp.logical_and(a, b))
logical_or = comparison("logical_or", lambda xp, a, b: xp.logical_or(a, b))
logical_xor = comparison("logical_xor", lambda xp, a, b: xp.logical_xor(a, b))
logical_not = unary("logical_not", lambda xp, x: xp.logical_not(x))
bitwise_and = binary("bitwise_and", lambda xp, a, b: a & b, hint="must be bool or integer tensors")
bitwise_or = binary("bitwise_or", lambda xp, a, b: a | b, hint="must be bool or integer tensors")
bitwise_xor = binary("bitwise_xor", lambda xp, a, b: a ^ b, hint="must be bool or integer tensors")
bitwise_not = unary("bitwise_not", lambda xp, x: ~x, hint="must be a bool or integer tensor")
lshift = binary("bitwise_left_shift", lambda xp, a, b: a << b, hint="must be integer tensors")
rshift = binary("bitwise_right_shift", lambda xp, a, b: a >> b, hint="must be integer tensors")
isnan = unary("isnan", lambda xp, x: xp.isnan(x))
isinf = unary("isinf", lambda xp, x: xp.isinf(x))
isfinite = unary("isfinite", lambda xp, x: xp.isfinite(x))

# ---- dtype, copies


def _cast(xp: Any, x: Any, *, dtype: Any) -> Any:
    if xp is np and x.dtype == F32 and x.size >= LARGE and dtype in low_floats:
        made = faster("narrowed", np, x, np.dtype(dtype))
        if made is not None:
            return made
    if xp is np and dtype == F32 and x.size >= LARGE and x.dtype in low_floats:
        return _widened(x)
    return x.astype(dtype)


@cache
def _halves() -> Any:
    """All float16 numbers by their bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(F32)


def _widened(x: Any) -> Any:
    """A 16-bit float's value in float32, by a table or its bits: NumPy takes them one by one."""
    bits = np.ascontiguousarray(x).view(np.uint16)
    if x.dtype == np.float16:
        return _halves().take(bits)
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(F32)


def _cast_rule(ops: Any, g: Any, x_dtype: Any) -> Any:
    if _complex(g):
        g = g if x_dtype.kind == "c" else ops.real(g)  # a real input moves along the real axis alone
    return ops.cast(g, dtype=x_dtype)


cast = Op(
    "cast",
    _cast,
    [_cast_rule],
    half="native",
    prepare=lambda x, *, dtype: ((x,), {"dtype": to_numpy(dtype)}),
)
clone = unary("clone", lambda xp, x: x.copy(order="K"), lambda g: g)

# ---- selection


def _where_prepare(condition: Any, a: Any, b: Any) -> tuple[Any, dict[str, Any]]:
    cond = condition.array if isinstance(condition, Variable) else condition
    cond = cond if type(cond) in array_namespace else np.asarray(cond)
    if cond.dtype != BOOL:
        condition = cond = mask_of("where", cond)
    if cond.dtype != BOOL:
        raise RuntimeError(f"[where] the condition must be a bool tensor, came {cond.dtype.name}")
    if type(a) in array_namespace and type(b) in array_namespace and a.dtype == b.dtype:
        return (condition, a, b), {}
    return (condition if isinstance(condition, Variable) else cond, *promoted("where", (a, b))), {}


where = Op(
    "where",
    lambda xp, condition, a, b: choose.where(xp, condition, a, b),
    [
        None,
        lambda ops, g, condition: ops.where(condition, g, _zero(g)),
        lambda ops, g, condition: ops.where(condition, _zero(g), g),
    ],
    broadcast=True,
    prepare=_where_prepare,
    hint="shapes must broadcast: be equal, or 1, from the last dimension on",
)


def _clamp(xp: Any, x: Any, min: Any = None, max: Any = None) -> Any:
    if min is None and max is None:
        raise RuntimeError("[clamp] min or max must be given, came neither")
    numbers = (min is None or not min.ndim) and (max is None or not max.ndim)
    if xp is np and numbers and x.size >= 4096 and x.dtype.kind == "f" and x.flags.c_contiguous:
        return bounded(np, x, min, max, np.empty(x.shape, x.dtype))
    if min is None:
        return xp.minimum(x, max)
    if max is None:
        return xp.maximum(x, min)
    if x.size > 4096 and numbers:
        return x.clip(min, max)  # one pass
    return xp.minimum(xp.maximum(x, min), max)


def _clamp_x(ops: Any, g: Any, x: Any, min: Any, max: Any) -> Any:
    inside = x == x if min is None else x >= min
    if max is not None:
        inside = inside & (x <= max)
    return ops.where(inside, g, _zero(g))


SHORT = {F32, F64}


def _number_or_none(v: Any) -> bool:
    return v is None or type(v) is float or type(v) is int


def _clamp_prepare(x: Any, min: Any = None, max: Any = None) -> tuple[Any, dict[str, Any]]:
    if (
        isinstance(x, Variable)
        and (dtype := x.array.dtype) in SHORT
        and _number_or_none(min)
        and _number_or_none(max)
    ):
        bounds = (None if v is None else np.asarray(v, dtype) for v in (min, max))
        return (x, *bounds), {}
    given = [v for v in (x, min, max) if v is not None]
    cast_ = iter(promoted("clamp", tuple(given)))
    return tuple(None if v is None else next(cast_) for v in (x, min, max)), {}


clamp = Op(
    "clamp",
    _clamp,
    [
        _clamp_x,
        lambda ops, g, x, min: ops.where(x < min, g, _zero(g)),
        lambda ops, g, x, max: ops.where(x > max, g, _zero(g)),
    ],
    broadcast=True,
    prepare=_clamp_prepare,
)


def _masked_fill_prepare(x: Any, mask: Any, value: Any) -> tuple[Any, dict[str, Any]]:
    m = mask.array if isinstance(mask, Variable) else mask
    if m.dtype != BOOL:
        raise RuntimeError(f"[masked_fill] the mask must be a bool tensor, came {m.dtype.name}")
    if isinstance(value, Variable):
        if value.array.ndim:
            raise RuntimeError(
                f"[masked_fill] the value must be a number or 0-d, came shape {list(value.shape)}"
            )
        return (x, mask, cast(value, dtype=x.array.dtype)), {}
    dtype = x.array.dtype if isinstance(x, Variable) else x.dtype
    return (x, mask, np.asarray(value, dtype)), {}


masked_fill = Op(
    "masked_fill",
    lambda xp, x, mask, value: choose.where(xp, mask, value, x),
    [
        lambda ops, g, mask: ops.where(mask, _zero(g), g),
        None,
        lambda ops, g, mask: ops.sum_to_shape(ops.where(mask, g, _zero(g)), shape=()),
    ],
    broadcast=True,
    prepare=_masked_fill_prepare,
    hint="the mask must broadcast with the tensor",
)

# ---- overwriting, for in-place use


def _over(xp: Any, a: Any, b: Any) -> Any:
    return xp.broadcast_to(b, a.shape).astype(a.dtype)


copy = Op(
    "copy",
    _over,
    [
        lambda g: g * 0,
        lambda ops, g, b_shape, b_dtype: ops.cast(ops.sum_to_shape(g, shape=b_shape), dtype=b_dtype),
    ],
    half="native",
    hint="the source must broadcast to the target's shape",
)
