"""A training step compiled, or an answer to one input: ringgrad eager and compiled, PyTorch eager and torch.compile.

    python benchmarks/compiled.py [--json FILE] [--threads N] [--inference] [--cold] [--quick] [--only CASE ...]

Every side and case (models.py) has a process of its own, so that memory is the case's; they are timed in turn. Compile
times (the first three calls, less three later ones) are no part of the step's time and stand beside it. The roofline
is the sum over the ops of our eager step of the time that their operations and bytes take at least, at the rates of a
GEMM and a copy measured in the same run; fused programs move fewer bytes. Memory is what a process has grown by at
most, from before the model is built to steps after the first three. --cold: both compilers start with empty caches;
otherwise with what earlier runs have left. Without PyTorch or a C++ compiler for it, the table stands without them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
from measure import machine, repetitions

SIDES = ["ringgrad", "ringgrad.jit", "torch", "torch.compile"]
CALLS = 3  # before anything is timed: compilers do their work in them
BUDGET = 12.0  # seconds that the rounds of a case may take; three rounds at least


# ---- one side, in its process


def build(torch: Any, side: str, case: str, inference: bool) -> tuple[Any, Callable[[], Any]]:
    """What is compiled, and the call that is timed. PyTorch compiles the model, as its manual does; we the step."""
    kept: list[Any] = []

    def forward(model: Any) -> Any:
        whole = side == "torch.compile" or (side == "ringgrad.jit" and inference)
        kept.append(torch.compile(model) if whole else model)
        return kept[0]

    call = (models.inference if inference else models.training)(torch, case, forward)
    if side == "ringgrad.jit":
        call = call if inference else torch.compile(call)
        return kept[0]._call if inference else call, call
    return None, call


def serve(side: str, case: str, inference: bool) -> None:
    """Answers each line on standard input with the time of one call; the first answer tells about the preparation."""
    if side.startswith("torch"):
        import torch as module

        module.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    else:
        import ringgrad as module  # type: ignore[no-redef]
    if side == "ringgrad.jit":
        import ringgrad.tensor.backend.cpu.images  # PyTorch's kernels are loaded as well
    before = resident()
    compiled, call = build(module, side, case, inference)
    start = time.perf_counter()
    results = [call() for _ in range(CALLS)]
    first = time.perf_counter() - start
    about: dict[str, Any] = {"value": float((results[-1].detach().float() ** 2).mean().item())}
    del results
    n = repetitions(call)
    about["first_calls_s"] = first
    if compiled is not None:
        about |= recorded(compiled)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        if line.strip() == "roofline":
            print(json.dumps(roofline(call)), flush=True)
            continue
        start = time.perf_counter()
        for _ in range(n):
            call()
        seconds = (time.perf_counter() - start) / n
        print(json.dumps({"seconds": seconds, "grown_mib": resident("VmHWM") - before}), flush=True)


def recorded(compiled: Any) -> dict[str, Any]:
    """What a compiled function says of itself."""
    recordings = [r for entry in compiled.table.values() for r in entry.recordings]
    why = compiled.full or [entry.eager for entry in compiled.table.values() if entry.eager]
    if not recordings:
        raise RuntimeError(f"[benchmark] the call must be replayed, came: {why}")
    plans = [r.program.plan for r in recordings]
    arena = {
        "arena_mib": sum(p.peak for p in plans) / 2**20,
        "values_mib": sum(p.asked for p in plans) / 2**20,
    }
    return {"optimizing_s": sum(r.seconds for r in recordings), **arena}


def resident(what: str = "VmRSS") -> float:
    """The memory that this process has (VmHWM: had at most) resident, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(what)) / 1024


def roofline(call: Callable[[], Any]) -> dict[str, float]:
    """Operations, bytes, measured rates and the least time of an eager call, from ringgrad's profiler."""
    from ringgrad.autograd.profiler.flops import rates
    from ringgrad.profiler import profile

    with profile(record_shapes=True, with_flops=True) as prof:
        call()
    measured, events = rates(), outermost(prof.events())
    return {
        "gflop": sum(e.flops for e in events) / 1e9,
        "moved_mib": sum(e.moved for e in events) / 2**20,
        "roofline_us": sum(measured.least(e.flops, e.moved) for e in events) * 1e6,
        "gemm_gflops": measured.gemm / 1e9,
        "copy_gbs": measured.copy / 1e9,
    }


def outermost(events: list[Any]) -> list[Any]:
    """Those that compute and lie in no other that does: a gradient's own ops are counted with it."""
    from ringgrad.autograd.profiler.events import parents

    above, inside = parents(events), [False] * len(events)
    for i in sorted(range(len(events)), key=lambda i: (events[i].start, -events[i].length, -i)):
        up = above[i]
        inside[i] = up >= 0 and (inside[up] or bool(events[up].flops or events[up].moved))
    return [e for e, within in zip(events, inside) if not within]


# ---- all sides


