"""Train a small CNN on scikit-learn's handwritten digits with the Trainer: metrics, early stopping, the best model.

The same file runs on one worker and on many:

    python examples/digits_lightning.py
    mpirun -n 2 python examples/digits_lightning.py
    ringrun -n 2 examples/digits_lightning.py
"""

from __future__ import annotations

import argparse
import json

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset, random_split
from ringgrad.launch.environment import detect
from ringgrad.lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from ringgrad.lightning.metrics import Accuracy, F1Score
from ringgrad.nn import functional as F


class Digits(L.LightningDataModule):
    """1797 images of 8 x 8 pixels: 1400 for training, 200 for validation, 197 for the test."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        # The global batch is shared out, so that any number of workers makes the same steps.
        self.batch = batch // detect().world_size

    def setup(self, stage: str) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = rg.tensor(digits.images, dtype=rg.float32).unsqueeze(1) / 16
        every = TensorDataset(images, rg.tensor(digits.target))
        self.parts = random_split(every, [1400, 200, 197], rg.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.parts[0], self.batch, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.parts[1], 100)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.parts[2], 100)


class Net(L.LightningModule):
    def __init__(self, lr: float = 2e-3, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, 10),
        )
        self.accuracy = Accuracy("multiclass", num_classes=10)
        self.f1 = F1Score("multiclass", num_classes=10, average="macro")

    def forward(self, x: rg.Tensor) -> rg.Tensor:
        return self.layers(x)

    def training_step(self, batch: list[rg.Tensor], batch_idx: int) -> rg.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: list[rg.Tensor], batch_idx: int) -> None:
        images, labels = batch
        scores = self(images)
        self.log("val_loss", F.cross_entropy(scores, labels), prog_bar=True)
        self.accuracy(scores, labels)
        self.log("val_accuracy", self.accuracy, prog_bar=True)

    def test_step(self, batch: list[rg.Tensor], batch_idx: int) -> None:
        images, labels = batch
        scores = self(images)
        for name, metric in (("accuracy", self.accuracy), ("f1", self.f1)):
            metric(scores, labels)
            self.log(f"test_{name}", metric)

    def configure_optimizers(self) -> dict:
        optimizer = optim.AdamW(self.parameters(), lr=self.hparams.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=64, help="images a step, of all workers")
    parser.add_argument("--folder", default="runs/digits")
    args = parser.parse_args()
    L.seed_everything(0, verbose=False)
    best = ModelCheckpoint(monitor="val_loss", filename="{epoch}-{val_loss:.3f}")
    callbacks = [best, EarlyStopping("val_loss", patience=4), LearningRateMonitor()]
    trainer = L.Trainer(
        max_epochs=args.epochs, callbacks=callbacks, log_every_n_steps=5, default_root_dir=args.folder
    )
    model, data = Net(), Digits(args.batch)
    trainer.fit(model, datamodule=data)
    (tested,) = trainer.test(model, datamodule=data, ckpt_path="best")
    result = {"epochs": trainer.current_epoch, "steps": trainer.global_step, **tested}
    trainer.print("result:", json.dumps(result))


if __name__ == "__main__":
    main()
