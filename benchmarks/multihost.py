"""Two hosts on a wire of known rate: all-reduce of float32, and a data-parallel step with and without overlap.

    python benchmarks/multihost.py [--rate 1gbit] [--ranks 1] [--only allreduce training] [--quick] [--json FILE]

The hosts are network namespaces joined by a veth that a token bucket (tc tbf) slows down: it needs root. Each has an
equal share of this machine's cores. All jobs stand ready at once and are timed in turn; who is not asked sleeps on a
socket.

All-reduce over each transport, beside gloo and MPI's own: a time is the median call of the slowest rank, and then the
median of the rounds. Between two hosts an all-reduce must carry each byte once each way (2 (H-1)/H with H = 2), so
the share of the line is bytes / time / rate; Ethernet's, IP's and TCP's own bytes leave
at most 95.6 % of it. Up to some 100 KiB the bucket's own burst of 256 KiB carries more than the rate.

Training: the columns are those of benchmarks/ddp.py. `hidden` is the share of `comm`, the time to reduce all
gradients with nothing beside it, that `step` does not pay; `late hidden` the same without overlap, all reduced when
backward has ended. `most` is the largest share that this step could hide: backward is about two thirds of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ddp
import numpy as np
from allreduce import measure
from measure import Command, Job, answer, jobs, machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from two_hosts import HOSTS, Network

sys.path.pop(0)

COLUMNS = {
    "tcp": "ringgrad tcp (mac)",
    "crc": "ringgrad tcp (crc)",
    "mpi": "ringgrad mpi",
    "library": "MPI library",
    "gloo": "gloo (torch)",
}
SIZES = [4, 4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20]
QUICK = [4, 1 << 20, 16 << 20]
MODELS = ("char_gpt",)
KINDS = ("no_comm", "step", "late", "comm")
PIECE = 0.3  # s that one timing of steps takes
MPIRUN = Path(sys.executable).parent / "mpirun"


# Workers.


def work(name: str, folder: str) -> None:
    """Answer ("call", kind, bytes, calls) with the median seconds of a call, ("step", ...) as ddp.Answers does."""
    share_cores()
    torch = ddp.library("torch" if name == "gloo" else "ringgrad")
    torch.distributed.init_process_group("gloo" if name == "gloo" else None)
    step, call = ddp.Answers(torch), caller(torch)
    replies: dict[str, Callable[..., float]] = {"step": step, "call": call}
    answer(folder, name, lambda what, *question: replies[what](*question))


def share_cores() -> None:
    """Keep to this host's part of the cores."""
    cores, host = sorted(os.sched_getaffinity(0)), int(os.uname().nodename[-1])  # as Network names them
    share = len(cores) // HOSTS
    if share:
        os.sched_setaffinity(0, cores[host * share :][:share])


def caller(torch: Any) -> Callable[[str, int, int], float]:
    world = torch.distributed.get_world_size()
    if torch.__name__ == "torch":
        buffer = lambda kind, count: np.empty(count, np.float32)
        setup = lambda kind, array: reducing(torch, torch.from_numpy(array))
    else:
        from ringgrad.distributed.process_group import world_group

        group = world_group()
        buffer = lambda kind, count: group.empty(count)
        setup = lambda kind, array: (
            library_call(array) if kind == "library" else lambda: group.all_reduce(array)
        )
    return lambda kind, size, calls: measure(buffer, setup, kind, size // 4, calls, world)


def reducing(torch: Any, tensor: Any) -> Callable[[], object]:
    return lambda: torch.distributed.all_reduce(tensor)


def library_call(array: np.ndarray) -> Callable[[], object]:
    from mpi4py import MPI

    return lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array)


# Driver.


