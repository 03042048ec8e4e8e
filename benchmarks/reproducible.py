"""What reproducible mode costs: a DDP step with the batch cut into shards against the same step without.

    python benchmarks/reproducible.py [--ranks N] [--rounds N] [--json FILE]

The global batch is constant; every rank has one thread. The modes are measured in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import machine

MODES = (None, 6, 12, 24)
CASES = {"mlp": 192, "cnn_bn": 96, "char_gpt": 48}  # rows of the global batch


def worker(case: str, rounds: int) -> None:
    """One rank: prints the medians of its step times, in ms by mode, on rank 0."""
    import models

    import ringgrad
    from ringgrad import distributed as dist

    F = ringgrad.nn.functional
    dist.init_process_group()

    def stepper(mode: int | None) -> Callable[[], None]:
        model, x, y, optimizer = models.parts(ringgrad, case)
        rows = np.arange(CASES[case] // dist.get_world_size()) % x.shape[0]
        x, y = x[rows], y[rows]
        ddp = dist.DistributedDataParallel(model, reproducible=mode)

        def step() -> None:
            optimizer.zero_grad()
            for part, targets in ddp.shards(x, y) if mode else [(x, y)]:
                logits = ddp(part)
                F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1)).backward()
            optimizer.step()

        return step

    steps = {mode: stepper(mode) for mode in MODES}
    times: dict[int | None, list[float]] = {mode: [] for mode in MODES}
    for i in range(rounds + 2):
        for mode, step in steps.items():
            dist.barrier()
            start = time.perf_counter()
            step()
            if i >= 2:  # the first make buffers
                times[mode].append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        found = {str(mode): statistics.median(t) * 1e3 for mode, t in times.items()}
        print("measured: " + json.dumps(found), flush=True)
    dist.destroy_process_group()


def run(case: str, ranks: int, rounds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "ringgrad.launch", "-n", str(ranks), "--threads", "1", __file__]
    done = subprocess.run(
        [*command, "--worker", case, "--rounds", str(rounds)], capture_output=True, text=True
    )
    for line in done.stdout.splitlines():
        if "measured: " in line:
            return json.loads(line.split("measured: ", 1)[1])
    raise RuntimeError(f"[benchmark] {case} on {ranks} ranks must finish, came\n{done.stdout}{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.rounds)
    results = {case: run(case, args.ranks, args.rounds) for case in CASES}
    for case, found in results.items():
        plain = found["None"]
        shown = ", ".join(
            f"{m} shards {found[str(m)]:.1f} ms ({found[str(m)] / plain:.2f}x)" for m in MODES[1:]
        )
        print(f"{case:9} {args.ranks} ranks: default {plain:.1f} ms, {shown}")
    if args.json:
        about = {"title": "reproducible mode", "ranks": args.ranks, "machine": machine()}
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
