"""Stochastic gradient descent with momentum, and Lion."""

from __future__ import annotations

from typing import Any

from ..tensor.ops.faster import faster
from .elementwise import Elementwise
from .optimizer import Params, below_one, not_negative, number


class SGD(Elementwise):
    """p -= lr (momentum-averaged gradient) (Sutskever et al. 2013, in PyTorch's form: lr outside of the velocity).

    v = momentum v + (1 - dampening) g, begun with v = g; nesterov steps along g + momentum v.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        not_negative("SGD", lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                "[SGD] nesterov needs a momentum above 0 and no dampening, came"
                f" momentum {momentum} and dampening {dampening}"
            )
        defaults = dict(
            lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )
        defaults |= dict(maximize=maximize, foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(params, defaults)

    def counters(self, group: dict[str, Any]) -> dict[str, float]:
        return {}

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if group["momentum"] else {}

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        keep = 1.0 if fresh else 1 - group["dampening"]
        return number(group["lr"]), number(group["momentum"]), keep, group["nesterov"]

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        lr, momentum, keep, nesterov = c
        if states:
            numbers = map(float, (lr, 0, momentum, keep))
            if faster("momentum", xp, p, g, states[0], *numbers, nesterov) is not None:
                return
        elif faster("sgd", xp, p, g, float(lr), 0.0) is not None:
            return
        if states:
            (v,) = states
            xp.multiply(v, momentum, out=v)
            xp.add(v, g if keep == 1 else xp.multiply(g, keep, out=t), out=v)
            g = xp.add(g, xp.multiply(v, momentum, out=t), out=t) if nesterov else v
        xp.subtract(p, xp.multiply(g, lr, out=t), out=p)


class Lion(Elementwise):
    """p -= lr sign(beta1 m + (1 - beta1) g), m = beta2 m + (1 - beta2) g, decoupled decay (Chen et al. 2023)."""

    couples = False

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        not_negative("Lion", lr=lr, weight_decay=weight_decay)
        below_one("Lion", "betas", betas)
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize))

    def counters(self, group: dict[str, Any]) -> dict[str, float]:
        return {}

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0.0}

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        lr = number(group["lr"])
        return lr, *group["betas"], 1 - lr * number(group["weight_decay"])

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        lr, beta1, beta2, shrink = c
        (m,) = states
        if shrink != 1:
            xp.multiply(p, shrink, out=p)
        xp.subtract(g, m, out=t)
        xp.add(m, xp.multiply(t, 1 - beta1, out=u), out=u)
        xp.multiply(xp.sign(u, out=u), lr, out=u)
        xp.subtract(p, u, out=p)
        xp.add(m, xp.multiply(t, 1 - beta2, out=t), out=m)
