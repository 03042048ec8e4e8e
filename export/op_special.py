"""Special functions: ONNX has none of them, but what computes them here can be written as its nodes, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.ops import gamma
from ..tensor.ops.pointwise import _cody_erf
from .graph import Graph, Val
from .op_signs import broadcast
from .symbolic import Namespace, Symbol
from .table import emits


def _symbol(g: Graph, x: Val) -> Symbol:
    return Symbol(g, x.name if x.dtype == np.float64 else g.cast(x, np.float64))


def _emit(name: str, function: Any, *rest: Any) -> None:
    @emits(name)
    def emitter(g: Graph, x: Val) -> str:
        return g.cast(function(Namespace(g), _symbol(g, x), *rest).name, x.dtype)


_emit("lgamma", gamma.lgamma)
_emit("digamma", gamma.digamma)
_emit("erfinv", gamma.erfinv)
_emit("ndtri", gamma.ndtri)
_emit("erfcx", gamma.erfcx, _cody_erf)
_emit("log_ndtr", gamma.log_ndtr, _cody_erf)


def _bessel(order: int, scaled: bool) -> Any:
    def function(xp: Namespace, x: Symbol) -> Symbol:
        y = gamma.bessel_ie(xp, order, x)
        return y if scaled else y * xp.exp(xp.abs(x))

    return function


for order in (0, 1):
    _emit(f"i{order}", _bessel(order, False))
    _emit(f"i{order}e", _bessel(order, True))


@emits("polygamma")
def _polygamma(g: Graph, x: Val, n: int) -> str:
    return g.cast(gamma.polygamma(Namespace(g), n, _symbol(g, x)).name, x.dtype)


@emits("zeta")
def _zeta(g: Graph, a: Any, b: Any) -> str:
    s, q = broadcast(g, a, b)
    return g.cast(gamma.zeta(Namespace(g), _symbol(g, s), _symbol(g, q)).name, s.dtype)


@emits("gcd")
def _gcd(g: Graph, a: Any, b: Any) -> str:
    x, y = broadcast(g, a, b)
    return g.cast(_euclid(g, x, y)[0], x.dtype)


@emits("lcm")
def _lcm(g: Graph, a: Any, b: Any) -> str:
    x, y = broadcast(g, a, b)
    divisor, p, q = _euclid(g, x, y)
    one = g.constant(1, np.int64)
    return g.cast(g.node("Mul", g.node("Div", p, g.node("Max", divisor, one)), q), x.dtype)


def _euclid(g: Graph, x: Val, y: Val) -> tuple[str, str, str]:
    """The greatest common divisor, and both numbers without sign, in int64: a Loop until all remainders are 0."""
    p, q = (g.node("Abs", g.cast(v, np.int64)) for v in (x, y))
    shape = g.node("Shape", g.node("Add", p, q))
    start = (g.node("Expand", p, shape), g.node("Expand", q, shape))
    return g.nodes_out("Loop", 2, None, g.constant(True), *start, body=_remainders(g))[0], p, q


def _remainders(g: Graph) -> Any:
    """A round of the Loop: (a, b) becomes (b, a mod b), or stays where b is 0."""
    words = "step going a b zero one divisor done left rest next most more"
    n = {word: g.unique(f"gcd_{word}") for word in words.split()}
    make, kinds = g.onnx.helper, g.onnx.TensorProto
    rows = [
        ("Max", "b one", "divisor"),
        ("Equal", "b zero", "done"),
        ("Mod", "a divisor", "left"),
        ("Where", "done b left", "rest"),
        ("Where", "done a b", "next"),
        ("ReduceMax", "rest", "most"),
        ("GreaterOrEqual", "most one", "more"),
    ]
    nodes = [
        make.make_node(
            kind, [n[i] for i in inputs.split()], [n[output]], **{"keepdims": 0} if output == "most" else {}
        )
        for kind, inputs, output in rows
    ]

    def values(names: str) -> list[Any]:
        truths, numbers = ("going", "more"), ("step",)
        return [
            make.make_tensor_value_info(
                n[name],
                kinds.BOOL if name in truths else kinds.INT64,
                [] if name in truths + numbers else None,
            )
            for name in names.split()
        ]

    constants = [
        g.onnx.numpy_helper.from_array(np.array(i, np.int64), n[w]) for i, w in enumerate(("zero", "one"))
    ]
    return make.make_graph(nodes, "euclid", values("step going a b"), values("more next rest"), constants)
