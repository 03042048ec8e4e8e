"""Measuring against a peer: two processes that stay up and are timed in turn, so that both meet the same machine.

A benchmark script calls `main(...)`. Started by a person it starts one process a side (itself, with --side) and
asks them for one timing after the other; with --side it answers such questions on its standard input.

Where a side is a job of several ranks, the script starts all jobs with `jobs(...)`, and each rank calls `answer(...)`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Command = tuple[list[str], dict[str, str]]  # what to start, and what its environment has besides ours
BUDGET = 20.0  # seconds that the rounds of a case may take; three rounds at least
Build = Callable[[Any, str], tuple[Callable[[], Any], Callable[[], float | None]]]


def machine() -> dict[str, Any]:
    """What a result was measured on."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": str(date.today()),
    }


def serve(side: str, build: Build) -> None:
    """Answers `case` lines with {seconds, value}: the time of one call, and a number that both sides must agree on."""
    if side == "torch":
        import torch as module

        module.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    else:
        import ringgrad as module  # type: ignore[no-redef]
    ready: dict[str, Any] = {}
    for line in sys.stdin:
        case = line.strip()
        if case not in ready:
            call, value = build(module, case)
            first = value()
            call()
            ready[case] = [call, first, repetitions(call)]
        call, first, n = ready[case]
        for _ in range(n // 4):  # the other turns have left caches cold
            call()
        start = time.perf_counter()
        for _ in range(n):
            call()
        print(json.dumps({"seconds": (time.perf_counter() - start) / n, "value": first}), flush=True)


def repetitions(call: Callable[[], Any], seconds: float = 0.05) -> int:
    """How many calls take about as long as a timing should."""
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    return max(1, min(20000, int(seconds / max(once, 1e-7))))


class Side:
    """One of the two processes."""

    def __init__(self, name: str, script: str, threads: int) -> None:
        self.name = name
        env = {
            **os.environ,
            **dict.fromkeys(THREADS, str(threads)),
        }
        command = [sys.executable, script, "--side", name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def time(self, case: str) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"[benchmark] the {self.name} side must answer, came none for case {case!r}: see above"
            )
        return json.loads(line)

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


class Job:
    """The ranks of one side, each at the other end of a socket."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.lines: list[socket.socket] = []
        threads = dict.fromkeys(THREADS, "1")
        self.processes = [
            subprocess.Popen(command, env=os.environ | threads | more) for command, more in commands
        ]

    def ask(self, *question: Any) -> float:
        """The largest of the ranks' answers: for seconds, those of the slowest."""
        for line in self.lines:
            line.send(json.dumps(question).encode())
        return max(json.loads(line.recv(4096)) for line in self.lines)

    def close(self) -> None:
        for line in self.lines:
            line.close()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def jobs(folder: str, commands: dict[str, list[Command]], ranks: dict[str, int]) -> Iterator[dict[str, Job]]:
    """Jobs by name that all stand ready, so that they can be timed in turn; who is not asked sleeps on its socket.

    ranks: how many will call `answer(folder, name, ...)` for each name (one command may start several).
    """
    running: dict[str, Job] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{folder}/driver")
        listener.listen(64)
        listener.settimeout(60)
        try:
            for name, own in commands.items():
                running[name] = Job(own)
            for _ in range(sum(ranks.values())):
                line, _ = listener.accept()
                running[line.recv(4096).decode()].lines.append(line)
            yield running
        finally:
            for job in running.values():
                job.close()


def answer(folder: str, name: str, reply: Callable[..., float]) -> None:
    """One rank of job `name`: reply(*question) to all questions of the driver, then end this process."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(f"{folder}/driver")
    line.send(name.encode())
    while question := line.recv(4096):
        line.send(json.dumps(reply(*json.loads(question))).encode())
    os._exit(0)  # no goodbyes: jobs end at different times


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def compare(script: str, cases: list[str], rounds: int, threads: int, tolerance: float) -> dict[str, Any]:
    """Medians of each case and side over rounds in which the sides take turns."""
    names = ["ringgrad"] + (["torch"] if importlib.util.find_spec("torch") else [])
    sides = [Side(name, script, threads) for name in names]
    results: dict[str, Any] = {}
    try:
        for case in cases:
            times: dict[str, list[float]] = {name: [] for name in names}
            values = {}
            start = time.perf_counter()
            for i in range(rounds):
                if i >= 3 and time.perf_counter() - start > BUDGET:
                    break
                for side in sides:
                    answer = side.time(case)
                    times[side.name].append(answer["seconds"])
                    values[side.name] = answer["value"]
            row: dict[str, Any] = {f"{name}_us": statistics.median(t) * 1e6 for name, t in times.items()}
            if "torch" in times:
                row["ratio"] = row["torch_us"] / row["ringgrad_us"]
                ours, theirs = values["ringgrad"], values["torch"]
                if ours is not None and abs(ours - theirs) > tolerance * max(1.0, abs(theirs)):
                    raise RuntimeError(
                        f"[benchmark] both sides of {case} must compute the same, came {ours} and {theirs}"
                    )
            results[case] = row
    finally:
        for side in sides:
            side.stop()
    return results


def main(
    script: str,
    title: str,
    cases: list[str],
    build: Build,
    *,
    quick: list[str] | None = None,
    tolerance: float = 1e-4,
    rounds: int = 15,
) -> None:
    """The command line of a benchmark: a table of times with ratios, and `--json FILE`."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=rounds, help="timings of each case and side")
    parser.add_argument("--threads", type=int, default=1, help="threads each side may use")
    parser.add_argument("--quick", action="store_true", help="few cases and rounds: does it run at all?")
    parser.add_argument("--only", nargs="*", help="cases to run")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return serve(args.side, build)
    if args.only:
        cases = args.only
    elif args.quick:
        cases = quick or cases[:3]
    results = compare(script, cases, 2 if args.quick else args.rounds, args.threads, tolerance)
    show(title, results, args.threads)
    ratios = [row["ratio"] for row in results.values() if "ratio" in row]
    summary = {"geometric_mean_ratio": statistics.geometric_mean(ratios)} if ratios else {}
    if ratios:
        print(
            f"geometric mean of torch / ringgrad: {summary['geometric_mean_ratio']:.2f} (over 1: ringgrad is faster)"
        )
    if args.json:
        about = {"title": title, "threads": args.threads, "machine": machine(), **summary}
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


def show(title: str, results: dict[str, Any], threads: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{title}, {threads} thread(s) a side")
    for column in ("case", "ringgrad us", "torch us", "torch / ringgrad"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for case, row in results.items():
        torch_us, ratio = row.get("torch_us"), row.get("ratio")
        cells = (f"{torch_us:,.1f}", f"{ratio:.2f}") if torch_us else ("-", "-")
        table.add_row(case, f"{row['ringgrad_us']:,.1f}", *cells)
    Console(width=100).print(table)
