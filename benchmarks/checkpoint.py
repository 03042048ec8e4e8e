"""Saving and loading against the disk's own speed, PyTorch and safetensors.

    python benchmarks/checkpoint.py [--mib N] [--folder DIR] [--rounds N] [--json FILE] [--quick]

The disk's speed is that of plain sequential writes (with fsync) and reads of as many bytes in 4 MiB pieces, in the same
run; reads come from the page cache on both sides, writes end on disk. All sides take turns. PyTorch's and safetensors'
own savers do not flush to the disk; a flush is added for them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import machine

import ringgrad as rg
from ringgrad.distributed import checkpoint

PIECE = 4 << 20


def state(mib: int) -> dict[str, np.ndarray]:
    """Tensors as a transformer has them: a few large, many small."""
    rng = np.random.default_rng(0)
    rows = mib * (1 << 20) // (4 * 1024)
    shapes = [(rows // 2, 1024), (rows // 4, 1024), *[(rows // 48, 1024)] * 12, *[(1024,)] * 50]
    return {f"layer{i}.weight": rng.random(shape, np.float32) for i, shape in enumerate(shapes)}


def flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def disk(folder: Path, size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    piece, path = bytes(PIECE), folder / "plain"

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for _ in range(size // PIECE):
                file.write(piece)
            os.fsync(file.fileno())

    def read() -> None:
        buffer = np.empty(size, np.uint8)  # as a loader must: new memory
        with open(path, "rb", buffering=0) as file:
            for start in range(0, size // PIECE * PIECE, PIECE):
                file.readinto(memoryview(buffer)[start : start + PIECE])

    return write, read


def sides(
    folder: Path, arrays: dict[str, np.ndarray]
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    ours = {name: rg.from_numpy(a) for name, a in arrays.items()}
    found = {"disk": disk(folder, sum(a.nbytes for a in arrays.values()))}
    for suffix in (".rg", ".pt", ".safetensors"):
        path = folder / f"ours{suffix}"
        found[f"ringgrad {suffix}"] = (lambda p=path: rg.save(ours, p)), (lambda p=path: rg.load(p))
    where = folder / "folder"
    found["ringgrad folder"] = (
        lambda: checkpoint.save(ours, where),
        lambda: checkpoint.load(checkpoint_id=where),
    )
    if importlib.util.find_spec("torch"):
        import torch
        from safetensors.torch import load_file, save_file

        theirs = {name: torch.from_numpy(a) for name, a in arrays.items()}
        pt, st = folder / "theirs.pt", folder / "theirs.safetensors"
        found["torch .pt"] = (lambda: (torch.save(theirs, pt), flush(pt))), (lambda: torch.load(pt))
        # load_file maps the file; a copy of each tensor makes it read.
        found["safetensors"] = (
            lambda: (save_file(theirs, st), flush(st)),
            lambda: {k: v.clone() for k, v in load_file(st).items()},
        )
    return found


class Training:
    """An MLP of so many MiB with Adam, whose states are twice as large again; a step takes a good part of a second."""

    def __init__(self, mib: int) -> None:
        width = round((mib * (1 << 20) / 4 / 3 / 8) ** 0.5)
        self.model = rg.nn.Sequential(*[rg.nn.Linear(width, width) for _ in range(8)])
        self.optimizer = rg.optim.Adam(self.model.parameters(), lr=1e-4)
        self.x = rg.randn(256, width)

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def step(self, copied: Callable[[], None] = lambda: None) -> tuple[float, float]:
        """Seconds of the whole step, and of those in which it waited for the copies."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.model(self.x).square().mean().backward()
        before = time.perf_counter()
        copied()
        waited = time.perf_counter() - before
        self.optimizer.step()
        return time.perf_counter() - start, waited


def stall(folder: Path, mib: int, rounds: int) -> dict[str, float]:
    """Seconds: a whole save; how long an asynchronous one holds training up, with all copied at once and beside the
    next step; and how much longer the save and the next step take together than a step alone: the thread that copies
    and writes takes its share of the machine either way."""
    training = Training(mib)
    training.step()
    rows = []
    with checkpoint.Checkpointer(folder / "async", keep=1, asynchronous=True) as checkpointer:
        for i in range(rounds + 1):
            start = time.perf_counter()
            checkpoint.save(training.state(), folder / "whole")
            row = {"whole_s": time.perf_counter() - start}
            row["step_s"] = training.step()[0]
            start = time.perf_counter()
            checkpointer.save(2 * i, training.state())
            row["at_once_s"] = time.perf_counter() - start
            row["at_once_added_s"] = row["at_once_s"] + training.step()[0] - row["step_s"]
            checkpointer.wait()
            start = time.perf_counter()
            checkpointer.save(2 * i + 1, training.state(), [training.optimizer])
            returned = time.perf_counter() - start
            step, waited = training.step(checkpointer.copied)
            row["beside_s"], row["beside_added_s"] = returned + waited, returned + step - row["step_s"]
            rows.append(row)
            checkpointer.wait()
    del rows[0]  # the first save takes the memory for the copies
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the temporary folder)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="16 MiB and two rounds: does it run at all?")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.mib, args.rounds = 16, 2
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        arrays = state(args.mib)
        size = sum(a.nbytes for a in arrays.values())
        times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in sides(folder, arrays)}
        everything = sides(folder, arrays)
        for _ in range(args.rounds):
            for which in (0, 1):
                for name, pair in everything.items():
                    start = time.perf_counter()
                    pair[which]()
                    times[name][which].append(time.perf_counter() - start)
        results: dict[str, Any] = {
            name: {
                f"{what}_gb_s": size / statistics.median(t) / 1e9 for what, t in zip(("save", "load"), pair)
            }
            for name, pair in times.items()
        }
        for row in results.values():
            row |= {
                f"{what}_of_disk": row[f"{what}_gb_s"] / results["disk"][f"{what}_gb_s"]
                for what in ("save", "load")
            }
        asynchronous = stall(folder, args.mib, args.rounds)
    finally:
        shutil.rmtree(folder)
    for name, row in results.items():
        print(
            f"{name:22} save {row['save_gb_s']:5.2f} GB/s ({row['save_of_disk']:4.0%} of the disk)   "
            f"load {row['load_gb_s']:5.2f} GB/s ({row['load_of_disk']:4.0%})"
        )
    whole = asynchronous["whole_s"]
    print(
        f"an asynchronous save holds training up for {asynchronous['at_once_s'] / whole:.1%} of the {whole:.2f} s of a "
        f"whole one with all copied at once, {asynchronous['beside_s'] / whole:.1%} with the copying beside the next "
        f"step; with what the thread takes from that step of {asynchronous['step_s']:.2f} s it costs "
        f"{asynchronous['at_once_added_s'] / whole:.0%} and {asynchronous['beside_added_s'] / whole:.0%}"
    )
    if args.json:
        about = {"title": "checkpoints", "mib": args.mib, "machine": machine()}
        args.json.write_text(
            json.dumps({**about, "results": results, "asynchronous": asynchronous}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
