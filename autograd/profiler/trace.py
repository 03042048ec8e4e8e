"""Chrome traces (chrome://tracing, Perfetto): of one rank, and of all ranks on one clock.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Trace Event Format).
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Iterable
from typing import Any

from ...launch.environment import detect
from .events import Event
from .memory import CATEGORIES, Tracker

CATEGORY = {"op": "cpu_op", "backward": "cpu_op", "user": "user_annotation", "communication": "communication"}
COMMUNICATION = 1 << 40  # thread numbers from here on are lanes of collectives


def trace(events: list[Event], memory: Tracker | None, metadata: dict[str, str]) -> dict[str, Any]:
    """The trace of this process."""
    place, pid = detect(), os.getpid()
    lines = [_meta("process_name", pid, 0, f"rank {place.rank} (pid {pid})"), _sort(pid, place.rank)]
    rows = list(zip(events, _rows(events)))
    for tid in sorted({tid for _, tid in rows}):
        name = "communication" if tid >= COMMUNICATION else f"thread {tid}"
        lines.append(_meta("thread_name", pid, tid, name))
    place_of = {id(event): tid for event, tid in rows}
    for event, tid in rows:
        lines.append(_line(event, pid, tid))
        if event.origin is not None and id(event.origin) in place_of:
            lines += _arrow(event, tid, event.origin, place_of[id(event.origin)], pid)
    if memory is not None:
        lines += _counters(memory, pid)
    return {
        "schemaVersion": 1,
        "displayTimeUnit": "ms",
        "distributedInfo": {"rank": place.rank, "world_size": place.world_size},
        "baseTimeNanoseconds": time.time_ns() - time.perf_counter_ns(),
        **metadata,
        "traceEvents": lines,
    }


def _meta(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "ts": 0, "args": {"name": name}}


def _sort(pid: int, rank: int) -> dict[str, Any]:
    return {
        "ph": "M",
        "name": "process_sort_index",
        "pid": pid,
        "tid": 0,
        "ts": 0,
        "args": {"sort_index": rank},
    }


def _rows(events: list[Event]) -> list[int]:
    """The row of each event: its thread's, and for collectives the first lane that is free."""
    lanes: list[int] = []
    rows = [event.thread for event in events]
    calls = [i for i, event in enumerate(events) if event.kind == "communication"]
    for i in sorted(calls, key=lambda i: events[i].start):
        free = next((k for k, end in enumerate(lanes) if end <= events[i].start), len(lanes))
        lanes[free : free + 1] = [events[i].end]
        rows[i] = COMMUNICATION + free
    return rows


def _line(event: Event, pid: int, tid: int) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if event.shapes:
        args["Input Dims"] = event.input_shapes
    for key, value in (("flops", event.flops), ("bytes moved", event.moved), ("bytes made", event.memory)):
        if value:
            args[key] = value
    if event.detail:
        args["detail"] = event.detail
    if event.stack:
        args["stack"] = list(event.stack)
    return {
        "ph": "X",
        "cat": CATEGORY[event.kind],
        "name": event.name,
        "pid": pid,
        "tid": tid,
        "ts": event.start / 1e3,
        "dur": event.length / 1e3,
        "args": args,
    }


def _arrow(event: Event, tid: int, origin: Event, origin_tid: int, pid: int) -> list[dict[str, Any]]:
    """From a forward call to its backward."""
    shared = {"cat": "fwdbwd", "name": "fwdbwd", "id": event.start, "pid": pid}
    return [
        {"ph": "s", "tid": origin_tid, "ts": origin.start / 1e3, **shared},
        {"ph": "f", "bp": "e", "tid": tid, "ts": event.start / 1e3, **shared},
    ]


def _counters(memory: Tracker, pid: int) -> list[dict[str, Any]]:
    return [
        {"ph": "C", "name": "memory", "pid": pid, "tid": 0, "ts": t / 1e3, "args": dict(zip(CATEGORIES, row))}
        for t, row in zip(*memory.timeline())
    ]


def write(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """As JSON, packed where the path ends in .gz."""
    path = os.fspath(path)
    with gzip.open(path, "wt") if path.endswith(".gz") else open(path, "w") as file:
        json.dump(content, file)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A trace that `write` wrote. Raises ValueError for other files."""
    path = os.fspath(path)
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        content = json.load(file)
    if (
        not isinstance(content, dict)
        or not {"traceEvents", "baseTimeNanoseconds", "distributedInfo"} <= content.keys()
    ):
        raise ValueError(f"[merge_traces] {path} must be a trace that ringgrad's profiler wrote")
    return content


def merge_traces(paths: Iterable[str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Traces of several ranks as one, each rank a process, on the clock of the day that their hosts have.

    Raises ValueError where there is none, or two are of one rank.
    """
    traces = {}
    for path in paths:
        content = read(path)
        rank = content["distributedInfo"]["rank"]
        if rank in traces:
            raise ValueError(f"[merge_traces] one trace a rank is needed, rank {rank} came twice: {path}")
        traces[rank] = content
    if not traces:
        raise ValueError("[merge_traces] at least one trace is needed, none came")
    first = min(content["baseTimeNanoseconds"] for content in traces.values())
    lines = []
    for rank, content in sorted(traces.items()):
        shift = (content["baseTimeNanoseconds"] - first) / 1e3
        for line in content["traceEvents"]:
            moved = (
                {**line, "pid": rank}
                if line["ph"] == "M"
                else {**line, "pid": rank, "ts": line["ts"] + shift}
            )
            if line["ph"] in "sf":
                moved["id"] = f"{rank}:{line['id']}"
            lines.append(moved)
    write(
        output,
        {"schemaVersion": 1, "displayTimeUnit": "ms", "baseTimeNanoseconds": first, "traceEvents": lines},
    )
