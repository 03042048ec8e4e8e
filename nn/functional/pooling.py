"""Pooling. Inputs are (N, C, ...), or (C, ...) for one sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...autograd.engine import wrap
from ...autograd.op import describe
from ...tensor import Tensor, functions
from ...tensor.checks import refuse
from ...tensor.ops import index as _index
from ...tensor.ops import linear as _linear
from ...tensor.ops import pointwise, shape
from ...tensor.ops import pool as ops
from .activation import relu
from .convolution import Size, batched, each


def _geometry(
    name: str, input: Tensor, dims: int, kernel: Size, stride: Any, padding: Size, dilation: Size, ceil: bool
) -> tuple[Any, ...]:
    """Kernel, stride, padding pairs, dilation, and what ceil_mode adds to the padding at the end."""
    kernels = each(name, kernel, dims, "kernel_size")
    steps = kernels if stride is None or stride == () or stride == [] else each(name, stride, dims, "stride")
    pads, spread = each(name, padding, dims, "padding"), each(name, dilation, dims, "dilation")
    if min(kernels) < 1 or min(steps) < 1 or min(spread) < 1:
        raise RuntimeError(
            f"[{name}] kernel_size, stride and dilation must be positive, came {kernels}, {steps} and {spread}"
        )
    pairs, extra = [], []
    for n, k, s, p, d in zip(input.array.shape[2:], kernels, steps, pads, spread):
        reach = d * (k - 1) + 1
        if p < 0 or p > reach // 2:
            raise RuntimeError(
                f"[{name}] padding must be in [0, half of the kernel], came {p} for a kernel of {k}"
            )
        more = 0
        if ceil:
            out = -(-(n + 2 * p - reach) // s) + 1
            if (out - 1) * s >= n + p:
                out -= 1  # the last window must start inside
            more = max((out - 1) * s + reach - (n + 2 * p), 0)
        if n + 2 * p + more < reach:
            raise RuntimeError(
                f"[{name}] the kernel must not be larger than the padded input, came {describe(input)} with"
                f" kernel_size={kernels}, padding={pads}"
            )
        pairs.append((p, p + more))
        extra.append(more)
    return kernels, steps, tuple(pairs), spread, tuple(extra)


def _max_pool(
    dims: int,
    input: Tensor,
    kernel: Size,
    stride: Any,
    padding: Size,
    dilation: Size,
    ceil: bool,
    indices: bool,
) -> Any:
    x, single = batched(f"max_pool{dims}d", input, dims)
    found = _geometry(f"max_pool{dims}d", x, dims, kernel, stride, padding, dilation, ceil)
    kernels, steps, pairs, spread, _ = found
    kw: dict[str, Any] = {"kernel": kernels, "stride": steps, "padding": pairs, "dilation": spread}
    y = ops.max_pool(x, **kw)
    if not indices:
        return y.squeeze(0) if single else y
    places = ops.max_pool_indices(x.detach(), y.detach(), **kw)
    return (y.squeeze(0), places.squeeze(0)) if single else (y, places)


def _avg_pool(
    dims: int,
    input: Tensor,
    kernel: Size,
    stride: Any,
    padding: Size,
    ceil: bool,
    include: bool,
    divisor: int | None,
) -> Tensor:
    x, single = batched(f"avg_pool{dims}d", input, dims)
    if divisor == 0:
        raise RuntimeError(f"[avg_pool{dims}d] divisor_override must not be 0, came 0")
    kernels, steps, pairs, _, extra = _geometry(f"avg_pool{dims}d", x, dims, kernel, stride, padding, 1, ceil)
    y = ops.avg_pool(
        x, kernel=kernels, stride=steps, padding=pairs, extra=extra, include=include, divisor=divisor
    )
    return y.squeeze(0) if single else y


def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima of windows of (N, C, L); with return_indices also where they stand in the flattened dimensions."""
    refuse("max_pool1d", "biuc", input)
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima of windows of (N, C, H, W); with return_indices also where they stand in the flattened dimensions."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima of windows of (N, C, D, H, W); with return_indices also where they stand in the flattened dimensions."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Means of windows of (N, C, L)."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Means of windows of (N, C, H, W); divisor_override replaces the number of elements."""
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Means of windows of (N, C, D, H, W); divisor_override replaces the number of elements."""
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# ---- adaptive


def _targets(name: str, input: Tensor, output_size: Any, dims: int) -> tuple[int, ...]:
    if output_size is None:
        raise TypeError(f"[{name}] output_size must be an int or {dims} ints or Nones, came None")
    if isinstance(output_size, int) and output_size < 0:
        raise RuntimeError(f"[{name}] output_size must not be negative, came {output_size}")
    if dims > 1 and not isinstance(output_size, int) and len(output_size) >= input.ndim:
        raise ValueError(
            f"[{name}] output_size must be shorter than the input's shape, came {output_size!r} for {describe(input)}"
        )
    if isinstance(output_size, str):
        raise TypeError(f"[{name}] output_size must be an int or {dims} ints or Nones, came {output_size!r}")
    sizes = (
        (output_size,) * dims if isinstance(output_size, int) or output_size is None else tuple(output_size)
    )
    if len(sizes) != dims:
        raise RuntimeError(f"[{name}] output_size must be an int or {dims} ints or Nones, came {output_size}")
    return tuple(int(n) if want is None else int(want) for n, want in zip(input.array.shape[-dims:], sizes))


def _edges(n: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the windows of adaptive pooling start and end."""
    i = np.arange(out)
    return i * n // out, -(-(i + 1) * n // out)


def along(x: Tensor, dim: int, matrix: np.ndarray) -> Tensor:
    """A linear map (out, in) of one dimension."""
    weight = wrap(matrix.astype(x.array.dtype)).to(x.device)
    moved = shape.transpose(x, dim0=dim, dim1=-1)
    return shape.transpose(_linear.linear(moved, weight), dim0=dim, dim1=-1)


