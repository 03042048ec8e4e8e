"""See a network overfit: a wide perceptron learns 150 digits by heart, and what moving the pictures changes.

    python examples/overfitting.py

The training loss goes to zero while the loss on other digits turns and rises. runs/overfitting/<name>.html shows the
curves of each run; the confusion matrix says which digits are taken for which.
"""

from __future__ import annotations

import argparse
import json

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning.callbacks import HTMLReport
from ringgrad.lightning.metrics import Accuracy, ConfusionMatrix, F1Score
from ringgrad.nn import functional as F

RUNS = {"plain": 0, "augmented": 1}  # by how many pixels training pictures are moved at random


class Perceptron(L.LightningModule):
    def __init__(self, shift: int, width: int = 256, lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        layers: list[nn.Module] = [nn.Flatten()]
        for before in (64, width):
            layers += [nn.Linear(before, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 10))
        self.train_accuracy = Accuracy("multiclass", num_classes=10)
        self.val_accuracy = Accuracy("multiclass", num_classes=10)
        self.f1 = F1Score("multiclass", num_classes=10, average="macro")
        self.confusion = ConfusionMatrix("multiclass", num_classes=10)

    def training_step(self, batch: list[rg.Tensor], batch_idx: int) -> rg.Tensor:
        images, labels = batch
        moves = rg.randint(-self.hparams.shift, self.hparams.shift + 1, (2,)).tolist()
        scores = self.layers(rg.roll(images, moves, (1, 2)))
        loss = F.cross_entropy(scores, labels)
        self.train_accuracy(scores, labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[rg.Tensor], batch_idx: int) -> None:
        images, labels = batch
        scores = self.layers(images)
        self.val_accuracy(scores, labels)
        self.log("val_loss", F.cross_entropy(scores, labels), prog_bar=True)
        self.log("val_accuracy", self.val_accuracy)

    def test_step(self, batch: list[rg.Tensor], batch_idx: int) -> None:
        scores = self.layers(batch[0])
        self.f1(scores, batch[1])
        self.confusion.update(scores, batch[1])
        self.log("test_f1", self.f1)

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.AdamW(self.parameters(), lr=self.hparams.lr)


class Curve(L.Callback):
    """The two losses of every epoch."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.val: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.train.append(trainer.callback_values["train_loss"])
        self.val.append(trainer.callback_values["val_loss"])


def data() -> tuple[TensorDataset, TensorDataset]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = rg.randperm(len(digits.target), generator=rg.Generator().manual_seed(0)).tolist()
    images = rg.tensor(digits.images[order], dtype=rg.float32) / 16
    labels = rg.tensor(digits.target[order])
    return TensorDataset(images[:150], labels[:150]), TensorDataset(images[150:], labels[150:])


def run(name: str, epochs: int, folder: str) -> dict[str, float]:
    L.seed_everything(0, verbose=False)
    model, curve = Perceptron(RUNS[name]), Curve()
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[curve, HTMLReport(f"{folder}/{name}.html")],
        log_every_n_steps=5,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )
    train, other = data()
    trainer.fit(model, DataLoader(train, 32, shuffle=True), DataLoader(other, 256))
    trainer.test(model, DataLoader(other, 256), verbose=False)
    counts = model.confusion.compute().numpy()
    wrong = counts - counts * rg.eye(10, dtype=rg.int64).numpy()
    digit, taken_for = divmod(int(wrong.argmax()), 10)
    best = min(range(epochs), key=curve.val.__getitem__)
    trainer.print(
        f"{name}: training loss {curve.train[-1]:.4f}, validation loss {curve.val[-1]:.3f} (best {curve.val[best]:.3f} "
        f"in epoch {best}); most often {digit} is taken for {taken_for}, {wrong.max()} times"
    )
    gap = curve.val[-1] - curve.train[-1]
    return {
        "gap": gap,
        "best_epoch": best,
        "f1": trainer.callback_values["test_f1"],
        "val_loss": curve.val[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--folder", default="runs/overfitting")
    args = parser.parse_args()
    results = {name: run(name, args.epochs, args.folder) for name in RUNS}
    print("result:", json.dumps(results))


if __name__ == "__main__":
    main()
