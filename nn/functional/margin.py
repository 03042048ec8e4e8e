"""Losses with margins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...autograd.engine import wrap
from ...autograd.op import describe
from ...tensor import Tensor, functions
from ...tensor.checks import refuse, tensors
from ...tensor.ops import activation, pointwise
from ...tensor.ops import loss as ops
from .loss import Old, reduced, reduction_of
from .mapping import pairwise_distance


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    refuse("hinge_embedding_loss", "biu", input)
    tensors("hinge_embedding_loss", input, target)
    reduction = reduction_of("hinge_embedding_loss", reduction, size_average, reduce)
    zero = input.new_zeros(())
    far = pointwise.where(target == 1, zero, activation.relu(margin - input))
    near = pointwise.where(target == -1, zero, input)
    return reduced(far + near, reduction)


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
    reduction = reduction_of("margin_ranking_loss", reduction, size_average, reduce)
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            f"[margin_ranking_loss] all must have equally many dimensions, came {describe(input1)},"
            f" {describe(input2)} and {describe(target)}"
        )
    return reduced(activation.relu(-target * (input1 - input2) + margin), reduction)


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
    reduction = reduction_of("cosine_embedding_loss", reduction, size_average, reduce)
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
    return reduced(near + far, reduction)


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
    reduction = reduction_of("triplet_margin_loss", reduction, size_average, reduce)
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
    reduction = reduction_of("triplet_margin_with_distance_loss", reduction)
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
    return reduced(activation.relu(near - far + margin), reduction)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None, reduction: str = "mean"
) -> Tensor:
    """log(1 + exp(-target input))."""
    refuse("soft_margin_loss", "biu", input)
    if np.broadcast_shapes(input.shape, target.shape) != input.array.shape:
        raise RuntimeError(
            f"[soft_margin_loss] the target must broadcast to the input, came {describe(target)} for {describe(input)}"
        )
    reduction = reduction_of("soft_margin_loss", reduction, size_average, reduce)
    if input.is_complex():
        return reduced(pointwise.log(1 + pointwise.exp(-(target * input))), reduction)
    losses = functions.cast(-activation.logsigmoid(target * input), input.array.dtype)
    return reduced(losses, reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    size_average: Old = None,
    reduce: Old = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over the classes (last dimension) of binary cross entropies with logits."""
    refuse("multilabel_soft_margin_loss", "b", target)
    if not input.ndim:
        raise IndexError(
            "[multilabel_soft_margin_loss] the input must have a class dimension, came a 0-d tensor"
        )
    reduction = reduction_of("multilabel_soft_margin_loss", reduction, size_average, reduce)
    losses = -(target * activation.logsigmoid(input) + (1 - target) * activation.logsigmoid(-input))
    return reduced((losses if weight is None else losses * weight).mean(-1), reduction)


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
    reduction = reduction_of("multi_margin_loss", reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError(f"[multi_margin_loss] p must be 1 or 2, came {p}")
    if input.ndim > 2 or target.array.shape not in (input.array.shape[:-1], input.ndim < 2 and (1,)):
        raise RuntimeError(
            f"[multi_margin_loss] the input must be (N, C) or (C,) and the target (N,) or of one element, came"
            f" target {describe(target)} for input {describe(input)}"
        )
    ops.check_target("multi_margin_loss", input, target if input.ndim > 1 else target.reshape(()), weight)
    x = input if input.ndim > 1 else input.unsqueeze(0)
    index = target.reshape((-1, 1))
    classes = x.shape[1]
    if index.array.size and not 0 <= index.array.min() <= index.array.max() < classes:
        raise RuntimeError(
            f"[multi_margin_loss] class indices must be in [0, {classes - 1}], came {int(index.array.min())} to"
            f" {int(index.array.max())}"
        )
    excess = activation.relu(margin - functions.gather(x, 1, index) + x)
    excess = excess if p == 1 else excess * excess
    if weight is not None:
        excess = excess * weight[index]
    hit = np.arange(classes) == index.array
    losses = pointwise.masked_fill(excess, wrap(hit), 0).sum(1) / classes
    return reduced(losses if input.ndim > 1 else losses.squeeze(0), reduction)


def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None, reduction: str = "mean"
) -> Tensor:
    """Sum over targets t and other classes j of max(0, 1 - x[t] + x[j]) / C; targets end at the first -1."""
    reduction = reduction_of("multilabel_margin_loss", reduction, size_average, reduce)
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
    return reduced(losses if input.ndim > 1 else losses.squeeze(0), reduction)
