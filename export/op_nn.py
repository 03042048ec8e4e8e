"""Products, convolution, pooling, normalisation and attention as ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor.ops.pool import _counts
from .compare import Dim
from .graph import Graph, Val
from .op_shape import fixed, swapped
from .table import emits


@emits("matmul")
def _matmul(g: Graph, a: Val, b: Val) -> str:
    return g.node("MatMul", a, b)


@emits("linear")
def _linear(g: Graph, x: Val, weight: Val, bias: Any = None) -> str:
    if x.ndim == 2:
        return g.node("Gemm", x, weight, bias, transB=1)
    y = g.node("MatMul", x, g.node("Transpose", weight, perm=[1, 0]))
    return y if bias is None else g.node("Add", y, bias)


@emits("contract")
def _contract(g: Graph, a: Val, b: Val, left: str, right: str, out: str) -> str:
    return g.node("Einsum", a, b, equation=f"{left},{right}->{out}")


def _pads(padding: Any) -> list[int]:
    return [a for a, _ in padding] + [b for _, b in padding]


@emits("conv")
def _conv(
    g: Graph, x: Val, weight: Val, bias: Any = None, *, stride: Any, padding: Any, dilation: Any, groups: int
) -> str:
    kernel = list(fixed(0, *weight.shape)[3:])
    geometry = {"strides": list(stride), "pads": _pads(padding), "dilations": list(dilation), "group": groups}
    return g.node("Conv", x, weight, bias, kernel_shape=kernel, **geometry)


@emits("conv_input", sizes=("size",))
def _conv_input(
    g: Graph,
    x: Val,
    weight: Val,
    bias: Any = None,
    *,
    size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> str:
    """Transposed convolution; what `size` has beyond the least size of these settings is output_padding."""
    kernel = list(fixed(0, *weight.shape)[3:])
    extra = []
    for n, out, k, s, (a, b), d in zip(x.shape[2:], size, kernel, stride, padding, dilation):
        n, out = (v.values[0] if isinstance(v, Dim) else v for v in (n, out))
        extra.append(out - ((n - 1) * s + d * (k - 1) + 1 - a - b))
    geometry = {"strides": list(stride), "pads": _pads(padding), "dilations": list(dilation), "group": groups}
    padded = {"output_padding": extra} if any(extra) else {}
    return g.node("ConvTranspose", x, weight, bias, kernel_shape=kernel, **geometry, **padded)


@emits("unfold_patches")
def _unfold_patches(g: Graph, x: Val, kernel: Any, stride: Any, padding: Any, dilation: Any) -> str:
    size = fixed(0, 0, *x.shape[2:])[2:]
    y = _padded(g, x, padding)
    padded = [n + a + b for n, (a, b) in zip(size, padding)]
    numbers = np.arange(math.prod(padded)).reshape(padded)
    starts = [
        np.arange((n - d * (k - 1) - 1) // s + 1) * s for n, k, s, d in zip(padded, kernel, stride, dilation)
    ]
    offsets = [np.arange(k) * d for k, d in zip(kernel, dilation)]
    inside = np.ix_(*(np.add.outer(o, s).reshape(-1) for o, s in zip(offsets, starts)))
    split = [n for k, s in zip(kernel, starts) for n in (k, len(s))]
    rank = len(kernel)
    places = numbers[inside].reshape(split).transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)])
    flat = g.reshape(y, [*x.shape[:2], math.prod(padded)])
    picked = g.node("Gather", flat, g.constant(places.reshape(-1), np.int64), axis=2)
    return g.reshape(picked, g.out[0].shape)


@emits("fold_patches")
def _fold_patches(g: Graph, x: Val, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> str:
    """A transposed convolution that sets each element of a patch at its place."""
    places = [
        (n + a + b - d * (k - 1) - 1) // s + 1
        for n, k, s, (a, b), d in zip(size, kernel, stride, padding, dilation)
    ]
    count = math.prod(kernel)
    patches = g.node("Reshape", x, g.ints([-1, count, *places]))
    each = g.constant(np.eye(count).reshape(count, 1, *kernel), x.dtype)
    geometry = {"strides": list(stride), "dilations": list(dilation), "pads": _pads(padding)}
    extra = [n + a + b - ((p - 1) * s + d * (k - 1) + 1)
             for n, (a, b), p, s, d, k in zip(size, padding, places, stride, dilation, kernel)]  # fmt: skip
    y = g.node("ConvTranspose", patches, each, output_padding=extra, kernel_shape=list(kernel), **geometry)
    return g.reshape(y, g.out[0].shape)


# ---- pooling


@emits("max_pool")
def _max_pool(g: Graph, x: Val, kernel: Any, stride: Any, padding: Any, dilation: Any) -> str:
    return _max_pooled(g, x, kernel, stride, padding, dilation, 1)[0]


def _max_pooled(
    g: Graph, x: Val, kernel: Any, stride: Any, padding: Any, dilation: Any, outputs: int
) -> list[str]:
    geometry = {"strides": list(stride), "pads": _pads(padding), "dilations": list(dilation)}
    return g.nodes_out("MaxPool", outputs, x, kernel_shape=list(kernel), **geometry)


@emits("max_pool_indices")
def _max_pool_indices(
    g: Graph, x: Val, top: Val, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> str:
    """ONNX counts places through all channels, PyTorch anew in each."""
    size = math.prod(fixed(1, *x.shape[2:]))
    return g.node(
        "Mod", _max_pooled(g, x, kernel, stride, padding, dilation, 2)[1], g.constant(size, np.int64)
    )


@emits("avg_pool")
def _avg_pool(
    g: Graph, x: Val, kernel: Any, stride: Any, padding: Any, extra: Any, include: bool, divisor: int | None
) -> str:
    geometry = {"kernel_shape": list(kernel), "strides": list(stride)}
    even = all(a == b for a, b in padding) and not any(extra)
    if even and divisor is None:
        return g.node("AveragePool", x, pads=_pads(padding), count_include_pad=int(include), **geometry)
    source = _padded(g, x, padding) if any(map(any, padding)) else x
    y = g.node("AveragePool", source, **geometry)
    counts: Any = divisor
    if divisor is None:
        counts = _counts(fixed(0, 0, *x.shape[2:])[2:], kernel, stride, padding, extra, include)
    return g.node("Mul", y, g.constant(math.prod(kernel) / np.asarray(counts, np.float64), x.dtype))


def _padded(g: Graph, x: Val, padding: Any) -> str:
    """Zeros around the spatial dimensions."""
    pads = [0, 0, *(a for a, _ in padding), 0, 0, *(b for _, b in padding)]
    return g.node("Pad", x, g.ints(pads), g.like(0, x))


# ---- normalisation and attention


@emits("layer_norm")
def _layer_norm(g: Graph, x: Val, weight: Any, bias: Any, shape: Any, eps: float) -> str:
    scale = g.constant(np.ones(shape, x.dtype)) if weight is None else weight
    return g.node("LayerNormalization", x, scale, bias, axis=-len(shape), epsilon=float(eps))


@emits("scaled_dot_product_attention")
def _attention(g: Graph, q: Val, k: Val, v: Val, mask: Any, keep: Any, causal: bool, scale: float) -> str:
    assert keep is None, "dropout is off in evaluation"
    keys = swapped(g, k, k.ndim, k.ndim - 1, k.ndim - 2)
    scores = g.node("MatMul", g.node("Mul", q, g.like(scale, q)), keys)
    if mask is not None:
        scores = g.node("Add", scores, mask)
    if causal:
        full = g.node("Expand", g.like(-math.inf, q), g.ints([q.shape[-2], k.shape[-2]]))
        scores = g.node("Add", scores, g.node("Trilu", full, g.constant(1, np.int64), upper=1))
    p = g.node("Softmax", scores, axis=-1)
    if mask is not None and (mask.array is None or np.isneginf(mask.array).all(-1).any()):
        p = g.node("Where", g.node("IsNaN", p), g.like(0, q), p)  # a query that sees nothing gives 0
    return g.node("MatMul", p, v)
