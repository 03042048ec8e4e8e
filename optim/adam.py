"""Adam and those after it: AdamW, Adamax, NAdam, RAdam."""

from __future__ import annotations

from typing import Any

from ..tensor.ops.faster import faster
from .elementwise import Elementwise
from .optimizer import Params, below_one, not_negative, number


def moments(xp: Any, beta1: float, beta2: float, g: Any, t: Any, m: Any, v: Any) -> None:
    """m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g g"""
    xp.subtract(g, m, out=t)
    xp.multiply(t, 1 - beta1, out=t)
    xp.add(m, t, out=m)
    xp.multiply(v, beta2, out=v)
    xp.multiply(g, g, out=t)
    xp.multiply(t, 1 - beta2, out=t)
    xp.add(v, t, out=v)


class AdamLike(Elementwise):
    """What this file's optimizers share: two moments, lr, betas, eps, weight decay of either kind."""

    def __init__(
        self, params: Params, lr: Any, betas: Any, eps: float, weight_decay: float, **rest: Any
    ) -> None:
        who = type(self).__name__
        not_negative(who, lr=lr, eps=eps, weight_decay=weight_decay)
        below_one(who, "betas", betas)
        betas = tuple(number(b) for b in betas)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **rest))

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def shrink(self, group: dict[str, Any]) -> float:
        """The factor on the parameters that decoupled weight decay is."""
        if not group.get("decoupled_weight_decay"):
            return 1.0
        return 1 - number(group["lr"]) * number(group["weight_decay"])


