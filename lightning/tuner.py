"""Tuner: looks for a learning rate, and for a batch size, before training."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from .callbacks.callback import Callback
from .loggers.logger import Logger
from .seeding import rng_state, set_rng_state


class Tuner:
    """`Tuner(trainer).lr_find(model, loader).suggestion()`; trainer and model are left as they were."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def lr_find(
        self,
        model: Any,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: Any = None,
        method: str = "fit",
        min_lr: float = 1e-8,
        max_lr: float = 1.0,
        num_training: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ) -> LRFinder:
        """A run of `num_training` steps with a learning rate that rises from min_lr to max_lr.

        It ends early once the smoothed loss is early_stop_threshold times the best. update_attr: the suggestion is put
        into model.lr, model.learning_rate or their hyperparameters (attr_name: which). L. Smith, "Cyclical Learning
        Rates for Training Neural Networks", WACV 2017.
        """
        if method != "fit" or mode not in ("exponential", "linear"):
            raise ValueError(
                f"[lr_find] method must be fit, mode exponential or linear, came {method}, {mode}"
            )
        holder, name = _holder(model, attr_name, ("lr", "learning_rate")) if update_attr else (None, "")
        sweep = _Sweep(min_lr, max_lr, num_training, mode, early_stop_threshold)
        self._trial(sweep, num_training, model, train_dataloaders, datamodule)
        finder = LRFinder(sweep.lrs, sweep.losses)
        suggestion = finder.suggestion()
        if holder is not None and suggestion is not None:
            _set(holder, name, suggestion)
        return finder

    def scale_batch_size(
        self,
        model: Any,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: Any = None,
        method: str = "fit",
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
    ) -> int:
        """The largest power of 2 times init_val (mode "binsearch": the largest) that memory is there for, or the data.

        model or datamodule must have `batch_size`, which its train_dataloader reads and which is set to the result.
        """
        if train_dataloaders is not None or mode not in ("power", "binsearch") or method != "fit":
            raise ValueError(
                "[scale_batch_size] takes no dataloaders: define train_dataloader() that reads self.batch_size; mode "
                f"is power or binsearch, came {mode!r}"
            )
        holder, name = _holder(datamodule if datamodule is not None else model, batch_arg_name, ())
        good, bad, size = 0, None, init_val
        for _ in range(max_trials):
            _set(holder, name, size)
            try:
                batches = self._trial(_Trial(), steps_per_trial, model, None, datamodule)
            except MemoryError:
                bad = size
            else:
                good = size
                if batches <= 1:  # the batch holds all the data already
                    break
            if bad is not None and (mode == "power" or bad - good <= 1):
                break
            size = size * 2 if bad is None else (good + bad) // 2
        if not good:
            raise MemoryError(f"[scale_batch_size] there is no memory for a batch of {init_val}")
        _set(holder, name, good)
        return good

    def _trial(self, watch: Callback, steps: int, model: Any, loaders: Any, datamodule: Any) -> Any:
        """A fit of few steps without logging and checkpoints; returns the number of batches of an epoch."""
        t = self.trainer
        weights = {name: value.array.copy() for name, value in model.state_dict().items()}
        random, modes = rng_state(), {m: m.training for m in model.modules()}
        kept = {name: getattr(t, name) for name in _SETTINGS}
        try:
            t.callbacks, t.loggers, t.num_sanity_val_steps = [watch], [_Silent()], 0
            t.max_steps, t.max_epochs, t.limit_val_batches, t.fast_dev_run = steps, -1, 0, 0
            t._reset()
            t.fit(model, loaders, datamodule=datamodule)
            return t.num_training_batches
        finally:
            for name, value in kept.items():
                setattr(t, name, value)
            t._reset()
            for name, value in model.state_dict().items():
                value.array[...] = weights[name]
            for p in model.parameters():
                p.grad = None
            for part, training in modes.items():
                part.training = training
            set_rng_state(random)


_SETTINGS = (
    "callbacks",
    "loggers",
    "num_sanity_val_steps",
    "max_steps",
    "max_epochs",
    "limit_val_batches",
    "fast_dev_run",
)


class _Silent(Logger):
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pass


class _Trial(Callback):
    pass


class _Sweep(Callback):
    """Raises the learning rate step by step and keeps the smoothed losses."""

    def __init__(self, low: float, high: float, steps: int, mode: str, threshold: float | None) -> None:
        if not 0 < low < high:
            raise ValueError(f"[lr_find] needs 0 < min_lr < max_lr, came {low} and {high}")
        space = np.geomspace if mode == "exponential" else np.linspace
        self.plan = [float(x) for x in space(low, high, steps)]
        self.threshold = threshold
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self._mean, self._best = 0.0, math.inf

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.lr_scheduler_configs = []
        trainer.check_finite, self._checked = False, trainer.check_finite

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.plan[min(trainer.global_step, len(self.plan) - 1)]

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs is None or trainer.global_step == len(self.lrs):
            return
        loss = trainer.strategy.mean(float(outputs["loss"].item()))
        n = len(self.lrs) + 1
        self._mean = 0.98 * self._mean + 0.02 * loss
        smoothed = self._mean / (1 - 0.98**n)
        diverged = not math.isfinite(smoothed)
        if self.threshold is not None and n > 1:
            diverged = diverged or smoothed > self.threshold * self._best
        if diverged:
            trainer.should_stop = True
            return
        self._best = min(self._best, smoothed)
        self.lrs.append(self.plan[n - 1])
        self.losses.append(smoothed)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.check_finite = self._checked


class LRFinder:
    """What a sweep has found: `results` with "lr" and "loss", and the rate where the loss falls fastest."""

    def __init__(self, lrs: list[float], losses: list[float]) -> None:
        self.results = {"lr": lrs, "loss": losses}

    def suggestion(self, skip_begin: int = 10, skip_end: int = 1) -> float | None:
        """The learning rate of the steepest fall; None where there were too few steps."""
        lrs, losses = (self.results[name][skip_begin : -skip_end or None] for name in ("lr", "loss"))
        if len(losses) < 2:
            return None
        return lrs[int(np.gradient(np.array(losses)).argmin())]

    def plot(self, suggest: bool = False, show: bool = False, ax: Any = None) -> Any:
        """Loss over learning rate, as a matplotlib figure."""
        from matplotlib.figure import Figure

        figure = ax.figure if ax is not None else Figure(layout="constrained")
        axes = ax if ax is not None else figure.subplots()
        axes.plot(self.results["lr"], self.results["loss"])
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        lr = self.suggestion() if suggest else None
        if lr is not None:
            axes.plot(lr, self.results["loss"][self.results["lr"].index(lr)], "ro")
        return figure


def _holder(owner: Any, name: str, names: tuple[str, ...]) -> tuple[Any, str]:
    """The object (the owner or its hyperparameters) that has the attribute, and its name."""
    for candidate in (name,) if name else names:
        if hasattr(owner, candidate) or candidate in getattr(owner, "hparams", {}):
            return copy.copy((owner, candidate))
    raise AttributeError(
        f"[Tuner] {type(owner).__name__} must have {' or '.join((name,) if name else names)}, as an attribute or a "
        "hyperparameter, so that the result has a place: define it, or pass its name"
    )


def _set(owner: Any, name: str, value: Any) -> None:
    if hasattr(owner, name):
        setattr(owner, name, value)
    if name in getattr(owner, "hparams", {}):
        owner.hparams[name] = value
