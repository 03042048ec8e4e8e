"""EarlyStopping: ends training once what is monitored no longer improves."""

from __future__ import annotations

import math
from typing import Any

from .callback import Callback


class EarlyStopping(Callback):
    """Stops after `patience` checks without an improvement of `monitor` by more than `min_delta`.

    mode: "min" or "max". strict: raise where `monitor` is not logged. check_finite: stop at NaN and infinity.
    stopping_threshold, divergence_threshold: stop once it is better, or worse, than this.
    """

    changes_weights = False
    monitors = True

    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: str = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"[EarlyStopping] mode must be 'min' or 'max', came {mode!r}")
        self.monitor, self.min_delta, self.patience, self.verbose = monitor, abs(min_delta), patience, verbose
        self.mode, self.strict, self.check_finite = mode, strict, check_finite
        self.stopping_threshold, self.divergence_threshold = stopping_threshold, divergence_threshold
        self.check_on_train_epoch_end = check_on_train_epoch_end
        self.wait_count = self.stopped_epoch = 0
        self.best_score = math.inf if mode == "min" else -math.inf

    @property
    def state_key(self) -> str:
        return f"EarlyStopping{{'monitor': {self.monitor!r}, 'mode': {self.mode!r}}}"

    def state_dict(self) -> dict[str, Any]:
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self.best_score,
            "patience": self.patience,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wait_count, self.stopped_epoch = state_dict["wait_count"], state_dict["stopped_epoch"]
        self.best_score, self.patience = state_dict["best_score"], state_dict["patience"]

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.check_on_train_epoch_end is None:  # with several validations an epoch, after each of them
            self.check_on_train_epoch_end = (
                trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1
            )

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.check_on_train_epoch_end:
            self._check(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not self.check_on_train_epoch_end and not trainer.sanity_checking and trainer.stage == "fit":
            self._check(trainer)

    def _check(self, trainer: Any) -> None:
        value = trainer.callback_values.get(self.monitor)
        if value is None:
            if self.strict:
                raise RuntimeError(
                    f"[EarlyStopping] monitors {self.monitor!r}, which was not logged, only "
                    f"{sorted(trainer.callback_values)}"
                )
            return
        # Step values may differ between workers, which must stop together.
        reason = trainer.strategy.broadcast_object(self._reason_to_stop(value))
        if reason is not None:
            trainer.should_stop, self.stopped_epoch = True, trainer.current_epoch
        if self.verbose and reason:
            trainer.print(f"[EarlyStopping] {reason}")

    def _reason_to_stop(self, value: float) -> str | None:
        better = (lambda a, b: a < b) if self.mode == "min" else (lambda a, b: a > b)
        delta = -self.min_delta if self.mode == "min" else self.min_delta
        if self.check_finite and not math.isfinite(value):
            return f"{self.monitor} = {value} is not finite; the best was {self.best_score}"
        if self.stopping_threshold is not None and better(value, self.stopping_threshold):
            return f"{self.monitor} = {value} has reached {self.stopping_threshold}"
        if self.divergence_threshold is not None and better(self.divergence_threshold, value):
            return f"{self.monitor} = {value} is worse than {self.divergence_threshold}"
        if better(value, self.best_score + delta):
            self.best_score, self.wait_count = value, 0
            return None
        self.wait_count += 1
        if self.wait_count >= self.patience:
            return f"{self.monitor} has not improved {self.wait_count} times; the best was {self.best_score}"
        return None
