"""Losses as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Graph, Val
from .table import emits


@emits("huber")
def _huber(g: Graph, x: Val, delta: float) -> str:
    size = g.node("Abs", x)
    far = g.node("Mul", g.node("Sub", size, g.like(0.5 * delta, x)), g.like(delta, x))
    near = g.node("Mul", g.node("Mul", x, x), g.like(0.5, x))
    return g.node("Where", g.node("LessOrEqual", size, g.like(delta, x)), near, far)


@emits("smooth_l1")
def _smooth_l1(g: Graph, x: Val, beta: float) -> str:
    size = g.node("Abs", x)
    far = g.node("Sub", size, g.like(0.5 * beta, x))
    near = g.node("Mul", g.node("Mul", x, x), g.like(0.5 / beta if beta else 0.0, x))
    return g.node("Where", g.node("Less", size, g.like(beta, x)), near, far)


def _reduced(g: Graph, losses: str, reduction: str) -> str:
    kinds = {"mean": "ReduceMean", "sum": "ReduceSum"}
    return losses if reduction == "none" else g.reduce(kinds[reduction], losses, None, False)


@emits("mse_loss")
def _mse(g: Graph, x: Val, target: Val, reduction: str) -> str:
    apart = g.node("Sub", x, target)
    return _reduced(g, g.node("Mul", apart, apart), reduction)


@emits("bce_with_logits")
def _bce_with_logits(g: Graph, x: Val, target: Val) -> str:
    soft = g.node("Softplus", g.node("Neg", g.node("Abs", x)))
    y = g.node("Sub", g.node("Max", x, g.like(0, x)), g.node("Mul", x, target))
    return g.node("Add", y, soft)


@emits("binary_cross_entropy")
def _bce(g: Graph, x: Val, target: Val) -> str:
    low, one = g.like(-100, x), g.like(1, x)
    yes = g.node("Max", g.node("Log", x), low)
    no = g.node("Max", g.node("Log", g.node("Sub", one, x)), low)
    other = g.node("Mul", g.node("Sub", target, one), no)
    return g.node("Sub", other, g.node("Mul", target, yes))


# ---- class indices


class Classes:
    """Which class each element has, as a mask (N, C, ...), and the weights (N, 1, ...) of the elements."""

    def __init__(self, g: Graph, shape: Any, dtype: Any, target: Val, weight: Any, ignore: int) -> None:
        self.dim = 1 if len(shape) > 1 else 0
        row = [1] * len(shape)
        row[self.dim] = -1
        count = shape[self.dim]
        labels = g.node("Unsqueeze", target, g.ints([self.dim]))
        numbers = g.constant(np.arange(count).reshape(row), target.dtype)
        kept = g.node("Not", g.node("Equal", labels, g.constant(ignore, target.dtype)))
        self.kept = g.cast(kept, dtype)
        self.hit = g.node("And", g.node("Equal", labels, numbers), kept)
        self.weighted = None if weight is None else g.node("Reshape", weight, g.ints(row))
        self.weight = self.kept if weight is None else self._sum(g, g.constant(0, dtype), self.weighted)

    def _sum(self, g: Graph, zero: str, of: Any) -> str:
        return g.reduce("ReduceSum", g.node("Where", self.hit, of, zero), [self.dim], True)

    def losses(self, g: Graph, x: Val) -> str:
        """-w x of the class, (N, 1, ...)."""
        return g.node("Neg", g.node("Mul", self._sum(g, g.like(0, x), x), self.weight))

    def reduced(self, g: Graph, losses: str, reduction: str) -> str:
        if reduction == "none":
            return g.node("Squeeze", losses, g.ints([self.dim]))
        total = g.node("ReduceSum", losses, keepdims=0)
        if reduction == "sum":
            return total
        return g.node("Div", total, g.node("ReduceSum", self.weight, keepdims=0))


@emits("nll_loss")
def _nll(g: Graph, x: Val, target: Val, weight: Any, reduction: str, ignore_index: int) -> str:
    classes = Classes(g, x.shape, x.dtype, target, weight, ignore_index)
    return classes.reduced(g, classes.losses(g, x), reduction)


@emits("cross_entropy")
def _cross_entropy(
    g: Graph, x: Val, target: Val, weight: Any, reduction: str, ignore_index: int, label_smoothing: float
) -> str:
    classes = Classes(g, x.shape, x.dtype, target, weight, ignore_index)
    log_p = Val(g.node("LogSoftmax", x, axis=classes.dim), x.shape, x.dtype)
    losses = classes.losses(g, log_p)
    if label_smoothing:
        spread = log_p if classes.weighted is None else g.node("Mul", log_p, classes.weighted)
        even = g.node("Mul", g.reduce("ReduceSum", spread, [classes.dim], True), classes.kept)
        even = g.node("Mul", even, g.like(label_smoothing / x.shape[classes.dim], x))
        losses = g.node("Sub", g.node("Mul", losses, g.like(1 - label_smoothing, x)), even)
    return classes.reduced(g, losses, reduction)


@emits("nll_adjoint")
def _nll_adjoint(
    g: Graph, gy: Val, target: Val, weight: Any, shape: Any, ignore_index: int, reduction: str
) -> str:
    """-w g at the class, 0 elsewhere."""
    classes = Classes(g, shape, gy.dtype, target, weight, ignore_index)
    pull: str = gy.name if reduction != "none" else g.node("Unsqueeze", gy, g.ints([classes.dim]))
    if reduction == "mean":
        pull = g.node("Div", pull, g.node("ReduceSum", classes.weight, keepdims=0))
    pull = g.node("Neg", g.node("Mul", pull, classes.weight))
    return g.node("Where", classes.hit, pull, g.like(0, gy))
