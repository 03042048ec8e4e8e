"""Data-parallel training steps: what a second worker costs, and how much of the communication backward hides.

    python benchmarks/ddp.py [--ranks N] [--json FILE] [--quick]

Every rank has one thread and a batch of its own of constant size. One rank alone and N ranks stand ready, for
ringgrad and, where it is installed, for PyTorch DDP with gloo. They are timed in turn, so that all meet the same
machine; who is not asked sleeps on a socket. A time is the slowest rank's mean over some steps, and then the median
of the rounds; a ratio is the median of the rounds' ratios.

    alone        one rank on its own, without DistributedDataParallel
    no comm      N ranks that do not communicate (no_sync): the bound that cores and memory set
    step         N ranks that do
    comm         reducing all gradients once, with nothing to hide it
    efficiency   alone / step        bound   alone / no comm
    hidden       share of `comm` that does not show up in `step`
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import machine

MODELS = ("mlp", "lenet", "cnn_bn", "char_gpt")
KINDS = ("alone", "no_comm", "step", "comm")
PIECE = 0.15  # s that one timing takes


# Workers.


def work(side: str, folder: str) -> None:
    """One rank: answers [case, kind, steps] with the mean seconds of a step."""
    if side == "torch":
        import torch

        torch.set_num_threads(1)
        backend = "gloo"
    else:
        import ringgrad as torch  # type: ignore[no-redef]

        backend = None
    torch.distributed.init_process_group(backend)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(f"{folder}/driver")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    line.send(json.dumps([side, world, rank]).encode())
    cases: dict[str, dict[str, Callable[[], None]]] = {}
    while question := line.recv(4096):
        case, kind, steps = json.loads(question)
        if case not in cases:
            cases[case] = calls(torch, case, world)
        line.send(json.dumps(timed(torch, cases[case][kind], steps, world)).encode())
    os._exit(0)  # no goodbyes: all end here at once


def calls(torch: Any, case: str, world: int) -> dict[str, Callable[[], None]]:
    import train_step

    torch.manual_seed(0)
    model, x, y, optimizer = train_step.parts(torch, case)
    ddp = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
    F = torch.nn.functional

    def step() -> None:
        optimizer.zero_grad()
        logits = ddp(x)
        F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1)).backward()
        optimizer.step()

    def without_communication() -> None:
        with ddp.no_sync():
            step()

    flat = torch.zeros(sum(p.numel() for p in model.parameters()))
    alone = {"alone": step}
    several = {"step": step, "no_comm": without_communication}
    return several | {"comm": lambda: torch.distributed.all_reduce(flat)} if world > 1 else alone


def timed(torch: Any, call: Callable[[], None], steps: int, world: int) -> float:
    call()
    if world > 1:
        torch.distributed.barrier()
    start = time.perf_counter()
    for _ in range(steps):
        call()
    return (time.perf_counter() - start) / steps


# Driver.


class Job:
    """The ranks of one side, each at the other end of a socket."""

    def __init__(self, side: str, folder: str, world: int) -> None:
        self.side, self.world = side, world
        self.lines: dict[int, socket.socket] = {}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        common = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **threads}
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--work", side, folder],
                env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(world)
        ]

    def ask(self, case: str, kind: str, steps: int) -> float:
        """Seconds of a step: the slowest rank's mean."""
        for line in self.lines.values():
            line.send(json.dumps([case, kind, steps]).encode())
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


def start_jobs(sides: list[str], ranks: int, folder: str) -> dict[tuple[str, int], Job]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{folder}/driver")
    listener.listen(4 * ranks)
    listener.settimeout(60)
    jobs = {(side, world): Job(side, folder, world) for side in sides for world in (1, ranks)}
    for _ in range((1 + ranks) * len(sides)):
        line, _ = listener.accept()
        side, world, rank = json.loads(line.recv(4096))
        jobs[side, world].lines[rank] = line
    listener.close()
    return jobs


def run(cases: list[str], ranks: int, rounds: int) -> dict[str, dict[str, float]]:
    sides = ["ringgrad"] + (["torch"] if importlib.util.find_spec("torch") else [])
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = start_jobs(sides, ranks, folder)
        try:
            for case in cases:
                times = timings(jobs, sides, case, ranks, rounds)
                results |= {f"{case} {side}": row(times[side]) for side in sides}
                if "torch" in sides:
                    both = zip(times["torch"]["step"], times["ringgrad"]["step"])
                    results[f"{case} ringgrad"]["torch_over_ringgrad"] = statistics.median(
                        t / r for t, r in both
                    )
        finally:
            for job in jobs.values():
                job.close()
    return results


def timings(
    jobs: dict[tuple[str, int], Job], sides: list[str], case: str, ranks: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    times: dict[str, dict[str, list[float]]] = {side: {kind: [] for kind in KINDS} for side in sides}

    def ask(side: str, kind: str, steps: int) -> float:
        return jobs[side, 1 if kind == "alone" else ranks].ask(case, kind, steps)

    steps = {s: {kind: max(1, int(PIECE / ask(s, kind, 1))) for kind in KINDS} for s in sides}
    for _ in range(rounds):
        for side in sides:
            for kind in KINDS:
                times[side][kind].append(ask(side, kind, steps[side][kind]))
    return times


def row(times: dict[str, list[float]]) -> dict[str, float]:
    rounds = [dict(zip(times, values)) for values in zip(*times.values())]

    def middle(value: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(map(value, rounds))

    return {
        **{f"{kind}_ms": statistics.median(t) * 1e3 for kind, t in times.items()},
        "efficiency": middle(lambda t: t["alone"] / t["step"]),
        "bound": middle(lambda t: t["alone"] / t["no_comm"]),
        "of_bound": middle(lambda t: t["no_comm"] / t["step"]),
        "hidden": min(1.0, max(0.0, middle(lambda t: 1 - (t["step"] - t["no_comm"]) / t["comm"]))),
    }


def show(results: dict[str, dict[str, Any]], ranks: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"data-parallel step, {ranks} ranks with one thread each")
    columns = [f"{kind}_ms" for kind in KINDS] + [
        "efficiency",
        "bound",
        "of_bound",
        "hidden",
        "torch_over_ringgrad",
    ]
    table.add_column("case")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for case, found in results.items():
        table.add_row(case, *[f"{found[c]:.2f}" if c in found else "" for c in columns])
    Console(width=130).print(table)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        return work(sys.argv[2], sys.argv[3])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=list(MODELS), help="models to run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    results = run(["mlp"] if args.quick else args.only, args.ranks, 2 if args.quick else args.rounds)
    show(results, args.ranks)
    if args.json:
        about = {"title": "data-parallel step", "ranks": args.ranks, "machine": machine()}
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
