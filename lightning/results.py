"""Logged values: of the step, and gathered over an epoch and all workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensor import Tensor
from .metrics.metric import Metric

TRAIN_STEP = {
    "training_step",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_zero_grad",
    "on_before_optimizer_step",
}
STEPS = TRAIN_STEP | {f"{s}_step" for s in ("validation", "test")}
STEPS |= {f"on_{stage}_batch_{end}" for stage in ("validation", "test") for end in ("start", "end")}
EPOCHS = {"on_train_start", "on_train_epoch_start", "on_train_epoch_end"}
EPOCHS |= {
    f"on_{s}{e}_{end}" for s in ("validation", "test") for e in ("", "_epoch") for end in ("start", "end")
}
EPOCHS -= {"on_validation_end", "on_test_end"}


class Logged:
    """One name's values since the epoch began."""

    def __init__(self, kind: Any, on_step: bool, on_epoch: bool, prog_bar: bool, logger: bool) -> None:
        self.kind, self.on_step, self.on_epoch = kind, on_step, on_epoch
        self.prog_bar, self.logger = prog_bar, logger
        self.metric: Metric | None = None
        self.step_value: float | None = None
        self.total, self.weight = {"min": math.inf, "max": -math.inf}.get(kind, 0.0), 0.0
        self.values: list[float] = []  # for a reduce_fx of the user's own

    def add(self, value: float, weight: float) -> None:
        if self.kind == "mean":
            self.total += value * weight
            self.weight += weight
        elif self.kind == "sum":
            self.total += value
        elif self.kind in ("min", "max"):
            self.total = (min if self.kind == "min" else max)(self.total, value)
        else:
            self.values.append(value)

    def merged(self, parts: list[Any]) -> float:
        """The epoch's value from all workers' [total, weight, values]."""
        totals = [total for total, _, _ in parts]
        if self.kind == "mean":
            weight = sum(weight for _, weight, _ in parts)
            return math.fsum(totals) / weight if weight else math.nan
        if callable(self.kind):
            values = np.array([v for _, _, values in parts for v in values], np.float32)
            return float(self.kind(Tensor(values)))
        reduce: dict[str, Callable[..., float]] = {"sum": math.fsum, "min": min, "max": max}
        return reduce[self.kind](totals)


