"""`profile`: from its beginning to its end it keeps what was noted, and gives it out in many forms."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from . import flame, memory, recorder, trace
from .events import Event
from .table import Averages, averages


class profile:
    """Counts and times ops within `with profile() as p`: p.key_averages().table(), p.export_chrome_trace(path).

    Time inside an op is its own; ranges named by record_function are listed with their whole length and the part
    that no op took. record_shapes: also the shapes of inputs. profile_memory: also the bytes that results take, and
    when they are freed. with_flops: also operations, and the share of what the machine could do. with_stack: also
    where in the program (slow). Other options of PyTorch's, for devices, are accepted and change nothing.
    """

    def __init__(
        self,
        enabled: bool = True,
        *,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_flops: bool = False,
        with_stack: bool = False,
        **options: Any,
    ) -> None:
        self.enabled, self.with_flops, self.with_stack = enabled, with_flops, with_stack
        self.record_shapes, self.profile_memory = record_shapes, profile_memory
        self.sized = record_shapes or profile_memory or with_flops
        self._metadata: dict[str, str] = {}
        self._clear()

    def _clear(self) -> None:
        self._events: list[Event] = []
        self.memory = memory.Tracker() if self.profile_memory else None
        self.began = recorder.now()

    def _note_memory(self, arrays: Iterable[Any], category: str, time: int) -> int:
        return 0 if self.memory is None else self.memory.note(arrays, category, time)

    def __enter__(self) -> Any:
        if self.enabled:
            self.began = recorder.now()
            recorder.start(self)
        return self

    def __exit__(self, *_: Any) -> None:
        recorder.stop(self)

    def events(self) -> list[Event]:
        """All calls, in the order in which they ended."""
        return list(self._events)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> Averages:
        """The calls, summed by name; also by the shapes of their inputs or by their n innermost frames.

        Raises ValueError where that was not recorded.
        """
        for wanted, had, option in (
            (group_by_input_shape, self.sized, "record_shapes=True"),
            (group_by_stack_n, self.with_stack, "with_stack=True"),
        ):
            if wanted and not had:
                raise ValueError(f"[key_averages] grouping this way needs profile({option})")
        columns = (*(("memory",) if self.profile_memory else ()), *(("flops",) if self.with_flops else ()))
        return averages(self._events, group_by_input_shape, group_by_stack_n, columns)

    total_average = property(lambda self: self.key_averages().total_average)
    self_cpu_time_total = property(lambda self: self.key_averages()._total())

    def table(self, **options: Any) -> str:
        """key_averages().table(...)."""
        return self.key_averages().table(**options)

    __str__ = table

    def add_metadata(self, key: str, value: str) -> None:
        """A string that stands in the trace under `key`."""
        self._metadata[key] = value

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes the calls as JSON for chrome://tracing and Perfetto; packed where the path ends in .gz."""
        trace.write(path, trace.trace(self._events, self.memory, self._metadata))

    def export_stacks(self, path: str | os.PathLike[str], metric: str = "self_cpu_time_total") -> None:
        """Writes lines "frame;frame;op microseconds" for flame graph tools: Python's frames with with_stack=True, else
        the ranges named by record_function."""
        if metric.replace("cuda", "cpu") != "self_cpu_time_total":
            raise ValueError(f"[export_stacks] metric must be 'self_cpu_time_total', came {metric!r}")
        flame.write_stacks(os.fspath(path), self._events)

    def export_flame_graph(self, path: str | os.PathLike[str]) -> None:
        """Writes a flame graph as SVG; a browser shows times where the mouse is."""
        flame.write_picture(os.fspath(path), self._events)

    def export_memory_timeline(self, path: str | os.PathLike[str], device: str | None = None) -> None:
        """Writes how the memory of tensors grew and shrank, by what it is for: .html (a picture) or .json.

        Raises ValueError without profile_memory=True.
        """
        if self.memory is None:
            raise ValueError("[export_memory_timeline] needs profile(profile_memory=True)")
        memory.write_timeline(os.fspath(path), self.memory)
