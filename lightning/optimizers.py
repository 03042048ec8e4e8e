"""What `configure_optimizers` may return, in one form; and an optimizer that counts the trainer's steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ..optim import Optimizer
from ..optim.lr_scheduler import ReduceLROnPlateau

SCHEDULER_KEYS = {"scheduler", "interval", "frequency", "monitor", "strict", "name", "reduce_on_plateau"}
FORMS = (
    "an optimizer, a list of them, (optimizers, schedulers), a dict with 'optimizer' and 'lr_scheduler', "
    "a list of such dicts, or None"
)


class SchedulerConfig:
    """A learning rate scheduler and when it steps: each `frequency`-th "epoch" or "step"."""

    def __init__(
        self,
        scheduler: Any,
        interval: str = "epoch",
        frequency: int = 1,
        monitor: str | None = None,
        strict: bool = True,
        name: str | None = None,
        reduce_on_plateau: bool = False,
    ) -> None:
        who = "[configure_optimizers]"
        if interval not in ("epoch", "step"):
            raise ValueError(f"{who} a scheduler's interval must be 'epoch' or 'step', came {interval!r}")
        if not hasattr(scheduler, "step") or not hasattr(scheduler, "state_dict"):
            raise TypeError(
                f"{who} a scheduler must have step() and state_dict(), came {type(scheduler).__name__}"
            )
        if frequency < 1:
            raise ValueError(f"{who} a scheduler's frequency must be at least 1, came {frequency}")
        self.scheduler, self.interval, self.frequency = scheduler, interval, frequency
        self.monitor, self.strict, self.name = monitor, strict, name
        self.reduce_on_plateau = reduce_on_plateau or isinstance(scheduler, ReduceLROnPlateau)
        if self.reduce_on_plateau and monitor is None:
            raise ValueError(
                f"{who} ReduceLROnPlateau needs the name of what to monitor: return "
                "{'optimizer': ..., 'lr_scheduler': {'scheduler': ..., 'monitor': 'val_loss'}}"
            )


def configured(returned: Any) -> tuple[list[Optimizer], list[SchedulerConfig]]:
    """Optimizers and schedulers of what `configure_optimizers` returned."""
    optimizers: list[Any]
    schedulers: list[Any] = []
    monitors: list[str | None] = []
    if returned is None:
        return [], []
    if isinstance(returned, list | tuple) and _are_lists(returned):
        optimizers, schedulers = list(returned[0]), list(returned[1])
        monitors = [None] * len(schedulers)
    else:
        optimizers = []
        for entry in returned if isinstance(returned, list | tuple) else [returned]:
            if not isinstance(entry, dict):
                optimizers.append(entry)
                continue
            if "optimizer" not in entry or set(entry) - {"optimizer", "lr_scheduler", "monitor"}:
                raise ValueError(
                    "[configure_optimizers] a dict must have 'optimizer', and may have 'lr_scheduler' and 'monitor', "
                    f"came {sorted(entry)}"
                )
            optimizers.append(entry["optimizer"])
            if entry.get("lr_scheduler") is not None:
                schedulers.append(entry["lr_scheduler"])
                monitors.append(entry.get("monitor"))
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"[configure_optimizers] must return {FORMS}, came {type(optimizer).__name__} for an optimizer"
            )
    return optimizers, [_scheduler(s, m) for s, m in zip(schedulers, monitors)]


def _are_lists(returned: Any) -> bool:
    if len(returned) != 2 or not all(isinstance(part, list | tuple) for part in returned):
        return False
    return all(not isinstance(o, dict) for o in returned[0])


def _scheduler(entry: Any, monitor: str | None) -> SchedulerConfig:
    if not isinstance(entry, dict):
        return SchedulerConfig(entry, monitor=monitor)
    if unknown := set(entry) - SCHEDULER_KEYS:
        raise ValueError(
            f"[configure_optimizers] a scheduler's dict may have {sorted(SCHEDULER_KEYS)}, came {sorted(unknown)}"
        )
    if "scheduler" not in entry:
        raise ValueError(
            f"[configure_optimizers] a scheduler's dict must have 'scheduler', came {sorted(entry)}"
        )
    return SchedulerConfig(**{"monitor": monitor, **entry})


class LightningOptimizer:
    """What `self.optimizers()` gives: the optimizer, whose steps the trainer counts."""

    def __init__(self, optimizer: Optimizer, trainer: Any) -> None:
        self.optimizer, self._trainer = optimizer, trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """The optimizer's step, around which the hooks are called."""
        trainer = self._trainer
        trainer.hooks("on_before_optimizer_step", self.optimizer)
        with trainer.precision.forward_context():
            out = self.optimizer.step(closure, **kwargs) if closure else self.optimizer.step(**kwargs)
        trainer.fit_loop.global_step += 1
        return out

    @contextlib.contextmanager
    def toggle_model(self, sync_grad: bool = True) -> Iterator[None]:
        """Within it only this optimizer's parameters require gradients."""
        module = self._trainer.lightning_module
        module.toggle_optimizer(self)
        try:
            yield
        finally:
            module.untoggle_optimizer(self)
