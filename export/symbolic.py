"""Array functions as ONNX nodes: `function(Namespace(graph), Symbol)` instead of `function(numpy, array)`.

For elementwise functions that compute in float64 throughout, as those of tensor/ops/gamma.py do. Anything that such a
function asks beyond this is an AttributeError or TypeError when it is exported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import Graph


class Symbol:
    """A float64 or bool array that will be there when the model runs; `name` is its ONNX name."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def _name(self, other: Any) -> str:
        if isinstance(other, Symbol):
            return other.name
        return self.graph.constant(other, np.bool_ if isinstance(other, bool | np.bool_) else np.float64)

    def node(self, kind: str, *others: Any) -> Symbol:
        return Symbol(self.graph, self.graph.node(kind, self.name, *map(self._name, others)))

    def _reversed(self, kind: str, other: Any) -> Symbol:
        return Symbol(self.graph, self.graph.node(kind, self._name(other), self.name))

    def __add__(self, other: Any) -> Symbol:
        return self.node("Add", other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Symbol:
        return self.node("Mul", other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Symbol:
        return self.node("Sub", other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._reversed("Sub", other)

    def __truediv__(self, other: Any) -> Symbol:
        return self.node("Div", other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._reversed("Div", other)

    def __pow__(self, other: Any) -> Symbol:
        return self.node("Pow", other)

    def __rpow__(self, other: Any) -> Symbol:
        return self._reversed("Pow", other)

    def __neg__(self) -> Symbol:
        return self.node("Neg")

    def __and__(self, other: Any) -> Symbol:
        return self.node("And", other)

    def __or__(self, other: Any) -> Symbol:
        return self.node("Or", other)

    def __lt__(self, other: Any) -> Symbol:
        return self.node("Less", other)

    def __le__(self, other: Any) -> Symbol:
        return self.node("LessOrEqual", other)

    def __gt__(self, other: Any) -> Symbol:
        return self.node("Greater", other)

    def __ge__(self, other: Any) -> Symbol:
        return self.node("GreaterOrEqual", other)

    def __eq__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self.node("Equal", other)

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Symbol:
        return self


def _unary(kind: str) -> Callable[[Any, Symbol], Symbol]:
    return lambda self, x: x.node(kind)


class Namespace:
    """What stands for NumPy. Functions of numbers alone are NumPy's."""

    float64, inf, nan = np.float64, math.inf, math.nan

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    log, exp, sqrt, sin = _unary("Log"), _unary("Exp"), _unary("Sqrt"), _unary("Sin")
    floor, abs, isnan, isinf = _unary("Floor"), _unary("Abs"), _unary("IsNaN"), _unary("IsInf")

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        return x if isinstance(x, Symbol) else np.asarray(x, dtype)

    def _symbol(self, x: Any) -> Symbol:
        return x if isinstance(x, Symbol) else Symbol(self.graph, self.graph.constant(x, np.float64))

    def where(self, condition: Symbol, a: Any, b: Any) -> Symbol:
        return condition.node("Where", self._symbol(a), self._symbol(b))

    def minimum(self, a: Any, b: Any) -> Symbol:
        return self._symbol(a).node("Min", b)

    def maximum(self, a: Any, b: Any) -> Symbol:
        return self._symbol(a).node("Max", b)

    def clip(self, x: Symbol, low: float, high: float) -> Symbol:
        return x.node("Clip", low, high)

    def tan(self, x: Symbol) -> Symbol:
        return x.node("Sin") / x.node("Cos")  # ONNX Runtime has no Tan for float64

    def trunc(self, x: Symbol) -> Symbol:
        return x.node("Sign") * x.node("Abs").node("Floor")

    def log1p(self, x: Symbol) -> Symbol:
        """By Kahan: the rounding of 1 + x is divided out again."""
        y = x + 1.0
        return self.where(y == 1.0, x, self.log(y) * x / self.where(y == 1.0, 1.0, y - 1.0))

    def copysign(self, size: Any, sign: Symbol) -> Symbol:
        magnitude = self._symbol(size).node("Abs")
        minus = (sign < 0.0) | (1.0 / sign < 0.0)  # that of -0.0 too
        return self.where(minus, -magnitude, magnitude)

    def polyval(self, coefficients: Any, x: Symbol) -> Symbol:
        y: Any = float(coefficients[0])
        for c in coefficients[1:]:
            y = x * y + float(c)
        return y

    def zeros_like(self, x: Symbol) -> Symbol:
        return self._symbol(0.0)

    def ones_like(self, x: Symbol) -> Symbol:
        return self._symbol(1.0)

    def broadcast_arrays(self, *arrays: Any) -> list[Symbol]:
        return [self._symbol(x) for x in arrays]  # ONNX's operators stretch them


__all__ = ["Namespace", "Symbol"]
