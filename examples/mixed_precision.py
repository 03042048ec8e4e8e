"""One network in float32, bfloat16 and float16: `Trainer(precision=...)` is all that changes.

    python examples/mixed_precision.py

Parameters stay in float32. Products are computed in 16 bits ("bf16-mixed"), or in float16 with a scaled loss, so that
small gradients do not vanish and a step that overflows is left out ("16-mixed"). On a CPU without 16-bit units this
saves no time: it shows what the numbers do.
"""

from __future__ import annotations

import argparse
import json
import time

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning.metrics import Accuracy
from ringgrad.nn import functional as F


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(), nn.Linear(128, 10))
        self.accuracy = Accuracy("multiclass", num_classes=10)
        self.seen: set[str] = set()  # dtypes of what the layers gave

    def training_step(self, batch: list[rg.Tensor], batch_idx: int) -> rg.Tensor:
        scores = self.layers(batch[0])
        self.seen.add(str(scores.dtype))
        return F.cross_entropy(scores, batch[1])

    def test_step(self, batch: list[rg.Tensor], batch_idx: int) -> None:
        self.accuracy(self.layers(batch[0]), batch[1])
        self.log("accuracy", self.accuracy)

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.AdamW(self.parameters(), lr=3e-3)


def run(precision: str, epochs: int, train: TensorDataset, test: TensorDataset) -> dict[str, object]:
    L.seed_everything(0, verbose=False)
    model = Net()
    trainer = L.Trainer(
        precision=precision,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    start = time.perf_counter()
    trainer.fit(model, DataLoader(train, 50, shuffle=True))
    seconds = time.perf_counter() - start
    (tested,) = trainer.test(model, DataLoader(test, 100), verbose=False)
    assert all(p.dtype is rg.float32 for p in model.parameters())
    (computed,) = model.seen
    print(f"{precision:>10}: computed in {computed}, accuracy {tested['accuracy']:.3f}, {seconds:.2f} s")
    return {"accuracy": tested["accuracy"], "computed": computed}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = rg.tensor(digits.data, dtype=rg.float32) / 16, rg.tensor(digits.target)
    train, test = TensorDataset(images[:1400], labels[:1400]), TensorDataset(images[1400:], labels[1400:])
    results = {p: run(p, args.epochs, train, test) for p in ("32", "bf16-mixed", "16-mixed")}
    print("result:", json.dumps(results))


if __name__ == "__main__":
    main()
