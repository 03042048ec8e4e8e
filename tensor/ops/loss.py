"""Losses. Cross entropy is fused with softmax and its gradient; the others are sums of elementwise ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...autograd.engine import Variable, wrap
from ...autograd.op import Op, describe
from ..dtypes import I64, category
from .activation import by_loop, in_pieces
from .declare import unary
from .rows import back, bounded, last, row_max, row_starts, row_sum

U64 = np.dtype("uint64")
Prepared = tuple[tuple[Any, ...], dict[str, Any]]

# ---- class indices


def check_classes(name: str, target: Any, classes: int, ignore: int) -> None:
    """IndexError for the first class index that is neither in [0, classes) nor `ignore`."""
    if not target.size or (target.min() >= 0 and target.max() < classes):
        return
    bad = target[((target < 0) | (target >= classes)) & (target != ignore)]
    if bad.size:
        raise IndexError(
            f"[{name}] class indices must be in [0, {classes - 1}] or ignore_index {ignore}, came {int(bad.flat[0])}"
        )


def check_target(name: str, x: Any, target: Any, weight: Any) -> None:
    """Errors for inputs (N, C, ...), class indices (N, ...) and weights (C,) that do not fit each other."""
    if category(x.array.dtype) < 2:
        raise RuntimeError(f"[{name}] the input's dtype must be floating, came {describe(x)}")
    if not x.ndim:
        raise ValueError(f"[{name}] the input must have a class dimension, came {describe(x)}")
    if category(target.array.dtype) != 1:
        raise RuntimeError(f"[{name}] class indices must be integers, came {describe(target)}: use .long()")
    expected: tuple[int, ...] = x.array.shape[:1] + x.array.shape[2:] if x.ndim > 1 else ()
    if target.array.shape != expected:
        batch = target.array.shape[0] if target.ndim else 0
        if name == "cross_entropy" and target.array.shape == x.array.shape:
            raise RuntimeError(f"[{name}] probabilities must be floating, came target {describe(target)}")
        batch_differs = batch != expected[0] if x.ndim > 1 else target.ndim == 1
        raise (ValueError if batch_differs else RuntimeError)(
            f"[{name}] the target must have the input's shape without the class dimension, {list(expected)}, came"
            f" target {describe(target)} for input {describe(x)}"
        )
    classes = x.array.shape[1 if x.ndim > 1 else 0]
    if weight is not None and weight.array.shape != (classes,):
        raise RuntimeError(
            f"[{name}] the weight must have one element a class, {classes}, came {describe(weight)}"
        )


def _rows(xp: Any, x: Any) -> Any:
    """(N, C, ...) as a matrix with one row an element to classify."""
    if x.ndim != 2 or not x.flags.c_contiguous:
        x = last(xp, x, 1 if x.ndim > 1 else 0)
    return x.reshape(-1, x.shape[-1])


def _unrows(xp: Any, x: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) <= 2:
        return x.reshape(shape)
    return back(xp, x.reshape(shape[0], *shape[2:], shape[1]), 1)


def _places(xp: Any, name: str, rows: Any, target: Any, weight: Any, ignore: int) -> tuple[Any, Any]:
    """Where each row's target stands in the flattened matrix, and its weight (None: all are 1).

    IndexError for a class index that is neither in [0, classes) nor `ignore`.
    """
    n, classes = rows.shape
    flat = target.reshape(-1)
    starts = row_starts(xp, n, classes)
    inside = not n or (flat.dtype == I64 and flat.view(U64).max() < classes)  # negative ones look huge
    if inside and not 0 <= ignore < classes:
        return starts + flat, None if weight is None else weight[flat]
    kept = flat != ignore
    bad = flat[((flat < 0) | (flat >= classes)) & kept]
    if bad.size:
        raise IndexError(
            f"[{name}] class indices must be in [0, {classes - 1}] or ignore_index {ignore}, came {int(bad[0])}"
        )
    safe = xp.where(kept, flat, 0)
    return starts + safe, kept.astype(rows.dtype) if weight is None else weight[safe] * kept


def _cross_entropy(
    xp: Any,
    x: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    rows = _rows(xp, x)
    at, w = _places(xp, "cross_entropy", rows, target, weight, ignore_index)
    e = rows - row_max(xp, rows)[:, None]
    picked = e.reshape(-1)[at]
    smooth = _smoothing(xp, e, weight) if label_smoothing else None
    xp.exp(e, out=e)
    total = row_sum(xp, e)
    log_total = xp.log(total)
    losses = log_total - picked
    if w is not None:
        losses *= w
        losses[w == 0] = 0  # inf * 0
    if smooth is not None:
        mean, sum_w = smooth
        extra = log_total * sum_w - mean
        if w is not None:
            extra *= target.reshape(-1) != ignore_index
        losses = (1 - label_smoothing) * losses + (label_smoothing / e.shape[1]) * extra
    if reduction == "none":
        return losses.reshape(target.shape), e, total, None, at, w
    y = losses.sum()
    if reduction == "mean":
        count = rows.dtype.type(losses.size) if w is None else w.sum()
        return y / count, e, total, count, at, w
    return y, e, total, None, at, w


def _smoothing(xp: Any, shifted: Any, weight: Any) -> tuple[Any, Any]:
    """Weighted sums of the rows, and the sum of the weights."""
    if weight is None:
        return row_sum(xp, shifted), shifted.shape[1]
    return shifted @ weight, weight.sum()


def _cross_entropy_backward(
    xp: Any,
    g: Any,
    needs: Any,
    x_shape: Any,
    target: Any,
    weight: Any,
    e: Any,
    total: Any,
    count: Any,
    at: Any,
    w: Any,
    ignore_index: int,
    label_smoothing: float,
) -> list[Any]:
    """Rows of (softmax - one hot) times g times the sample's weight; smoothing adds the same for even targets."""
    g = (g if count is None else g / count).reshape(-1)
    pull = hit = g if w is None else g * w
    even: Any = None
    if label_smoothing:
        classes = e.shape[1]
        even = g * e.dtype.type(label_smoothing / classes)
        if w is not None:
            even = even * (target.reshape(-1) != ignore_index)
        hit = hit * e.dtype.type(1 - label_smoothing)
        pull = hit + even * (classes if weight is None else weight.sum())
    dx = e * (pull / total)[:, None]
    dx.reshape(-1)[at] -= hit
    if even is not None:
        dx -= even.reshape(-1, 1) if weight is None else even.reshape(-1, 1) * weight
    return [_unrows(xp, dx, x_shape), None, None]


