"""Timer: measures the stages, and ends training when its time is over."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from .callback import Callback

STAGES = {"train": "fit", "validate": "validation", "test": "test", "predict": "predict"}


class Timer(Callback):
    """duration: "DD:HH:MM:SS", a timedelta or a dict of its arguments; None measures only.

    interval: look at the clock after each "step" or "epoch". The time of an earlier run counts after a resume.
    """

    changes_weights = False

    def __init__(
        self,
        duration: str | timedelta | dict[str, int] | None = None,
        interval: str = "step",
        verbose: bool = True,
    ) -> None:
        if interval not in ("step", "epoch"):
            raise ValueError(f"[Timer] interval must be 'step' or 'epoch', came {interval!r}")
        self.duration, self.interval, self.verbose = _seconds(duration), interval, verbose
        self._start: dict[str, float] = {}
        self._end: dict[str, float] = {}
        self._offset = 0.0

    def time_elapsed(self, stage: str = "train") -> float:
        """Seconds that "train", "validate" or "test" has taken."""
        if stage not in self._start:
            return self._offset if stage == "train" else 0.0
        end = self._end.get(stage, time.monotonic())
        return end - self._start[stage] + (self._offset if stage == "train" else 0.0)

    def time_remaining(self, stage: str = "train") -> float | None:
        """Seconds until the duration is over; None without one."""
        return None if self.duration is None else self.duration - self.time_elapsed(stage)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin("train")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end["train"] = time.monotonic()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin("validate")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._end["validate"] = time.monotonic()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin("test")

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._end["test"] = time.monotonic()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.interval == "step":
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.interval == "epoch":
            self._check(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.time_elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._offset = state_dict["elapsed"]

    def _begin(self, stage: str) -> None:
        self._end.pop(stage, None)
        self._start[stage] = time.monotonic()

    def _check(self, trainer: Any) -> None:
        if self.duration is None:
            return
        # Workers' clocks differ, and all must stop at the same step.
        if trainer.strategy.broadcast_object(self.time_elapsed() >= self.duration):
            trainer.should_stop = True
            if self.verbose:
                trainer.print(f"[Timer] the time of {self.duration:g} s is over: training ends")


def _seconds(duration: Any) -> float | None:
    if duration is None:
        return None
    if isinstance(duration, dict):
        duration = timedelta(**duration)
    if isinstance(duration, str):
        parts = duration.strip().split(":")
        if len(parts) != 4 or not all(p.isdigit() for p in parts):
            raise ValueError(f"[Timer] a duration must be DD:HH:MM:SS, came {duration!r}")
        days, hours, minutes, seconds = map(int, parts)
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not isinstance(duration, timedelta):
        raise TypeError(
            f"[Timer] a duration must be DD:HH:MM:SS, a timedelta or a dict, came {type(duration).__name__}"
        )
    return duration.total_seconds()
