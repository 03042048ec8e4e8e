"""Data-parallel training steps: what a second worker costs, and how much of the communication backward hides.

    python benchmarks/ddp.py [--ranks N] [--json FILE] [--quick]

Every rank has one thread and a batch of its own of constant size. One rank alone and N ranks stand ready, for
ringgrad and, where it is installed, for PyTorch DDP with gloo. They are timed in turn, so that all meet the same
machine; who is not asked sleeps on a socket. A time is the slowest rank's mean over some steps, and then the median
of the rounds; a ratio is the median of the rounds' ratios.

    alone        one rank on its own, without DistributedDataParallel
    no comm      N ranks that do not communicate (no_sync): the bound that cores and memory set
    step         N ranks that do
    late         the same in one bucket, which is reduced when backward has ended
    comm         reducing all gradients once, with nothing to hide it
    efficiency   alone / step        bound   alone / no comm        of bound   no comm / step
    hidden       share of `comm` that does not show up in `step`. Ranks on one host reduce with the very cores that
                 backward uses, so there is something to hide only where a rank has a core to spare; between hosts
                 the wire works by itself: benchmarks/multihost.py has the same columns over a wire

Then the memory of a model whose gradients are most of it: by how much a rank grows at most while it builds and trains
it (the proportional set sizes of all ranks together, so what they share counts once), alone and as one of N, and how
many copies of the gradients the difference is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import Command, Job, answer, free_port, jobs, machine

MODELS = ("mlp", "lenet", "cnn_bn", "char_gpt")
KINDS = ("alone", "no_comm", "step", "late", "comm")
PIECE = 0.15  # s that one timing takes
ONE_BUCKET = 1 << 20  # MiB
WIDTH, DEPTH = 2048, 6  # of the model whose memory is measured: 96 MiB of gradients
GRADIENT_BYTES = 4 * WIDTH * WIDTH * DEPTH


# Workers.


def work(side: str, name: str, folder: str) -> None:
    """One rank: answers (case, kind, steps) with the mean seconds of a step, and trains a large model for "memory"."""
    torch = library(side)
    torch.distributed.init_process_group("gloo" if side == "torch" else None)
    answer(folder, name, Answers(torch))


def library(side: str) -> Any:
    """The module that a side calls torch."""
    if side == "torch":
        import torch

        torch.set_num_threads(1)
        return torch
    import ringgrad

    return ringgrad


class Answers:
    """What one rank of an initialised job says to the driver's questions."""

    def __init__(self, torch: Any) -> None:
        self.torch, self.world = torch, torch.distributed.get_world_size()
        self.cases: dict[str, dict[str, Callable[[], None]]] = {}

    def __call__(self, case: str, kind: str, steps: int) -> float:
        if case == "memory":
            train_large(self.torch, self.world, steps)
            return 0.0
        if case not in self.cases:
            self.cases[case] = calls(self.torch, case, self.world)
        return timed(self.torch, self.cases[case][kind], steps, self.world)


def calls(torch: Any, case: str, world: int) -> dict[str, Callable[[], None]]:
    import models

    def training(**options: Any) -> tuple[Any, Callable[[], None]]:
        torch.manual_seed(0)
        model, x, y, optimizer = models.parts(torch, case)
        ddp = torch.nn.parallel.DistributedDataParallel(model, **options) if world > 1 else model

        def step() -> None:
            optimizer.zero_grad()
            logits = ddp(x)
            torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1)).backward()
            optimizer.step()

        return ddp, step

    ddp, step = training()
    if world == 1:
        return {"alone": step}

    def without_communication() -> None:
        with ddp.no_sync():
            step()

    flat = torch.zeros(sum(p.numel() for p in ddp.parameters()))
    comm = lambda: torch.distributed.all_reduce(flat)
    _, late = training(bucket_cap_mb=ONE_BUCKET)
    return {"step": step, "late": late, "no_comm": without_communication, "comm": comm}


def timed(torch: Any, call: Callable[[], None], steps: int, world: int) -> float:
    call()
    if world > 1:
        torch.distributed.barrier()
    start = time.perf_counter()
    for _ in range(steps):
        call()
    return (time.perf_counter() - start) / steps


def train_large(torch: Any, world: int, steps: int) -> None:
    """Build a model of which the gradients are most, and train it for some steps."""
    model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)])
    ddp = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=False)
        ddp(torch.ones(1, WIDTH)).sum().backward()
        optimizer.step()


# Driver.