def _index_prepare(name: str) -> Any:
    def prepare(x: Any, target: Any, weight: Any = None, **kw: Any) -> Prepared:
        if isinstance(x, Variable):
            check_target(name, x, target, weight)
        return (x, target, weight), kw

    return prepare


def _cross_entropy_composite(
    ops: Any, x: Any, target: Any, weight: Any, *, ignore_index: int, reduction: str, label_smoothing: float
) -> Any:
    dim = 1 if x.ndim > 1 else 0
    log_p = ops.log_softmax(x, dim=dim)
    kw = {"ignore_index": ignore_index}
    if not label_smoothing:
        return ops.nll_loss(log_p, target, weight, reduction=reduction, **kw)
    classes = x.array.shape[dim]
    each = ops.nll_loss(log_p, target, weight, reduction="none", **kw) * (1 - label_smoothing)
    weighted = log_p
    if weight is not None:
        weighted = log_p * weight.reshape((-1,) + (1,) * (x.ndim - dim - 1))
    kept = target.array != ignore_index
    even = ops.sum(weighted, dim=dim, keepdim=False) * wrap(kept.astype(x.array.dtype))
    losses = each - even * (label_smoothing / classes)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    w = kept if weight is None else weight.array[np.where(kept, target.array, 0)] * kept
    return losses.sum() / float(w.sum())


cross_entropy = Op(
    "cross_entropy",
    _cross_entropy,
    backward=_cross_entropy_backward,
    composite=_cross_entropy_composite,
    extras=("e", "total", "count", "at", "w"),
    prepare=_index_prepare("cross_entropy"),
)


def _nll(xp: Any, x: Any, target: Any, weight: Any = None, *, ignore_index: int, reduction: str) -> Any:
    rows = _rows(xp, x)
    at, w = _places(xp, "nll_loss", rows, target, weight, ignore_index)
    losses = -rows.reshape(-1)[at]
    if w is not None:
        losses *= w
        losses[w == 0] = 0
    if reduction == "none":
        return losses.reshape(target.shape)
    y = losses.sum()
    return y if reduction == "sum" else y / (rows.dtype.type(losses.size) if w is None else w.sum())


def _nll_adjoint(
    xp: Any, g: Any, target: Any, weight: Any = None, *, shape: Any, ignore_index: int, reduction: str
) -> Any:
    dx = xp.zeros((target.size, shape[1 if len(shape) > 1 else 0]), g.dtype)
    at, w = _places(xp, "nll_loss", dx, target, weight, ignore_index)
    if reduction == "mean":
        g = g / (g.dtype.type(at.size) if w is None else w.sum())
    dx.reshape(-1)[at] = -g.reshape(-1) if w is None else -g.reshape(-1) * w
    return _unrows(xp, dx, shape)


