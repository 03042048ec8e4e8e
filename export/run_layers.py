"""What the ONNX nodes of layers compute, on Tensors; see run_nodes.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.op import tensor_ops as ops
from ..nn import functional
from ..tensor.products import einsum
from .run_nodes import ints_of, nodes, pairs_of, runs

# ---- products, convolution


@runs("Gemm")
def _gemm(
    a: Any, b: Any, c: Any = None, *, transA: int = 0, transB: int = 0, alpha: float = 1.0, beta: float = 1.0
) -> Any:
    a = a.transpose(0, 1) if transA else a
    y = ops["matmul"](a, b.transpose(0, 1) if transB else b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


@runs("Einsum")
def _einsum(*x: Any, equation: str = "") -> Any:
    return einsum(equation, *x)


def extent(kernel: Any, dilation: Any) -> list[int]:
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]


def halves(total: Any, mode: str) -> tuple[tuple[int, int], ...]:
    """Padding shared out to both sides; SAME_LOWER has the odd one in front."""
    return tuple((n - n // 2, n // 2) if mode == "SAME_LOWER" else (n // 2, n - n // 2) for n in total)


def padding_of(
    pads: Any, auto_pad: str, size: Any, kernel: Any, stride: Any, dilation: Any
) -> tuple[tuple[int, int], ...]:
    """Padding in front and at the end of each spatial dimension."""
    if auto_pad in ("NOTSET", "VALID"):
        return pairs_of(None if auto_pad == "VALID" else pads, len(kernel))
    need = [(-(-n // s) - 1) * s + k - n for n, s, k in zip(size, stride, extent(kernel, dilation))]
    return halves([max(n, 0) for n in need], auto_pad)


@runs("Conv")
def _conv(
    x: Any, w: Any, b: Any = None, *, strides: Any = None, pads: Any = None, dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, auto_pad: str = "NOTSET",
) -> Any:  # fmt: skip
    ones = (1,) * (x.ndim - 2)
    stride, spread = tuple(strides or ones), tuple(dilations or ones)
    padding = padding_of(pads, auto_pad, x.array.shape[2:], w.array.shape[2:], stride, spread)
    return ops["conv"](x, w, b, groups=group, stride=stride, dilation=spread, padding=padding)


@runs("ConvTranspose")
def _conv_transpose(
    x: Any, w: Any, b: Any = None, *, strides: Any = None, pads: Any = None, dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, output_padding: Any = None, output_shape: Any = None, auto_pad: str = "NOTSET",
) -> Any:  # fmt: skip
    dims = x.ndim - 2
    ones = (1,) * dims
    stride, spread = tuple(strides or ones), tuple(dilations or ones)
    reach, extra = extent(w.array.shape[2:], spread), output_padding or [0] * dims
    full = [(n - 1) * s + k + e for n, s, k, e in zip(x.array.shape[2:], stride, reach, extra)]
    wanted = output_shape and output_shape[-dims:]
    if auto_pad.startswith("SAME") and not wanted:
        wanted = [n * s for n, s in zip(x.array.shape[2:], stride)]
    if wanted:
        mode = auto_pad if auto_pad == "SAME_UPPER" else "SAME_LOWER"
        pairs = halves([max(n - m, 0) for n, m in zip(full, wanted)], mode)
        size = tuple(wanted)
    else:
        pairs = padding_of(pads, auto_pad, size=(), kernel=ones, stride=stride, dilation=spread)
        size = tuple(n - p - q for n, (p, q) in zip(full, pairs))
    return ops["conv_input"](x, w, b, size=size, stride=stride, padding=pairs, dilation=spread, groups=group)


@runs("Col2Im")
def _col2im(
    x: Any, size: Any, block: Any, *, strides: Any = None, pads: Any = None, dilations: Any = None
) -> Any:
    kernel, image = tuple(ints_of(block)), tuple(ints_of(size))
    ones = (1,) * len(kernel)
    geometry = {"kernel": kernel, "stride": tuple(strides or ones), "dilation": tuple(dilations or ones)}
    return ops["fold_patches"](x, size=image, padding=pairs_of(pads, len(kernel)), **geometry)


@runs("GridSample")
def _grid_sample(
    x: Any, grid: Any, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0
) -> Any:
    names = {"linear": "bilinear", "cubic": "bicubic"}
    return functional.grid_sample(x, grid, names.get(mode, mode), padding_mode, bool(align_corners))


# ---- pooling


def _windows(
    x: Any, kernel: Any, strides: Any, pads: Any, dilations: Any, auto_pad: str, ceil_mode: int
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The windows' geometry, and what ceil_mode adds at the end of each dimension."""
    ones, size = (1,) * len(kernel), x.array.shape[2:]
    stride, dilation = tuple(strides or ones), tuple(dilations or ones)
    padding = padding_of(pads, auto_pad, size, kernel, stride, dilation)
    extra = [0] * len(kernel)
    if ceil_mode and auto_pad == "NOTSET":
        for i, (n, s, k) in enumerate(zip(size, stride, extent(kernel, dilation))):
            a, b = padding[i]
            out = -(-(n + a + b - k) // s) + 1
            out -= (out - 1) * s >= n + a  # a window that begins past the end
            extra[i] = max((out - 1) * s + k - (n + a + b), 0)
    padding = tuple((a, b + e) for (a, b), e in zip(padding, extra))
    return {"kernel": tuple(kernel), "stride": stride, "padding": padding, "dilation": dilation}, tuple(extra)


@runs("MaxPool")
def _max_pool(
    x: Any, *, kernel_shape: Any = None, strides: Any = None, pads: Any = None, dilations: Any = None,
    auto_pad: str = "NOTSET", ceil_mode: int = 0, storage_order: int = 0, outputs: int = 1,
) -> Any:  # fmt: skip
    kw, _ = _windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    y = ops["max_pool"](x, **kw)
    if outputs == 1:
        return y
    places, size = ops["max_pool_indices"](x, y, **kw), x.array.shape[2:]
    if storage_order:  # columns count first
        unravelled = np.unravel_index(places.array, size)
        places = wrap(np.ravel_multi_index(unravelled, size, order="F"))
    first = np.arange(math.prod(x.array.shape[:2])).reshape(*x.array.shape[:2], *[1] * len(size))
    return y, places + wrap(first * math.prod(size))


@runs("AveragePool")
def _average_pool(
    x: Any, *, kernel_shape: Any = None, strides: Any = None, pads: Any = None, dilations: Any = None,
    auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
) -> Any:  # fmt: skip
    kw, extra = _windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    if any(d != 1 for d in kw["dilation"]):
        return _spread_average(x, kw, extra, bool(count_include_pad))
    del kw["dilation"]
    return ops["avg_pool"](x, include=bool(count_include_pad), extra=extra, divisor=None, **kw)


def _spread_average(x: Any, kw: dict[str, Any], extra: tuple[int, ...], include: bool) -> Any:
    """An average over windows with holes: sums of the elements over sums of ones, by convolution."""
    geometry = {k: kw[k] for k in ("stride", "dilation")} | {"groups": 1}
    kernel = wrap(np.ones((1, 1, *kw["kernel"]), x.array.dtype))
    none = ((0, 0),) * len(extra)
    around = tuple((a, b - e) for (a, b), e in zip(kw["padding"], extra))
    ones = np.pad(np.ones(x.array.shape[2:], x.array.dtype), around, constant_values=int(include))
    ones = np.pad(ones, tuple((0, e) for e in extra))
    counts = ops["conv"](wrap(ones[None, None]), kernel, None, padding=none, **geometry)
    planes = x.reshape(-1, 1, *x.array.shape[2:])
    y = ops["conv"](planes, kernel, None, padding=kw["padding"], **geometry) / counts
    return y.reshape(*x.array.shape[:2], *y.array.shape[2:])


@runs("LpPool")
def _lp_pool(
    x: Any, *, p: int = 2, kernel_shape: Any = None, strides: Any = None, pads: Any = None, dilations: Any = None,
    auto_pad: str = "NOTSET", ceil_mode: int = 0,
) -> Any:  # fmt: skip
    kw, _ = _windows(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    planes = (ops["abs"](x) ** p).reshape(-1, 1, *x.array.shape[2:])
    kernel = wrap(np.ones((1, 1, *kw.pop("kernel")), x.array.dtype))
    y = ops["conv"](planes, kernel, None, groups=1, **kw) ** (1 / p)
    return y.reshape(*x.array.shape[:2], *y.array.shape[2:])


@runs("MaxUnpool")
def _max_unpool(
    x: Any, places: Any, shape: Any = None, *, kernel_shape: Any = None, strides: Any = None, pads: Any = None
) -> Any:
    dims = x.ndim - 2
    rows = zip(x.array.shape[2:], strides or (1,) * dims, kernel_shape, pairs_of(pads, dims))
    size = [(n - 1) * s + k - a - b for n, s, k, (a, b) in rows]
    old = [*x.array.shape[:2], *size]
    whole = old if shape is None else ints_of(shape)
    at = places.array.reshape(-1)
    if whole != old:  # positions count in the smaller image
        at = np.ravel_multi_index(np.unravel_index(at, old), whole)
    zeros = x.new_zeros(math.prod(whole))
    return ops["scatter"](zeros, x.reshape(-1), dim=0, index=at).reshape(*whole)


def _global(op: str) -> Callable[..., Any]:
    return lambda x: ops[op](x, dim=tuple(range(2, x.ndim)), keepdim=True)


nodes["GlobalAveragePool"], nodes["GlobalMaxPool"] = _global("mean"), _global("amax")

__all__ = ["nodes"]
