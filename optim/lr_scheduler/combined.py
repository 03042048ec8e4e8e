"""Schedulers made of schedulers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler, set_lr
from .plateau import ReduceLROnPlateau


class _Several(LRScheduler):
    """What the schedulers made of schedulers share."""

    _schedulers: Sequence[Any]

    def _check(self, schedulers: Sequence[Any], optimizer: Optimizer | None) -> Optimizer:
        who = type(self).__name__
        if len(schedulers) < 1:
            raise ValueError(f"[{who}] at least one scheduler is needed, came none")
        optimizer = optimizer or schedulers[0].optimizer
        for i, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(
                    f"[{who}] must be given schedulers, came {type(scheduler).__name__} at index {i}"
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"[{who}] cannot step ReduceLROnPlateau, which needs a metric, came one at index {i}"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"[{who}] all schedulers must be of one optimizer, came another at index {i}"
                )
        return optimizer

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["_schedulers"] = [scheduler.state_dict() for scheduler in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class ChainedScheduler(_Several):
    """Steps all of its schedulers, in order, every time"""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self.optimizer = self._check(schedulers, optimizer)
        self._schedulers = schedulers
        self._last_lr = self._now()

    def step(self, epoch: int | None = None) -> None:
        """One step of each."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._now()


class SequentialLR(_Several):
    """The first scheduler until the first milestone, then the second, which begins at its epoch 0 ..."""

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1
    ) -> None:
        self.optimizer = self._check(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"[SequentialLR] {len(schedulers)} schedulers need one milestone less, came {len(milestones)}"
            )
        self._schedulers, self._milestones = schedulers, milestones
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:  # each scheduler took its first step when it was made: undo them
            set_lr(group, group["initial_lr"])
        self.recursive_undo()
        first = schedulers[bisect_right(milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def recursive_undo(self, sched: Any = None) -> None:
        """Sets the epochs of a scheduler, or those inside of it, one back."""
        sched = self if sched is None else sched
        if hasattr(sched, "_schedulers"):
            for inner in sched._schedulers:
                self.recursive_undo(inner)
        elif hasattr(sched, "last_epoch"):
            sched.last_epoch -= 1

    def step(self, epoch: int | None = None) -> None:
        """One step of the scheduler whose turn it is."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()
