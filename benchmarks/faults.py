"""What a worker's death costs: how soon the others know, how soon training goes on, and whether the result is the same.

    python benchmarks/faults.py [--trials N] [--ranks N] [--json FILE] [--quick]

A small data-parallel training is started by `ringrun --max-restarts 1`, at a random step a random rank is killed
(SIGKILL) or frozen (SIGSTOP), and the job is left to itself. The peer is the same script under `torchrun
--standalone --max-restarts 1` with gloo, where PyTorch is installed; jobs of the sides alternate. The MPI transport
runs under mpirun, which does not restart. "Same result": the SHA-256 of the final parameters is that of a run
without a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS, SAVE_EVERY, LAST_FAULT = 260, 10, 200
PATIENCE = 45.0  # s: what is not over then is called unnoticed
SIDES = ("ringgrad shm", "ringgrad tcp", "ringgrad mpi", "torch gloo")
FAULTS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


# The worker.


def worker(library: str, folder: Path) -> None:
    torch = importlib.import_module(library)
    dist = importlib.import_module(f"{library}.distributed")
    if library == "torch":
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
    else:
        dist.init_process_group()
    rank, restart = dist.get_rank(), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    (folder / f"pid{rank}.{restart}").write_text(str(os.getpid()))
    try:
        digest = train(torch, rank, restart, folder)
    except BaseException:
        (folder / f"raised{rank}.{restart}").write_text(str(time.monotonic()))
        raise
    if rank == 0:
        (folder / "digest").write_text(digest)
    dist.destroy_process_group()


def train(torch: Any, rank: int, restart: int, folder: Path) -> str:
    torch.manual_seed(1)
    nn, path = torch.nn, folder / "state.pt"
    model = nn.parallel.DistributedDataParallel(
        nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step = 0
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    beat = os.open(folder / f"beat{rank}", os.O_CREAT | os.O_RDWR)
    while step < STEPS:
        torch.manual_seed(1000 * step + rank)  # what a step draws depends on step and rank alone
        x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        step += 1
        os.pwrite(beat, struct.pack("<q", step), 0)
        time.sleep(0.002)
        if restart and not (folder / f"resumed{rank}").exists():
            (folder / f"resumed{rank}").write_text(str(time.monotonic()))
        if step % SAVE_EVERY == 0 and rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, f"{path}.new")
            os.replace(f"{path}.new", path)
    flat = [p.detach().numpy().tobytes() for p in model.parameters()]
    return hashlib.sha256(b"".join(flat)).hexdigest()


# The controller.


def command(side: str, ranks: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    library, transport = side.split()
    script = [__file__, "--worker", library, str(folder)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(folder)}
    if library == "torch":
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        # Without this, PyTorch 2.13's workers meet after a restart over the store of the dead ones, and fail.
        environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        return [sys.executable, *run, "--max-restarts", "1", *script], environ
    environ["RINGGRAD_TRANSPORT"] = transport
    if transport == "mpi":
        return ["mpirun", "-n", str(ranks), sys.executable, *script], environ
    return [
        sys.executable,
        "-m",
        "ringgrad.launch",
        "-n",
        str(ranks),
        "--max-restarts",
        "1",
        *script,
    ], environ


def trial(side: str, fault: str | None, ranks: int, rng: random.Random) -> dict[str, Any]:
    """One job with one fault, or none. Times in seconds from the fault; None: it did not happen in time."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    line, environ = command(side, ranks, folder)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    job = subprocess.Popen(line, env=environ, start_new_session=True, **pipes)  # type: ignore[call-overload]
    try:
        found: dict[str, Any] = {}
        if fault:
            found = strike(folder, ranks, FAULTS[fault], rng)
        try:
            found["exit_code"] = job.wait(PATIENCE * 2)
        except subprocess.TimeoutExpired:
            found["exit_code"] = None
        at = found.pop("at", 0.0)
        raised = [float(p.read_text()) - at for p in folder.glob("raised*.0")]
        resumed = [float(p.read_text()) - at for p in folder.glob("resumed*")]
        found["raised"] = max(raised) if len(raised) == ranks - 1 else None
        found["resumed"] = max(resumed) if len(resumed) == ranks else None
        found["digest"] = (folder / "digest").read_text() if (folder / "digest").exists() else None
        return found
    finally:
        end(job, folder)
        shutil.rmtree(folder, ignore_errors=True)


