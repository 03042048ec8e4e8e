"""Join: loops over inputs of which ranks have different numbers, as torch.distributed.algorithms.join."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from .group import Group

MANY_STEPS = 1000  # from here on a rank that has left is told that it waits long


class JoinHook:
    """What a rank that has left its loop does for a Joinable, so that the others' collectives find it."""

    def main_hook(self) -> None:
        """Answer the collectives of one step of the ranks that still have inputs."""

    def post_hook(self, is_last_joiner: bool) -> None:
        """All have left. is_last_joiner: whether this rank was among the last."""


class Joinable:
    """Something whose steps hold collectives: a model or an optimizer. It calls Join.notify_join_context before
    them.
    """

    _join: Join | None = None  # the context that it is in, if it is enabled

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """kwargs: those that Join was given."""
        raise NotImplementedError(f"[Joinable] {type(self).__name__} must define join_hook")

    @property
    def join_device(self) -> Any:
        """The device of the collectives."""
        raise NotImplementedError(f"[Joinable] {type(self).__name__} must define join_device")

    @property
    def join_process_group(self) -> Group:
        """The group of the collectives."""
        raise NotImplementedError(f"[Joinable] {type(self).__name__} must define join_process_group")


class Join:
    """Context of a loop over uneven inputs: a rank that is done answers the others' collectives until all are.

    joinables: all objects with collectives in the loop's steps, the first of which calls notify_join_context.
    enable: False changes nothing (inputs are even). throw_on_early_termination: all ranks raise RuntimeError as
    soon as one has run out. kwargs go to each joinable's join_hook.
    """

    def __init__(
        self,
        joinables: Sequence[Joinable],
        enable: bool = True,
        throw_on_early_termination: bool = False,
        **kwargs: Any,
    ) -> None:
        if not joinables:
            raise ValueError("[Join] joinables must hold at least one Joinable, got none")
        for joinable in joinables:
            if not isinstance(joinable, Joinable):
                raise TypeError(f"[Join] joinables must be Joinables, got {type(joinable).__name__}")
        groups = {id(joinable.join_process_group) for joinable in joinables}
        if len(groups) > 1:
            raise ValueError(f"[Join] joinables must share one process group, got {len(groups)}")
        self.joinables, self.enable, self.throw = list(joinables), enable, throw_on_early_termination
        self.group = joinables[0].join_process_group
        self.hooks = [joinable.join_hook(**kwargs) for joinable in joinables]
        self.active = np.ones(self.group.size, np.uint8)  # which ranks had inputs in the latest step

    @property
    def first_active(self) -> int:
        """The first rank that has inputs in this step."""
        return int(self.active.argmax())

    @staticmethod
    def notify_join_context(joinable: Joinable) -> None:
        """Before the collectives of a step: tell the ranks that have left that there is one more."""
        context = joinable._join
        if context is not None and context.joinables[0] is joinable:
            context._tell(True)

    def __enter__(self) -> None:
        if self.enable:
            for joinable in self.joinables:
                joinable._join = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.enable:
            return
        try:
            if error is None:
                self._answer()
        finally:
            for joinable in self.joinables:
                joinable._join = None

    def _answer(self) -> None:
        steps = 0
        while self._tell(False):
            for hook in self.hooks:
                hook.main_hook()
            steps += 1
            if steps == MANY_STEPS:
                warnings.warn(
                    f"[Join] rank {self.group.rank} has run out of inputs {MANY_STEPS} steps before others: "
                    "inputs should be shared out more evenly",
                    stacklevel=4,
                )
        for hook in self.hooks:
            hook.post_hook(steps == 0)

    def _tell(self, active: bool) -> bool:
        """Let all know whether this rank has inputs for a step; whether any has."""
        self.group.all_gather(self.active, np.array([active], np.uint8))
        left = [rank for rank, flag in zip(self.group.members, self.active) if not flag]
        if self.throw and left and self.active.any():
            raise RuntimeError(f"[Join] all ranks must have as many inputs, but these have run out: {left}")
        return bool(self.active.any())
