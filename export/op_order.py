"""Ops that compare or combine all earlier elements of a dimension, and medians and modes, as ONNX nodes.

ONNX has no running maximum or product: they are a reduction over a new last dimension, so memory grows with the square
of the dimension's size, which must be fixed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .graph import Graph, Val
from .op_shape import fixed, swapped
from .table import emits


def _last(g: Graph, x: Val, dim: int) -> str:
    return swapped(g, x, x.ndim, dim, x.ndim - 1)


def _back(g: Graph, y: str, x: Val, dim: int) -> str:
    return swapped(g, y, x.ndim, dim, x.ndim - 1)


def _below(n: int) -> Any:
    return np.tril(np.ones((n, n), bool))


@emits("cumprod", "logcumsumexp")
def _running(g: Graph, x: Val, dim: int) -> str:
    if not x.ndim:
        return g.node("Identity", x)
    y = _last(g, x, dim)
    y = y if x.dtype == g.out[0].dtype else g.cast(y, g.out[0].dtype)
    if 0 in x.shape:
        return _back(g, y, x, dim)
    rest, kind = (1, "ReduceProd") if g.label == "cumprod" else (-math.inf, "ReduceLogSumExp")
    rows = g.node("Unsqueeze", y, g.ints([x.ndim - 1]))
    known = g.constant(_below(fixed(x.shape[dim])))
    seen = g.node("Where", known, rows, g.constant(rest, g.out[0].dtype))
    return _back(g, g.reduce(kind, seen, [x.ndim], False), x, dim)


@emits("argcummax", "argcummin")
def _best_so_far(g: Graph, x: Val, dim: int) -> str:
    """Row i holds elements 0 to i, and i itself from there on: its last best is the last best so far, or past i."""
    if not x.ndim:
        return g.constant(0, np.int64)
    n = fixed(x.shape[dim])
    at = np.arange(n)
    rows = g.node("Gather", _last(g, x, dim), g.constant(np.minimum.outer(at, at), np.int64), axis=x.ndim - 1)
    kind = "ArgMax" if g.label == "argcummax" else "ArgMin"
    best = g.node(kind, rows, axis=x.ndim, keepdims=0, select_last_index=1)
    return _back(g, g.node("Min", best, g.constant(at, np.int64)), x, dim)


@emits("argmode")
def _mode(g: Graph, x: Val, dim: int) -> str:
    """Position of the commonest element, the smallest of equally common ones, its last occurrence."""
    if not x.ndim:
        return g.constant(0, np.int64)
    n, last = fixed(x.shape[dim]), x.ndim - 1
    y, order = g.nodes_out("TopK", 2, _last(g, x, dim), g.ints([n]), axis=last, largest=0, sorted=1)
    alike = g.node("Equal", g.node("Unsqueeze", y, g.ints([x.ndim])), g.node("Unsqueeze", y, g.ints([last])))
    counts = g.reduce("ReduceSum", g.cast(alike, np.int32), [x.ndim], False)
    first = g.node("ArgMax", counts, axis=last, keepdims=1)
    common = g.node("GatherElements", y, first, axis=last)
    hit = g.cast(g.node("Equal", y, common), np.int32)
    at = g.node("ArgMax", hit, axis=last, keepdims=1, select_last_index=1)
    return g.node("Squeeze", g.node("GatherElements", order, at, axis=last), g.ints([last]))


def _median_place(g: Graph, x: Val, dim: int, ignore_nan: bool) -> str:
    """Position of the lower median, of the first NaN where NaN counts; the dimension stays, of size 1."""
    n = fixed(x.shape[dim])
    if x.dtype.kind != "f":
        order = g.nodes_out("TopK", 2, x, g.ints([n]), axis=dim, largest=0, sorted=1)[1]
        return g.slice(order, dim, (n - 1) // 2, (n - 1) // 2 + 1)
    missing = g.node("IsNaN", x)
    full = g.node("Where", missing, g.like(math.inf, x), x)  # NaN come last
    order = g.nodes_out("TopK", 2, full, g.ints([n]), axis=dim, largest=0, sorted=1)[1]
    gone = g.reduce("ReduceSum", g.cast(missing, np.int64), [dim], True)
    one, two, zero = (g.constant(v, np.int64) for v in (1, 2, 0))
    count = g.node("Sub", g.constant(n, np.int64), gone)
    place = g.node("Div", g.node("Max", g.node("Sub", count, one), zero), two)
    found = g.node("GatherElements", order, place, axis=dim)
    if ignore_nan:
        return found
    first = g.node("ArgMax", g.cast(missing, np.int32), axis=dim, keepdims=1)
    return g.node("Where", g.node("Greater", gone, zero), first, found)


@emits("argmedian")
def _argmedian(g: Graph, x: Val, dim: int, ignore_nan: bool) -> str:
    if not x.ndim:
        return g.constant(0, np.int64)
    return g.node("Squeeze", _median_place(g, x, dim, ignore_nan), g.ints([dim]))


@emits("median_all")
def _median_all(g: Graph, x: Val, ignore_nan: bool) -> str:
    size = math.prod(fixed(1, *x.shape)) if x.ndim else 1
    flat = Val(g.node("Reshape", x, g.ints([-1])), (size,), x.dtype)
    if not size:
        return g.constant(math.nan, x.dtype)
    y = g.node("GatherElements", flat, _median_place(g, flat, 0, ignore_nan), axis=0)
    return g.node("Squeeze", y, g.ints([0]))
