"""GradientAccumulationScheduler: how many batches make a step, epoch by epoch."""

from __future__ import annotations

from typing import Any

from .callback import Callback


class GradientAccumulationScheduler(Callback):
    """scheduling {0: 8, 4: 4, 8: 1}: eight batches a step from epoch 0 on, four from 4 on, one from 8 on."""

    def __init__(self, scheduling: dict[int, int]) -> None:
        good = scheduling and all(isinstance(v, int) and v >= 0 for pair in scheduling.items() for v in pair)
        if not good or min(scheduling.values()) < 1:
            raise ValueError(
                "[GradientAccumulationScheduler] scheduling must be of epochs from 0 on and numbers of batches from 1 "
                f"on, came {scheduling!r}"
            )
        self.scheduling = {0: 1, **scheduling}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not pl_module.automatic_optimization:
            raise RuntimeError("[GradientAccumulationScheduler] needs automatic optimization")
        if trainer.accumulate_grad_batches != 1:
            raise ValueError(
                "[GradientAccumulationScheduler] Trainer(accumulate_grad_batches) must be left out, came "
                f"{trainer.accumulate_grad_batches}"
            )

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        epoch = max(e for e in self.scheduling if e <= trainer.current_epoch)
        trainer.accumulate_grad_batches = self.scheduling[epoch]

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.accumulate_grad_batches = 1
