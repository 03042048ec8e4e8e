"""Special functions with their derivatives (array functions: gamma.py)."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.op import Op
from ..dtypes import F32
from . import gamma
from .declare import binary, unary
from .pointwise import _cody_erf, _zero

Array = Any
SQRT_PI = math.sqrt(math.pi)


def _rounded(function: Any, *rest: Any, single: Any = None) -> Any:
    """The function, computed in float64 and rounded; `single` is a shorter way for float32."""

    def full(xp: Any, x: Array) -> Array:
        return function(xp, x, *rest)

    wide = gamma.blocks(full, "float64")
    short = wide if single is None else gamma.blocks(single, "float64")
    return lambda xp, x: (short if x.dtype == F32 else wide)(xp, x)


def _bessel(order: int, scaled: bool) -> Any:
    def full(xp: Any, x: Array) -> Array:
        y = gamma.bessel_ie(xp, order, x)
        return y if scaled else y * xp.exp(xp.abs(x))

    return gamma.blocks(full, "float64")


lgamma = unary("lgamma", _rounded(gamma.lgamma), lambda ops, g, x: g * ops.digamma(x), floating=True)
digamma = unary(
    "digamma", _rounded(gamma.digamma), lambda ops, g, x: g * ops.polygamma(x, n=1), floating=True
)


def _polygamma_prepare(x: Any, *, n: int) -> Any:
    if n < 0:
        raise RuntimeError(f"[polygamma] n must not be negative, came {n}")
    return (x,), {"n": n}


polygamma = Op(
    "polygamma",
    lambda xp, x, *, n: gamma.polygamma(xp, n, x).astype(x.dtype),
    [lambda ops, g, x, n: g * ops.polygamma(x, n=n + 1)],
    prepare=_polygamma_prepare,
)
zeta = binary("zeta", lambda xp, a, b: gamma.zeta(xp, a, b).astype(xp.asarray(a).dtype), least=2)


def _erfinv_rule(ops: Any, g: Any, x: Any) -> Any:
    y = ops.erfinv(x)  # not kept: PyTorch's users may write over the result
    return g * ops.exp(y * y) * (SQRT_PI / 2)


erfinv = unary(
    "erfinv",
    _rounded(gamma.erfinv, single=gamma.erfinv_single),
    _erfinv_rule,
    floating=True,
)
erfc = unary(
    "erfc",
    _rounded(gamma.erfc, _cody_erf, single=gamma.erfc_single),
    lambda ops, g, x: g * ops.exp(-x * x) * (-2 / SQRT_PI),
    floating=True,
)
erfcx = unary(
    "erfcx",
    _rounded(gamma.erfcx, _cody_erf),
    lambda g, x, y: g * (x * y * 2 - 2 / SQRT_PI),
    floating=True,
)
ndtr = unary(
    "ndtr",
    lambda xp, x: (gamma.erfc(xp, -x / math.sqrt(2), _cody_erf) / 2).astype(x.dtype),
    lambda ops, g, x: g * ops.exp(x * x * -0.5) / math.sqrt(2 * math.pi),
    floating=True,
)
log_ndtr = unary(
    "log_ndtr",
    _rounded(gamma.log_ndtr, _cody_erf),
    lambda ops, g, x: g / ops.erfcx(x * (-1 / math.sqrt(2))) * math.sqrt(2 / math.pi),
    floating=True,
)
ndtri = unary(
    "ndtri",
    _rounded(gamma.ndtri),
    lambda ops, g, y: g * ops.exp(y * y * 0.5) * math.sqrt(2 * math.pi),
    floating=True,
)


def _entr_rule(ops: Any, g: Any, x: Any) -> Any:
    return g * (-ops.log(x) - 1)


entr = unary(
    "entr",
    lambda xp, x: xp.where(x > 0, -x * xp.log(xp.where(x > 0, x, 1)), xp.where(x < 0, -xp.inf, x)).astype(
        x.dtype
    ),
    _entr_rule,
    floating=True,
)
i0e = unary(
    "i0e",
    _bessel(0, True),
    lambda ops, g, x, y: g * (ops.i1e(x) - ops.sign(x) * y),
    floating=True,
)


def _i1e_rule(ops: Any, g: Any, x: Any, y: Any) -> Any:
    safe = ops.where(x == 0, x + 1, x)
    return g * ops.where(x == 0, x * 0 + 0.5, ops.i0e(x) - y * (ops.sign(x) + 1 / safe))


i1e = unary("i1e", _bessel(1, True), _i1e_rule, floating=True)
i0 = unary(
    "i0",
    _bessel(0, False),
    lambda ops, g, x: g * ops.i1(x),
    floating=True,
)


def _i1_rule(ops: Any, g: Any, x: Any, y: Any) -> Any:
    safe = ops.where(x == 0, x + 1, x)
    return g * ops.where(x == 0, _zero(g) + 0.5, ops.i0(x) - y / safe)


i1 = unary(
    "i1",
    _bessel(1, False),
    _i1_rule,
    floating=True,
)
