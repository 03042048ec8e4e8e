"""Convolutions, and patches. Inputs are (N, C, ...), or (C, ...) for one sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...autograd.op import describe
from ...tensor import Tensor
from ...tensor.ops import conv as ops

Size = int | Sequence[int]


def each(name: str, value: Any, dims: int, what: str) -> tuple[int, ...]:
    """One int for each spatial dimension, from one or as many."""
    if isinstance(value, int):
        return (value,) * dims
    values = tuple(int(v) for v in value)
    if len(values) == 1:
        values *= dims
    if len(values) != dims:
        raise RuntimeError(f"[{name}] {what} must be an int or {dims} ints, came {value}")
    return values


def batched(name: str, input: Tensor, dims: int, empty: bool = False) -> tuple[Tensor, bool]:
    """The input with a batch dimension, and whether it had none. empty: whether other dimensions may be."""
    if input.ndim not in (dims + 1, dims + 2):
        looked_up = input.ndim < 2 and name in (
            "avg_pool2d",
            "unfold",
        )  # PyTorch asks for a size before it counts
        raise (IndexError if looked_up else RuntimeError)(
            f"[{name}] the input must have {dims + 2} dimensions, or {dims + 1} for one sample, came {describe(input)}"
        )
    single = input.ndim == dims + 1
    if not empty and 0 in input.array.shape and 0 in input.array.shape[not single :]:
        raise RuntimeError(f"[{name}] dimensions but the batch's must not be empty, came {describe(input)}")
    return (input.unsqueeze(0) if single else input), single


def _positive(name: str, **values: tuple[int, ...]) -> None:
    for what, numbers in values.items():
        if min(numbers) <= 0:
            raise RuntimeError(f"[{name}] {what} must be positive, came {numbers}")


def _conv(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Any,
    dilation: Size,
    groups: int,
) -> Tensor:
    name = f"conv{dims}d"
    if weight.ndim != dims + 2:
        raise RuntimeError(f"[{name}] the weight must have {dims + 2} dimensions, came {describe(weight)}")
    input, single = batched(name, input, dims)
    steps, spread = each(name, stride, dims, "stride"), each(name, dilation, dims, "dilation")
    _positive(name, stride=steps, dilation=spread)
    pads = _pads(name, padding, dims, weight.array.shape[2:], steps, spread)
    y = ops.conv(input, weight, bias, stride=steps, padding=pads, dilation=spread, groups=groups)
    return y.squeeze(0) if single else y


def _pads(
    name: str,
    padding: Any,
    dims: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * dims
    if padding == "same":
        if set(stride) != {1}:
            raise RuntimeError(f"[{name}] padding 'same' needs stride 1, came {stride}")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return tuple((t // 2, t - t // 2) for t in totals)
    if isinstance(padding, str):
        raise RuntimeError(f"[{name}] padding must be ints, 'same' or 'valid', came {padding!r}")
    sizes = each(name, padding, dims, "padding")
    if min(sizes) < 0:
        raise RuntimeError(f"[{name}] padding must be >= 0, came {padding}")
    return tuple((p, p) for p in sizes)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Any = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of (N, C, L) with a weight (O, C / groups, K). padding: ints, "valid" or "same"."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Any = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of (N, C, H, W) with a weight (O, C / groups, KH, KW)."""
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Any = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of (N, C, D, H, W) with a weight (O, C / groups, KD, KH, KW)."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Size,
    output_padding: Size,
    groups: int,
    dilation: Size,
) -> Tensor:
    name = f"conv_transpose{dims}d"
    if weight.ndim != dims + 2:
        raise RuntimeError(f"[{name}] the weight must have {dims + 2} dimensions, came {describe(weight)}")
    input, single = batched(name, input, dims)
    steps, spread = each(name, stride, dims, "stride"), each(name, dilation, dims, "dilation")
    _positive(name, stride=steps, dilation=spread)
    cut, more = each(name, padding, dims, "padding"), each(name, output_padding, dims, "output_padding")
    for s, m in zip(steps, more):
        if not 0 <= m < s:
            raise RuntimeError(
                f"[{name}] output_padding must be smaller than the stride, came {more} for stride {steps}"
            )
    kernel = weight.array.shape[2:]
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + m + 1
        for n, s, p, d, k, m in zip(input.array.shape[2:], steps, cut, spread, kernel, more)
    )
    if min(size) < 1:
        raise RuntimeError(
            f"[{name}] the output must not be empty, came size {list(size)} from {describe(input)}"
        )
    pads = tuple((p, p) for p in cut)
    y = ops.conv_input(
        input, weight, bias, size=size, stride=steps, padding=pads, dilation=spread, groups=groups
    )
    return y.squeeze(0) if single else y


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of (N, C, L) with a weight (C, O / groups, K)."""
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of (N, C, H, W) with a weight (C, O / groups, KH, KW)."""
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of (N, C, D, H, W) with a weight (C, O / groups, KD, KH, KW)."""
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def unfold(
    input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """Patches of (N, C, H, W) as columns: (N, C * KH * KW, number of patches)."""
    input, single = batched("unfold", input, 2)
    kernel, spread, pads, steps = _patch_sizes("unfold", kernel_size, dilation, padding, stride)
    y = ops.unfold(input, kernel=kernel, stride=steps, padding=pads, dilation=spread)
    return y.squeeze(0) if single else y


def fold(
    input: Tensor,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Tensor:
    """Sums columns of patches (see unfold) back into (N, C, *output_size)."""
    size = each("fold", output_size, 2, "output_size")
    kernel, spread, pads, steps = _patch_sizes("fold", kernel_size, dilation, padding, stride)
    single = input.ndim == 2
    x = input.unsqueeze(0) if single else input
    out = [ops.out_size(*s) for s in zip(size, kernel, steps, pads, spread)]
    if x.ndim != 3 or x.shape[1] % math.prod(kernel) or x.shape[2] != math.prod(out):
        raise RuntimeError(
            f"[fold] the input must be (N, C * {math.prod(kernel)}, {math.prod(out)}) for output_size {size}, came"
            f" {describe(input)}"
        )
    y = ops.fold(x, size=size, kernel=kernel, stride=steps, padding=pads, dilation=spread)
    return y.squeeze(0) if single else y


def _patch_sizes(name: str, kernel: Size, dilation: Size, padding: Size, stride: Size) -> Any:
    kernels, spread, steps = (
        each(name, value, 2, what)
        for value, what in ((kernel, "kernel_size"), (dilation, "dilation"), (stride, "stride"))
    )
    _positive(name, kernel_size=kernels, dilation=spread, stride=steps)
    return kernels, spread, tuple((p, p) for p in each(name, padding, 2, "padding")), steps
