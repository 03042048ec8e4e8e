"""Data-parallel training steps: what a second worker costs, and how much of the communication backward hides.

    python benchmarks/ddp.py [--ranks N] [--json FILE] [--quick]

Every rank has one thread and a batch of its own of constant size. Printed for ringgrad and, where it is installed,
for PyTorch DDP with gloo:

    alone        one rank on its own
    no comm      N ranks that do not communicate (no_sync): the bound that cores and memory set
    step         N ranks that do
    comm         reducing all gradients once, with nothing to hide it
    efficiency   alone / step        hidden   share of `comm` that does not show up in `step`
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import machine

MODELS = ("mlp", "char_gpt")


def worker(side: str, case: str, rounds: int) -> None:
    """One rank: prints medians of its step times as JSON on rank 0."""
    if side == "torch":
        import torch

        torch.set_num_threads(1)
        backend = "gloo"
    else:
        import ringgrad as torch  # type: ignore[no-redef]

        backend = None
    import train_step

    torch.distributed.init_process_group(backend)
    torch.manual_seed(0)
    model, x, y, optimizer = train_step.parts(torch, case)
    ddp = torch.nn.parallel.DistributedDataParallel(model)
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

    def communication() -> None:
        torch.distributed.all_reduce(flat)

    kinds = {"step": step, "no_comm": without_communication, "comm": communication}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind in kinds:
        kinds[kind]()
    for _ in range(rounds):
        for kind, call in kinds.items():
            torch.distributed.barrier()
            start = time.perf_counter()
            call()
            times[kind].append(time.perf_counter() - start)
    if torch.distributed.get_rank() == 0:
        print(
            "measured: " + json.dumps({kind: statistics.median(t) for kind, t in times.items()}), flush=True
        )
    torch.distributed.destroy_process_group()


def run(side: str, case: str, ranks: int, rounds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "ringgrad.launch", "-n", str(ranks), "--threads", "1", __file__]
    command += ["--worker", side, "--case", case, "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    for line in done.stdout.splitlines():
        if "measured: " in line:
            return json.loads(line.split("measured: ", 1)[1])
    raise RuntimeError(f"[benchmark] {side} on {ranks} ranks must finish, came\n{done.stdout}{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.case, args.rounds)
    rounds = 3 if args.quick else args.rounds
    sides = ["ringgrad"] + (["torch"] if importlib.util.find_spec("torch") else [])
    results: dict[str, dict[str, Any]] = {}
    for case in MODELS[:1] if args.quick else MODELS:
        for side in sides:
            alone = run(side, case, 1, rounds)["step"]
            found = run(side, case, args.ranks, rounds)
            shown = found["step"] - found["no_comm"]
            results[f"{case} {side}"] = {
                "alone_ms": alone * 1e3,
                **{f"{kind}_ms": seconds * 1e3 for kind, seconds in found.items()},
                "efficiency": alone / found["step"],
                "bound": alone / found["no_comm"],
                "hidden": min(1.0, max(0.0, 1 - shown / found["comm"])),
            }
    show(results, args.ranks)
    if args.json:
        about = {"title": "data-parallel step", "ranks": args.ranks, "machine": machine()}
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


def show(results: dict[str, dict[str, Any]], ranks: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"data-parallel step, {ranks} ranks with one thread each")
    columns = ("alone_ms", "no_comm_ms", "step_ms", "comm_ms", "efficiency", "bound", "hidden")
    table.add_column("case")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for case, row in results.items():
        table.add_row(case, *[f"{row[c]:.2f}" for c in columns])
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
