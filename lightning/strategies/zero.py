"""ZeRO: each worker keeps its share of the optimizer's state (stage 1), and of the gradients too (stage 2)."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

from .strategy import DDPStrategy, TrainingStep


class ZeroStrategy(DDPStrategy):
    """Data parallel, with the memory for the optimizer's state shared out; checkpoints hold all of it."""

    def wrap_optimizers(self, module: Any, optimizers: list[Any], schedulers: list[Any]) -> list[Any]:
        return optimizers if self.group is None else [self._wrapped(o, schedulers) for o in optimizers]

    def _wrapped(self, optimizer: Any, schedulers: list[Any]) -> Any:
        from ...distributed.zero import ZeroRedundancyOptimizer

        if isinstance(optimizer, ZeroRedundancyOptimizer):
            return optimizer
        groups = [dict(group) for group in optimizer.param_groups]
        shared = ZeroRedundancyOptimizer(groups, type(optimizer), self.group, **defaults(optimizer))
        take_the_place(shared, optimizer, schedulers)
        return shared

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        if self.group is None:
            return super().optimizer_state(optimizer)
        optimizer.consolidate_state_dict(0)
        return optimizer.state_dict() if self.rank == 0 else {}

    def held_optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return super().optimizer_state(optimizer) if self.group is None else optimizer.local_state_dict()

    def exchanges(self, optimizers: list[Any]) -> list[tuple[Any, str]]:
        steps = [] if self.group is None else [(optimizer, "_exchange") for optimizer in optimizers]
        return [*super().exchanges(optimizers), *steps]


class Zero2Strategy(DDPStrategy):
    """Data parallel, with the memory for gradients and the optimizer's state shared out (distributed/sharded.py).

    options: ShardedDataParallel's. For one optimizer that updates elementwise, as SGD, Adam and AdamW do.
    """

    def wrap_optimizers(self, module: Any, optimizers: list[Any], schedulers: list[Any]) -> list[Any]:
        if self.group is None:
            return optimizers
        from ...distributed.sharded import ShardedDataParallel

        check_zero2(module, optimizers)
        (optimizer,) = optimizers
        groups = [dict(group) for group in optimizer.param_groups]
        options = {**self._options, **defaults(optimizer)}
        self.ddp = ShardedDataParallel(
            TrainingStep(module), type(optimizer), self.group, param_groups=groups, **options
        )
        take_the_place(self.ddp.optimizer, optimizer, schedulers)
        return [self.ddp.optimizer]

    def setup(self, module: Any) -> None:
        if self.group is not None:
            self.ddp.take_parameters()  # on_fit_start may have changed them

    def parameters_changed(self, module: Any) -> None:
        if self.group is not None:
            raise RuntimeError(
                '[Trainer] under the strategy zero2 the same parameters are trained all along: "zero"'
            )

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return super().optimizer_state(optimizer) if self.group is None else self.ddp.optimizer_state_dict()

    def held_optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        if self.group is None:
            return super().held_optimizer_state(optimizer)
        return self.ddp.local_optimizer_state_dict()

    def steady(self, module: Any, optimizers: list[Any]) -> list[Any]:
        in_backward = self.group is not None and self.ddp.step_in_backward
        return [] if in_backward else super().steady(module, optimizers)

    def load_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        if self.group is None:
            super().load_optimizer_state(optimizer, state)
        else:
            self.ddp.load_optimizer_state_dict(state)

    def clip_gradients(self, optimizer: Any, limit: float, algorithm: str | None) -> None:
        if self.group is None or algorithm == "value":
            super().clip_gradients(optimizer, limit, algorithm)
        else:
            self.ddp.clip_grad_norm_(limit)

    def exchanges(self, optimizers: list[Any]) -> list[tuple[Any, str]]:
        names = ("_land", "_finish", "_spread")
        return [] if self.group is None else [(self.ddp, name) for name in names]

    def no_sync(self) -> Any:
        return contextlib.nullcontext()  # each backward's gradients are shared out, and added up there


def check_zero2(module: Any, optimizers: list[Any]) -> None:
    """ValueError for what slices of parameters cannot be trained with."""
    from ...optim.elementwise import Elementwise

    who = "[Trainer] the strategy zero2 needs"
    if not module.automatic_optimization or len(optimizers) != 1:
        raise ValueError(
            f"{who} automatic optimization with one optimizer, came {len(optimizers)} optimizers"
        )
    if not isinstance(optimizers[0], Elementwise):
        raise ValueError(
            f"{who} an optimizer that updates elementwise (SGD, Adam, AdamW ...), came "
            f'{type(optimizers[0]).__name__}: take strategy="zero"'
        )
    if module.trainer.precision.scaler is not None:
        raise ValueError(f'{who} a precision without a scaler, came "16-mixed": take "bf16-mixed"')


def defaults(optimizer: Any) -> dict[str, Any]:
    """The options that an optimizer was made with."""
    taken = inspect.signature(type(optimizer)).parameters
    return {name: value for name, value in optimizer.defaults.items() if name in taken}


def take_the_place(new: Any, old: Any, schedulers: list[Any]) -> None:
    """Lets the new optimizer have the options of the old one, to which schedulers hold on, now and later."""
    old.param_groups[:] = new.param_groups
    new.param_groups = old.param_groups
    for scheduler in schedulers:
        point_to(scheduler, old, new)


def point_to(scheduler: Any, old: Any, new: Any) -> None:
    """Lets a scheduler, and those within it, step with another optimizer."""
    if getattr(scheduler, "optimizer", None) is old:
        scheduler.optimizer = new
    for inner in getattr(scheduler, "_schedulers", ()):
        point_to(inner, old, new)
