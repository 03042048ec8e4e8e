"""Schedules that go up and down, and move the momentum against the rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler, check_optimizer, per_group, set_lr
from .factors import attributes


class _MomentumCycles(LRScheduler):
    """What the schedulers that move the momentum against the lr share."""

    cycle_momentum: bool

    def _take_momentum(self, base_momentum: Any, max_momentum: Any, last_epoch: int) -> None:
        self.use_beta1 = "betas" in self.optimizer.defaults
        if not self.use_beta1 and "momentum" not in self.optimizer.defaults:
            raise ValueError(
                f"[{type(self).__name__}] cycle_momentum needs an optimizer with momentum or betas, came"
                f" {type(self.optimizer).__name__}"
            )
        self.base_momentums = per_group("base_momentum", self.optimizer, base_momentum)
        self.max_momentums = per_group("max_momentum", self.optimizer, max_momentum)
        if last_epoch == -1:
            for group, least, most in zip(
                self.optimizer.param_groups, self.base_momentums, self.max_momentums
            ):
                self._set_momentum(group, most)
                group["max_momentum"], group["base_momentum"] = most, least

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value


class CyclicLR(_MomentumCycles):
    """Up from base_lr to max_lr and down again, over and over (Smith 2017, arXiv:1506.01186); a step is a batch.

    mode: "triangular", "triangular2" (half the height every cycle) or "exp_range" (gamma ** iteration); or a
    scale_fn of the cycle or iteration, as scale_mode says.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Any,
        max_lr: Any,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.8,
        max_momentum: Any = 0.9,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        base_lrs = per_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, base_lrs):
                set_lr(group, lr)
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        if mode not in SCALES and scale_fn is None:
            raise ValueError(
                f"[CyclicLR] mode must be one of {', '.join(SCALES)}, or scale_fn be given, came {mode!r}"
            )
        self.mode, self.gamma, self.scale_mode, self._scale_fn_custom = mode, gamma, scale_mode, scale_fn
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._take_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """The height of a cycle, as a share of max_lr - base_lr."""
        return (self._scale_fn_custom or partial(SCALES[self.mode], self.gamma))(x)

    def get_lr(self) -> list[Any]:
        self._warn_outside()
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        share = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        height = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, least, most in zip(
                self.optimizer.param_groups, self.base_momentums, self.max_momentums
            ):
                self._set_momentum(group, most - (most - least) * share * height)
        return [least + (most - least) * share * height for least, most in zip(self.base_lrs, self.max_lrs)]

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        fn = self._scale_fn_custom
        state["_scale_fn_custom"] = None if fn is None else attributes(fn)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        attributes = state_dict["_scale_fn_custom"]
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_scale_fn_custom"})
        if attributes is not None:
            self._scale_fn_custom.__dict__.update(attributes)


SCALES: dict[str, Callable[[float, float], float]] = {
    "triangular": lambda gamma, x: 1.0,
    "triangular2": lambda gamma, x: 1 / (2.0 ** (x - 1)),
    "exp_range": lambda gamma, x: gamma**x,
}


class OneCycleLR(_MomentumCycles):
    """Up to max_lr and down to next to nothing, once (Smith & Topin 2018, arXiv:1708.07120); a step is a batch.

    Steps: total_steps, or epochs x steps_per_epoch. Begins at max_lr / div_factor, ends final_div_factor below.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        self.total_steps = _count_steps(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"[OneCycleLR] pct_start must be a float in [0, 1], came {pct_start}")
        if anneal_strategy not in ANNEAL:
            raise ValueError(
                f"[OneCycleLR] anneal_strategy must be 'cos' or 'linear', came {anneal_strategy!r}"
            )
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        self._anneal_func_type = anneal_strategy
        if last_epoch == -1:
            for group, most in zip(optimizer.param_groups, per_group("max_lr", optimizer, max_lr)):
                group["initial_lr"], group["max_lr"] = most / div_factor, most
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._take_momentum(base_momentum, max_momentum, last_epoch)
            del self.base_momentums, self.max_momentums  # they stand in the groups
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        self._warn_outside()
        n, anneal = self.last_epoch, ANNEAL[self._anneal_func_type]
        if n > self.total_steps:
            raise ValueError(f"[OneCycleLR] at most {self.total_steps} steps were announced, came step {n}")
        start = 0.0
        for phase in self._schedule_phases:
            end = phase["end_step"]
            if n <= end or phase is self._schedule_phases[-1]:
                break
            start = end
        done = (n - start) / (end - start)
        lrs = []
        for group in self.optimizer.param_groups:
            lrs.append(anneal(group[phase["start_lr"]], group[phase["end_lr"]], done))
            if self.cycle_momentum:
                ends = group[phase["start_momentum"]], group[phase["end_momentum"]]
                self._set_momentum(group, anneal(*ends, done))
        return lrs


ANNEAL: dict[str, Callable[[Any, Any, float], Any]] = {
    "cos": lambda start, end, done: end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1),
    "linear": lambda start, end, done: (end - start) * done + start,
}


def _count_steps(total: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total is None and (epochs is None or steps_per_epoch is None):
        raise ValueError(
            "[OneCycleLR] total_steps, or epochs and steps_per_epoch, must be given, came neither"
        )
    given = (
        {"epochs": epochs, "steps_per_epoch": steps_per_epoch} if total is None else {"total_steps": total}
    )
    for name, value in given.items():
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"[OneCycleLR] {name} must be a positive integer, came {value}")
    return math.prod(value for value in given.values() if value is not None)


def _phases(total: int, pct_start: float, three: bool) -> list[dict[str, Any]]:
    """Each phase: its last step, and the names of the groups' options between which it moves."""

    def phase(
        end: float, start_lr: str, end_lr: str, start_momentum: str, end_momentum: str
    ) -> dict[str, Any]:
        names = dict(
            start_lr=start_lr, end_lr=end_lr, start_momentum=start_momentum, end_momentum=end_momentum
        )
        return {"end_step": end, **names}

    up = phase(float(pct_start * total) - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum")
    if not three:
        return [up, phase(total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
    down = phase(float(2 * pct_start * total) - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum")
    return [up, down, phase(total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
