"""Calls summed by name, as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .events import Event, own_times
from .flops import rates


@dataclass(frozen=True)
class Row:
    """All calls of one name; times in microseconds, as PyTorch gives them, memory in bytes."""

    key: str
    count: int
    self_cpu_time_total: float
    cpu_time_total: float
    input_shapes: tuple[tuple[int, ...], ...] = ()
    flops: int = 0
    moved: int = 0
    cpu_memory_usage: int = 0
    stack: tuple[str, ...] = ()
    kind: str = "op"

    @property
    def cpu_time(self) -> float:
        return self.cpu_time_total / self.count

    @property
    def roofline(self) -> float | None:
        """The share of what the machine could do at best: 1 where the measured GEMM or copy rate is reached."""
        if (not self.flops and not self.moved) or not self.cpu_time_total:
            return None
        return rates().least(self.flops, self.moved) * 1e6 / self.cpu_time_total


SORTS = ("self_cpu_time_total", "cpu_time_total", "cpu_time", "count", "flops", "cpu_memory_usage")


class Averages(list[Row]):
    """What key_averages() returns: rows that print as a table."""

    def __init__(self, rows: Any = (), columns: tuple[str, ...] = ()) -> None:
        super().__init__(rows)
        self.columns = columns  # beyond times: "shapes", "memory", "flops", "stack"

    def total_average(self) -> Row:
        """All rows in one."""
        return Row("Total", sum(r.count for r in self), self._total(), sum(r.cpu_time_total for r in self))

    def _total(self) -> float:
        return sum(r.self_cpu_time_total for r in self if r.kind != "communication")

    def table(
        self, sort_by: str | None = None, row_limit: int = 100, max_name_column_width: int = 55, **_: Any
    ) -> str:
        """The rows as text; sort_by: "self_cpu_time_total", "cpu_time_total", "cpu_time", "count", "flops" or
        "cpu_memory_usage". Roofline %: the time that the op's operations and bytes take at the GEMM and copy rates
        measured on this machine, over the time that it took.
        """
        rows = list(self)
        if sort_by is not None:
            key = sort_by.replace("cuda", "cpu").replace("device", "cpu").replace("self_cpu_mem", "cpu_mem")
            if key not in SORTS:
                raise ValueError(f"[profiler] sort_by must be one of {', '.join(SORTS)}, came {sort_by!r}")
            rows.sort(key=lambda r: getattr(r, key), reverse=True)
        total = self._total() or 1.0
        columns = _columns(total, max_name_column_width, self.columns)
        cells = [
            [show(row) for show in columns.values()] for row in (rows if row_limit < 0 else rows[:row_limit])
        ]
        text = _aligned([list(columns), *cells])
        return "\n".join([*text, f"Self CPU time total: {time_text(self._total())}", *self._rates(), ""])

    def _rates(self) -> list[str]:
        if "flops" not in self.columns:
            return []
        best = rates()
        return [
            f"Measured at best: GEMM {best.gemm / 1e9:.1f} GFLOP/s (float32), copy {best.copy / 1e9:.1f} GB/s"
        ]

    __str__ = table


def _columns(total: float, width: int, wanted: tuple[str, ...]) -> dict[str, Callable[[Row], str]]:
    columns: dict[str, Callable[[Row], str]] = {
        "Name": lambda r: r.key if len(r.key) <= width else r.key[: width - 3] + "...",
        "Self CPU %": lambda r: f"{100 * r.self_cpu_time_total / total:.2f}%",
        "Self CPU": lambda r: time_text(r.self_cpu_time_total),
        "CPU total": lambda r: time_text(r.cpu_time_total),
        "CPU time avg": lambda r: time_text(r.cpu_time),
        "# of Calls": lambda r: str(r.count),
    }
    if "memory" in wanted:
        columns["CPU Mem"] = lambda r: size_text(r.cpu_memory_usage)
    if "shapes" in wanted:
        columns["Input Shapes"] = lambda r: str([list(s) for s in r.input_shapes])
    if "stack" in wanted:
        columns["Source Location"] = lambda r: r.stack[-1] if r.stack else ""
    if "flops" in wanted:
        columns["Total MFLOPs"] = lambda r: f"{r.flops / 1e6:.3f}" if r.flops else "--"
        columns["Roofline %"] = lambda r: "--" if r.roofline is None else f"{100 * r.roofline:.1f}%"
    return columns


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = "  ".join("-" * w for w in widths)
    text = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths)) for line in lines]
    return [rule, text[0], rule, *text[1:], rule]


def averages(events: list[Event], by_shape: bool, by_stack: int, columns: tuple[str, ...]) -> Averages:
    """The calls, summed by name; also by the shapes of their inputs, and by the innermost frames."""
    groups: dict[Any, list[tuple[Event, int]]] = {}
    for event, own in zip(events, own_times(events)):
        where = event.stack[-by_stack:] if by_stack else ()
        groups.setdefault((event.name, event.kind, event.shapes if by_shape else (), where), []).append(
            (event, own)
        )
    shown = (*columns, *(("shapes",) if by_shape else ()), *(("stack",) if by_stack else ()))
    return Averages((_row(key, calls) for key, calls in groups.items()), shown)


def _row(key: Any, calls: list[tuple[Event, int]]) -> Row:
    name, kind, shapes, stack = key
    events = [event for event, _ in calls]
    return Row(
        name,
        len(calls),
        sum(own for _, own in calls) / 1e3,
        sum(e.length for e in events) / 1e3,
        shapes,
        sum(e.flops for e in events),
        sum(e.moved for e in events),
        sum(e.memory for e in events),
        stack,
        kind,
    )


def time_text(microseconds: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3f}{unit}"
    return f"{microseconds:.3f}us"


def size_text(count: int) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"
