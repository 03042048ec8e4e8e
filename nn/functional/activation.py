"""Activation functions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ...autograd.engine import wrap
from ...autograd.inplace import apply_inplace
from ...tensor import Tensor, functions, generator
from ...tensor.checks import refuse
from ...tensor.ops import activation as ops
from ...tensor.ops import pointwise, shape
from ...tensor.random import default_generator

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _apply(op: Any, input: Tensor, inplace: bool, **kw: Any) -> Tensor:
    return apply_inplace(op, input, **kw) if inplace else op(input, **kw)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0)."""
    return apply_inplace(ops.relu, input) if inplace and isinstance(input, Tensor) else ops.relu(input)


def relu_(input: Tensor) -> Tensor:
    """relu in place."""
    return relu(input, True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(input, 0), 6)."""
    return _apply(ops.hardtanh, input, inplace, low=0.0, high=6.0)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """input, cut off at `min_val` and `max_val`."""
    if min_val > max_val:
        raise ValueError(f"[hardtanh] min_val must not be larger than max_val, came {min_val} and {max_val}")
    return _apply(ops.hardtanh, input, inplace, low=min_val, high=max_val)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """hardtanh in place; where min_val is larger than max_val, max_val everywhere."""
    if min_val is None or max_val is None:
        raise TypeError(f"[hardtanh_] the bounds must be numbers, came {min_val} and {max_val}")
    return _apply(ops.hardtanh, input, True, low=min_val, high=max_val)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """input where it is larger than `threshold`, else `value`."""
    if value is None:
        raise TypeError("[threshold] the value must be a number, came None")
    return _apply(ops.threshold, input, inplace, threshold=threshold, value=value)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """threshold in place."""
    return _apply(ops.threshold, input, True, threshold=threshold, value=value)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """input where it is positive, else negative_slope * input."""
    return _apply(ops.leaky_relu, input, inplace, negative_slope=negative_slope)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """leaky_relu in place."""
    return leaky_relu(input, negative_slope, True)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """leaky_relu with a learnt slope: one, or one a channel (dimension 1)."""
    channels = 1 if input.ndim < 2 else input.array.shape[1]
    if weight.array.size != 1 and (weight.ndim != 1 or weight.array.size != channels):
        raise RuntimeError(
            f"[prelu] the weight must have one element or one a channel, {channels}, came {list(weight.shape)}"
        )
    if weight.array.size > 1:
        weight = weight.reshape((1, -1) + (1,) * (input.ndim - 2))
    return pointwise.where(input > 0, input, weight * input)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """leaky_relu whose slope is drawn for each negative element in [lower, upper], or their mean in evaluation."""
    if lower > upper:
        raise RuntimeError(f"[rrelu] lower must be <= upper, came {lower} and {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    x = input.array
    slope = x.astype(x.dtype)
    negative = x <= 0
    slope[...] = 1
    count = int(negative.sum())
    slope[negative] = generator.default_generator.uniform(count, lower, upper, dtype=np.float64)
    noise = wrap(slope)
    return apply_inplace(pointwise.mul, input, noise) if inplace else input * noise


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """rrelu in place."""
    return rrelu(input, lower, upper, training, True)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """input where it is positive, else alpha * (exp(input) - 1)."""
    return _apply(ops.elu, input, inplace, alpha=alpha, scale=1.0, input_scale=1.0)


def elu_(input: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """elu in place, of input_scale * input where that is not positive, and all times scale."""
    return _apply(ops.elu, input, True, alpha=alpha, scale=scale, input_scale=input_scale)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Scaled elu that keeps mean 0 and variance 1 (arXiv:1706.02515)."""
    return _apply(ops.elu, input, inplace, alpha=_SELU_ALPHA, scale=_SELU_SCALE, input_scale=1.0)


def selu_(input: Tensor) -> Tensor:
    """selu in place."""
    return selu(input, True)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(input, 0) + min(0, alpha * (exp(input / alpha) - 1))."""
    if not alpha:
        raise RuntimeError("[celu] alpha must not be 0, came 0")
    return _apply(ops.elu, input, inplace, alpha=alpha, scale=1.0, input_scale=1.0 / alpha)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """celu in place."""
    return celu(input, alpha, True)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input * Phi(input), Phi the normal distribution function; approximate "tanh" (arXiv:1606.08415)."""
    if approximate == "none":
        return ops.gelu(input)
    if approximate == "tanh":
        return ops.gelu_tanh(input)
    raise RuntimeError(f"[gelu] approximate must be 'none' or 'tanh', came {approximate!r}")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input)."""
    return _apply(ops.silu, input, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * tanh(softplus(input))."""
    return _apply(ops.mish, input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """input * min(max(input + 3, 0), 6) / 6."""
    return _apply(ops.hardswish, input, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(input + 3, 0), 6) / 6."""
    return _apply(ops.hardsigmoid, input, inplace)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta * input)) / beta; the input itself where beta * input > threshold."""
    return ops.softplus(input, beta=beta, threshold=threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(input)), computed without overflow."""
    return ops.logsigmoid(input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input where its magnitude is larger than `lambd`, else 0."""
    return ops.hardshrink(input, lambd=lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input moved towards 0 by `lambd`, and 0 where that would cross it."""
    if lambd < 0:
        raise RuntimeError(f"[softshrink] lambd must be >= 0, came {lambd}")
    return ops.softshrink(input, lambd=lambd)


def tanhshrink(input: Tensor) -> Tensor:
    """input - tanh(input)."""
    return input - pointwise.tanh(input)


def softsign(input: Tensor) -> Tensor:
    """input / (1 + |input|)."""
    return input / (pointwise.abs(input) + 1)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b) for the two halves a, b of the input along `dim`."""
    refuse("glu", "biuc", input)
    if not input.ndim:
        raise RuntimeError("[glu] the input must have dimensions, came a 0-d one")
    size = input.shape[shape.axis_of("glu", dim, input.ndim)]
    if size % 2:
        raise RuntimeError(
            f"[glu] the size of dimension {dim} must be even, came {size} of {list(input.shape)}"
        )
    a, b = shape.split(input, sizes=size // 2, dim=dim) if size else (input, input)
    return a * pointwise.sigmoid(b)


def _dim(name: str, ndim: int) -> int:
    """The dimension that PyTorch takes when none is given, with its warning."""
    warnings.warn(
        f"[{name}] a dimension should be given: without dim it depends on how many there are", stacklevel=4
    )
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """exp(input) divided by its sum along `dim`."""
    if dtype is not None:
        input = functions.cast(input, dtype)
    return ops.softmax(input, dim=_dim("softmax", input.ndim) if dim is None else dim)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """softmax(-input)."""
    if dtype is not None:
        input = functions.cast(input, dtype)
    return ops.softmax(-input, dim=_dim("softmin", input.ndim) if dim is None else dim)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """log(softmax(input)), computed without overflow."""
    if dtype is not None:
        input = functions.cast(input, dtype)
    return ops.log_softmax(input, dim=_dim("log_softmax", input.ndim) if dim is None else dim)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """Samples of the Gumbel-softmax distribution (arXiv:1611.00712); `hard`: one-hot, with the soft gradient."""
    drawn = default_generator(logits).exponential(logits.array.shape, 1.0, dtype=logits.array.dtype)
    soft = ops.softmax((logits - wrap(drawn).log()) / tau, dim=dim)
    if not hard:
        return soft
    index = functions.argmax(soft, dim=dim, keepdim=True)
    one = np.zeros(soft.array.shape, soft.array.dtype)
    np.put_along_axis(one, index.array, 1, axis=dim)
    return wrap(one) - soft.detach() + soft
