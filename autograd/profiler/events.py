"""What is noted of one call, and which calls were inside of which."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Event(NamedTuple):
    """A call: its name, its start and length in nanoseconds, its thread.

    kind: "op", "backward", "user" (record_function) or "communication". shapes: of the tensors that came; () for
    numbers. flops, moved: operations, and bytes read and written. memory: bytes that its results take.
    stack: the Python frames, outermost first. origin: the forward call that a backward belongs to.
    """

    name: str
    start: int
    length: int
    thread: int
    kind: str = "op"
    shapes: tuple[tuple[int, ...], ...] = ()
    flops: int = 0
    moved: int = 0
    memory: int = 0
    stack: tuple[str, ...] = ()
    detail: str = ""
    origin: Event | None = None

    @property
    def key(self) -> str:
        return self.name

    @property
    def input_shapes(self) -> list[list[int]]:
        return [list(shape) for shape in self.shapes]

    @property
    def cpu_time_total(self) -> float:
        """Microseconds."""
        return self.length / 1e3

    @property
    def end(self) -> int:
        return self.start + self.length


def parents(events: list[Event]) -> list[int]:
    """For each event the index of the call around it in its thread, -1 where there is none.

    Collectives run beside the program and are in nothing.
    """
    found = [-1] * len(events)
    inside: dict[int, list[int]] = {}
    for i in sorted(range(len(events)), key=lambda i: (events[i].start, -events[i].length, -i)):
        event = events[i]
        if event.kind == "communication":
            continue
        around = inside.setdefault(event.thread, [])
        while around and events[around[-1]].end < event.end:
            around.pop()
        if around:
            found[i] = around[-1]
        around.append(i)
    return found


def own_times(events: list[Event]) -> list[int]:
    """The length of each call without the calls inside of it."""
    own = [event.length for event in events]
    for event, parent in zip(events, parents(events)):
        if parent >= 0:
            own[parent] -= event.length
    return own


def shapes_of(values: Iterable[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(getattr(value, "shape", ())) for value in values)
