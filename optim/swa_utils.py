"""Averages of weights over time: stochastic weight averaging and exponential moving averages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from ..autograd import no_grad
from ..nn.module import Module
from ..tensor import Tensor, creation, dtypes
from .lr_scheduler.base import LRScheduler, per_group
from .optimizer import Optimizer

Average = Callable[[Tensor, Tensor, Any], Tensor]
MultiAverage = Callable[[list[Tensor], list[Tensor], Any], None]


def _check_decay(decay: float) -> None:
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"[swa_utils] decay must be in [0, 1], came {decay}")


def _move(average: Any, current: Any, share: float) -> None:
    """average += share (current - average), in place; integers are computed as floats and cut off."""
    a, x = average.array, current.array
    moved = a + (x - a) * share if a.dtype.kind not in "iub" else a * (1 - share) + x * share
    a[...] = moved.astype(a.dtype, copy=False)
    average._version[0] += 1


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """For AveragedModel(multi_avg_fn=): average = decay average + (1 - decay) current, in place."""
    _check_decay(decay)

    def ema_update(ema_param_list: list[Tensor], current_param_list: list[Tensor], _: Any) -> None:
        for average, current in zip(ema_param_list, current_param_list, strict=True):
            _move(average, current, 1 - decay)

    return ema_update


def get_swa_multi_avg_fn() -> MultiAverage:
    """For AveragedModel(multi_avg_fn=): the mean of all so far, in place."""

    def swa_update(
        averaged_param_list: list[Tensor], current_param_list: list[Tensor], num_averaged: Any
    ) -> None:
        for average, current in zip(averaged_param_list, current_param_list, strict=True):
            _move(average, current, 1 / (float(num_averaged) + 1))

    return swa_update


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """For AveragedModel(avg_fn=): decay average + (1 - decay) current."""
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_swa_avg_fn() -> Average:
    """For AveragedModel(avg_fn=): the mean of all so far."""

    @no_grad()
    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return swa_update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's: `update_parameters(model)` adds to them.

    The mean by default (Izmailov et al. 2018, arXiv:1803.05407). avg_fn(average, current, n) returns the new
    average of one tensor, multi_avg_fn(averages, currents, n) writes those of all. use_buffers: buffers are
    averaged too, else copied.
    """

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("[AveragedModel] avg_fn or multi_avg_fn may be given, came both")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", creation.tensor(0, dtype=dtypes.int64))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model's forward."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Takes a model's present weights into the average; the first ones become the average."""
        averages, currents = list(self.module.parameters()), list(model.parameters())
        if self.use_buffers:
            averages, currents = [*averages, *self.module.buffers()], [*currents, *model.buffers()]  # type: ignore[list-item]
        n = self.n_averaged
        if n.array == 0:
            _copy(averages, currents)
        elif self.avg_fn is not None:
            with no_grad():
                new = [
                    self.avg_fn(a.detach(), c.detach(), n) for a, c in zip(averages, currents, strict=True)
                ]
            _copy(averages, new)
        else:
            held, came = [a.detach() for a in averages], [c.detach() for c in currents]
            (self.multi_avg_fn or get_swa_multi_avg_fn())(held, came, n)
        if not self.use_buffers:
            _copy(self.module.buffers(), model.buffers())
        n.array[...] += 1
        n._version[0] += 1


def _copy(targets: Iterable[Any], sources: Iterable[Any]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.array[...] = source.array.astype(target.array.dtype, copy=False)
        target._version[0] += 1


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Computes the running statistics of batch norms anew, as plain means over the batches of `loader`.

    A batch is the input, or a list or tuple that begins with it.
    """
    norms = [
        m
        for m in model.modules()
        if "BatchNorm" in _kinds(m) and getattr(m, "running_mean", None) is not None
    ]
    if not norms:
        return
    before = [(m, m.momentum) for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    was_training = model.training
    model.train()
    for batch in loader:
        x = batch[0] if isinstance(batch, list | tuple) else batch
        model(x if device is None else x.to(device))
    for m, momentum in before:
        m.momentum = momentum
    model.train(was_training)


def _kinds(module: Module) -> str:
    return " ".join(cls.__name__ for cls in type(module).__mro__)


class SWALR(LRScheduler):
    """From the lr to swa_lr within anneal_epochs ("cos" or "linear"), and on there."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Any,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        for group, lr in zip(optimizer.param_groups, per_group("swa_lr", optimizer, swa_lr)):
            group["swa_lr"] = lr
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"[SWALR] anneal_strategy must be 'cos' or 'linear', came {anneal_strategy!r}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"[SWALR] anneal_epochs must be an integer of at least 0, came {anneal_epochs}")
        self._anneal_strategy, self.anneal_epochs = anneal_strategy, anneal_epochs
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        self._warn_outside()
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        lrs = []
        for group in self.optimizer.param_groups:
            lr, target = group["lr"], group["swa_lr"]
            start = target if before == 1 else (lr - before * target) / (1 - before)
            lrs.append(target * now + start * (1 - now))
        return lrs

    def _share(self, step: int) -> float:
        """How much of the way to swa_lr is done."""
        done = max(0, min(1, step / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * done)) / 2 if self._anneal_strategy == "cos" else done
