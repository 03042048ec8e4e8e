"""`torch.profiler`: what ops take, over the steps that a schedule chooses (docs/profiler.md)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from .autograd import profiler as _profiler
from .autograd.profiler import merge_traces, record_function


class ProfilerActivity(Enum):
    """What can be profiled: here the CPU."""

    CPU = 0
    XPU = 1
    MTIA = 2
    CUDA = 3
    HPU = 4
    PrivateUse1 = 5


class ProfilerAction(Enum):
    """What a schedule wants done in a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


Schedule = Callable[[int], ProfilerAction]


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Schedule:
    """Steps are skipped (`skip_first`), then in cycles waited, warmed up and recorded; `repeat` 0: without end."""
    if wait < 0 or warmup < 0 or active < 1 or repeat < 0 or skip_first < 0:
        raise ValueError(
            "[schedule] wait, warmup, repeat and skip_first must not be negative and active must be positive, came"
            f" wait={wait}, warmup={warmup}, active={active}, repeat={repeat}, skip_first={skip_first}"
        )

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        length = wait + warmup + active
        if skip_first_wait:
            step += wait
        if step < 0 or (repeat and step >= repeat * length):
            return ProfilerAction.NONE
        place = step % length
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD_AND_SAVE if place == length - 1 else ProfilerAction.RECORD

    return action


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[Any], None]:
    """For `on_trace_ready`: writes each recorded cycle as a Chrome trace into a folder."""

    def save(p: Any) -> None:
        import socket

        os.makedirs(dir_name, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        end = ".pt.trace.json.gz" if use_gzip else ".pt.trace.json"
        p.export_chrome_trace(os.path.join(dir_name, f"{worker}.{time.time_ns()}{end}"))

    return save


class profile(_profiler.profile):
    """autograd.profiler.profile with steps: call `step()` after each; `schedule` says which are recorded.

    on_trace_ready(self) is called when a cycle has been recorded. Activities other than the CPU record nothing.
    """

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Schedule | None = None,
        on_trace_ready: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._schedule = schedule or (lambda step: ProfilerAction.RECORD)
        self._ready, self.step_num = on_trace_ready, 0
        self._recording = False

    def start(self) -> None:
        """Begins with step 0."""
        self._follow(self._schedule(self.step_num))

    def step(self) -> None:
        """Ends a step and begins the next."""
        if self._schedule(self.step_num) is ProfilerAction.RECORD_AND_SAVE:
            self._finish()
        self.step_num += 1
        self._follow(self._schedule(self.step_num))

    def stop(self) -> None:
        """Ends the profile; what was recorded since the last cycle goes to on_trace_ready too."""
        self._finish()

    def _follow(self, action: ProfilerAction) -> None:
        wanted = action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        if wanted and not self._recording:
            self._clear()
            super().__enter__()
        elif not wanted and self._recording:
            super().__exit__()
        self._recording = wanted

    def _finish(self) -> None:
        if not self._recording:
            return
        super().__exit__()
        self._recording = False
        if self._ready is not None:
            self._ready(self)

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


def supported_activities() -> set[ProfilerActivity]:
    """What can be profiled."""
    return {ProfilerActivity.CPU}


__all__ = [
    "ProfilerAction",
    "ProfilerActivity",
    "merge_traces",
    "profile",
    "record_function",
    "schedule",
    "supported_activities",
    "tensorboard_trace_handler",
]