class Adam(AdamLike):
    """p -= lr m / (sqrt(v) + eps), both moments freed of their bias (Kingma & Ba 2015, arXiv:1412.6980).

    amsgrad: v is the largest so far (Reddi et al. 2018). decoupled_weight_decay: AdamW.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        rest: dict[str, Any] = dict(
            amsgrad=amsgrad, maximize=maximize, foreach=foreach, capturable=capturable
        )
        rest |= dict(
            differentiable=differentiable, fused=fused, decoupled_weight_decay=decoupled_weight_decay
        )
        super().__init__(params, lr, betas, eps, weight_decay, **rest)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return super().slots(group) | ({"max_exp_avg_sq": 0.0} if group["amsgrad"] else {})

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        beta1, beta2 = group["betas"]
        root = (1 - beta2 ** now["step"]) ** 0.5
        # lr m' / (sqrt(v') + eps) with the corrections of m and v drawn out of the arrays
        rate = number(group["lr"]) * root / (1 - beta1 ** now["step"])
        return beta1, beta2, rate, group["eps"] * root, self.shrink(group)

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        beta1, beta2, rate, eps, shrink = c
        m, v = states[:2]
        numbers = (0.0, 1 - beta1, beta2, 1 - beta2, rate, eps, shrink)
        if len(states) == 2 and faster("adam", xp, p, g, m, v, *map(float, numbers)) is not None:
            return
        if shrink != 1:
            xp.multiply(p, shrink, out=p)
        moments(xp, beta1, beta2, g, t, m, v)
        if len(states) == 3:
            v = xp.maximum(states[2], v, out=states[2])
        xp.sqrt(v, out=t)
        xp.add(t, eps, out=t)
        xp.divide(m, t, out=t)
        xp.multiply(t, rate, out=t)
        xp.subtract(p, t, out=p)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        switches: dict[str, Any] = dict(maximize=maximize, foreach=foreach, capturable=capturable)
        switches |= dict(differentiable=differentiable, fused=fused, decoupled_weight_decay=True)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **switches)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # also when the state of an Adam is loaded
            group["decoupled_weight_decay"] = True


class Adamax(AdamLike):
    """Adam with the largest gradient (decaying) in place of the root of squares (Kingma & Ba 2015, section 7)."""

    def __init__(
        self,
        params: Params,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        rest: dict[str, Any] = dict(
            foreach=foreach, maximize=maximize, differentiable=differentiable, capturable=capturable
        )
        super().__init__(params, lr, betas, eps, weight_decay, **rest)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_inf": 0.0}

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        beta1, beta2 = group["betas"]
        return beta1, beta2, number(group["lr"]) / (1 - beta1 ** now["step"]), group["eps"]

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        beta1, beta2, rate, eps = c
        m, largest = states
        xp.subtract(g, m, out=t)
        xp.add(m, xp.multiply(t, 1 - beta1, out=t), out=m)
        xp.multiply(largest, beta2, out=largest)
        xp.add(xp.abs(g, out=t), eps, out=t)
        xp.maximum(largest, t, out=largest)
        xp.divide(m, largest, out=t)
        xp.subtract(p, xp.multiply(t, rate, out=t), out=p)


class NAdam(AdamLike):
    """Adam with Nesterov's momentum (Dozat 2016), its momentum warmed up by momentum_decay."""

    def __init__(
        self,
        params: Params,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        not_negative("NAdam", momentum_decay=momentum_decay)
        rest: dict[str, Any] = dict(
            momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay, maximize=maximize
        )
        rest |= dict(foreach=foreach, capturable=capturable, differentiable=differentiable)
        super().__init__(params, lr, betas, eps, weight_decay, **rest)

    def counters(self, group: dict[str, Any]) -> dict[str, float]:
        return {"step": 0.0, "mu_product": 1.0}

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        step, (beta1, beta2), lr = now["step"], group["betas"], number(group["lr"])
        mu, following = (beta1 * (1 - 0.5 * 0.96 ** (n * group["momentum_decay"])) for n in (step, step + 1))
        now["mu_product"] *= mu
        product = float(now["mu_product"])
        of_g = lr * (1 - mu) / (1 - product)
        of_m = lr * following / (1 - product * following)
        return beta1, beta2, of_g, of_m, (1 - beta2**step) ** 0.5, group["eps"], self.shrink(group)

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        beta1, beta2, of_g, of_m, root, eps, shrink = c
        m, v = states
        if shrink != 1:
            xp.multiply(p, shrink, out=p)
        moments(xp, beta1, beta2, g, t, m, v)
        xp.sqrt(v, out=t)
        xp.divide(t, root, out=t)
        xp.add(t, eps, out=t)
        xp.subtract(p, xp.divide(xp.multiply(g, of_g, out=u), t, out=u), out=p)
        xp.subtract(p, xp.divide(xp.multiply(m, of_m, out=u), t, out=u), out=p)


class RAdam(AdamLike):
    """Adam that steps by momentum alone until v's variance is known (Liu et al. 2020, arXiv:1908.03265)."""

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        rest: dict[str, Any] = dict(maximize=maximize, foreach=foreach, capturable=capturable)
        rest |= dict(decoupled_weight_decay=decoupled_weight_decay, differentiable=differentiable)
        super().__init__(params, lr, betas, eps, weight_decay, **rest)

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        step, (beta1, beta2) = now["step"], group["betas"]
        rate = number(group["lr"]) / (1 - beta1**step)
        longest = 2 / (1 - beta2) - 1
        correction = 1 - beta2**step
        length = longest - 2 * step * beta2**step / correction  # of the average that v is
        rectified = length > 5
        if rectified:
            part = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            rate *= (part * correction) ** 0.5
        return beta1, beta2, rate, rectified, group["eps"], self.shrink(group)

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        beta1, beta2, rate, rectified, eps, shrink = c
        m, v = states
        if shrink != 1:
            xp.multiply(p, shrink, out=p)
        moments(xp, beta1, beta2, g, t, m, v)
        if rectified:
            xp.add(xp.sqrt(v, out=t), eps, out=t)
            xp.divide(m, t, out=t)
        xp.subtract(p, xp.multiply(t if rectified else m, rate, out=t), out=p)
