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
        self.asked: Any = None  # the place and flags of the last call: the same again needs no checks
        self.metric: Metric | None = None
        self.step_value: float | None = None
        self.step_parts: list[float] = []  # of a step that is made in parts
        self.total: list[float] = []  # its exact sum is that of all values; min and max: one number
        self.infinite = 0.0  # what has no place in an exact sum
        self.weight = 0.0
        self.values: list[float] = []  # for a reduce_fx of the user's own

    def add(self, value: float, weight: float) -> None:
        if self.kind == "mean":
            self._add(value * weight)
            self.weight += weight
        elif self.kind == "sum":
            self._add(value)
        elif self.kind in ("min", "max"):
            self.total = [(min if self.kind == "min" else max)([*self.total, value])]
        else:
            self.values.append(value)

    def _add(self, x: float) -> None:
        """Shewchuk's exact sum (1997): so that the order of batches, and who has them, changes no bit."""
        if not math.isfinite(x):
            self.infinite += x
            return
        parts, kept = self.total, 0
        for y in parts:
            if abs(x) < abs(y):
                x, y = y, x
            high = x + y
            low = y - (high - x)
            if low:
                parts[kept] = low
                kept += 1
            x = high
        parts[kept:] = [x]

    def state(self) -> list[Any]:
        return [self.total, self.weight, self.values, self.infinite]

    def take(self, states: list[Any]) -> None:
        """Becomes what workers with these states have together."""
        self.total = [x for total, *_ in states for x in total]
        self.weight = math.fsum(weight for _, weight, _, _ in states)
        self.values = [v for _, _, values, _ in states for v in values]
        self.infinite = sum(infinite for *_, infinite in states)

    def value(self) -> float:
        if callable(self.kind):
            return float(self.kind(Tensor(np.array(self.values, np.float32))))
        if self.kind in ("min", "max"):
            return (min if self.kind == "min" else max)(self.total, default=math.nan)
        total = math.fsum(self.total) + self.infinite
        if self.kind == "sum":
            return total
        return total / self.weight if self.weight else math.nan


LOADER = "/dataloader_idx_"  # in names of what is logged for one of several loaders


class Results:
    """The values that one loop (training, validation or test) has logged."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.items: dict[str, Logged] = {}
        self.batch: Any = None
        self.dataloader_idx: int | None = None  # where there are several

    def log(
        self,
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
        place, strategy = self.trainer.place, self.trainer.strategy
        if self.dataloader_idx is not None and add_dataloader_idx and place in STEPS:
            name = f"{name}{LOADER}{self.dataloader_idx}"
        item, asked = self.items.get(name), (place, on_step, on_epoch)
        if item is None or item.asked != asked:
            item = self._item(name, item, *_when(place, on_step, on_epoch), prog_bar, logger, reduce_fx)
            item.asked = asked
        if isinstance(value, Metric):
            item.metric = value
            item.step_value = None if value.batch_value is None else _number(name, value.batch_value)
            return
        number = _number(name, value)
        if item.on_epoch:
            item.add(
                number, 1 if batch_size is None and place not in STEPS else batch_size or size_of(self.batch)
            )
        if item.on_step:
            item.step_value = strategy.mean(number) if sync_dist and not strategy.exact else number
            if strategy.exact:
                item.step_parts.append(number)

    def _item(
        self,
        name: str,
        item: Logged | None,
        on_step: bool,
        on_epoch: bool,
        prog_bar: bool,
        logger: bool,
        fx: Any,
    ) -> Logged:
        if item is None:
            kind = "mean" if fx in ("mean", "avg") else fx
            if kind not in ("mean", "sum", "min", "max") and not callable(kind):
                raise ValueError(f"[log] reduce_fx must be mean, sum, min, max or a function, came {fx!r}")
            item = self.items[name] = Logged(kind, on_step, on_epoch, prog_bar, logger)
        elif (item.on_step, item.on_epoch) != (on_step, on_epoch):
            raise ValueError(
                f"[log] {name!r} was logged with on_step={item.on_step}, on_epoch={item.on_epoch} before, came "
                f"on_step={on_step}, on_epoch={on_epoch}: give it one way or another name"
            )
        return item

    def publish_step(self, due: bool = True) -> dict[str, float]:
        """Hands the step's values to the trainer; returns those for the loggers. due: loggers take them."""
        logged, trainer = {}, self.trainer
        if trainer.strategy.exact:
            self._join_parts(due)
        for name, item in self.items.items():
            if item.on_step and item.step_value is not None:
                forked = _forked(name, "step") if item.on_epoch else name
                trainer.callback_values[forked] = item.step_value
                if item.on_epoch:
                    trainer.callback_values[name] = item.step_value
                if item.prog_bar:
                    trainer.progress_bar_values[forked] = item.step_value
                if item.logger:
                    logged[forked] = item.step_value
        return logged

    def _join_parts(self, due: bool) -> None:
        """A step's value is the exact mean over its parts, of all workers where it is due."""
        own = {name: item.step_parts for name, item in self.items.items() if item.step_parts}
        everybody = self.trainer.strategy.gather_object(own) if due else [own]
        for name in own:
            values = [v for part in everybody for v in part.get(name, [])]
            self.items[name].step_value = math.fsum(values) / len(values)
            self.items[name].step_parts = []

    def publish_epoch(self) -> dict[str, float]:
        """Hands the epoch's values, of all workers, to the trainer; returns those for the loggers. They start anew."""
        trainer, strategy = self.trainer, self.trainer.strategy
        own = {k: self._part(i) for k, i in self.items.items() if i.on_epoch}
        everybody = strategy.gather_object(own) if strategy.world_size > 1 else [own]
        logged = {}
        for name in dict.fromkeys(name for part in everybody for name in part):
            parts = [part[name] for part in everybody if name in part]
            path, kind, prog_bar, logger, on_step = parts[0][1]
            item = self.items.get(name) or Logged(kind, on_step, True, prog_bar, logger)
            if path is not None:  # a metric: it merges itself, on workers that never had a batch too
                metric = (
                    item.metric if item.metric is not None else trainer.lightning_module.get_submodule(path)
                )
                value = _number(name, metric.compute())
                metric.reset()
            else:
                item.take([state for state, _ in parts])
                value = item.value()
            forked = _forked(name, "epoch") if item.on_step else name
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
        return [item.state(), [path, kind, item.prog_bar, item.logger, item.on_step]]

    def state_dict(self) -> dict[str, Any]:
        """Sums of an epoch that is not over, for a checkpoint."""
        return {
            name: [[i.kind, i.on_step, i.on_epoch, i.prog_bar, i.logger], i.state()]
            for name, i in self.items.items()
            if i.metric is None and not callable(i.kind)
        }

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Takes over what workers with these states had together."""
        for name in dict.fromkeys(name for state in states for name in state):
            parts = [state[name] for state in states if name in state]
            item = self.items[name] = Logged(*parts[0][0])
            item.take([part for _, part in parts])


def _forked(name: str, ending: str) -> str:
    base, loader, number = name.partition(LOADER)
    return f"{base}_{ending}{loader}{number}"


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
        if value.array.size != 1:
            raise ValueError(
                f"[log] {name!r} must be one number, came a tensor of shape {tuple(value.shape)}"
            )
        return float(value.array.item())
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
