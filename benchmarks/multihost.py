"""All-reduce of float32 between two hosts on a wire of known rate, over each transport, beside gloo and MPI's own.

    python benchmarks/multihost.py [--rate 1gbit] [--ranks 1] [--quick] [--json FILE]

The hosts are network namespaces joined by a veth that a token bucket (tc tbf) slows down: it needs root. All jobs
stand ready at once and are timed in turn; who is not asked sleeps on a socket. A time is the median call of the
slowest rank, and then the median of the rounds. Between two hosts an all-reduce must carry each byte once each way
(2 (H-1)/H with H = 2), so the share of the line is bytes / time / rate; Ethernet's, IP's and TCP's own bytes leave
at most 95.6 % of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from allreduce import measure
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
MPIRUN = Path(sys.executable).parent / "mpirun"


# Workers.


def work(job: str, folder: str) -> None:
    """Answer questions [kind, bytes, calls] with the median time of a call in seconds."""
    if job == "gloo":
        import torch
        import torch.distributed as peers

        torch.set_num_threads(1)
        peers.init_process_group("gloo", init_method="env://")
        rank, world = peers.get_rank(), peers.get_world_size()
        buffer = lambda kind, count: np.empty(count, np.float32)

        def setup(kind: str, array: np.ndarray) -> Callable[[], object]:
            tensor = torch.from_numpy(array)
            return lambda: peers.all_reduce(tensor)

    else:
        import ringgrad.distributed as dist
        from ringgrad.distributed.process_group import world_group

        dist.init_process_group()
        group = world_group()
        rank, world = group.rank, group.size

        def setup(kind: str, array: np.ndarray) -> Callable[[], object]:
            if kind != "library":
                return lambda: group.all_reduce(array)
            from mpi4py import MPI

            return lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array)

        buffer = lambda kind, count: group.empty(count)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(f"{folder}/driver")
    line.send(json.dumps([job, rank]).encode())
    while question := line.recv(4096):
        kind, size, calls = json.loads(question)
        line.send(json.dumps(measure(buffer, setup, kind, size // 4, calls, world)).encode())
    os._exit(0)  # no goodbyes: the jobs end at different times


# Driver.


class Job:
    """The ranks of one kind of job on both hosts, each at the other end of a socket."""

    def __init__(self, name: str, net: Network, ranks: int, port: int) -> None:
        self.lines: dict[int, socket.socket] = {}
        own = [sys.executable, __file__, "--work", name, str(net.folder)]
        environ = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if name == "mpi":
            environ |= net.mpi_environment
            self.processes = [subprocess.Popen(net.mpirun(MPIRUN, ranks, *own), env=environ)]
            return
        environ |= {"MASTER_ADDR": net.addresses[0], "MASTER_PORT": str(port)}
        environ |= {"WORLD_SIZE": str(HOSTS * ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        environ |= {"RINGGRAD_TOKEN": f"benchmark of {name}, no secret"}
        environ |= {"RINGGRAD_TCP_SEAL": "crc" if name == "crc" else "mac"}
        environ |= {"GLOO_SOCKET_IFNAME": net.wire}
        self.processes = []
        for rank in range(HOSTS * ranks):
            host = rank // ranks
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank % ranks), "GROUP_RANK": str(host)}
            self.processes.append(subprocess.Popen(net.on(host, *own), env=environ | place))

    def ask(self, kind: str, size: int, calls: int) -> float:
        """Seconds of a call: the slowest rank's median."""
        for line in self.lines.values():
            line.send(json.dumps([kind, size, calls]).encode())
        return max(json.loads(line.recv(4096)) for line in self.lines.values())

    def close(self) -> None:
        for line in self.lines.values():
            line.close()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def available() -> dict[str, str]:
    """Column -> job, for what is installed."""
    columns = {"tcp": "tcp", "crc": "crc"}
    if importlib.util.find_spec("mpi4py") and MPIRUN.exists():
        columns |= {"mpi": "mpi", "library": "mpi"}
    if importlib.util.find_spec("torch"):
        columns["gloo"] = "gloo"
    return columns


def start_jobs(names: list[str], net: Network, ranks: int) -> dict[str, Job]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{net.folder}/driver")
    listener.listen(64)
    listener.settimeout(60)
    jobs = {name: Job(name, net, ranks, 29600 + i) for i, name in enumerate(names)}
    for _ in range(HOSTS * ranks * len(names)):
        line, _ = listener.accept()
        name, rank = json.loads(line.recv(4096))
        jobs[name].lines[rank] = line
    listener.close()
    return jobs


def run(rate: str, ranks: int, sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    columns, rows = available(), []
    with tempfile.TemporaryDirectory() as folder:
        net, jobs = Network(Path(folder), rate), {}
        try:
            net.up()
            jobs = start_jobs(list(dict.fromkeys(columns.values())), net, ranks)
            for size in sizes:
                calls = max(2, min(200, (8 << 20) // size))
                seconds: dict[str, list[float]] = {column: [] for column in columns}
                for _ in range(rounds):
                    for column, job in columns.items():
                        seconds[column].append(jobs[job].ask(column, size, calls))
                rows.append(row(size, rate, {c: statistics.median(s) for c, s in seconds.items()}))
        finally:
            for job in jobs.values():
                job.close()
            net.down()
    return rows


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


def show(rows: list[dict[str, Any]], rate: str, ranks: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"all-reduce float32, 2 hosts x {ranks} on {rate}: time of a call, and share of the line"
    )
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
        work(sys.argv[2], sys.argv[3])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", default="1gbit", help="what the wire carries each way (default 1gbit)")
    parser.add_argument("--ranks", type=int, default=1, help="processes a host (default 1)")
    parser.add_argument("--quick", action="store_true", help="three sizes, two rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if reason := Network.missing():
        parser.error(reason)
    bytes_per_second(options.rate)
    if options.ranks < 1:
        parser.error(f"--ranks must be at least 1, got {options.ranks}")
    rows = run(options.rate, options.ranks, QUICK if options.quick else SIZES, 2 if options.quick else 5)
    show(rows, options.rate, options.ranks)
    if options.json:
        from measure import machine

        about = {"what": "all-reduce between hosts", "rate": options.rate, "ranks_per_host": options.ranks}
        Path(options.json).write_text(
            json.dumps({**about, "machine": machine(), "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