class Process:
    """One side at one case."""

    def __init__(self, side: str, case: str, args: argparse.Namespace, cache: str | None) -> None:
        env = {**os.environ}
        env |= dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(args.threads)
        )
        if cache is not None:
            env |= dict.fromkeys(("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "RINGGRAD_CACHE"), cache)
        command = [sys.executable, __file__, "--side", side, "--only", case]
        self.process = subprocess.Popen(
            command + ["--inference"] * args.inference,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE if "torch" in side else None,
            text=True, env=env,
        )  # fmt: skip
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            errors = (self.process.stderr.read() if self.process.stderr else "see above").strip()
            raise RuntimeError(f"[benchmark] a side must answer, came {errors.splitlines()[-1:]}")
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


def started(case: str, args: argparse.Namespace) -> dict[str, Process]:
    """The sides that work here; ringgrad's must."""
    processes = {}
    for side in SIDES[:2] if args.quick else SIDES:
        with tempfile.TemporaryDirectory() as cache:
            try:
                processes[side] = Process(side, case, args, cache if args.cold else None)
            except RuntimeError as error:
                if side.startswith("ringgrad"):
                    raise
                print(f"{case}: without {side}: {error}", file=sys.stderr)
    return processes


def run_case(case: str, args: argparse.Namespace) -> dict[str, Any]:
    processes = started(case, args)
    values = {side: p.about["value"] for side, p in processes.items()}
    if max(values.values()) - min(values.values()) > 2e-3 * abs(values["ringgrad"]):
        raise RuntimeError(f"[benchmark] all sides must compute the same for {case}, came {values}")
    times: dict[str, list[float]] = {side: [] for side in processes}
    grown: dict[str, float] = {}
    start = time.perf_counter()
    for i in range(2 if args.quick else args.rounds):
        if i >= 3 and time.perf_counter() - start > BUDGET:
            break
        for side, p in processes.items():
            answer = p.ask()
            times[side].append(answer["seconds"])
            grown[side] = answer["grown_mib"]
    for side, p in processes.items():
        p.about["compile_s"] = max(0.0, p.about["first_calls_s"] - CALLS * min(times[side]))
    row: dict[str, Any] = {f"{side}_us": statistics.median(t) * 1e6 for side, t in times.items()}
    row["best_us"] = {side: min(t) * 1e6 for side, t in times.items()}
    row |= {"grown_mib": grown, "about": {side: p.about for side, p in processes.items()}}
    row |= processes["ringgrad"].ask("roofline")
    for p in processes.values():
        p.stop()
    return row | ratios(row)


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Times of others over the compiled program's, and what share of the roofline and of memory it takes."""
    jit, made = row["ringgrad.jit_us"], {}
    pairs = {"over_eager": "ringgrad_us", "over_torch": "torch_us", "over_torch_compile": "torch.compile_us"}
    made = {key: row[name] / jit for key, name in pairs.items() if name in row}
    made["share_of_roofline"] = row["roofline_us"] / jit
    if "torch_us" in row:
        made["eager_over_torch"] = row["torch_us"] / row["ringgrad_us"]
        made["memory_over_torch"] = row["grown_mib"]["ringgrad.jit"] / row["grown_mib"]["torch"]
        made["eager_memory_over_torch"] = row["grown_mib"]["ringgrad"] / row["grown_mib"]["torch"]
    about = row["about"]
    if about.get("torch.compile", {}).get("compile_s"):
        made["compile_time"] = about["ringgrad.jit"]["compile_s"] / about["torch.compile"]["compile_s"]
    return made


MEANS = ("eager_over_torch", "over_torch", "over_torch_compile", "over_eager")
COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "jit us": lambda r: f"{r['ringgrad.jit_us']:,.0f}",
    "torch / eager": lambda r: f"{r['eager_over_torch']:.2f}",
    "torch / jit": lambda r: f"{r['over_torch']:.2f}",
    "torch.compile / jit": lambda r: f"{r['over_torch_compile']:.2f}",
    "eager / jit": lambda r: f"{r['over_eager']:.2f}",
    "compile s": lambda r: f"{r['about']['ringgrad.jit']['compile_s']:.1f}",
    "torch's": lambda r: f"{r['about']['torch.compile']['compile_s']:.1f}",
    "GFLOP": lambda r: f"{r['gflop']:.3g}",
    "roofline us": lambda r: f"{r['roofline_us']:,.0f}",
    "reached": lambda r: f"{r['share_of_roofline']:.0%}",
    "MiB jit": lambda r: f"{r['grown_mib']['ringgrad.jit']:.0f}",
    "eager": lambda r: f"{r['grown_mib']['ringgrad']:.0f}",
    "torch": lambda r: f"{r['grown_mib']['torch']:.0f}",
}


def show(title: str, results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in ("case", *COLUMNS):
        table.add_column(column, justify="left" if column == "case" else "right")

    def cell(write: Callable[[dict[str, Any]], str], row: dict[str, Any]) -> str:
        try:
            return write(row)
        except KeyError:  # a side that does not work here
            return "-"

    for case, row in results.items():
        table.add_row(case, *[cell(write, row) for write in COLUMNS.values()])
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--threads", type=int, default=1, help="threads each side may use")
    parser.add_argument("--rounds", type=int, default=11, help="timings of each side and case, at most")
    parser.add_argument(
        "--inference", action="store_true", help="answers at batch 1 instead of training steps"
    )
    parser.add_argument("--cold", action="store_true", help="compilers start with empty caches")
    parser.add_argument("--quick", action="store_true", help="few cases, ours alone: does it run at all?")
    parser.add_argument("--only", nargs="*", help="cases to run")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return serve(args.side, args.only[0], args.inference)
    results = {}
    for case in args.only or list(models.CASES)[: 3 if args.quick else None]:
        print(f"{case} ...", file=sys.stderr, flush=True)
        results[case] = run_case(case, args)
    title = f"{'inference at batch 1' if args.inference else 'training step'}, compiled"
    show(f"{title}, {args.threads} thread(s) a side", results)
    summary = {
        f"geometric_mean_{key}": statistics.geometric_mean(row[key] for row in results.values())
        for key in MEANS
        if all(key in row for row in results.values())
    }
    print(
        "geometric means:",
        ", ".join(f"{k.removeprefix('geometric_mean_')} {v:.2f}" for k, v in summary.items()),
    )
    if args.json:
        about = {"title": title, "threads": args.threads, "machine": machine(), **summary}
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
