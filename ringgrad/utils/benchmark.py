"""`torch.utils.benchmark`: how long a statement takes."""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable, Sequence
from typing import Any


class Measurement:
    """Times of a statement: `times` in seconds a run, their median, mean and interquartile range."""

    def __init__(self, number_per_run: int, raw_times: list[float], title: str) -> None:
        self.number_per_run, self.raw_times, self.title = number_per_run, raw_times, title

    @property
    def times(self) -> list[float]:
        return [t / self.number_per_run for t in self.raw_times]

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.times)

    @property
    def iqr(self) -> float:
        if len(self.times) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.times, n=4, method="inclusive")
        return high - low

    def __repr__(self) -> str:
        unit, scale = next(
            (u, s) for u, s in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)) if self.median >= s or u == "ns"
        )
        kind = "Median" if len(self.times) > 1 else "Time"
        lines = [f"<{__name__}.{type(self).__name__}>", self.title, f"  {kind}: {self.median / scale:.2f} {unit}"]
        if len(self.times) > 1:
            lines.append(f"  IQR:    {self.iqr / scale:.2f} {unit}")
        return "\n".join([*lines, f"  {len(self.times)} measurement(s), {self.number_per_run} runs per measurement, 1 thread"])


class Timer:
    """Times `stmt` after `setup`, names from `globals`, with `num_threads` threads."""

    def __init__(
        self,
        stmt: str = "pass",
        setup: str = "pass",
        global_setup: str = "",
        timer: Callable[[], float] = timeit.default_timer,
        globals: dict[str, Any] | None = None,
        label: str | None = None,
        sub_label: str | None = None,
        description: str | None = None,
        env: str | None = None,
        num_threads: int = 1,
        language: Any = "python",
    ) -> None:
        import textwrap

        self._timer = timeit.Timer(textwrap.dedent(stmt).strip(), textwrap.dedent(setup).strip(), timer, globals)
        self.label, self.sub_label, self.description, self.num_threads = label, sub_label, description, num_threads
        self.title = ": ".join(x for x in (label or stmt.strip(), sub_label, description) if x)

    def timeit(self, number: int = 1000000) -> Measurement:
        """One measurement of `number` runs."""
        return self._measured(number, 1)

    def _measured(self, number: int, count: int) -> Measurement:
        from ..tensor.settings import get_num_threads, set_num_threads

        before = get_num_threads()
        set_num_threads(self.num_threads)
        try:
            self._timer.timeit(max(number // 100, 1))
            return Measurement(number, [self._timer.timeit(number) for _ in range(count)], self.title)
        finally:
            set_num_threads(before)

    def blocked_autorange(self, callback: Any = None, min_run_time: float = 0.2) -> Measurement:
        """Measurements of so many runs that the clock's resolution does not matter, for `min_run_time` seconds."""
        number = 1
        while (taken := self._timer.timeit(number)) < min_run_time / 100:
            number *= 10
        return self._measured(number, max(int(min_run_time / max(taken, 1e-9)), 1))

    def adaptive_autorange(
        self, threshold: float = 0.1, *, min_run_time: float = 0.01, max_run_time: float = 10.0, callback: Any = None
    ) -> Measurement:
        """As blocked_autorange."""
        return self.blocked_autorange(callback, min_run_time)


class Compare:
    """A list of measurements, printed one a line."""

    def __init__(self, results: Sequence[Measurement]) -> None:
        self._results = list(results)

    def extend_results(self, results: Sequence[Measurement]) -> None:
        """Adds measurements."""
        self._results.extend(results)

    def trim_significant_figures(self) -> None:
        """Accepted: three digits are printed."""

    def colorize(self, rowwise: bool = False) -> None:
        """Accepted: nothing is coloured."""

    def highlight_warnings(self) -> None:
        """Accepted."""

    def __str__(self) -> str:
        return "\n".join(f"{m.title}  {m.median * 1e6:.3g} us" for m in self._results)

    def print(self) -> None:
        """Prints the table."""
        print(self)


__all__ = ["Compare", "Measurement", "Timer"]
