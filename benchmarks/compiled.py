"""One training step compiled: ringgrad eager and compiled, PyTorch eager and torch.compile, timed in turn.

    python benchmarks/compiled.py [--json FILE] [--threads N] [--rounds N] [--only CASE ...]

Every side and case has a process of its own, so that peak memory is the case's; they take turns. Compile times and
the first calls are left out of the step's time and printed beside it. The bound: the step's FLOPs (matrix products
and convolutions, forward and twice backward) at the rate of a 1024 x 1024 product in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import train_step
from measure import machine, repetitions

SIDES = ["ringgrad", "ringgrad.jit", "torch", "torch.compile"]


def step_of(torch: Any, case: str, compiled: bool = False) -> tuple[Any, Any]:
    """The step, the model and its input. PyTorch compiles the model, as its manual does; ringgrad the whole step."""
    F = torch.nn.functional
    model, x, y, optimizer = train_step.parts(torch, case)
    forward = torch.compile(model) if compiled else model

    def step() -> Any:
        optimizer.zero_grad()
        logits = forward(x)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    return step, (model, x)


def serve(side: str, case: str) -> None:
    """Answers lines on standard input with the time of one step; the first answer tells about the preparation."""
    name = side.partition(".")[0]
    if name == "torch":
        import torch as module

        module.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    else:
        import ringgrad as module  # type: ignore[no-redef]
    step, _ = step_of(module, case, side == "torch.compile")
    if side == "ringgrad.jit":
        import ringgrad.jit.image_kernels
    before = peak(reset=True)
    start = time.perf_counter()
    if side == "ringgrad.jit":
        step = module.compile(step)
    losses = [step().item() for _ in range(3)]
    first = time.perf_counter() - start
    n = repetitions(step)
    about: dict[str, Any] = {"loss": losses[-1], "first_calls_s": first}
    if side == "ringgrad.jit":
        recordings = [r for entry in step.table.values() for r in entry.recordings]
        plans = [r.program.plan for r in recordings]
        about |= {"compile_s": sum(r.seconds for r in recordings), "eager_because": step.full}
        about |= {"arena": sum(p.peak for p in plans), "values": sum(p.asked for p in plans)}
        about["replayed"] = bool(recordings)
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        if line.strip() == "rate":
            print(json.dumps({"gflops": rate()}), flush=True)
            continue
        start = time.perf_counter()
        for _ in range(n):
            step()
        seconds = (time.perf_counter() - start) / n
        print(json.dumps({"seconds": seconds, "grown_mib": peak() - before}), flush=True)


def peak(reset: bool = False) -> float:
    """The most memory that this process had resident, in MiB; reset: counted from now on."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def rate() -> float:
    """GFLOP/s of a 1024 x 1024 product in float32, the best of five."""
    import numpy as np

    a = np.ones((1024, 1024), np.float32)
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best / 1e9


def flops(case: str) -> float:
    """Of one step, by PyTorch's counter: matrix products, convolutions, attention; recurrent layers by hand."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    step, (model, x) = step_of(torch, case)
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    total = float(counter.get_total_flops())
    for module in model.modules():
        if isinstance(module, torch.nn.LSTM):
            weights = sum(p.numel() for n, p in module.named_parameters() if "weight" in n)
            total += 6.0 * weights * x.numel()
    return total


class Process:
    """One side at one case."""

    def __init__(self, side: str, case: str, threads: int) -> None:
        env = {**os.environ}
        env |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        command = [sys.executable, __file__, "--side", side, "--only", case]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("[benchmark] a side must answer, came none: see above")
        return json.loads(line)

    def ask(self, what: str = "time") -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


def run_case(case: str, threads: int, rounds: int) -> dict[str, Any]:
    processes = {side: Process(side, case, threads) for side in SIDES}
    losses = {side: p.about["loss"] for side, p in processes.items()}
    if max(losses.values()) - min(losses.values()) > 1e-3 * abs(losses["torch"]):
        raise RuntimeError(f"[benchmark] all sides must compute the same loss for {case}, came {losses}")
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    grown: dict[str, float] = {}
    for _ in range(rounds):
        for side, p in processes.items():
            answer = p.ask()
            times[side].append(answer["seconds"])
            grown[side] = answer["grown_mib"]
    gflops = processes["ringgrad"].ask("rate")["gflops"]
    for p in processes.values():
        p.stop()
    row: dict[str, Any] = {f"{side}_us": statistics.median(t) * 1e6 for side, t in times.items()}
    best = {side: min(t) * 1e6 for side, t in times.items()}
    jit = row["ringgrad.jit_us"]
    row |= {"over_torch": row["torch_us"] / jit, "over_torch_compile": row["torch.compile_us"] / jit}
    row |= {"over_eager": row["ringgrad_us"] / jit, "eager_over_torch": row["torch_us"] / row["ringgrad_us"]}
    row |= {"best_us": best, "grown_mib": grown, "about": {side: p.about for side, p in processes.items()}}
    row["gflop"] = flops(case) / 1e9
    row["bound_us"] = row["gflop"] / gflops * 1e6
    row["share_of_bound"] = row["bound_us"] / jit
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--threads", type=int, default=1, help="threads each side may use")
    parser.add_argument("--rounds", type=int, default=11, help="timings of each side and case")
    parser.add_argument("--only", nargs="*", default=train_step.CASES, help="cases to run")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return serve(args.side, args.only[0])
    results = {}
    for case in args.only:
        results[case] = row = run_case(case, args.threads, args.rounds)
        compile_s = (
            row["about"]["ringgrad.jit"]["first_calls_s"],
            row["about"]["torch.compile"]["first_calls_s"],
        )
        print(
            f"{case:12s} jit {row['ringgrad.jit_us']:9.0f} us; torch / jit {row['over_torch']:.2f},"
            f" torch.compile / jit {row['over_torch_compile']:.2f}, eager / jit {row['over_eager']:.2f};"
            f" first 3 calls {compile_s[0]:.1f} s and {compile_s[1]:.1f} s;"
            f" {row['gflop']:.2f} GFLOP, {row['share_of_bound']:.0%} of the bound;"
            f" memory {row['grown_mib']['ringgrad.jit']:.0f} MiB, torch {row['grown_mib']['torch']:.0f}",
            flush=True,
        )
    summary = {
        f"geometric_mean_{key}": statistics.geometric_mean(row[key] for row in results.values())
        for key in ("over_torch", "over_torch_compile", "over_eager")
    }
    print(", ".join(f"{k.removeprefix('geometric_mean_')} {v:.2f}" for k, v in summary.items()))
    if args.json:
        about = {"title": "compiled training step", "threads": args.threads, "machine": machine(), **summary}
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
