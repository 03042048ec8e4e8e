"""More elementwise ops: rarer functions, pairs, signs; those without much mathematics behind them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...autograd.engine import Variable
from ...autograd.op import Op
from ..dtypes import category, default_float
from .declare import binary, unary
from .pointwise import _zero, cast

Array = Any

# ---- of one tensor

asinh = unary("asinh", lambda xp, x: xp.arcsinh(x), lambda ops, g, x: g * ops.rsqrt(x * x + 1), floating=True)
acosh = unary("acosh", lambda xp, x: xp.arccosh(x), lambda ops, g, x: g * ops.rsqrt(x * x - 1), floating=True)
atanh = unary("atanh", lambda xp, x: xp.arctanh(x), lambda g, x: g / (1 - x * x), floating=True)
deg2rad = unary("deg2rad", lambda xp, x: x * (math.pi / 180), lambda g: g * (math.pi / 180), floating=True)
rad2deg = unary("rad2deg", lambda xp, x: x * (180 / math.pi), lambda g: g * (180 / math.pi), floating=True)
frac = unary("frac", lambda xp, x: x - xp.trunc(x), lambda g: g)
positive = unary("positive", lambda xp, x: x.copy(), lambda g: g)
signbit = unary("signbit", lambda xp, x: xp.signbit(x) if category(x.dtype) > 1 else x < 0)
isposinf = unary("isposinf", lambda xp, x: x == xp.inf)
isneginf = unary("isneginf", lambda xp, x: x == -xp.inf)
isreal = unary("isreal", lambda xp, x: xp.isreal(x))


def _sinc_rule(ops: Any, g: Any, x: Any) -> Any:
    z = x * math.pi
    safe = ops.where(x == 0, x + 1, z)
    return g * ops.where(x == 0, x * 0, (z * ops.cos(z) - ops.sin(z)) / (safe * safe) * math.pi)


sinc = unary("sinc", lambda xp, x: xp.sinc(x), _sinc_rule, floating=True)


def _nan_to_num(xp: Any, x: Array, *, nan: float, posinf: float | None, neginf: float | None) -> Array:
    if category(x.dtype) < 2 or xp.isfinite(x.sum()):  # the sum finds whether there is anything to do
        return x.copy()
    return xp.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


def _nan_to_num_prepare(x: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
    for value in (nan, posinf, neginf):
        if isinstance(value, str):
            raise TypeError(f"[nan_to_num] the replacements must be numbers, came {value!r}")
    return (x,), {"nan": 0.0 if nan is None else nan, "posinf": posinf, "neginf": neginf}


nan_to_num = Op(
    "nan_to_num",
    _nan_to_num,
    [lambda ops, g, x: ops.where((x == x) & (x - x == 0), g, _zero(g))],
    prepare=_nan_to_num_prepare,
)

# ---- of two


def _first(ops: Any, a: Any, b: Any, sign: int) -> Any:
    """Where fmax (sign 1) or fmin (-1) takes `a`: it is at least as good, or `b` is NaN."""
    return (a * sign >= b * sign) | (b != b)


fmax = binary(
    "fmax",
    lambda xp, a, b: xp.fmax(a, b),
    lambda ops, g, a, b: ops.where(_first(ops, a, b, 1), g, _zero(g)),
    lambda ops, g, a, b: ops.where(_first(ops, a, b, 1), _zero(g), g),
)
fmin = binary(
    "fmin",
    lambda xp, a, b: xp.fmin(a, b),
    lambda ops, g, a, b: ops.where(_first(ops, a, b, -1), g, _zero(g)),
    lambda ops, g, a, b: ops.where(_first(ops, a, b, -1), _zero(g), g),
)


def _hypot(xp: Any, a: Array, b: Array) -> Array:
    if a.dtype != xp.float32:
        return xp.hypot(a, b)
    return xp.sqrt(xp.square(a, dtype="float64") + xp.square(b, dtype="float64")).astype(a.dtype)


hypot = binary(
    "hypot",
    _hypot,
    lambda ops, g, a, y: g * ops.where(y == 0, _zero(g), a / y),
    lambda ops, g, b, y: g * ops.where(y == 0, _zero(g), b / y),
)


def _copysign_rule(ops: Any, g: Any, a: Any, y: Any) -> Any:
    return g * ops.where(a == 0, _zero(g), ops.sign(a) * ops.sign(y))


copysign = binary(
    "copysign", lambda xp, a, b: xp.copysign(a, b), _copysign_rule, lambda g, b: g * b * 0, least=2
)
heaviside = binary("heaviside", lambda xp, a, b: xp.heaviside(a, b).astype(a.dtype))
nextafter = binary("nextafter", lambda xp, a, b: xp.nextafter(a, b))
gcd = binary("gcd", lambda xp, a, b: xp.gcd(a, b), hint="must be integer tensors")
lcm = binary("lcm", lambda xp, a, b: xp.lcm(a, b), hint="must be integer tensors")


def _real_log_add(a: Any, b: Any) -> Any:
    """The larger plus log(1 + exp(-distance)), many at a time; of equal infinities themselves."""
    y = np.maximum(a, b)
    far = np.abs(a - b)
    np.negative(far, out=far)
    far = np.log1p(np.exp(far, out=far), out=far)
    equal = np.isnan(far) & (a == b)
    if equal.any():
        far[equal] = 0
    y += far
    return y


def log_add(xp: Any, a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)), of complex numbers too."""
    if a.dtype.kind != "c" and b.dtype.kind != "c":
        return _real_log_add(a, b) if xp is np and a.size > 512 else xp.logaddexp(a, b)
    first = a.real >= b.real
    return xp.where(first, a, b) + xp.log1p(xp.exp(xp.where(first, b - a, a - b)))


