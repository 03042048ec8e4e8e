"""LearningRateMonitor: logs the learning rates."""

from __future__ import annotations

from typing import Any

from .callback import Callback


class LearningRateMonitor(Callback):
    """Logs each parameter group's learning rate as lr-<optimizer>[/pg<number>].

    logging_interval: "step", "epoch", or None for both as the schedulers step. log_momentum: momentum or beta1 too.
    """

    changes_weights = False

    def __init__(self, logging_interval: str | None = None, log_momentum: bool = False) -> None:
        if logging_interval not in (None, "step", "epoch"):
            raise ValueError(
                f"[LearningRateMonitor] logging_interval must be step, epoch or None, came {logging_interval!r}"
            )
        self.logging_interval, self.log_momentum = logging_interval, log_momentum
        self.lrs: dict[str, list[float]] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.loggers:
            raise ValueError("[LearningRateMonitor] needs a logger, came Trainer(logger=False)")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        every = trainer.log_every_n_steps
        if (
            self.logging_interval != "epoch"
            and every
            and (trainer.fit_loop.batches_that_stepped + 1) % every == 0
        ):
            self._log(trainer, "step" if self.logging_interval is None else "any")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self.logging_interval != "step":
            self._log(trainer, "epoch" if self.logging_interval is None else "any")

    def _log(self, trainer: Any, interval: str) -> None:
        configs = {
            id(c.scheduler.optimizer): c
            for c in trainer.lr_scheduler_configs
            if hasattr(c.scheduler, "optimizer")
        }
        found: dict[str, float] = {}
        for optimizer in trainer.optimizers:
            config = configs.get(id(optimizer))
            if interval != "any" and (config.interval if config is not None else "epoch") != interval:
                continue
            name = (config.name if config is not None else None) or f"lr-{type(optimizer).__name__}"
            while any(key.split("/")[0] == name for key in found):
                name += "-1"
            groups = optimizer.param_groups
            for i, group in enumerate(groups):
                label = f"{name}/pg{i + 1}" if len(groups) > 1 else name
                found[label] = float(group["lr"])
                if self.log_momentum:
                    found[f"{label}-momentum"] = float(group.get("momentum", group.get("betas", (0.0,))[0]))
        for label, value in found.items():
            self.lrs.setdefault(label, []).append(value)
        trainer.callback_values.update(found)
        trainer.log_metrics(found, trainer.fit_loop.batches_that_stepped)
