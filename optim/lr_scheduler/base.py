"""Base of the schedulers: when a rate is computed, set, kept and saved."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ...autograd.engine import Variable
from ..optimizer import Optimizer, number

EPOCH_WARNING = (
    "[scheduler] step(epoch) is deprecated: call step() once an epoch; with an epoch the closed form of the schedule is"
    " used where there is one"
)


def group_values(optimizer: Optimizer, key: str) -> list[Any]:
    """An option of all groups; tensors are copied, so that later writes do not change them."""
    return [g[key].clone() if isinstance(g[key], Variable) else g[key] for g in optimizer.param_groups]


def set_lr(group: dict[str, Any], value: Any) -> None:
    if isinstance(group["lr"], Variable):
        group["lr"].array[...] = number(value)
    else:
        group["lr"] = value


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value a group, from such a list or from a single value for all."""
    groups = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(
            f"[scheduler] {name} must have a value for each of {groups} groups, came {len(value)}"
        )
    return list(value)


def check_optimizer(optimizer: Any) -> Any:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"[scheduler] must be given an Optimizer, came {type(optimizer).__name__}")
    return optimizer


class LRScheduler:
    """Base of schedulers. A subclass writes `get_lr`, which returns a rate a group for `self.last_epoch`.

    last_epoch: -1 to begin; a number of steps to go on, with "initial_lr" in the groups.
    """

    _get_lr_called_within_step = False
    _is_initial = False
    _last_lr: list[Any]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group_values(optimizer, "lr")[i])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"[scheduler] to go on from last_epoch {last_epoch}, param_groups[{i}] must have 'initial_lr':"
                    " load the optimizer's state_dict before, or begin with last_epoch -1"
                )
        self.base_lrs = group_values(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where another scheduler of the same kind was."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[Any]:
        """The rates now in use, one a group."""
        return self._last_lr

    def get_lr(self) -> list[Any]:
        """The next rates, one a group; for `step` to call."""
        raise NotImplementedError(f"[{type(self).__name__}] a scheduler must define get_lr()")

    def step(self, epoch: int | None = None) -> None:
        """Sets the rates of the next epoch (or batch: whatever is counted)."""
        if self._step_count == 1:
            if not getattr(self.optimizer.step, "hooked", False):
                warnings.warn(
                    "[scheduler] optimizer.step was replaced after the scheduler was made: see that it is called"
                    " before lr_scheduler.step()",
                    UserWarning,
                    stacklevel=2,
                )
            elif not self.optimizer._opt_called:
                warnings.warn(
                    "[scheduler] lr_scheduler.step() was called before optimizer.step(), so the first rate of the"
                    " schedule is skipped: call optimizer.step() first",
                    UserWarning,
                    stacklevel=2,
                )
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_WARNING, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        closed = getattr(self, "_get_closed_form_lr", None)
        self._set_lrs(self.get_lr if epoch is None or closed is None else closed)

    def _set_lrs(self, compute: Callable[[], list[Any]]) -> None:
        self._get_lr_called_within_step = True
        try:
            values = compute()
        finally:
            self._get_lr_called_within_step = False
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            set_lr(group, lr)
        self._last_lr = group_values(self.optimizer, "lr")

    def _now(self) -> list[Any]:
        return group_values(self.optimizer, "lr")

    def _times(self, factor: float) -> list[Any]:
        return [group["lr"] * factor for group in self.optimizer.param_groups]

    def _base_times(self, factor: float) -> list[Any]:
        return [base * factor for base in self.base_lrs]

    def _warn_outside(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn(
                "[scheduler] get_lr() is for step() to call: get_last_lr() tells the rate in use",
                UserWarning,
                stacklevel=3,
            )


class _LRScheduler(LRScheduler):
    """The base under its old name."""
