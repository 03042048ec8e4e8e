"""The Trainer on two workers: what it trains and evaluates is what one worker does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from script_job import result_of, ringrun

SCRIPT = """
import json, sys
import ringgrad as rg, ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning.metrics import AUROC, Accuracy

mode, folder = sys.argv[1:]
L.seed_everything(0, verbose=False)
x = rg.randn(21, 4)
y = (x.sum(1) > 0).long()
from ringgrad.launch.environment import detect
batch = 4 // detect().world_size

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = mode != "manual"
        self.layer = nn.Linear(4, 2)
        self.accuracy, self.auroc = Accuracy("multiclass", num_classes=2), AUROC("multiclass", num_classes=2)
        self.seen = []
    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        if mode == "manual":
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss
    def validation_step(self, batch, batch_idx):
        scores = self.layer(batch[0])
        self.accuracy(scores, batch[1])
        self.auroc(scores, batch[1])
        self.log("val_loss", nn.functional.cross_entropy(scores, batch[1]))
        self.log("n", float(len(batch[0])), reduce_fx="sum")
        self.log("accuracy", self.accuracy)
        self.log("auroc", self.auroc)
    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=0.1)

train = DataLoader(TensorDataset(x[:16], y[:16]), batch)
trainer = L.Trainer(max_epochs=2, accumulate_grad_batches=2 if mode == "accumulate" else 1, default_root_dir=folder,
                    enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1)
model = Net()
trainer.fit(model, train, DataLoader(TensorDataset(x, y), 3))
fit = dict(trainer.callback_values)
one = trainer.validate(model, DataLoader(TensorDataset(x[:1], y[:1]), 3), verbose=False)[0]["n"]
weights = [round(w, 5) for w in model.layer.weight.reshape(-1).tolist()]
out = json.dumps({"steps": trainer.global_step, "weights": weights, "one": one, "world": trainer.world_size,
                  "fit": {k: round(v, 5) for k, v in fit.items()}})
trainer.print("result:", out)
"""


def run(launch: list[str], mode: str, folder: Path) -> dict[str, Any]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    return result_of([*launch, script, mode, folder])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["plain", "manual", "accumulate"])
def test_two_workers_are_as_one(mode: str, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    alone = run([sys.executable], mode, tmp_path / "1")
    both = run(ringrun(2), mode, tmp_path / "2")
    assert (alone.pop("world"), both.pop("world")) == (1, 2)
    assert both["steps"] == alone["steps"] and both["one"] == alone["one"] == 1.0
    assert both["weights"] == pytest.approx(alone["weights"], abs=2e-5)
    assert both["fit"] == pytest.approx(alone["fit"], abs=2e-5)
    assert both["fit"]["n"] == 21.0  # no sample is counted twice
    assert len(list((tmp_path / "2").rglob("*.ckpt"))) == 1
    assert len(list((tmp_path / "2").rglob("metrics.csv"))) == 1
