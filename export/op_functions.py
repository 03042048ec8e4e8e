"""Functions that read values which no op sees, and which ONNX can say: taken as a whole (`engine.whole`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .graph import Graph, Val
from .table import emits
from .trace import ExportError


@emits("one_hot")
def _one_hot(g: Graph, tensor: Val, num_classes: int) -> str:
    if num_classes < 0:
        raise ExportError("[onnx] one_hot must be given num_classes: -1 depends on the inputs' values")
    return g.node("OneHot", tensor, g.ints([num_classes]), g.ints([0, 1]), axis=-1)


@emits("grid_sample")
def _grid_sample(
    g: Graph, input: Val, grid: Val, mode: str, padding_mode: str, align_corners: bool | None
) -> str:
    if input.ndim != 4:
        g.needs(20, "grid_sample of 5-d tensors")
    names = {"bilinear": "linear", "bicubic": "cubic"} if g.opset >= 20 else {}
    kw = {"mode": names.get(mode, mode), "padding_mode": padding_mode}
    return g.node("GridSample", input, grid, align_corners=int(bool(align_corners)), **kw)


@emits("embedding_bag")
def _embedding_bag(
    g: Graph, input: Val, weight: Val, offsets: Any, max_norm: Any, mode: str, per_sample_weights: Any,
    padding_idx: int | None, **_: Any,
) -> str:  # fmt: skip
    if offsets is not None or max_norm is not None:
        raise ExportError("[onnx] embedding_bag with offsets or max_norm has no ONNX form: give bags as rows")
    rows = g.node("Gather", weight, input, axis=0)
    hidden = None
    if padding_idx is not None:
        hit = g.node("Equal", input, g.constant(padding_idx % weight.shape[0], input.dtype))
        hidden = g.node("Unsqueeze", hit, g.ints([2]))
    if mode == "max":
        return _largest(g, weight, rows, hidden)
    rows = rows if hidden is None else g.node("Where", hidden, g.like(0, weight), rows)
    if per_sample_weights is not None:
        rows = g.node("Mul", rows, g.node("Unsqueeze", per_sample_weights, g.ints([2])))
    if mode == "sum":
        return g.reduce("ReduceSum", rows, [1], False)
    if hidden is None:
        return g.reduce("ReduceMean", rows, [1], False)
    kept = g.reduce("ReduceSum", g.cast(g.node("Not", hidden), weight.dtype), [1], False)
    return g.node("Div", g.reduce("ReduceSum", rows, [1], False), g.node("Max", kept, g.like(1, weight)))


def _largest(g: Graph, weight: Val, rows: str, hidden: str | None) -> str:
    """The maxima of the bags, 0 where a bag is empty."""
    if hidden is None:
        return g.reduce("ReduceMax", rows, [1], False)
    best = g.reduce("ReduceMax", g.node("Where", hidden, g.like(-math.inf, weight), rows), [1], False)
    shown = g.reduce("ReduceSum", g.cast(g.node("Not", hidden), np.int32), [1], False)
    return g.node("Where", g.node("Equal", shown, g.constant(0, np.int32)), g.like(0, weight), best)
