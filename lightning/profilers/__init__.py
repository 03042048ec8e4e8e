"""Where a run's time goes: by hook and step, by Python function, or by op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .profiler import Profiler
from .python import AdvancedProfiler, SimpleProfiler
from .pytorch import PyTorchProfiler

NAMES: dict[str, Callable[[], Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def profiler_of(wanted: Any) -> Profiler | None:
    """The profiler of a name; one that is given as an object stays."""
    if wanted is None or isinstance(wanted, Profiler):
        return wanted
    if wanted not in NAMES:
        raise ValueError(
            f"[Trainer] profiler must be one of {', '.join(NAMES)}, or a Profiler, came {wanted!r}"
        )
    return NAMES[wanted]()


__all__ = ["AdvancedProfiler", "Profiler", "PyTorchProfiler", "SimpleProfiler", "profiler_of"]