def strike(folder: Path, ranks: int, signum: int, rng: random.Random) -> dict[str, Any]:
    """Send the signal to one rank in mid-training; how long until all others have ended."""
    target, victim = rng.randint(5, LAST_FAULT), rng.randrange(ranks)
    deadline = time.monotonic() + 2 * PATIENCE
    while step_of(folder / "beat0") < target:
        if time.monotonic() > deadline:
            raise RuntimeError(f"[faults] the job must reach step {target}, came {step_of(folder / 'beat0')}")
        time.sleep(0.001)
    pids = [int((folder / f"pid{rank}.0").read_text()) for rank in range(ranks)]
    others = {os.pidfd_open(pid) for pid in pids if pid != pids[victim]}
    at = time.monotonic()
    os.kill(pids[victim], signum)
    ended = await_end(others, at + PATIENCE)
    return {"at": at, "step": target, "victim": victim, "ended": ended - at if ended else None}


def step_of(beat: Path) -> int:
    data = beat.read_bytes() if beat.exists() else b""
    return struct.unpack("<q", data)[0] if len(data) == 8 else 0


def await_end(processes: set[int], deadline: float) -> float | None:
    poll = select.poll()
    for fd in processes:
        poll.register(fd, select.POLLIN)
    left = len(processes)
    while left and (wait := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(wait * 1000):
            poll.unregister(fd)
            left -= 1
    now = time.monotonic()
    for fd in processes:
        os.close(fd)
    return None if left else now


def end(job: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill what is left of a job: its own group and, where launchers made sessions, its workers."""
    for path in folder.glob("pid*"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(path.read_text()), signal.SIGKILL)
    if job.poll() is None:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def campaign(ranks: int, trials: int, faults: list[str], sides: list[str]) -> dict[str, Any]:
    rng = random.Random(7)
    whole = {side: trial(side, None, ranks, rng)["digest"] for side in sides}
    runs: dict[str, list[dict[str, Any]]] = {f"{f} {s}": [] for f in faults for s in sides}
    for _ in range(trials):
        for fault in faults:
            for side in sides:
                runs[f"{fault} {side}"].append(trial(side, fault, ranks, rng))
    return {case: summary(found, whole[case.split(" ", 1)[1]]) for case, found in runs.items()}


def summary(runs: list[dict[str, Any]], digest: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"trials": len(runs)}
    for name in ("raised", "ended", "resumed"):
        times = [run[name] for run in runs if run[name] is not None]
        row[name] = {"count": len(times)}
        if times:
            row[name] |= {"median_s": statistics.median(times), "worst_s": max(times)}
    row["finished"] = sum(run["digest"] is not None for run in runs)
    row["same_result"] = sum(run["digest"] is not None and run["digest"] == digest for run in runs)
    row["exit_codes"] = sorted({str(run["exit_code"]) for run in runs})
    return row


def show(results: dict[str, Any], ranks: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"one of {ranks} workers killed or stopped: seconds, median (worst)")
    for column in (
        "fault",
        "side",
        "others raise",
        "others ended",
        "training again",
        "finished",
        "same result",
    ):
        table.add_column(column)
    for case, row in results.items():
        cells = [cell(row[name], row["trials"]) for name in ("raised", "ended", "resumed")]
        table.add_row(
            *case.split(" ", 1),
            *cells,
            *(f"{row[n]} of {row['trials']}" for n in ("finished", "same_result")),
        )
    Console(width=120).print(table)


def cell(found: dict[str, Any], trials: int) -> str:
    if not found["count"]:
        return "-"
    missing = f", {found['count']} of {trials}" if found["count"] < trials else ""
    return f"{found['median_s']:.2f} ({found['worst_s']:.2f}){missing}"


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2], Path(sys.argv[3]))
    from measure import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10, help="jobs of each kind")
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--sides", nargs="*", choices=SIDES)
    parser.add_argument(
        "--quick", action="store_true", help="one trial a kind on shared memory: does it run at all?"
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args()
    sides = args.sides or [
        side
        for side in SIDES
        if (side != "ringgrad mpi" or shutil.which("mpirun"))
        and (side != "torch gloo" or importlib.util.find_spec("torch"))
    ]
    if args.quick:
        args.trials, args.faults, sides = 1, ["kill"], sides[:1]
    results = campaign(args.ranks, args.trials, args.faults, sides)
    show(results, args.ranks)
    if args.json:
        about = {"title": "faults", "ranks": args.ranks, "patience_s": PATIENCE, "machine": machine()}
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
