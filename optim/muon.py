"""Muon: momentum, made orthogonal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import array_namespace, wrap
from ..tensor import dtypes
from .optimizer import Optimizer, Params, not_negative, number


class Muon(Optimizer):
    """Momentum of matrices with all singular values brought near 1 by a Newton-Schulz iteration (Jordan 2024).

    For the 2-D parameters of hidden layers; give embeddings, biases and the head to AdamW. adjust_lr_fn:
    "original" (the default) scales lr by sqrt(max(1, rows / columns)), "match_rms_adamw" by
    0.2 sqrt(max(rows, columns)) so that AdamW's lr and weight_decay carry over (arXiv:2502.16982).
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        not_negative("Muon", lr=lr, momentum=momentum, weight_decay=weight_decay)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                f"[Muon] adjust_lr_fn must be None, 'original' or 'match_rms_adamw', came {adjust_lr_fn!r}"
            )
        if not 0 <= ns_steps < 100 or len(ns_coefficients) != 3:
            raise ValueError(
                "[Muon] ns_steps must be below 100 and ns_coefficients three numbers, came"
                f" {ns_steps} and {ns_coefficients}"
            )
        defaults = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)
        defaults |= dict(
            ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn
        )
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of real matrices; see Optimizer.add_param_group."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.array.ndim != 2 or p.array.dtype.kind == "c":
                del self.param_groups[-1]
                raise ValueError(
                    f"[Muon] parameters must be real and 2-D, came {p.array.dtype.name}{list(p.array.shape)}:"
                    " give the others to AdamW"
                )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have gradients; returns what `closure`, called first if given, returns."""
        loss = self.evaluate(closure)
        for group in self.param_groups:
            for p in dict.fromkeys(group["params"]):
                if p._grad is not None:
                    self._update(group, p)
        return loss

    def _update(self, group: dict[str, Any], p: Any) -> None:
        array, g, lr = p.array, p._grad.array, number(group["lr"])
        state = self.state[p]
        xp = array_namespace[type(array)]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = wrap(xp.zeros(g.shape, g.dtype))
        velocity, momentum = state["momentum_buffer"].array, group["momentum"]
        velocity += (g - velocity) * (1 - momentum)
        update = g + (velocity - g) * momentum if group["nesterov"] else velocity
        update = orthogonal(xp, update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = array.shape
        ratio = max(1, rows / columns) ** 0.5
        if group["adjust_lr_fn"] == "match_rms_adamw":
            ratio = 0.2 * max(rows, columns) ** 0.5
        array *= 1 - lr * group["weight_decay"]
        array -= (update * (lr * ratio)).astype(array.dtype, copy=False)
        p._version[0] += 1


def orthogonal(xp: Any, x: Any, coefficients: tuple[float, float, float], steps: int, eps: float) -> Any:
    """U V^T of x = U S V^T, roughly: singular values end between about 0.7 and 1.2.

    Rounded to bfloat16 after each product, as published; computed in float32.
    """
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    y = _bfloat16(x.astype(np.float32))
    y = y.T if tall else y
    y = _bfloat16(y / max(float(_bfloat16(xp.sqrt(xp.sum(y * y))[None])[0]), eps))
    for _ in range(steps):
        gram = _bfloat16(y @ y.T)
        gram = _bfloat16(b * gram + c * (gram @ gram))
        y = _bfloat16(a * y + gram @ y)
    return y.T if tall else y


def _bfloat16(x: Any) -> Any:
    return x.astype(dtypes.bfloat16.numpy).astype(np.float32) if type(x) is np.ndarray else x
