"""Loss functions. `size_average` and `reduce` are PyTorch's old names for `reduction`."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ...autograd.engine import Variable, wrap
from ...autograd.op import describe
from ...tensor import Tensor, functions
from ...tensor.checks import one_dtype, refuse
from ...tensor.dtypes import category, promote_types
from ...tensor.ops import activation, pointwise
from ...tensor.ops import loss as ops

Old = bool | None  # PyTorch's old arguments size_average and reduce


def reduction_of(name: str, reduction: str, size_average: Old = None, reduce: Old = None) -> str:
    """The reduction that is meant, checked, from it or from the old arguments."""
    if size_average is not None or reduce is not None:
        average = size_average is not False
        reduction = "none" if reduce is False else "mean" if average else "sum"
        warnings.warn(
            f"[{name}] size_average and reduce are deprecated: use reduction={reduction!r}", stacklevel=3
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"[{name}] reduction must be 'mean', 'sum' or 'none', came {reduction!r}")
    return reduction


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of the losses, or the losses."""
    if reduction == "mean":
        return losses.mean()
    return losses.sum() if reduction == "sum" else losses


def _same_shape(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Broadcast to one shape, with a warning where that was needed."""
    if not isinstance(target, Variable):
        raise TypeError(f"[{name}] the target must be a Tensor, came {type(target).__name__}")
    if input.array.dtype != target.array.dtype:
        kinds = category(input.array.dtype), category(target.array.dtype)
        if kinds[0] < 2 and kinds[1] < 2:
            raise RuntimeError(
                f"[{name}] the dtype must be floating, came {describe(input)} and {describe(target)}"
            )
        common = promote_types(input.array.dtype, target.array.dtype)
        input, target = functions.cast(input, common), functions.cast(target, common)
    shapes = input.array.shape, target.array.shape
    if shapes[0] == shapes[1]:
        return input, target
    warnings.warn(
        f"[{name}] target and input should have one shape, came {list(shapes[1])} and {list(shapes[0])}: they are"
        " broadcast, which is seldom what is meant",
        stacklevel=3,
    )
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise RuntimeError(
            f"[{name}] shapes must broadcast, came input {list(shapes[0])} and target {list(shapes[1])}"
        ) from None
    return functions.broadcast_to(input, shape), functions.broadcast_to(target, shape)


# ---- classes


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Old = None,
    ignore_index: int = -100,
    reduce: Old = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of softmax(input) in nats; input (N, C, ...) or (C,).

    target: class indices (N, ...), or probabilities of the input's shape and a floating dtype.
    weight: one factor a class. "mean" divides by the weights of the targets (indices), or by N (probabilities).
    label_smoothing: the part of each target that is shared out evenly (arXiv:1512.00567).
    """
    if size_average is not None or reduce is not None or reduction not in ("mean", "sum", "none"):
        reduction = reduction_of("cross_entropy", reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"[cross_entropy] label_smoothing must be in [0, 1], came {label_smoothing}")
    if category(target.array.dtype) == 2:
        return _cross_entropy_of_probabilities(
            input, target, weight, ignore_index, reduction, label_smoothing
        )
    return ops.cross_entropy(
        input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


def _cross_entropy_of_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    if ignore_index >= 0:
        raise RuntimeError(
            f"[cross_entropy] ignore_index must not be given with probabilities, came {ignore_index}"
        )
    if input.shape != target.shape:
        kind: type[Exception] = RuntimeError if input.ndim else IndexError
        if input.ndim > 1 and (target.shape[0] if target.ndim else 0) != input.shape[0]:
            kind = ValueError
        raise kind(
            f"[cross_entropy] a target of probabilities must have the input's shape, came target {describe(target)}"
            f" for input {describe(input)}"
        )
    dim = 1 if input.ndim > 1 else 0
    classes = input.array.shape[dim]
    if weight is not None and weight.array.shape != (classes,):
        raise RuntimeError(
            f"[cross_entropy] the weight must have one element a class, {classes}, came {describe(weight)}"
        )
    if smoothing:
        target = target * (1 - smoothing) + smoothing / classes
    logs = activation.log_softmax(input, dim=dim)
    if weight is not None:
        logs = logs * weight.reshape((-1,) + (1,) * (input.ndim - dim - 1))
    losses = -(logs * target)
    if reduction == "none":
        return losses.sum(dim)
    total = losses.sum()
    return total if reduction == "sum" else total / (input.array.size // classes)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Old = None,
    ignore_index: int = -100,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """-weight[t] input[t] for log-probabilities (N, C, ...) and class indices (N, ...), see cross_entropy."""
    reduction = reduction_of("nll_loss", reduction, size_average, reduce)
    return ops.nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)


# ---- differences


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input - target)^2; with `weight` the mean is divided by the sum of the weights."""
    reduction = reduction_of("mse_loss", reduction, size_average, reduce)
    input, target = _same_shape("mse_loss", input, target)
    if weight is None:
        return ops.mse_loss(input, target, reduction=reduction)
    return _weighted("mse_loss", ops.mse_loss(input, target, reduction="none"), weight, reduction)


def _weighted(name: str, losses: Tensor, weight: Tensor, reduction: str) -> Tensor:
    if weight.shape != losses.shape:
        raise ValueError(
            f"[{name}] the weight must have the input's shape, came {describe(weight)} for {describe(losses)}"
        )
    losses = losses * weight
    return losses.sum() / weight.sum() if reduction == "mean" else reduced(losses, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input - target|; with `weight` the mean is divided by the sum of the weights."""
    refuse("l1_loss", "b", input, target)
    reduction = reduction_of("l1_loss", reduction, size_average, reduce)
    input, target = _same_shape("l1_loss", input, target)
    losses = pointwise.abs(input - target)
    return reduced(losses, reduction) if weight is None else _weighted("l1_loss", losses, weight, reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, for d = input - target."""
    reduction = reduction_of("smooth_l1_loss", reduction, size_average, reduce)
    if beta < 0:
        raise RuntimeError(f"[smooth_l1_loss] beta must be >= 0, came {beta}")
    input, target = _same_shape("smooth_l1_loss", input, target)
    d = input - target
    return reduced(ops.smooth_l1(d, beta=beta) if beta else pointwise.abs(d), reduction)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2) (doi:10.1214/aoms/1177703732)."""
    refuse("huber_loss", "biu", input)
    reduction = reduction_of("huber_loss", reduction)
    if delta <= 0:
        raise RuntimeError(f"[huber_loss] delta must be positive, came {delta}")
    own = input.array.dtype
    input, target = _same_shape("huber_loss", input, target)
    losses = ops.huber(input - target, delta=delta)
    if losses.array.dtype != own:
        losses = functions.cast(losses, own)
    return (
        reduced(losses, reduction) if weight is None else _weighted("huber_loss", losses, weight, reduction)
    )


# ---- probabilities


def _two_sizes(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"[{name}] target and input must have one shape, came {describe(target)} and {describe(input)}"
        )


def _scaled(name: str, losses: Tensor, weight: Tensor) -> Tensor:
    scaled = losses * weight
    if scaled.array.dtype != losses.array.dtype and not scaled.is_complex():
        scaled = functions.cast(scaled, losses.array.dtype)
    if scaled.array.shape != losses.array.shape or scaled.is_complex() > losses.is_complex():
        raise RuntimeError(
            f"[{name}] the weight must be real and fit the input, came {describe(weight)} for {describe(losses)}"
        )
    return scaled


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """-(t log x + (1 - t) log(1 - x)), the logarithms cut off at -100."""
    one_dtype("binary_cross_entropy", input, target)
    reduction = reduction_of("binary_cross_entropy", reduction, size_average, reduce)
    _two_sizes("binary_cross_entropy", input, target)
    losses = ops.binary_cross_entropy(input, target)
    return reduced(losses if weight is None else _scaled("binary_cross_entropy", losses, weight), reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow; pos_weight multiplies the part of t = 1."""
    refuse("binary_cross_entropy_with_logits", "biuc", input)
    refuse("binary_cross_entropy_with_logits", "biu", target)
    reduction = reduction_of("binary_cross_entropy_with_logits", reduction, size_average, reduce)
    _two_sizes("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        losses = ops.bce_with_logits(input, target)
    else:
        factor = (pos_weight - 1) * target + 1
        losses = (1 - target) * input - factor * activation.logsigmoid(input)
    if losses.array.dtype != target.array.dtype:
        losses = functions.cast(losses, target.array.dtype)
    if weight is not None:
        losses = _scaled("binary_cross_entropy_with_logits", losses, weight)
    return reduced(losses, reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target (log target - input) for log-probabilities `input`; "batchmean" divides the sum by the batch."""
    refuse("kl_div", "biuc", input, target)
    if reduction == "mean":
        warnings.warn(
            "[kl_div] reduction 'mean' divides by the number of elements; 'batchmean' gives the divergence",
            stacklevel=2,
        )
    plain = reduction_of("kl_div", "sum" if reduction == "batchmean" else reduction, size_average, reduce)
    losses = pointwise.exp(target) * (target - input) if log_target else ops.x_log_x(target) - target * input
    total = reduced(losses, plain)
    return total / input.shape[0] if reduction == "batchmean" and input.ndim else total


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: Old = None,
    eps: float = 1e-8,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - t x (log_input), or x - t log(x + eps); `full` adds Stirling's approximation of log t!."""
    reduction = reduction_of("poisson_nll_loss", reduction, size_average, reduce)
    if log_input:
        losses = pointwise.exp(input) - target * input
    else:
        losses = input - target * pointwise.log(input + eps)
    if full:
        stirling = target * pointwise.log(target) - target + pointwise.log(target * (2 * math.pi)) * 0.5
        losses = losses + pointwise.masked_fill(stirling, target <= 1, 0)
    return reduced(losses, reduction)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log v + (x - t)^2 / v) / 2 with v = max(var, eps); `full` adds log(2 pi) / 2."""
    refuse("gaussian_nll_loss", "biuc", var)
    reduction = reduction_of("gaussian_nll_loss", reduction)
    number = not isinstance(var, Variable)
    if number:
        if var < 0:
            raise ValueError(f"[gaussian_nll_loss] var must be >= 0, came {var}")
        var = input.new_full((), var)
    elif (var.array < 0).any():
        raise ValueError(f"[gaussian_nll_loss] var must be >= 0, came {var.array.min()}")
    shape, sizes = var.array.shape, input.array.shape
    if not number and shape != sizes:
        if shape == sizes[:-1]:
            var = var.unsqueeze(-1)
        elif shape[:-1] != sizes[:-1] or shape[-1:] != (1,):
            raise ValueError(
                f"[gaussian_nll_loss] var must fit the input, came {describe(var)} for {describe(input)}"
            )
    floor = wrap(
        np.maximum(eps - var.array, 0).astype(var.array.dtype)
    )  # the gradient passes as if not cut off
    v = var + floor
    losses = (pointwise.log(v) + (input - target) ** 2 / v) * 0.5
    return reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)
