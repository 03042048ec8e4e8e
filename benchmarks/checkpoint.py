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


def stall(folder: Path, arrays: dict[str, np.ndarray], rounds: int) -> dict[str, float]:
    """How long an asynchronous save holds the caller up, and a whole one takes."""
    ours = {name: rg.from_numpy(a) for name, a in arrays.items()}
    held, whole = [], []
    checkpointer = checkpoint.Checkpointer(folder / "async", keep=1, asynchronous=True)
    for i in range(rounds + 1):
        start = time.perf_counter()
        checkpointer.save(i, ours)
        held.append(time.perf_counter() - start)
        checkpointer.wait()
        start = time.perf_counter()
        checkpoint.save(ours, folder / "whole")
        whole.append(time.perf_counter() - start)
    checkpointer.close()
    del held[0], whole[0]  # the first save takes the memory for the copies
    return {"stall_s": statistics.median(held), "whole_s": statistics.median(whole)}


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
        asynchronous = stall(folder, arrays, args.rounds)
    finally:
        shutil.rmtree(folder)
    for name, row in results.items():
        print(
            f"{name:22} save {row['save_gb_s']:5.2f} GB/s ({row['save_of_disk']:4.0%} of the disk)   "
            f"load {row['load_gb_s']:5.2f} GB/s ({row['load_of_disk']:4.0%})"
        )
    share = asynchronous["stall_s"] / asynchronous["whole_s"]
    print(f"asynchronous save: holds the caller up for {share:.0%} of the time of a whole one")
    if args.json:
        about = {"title": "checkpoints", "mib": args.mib, "machine": machine()}
        args.json.write_text(
            json.dumps({**about, "results": results, "asynchronous": asynchronous}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
