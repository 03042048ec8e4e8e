"""Elementwise ops as ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .graph import Graph, Val
from .table import emits, emitters, sized
from .trace import ExportError

UNARY = {
    "neg": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "sin": "Sin",
    "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh",
    "tanh": "Tanh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "sigmoid": "Sigmoid", "erf": "Erf",
    "clone": "Identity", "contiguous": "Identity", "alias": "Identity", "positive": "Identity", "relu": "Relu",
    "isnan": "IsNaN", "isinf": "IsInf", "hardswish": "HardSwish",
}  # fmt: skip
BINARY = {
    "sub": "Sub", "div": "Div", "pow": "Pow", "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor",
    "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
}  # fmt: skip


def _unary(kind: str) -> Any:
    return lambda g, x: g.node(kind, x)


def _pair(g: Graph, a: Any, b: Any) -> tuple[str, str]:
    like = a if isinstance(a, Val) else b
    return g.like(a, like), g.like(b, like)


def _binary(kind: str) -> Any:
    return lambda g, a, b: g.node(kind, *_pair(g, a, b))


for _name, _kind in UNARY.items():
    emitters[_name], sized[_name] = _unary(_kind), frozenset()
for _name, _kind in BINARY.items():
    emitters[_name], sized[_name] = _binary(_kind), frozenset()


def _is_bool(x: Any) -> bool:
    return isinstance(x, Val) and x.dtype == np.bool_


def _as_numbers(g: Graph, x: Val) -> Any:
    """bools as int32, which ONNX's comparisons and arithmetic take."""
    return Val(g.cast(x, np.int32), x.shape, np.dtype(np.int32)) if _is_bool(x) else x


def _on_numbers(kind: str, for_bools: str) -> Any:
    def emit(g: Graph, a: Any, b: Any) -> str:
        return g.node(for_bools if _is_bool(a) or _is_bool(b) else kind, *_pair(g, a, b))

    return emit


for _name, _kind, _logic in (
    ("add", "Add", "Or"),
    ("mul", "Mul", "And"),
    ("maximum", "Max", "Or"),
    ("minimum", "Min", "And"),
):
    emits(_name)(_on_numbers(_kind, _logic))


@emits("eq")
def _eq(g: Graph, a: Any, b: Any) -> str:
    return g.node("Equal", *_pair(g, a, b))


@emits("ne")
def _ne(g: Graph, a: Any, b: Any) -> str:
    return g.node("Not", g.node("Equal", *_pair(g, a, b)))


def _truth(g: Graph, x: Any) -> str:
    return g.node("Cast", x, to=g.onnx.TensorProto.BOOL)


@emits("logical_not")
def _not(g: Graph, x: Val) -> str:
    return g.node("Not", _truth(g, x))


for _name, _kind in (("logical_and", "And"), ("logical_or", "Or"), ("logical_xor", "Xor")):
    emitters[_name] = lambda g, a, b, kind=_kind: g.node(kind, *(_truth(g, x) for x in _pair(g, a, b)))


def _bitwise(kind: str, logic: str) -> Any:
    def emit(g: Graph, *inputs: Any) -> str:
        names = _pair(g, *inputs) if len(inputs) == 2 else (inputs[0],)
        if any(_is_bool(x) for x in inputs):
            return g.node(logic, *names)
        g.needs(18, kind)
        return g.node(kind, *names)

    return emit


emits("bitwise_and")(_bitwise("BitwiseAnd", "And"))
emits("bitwise_or")(_bitwise("BitwiseOr", "Or"))
emits("bitwise_xor")(_bitwise("BitwiseXor", "Xor"))
emits("bitwise_not")(_bitwise("BitwiseNot", "Not"))


@emits("floor", "ceil")
def _floor(g: Graph, x: Val) -> str:
    kind = "Floor" if g.label == "floor" else "Ceil"
    return g.node(kind if x.dtype.kind == "f" else "Identity", x)


@emits("trunc")
def _trunc(g: Graph, x: Val) -> str:
    if x.dtype.kind != "f":
        return g.node("Identity", x)
    return g.node("Mul", g.node("Sign", x), g.node("Floor", g.node("Abs", x)))


@emits("frac")
def _frac(g: Graph, x: Val) -> str:
    return g.node("Sub", x, _trunc(g, x))


@emits("sign", "sgn")
def _sign(g: Graph, x: Val) -> str:
    return g.node("Identity" if _is_bool(x) else "Sign", x)


@emits("square")
def _square(g: Graph, x: Val) -> str:
    return g.node("Mul", x, x)


@emits("rsqrt")
def _rsqrt(g: Graph, x: Val) -> str:
    return g.node("Reciprocal", g.node("Sqrt", x))


@emits("exp2")
def _exp2(g: Graph, x: Val) -> str:
    return g.node("Pow", g.like(2, x), x)


@emits("expm1")
def _expm1(g: Graph, x: Val) -> str:
    """2 tanh(x/2) / (1 - tanh(x/2)): exact near 0, where exp(x) - 1 is not."""
    t = g.node("Tanh", g.node("Mul", x, g.like(0.5, x)))
    near = g.node("Div", g.node("Add", t, t), g.node("Sub", g.like(1, x), t))
    small = g.node("Less", g.node("Abs", x), g.like(1, x))
    return g.node("Where", small, near, g.node("Sub", g.node("Exp", x), g.like(1, x)))


