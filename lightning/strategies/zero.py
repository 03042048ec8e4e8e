"""ZeRO: each worker keeps the optimizer's state of its share of the parameters."""

from __future__ import annotations

import inspect
from typing import Any

from .strategy import DDPStrategy


class ZeroStrategy(DDPStrategy):
    """Data parallel, with the memory for the optimizer's state shared out; checkpoints hold all of it."""

    def wrap_optimizers(self, optimizers: list[Any], schedulers: list[Any]) -> list[Any]:
        return optimizers if self.group is None else [self._wrapped(o, schedulers) for o in optimizers]

    def _wrapped(self, optimizer: Any, schedulers: list[Any]) -> Any:
        from ...distributed.zero import ZeroRedundancyOptimizer

        if isinstance(optimizer, ZeroRedundancyOptimizer):
            return optimizer
        groups = [dict(group) for group in optimizer.param_groups]
        taken = inspect.signature(type(optimizer)).parameters
        defaults = {name: value for name, value in optimizer.defaults.items() if name in taken}
        shared = ZeroRedundancyOptimizer(groups, type(optimizer), self.group, **defaults)
        # Schedulers hold on to the optimizer that they were made with: its options are those of the new one.
        optimizer.param_groups[:] = shared.param_groups
        shared.param_groups = optimizer.param_groups
        for scheduler in schedulers:
            point_to(scheduler, optimizer, shared)
        return shared

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        if self.group is None:
            return super().optimizer_state(optimizer)
        optimizer.consolidate_state_dict(0)
        return optimizer.state_dict() if self.rank == 0 else {}


def point_to(scheduler: Any, old: Any, new: Any) -> None:
    """Lets a scheduler, and those within it, step with another optimizer."""
    if getattr(scheduler, "optimizer", None) is old:
        scheduler.optimizer = new
    for inner in getattr(scheduler, "_schedulers", ()):
        point_to(inner, old, new)