class Results:
    """The values that one loop (training, validation or test) has logged."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.items: dict[str, Logged] = {}
        self.batch: Any = None
        self.dataloader_idx: int | None = None  # where there are several

    def log(
        self,
        module: Any,
        name: str,
        value: Any,
        *,
        prog_bar: bool,
        logger: bool,
        on_step: bool | None,
        on_epoch: bool | None,
        reduce_fx: str | Callable[..., Any],
        sync_dist: bool,
        add_dataloader_idx: bool,
        batch_size: int | None,
    ) -> None:
        place = self.trainer.place
        on_step, on_epoch = _when(place, on_step, on_epoch)
        if self.dataloader_idx is not None and add_dataloader_idx and place in STEPS:
            name = f"{name}/dataloader_idx_{self.dataloader_idx}"
        item = self.items.get(name)
        if item is None:
            kind = "mean" if reduce_fx in ("mean", "avg") else reduce_fx
            if kind not in ("mean", "sum", "min", "max") and not callable(kind):
                raise ValueError(
                    f"[log] reduce_fx must be mean, sum, min, max or a function, came {reduce_fx!r}"
                )
            item = self.items[name] = Logged(kind, on_step, on_epoch, prog_bar, logger)
        elif (item.on_step, item.on_epoch) != (on_step, on_epoch):
            raise ValueError(
                f"[log] {name!r} was logged with on_step={item.on_step}, on_epoch={item.on_epoch} before, came "
                f"on_step={on_step}, on_epoch={on_epoch}: give it one way or another name"
            )
        if isinstance(value, Metric):
            item.metric = value
            item.step_value = None if value.batch_value is None else _number(name, value.batch_value)
            return
        number = _number(name, value)
        if on_epoch:
            item.add(
                number, 1 if batch_size is None and place not in STEPS else batch_size or size_of(self.batch)
            )
        if on_step:
            item.step_value = self.trainer.strategy.mean(number) if sync_dist else number

    def publish_step(self) -> dict[str, float]:
        """Hands the step's values to the trainer; returns those for the loggers."""
        logged, trainer = {}, self.trainer
        for name, item in self.items.items():
            if item.on_step and item.step_value is not None:
                forked = f"{name}_step" if item.on_epoch else name
                trainer.callback_values[forked] = item.step_value
                if item.on_epoch:
                    trainer.callback_values[name] = item.step_value
                if item.prog_bar:
                    trainer.progress_bar_values[forked] = item.step_value
                if item.logger:
                    logged[forked] = item.step_value
        return logged

    def publish_epoch(self) -> dict[str, float]:
        """Hands the epoch's values, of all workers, to the trainer; returns those for the loggers. They start anew."""
        trainer, strategy = self.trainer, self.trainer.strategy
        own = {k: self._part(i) for k, i in self.items.items() if i.on_epoch}
        everybody = strategy.gather_object(own) if strategy.world_size > 1 else [own]
        logged = {}
        for name in dict.fromkeys(name for part in everybody for name in part):
            parts = [part[name] for part in everybody if name in part]
            path, kind, prog_bar, logger, on_step = parts[0][3]
            item = self.items.get(name) or Logged(kind, on_step, True, prog_bar, logger)
            if path is not None:  # a metric: it merges itself, on workers that never had a batch too
                metric = (
                    item.metric if item.metric is not None else trainer.lightning_module.get_submodule(path)
                )
                value = _number(name, metric.compute())
                metric.reset()
            else:
                value = item.merged([part[:3] for part in parts])
            forked = f"{name}_epoch" if item.on_step else name
            trainer.callback_values[name] = trainer.callback_values[forked] = value
            if item.prog_bar:
                trainer.progress_bar_values[forked] = value
            if item.logger:
                logged[forked] = value
        self.items = {k: i for k, i in self.items.items() if not i.on_epoch}
        return logged

    def _part(self, item: Logged) -> list[Any]:
        path = None
        if item.metric is not None:
            named = self.trainer.lightning_module.named_modules()
            path = next((n for n, m in named if m is item.metric), None)
            if path is None:
                raise ValueError("[log] a Metric that is logged must be an attribute of the LightningModule")
        kind = "mean" if callable(item.kind) else item.kind
        return [item.total, item.weight, item.values, [path, kind, item.prog_bar, item.logger, item.on_step]]

    def state_dict(self) -> dict[str, Any]:
        """Sums of an epoch that is not over, for a checkpoint."""
        return {
            name: [i.kind, i.on_step, i.on_epoch, i.prog_bar, i.logger, i.total, i.weight]
            for name, i in self.items.items()
            if i.metric is None and not callable(i.kind)
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, (*how, total, weight) in state.items():
            item = self.items[name] = Logged(*how)
            item.total, item.weight = total, weight


def _when(place: str, on_step: bool | None, on_epoch: bool | None) -> tuple[bool, bool]:
    if place in STEPS:
        training = place in TRAIN_STEP
        return training if on_step is None else on_step, (not training) if on_epoch is None else on_epoch
    if place not in EPOCHS:
        raise RuntimeError(
            f"[log] cannot be called in {place or 'this place'}: call it in a training, validation or test step, "
            "or in a hook of their batches and epochs"
        )
    if on_step:
        raise ValueError(f"[log] on_step=True needs a step, came from {place}: use on_epoch=True there")
    return False, True


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"[log] {name!r} must be one number, came a tensor of shape {tuple(value.shape)}"
            )
        return float(value.array.reshape(-1)[0])
    if isinstance(value, int | float | np.number | np.bool_) or getattr(value, "shape", None) == ():
        return float(value)
    raise TypeError(f"[log] {name!r} must be a number, a 0-d tensor or a Metric, came {type(value).__name__}")


def size_of(batch: Any) -> int:
    """The number of samples: the first dimension of the first tensor within, else 1."""
    if isinstance(batch, Tensor):
        return int(batch.shape[0]) if len(batch.shape) else 1
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        for part in batch:
            if isinstance(part, Tensor | dict | list | tuple):
                return size_of(part)
        return len(batch) if batch and isinstance(batch[0], str) else 1
    return 1
