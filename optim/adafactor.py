"""Adafactor: second moments kept as rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import array_namespace, wrap
from .optimizer import Optimizer, Params, not_negative, number, scalar


class Adafactor(Optimizer):
    """Steps relative to the parameters' size, by factored second moments (Shazeer & Stern 2018, arXiv:1804.04235).

    A matrix of n x m keeps n + m numbers of state. eps: (floor of the factors, floor of the parameters' size);
    d: largest root mean square of an update; beta2_decay: exponent of the averages' weight by step.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        not_negative("Adafactor", lr=lr, weight_decay=weight_decay, eps1=eps[0] or 0.0, eps2=eps[1])
        if not beta2_decay <= 0.0:
            raise ValueError(f"[Adafactor] beta2_decay must be at most 0, came {beta2_decay}")
        if not d >= 1.0:
            raise ValueError(f"[Adafactor] d must be at least 1, came {d}")
        defaults = dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay)
        super().__init__(params, defaults | dict(foreach=foreach, maximize=maximize))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have gradients; returns what `closure`, called first if given, returns."""
        loss = self.evaluate(closure)
        for group in self.param_groups:
            for p in dict.fromkeys(group["params"]):
                if p._grad is not None:
                    self._update(group, p, self._state(p))
        return loss

    def _state(self, p: Any) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            a = p.array
            if a.dtype.kind == "c":
                raise RuntimeError(f"[Adafactor] parameters must be real, came {a.dtype.name}{list(a.shape)}")
            zeros = array_namespace[type(a)].zeros
            state["step"] = scalar(0.0)
            if a.ndim > 1:
                state["row_var"] = wrap(zeros((*a.shape[:-1], 1), a.dtype))
                state["col_var"] = wrap(zeros((*a.shape[:-2], 1, a.shape[-1]), a.dtype))
            else:
                state["variance"] = wrap(zeros(a.shape, a.dtype))
        return state

    def _update(self, group: dict[str, Any], p: Any, state: dict[str, Any]) -> None:
        array, lr, (floor, least) = p.array, number(group["lr"]), group["eps"]
        xp = array_namespace[type(array)]
        work = np.dtype("float32") if array.dtype.itemsize == 2 else array.dtype
        floor = _epsilon(array.dtype) if floor is None else floor
        x, g = array.astype(work, copy=False), p._grad.array.astype(work, copy=False)
        g = -g if group["maximize"] else g
        state["step"].array += 1
        step = float(state["step"].array)
        weight = step ** group["beta2_decay"]  # of the newest square in the averages
        alpha = max(least, _size(xp, x)) * min(lr, step**-0.5)
        if group["weight_decay"]:
            x *= 1 - lr * group["weight_decay"]
        if array.ndim > 1:
            rows = _average(state["row_var"], xp.mean(g * g, axis=-1, keepdims=True), weight, work)
            columns = _average(state["col_var"], xp.mean(g * g, axis=-2, keepdims=True), weight, work)
            square = rows @ columns
            square /= xp.maximum(xp.mean(rows, axis=-2, keepdims=True), floor)
        else:
            square = _average(state["variance"], g * g, weight, work).copy()
        update = g / xp.sqrt(xp.maximum(square, floor * floor, out=square), out=square)
        x -= update * (alpha / max(1.0, _size(xp, update) / group["d"]))
        if x is not array:
            array[...] = x
        p._version[0] += 1


def _average(held: Any, new: Any, weight: float, work: Any) -> Any:
    """held += weight (new - held), in the working precision; returns the sum."""
    total = held.array.astype(work, copy=False)
    total += (new - total) * weight
    if total is not held.array:
        held.array[...] = total
    return total


def _size(xp: Any, x: Any) -> float:
    """Root mean square."""
    return float(xp.sqrt(xp.mean(x * x)))


def _epsilon(dtype: Any) -> float:
    if dtype.kind == "V":
        import ml_dtypes

        return float(ml_dtypes.finfo(dtype).eps)
    return float(np.finfo(dtype).eps)