def commands(name: str, net: Network, ranks: int, port: int) -> list[Command]:
    own = [sys.executable, __file__, "--work", name, str(net.folder)]
    if name == "mpi":
        return [(net.mpirun(MPIRUN, ranks, *own), net.mpi_environment)]
    common = {"MASTER_ADDR": net.addresses[0], "MASTER_PORT": str(port)}
    common |= {"WORLD_SIZE": str(HOSTS * ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    common |= {"RINGGRAD_TOKEN": f"benchmark of {name}, no secret", "GLOO_SOCKET_IFNAME": net.wire}
    common |= {"RINGGRAD_TCP_SEAL": "crc" if name == "crc" else "mac"}
    places = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank % ranks), "GROUP_RANK": str(rank // ranks)}
        for rank in range(HOSTS * ranks)
    ]
    return [(net.on(rank // ranks, *own), common | place) for rank, place in enumerate(places)]


def available() -> dict[str, str]:
    """Column -> job, for what is installed."""
    columns = {"tcp": "tcp", "crc": "crc"}
    if importlib.util.find_spec("mpi4py") and MPIRUN.exists():
        columns |= {"mpi": "mpi", "library": "mpi"}
    if importlib.util.find_spec("torch"):
        columns["gloo"] = "gloo"
    return columns


def run(
    rate: str, ranks: int, only: list[str], quick: bool
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Rows of the all-reduce, and of training by model and transport."""
    columns = available()
    names = list(dict.fromkeys(columns.values()))
    with tempfile.TemporaryDirectory() as folder:
        net = Network(Path(folder), rate)
        try:
            net.up()
            started = {name: commands(name, net, ranks, 29600 + i) for i, name in enumerate(names)}
            with jobs(folder, started, dict.fromkeys(names, HOSTS * ranks)) as running:
                rows = all_reduce(running, columns, rate, quick) if "allreduce" in only else []
                return rows, training(running, quick) if "training" in only else {}
        finally:
            net.down()


def all_reduce(
    running: dict[str, Job], columns: dict[str, str], rate: str, quick: bool
) -> list[dict[str, Any]]:
    rows = []
    for size in QUICK if quick else SIZES:
        calls = max(2, min(200, (8 << 20) // size))
        seconds: dict[str, list[float]] = {column: [] for column in columns}
        for _ in range(2 if quick else 3):
            for column, job in columns.items():
                seconds[column].append(running[job].ask("call", column, size, calls))
        rows.append(row(size, rate, {c: statistics.median(s) for c, s in seconds.items()}))
    return rows


def training(running: dict[str, Job], quick: bool) -> dict[str, dict[str, float]]:
    def asker(job: Job) -> Callable[[str, str, int], float]:
        return lambda case, kind, steps: job.ask("step", case, kind, steps)

    results: dict[str, dict[str, float]] = {}
    for case in MODELS:
        asks = {name: asker(job) for name, job in running.items()}
        times = ddp.timings(asks, case, KINDS, 2 if quick else 5, PIECE)
        results |= {f"{case} {COLUMNS[name]}": hidden_row(found) for name, found in times.items()}
    return results


def hidden_row(times: dict[str, list[float]]) -> dict[str, float]:
    found = ddp.row(times)
    paid = (
        (late - silent) / comm for late, silent, comm in zip(times["late"], times["no_comm"], times["comm"])
    )
    found["late_hidden"] = min(1.0, max(0.0, 1 - statistics.median(paid)))
    found["most"] = min(1.0, 2 / 3 * found["no_comm_ms"] / found["comm_ms"])
    return found


def bytes_per_second(rate: str) -> float:
    found = re.fullmatch(r"(\d+)(k|m|g)bit", rate)
    if found is None:
        raise SystemExit(f"--rate must be a number with kbit, mbit or gbit, got {rate!r}")
    return int(found[1]) * {"k": 1e3, "m": 1e6, "g": 1e9}[found[2]] / 8


def row(size: int, rate: str, seconds: dict[str, float]) -> dict[str, Any]:
    line = bytes_per_second(rate)
    return {
        "bytes": size,
        "us": {c: round(s * 1e6, 1) for c, s in seconds.items()},
        "share_of_line": {c: round(size / s / line, 3) for c, s in seconds.items()},
    }


def show(rows: list[dict[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("size", justify="right")
    for name in rows[0]["us"]:
        table.add_column(COLUMNS[name], justify="right")
    for r in rows:
        size, unit = next(
            (r["bytes"] >> s, u) for s, u in ((20, "MiB"), (10, "KiB"), (0, "B")) if r["bytes"] >> s
        )
        cells = [f"{us:,.0f} us\n{r['share_of_line'][n]:.1%}" for n, us in r["us"].items()]
        table.add_row(f"{size} {unit}", *cells)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        return work(sys.argv[2], sys.argv[3])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", default="1gbit", help="what the wire carries each way (default 1gbit)")
    parser.add_argument("--ranks", type=int, default=1, help="processes a host (default 1)")
    parser.add_argument(
        "--only", nargs="*", choices=("allreduce", "training"), default=["allreduce", "training"]
    )
    parser.add_argument("--quick", action="store_true", help="three sizes, two rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if reason := Network.missing():
        parser.error(reason)
    bytes_per_second(options.rate)
    if options.ranks < 1:
        parser.error(f"--ranks must be at least 1, got {options.ranks}")
    rows, steps = run(options.rate, options.ranks, options.only, options.quick)
    where = f"2 hosts x {options.ranks} on {options.rate}"
    if rows:
        show(rows, f"all-reduce float32, {where}: time of a call, and share of the line")
    if steps:
        cores = max(len(os.sched_getaffinity(0)) // HOSTS, 1)
        ddp.show(steps, f"data-parallel step, {where}, {cores} core(s) a host, one thread a rank")
    if options.json:
        about = {"what": "two hosts on a wire", "rate": options.rate, "ranks_per_host": options.ranks}
        result = {**about, "machine": machine(), "rows": rows, "training": steps}
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