@emits("log1p")
def _log1p(g: Graph, x: Any) -> str:
    """2 atanh(x / (2 + x)): exact near 0, where log(1 + x) is not."""
    near = g.node("Atanh", g.node("Div", x, g.node("Add", x, g.like(2, x))))
    small = g.node("Less", g.node("Abs", x), g.like(0.5, x))
    return g.node("Where", small, g.node("Add", near, near), g.node("Log", g.node("Add", x, g.like(1, x))))


for _name, _base in (("log2", 2.0), ("log10", 10.0)):
    emits(_name)(lambda g, x, base=_base: g.node("Div", g.node("Log", x), g.like(math.log(base), x)))

for _name, _factor in (("deg2rad", math.pi / 180), ("rad2deg", 180 / math.pi)):
    emits(_name)(lambda g, x, factor=_factor: g.node("Mul", x, g.like(factor, x)))


@emits("round")
def _round(g: Graph, x: Val, decimals: int = 0) -> str:
    if x.dtype.kind != "f":
        if decimals < 0:
            raise ExportError("[onnx] integers are rounded to ones only")
        return g.node("Identity", x)
    scale = g.like(10.0 ** abs(decimals), x)
    if decimals == 0:
        return g.node("Round", x)
    there, back = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    return g.node(back, g.node("Round", g.node(there, x, scale)), scale)


@emits("isfinite")
def _isfinite(g: Graph, x: Val) -> str:
    bad = g.node("Or", g.node("IsNaN", x), g.node("IsInf", x))
    return g.node("Not", bad)


@emits("isneginf")
def _isneginf(g: Graph, x: Val) -> str:
    return g.node("IsInf", x, detect_positive=0)


@emits("isposinf")
def _isposinf(g: Graph, x: Val) -> str:
    return g.node("IsInf", x, detect_negative=0)


@emits("floor_divide")
def _floor_divide(g: Graph, a: Any, b: Any) -> str:
    like = a if isinstance(a, Val) else b
    x, y = _pair(g, a, b)
    if like.dtype.kind == "f":
        return g.node("Floor", g.node("Div", x, y))
    return g.node("Div", g.node("Sub", x, g.node("Mod", x, y)), y)  # ONNX divides integers toward 0


@emits("remainder")
def _remainder(g: Graph, a: Any, b: Any) -> str:
    like = a if isinstance(a, Val) else b
    x, y = _pair(g, a, b)
    if like.dtype.kind != "f":
        return g.node("Mod", x, y)
    rest = g.node("Mod", x, y, fmod=1)
    other = g.node("Less", g.node("Mul", rest, y), g.like(0, like))
    return g.node("Where", other, g.node("Add", rest, y), rest)


@emits("fmod")
def _fmod(g: Graph, a: Any, b: Any) -> str:
    return g.node("Mod", *_pair(g, a, b), fmod=1)


@emits("atan2")
def _atan2(g: Graph, a: Any, b: Any) -> str:
    like = a if isinstance(a, Val) else b
    y, x = _pair(g, a, b)
    zero, pi = g.like(0, like), g.like(math.pi, like)
    angle = g.node("Atan", g.node("Div", y, x))
    turn = g.node("Where", g.node("Less", y, zero), g.node("Neg", pi), pi)
    angle = g.node("Where", g.node("Less", x, zero), g.node("Add", angle, turn), angle)
    both = g.node("And", g.node("Equal", x, zero), g.node("Equal", y, zero))
    return g.node("Where", both, zero, angle)


@emits("hypot")
def _hypot(g: Graph, a: Any, b: Any) -> str:
    x, y = _pair(g, a, b)
    return g.node("Sqrt", g.node("Add", g.node("Mul", x, x), g.node("Mul", y, y)))


@emits("logaddexp")
def _logaddexp(g: Graph, a: Any, b: Any) -> str:
    x, y = _pair(g, a, b)
    apart = g.node("Neg", g.node("Abs", g.node("Sub", x, y)))
    return g.node("Add", g.node("Max", x, y), g.node("Softplus", apart))


@emits("cast")
def _cast(g: Graph, x: Val, dtype: Any) -> str:
    return g.cast(x, dtype)


@emits("where")
def _where(g: Graph, condition: Val, a: Any, b: Any) -> str:
    return g.node("Where", condition, *_pair(g, a, b))


@emits("masked_fill")
def _masked_fill(g: Graph, x: Val, mask: Val, value: Any) -> str:
    return g.node("Where", mask, g.like(value, x), x)


@emits("copy")
def _copy(g: Graph, a: Val, b: Any) -> str:
    value = g.cast(g.like(b, a), a.dtype)
    return value if isinstance(b, Val) and b.shape == a.shape else g.node("Expand", value, g.ints(a.shape))


@emits("clamp")
def _clamp(g: Graph, x: Val, min: Any = None, max: Any = None) -> str:
    y = x.name if min is None else g.node("Max", x, g.like(min, x))
    return y if max is None else g.node("Min", y, g.like(max, x))


@emits("nan_to_num")
def _nan_to_num(g: Graph, x: Val, nan: float, posinf: float | None, neginf: float | None) -> str:
    info = np.finfo(x.dtype)
    y = g.node("Where", g.node("IsNaN", x), g.like(nan, x), x)
    y = g.node("Where", _isposinf(g, x), g.like(info.max if posinf is None else posinf, x), y)
    return g.node("Where", _isneginf(g, x), g.like(info.min if neginf is None else neginf, x), y)
