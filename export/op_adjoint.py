"""What recorded gradients are made of (models that call autograd.grad themselves), as ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor.ops.pool import _counts
from .graph import Graph, Val
from .op_index import _index_add
from .op_nn import _max_pooled, _pads
from .op_shape import fixed
from .op_write import _flat, _zeros, at_numbers
from .table import emits
from .trace import ExportError

# ---- activations


def _kept(g: Graph, gy: Val, inside: str) -> str:
    return g.node("Mul", gy, g.cast(inside, gy.dtype))


@emits("threshold_backward")
def _threshold(g: Graph, gy: Val, x: Val, threshold: float) -> str:
    return _kept(g, gy, g.node("Greater", x, g.like(threshold, x)))


@emits("between_backward")
def _between(g: Graph, gy: Val, x: Val, low: float, high: float) -> str:
    inside = g.node("And", g.node("Greater", x, g.like(low, x)), g.node("Less", x, g.like(high, x)))
    return _kept(g, gy, inside)


@emits("shrink_backward")
def _shrink(g: Graph, gy: Val, x: Val, lambd: float) -> str:
    return _kept(g, gy, g.node("Greater", g.node("Abs", x), g.like(lambd, x)))


@emits("leaky_relu_backward")
def _leaky(g: Graph, gy: Val, x: Val, negative_slope: float) -> str:
    slope = g.node("Where", g.node("Greater", x, g.like(0, x)), g.like(1, x), g.like(negative_slope, x))
    return g.node("Mul", gy, slope)


@emits("softmax_backward")
def _softmax(g: Graph, gy: Val, p: Val, dim: int) -> str:
    total = g.reduce("ReduceSum", g.node("Mul", gy, p), [dim] if p.ndim else None, True)
    return g.node("Mul", p, g.node("Sub", gy, total))


@emits("log_softmax_backward")
def _log_softmax(g: Graph, gy: Val, logs: Val, dim: int) -> str:
    total = g.reduce("ReduceSum", gy, [dim] if gy.ndim else None, True)
    return g.node("Sub", gy, g.node("Mul", g.node("Exp", logs), total))


# ---- parts of a tensor, of fixed sizes


def _numbers(shape: Any) -> Any:
    shape = fixed(1, 1, *shape)[2:]
    return np.arange(math.prod(shape)).reshape(shape)


@emits("diagonal_adjoint")
def _diagonal(g: Graph, x: Val, shape: Any, offset: int, dim1: int, dim2: int) -> str:
    places = _numbers(shape).diagonal(offset, dim1, dim2)
    return at_numbers(g, _zeros(g, shape, x.dtype), _flat(g, x), places, None)


@emits("unfold_adjoint")
def _unfold(g: Graph, x: Val, shape: Any, dimension: int, size: int, step: int) -> str:
    windows = np.lib.stride_tricks.sliding_window_view(_numbers(shape), size, dimension)
    places = windows[(slice(None),) * dimension + (slice(None, None, step),)]
    return at_numbers(g, _zeros(g, shape, x.dtype), _flat(g, x), places, "add")


def _strided(size: Any, stride: Any, offset: int) -> Any:
    grid = np.indices(size).reshape(len(size), -1) if size else np.zeros((0, 1), int)
    return offset + np.asarray(stride, int) @ grid


@emits("as_strided")
def _as_strided(g: Graph, x: Val, size: Any, stride: Any, storage_offset: int) -> str:
    if not x.dense:
        raise ExportError(
            "[onnx] as_strided reads memory in another order than the tensor's: use contiguous()"
        )
    fixed(1, 1, *x.shape)
    places = _strided(size, stride, storage_offset)
    return g.reshape(g.node("Gather", _flat(g, x), g.constant(places, np.int64), axis=0), size)


@emits("strided_adjoint")
def _strided_adjoint(g: Graph, x: Val, shape: Any, size: Any, stride: Any, storage_offset: int) -> str:
    places = _strided(size, stride, storage_offset)
    return at_numbers(g, _zeros(g, shape, x.dtype), _flat(g, x), places, "add")


@emits("index_add_zeros", sizes=("shape",))
def _index_add_zeros(g: Graph, x: Val, shape: Any, dim: int, index: Val) -> str:
    return _index_add(g, _zeros(g, shape, x.dtype), x, dim, index, 1)


@emits("embedding_masked")
def _embedding_masked(g: Graph, index: Val, weight: Val, padding_idx: int | None) -> str:
    y = g.node("Gather", weight, index, axis=0)
    if padding_idx is None:
        return y
    hit = g.node("Equal", index, g.constant(padding_idx, index.dtype))
    return g.node("Where", g.node("Unsqueeze", hit, g.ints([index.ndim])), g.like(0, weight), y)


@emits("embedding_adjoint")
def _embedding_adjoint(g: Graph, gy: Val, index: Val, rows: int, padding_idx: int | None) -> str:
    width = fixed(gy.shape[-1])
    at = g.node("Unsqueeze", index, g.ints([index.ndim]))
    y = g.node("ScatterND", _zeros(g, (rows, width), gy.dtype), at, gy, reduction="add")
    if padding_idx is None:
        return y
    row = np.arange(rows)[:, None] == padding_idx
    return g.node("Where", g.constant(row), g.like(0, gy), y)


# ---- convolution and pooling


@emits("channel_sum")
def _channel_sum(g: Graph, x: Val) -> str:
    return g.reduce("ReduceSum", x, [d for d in range(x.ndim) if d != 1], False)


@emits("channel_spread", sizes=("shape",))
def _channel_spread(g: Graph, x: Val, shape: Any) -> str:
    return g.node("Expand", g.reshape(x, [x.shape[0], *[1] * (len(shape) - 2)]), g.ints(shape))


@emits("conv_weight")
def _conv_weight(
    g: Graph, gy: Val, x: Val, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> str:
    """A convolution of the inputs with the gradients, where samples take the place of channels."""
    if groups != 1:
        raise ExportError(f"[onnx] the gradient of a convolution's weight needs groups=1, came {groups}")
    order = [1, 0, *range(2, x.ndim)]
    places = list(fixed(0, 0, *gy.shape[2:])[2:])
    geometry = {"strides": list(dilation), "dilations": list(stride), "pads": _pads(padding)}
    ones, planes = (g.node("Transpose", v, perm=order) for v in (x, gy))
    y = g.node("Transpose", g.node("Conv", ones, planes, kernel_shape=places, **geometry), perm=order)
    n = len(kernel)
    return g.node("Slice", y, g.ints([0] * n), g.ints(kernel), g.ints(range(2, 2 + n)))


@emits("avg_pool_adjoint")
def _avg_pool_adjoint(
    g: Graph,
    gy: Val,
    size: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    extra: Any,
    include: bool,
    divisor: Any,
) -> str:
    """A transposed convolution that gives each element of a window its share."""
    counts = divisor or _counts(size, kernel, stride, padding, extra, include)
    share = g.node("Div", gy, g.constant(np.asarray(counts, np.float64), gy.dtype))
    places = list(fixed(0, 0, *gy.shape[2:])[2:])
    each = g.constant(np.ones((1, 1, *kernel)), gy.dtype)
    left = [
        n + a + b - ((p - 1) * s + k) for n, (a, b), p, s, k in zip(size, padding, places, stride, kernel)
    ]
    planes = g.node("Reshape", share, g.ints([-1, 1, *places]))
    geometry = {"strides": list(stride), "pads": _pads(padding), "output_padding": left}
    y = g.node("ConvTranspose", planes, each, kernel_shape=list(kernel), **geometry)
    return g.reshape(y, g.out[0].shape)


@emits("max_pool_adjoint")
def _max_pool_adjoint(g: Graph, gy: Val, x: Val, top: Val, **kw: Any) -> str:
    places = _max_pooled(g, x, outputs=2, **kw)[1]
    zeros = _flat(g, g.node("Expand", g.like(0, gy), g.node("Shape", x)))
    y = g.node("ScatterElements", zeros, _flat(g, places), _flat(g, gy), axis=0, reduction="add")
    return g.reshape(y, x.shape)


@emits("max_pool_select")
def _max_pool_select(g: Graph, h: Val, x: Val, top: Val, **kw: Any) -> str:
    return g.node("Gather", _flat(g, h), _max_pooled(g, x, outputs=2, **kw)[1], axis=0)
