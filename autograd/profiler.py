"""A small profiler: how often each op ran, forward and backward, and how long its array code took.

While one is active the ops' functions are replaced by timed ones, in all threads; without one, nothing is slower.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple

from .op import Op, OpNode, listeners, registry

now = time.perf_counter_ns
_active: list[profile] = []


class Event(NamedTuple):
    """A call: its name, its start and length in nanoseconds, its thread, and whether a user named it."""

    name: str
    start: int
    length: int
    thread: int
    user: bool = False


@dataclass(frozen=True)
class Row:
    """All calls of one name; times in microseconds, as PyTorch gives them."""

    key: str
    count: int
    self_cpu_time_total: float
    cpu_time_total: float

    @property
    def cpu_time(self) -> float:
        return self.cpu_time_total / self.count


class Averages(list[Row]):
    """What key_averages() returns: rows that print as a table."""

    def total_average(self) -> Row:
        """All rows in one."""
        return Row("Total", sum(r.count for r in self), self._total(), sum(r.cpu_time_total for r in self))

    def _total(self) -> float:
        return sum(r.self_cpu_time_total for r in self)

    def table(
        self, sort_by: str | None = None, row_limit: int = 100, max_name_column_width: int = 55, **_: Any
    ) -> str:
        """The rows as text; sort_by: "self_cpu_time_total", "cpu_time_total", "cpu_time" or "count"."""
        rows = list(self)
        if sort_by is not None:
            key = sort_by.replace("cuda", "cpu").replace("device", "cpu")
            if key not in ("self_cpu_time_total", "cpu_time_total", "cpu_time", "count"):
                raise ValueError(f"[profiler] sort_by must name a column, came {sort_by!r}")
            rows.sort(key=lambda r: getattr(r, key), reverse=True)
        total = self._total() or 1.0
        heads = ("Name", "Self CPU %", "Self CPU", "CPU total", "CPU time avg", "# of Calls")
        cells = [
            (
                r.key[:max_name_column_width],
                f"{100 * r.self_cpu_time_total / total:.2f}%",
                *map(_time, (r.self_cpu_time_total, r.cpu_time_total, r.cpu_time)),
                str(r.count),
            )
            for r in (rows if row_limit < 0 else rows[:row_limit])
        ]
        widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
        rule = "  ".join("-" * w for w in widths)
        text = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths)) for line in [heads, *cells]]
        end = f"Self CPU time total: {_time(self._total())}"
        return "\n".join([rule, text[0], rule, *text[1:], rule, end, ""])

    __str__ = table


def _time(microseconds: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3f}{unit}"
    return f"{microseconds:.3f}us"


def _timed(op: Op, forward: Callable[..., Any]) -> Callable[..., Any]:
    name = op.name

    def timed(*args: Any, **kw: Any) -> Any:
        start = now()
        try:
            return forward(*args, **kw)
        finally:
            _note(Event(name, start, now() - start, threading.get_ident()))

    return timed


def _note(event: Event) -> None:
    for profiler in _active:
        profiler._events.append(event)


class _Hook:
    """Puts the timed functions in, and takes them out again."""

    forwards: dict[str, Any] = {}
    vjp: Any = None

    @classmethod
    def install(cls) -> None:
        cls.forwards = {name: op.forward for name, op in registry.items()}
        for op in registry.values():
            op.forward = _timed(op, op.forward)
        cls.vjp = vjp = OpNode.vjp

        def timed(node: OpNode, g: Any, create: bool) -> list[Any]:
            start = now()
            try:
                return vjp(node, g, create)
            finally:
                _note(Event(node.op.title, start, now() - start, threading.get_ident()))

        OpNode.vjp = timed  # type: ignore[assignment, method-assign]
        listeners.append(_listen)

    @classmethod
    def remove(cls) -> None:
        for name, forward in cls.forwards.items():
            registry[name].forward = forward
        OpNode.vjp = cls.vjp  # type: ignore[method-assign]
        listeners.remove(_listen)


def _listen(op: Any, inputs: Any, kwargs: Any, output: Any) -> None:
    """Its presence lets all ops take the general way, where their function is looked up at each call."""


class profile:
    """Counts and times ops within `with profile() as p`: p.key_averages().table(), p.export_chrome_trace(path).

    Time inside an op is its own; ranges named by record_function are listed with their whole length and the part
    that no op took. Options for devices, shapes, stacks and memory are accepted and change nothing.
    """

    def __init__(self, enabled: bool = True, **options: Any) -> None:
        self.enabled = enabled
        self._events: list[Event] = []

    def __enter__(self) -> Any:
        if self.enabled:
            if not _active:
                _Hook.install()
            _active.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.enabled and self in _active:
            _active.remove(self)
            if not _active:
                _Hook.remove()

    def events(self) -> list[Event]:
        """All calls, in the order in which they ended."""
        return list(self._events)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> Averages:
        """The calls, summed by name."""
        counts: dict[str, list[float]] = {}
        for event, own in zip(self._events, _own_times(self._events)):
            row = counts.setdefault(event.name, [0, 0.0, 0.0])
            row[0] += 1
            row[1] += own / 1e3
            row[2] += event.length / 1e3
        return Averages(Row(name, int(n), own, total) for name, (n, own, total) in counts.items())

    total_average = property(lambda self: self.key_averages().total_average)
    self_cpu_time_total = property(lambda self: self.key_averages()._total())

    def table(self, **options: Any) -> str:
        """key_averages().table(...)."""
        return self.key_averages().table(**options)

    __str__ = table

    def export_chrome_trace(self, path: str) -> None:
        """Writes the calls as JSON for chrome://tracing and Perfetto."""
        import json
        import os

        trace = [
            {
                "ph": "X",
                "cat": "user_annotation" if e.user else "cpu_op",
                "name": e.name,
                "pid": os.getpid(),
                "tid": e.thread,
                "ts": e.start / 1e3,
                "dur": e.length / 1e3,
            }
            for e in self._events
        ]
        with open(path, "w") as file:
            json.dump({"traceEvents": trace, "displayTimeUnit": "ms"}, file)


def _own_times(events: list[Event]) -> list[int]:
    """The length of each call without the calls inside of it; inner calls end, and so stand, before outer ones."""
    own = [e.length for e in events]
    open_calls: dict[int, list[int]] = {}
    for i, e in enumerate(events):
        stack = open_calls.setdefault(e.thread, [])
        while stack and events[stack[-1]].start >= e.start:
            own[i] -= events[stack.pop()].length
        stack.append(i)
    return own


class record_function:
    """Names a range of the program in the profile: context manager and decorator."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name

    def __enter__(self) -> record_function:
        self.start = now()
        return self

    def __exit__(self, *_: Any) -> None:
        if _active:
            _note(Event(self.name, self.start, now() - self.start, threading.get_ident(), True))

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fn)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name):
                return fn(*args, **kwargs)

        return recorded


__all__ = ["Averages", "Event", "Row", "profile", "record_function"]
