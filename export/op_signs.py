"""Elementwise ops with special cases (signs, NaN, zero, out of range) as ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .graph import Graph, Val
from .op_pointwise import _floor_divide, _is_bool, _log1p, _pair
from .table import emits


def broadcast(g: Graph, a: Any, b: Any) -> tuple[Val, Val]:
    """Both operands as Vals of one dtype; a number is a 0-d one."""
    like = a if isinstance(a, Val) else b
    return tuple(  # type: ignore[return-value]
        x if isinstance(x, Val) else Val(g.like(x, like), (), like.dtype) for x in (a, b)
    )


def negative(g: Graph, x: Val) -> str:
    """Whether the sign is minus, also that of -0.0 (not that of NaN, which ONNX cannot see)."""
    below = g.node("Less", x, g.like(0, x))
    if x.dtype.kind != "f":
        return below
    return g.node("Or", below, g.node("Less", g.node("Reciprocal", x), g.like(0, x)))


@emits("signbit")
def _signbit(g: Graph, x: Val) -> str:
    return negative(g, x) if not _is_bool(x) else g.node("Xor", x, x)


@emits("copysign")
def _copysign(g: Graph, a: Any, b: Any) -> str:
    x, sign = broadcast(g, a, b)
    size = g.node("Abs", x)
    return g.node("Where", negative(g, sign), g.node("Neg", size), size)


@emits("angle")
def _angle(g: Graph, x: Val) -> str:
    y = g.node("Where", g.node("Less", x, g.like(0, x)), g.like(math.pi, x), g.like(0, x))
    return g.node("Where", g.node("IsNaN", x), x, y)


@emits("heaviside")
def _heaviside(g: Graph, a: Any, b: Any) -> str:
    x, at_zero = broadcast(g, a, b)
    y = g.cast(g.node("Greater", x, g.like(0, x)), x.dtype)
    y = g.node("Where", g.node("Equal", x, g.like(0, x)), at_zero, y)
    return y if x.dtype.kind != "f" else g.node("Where", g.node("IsNaN", x), x, y)


@emits("isreal")
def _isreal(g: Graph, x: Val) -> str:
    return g.node("Expand", g.constant(True), g.node("Shape", x))


@emits("conj", "copy_to")
def _same(g: Graph, x: Val, **_: Any) -> str:
    return g.node("Identity", x)


@emits("fmax", "fmin")
def _fmax(g: Graph, a: Any, b: Any) -> str:
    x, y = broadcast(g, a, b)
    best = g.node("Max" if g.label == "fmax" else "Min", x, y)
    if x.dtype.kind != "f":
        return best
    best = g.node("Where", g.node("IsNaN", y), x, best)
    return g.node("Where", g.node("IsNaN", x), y, best)


@emits("sinc")
def _sinc(g: Graph, x: Val) -> str:
    zero = g.node("Equal", x, g.like(0, x))
    z = g.node("Mul", g.node("Where", zero, g.like(1, x), x), g.like(math.pi, x))
    return g.node("Where", zero, g.like(1, x), g.node("Div", g.node("Sin", z), z))


@emits("logit")
def _logit(g: Graph, x: Val, eps: float | None) -> str:
    p: Any = x if eps is None else g.node("Clip", x, g.like(eps, x), g.like(1 - eps, x))
    return g.node("Log", g.node("Div", p, g.node("Sub", g.like(1, x), p)))


@emits("logaddexp2")
def _logaddexp2(g: Graph, a: Any, b: Any) -> str:
    x, y = broadcast(g, a, b)
    apart = g.node("Mul", g.node("Abs", g.node("Sub", x, y)), g.like(-math.log(2), x))
    more = g.node("Div", g.node("Softplus", apart), g.like(math.log(2), x))
    return g.node("Add", g.node("Max", x, y), more)


# ---- logarithms times something that may be zero


def times_log(g: Graph, a: Val, logs: str, broken: str | None = None) -> str:
    """a * logs, 0 where a is 0 (and NaN where `broken`)."""
    y = g.node("Where", g.node("Equal", a, g.like(0, a)), g.like(0, a), g.node("Mul", a, logs))
    return y if broken is None else g.node("Where", broken, g.like(math.nan, a), y)


@emits("xlogy")
def _xlogy(g: Graph, a: Any, b: Any) -> str:
    x, y = broadcast(g, a, b)
    return times_log(g, x, g.node("Log", y), g.node("IsNaN", y))


@emits("xlog1py")
def _xlog1py(g: Graph, a: Any, b: Any) -> str:
    x, y = broadcast(g, a, b)
    return times_log(g, x, _log1p(g, y), g.node("IsNaN", y))


@emits("x_log_x")
def _x_log_x(g: Graph, x: Val) -> str:
    return times_log(g, x, g.node("Log", x))


@emits("entr")
def _entr(g: Graph, x: Val) -> str:
    y = g.node("Neg", times_log(g, x, g.node("Log", x)))
    return g.node("Where", g.node("Less", x, g.like(0, x)), g.like(-math.inf, x), y)


# ---- the error function: differences from 1, so exact to float's last place of 1, not of the result


@emits("erfc")
def _erfc(g: Graph, x: Val) -> str:
    return g.node("Sub", g.like(1, x), g.node("Erf", x))


@emits("ndtr")
def _ndtr(g: Graph, x: Val) -> str:
    y = g.node("Erf", g.node("Mul", x, g.like(math.sqrt(0.5), x)))
    return g.node("Mul", g.node("Add", y, g.like(1, x)), g.like(0.5, x))


# ---- shifts, of which ONNX has those of unsigned integers only


def _power_of_two(g: Graph, bits: Any, x: Any) -> Val:
    like = x if isinstance(x, Val) else bits
    name = g.node("Pow", g.constant(2, like.dtype), g.like(bits, like))
    return Val(name, bits.shape if isinstance(bits, Val) else (), like.dtype)


@emits("bitwise_left_shift")
def _left_shift(g: Graph, a: Any, b: Any) -> str:
    return g.node("Mul", *_pair(g, a, _power_of_two(g, b, a)))


@emits("bitwise_right_shift")
def _right_shift(g: Graph, a: Any, b: Any) -> str:
    return _floor_divide(g, a, _power_of_two(g, b, a))


# ---- products


@emits("cross")
def _cross(g: Graph, a: Val, b: Val, dim: int) -> str:
    def turned(x: Val, by: int) -> str:
        return g.node("Gather", x, g.constant(np.roll(np.arange(3), -by), np.int64), axis=dim)

    left = g.node("Mul", turned(a, 1), turned(b, 2))
    return g.node("Sub", left, g.node("Mul", turned(a, 2), turned(b, 1)))


@emits("det")
def _det(g: Graph, x: Val) -> str:
    return g.node("Det", x)
