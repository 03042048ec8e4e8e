"""Loss functions. `size_average` and `reduce` are PyTorch's old names for `reduction`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ...autograd.engine import Variable, wrap
from ...autograd.op import describe
from ...tensor import Tensor, functions
from ...tensor.dtypes import category, promote_types
from ...tensor.ops import activation, pointwise
from ...tensor.ops import loss as ops
from .mapping import pairwise_distance

Old = bool | None  # PyTorch's old arguments size_average and reduce


def _reduction(name: str, reduction: str, size_average: Old = None, reduce: Old = None) -> str:
    if size_average is not None or reduce is not None:
        average = size_average is not False
        reduction = "none" if reduce is False else "mean" if average else "sum"
        warnings.warn(
            f"[{name}] size_average and reduce are deprecated: use reduction={reduction!r}", stacklevel=3
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"[{name}] reduction must be 'mean', 'sum' or 'none', came {reduction!r}")
    return reduction


def _reduced(losses: Tensor, reduction: str) -> Tensor:
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
        reduction = _reduction("cross_entropy", reduction, size_average, reduce)
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
        raise RuntimeError(
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
    reduction = _reduction("nll_loss", reduction, size_average, reduce)
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
    reduction = _reduction("mse_loss", reduction, size_average, reduce)
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
    return losses.sum() / weight.sum() if reduction == "mean" else _reduced(losses, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input - target|; with `weight` the mean is divided by the sum of the weights."""
    reduction = _reduction("l1_loss", reduction, size_average, reduce)
    input, target = _same_shape("l1_loss", input, target)
    losses = pointwise.abs(input - target)
    return _reduced(losses, reduction) if weight is None else _weighted("l1_loss", losses, weight, reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, for d = input - target."""
    reduction = _reduction("smooth_l1_loss", reduction, size_average, reduce)
    if beta < 0:
        raise RuntimeError(f"[smooth_l1_loss] beta must be >= 0, came {beta}")
    input, target = _same_shape("smooth_l1_loss", input, target)
    d = input - target
    return _reduced(ops.smooth_l1(d, beta=beta) if beta else pointwise.abs(d), reduction)


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2) (doi:10.1214/aoms/1177703732)."""
    reduction = _reduction("huber_loss", reduction)
    if delta <= 0:
        raise RuntimeError(f"[huber_loss] delta must be positive, came {delta}")
    input, target = _same_shape("huber_loss", input, target)
    losses = ops.huber(input - target, delta=delta)
    return (
        _reduced(losses, reduction) if weight is None else _weighted("huber_loss", losses, weight, reduction)
    )


# ---- probabilities


def _two_sizes(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"[{name}] target and input must have one shape, came {describe(target)} and {describe(input)}"
        )


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """-(t log x + (1 - t) log(1 - x)), the logarithms cut off at -100."""
    reduction = _reduction("binary_cross_entropy", reduction, size_average, reduce)
    _two_sizes("binary_cross_entropy", input, target)
    losses = ops.binary_cross_entropy(input, target)
    return _reduced(losses if weight is None else losses * weight, reduction)


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
    reduction = _reduction("binary_cross_entropy_with_logits", reduction, size_average, reduce)
    _two_sizes("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        losses = ops.bce_with_logits(input, target)
    else:
        factor = (pos_weight - 1) * target + 1
        losses = (1 - target) * input - factor * activation.logsigmoid(input)
    return _reduced(losses if weight is None else losses * weight, reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target (log target - input) for log-probabilities `input`; "batchmean" divides the sum by the batch."""
    if reduction == "mean":
        warnings.warn(
            "[kl_div] reduction 'mean' divides by the number of elements; 'batchmean' gives the divergence",
            stacklevel=2,
        )
    plain = _reduction("kl_div", "sum" if reduction == "batchmean" else reduction, size_average, reduce)
    losses = pointwise.exp(target) * (target - input) if log_target else ops.x_log_x(target) - target * input
    total = _reduced(losses, plain)
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
    reduction = _reduction("poisson_nll_loss", reduction, size_average, reduce)
    if log_input:
        losses = pointwise.exp(input) - target * input
    else:
        losses = input - target * pointwise.log(input + eps)
    if full:
        stirling = target * pointwise.log(target) - target + pointwise.log(target * (2 * math.pi)) * 0.5
        losses = losses + pointwise.masked_fill(stirling, target <= 1, 0)
    return _reduced(losses, reduction)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log v + (x - t)^2 / v) / 2 with v = max(var, eps); `full` adds log(2 pi) / 2."""
    reduction = _reduction("gaussian_nll_loss", reduction)
    if not isinstance(var, Variable):
        if var < 0:
            raise ValueError(f"[gaussian_nll_loss] var must be >= 0, came {var}")
        var = input.new_full((), var)
    elif (var.array < 0).any():
        raise ValueError(f"[gaussian_nll_loss] var must be >= 0, came {var.array.min()}")
    shape, sizes = var.array.shape, input.array.shape
    if shape and shape != sizes:
        if shape == sizes[:-1]:
            var = var.unsqueeze(-1)
        elif shape[:-1] != sizes[:-1] or shape[-1] != 1:
            raise ValueError(
                f"[gaussian_nll_loss] var must fit the input, came {describe(var)} for {describe(input)}"
            )
    floor = wrap(
        np.maximum(eps - var.array, 0).astype(var.array.dtype)
    )  # the gradient passes as if not cut off
    v = var + floor
    losses = (pointwise.log(v) + (input - target) ** 2 / v) * 0.5
    return _reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


# ---- margins


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    reduction = _reduction("hinge_embedding_loss", reduction, size_average, reduce)
    zero = input.new_zeros(())
    far = pointwise.where(target == 1, zero, activation.relu(margin - input))
    near = pointwise.where(target == -1, zero, input)
    return _reduced(far + near, reduction)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -target (input1 - input2) + margin)."""
    reduction = _reduction("margin_ranking_loss", reduction, size_average, reduce)
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            f"[margin_ranking_loss] all must have equally many dimensions, came {describe(input1)},"
            f" {describe(input2)} and {describe(target)}"
        )
    return _reduced(activation.relu(-target * (input1 - input2) + margin), reduction)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1; inputs (N, D) or (D,)."""
    reduction = _reduction("cosine_embedding_loss", reduction, size_average, reduce)
    if target.ndim not in (0, 1):
        raise RuntimeError(
            f"[cosine_embedding_loss] the target must have at most one dimension, came {describe(target)}"
        )
    if input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise RuntimeError(
            f"[cosine_embedding_loss] inputs must have one dimension more than the target, came {describe(input1)},"
            f" {describe(input2)} and {describe(target)}"
        )
    dim = target.ndim
    products = (input1 * input2).sum(dim)
    squares = ((input1 * input1).sum(dim) + 1e-12) * ((input2 * input2).sum(dim) + 1e-12)
    cos = products / pointwise.sqrt(squares)
    zero = cos.new_zeros(())
    near = pointwise.where(target == 1, 1 - cos, zero)
    far = pointwise.where(target == -1, activation.relu(cos - margin), zero)
    return _reduced(near + far, reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin) in p-norms (doi:10.5244/C.30.119)."""
    reduction = _reduction("triplet_margin_loss", reduction, size_average, reduce)
    if margin <= 0:
        raise ValueError(f"[triplet_margin_loss] margin must be positive, came {margin}")

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return pairwise_distance(a, b, p, eps)

    return _triplet("triplet_margin_loss", (anchor, positive, negative), distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """triplet_margin_loss with any distance; the 2-norm by default."""
    reduction = _reduction("triplet_margin_with_distance_loss", reduction)
    if margin <= 0:
        raise ValueError(f"[triplet_margin_with_distance_loss] margin must be positive, came {margin}")
    name = "triplet_margin_with_distance_loss"
    return _triplet(
        name, (anchor, positive, negative), distance_function or pairwise_distance, margin, swap, reduction
    )


def _triplet(
    name: str,
    three: tuple[Tensor, ...],
    distance: Callable[..., Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    anchor, positive, negative = three
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            f"[{name}] all must have equally many dimensions, came {', '.join(describe(t) for t in three)}"
        )
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = pointwise.minimum(far, distance(positive, negative))
    return _reduced(activation.relu(near - far + margin), reduction)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None, reduction: str = "mean"
) -> Tensor:
    """log(1 + exp(-target input))."""
    reduction = _reduction("soft_margin_loss", reduction, size_average, reduce)
    return _reduced(-activation.logsigmoid(target * input), reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over the classes (last dimension) of binary cross entropies with logits."""
    reduction = _reduction("multilabel_soft_margin_loss", reduction, size_average, reduce)
    losses = -(target * activation.logsigmoid(input) + (1 - target) * activation.logsigmoid(-input))
    return _reduced((losses if weight is None else losses * weight).mean(-1), reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over the classes j other than t of weight[t] max(0, margin - x[t] + x[j])^p."""
    reduction = _reduction("multi_margin_loss", reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError(f"[multi_margin_loss] p must be 1 or 2, came {p}")
    ops._check_target(
        "multi_margin_loss", input, target.reshape(-1) if input.ndim > 1 else target.reshape(()), weight
    )
    x = input if input.ndim > 1 else input.unsqueeze(0)
    index = target.reshape((-1, 1))
    classes = x.shape[1]
    ops.check_classes("multi_margin_loss", index.array, classes, -1 << 62)
    excess = activation.relu(margin - functions.gather(x, 1, index) + x)
    excess = excess if p == 1 else excess * excess
    if weight is not None:
        excess = excess * weight[index]
    hit = np.arange(classes) == index.array
    losses = pointwise.masked_fill(excess, wrap(hit), 0).sum(1) / classes
    return _reduced(losses if input.ndim > 1 else losses.squeeze(0), reduction)


def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None, reduction: str = "mean"
) -> Tensor:
    """Sum over targets t and other classes j of max(0, 1 - x[t] + x[j]) / C; targets end at the first -1."""
    reduction = _reduction("multilabel_margin_loss", reduction, size_average, reduce)
    if input.shape != target.shape:
        raise RuntimeError(
            "[multilabel_margin_loss] target and input must have one shape, came"
            f" {describe(target)} and {describe(input)}"
        )
    x, index = (t if t.ndim > 1 else t.unsqueeze(0) for t in (input, target))
    classes = x.shape[1]
    ops.check_classes("multilabel_margin_loss", index.array, classes, -1)
    valid = np.logical_and.accumulate(index.array >= 0, axis=1)
    safe = np.where(valid, index.array, 0)
    is_target = np.zeros((x.shape[0], classes), bool)
    rows = np.broadcast_to(np.arange(x.shape[0])[:, None], safe.shape)
    is_target[rows[valid], safe[valid]] = True
    excess = activation.relu(1 - functions.gather(x, 1, wrap(safe)).unsqueeze(2) + x.unsqueeze(1))
    hidden = ~valid[:, :, None] | is_target[:, None, :]
    losses = pointwise.masked_fill(excess, wrap(hidden), 0).sum((1, 2)) / classes
    return _reduced(losses if input.ndim > 1 else losses.squeeze(0), reduction)