logaddexp = binary(
    "logaddexp",
    log_add,
    lambda ops, g, a, b: g * ops.sigmoid(a - b),
    lambda ops, g, a, b: g * ops.sigmoid(b - a),
)
logaddexp2 = binary(
    "logaddexp2",
    lambda xp, a, b: xp.logaddexp2(a, b),
    lambda ops, g, a, b: g * ops.sigmoid((a - b) * math.log(2)),
    lambda ops, g, a, b: g * ops.sigmoid((b - a) * math.log(2)),
)


def _xlogy(xp: Any, a: Array, b: Array) -> Array:
    b = xp.asarray(b, a.dtype)  # a number too
    return xp.where(a == 0, xp.where(xp.isnan(b), b, xp.zeros((), xp.asarray(a).dtype)), a * xp.log(b))


xlogy = binary(
    "xlogy",
    _xlogy,
    lambda ops, g, a, b: g * ops.where((a == 0) & (b <= 0), _zero(g), ops.log(b)),
    lambda g, a, b: g * a / b,
    least=2,
)
xlog1py = binary(
    "xlog1py",
    lambda xp, a, b: _xlogy(xp, a, 1 + b) if xp.any(a == 0) else a * xp.log1p(xp.asarray(b, a.dtype)),
    lambda ops, g, a, b: g * ops.where((a == 0) & (b <= -1), _zero(g), ops.log1p(b)),
    lambda g, a, b: g * a / (b + 1),
    least=2,
)

# ---- logit


def _logit_prepare(x: Any, eps: float | None = None) -> Any:
    if isinstance(x, Variable) and category(x.array.dtype) < 2:
        x = cast(x, dtype=default_float())
    return (x,), {"eps": eps}


def _logit(xp: Any, x: Array, *, eps: float | None) -> Array:
    if eps is not None:
        x = xp.where(x < eps, xp.asarray(eps, x.dtype), xp.minimum(x, xp.asarray(1 - eps, x.dtype)))
    return xp.log(x / (1 - x))


def _logit_rule(ops: Any, g: Any, x: Any, eps: float | None) -> Any:
    full = g / (x * (1 - x))
    if eps is None:
        return full
    return ops.where((x >= eps) & (x <= 1 - eps), full, _zero(g))


logit = Op("logit", _logit, [_logit_rule], prepare=_logit_prepare)
