"""A hyper-parameter sweep: every rank trains models of its own, and all compare at the end.

    python examples/sweep.py
    ringrun -n 4 examples/sweep.py       # or mpirun -n 4 python, or srun

Nothing is averaged here: rank r takes the settings r, r + world_size, ... Halfway the worse half is given up
(successive halving: K. Jamieson and A. Talwalkar, AISTATS 2016), so that time goes into what promises most.
"""

from __future__ import annotations

import argparse
import itertools
import json
from typing import Any

import ringgrad as rg
from ringgrad import distributed as dist
from ringgrad import nn, optim
from ringgrad.nn import functional as F

GRID = {"lr": [3e-4, 3e-3, 3e-2], "width": [16, 64], "dropout": [0.0, 0.3]}


class Trial:
    """One setting's model and its training so far."""

    def __init__(self, setting: dict[str, Any], data: list[rg.Tensor]) -> None:
        self.setting, self.data = setting, data
        rg.manual_seed(0)  # the same start, whichever rank and whatever it did before
        width, dropout = setting["width"], setting["dropout"]
        self.model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10))
        self.optimizer = optim.Adam(self.model.parameters(), lr=setting["lr"])
        self.epochs = 0

    def train(self, epochs: int) -> float:
        """Goes on for so many epochs; returns the loss on the validation part."""
        x, y, val_x, val_y = self.data
        for _ in range(epochs):
            rg.manual_seed(1 + self.epochs)
            self.model.train()
            for part in rg.randperm(len(x)).split(50):
                loss = F.cross_entropy(self.model(x[part]), y[part])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
            self.epochs += 1
        self.model.eval()
        with rg.no_grad():
            return F.cross_entropy(self.model(val_x), val_y).item()


def data() -> list[rg.Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = rg.tensor(digits.data, dtype=rg.float32) / 16, rg.tensor(digits.target)
    return [x[:1200], y[:1200], x[1200:1500], y[1200:1500]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12, help="of those that are trained to the end")
    args = parser.parse_args()
    dist.init_process_group()
    rank, workers = dist.get_rank(), dist.get_world_size()
    settings = [dict(zip(GRID, values)) for values in itertools.product(*GRID.values())]
    mine = {i: Trial(setting, data()) for i, setting in enumerate(settings) if i % workers == rank}

    first = {i: trial.train(args.epochs // 2) for i, trial in mine.items()}
    everybody: list[Any] = [None] * workers
    dist.all_gather_object(everybody, first)
    losses = {int(i): loss for part in everybody for i, loss in part.items()}
    kept = sorted(losses, key=losses.__getitem__)[: (len(losses) + 1) // 2]

    last = {i: mine[i].train(args.epochs - args.epochs // 2) for i in kept if i in mine}
    dist.all_gather_object(everybody, last)
    final = {int(i): loss for part in everybody for i, loss in part.items()}
    if rank == 0:
        for i in sorted(final, key=final.__getitem__):
            print(f"{final[i]:.4f} (halfway {losses[i]:.4f})  {settings[i]}")
        best = min(final, key=final.__getitem__)
        print(
            "result:",
            json.dumps({"best": settings[best], "loss": final[best], "trials": len(losses)}),
            flush=True,
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