def _adaptive_avg_pool(dims: int, input: Tensor, output_size: Any) -> Tensor:
    name = f"adaptive_avg_pool{dims}d"
    sizes = _targets(name, input, output_size, dims)
    if dims == 2 and input.ndim < 3 and output_size in (1, (1, 1), [1, 1]):
        return input.mean((-2, -1), True)
    refuse(name, "biuc", input)
    x, single = batched(name, input, dims, True)
    if set(sizes) == {1}:
        x = x.mean(tuple(range(2, 2 + dims)), True)
    else:
        for d, (n, out) in enumerate(zip(x.array.shape[2:], sizes)):
            if n != out:
                start, end = _edges(n, out)
                at = np.arange(n)
                inside = (at >= start[:, None]) & (at < end[:, None])
                x = along(x, 2 + d, inside / (end - start)[:, None])
    return x.squeeze(0) if single else x


def _adaptive_max_pool(dims: int, input: Tensor, output_size: Any, indices: bool) -> Any:
    """Windows of different lengths are brought to one by repeating their last element, then pooled evenly."""
    name = f"adaptive_max_pool{dims}d"
    sizes = _targets(name, input, output_size, dims)
    refuse(name, "biuc", input)
    x, single = batched(name, input, dims, True)
    places = np.arange(math.prod(x.array.shape[2:])).reshape(1, 1, *x.array.shape[2:])
    lengths = []
    if sizes == (0,):  # for longer ones PyTorch refuses 0
        y = shape.narrow(input, dim=-1, start=0, length=0)
        return (y, functions.cast(y.detach(), np.int64)) if indices else y
    for d, (n, out) in enumerate(zip(x.array.shape[2:], sizes)):
        start, end = _edges(n, out)
        longest = int((end - start).max())
        at = np.minimum(start[:, None] + np.arange(longest), end[:, None] - 1).reshape(-1)
        if len(at) != n or (at != np.arange(n)).any():
            x = _index.index_select(x, dim=2 + d, index=wrap(at))
            places = places.take(at, axis=2 + d)
        lengths.append(longest)
    window = tuple(lengths)
    kw: dict[str, Any] = {
        "kernel": window,
        "stride": window,
        "padding": ((0, 0),) * dims,
        "dilation": (1,) * dims,
    }
    y = ops.max_pool(x, **kw)
    if not indices:
        return y.squeeze(0) if single else y
    spread = ops.max_pool_indices(x.detach(), y.detach(), **kw)
    found = wrap(places.reshape(-1)[spread.array])
    return (y.squeeze(0), found.squeeze(0)) if single else (y, found)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means of windows that divide the input into `output_size` parts."""
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of windows that divide the input into `output_size` parts."""
    return _adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means of windows that divide the input into `output_size` parts."""
    return _adaptive_avg_pool(2, input, output_size)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of windows that divide the input into `output_size` parts."""
    return _adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means of windows that divide the input into `output_size` parts."""
    return _adaptive_avg_pool(3, input, output_size)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of windows that divide the input into `output_size` parts."""
    return _adaptive_max_pool(3, input, output_size, return_indices)


# ---- power means, and the way back from maxima


def _lp_pool(dims: int, input: Tensor, p: float, kernel: Size, stride: Any, ceil: bool) -> Tensor:
    kernels = each(f"lp_pool{dims}d", kernel, dims, "kernel_size")
    mean = _avg_pool(dims, pointwise.pow(input, p), kernels, stride, 0, ceil, True, None)
    positive = pointwise.sign(mean) * relu(pointwise.abs(mean))
    return pointwise.pow(positive * math.prod(kernels), 1.0 / p)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """Roots of the sums of powers of windows."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """Roots of the sums of powers of windows."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """Roots of the sums of powers of windows."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _max_unpool(
    dims: int, input: Tensor, indices: Tensor, kernel: Size, stride: Any, padding: Size, output_size: Any
) -> Tensor:
    name = f"max_unpool{dims}d"
    if input.shape != indices.shape:
        raise RuntimeError(
            f"[{name}] input and indices must have one shape, came {describe(input)} and {describe(indices)}"
        )
    kernels, pads = each(name, kernel, dims, "kernel_size"), each(name, padding, dims, "padding")
    steps = kernels if stride is None else each(name, stride, dims, "stride")
    lead, spatial = input.array.shape[:-dims], input.array.shape[-dims:]
    size = tuple((n - 1) * s - 2 * p + k for n, k, s, p in zip(spatial, kernels, steps, pads))
    if output_size is not None:
        wanted = tuple(output_size)[-dims:]
        if any(abs(w - n) >= s for w, n, s in zip(wanted, size, steps)):
            raise ValueError(
                f"[{name}] output_size must be near {list(size)}, within the stride, came {output_size}"
            )
        size = wanted
    at = indices.array.reshape(-1, math.prod(spatial))
    if at.size and not (at.min() >= 0 and at.max() < math.prod(size)):
        raise RuntimeError(
            f"[{name}] indices must be in [0, {math.prod(size) - 1}], came values from {at.min()} to {at.max()}"
        )
    zeros = input.new_zeros((at.shape[0], math.prod(size)))
    rows = np.arange(at.shape[0])[:, None]  # where windows overlap, a maximum is written, not added, twice
    flat = _index.setitem(zeros, input.reshape(at.shape), index=(rows, at))
    return flat.reshape((*lead, *size))


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts maxima back to where max_pool1d found them, zeros elsewhere."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts maxima back to where max_pool2d found them, zeros elsewhere."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts maxima back to where max_pool3d found them, zeros elsewhere."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
