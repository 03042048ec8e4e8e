"""All-reduce of float32 over each transport, beside the MPI library's own Allreduce and gloo.

    python benchmarks/allreduce.py [--ranks 2] [--quick] [--json FILE]

All jobs stand ready at once and are timed in turn, so that all meet the same machine; who is not asked sleeps on a
socket. A time is the median call of the slowest rank, and then the median of the rounds. Bus bandwidth is
2 (N-1)/N x bytes / time: what a ring must move through each rank, which makes world sizes comparable.

The bound is that traffic at copy bandwidth: all ranks at once copy 2 (N-1)/N x bytes within their own memory. Who adds
up without a copy between can pass it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import Command, answer, jobs, machine

COLUMNS = {
    "shm": "ringgrad shm",
    "shm copy": "ringgrad shm, any array",
    "mpi": "ringgrad mpi",
    "library": "MPI library",
    "gloo": "gloo (torch)",
    "bound": "copy bound",
}
SIZES = [4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 128 << 20]
QUICK = [4 << 10, 1 << 20, 16 << 20]


# Workers.

Setup = Callable[[str, np.ndarray], Callable[[], object]]


def _ringgrad(transport: Any) -> tuple[Callable[[str, int], np.ndarray], Setup]:
    from ringgrad.distributed.group import Group

    group = Group(transport)

    def buffer(kind: str, count: int) -> np.ndarray:
        return group.empty(count) if kind == "shm" else np.empty(count, np.float32)

    def setup(kind: str, array: np.ndarray) -> Callable[[], object]:
        if kind == "bound":
            moved = 2 * (group.size - 1) * array.size // group.size
            source, target = np.ones(moved, np.float32), np.ones(moved, np.float32)
            return lambda: np.copyto(target, source)
        if kind != "library":
            return lambda: group.all_reduce(array)
        from mpi4py import MPI

        return lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array)

    return buffer, setup


def _gloo(folder: str, rank: int, world: int) -> tuple[Callable[[str, int], np.ndarray], Setup]:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=rank, world_size=world)

    def setup(kind: str, array: np.ndarray) -> Callable[[], object]:
        tensor = torch.from_numpy(array)
        return lambda: dist.all_reduce(tensor)

    return lambda kind, count: np.empty(count, np.float32), setup


def work(job: str, folder: str, rank: int, world: int) -> None:
    """Answer questions [kind, bytes, calls] with the median time of a call in seconds."""
    if job == "gloo":
        buffer, setup = _gloo(folder, rank, world)
    elif job == "mpi":
        from ringgrad.distributed.transport.mpi import MpiTransport

        buffer, setup = _ringgrad(MpiTransport())
    else:
        from ringgrad.distributed.transport.shm import ShmTransport

        os.makedirs(f"{folder}/shm", mode=0o700, exist_ok=True)
        buffer, setup = _ringgrad(ShmTransport(f"{folder}/shm", rank, world))
    reply = lambda kind, size, calls: measure(buffer, setup, kind, size // 4, calls, world)
    answer(folder, job, reply)


def measure(buffer: Any, setup: Setup, kind: str, count: int, calls: int, world: int) -> float:
    array = buffer(kind, count)
    call = setup(kind, array)
    array[...] = 1
    call()
    assert kind == "bound" or (array == world).all(), f"{kind} summed {world} ones to {array}"
    array[...] = 0  # stays 0: no overflow, no denormals
    for _ in range(2):
        call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# Driver.


def commands(name: str, folder: str, world: int) -> list[Command]:
    own = [sys.executable, __file__, "--work", name, folder]
    if name == "mpi":
        mpirun = str(Path(sys.executable).parent / "mpirun")
        return [([mpirun, "-n", str(world), *own, "0", str(world)], {})]
    return [([*own, str(rank), str(world)], {}) for rank in range(world)]


def available() -> dict[str, str]:
    """Column -> job, for what is installed."""
    columns = {"shm": "shm", "shm copy": "shm"}
    if importlib.util.find_spec("mpi4py") and (Path(sys.executable).parent / "mpirun").exists():
        columns |= {"mpi": "mpi", "library": "mpi"}
    if importlib.util.find_spec("torch"):
        columns["gloo"] = "gloo"
    return columns | {"bound": "shm"}


def run(world: int, sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    columns, rows = available(), []
    names = dict.fromkeys(columns.values())
    with tempfile.TemporaryDirectory() as folder:
        started = {name: commands(name, folder, world) for name in names}
        with jobs(folder, started, dict.fromkeys(names, world)) as running:
            for size in sizes:
                calls = max(3, min(500, (64 << 20) // size))
                seconds: dict[str, list[float]] = {column: [] for column in columns}
                for _ in range(rounds):
                    for column, job in columns.items():
                        seconds[column].append(running[job].ask(column, size, calls))
                rows.append(row(size, world, {c: statistics.median(s) for c, s in seconds.items()}))
    return rows


def row(size: int, world: int, seconds: dict[str, float]) -> dict[str, Any]:
    bus = 2 * (world - 1) / world * size
    return {
        "bytes": size,
        "us": {c: round(s * 1e6, 2) for c, s in seconds.items()},
        "bus_GB_per_s": {c: round(bus / s / 1e9, 3) for c, s in seconds.items()},
        "of_bound": {c: round(seconds["bound"] / seconds[c], 2) for c in seconds if c != "bound"},
        "shm_over": {c: round(seconds[c] / seconds["shm"], 2) for c in ("library", "gloo") if c in seconds},
    }


def show(rows: list[dict[str, Any]], world: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"all-reduce float32, {world} ranks: time of a call, and bus bandwidth")
    table.add_column("size", justify="right")
    names = list(rows[0]["us"])
    for name in names:
        table.add_column(COLUMNS[name], justify="right")
    table.add_column("shm: of bound", justify="right")
    for peer in rows[0]["shm_over"]:
        table.add_column(f"shm / {COLUMNS[peer]}", justify="right")
    for r in rows:
        size = f"{r['bytes'] >> 10} KiB" if r["bytes"] < 1 << 20 else f"{r['bytes'] >> 20} MiB"
        cells = [f"{r['us'][n]:,.0f} us\n{r['bus_GB_per_s'][n]:.2f} GB/s" for n in names]
        of_bound = f"{r['of_bound']['shm']:.0%}"
        table.add_row(size, *cells, of_bound, *[f"{ratio:.2f}x" for ratio in r["shm_over"].values()])
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2, help="processes on this machine (default 2)")
    parser.add_argument("--quick", action="store_true", help="three sizes, two rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if options.ranks < 2:
        parser.error(f"--ranks must be at least 2, got {options.ranks}")
    rows = run(options.ranks, QUICK if options.quick else SIZES, 2 if options.quick else 5)
    show(rows, options.ranks)
    if options.json:
        result = {"what": "all-reduce", "ranks": options.ranks, "machine": machine(), "rows": rows}
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
