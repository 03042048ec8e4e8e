"""What a Trainer costs: the same steps in a loop written by hand, in a bare Trainer, and in one with its defaults.

    python benchmarks/trainer.py [--json FILE] [--rounds N] [--quick]

Where Lightning is installed (pip install lightning torch), its own Trainer on PyTorch is measured in turn as the peer.
"bare": no logger, checkpoints, progress bar or logged values; "defaults": `Trainer()` as it comes, and the step logs
its loss. A step is timed from inside the loader, so that starting and ending a run do not count.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from measure import Side, machine
from models import parts

CASES = ["linear", "mlp_small", "mlp"]
WAYS = ["hand", "bare", "defaults"]
STEPS = {"linear": 2000, "mlp_small": 800, "mlp": 200}


class Repeated:
    """A loader of one batch, again and again, that notes how long a step takes once the first tenth is over."""

    def __init__(self, batch: Any, steps: int) -> None:
        self.batch, self.steps = batch, steps
        self.seconds = 0.0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Any:
        warm, last = self.steps // 10, self.steps - 1
        for i in range(self.steps):
            if i == warm:
                start = time.perf_counter()
            elif i == last:  # whoever iterates may not ask for one more
                self.seconds = (time.perf_counter() - start) / (last - warm)
            yield self.batch


def model_of(torch: Any, case: str) -> tuple[Any, Any, Any, Any]:
    if case != "linear":
        return parts(torch, case)
    model = torch.nn.Linear(16, 4)
    x, y = torch.ones(8, 16), torch.zeros(8, dtype=torch.int64)
    return model, x, y, torch.optim.SGD(model.parameters(), lr=1e-3)


def by_hand(torch: Any, case: str, steps: int) -> float:
    model, x, y, optimizer = model_of(torch, case)
    loader = Repeated((x, y), steps)
    for x, y in loader:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loader.seconds


def by_trainer(torch: Any, L: Any, case: str, steps: int, bare: bool, folder: str) -> float:
    net, x, y, optimizer = model_of(torch, case)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            loss = torch.nn.functional.cross_entropy(self.net(x), y)
            if not bare:
                self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return optimizer

    quiet: dict[str, Any] = {"enable_model_summary": False, "default_root_dir": folder}
    if bare:
        quiet |= {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    loader = Repeated((x, y), steps)
    if torch.__name__ == "torch":
        from lightning.pytorch.plugins.environments import LightningEnvironment

        quiet["plugins"] = [LightningEnvironment()]  # it would look for MPI otherwise
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        L.Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(Module(), loader)
    return loader.seconds


def serve(side: str) -> None:
    """Answers lines of "case way" with the seconds of a step."""
    if side == "torch":
        import torch

        import lightning as L

        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    else:
        import ringgrad as torch  # type: ignore[no-redef]
        import ringgrad.lightning as L  # type: ignore[no-redef]
    for line in sys.stdin:
        case, way, share = line.split()
        steps = max(20, int(STEPS[case] * float(share)))
        with tempfile.TemporaryDirectory() as folder:
            if way == "hand":
                seconds = by_hand(torch, case, steps)
            else:
                seconds = by_trainer(torch, L, case, steps, way == "bare", folder)
        print(json.dumps({"seconds": seconds}), flush=True)


def compare(rounds: int, share: float) -> dict[str, Any]:
    peers = ["torch"] if importlib.util.find_spec("lightning") and importlib.util.find_spec("torch") else []
    sides = [Side(name, __file__, 1) for name in ("ringgrad", *peers)]
    results: dict[str, Any] = {}
    try:
        for case in CASES:
            times: dict[tuple[str, str], list[float]] = {}
            for _ in range(rounds):
                for side in sides:
                    for way in WAYS:
                        answer = side.time(f"{case} {way} {share}")
                        times.setdefault((side.name, way), []).append(answer["seconds"] * 1e6)
            results[case] = {side.name: row({w: times[side.name, w] for w in WAYS}) for side in sides}
    finally:
        for side in sides:
            side.stop()
    return results


def row(times: dict[str, list[float]]) -> dict[str, float]:
    """Medians, and the medians over rounds of what a Trainer adds to the hand-written loop of the same round."""
    out = {f"{way}_us": statistics.median(t) for way, t in times.items()}
    for way in WAYS[1:]:
        added = statistics.median(a - b for a, b in zip(times[way], times["hand"]))
        out[f"{way}_adds_us"], out[f"{way}_adds_percent"] = added, 100 * added / out["hand_us"]
    return {name: round(value, 2) for name, value in out.items()}


def show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="a training step, 1 thread")
    for column in ("case", "side", "by hand us", "bare adds us", "defaults add us", "defaults add %"):
        table.add_column(column, justify="left" if column in ("case", "side") else "right")
    for case, by_side in results.items():
        for side, r in by_side.items():
            cells = (r["hand_us"], r["bare_adds_us"], r["defaults_adds_us"], r["defaults_adds_percent"])
            table.add_row(case, "Lightning" if side == "torch" else side, *(f"{v:,.1f}" for v in cells))
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="few steps and rounds: does it run at all?")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return serve(args.side)
    results = compare(2 if args.quick else args.rounds, 0.05 if args.quick else 1.0)
    show(results)
    if args.json:
        about = {"title": "Trainer overhead", "threads": 1, "machine": machine(), "cores": os.cpu_count()}
        args.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
