"""Where a run's time goes: by hook and step, by Python function, or by op."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PARTS = ("training_step", "backward", "optimizer_step", "validation_step", "test_step", "predict_step")


class Profiler:
    """Subclass it: `running()` is a context around the whole run, `profile(name)` one around each part of it.

    dirpath, filename: the report goes to <dirpath>/<stage>-<filename>.txt instead of the terminal.
    """

    def __init__(self, dirpath: str | os.PathLike[str] | None = None, filename: str | None = None) -> None:
        self.dirpath, self.filename = dirpath, filename

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    @contextmanager
    def profile(self, action_name: str) -> Iterator[None]:
        yield

    def summary(self) -> str:
        """What has been found, as text."""
        return ""

    def watch(self, module: Any, hooks: Any) -> Callable[[], None]:
        """Puts `profile` around the module's steps and all hooks; returns the function that takes it off again."""
        before = dict(hooks.listeners)
        for name, calls in before.items():
            hooks.listeners[name] = [self._timed(name, call) for call in calls]
        for name in PARTS:
            object.__setattr__(module, name, self._timed(name, getattr(module, name)))

        def undo() -> None:
            hooks.listeners.update(before)
            for name in PARTS:
                del module.__dict__[name]

        return undo

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.profile(name):
                return call(*args, **kwargs)

        # What a step takes is read off its signature.
        timed.__wrapped__ = call  # type: ignore[attr-defined]
        return timed

    def tell(self, stage: str) -> None:
        """Prints or writes the summary."""
        if self.filename is None:
            print(self.summary(), file=sys.stdout)
            return
        path = os.path.join(self.dirpath or ".", f"{stage}-{self.filename}.txt")
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "w") as file:
            file.write(self.summary() + "\n")


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


class PyTorchProfiler(Profiler):
    """Counts and times of every op, forward and backward, as `ringgrad.profiler` gives them."""

    def __init__(
        self, dirpath: Any = None, filename: str | None = None, row_limit: int = 20, **_: Any
    ) -> None:
        super().__init__(dirpath, filename)
        self.row_limit, self._text = row_limit, ""

    @contextmanager
    def running(self) -> Iterator[None]:
        from ..autograd.profiler import profile

        with profile() as found:
            yield
        self._text = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=self.row_limit)

    def summary(self) -> str:
        return self._text


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
