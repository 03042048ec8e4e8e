"""Steps by sign (Rprop), and averaged gradient descent (ASGD)."""

from __future__ import annotations

from typing import Any

from .elementwise import Elementwise
from .optimizer import Params, not_negative, number, scalar


class Rprop(Elementwise):
    """Each element's own step size, grown while its gradient keeps its sign (Riedmiller & Braun 1993)."""

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_negative("Rprop", lr=lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"[Rprop] etas must be in (0, 1) and above 1, came {etas[0]} and {etas[1]}")
        defaults = dict(lr=lr, etas=etas, step_sizes=step_sizes, foreach=foreach, maximize=maximize)
        super().__init__(params, defaults | dict(differentiable=differentiable, capturable=capturable))

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"prev": 0.0, "step_size": number(group["lr"])}

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        return *group["etas"], *group["step_sizes"]

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        down, up, least, most = c
        before, size = states
        xp.multiply(g, before, out=t)
        kept, turned = t > 0, t < 0
        t.fill(1)
        t[kept], t[turned] = up, down
        xp.clip(xp.multiply(size, t, out=size), least, most, out=size)
        before[...] = g
        before[turned] = 0
        xp.subtract(p, xp.multiply(xp.sign(before, out=t), size, out=t), out=p)


class ASGD(Elementwise):
    """Gradient descent that keeps the average of its path in state "ax" (Polyak & Juditsky 1992)."""

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        not_negative("ASGD", lr=lr, weight_decay=weight_decay)
        defaults = dict(lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay, foreach=foreach)
        super().__init__(
            params, defaults | dict(maximize=maximize, differentiable=differentiable, capturable=capturable)
        )

    def counters(self, group: dict[str, Any]) -> dict[str, float]:
        return {"step": 0.0, "eta": number(group["lr"]), "mu": 1.0}

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"ax": 0.0}

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        eta, mu, lr, step = float(now["eta"]), float(now["mu"]), number(group["lr"]), now["step"]
        now["eta"] = scalar(lr / (1 + group["lambd"] * lr * step) ** group["alpha"]).array[()]
        now["mu"] = scalar(1 / max(1, step - group["t0"])).array[()]
        return eta, 1 - group["lambd"] * eta, mu

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        eta, shrink, mu = c
        (mean,) = states
        xp.multiply(p, shrink, out=p)
        xp.subtract(p, xp.multiply(g, eta, out=t), out=p)
        if mu == 1:
            mean[...] = p
        else:
            xp.add(mean, xp.multiply(xp.subtract(p, mean, out=t), mu, out=t), out=mean)
