"""Reductions, sorting and running sums as ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .graph import Graph, Val
from .op_shape import fixed
from .table import emits


def _typed(g: Graph, x: Val) -> str:
    """x in the output's dtype: integers and bools are summed in int64."""
    return x.name if x.dtype == g.out[0].dtype else g.cast(x, g.out[0].dtype)


KINDS = {
    "sum": "ReduceSum",
    "mean": "ReduceMean",
    "prod": "ReduceProd",
    "amax": "ReduceMax",
    "amin": "ReduceMin",
}
KINDS |= {"norm2": "ReduceL2", "logsumexp": "ReduceLogSumExp"}


@emits(*KINDS)
def _reduce(g: Graph, x: Val, dim: Any, keepdim: bool) -> str:
    y = _typed(g, x)
    if not x.ndim:  # a single number
        return g.node("Abs" if g.label == "norm2" else "Identity", y)
    if g.label == "mean" and 0 in x.shape:
        return _not_a_number(g)
    return g.reduce(KINDS[g.label], y, dim, keepdim)


def _not_a_number(g: Graph) -> str:
    """The mean of nothing."""
    return g.node("Expand", g.constant(math.nan, g.out[0].dtype), g.ints(g.out[0].shape))


@emits("sum_all", "mean_all")
def _reduce_all(g: Graph, x: Val) -> str:
    y = _typed(g, x)
    if not x.ndim:
        return g.node("Identity", y)
    if g.label == "mean_all" and 0 in x.shape:
        return _not_a_number(g)
    return g.reduce("ReduceSum" if g.label == "sum_all" else "ReduceMean", y, None, False)


@emits("all", "any")
def _all(g: Graph, x: Val, dim: Any, keepdim: bool) -> str:
    truth = g.cast(x, np.bool_)
    counted = g.cast(g.node("Not", truth) if g.label == "all" else truth, np.int32)
    total = g.reduce("ReduceSum", counted, dim, keepdim) if x.ndim else counted
    none = g.node("Equal", total, g.constant(0, np.int32))
    return none if g.label == "all" else g.node("Not", none)


@emits("argmax", "argmin")
def _argmax(g: Graph, x: Val, dim: int | None, keepdim: bool) -> str:
    kind = "ArgMax" if g.label == "argmax" else "ArgMin"
    y = x.name if x.dtype != np.bool_ else g.cast(x, np.int32)
    if dim is not None:
        return g.node(kind, y, axis=dim, keepdims=int(keepdim))
    first = g.node(kind, g.node("Reshape", y, g.ints([-1])), axis=0, keepdims=0)
    return g.reshape(first, (1,) * len(g.out[0].shape))


@emits("var", "std")
def _var(g: Graph, x: Val, dim: Any, correction: float, keepdim: bool) -> str:
    squared = "ReduceMean"
    centred = g.node("Sub", x, g.reduce(squared, x, dim, True)) if x.ndim else g.node("Sub", x, x)
    y = g.node("Mul", centred, centred)
    y = g.reduce(squared, y, dim, keepdim) if x.ndim else y
    if correction:
        count = math.prod(fixed(1, *(x.shape[d] for d in dim)))
        y = g.node("Mul", y, g.like(count / (count - correction) if count > correction else math.nan, x))
    return g.node("Sqrt", y) if g.label == "std" else y


@emits("cumsum")
def _cumsum(g: Graph, x: Val, dim: int) -> str:
    y = _typed(g, x)
    return g.node("CumSum", y, g.constant(dim, np.int64)) if x.ndim else g.node("Identity", y)


def _order(g: Graph, x: Val, k: Any, dim: int, largest: bool) -> str:
    """Positions of the k largest or smallest, best first; equal ones in order."""
    y = x.name if x.dtype != np.bool_ else g.cast(x, np.int32)
    return g.nodes_out("TopK", 2, y, g.ints([k]), axis=dim, largest=int(largest), sorted=1)[1]


@emits("argsort")
def _argsort(g: Graph, x: Val, dim: int, descending: bool) -> str:
    return _order(g, x, x.shape[dim], dim, descending) if x.ndim else g.constant(0, np.int64)


@emits("argtopk", sizes=("k",))
def _argtopk(g: Graph, x: Val, k: Any, dim: int, largest: bool) -> str:
    return _order(g, x, k, dim, largest) if x.ndim else g.constant(0, np.int64)


@emits("argkth")
def _argkth(g: Graph, x: Val, k: int, dim: int) -> str:
    if not x.ndim:
        return g.constant(0, np.int64)
    return g.node("Gather", _order(g, x, k, dim, False), g.constant(k - 1, np.int64), axis=dim)
