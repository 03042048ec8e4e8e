"""Step sizes from the squares of past gradients: Adagrad, Adadelta, RMSprop."""

from __future__ import annotations

from typing import Any

from ..autograd.engine import array_namespace, wrap
from .elementwise import Elementwise
from .optimizer import Params, not_negative, number, scalar


def squares(xp: Any, keep: float, g: Any, t: Any, v: Any) -> None:
    """v = keep v + (1 - keep) g g"""
    xp.multiply(v, keep, out=v)
    xp.multiply(g, g, out=t)
    xp.add(v, xp.multiply(t, 1 - keep, out=t), out=v)


class Adagrad(Elementwise):
    """p -= lr g / (sqrt(sum of g g) + eps) (Duchi et al. 2011); lr / (1 + (step - 1) lr_decay)."""

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        not_negative("Adagrad", lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps)
        not_negative("Adagrad", initial_accumulator_value=initial_accumulator_value)
        defaults = dict(lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay)
        defaults |= dict(
            initial_accumulator_value=initial_accumulator_value, foreach=foreach, maximize=maximize
        )
        super().__init__(params, defaults | dict(differentiable=differentiable, fused=fused))
        for group in self.param_groups:  # there before the first step, as scripts that share it expect
            first = group["initial_accumulator_value"]
            for p in group["params"]:
                array = p.array
                value = complex(first, first) if array.dtype.kind == "c" else first
                total = array_namespace[type(array)].full(array.shape, value, array.dtype)
                self.state[p] = {"step": scalar(0.0), "sum": wrap(total)}

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"sum": group["initial_accumulator_value"]}

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        return number(group["lr"]) / (1 + (now["step"] - 1) * group["lr_decay"]), group["eps"]

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        rate, eps = c
        (total,) = states
        xp.add(total, xp.multiply(g, g, out=t), out=total)
        xp.add(xp.sqrt(total, out=t), eps, out=t)
        xp.divide(g, t, out=t)
        xp.subtract(p, xp.multiply(t, rate, out=t), out=p)


class Adadelta(Elementwise):
    """Steps in the units of past steps: d = g sqrt(mean of d d + eps) / sqrt(mean of g g + eps) (Zeiler 2012)."""

    def __init__(
        self,
        params: Params,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_negative("Adadelta", lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"[Adadelta] rho must be in [0, 1], came {rho}")
        defaults = dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(
            params, defaults | dict(capturable=capturable, foreach=foreach, differentiable=differentiable)
        )

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"square_avg": 0.0, "acc_delta": 0.0}

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        return number(group["lr"]), group["rho"], group["eps"]

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        lr, rho, eps = c
        square, past = states
        squares(xp, rho, g, t, square)
        xp.sqrt(xp.add(square, eps, out=t), out=t)
        xp.sqrt(xp.add(past, eps, out=u), out=u)
        xp.multiply(xp.divide(u, t, out=u), g, out=u)
        squares(xp, rho, u, t, past)
        xp.subtract(p, xp.multiply(u, lr, out=u), out=p)


class RMSprop(Elementwise):
    """p -= lr g / (sqrt(mean of g g) + eps) (Hinton 2012); centered divides by the deviation (Graves 2013)."""

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_negative("RMSprop", lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        defaults = dict(
            lr=lr, momentum=momentum, alpha=alpha, eps=eps, centered=centered, weight_decay=weight_decay
        )
        defaults |= dict(
            capturable=capturable, foreach=foreach, maximize=maximize, differentiable=differentiable
        )
        super().__init__(params, defaults)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        names = {"square_avg": 0.0}
        if group["momentum"] > 0:
            names["momentum_buffer"] = 0.0
        if group["centered"]:
            names["grad_avg"] = 0.0
        return names

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        return number(group["lr"]), group["alpha"], group["eps"], group["momentum"], group["centered"]

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        lr, alpha, eps, momentum, centered = c
        square, *others = states
        squares(xp, alpha, g, t, square)
        if centered:
            mean = others[-1]
            xp.add(mean, xp.multiply(xp.subtract(g, mean, out=t), 1 - alpha, out=t), out=mean)
            square = xp.subtract(square, xp.multiply(mean, mean, out=t), out=t)
        xp.add(xp.sqrt(square, out=t), eps, out=t)
        step = xp.divide(g, t, out=t)
        if momentum > 0:
            velocity = others[0]
            step = xp.add(xp.multiply(velocity, momentum, out=velocity), step, out=velocity)
        xp.subtract(p, xp.multiply(step, lr, out=u), out=p)
