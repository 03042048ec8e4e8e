"""Collectives in profiles: each from when its lane takes it up to when it ends, in the thread that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def watch(group: type, note: Callable[[str, str, int, int], None]) -> Callable[[], None]:
    """Notes the collectives of all groups, until what it returns is called."""
    steps: Any = group._steps  # type: ignore[attr-defined]

    def noted(self: Any, job: Any, runner: Any, call: Any, *rest: Any) -> Any:
        start = time.perf_counter_ns()
        try:
            yield from steps(self, job, runner, call, *rest)
        finally:
            note("communication", call.text, start, time.perf_counter_ns() - start)

    group._steps = noted  # type: ignore[attr-defined]

    def undo() -> None:
        group._steps = steps  # type: ignore[attr-defined]

    return undo
