"""Times of hooks and steps, and of Python functions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .profiler import Profiler


class SimpleProfiler(Profiler):
    """Number of calls, and mean and total time of every hook and step. optimizer_step holds the steps within it."""

    def __init__(self, dirpath: Any = None, filename: str | None = None) -> None:
        super().__init__(dirpath, filename)
        self.durations: dict[str, list[float]] = {}
        self.total = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.total += time.perf_counter() - start

    @contextmanager
    def profile(self, action_name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.durations.setdefault(action_name, []).append(time.perf_counter() - start)

    def summary(self) -> str:
        lines = [f"{'action':<32}{'calls':>8}{'mean ms':>12}{'total s':>12}{'share':>8}"]
        rows = [("the whole run", [self.total]), *self.durations.items()]
        for name, times in sorted(rows, key=lambda row: -sum(row[1])):
            total = sum(times)
            share = 100 * total / (self.total or 1)
            lines.append(
                f"{name:<32}{len(times):>8}{1e3 * total / len(times):>12.4f}{total:>12.4f}{share:>7.1f}%"
            )
        return "\n".join(lines)


class AdvancedProfiler(Profiler):
    """Python's cProfile over the run: the functions that took longest."""

    def __init__(
        self, dirpath: Any = None, filename: str | None = None, line_count_restriction: float = 40
    ) -> None:
        super().__init__(dirpath, filename)
        self.lines = line_count_restriction
        import cProfile

        self._profile = cProfile.Profile()

    @contextmanager
    def running(self) -> Iterator[None]:
        self._profile.enable()
        try:
            yield
        finally:
            self._profile.disable()

    def summary(self) -> str:
        import io
        import pstats

        out = io.StringIO()
        pstats.Stats(self._profile, stream=out).sort_stats("cumulative").print_stats(self.lines)
        return out.getvalue()
