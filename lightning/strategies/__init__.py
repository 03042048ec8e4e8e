"""Strategies: where the workers are, what each of them gets, and how their gradients become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .reproducible import ReproducibleStrategy
from .strategy import DDPStrategy
from .zero import Zero2Strategy, ZeroStrategy

__all__ = ["DDPStrategy", "ReproducibleStrategy", "Zero2Strategy", "ZeroStrategy", "strategy_of"]

_unused: Callable[[], DDPStrategy] = lambda: DDPStrategy(find_unused_parameters=True)

# Lightning's names for ways to start workers (_spawn, _fork, _notebook) all mean: workers that run the script.
STRATEGIES: dict[str, Callable[[], DDPStrategy]] = {
    "auto": DDPStrategy,
    "ddp": DDPStrategy,
    "ddp_spawn": DDPStrategy,
    "ddp_fork": DDPStrategy,
    "ddp_notebook": DDPStrategy,
    "ddp_find_unused_parameters_false": DDPStrategy,
    "ddp_find_unused_parameters_true": _unused,
    "ddp_spawn_find_unused_parameters_true": _unused,
    "reproducible": ReproducibleStrategy,
    "zero": ZeroStrategy,
    "zero2": Zero2Strategy,
}


def strategy_of(wanted: Any, reproducible: int | None) -> DDPStrategy:
    """The strategy of a name or of `reproducible`; one that is given as an object stays."""
    if reproducible is not None:
        if wanted not in ("auto", "ddp", "reproducible"):
            raise ValueError(
                f"[Trainer] reproducible={reproducible} is a strategy of its own, came strategy={wanted!r} too"
            )
        return ReproducibleStrategy(reproducible)
    if isinstance(wanted, DDPStrategy):
        return wanted
    if wanted not in STRATEGIES:
        raise ValueError(f"[Trainer] strategy must be one of {', '.join(STRATEGIES)}, came {wanted!r}")
    return STRATEGIES[wanted]()
