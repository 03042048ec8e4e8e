"""Losses and lookups over sequences of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...autograd.engine import Variable, array_namespace, whole, wrap
from ...autograd.op import describe
from ...tensor import Tensor, functions
from ...tensor.checks import refuse
from ...tensor.device import by_the_host
from ...tensor.dtypes import category
from ...tensor.ops import pointwise, shape
from ...tensor.ops import reduce as _reduce
from .mapping import embedding

_NEVER = -1e30  # the log of a probability of 0 that can still be subtracted from itself


def _lengths(name: str, what: str, value: Any, batch: int, most: int) -> np.ndarray:
    array = np.asarray(value.array if isinstance(value, Variable) else value).reshape(-1)
    if array.size != batch or category(array.dtype) != 1:
        raise RuntimeError(f"[{name}] {what} must hold {batch} integers, came {describe(array)}")
    if array.size and (array.min() < 0 or array.max() > most):
        bad = array.min() if array.min() < 0 else array.max()
        raise RuntimeError(f"[{name}] {what} must be in [0, {most}], came {int(bad)}")
    return array


def _rows_of_targets(targets: Tensor, lengths: np.ndarray, batch: int) -> np.ndarray:
    """Targets as (N, S), from that or from one sequence after the other."""
    array = targets.array
    if array.ndim == 2:
        return array
    if array.size < lengths.sum():
        raise RuntimeError(f"[ctc_loss] targets must hold {lengths.sum()} labels, came {array.size}")
    rows = np.zeros((batch, int(lengths.max(initial=0))), array.dtype)
    start = 0
    for i, n in enumerate(lengths):
        rows[i, :n] = array[start : start + n]
        start += n
    return rows


@by_the_host
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability of all alignments of the targets (doi:10.1145/1143844.1143891).

    log_probs: (T, N, C) or (T, C), from log_softmax. targets: (N, S), or all labels one after the other.
    "mean" divides each loss by its target's length first. The gradient is that of this function: PyTorch's differs
    by a term that log_softmax's own gradient takes away. zero_infinity: 0 where the input is too short.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"[ctc_loss] reduction must be 'mean', 'sum' or 'none', came {reduction!r}")
    single = log_probs.ndim == 2
    if single:
        log_probs, targets = log_probs.unsqueeze(1), targets.reshape((1, -1))
    if log_probs.ndim != 3:
        raise RuntimeError(f"[ctc_loss] log_probs must be (T, N, C) or (T, C), came {describe(log_probs)}")
    steps, batch, classes = log_probs.array.shape
    if not 0 <= blank < classes:
        raise RuntimeError(f"[ctc_loss] blank must be in [0, {classes - 1}], came {blank}")
    longest = targets.array.shape[1] if targets.ndim == 2 else targets.array.size
    wanted = _lengths("ctc_loss", "target_lengths", target_lengths, batch, longest)
    given = _lengths("ctc_loss", "input_lengths", input_lengths, batch, steps)
    labels = _rows_of_targets(targets, wanted, batch)
    inside: np.ndarray = np.arange(labels.shape[1]) < wanted[:, None]
    bad = labels[inside & ((labels < 0) | (labels >= classes))]
    if bad.size:
        raise IndexError(f"[ctc_loss] labels must be in [0, {classes - 1}], came {int(bad[0])}")
    states = np.full((batch, 2 * labels.shape[1] + 1), blank)
    states[:, 1::2] = np.where(inside, labels, blank)
    losses = -_alignments(log_probs, states, given, wanted, blank)
    impossible = wrap(losses.array > -_NEVER / 10)
    losses = pointwise.masked_fill(losses, impossible, 0.0 if zero_infinity else float("inf"))
    if reduction == "mean":
        return (losses / wrap(np.maximum(wanted, 1).astype(losses.array.dtype))).mean()
    if reduction == "sum":
        return losses.sum()
    return losses.squeeze(0) if single else losses


def _alignments(
    log_probs: Tensor, states: np.ndarray, given: np.ndarray, wanted: np.ndarray, blank: int
) -> Tensor:
    """Log-probabilities of all paths through blanks and labels, by forward recursion over time."""
    steps, batch, _ = log_probs.array.shape
    count = states.shape[1]
    dtype = log_probs.array.dtype
    index = np.broadcast_to(states, (steps, batch, count))
    emitted = shape.unbind(functions.gather(log_probs, 2, wrap(np.ascontiguousarray(index))), dim=0)
    start = np.full((batch, count), _NEVER, dtype)
    start[:, :2] = 0
    skips = np.full((batch, count), _NEVER, dtype)
    repeats = states[:, 2:] == states[:, :-2]
    skips[:, 2:][(states[:, 2:] != blank) & ~repeats] = 0
    edge = wrap(np.full((batch, 2), _NEVER, dtype))
    alpha = pointwise.clamp(wrap(start) + emitted[0], _NEVER, None) if steps else wrap(start)
    for t in range(1, steps):
        padded = shape.cat(edge, alpha, dim=1)
        one = shape.narrow(padded, dim=1, start=1, length=count)
        two = pointwise.clamp(shape.narrow(padded, dim=1, start=0, length=count) + wrap(skips), _NEVER, None)
        moved = _reduce.logsumexp(shape.stack(alpha, one, two, dim=0), dim=0) + emitted[t]
        moved = pointwise.clamp(moved, _NEVER, None)
        alive = given > t
        alpha = moved if alive.all() else pointwise.where(wrap(alive[:, None]), moved, alpha)
    ends = np.stack([2 * wanted, np.maximum(2 * wanted - 1, 0)], axis=1)
    last = functions.gather(alpha, 1, wrap(ends))
    only = np.zeros((batch, 2), dtype)
    only[wanted == 0, 1] = _NEVER
    return _reduce.logsumexp(last + wrap(only), dim=1)


@whole
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sums, means or maxima of bags of rows of `weight`: bags are the rows of `input`, or start at `offsets`."""
    refuse("embedding_bag", "b", input)
    refuse("embedding_bag", "biuc", weight)
    if weight.ndim != 2:
        raise ValueError(f"[embedding_bag] the weight must be a matrix, came {describe(weight)}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"[embedding_bag] mode must be 'sum', 'mean' or 'max', came {mode!r}")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(f"[embedding_bag] per_sample_weights are for mode 'sum', came {mode!r}")
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError(
            f"[embedding_bag] per_sample_weights must have the input's shape, came {describe(per_sample_weights)} for"
            f" {describe(input)}"
        )
    at, inside = _bags(input, offsets, include_last_offset)
    flat = input.array.reshape(-1)
    xp = array_namespace[type(flat)]
    at, inside = xp.asarray(at), xp.asarray(inside)
    rows_given = weight.array.shape[0]
    if flat.size and (flat.min() < 0 or flat.max() >= rows_given):
        raise RuntimeError(
            f"[embedding_bag] indices must be in [0, {rows_given - 1}], came {int(flat.min())} to {int(flat.max())}"
        )
    index = flat[at] if flat.size else xp.zeros(at.shape, np.int64)
    if padding_idx is not None:
        padding_idx %= weight.array.shape[0]
        inside = inside & (index != padding_idx)
    index = xp.where(inside, index, 0)
    rows = embedding(wrap(index), weight, None, max_norm, norm_type, scale_grad_by_freq, sparse)
    hidden = wrap(~inside[..., None])
    if mode == "max":
        empty = wrap(~inside.any(axis=1, keepdims=True))
        if not at.shape[1]:
            return weight.new_zeros((at.shape[0], weight.shape[1])) + weight.sum() * 0
        best = functions.max(pointwise.masked_fill(rows, hidden, float("-inf")), 1).values
        return pointwise.masked_fill(best, empty, 0.0)
    rows = pointwise.masked_fill(rows, hidden, 0.0)
    if per_sample_weights is not None:
        chosen = per_sample_weights.reshape((-1,))[wrap(at)] if flat.size else rows.sum(-1)
        rows = rows * chosen.unsqueeze(-1)
    total = rows.sum(1)
    if mode == "sum":
        return total
    count = np.maximum(inside.sum(axis=1, keepdims=True), 1)
    return total / wrap(count.astype(weight.array.dtype))


def _bags(input: Tensor, offsets: Tensor | None, include_last: bool) -> tuple[np.ndarray, np.ndarray]:
    """(bags, longest) places in the flattened input, and which of them are inside their bag."""
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError("[embedding_bag] offsets are for an input of 1 dimension, came with 2")
        at = np.arange(input.array.size).reshape(input.array.shape)
        return at, np.ones(at.shape, bool)
    if input.ndim != 1 or offsets is None or offsets.ndim != 1:
        raise ValueError(
            f"[embedding_bag] the input must be 2-d, or 1-d with 1-d offsets, came {describe(input)} and"
            f" {offsets if offsets is None else describe(offsets)}"
        )
    size = input.array.size
    starts = offsets.cpu().array
    if starts.size and starts[0] != 0:
        raise ValueError(f"[embedding_bag] offsets must start with 0, came {int(starts[0])}")
    if starts.size and starts.max() > size:
        raise ValueError(f"[embedding_bag] offsets must be at most {size}, came {int(starts.max())}")
    edges = starts if include_last else np.append(starts, size)
    first, lengths = edges[:-1], np.diff(edges)
    steps: Sequence[int] = range(int(lengths.max(initial=0)))
    at = first[:, None] + np.asarray(steps, np.int64)
    inside = np.asarray(steps) < lengths[:, None]
    return np.where(inside, at, 0), inside