def commands(side: str, name: str, world: int, folder: str) -> list[Command]:
    common = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    own = [sys.executable, __file__, "--work", side, name, folder]
    return [(own, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(world)]


def run(cases: list[str], ranks: int, rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Times by case and side, and growth in memory by side."""
    sides = ["ringgrad"] + (["torch"] if importlib.util.find_spec("torch") else [])
    worlds = {f"{side} {world}": (side, world) for side in sides for world in (1, ranks)}
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        started = {name: commands(side, name, world, folder) for name, (side, world) in worlds.items()}
        with jobs(folder, started, {name: world for name, (_, world) in worlds.items()}) as running:
            memory = {side: row_of_memory(running, side, ranks) for side in sides}
            for case in cases:
                ask = {side: asker(running, side, ranks) for side in sides}
                results |= rows(case, timings(ask, case, KINDS, rounds))
    return results, memory


def asker(running: dict[str, Job], side: str, ranks: int) -> Callable[[str, str, int], float]:
    return lambda case, kind, steps: running[f"{side} {1 if kind == 'alone' else ranks}"].ask(
        case, kind, steps
    )


def row_of_memory(running: dict[str, Job], side: str, ranks: int) -> dict[str, float]:
    alone, several = (growth(running[f"{side} {world}"]) / world for world in (1, ranks))
    return {
        "alone_MiB": alone / 2**20,
        "rank_MiB": several / 2**20,
        "gradients_MiB": GRADIENT_BYTES / 2**20,
        "copies_of_gradients": (several - alone) / GRADIENT_BYTES,
    }


def growth(job: Job) -> float:
    """By how many bytes the job's processes together grow at most while they train a large model."""
    over, before = threading.Event(), held(job)
    highest = [before]

    def watch() -> None:
        while not over.wait(0.005):
            highest.append(held(job))

    watcher = threading.Thread(target=watch)
    watcher.start()
    job.ask("memory", "", 5)
    over.set()
    watcher.join()
    return max(highest) - before


def held(job: Job) -> int:
    """Bytes of memory of all its processes; what they share counts once."""
    rows = [Path(f"/proc/{p.pid}/smaps_rollup").read_text().splitlines() for p in job.processes]
    return sum(int(line.split()[1]) << 10 for lines in rows for line in lines if line.startswith("Pss:"))


def timings(
    ask: dict[str, Callable[[str, str, int], float]],
    case: str,
    kinds: tuple[str, ...],
    rounds: int,
    piece: float = PIECE,
) -> dict[str, dict[str, list[float]]]:
    """Seconds of a step by side and kind, in turn over the rounds. ask: of each side."""
    times: dict[str, dict[str, list[float]]] = {side: {kind: [] for kind in kinds} for side in ask}
    steps = {s: {kind: max(1, int(piece / ask[s](case, kind, 1))) for kind in kinds} for s in ask}
    for _ in range(rounds):
        for side, kind in ((side, kind) for side in ask for kind in kinds):
            times[side][kind].append(ask[side](case, kind, steps[side][kind]))
    return times


def rows(case: str, times: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    results = {f"{case} {side}": row(found) for side, found in times.items()}
    if "torch" in times and "ringgrad" in times:
        both = zip(times["torch"]["step"], times["ringgrad"]["step"])
        results[f"{case} ringgrad"]["torch_over_ringgrad"] = statistics.median(t / r for t, r in both)
    return results


def row(times: dict[str, list[float]]) -> dict[str, float]:
    rounds = [dict(zip(times, values)) for values in zip(*times.values())]

    def middle(value: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(map(value, rounds))

    found = {f"{kind}_ms": statistics.median(t) * 1e3 for kind, t in times.items()}
    if "alone" in times:
        found["efficiency"] = middle(lambda t: t["alone"] / t["step"])
        found["bound"] = middle(lambda t: t["alone"] / t["no_comm"])
    found["of_bound"] = middle(lambda t: t["no_comm"] / t["step"])
    found["hidden"] = min(1.0, max(0.0, middle(lambda t: 1 - (t["step"] - t["no_comm"]) / t["comm"])))
    return found


def show(results: dict[str, dict[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    columns = list(dict.fromkeys(column for found in results.values() for column in found))
    table.add_column("case")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for case, found in results.items():
        table.add_row(case, *[f"{found[c]:.2f}" if c in found else "" for c in columns])
    Console(width=150).print(table)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        return work(*sys.argv[2:5])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=list(MODELS), help="models to run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    results, memory = run(["mlp"] if args.quick else args.only, args.ranks, 2 if args.quick else args.rounds)
    show(results, f"data-parallel step, {args.ranks} ranks with one thread each")
    show(memory, f"largest growth of one rank's memory, alone and as one of {args.ranks}")
    if args.json:
        about = {"title": "data-parallel step", "ranks": args.ranks, "machine": machine()}
        args.json.write_text(json.dumps({**about, "results": results, "memory": memory}, indent=1) + "\n")


if __name__ == "__main__":
    main()
