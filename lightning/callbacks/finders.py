"""What is looked for before training: a learning rate, a batch size."""

from __future__ import annotations

from typing import Any

from .callback import Callback


def _tuner(trainer: Any) -> Any:
    from ..tuner import Tuner

    return Tuner(trainer)


class LearningRateFinder(Callback):
    """Before training: `Tuner.lr_find`, whose suggestion the optimizers start with. Arguments are lr_find's."""

    def __init__(
        self, min_lr: float = 1e-8, max_lr: float = 1.0, num_training_steps: int = 100, **kwargs: Any
    ) -> None:
        self.arguments = {"min_lr": min_lr, "max_lr": max_lr, "num_training": num_training_steps, **kwargs}
        self.optimal_lr: Any = None

    def before_fit(self, trainer: Any, model: Any, loaders: Any, datamodule: Any) -> None:
        self.optimal_lr = _tuner(trainer).lr_find(model, loaders, datamodule=datamodule, **self.arguments)


class BatchSizeFinder(Callback):
    """Before training: `Tuner.scale_batch_size`. Arguments are its."""

    def __init__(
        self, mode: str = "power", steps_per_trial: int = 3, init_val: int = 2, **kwargs: Any
    ) -> None:
        self.arguments = {"mode": mode, "steps_per_trial": steps_per_trial, "init_val": init_val, **kwargs}
        self.optimal_batch_size: int | None = None

    def before_fit(self, trainer: Any, model: Any, loaders: Any, datamodule: Any) -> None:
        self.optimal_batch_size = _tuner(trainer).scale_batch_size(
            model, datamodule=datamodule, **self.arguments
        )