nll_adjoint = Op(
    "nll_adjoint",
    _nll_adjoint,
    [
        lambda ops, g, target, weight, ignore_index, reduction: ops.nll_loss(
            g, target, weight, ignore_index=ignore_index, reduction=reduction
        ),
        None,
        None,
    ],
)
nll_loss = Op(
    "nll_loss",
    _nll,
    [
        lambda ops, g, x_shape, target, weight, ignore_index, reduction: ops.nll_adjoint(
            g, target, weight, shape=x_shape, ignore_index=ignore_index, reduction=reduction
        ),
        None,
        None,
    ],
    prepare=_index_prepare("nll_loss"),
)

# ---- elementwise parts


def _square_error(xp: Any, x: Any, target: Any, *, reduction: str) -> Any:
    d = x - target
    if reduction == "none":
        d *= d
        return d
    flat = d.reshape(-1)
    total = flat @ flat if xp is np else (flat * flat).sum()
    return total / d.dtype.type(d.size) if reduction == "mean" else total


def _square_error_rule(sign: int) -> Any:
    def rule(ops: Any, g: Any, x: Any, target: Any, reduction: str) -> Any:
        scale = 2.0 * sign
        if reduction == "mean":
            scale /= math.prod(x.shape) or math.nan
        return (x - target) * (g * scale)

    return rule


mse_loss = Op("mse_loss", _square_error, [_square_error_rule(1), _square_error_rule(-1)])


def _huber_piece(y: Any, x: Any, t: Any, xp: Any, delta: float) -> None:
    """m (|x| - m / 2) with m = min(|x|, delta)."""
    xp.absolute(x, out=y)
    bounded(xp, y, None, delta, t)
    y *= 2
    y -= t
    t *= 0.5
    y *= t


def _huber(xp: Any, x: Any, *, delta: float) -> Any:
    made = by_loop("huber", xp, x, delta)
    return in_pieces(xp, lambda y, x, t: _huber_piece(y, x, t, xp, delta), 1, x) if made is None else made


huber = Op("huber", _huber, [lambda ops, g, x, delta: g * ops.clamp(x, -delta, delta)])


def _smooth_l1(xp: Any, x: Any, *, beta: float) -> Any:
    return _huber(xp, x, delta=beta) * x.dtype.type(1 / beta) if beta else xp.abs(x)


smooth_l1 = Op("smooth_l1", _smooth_l1, [lambda ops, g, x, beta: g * ops.clamp(x * (1 / beta), -1.0, 1.0)])


def _bce(xp: Any, x: Any, target: Any) -> Any:
    """The logarithms are cut off at -100, as in PyTorch."""
    low = x.dtype.type(-100)
    return (target - 1) * xp.maximum(xp.log1p(-x), low) - target * xp.maximum(xp.log(x), low)


def _bce_prepare(x: Any, target: Any) -> Prepared:
    if isinstance(x, Variable):
        for what, a in (("input", x.array), ("target", target.array)):
            if a.size and not (a.min() >= 0 and a.max() <= 1):
                raise RuntimeError(
                    f"[binary_cross_entropy] {what} must be in [0, 1], came values from {a.min()} to {a.max()}"
                )
    return (x, target), {}


binary_cross_entropy = Op(
    "binary_cross_entropy",
    _bce,
    [
        lambda ops, g, x, target: g * (x - target) / ops.clamp(x * (1 - x), 1e-12, None),
        lambda ops, g, x: g * (ops.clamp(ops.log1p(-x), -100.0, None) - ops.clamp(ops.log(x), -100.0, None)),
    ],
    prepare=_bce_prepare,
)
bce_with_logits = Op(
    "bce_with_logits",
    lambda xp, x, target: xp.maximum(x, 0) - x * target + xp.log1p(xp.exp(-xp.abs(x))),
    [lambda ops, g, x, target: g * (ops.sigmoid(x) - target), lambda g, x: -g * x],
)


def _entropy(xp: Any, x: Any) -> Any:
    return xp.where(x == 0, x.dtype.type(0), x * xp.log(x))


def _zero_to_one(ops: Any, x: Any) -> Any:
    """x with 1 in place of zeros, whose logarithm adds nothing."""
    dtype = (x.array if isinstance(x, Variable) else x).dtype
    return x + ops.cast(ops.eq(x, dtype.type(0)), dtype=dtype)


x_log_x = unary("x_log_x", _entropy, lambda ops, g, x: g * (ops.log(_zero_to_one(ops, x)) + 1), floating=True)
