"""Normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...autograd.engine import ArrayFunction, array_namespace
from ...autograd.op import describe, low_floats
from ...tensor import Tensor
from ...tensor.dtypes import F32
from ...tensor.ops import norm as ops
from ...tensor.ops import pointwise
from .padding import pad
from .pooling import avg_pool2d


def _mixed(input: Tensor, weight: Tensor | None) -> bool:
    """A 16-bit input with float32 parameters, as autocast leaves it: computed in float32, and rounded once."""
    return weight is not None and input.array.dtype.itemsize == 2 and weight.array.dtype == np.float32


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last dimensions, then weight and bias (arXiv:1607.06450)."""
    if _mixed(input, weight):
        return ops.layer_norm(input.float(), weight, bias, shape=normalized_shape, eps=eps).to(input.dtype)
    return ops.layer_norm(input, weight, bias, shape=normalized_shape, eps=eps)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divided by the root mean square of the last dimensions, then times weight (arXiv:1910.07467).

    eps: the resolution of the dtype when None.
    """
    if not input.ndim:
        raise ValueError(f"[rms_norm] the input must have at least 1 dimension, came {describe(input)}")
    if eps is None:
        dtype = input.array.dtype
        eps = (
            float(np.finfo(dtype).eps)
            if dtype.kind == "f" and dtype.itemsize > 2
            else float(np.finfo(np.float32).eps)
        )
    if _mixed(input, weight):
        return ops.rms_norm(input.float(), weight, shape=normalized_shape, eps=eps).to(input.dtype)
    return ops.rms_norm(input, weight, shape=normalized_shape, eps=eps)


def _per_channel(p: Tensor, ndim: int) -> Tensor:
    return p.reshape((1, -1) + (1,) * (ndim - 2))


def _check_channels(name: str, input: Tensor, **given: Tensor | None) -> None:
    if input.ndim < 2:
        kind = ValueError if name == "instance_norm" else RuntimeError
        raise kind(f"[{name}] the input must be (N, C, ...), came {describe(input)}")
    dtype = input.array.dtype
    for what, p in given.items():
        if p is not None and p.array.dtype != dtype and (p.array.dtype != F32 or dtype not in low_floats):
            raise RuntimeError(
                f"[{name}] {what} must have the input's dtype {dtype.name}, came {describe(p)}: cast with .to()"
            )
        if p is not None and p.array.shape != (input.array.shape[1],):
            raise RuntimeError(
                f"[{name}] {what} must have one element a channel, {input.array.shape[1]}, came {describe(p)}"
            )


def _several(name: str, input: Tensor) -> None:
    size = input.array.size // max(input.array.shape[1], 1)
    if size == 1:
        raise ValueError(
            f"[{name}] more than one value a channel is needed in training, came input {describe(input)}"
        )


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 for each channel of (N, C, ...), then weight and bias (arXiv:1502.03167).

    training: by the batch's own moments, which move the running ones (the variance divided by n - 1); else by
    the running ones.
    """
    _check_channels(
        "batch_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError(
                "[batch_norm] running_mean and running_var must be given in evaluation, came None"
            )
        return _with_moments(input, running_mean, running_var, weight, bias, eps)
    _several("batch_norm", input)
    mean, variance = _moments(input.array)
    count = input.array.size // input.array.shape[1]
    _move(running_mean, mean, momentum)
    _move(running_var, variance, momentum, count / (count - 1))
    return ops.batch_norm(input, weight, bias, mean=mean, variance=variance, eps=eps)


@ArrayFunction
def _moments(x: Any) -> tuple[Any, Any]:
    xp = array_namespace[type(x)]
    if xp in ops.faster_moments and (found := ops.faster_moments[xp](x)) is not None:
        return found
    if x.dtype.itemsize == 2:
        x = x.astype(np.float32)
    return ops.channel_moments(xp, ops.by_channel(xp, x))


def _running_average(old: Any, now: Any, momentum: float, factor: float) -> None:
    old[...] = old * (1 - momentum) + momentum * (now * factor)


_average = ArrayFunction(_running_average, writes=(0,))


@ArrayFunction
def _over_samples(x: Any, n: int, c: int) -> Any:
    return x.reshape(n, c).mean(axis=0)


def _move(running: Tensor | None, now: Any, momentum: float, factor: float = 1.0) -> None:
    if running is not None:
        _average(running.array, now, momentum, factor)
        running._version[0] += 1


def _with_moments(
    input: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    scale = pointwise.rsqrt(variance + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias
    dtype = input.array.dtype
    if scale.array.dtype != dtype:
        scale, shift = pointwise.cast(scale, dtype=dtype), pointwise.cast(shift, dtype=dtype)
    return input * _per_channel(scale, input.ndim) + _per_channel(shift, input.ndim)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """batch_norm of each sample for itself (arXiv:1607.08022)."""
    _check_channels(
        "instance_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError(
                "[instance_norm] running moments must be given with use_input_stats=False, came None"
            )
        return _with_moments(input, running_mean, running_var, weight, bias, eps)
    n, c, *rest = input.array.shape
    if int(np.prod(rest)) <= 1:
        raise ValueError(
            f"[instance_norm] more than one value a channel and sample is needed, came input {describe(input)}"
        )
    if not n:
        return _affine(input.clone(), weight, bias)
    flat = input.reshape((1, n * c, *rest))
    mean, variance = _moments(flat.array)
    if running_mean is not None and running_var is not None:
        count = int(np.prod(rest))
        _move(running_mean, _over_samples(mean, n, c), momentum)
        _move(running_var, _over_samples(variance, n, c), momentum, count / (count - 1))
    y = ops.batch_norm(flat, None, None, mean=mean, variance=variance, eps=eps).reshape((n, c, *rest))
    return _affine(y, weight, bias)


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * _per_channel(weight, y.ndim)
    return y if bias is None else y + _per_channel(bias, y.ndim)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 for groups of channels of each sample, then weight and bias (arXiv:1803.08494)."""
    _check_channels("group_norm", input, weight=weight, bias=bias)
    n, c, *rest = input.array.shape
    if num_groups < 1 or c % num_groups:
        raise RuntimeError(f"[group_norm] the channels must divide by num_groups, came {c} and {num_groups}")
    size = c // num_groups * int(np.prod(rest))
    rows = input.reshape((n * num_groups, size))
    y = ops.layer_norm(rows, None, None, shape=(size,), eps=eps).reshape((n, c, *rest))
    return _affine(y, weight, bias)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha mean(x^2 over `size` neighbouring channels))^beta, as in AlexNet (doi:10.1145/3065386)."""
    if input.ndim < 3:
        raise ValueError(f"[local_response_norm] the input must be (N, C, ...), came {describe(input)}")
    n, c, *rest = input.array.shape
    if not isinstance(size, int):
        raise TypeError(f"[local_response_norm] size must be an int, came {size!r}")
    squares = (input * input).reshape((n, 1, c, math.prod(rest)))
    squares = pad(squares, (0, 0, size // 2, (size - 1) // 2))
    mean = avg_pool2d(squares, (size, 1), stride=1).reshape((n, c, *rest))
    return input / pointwise.pow(mean * alpha + k, beta)
