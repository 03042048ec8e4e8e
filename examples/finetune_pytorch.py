"""Go on from a checkpoint that PyTorch wrote: its file is read without PyTorch and without running its pickle.

    python examples/finetune_pytorch.py                  # makes the checkpoint first, which needs PyTorch
    python examples/finetune_pytorch.py body.pt          # goes on from one that is there

A convolutional body has learnt the digits 0 to 4 in PyTorch. Here it gets a new head for 5 to 9 and few samples: first
the head is trained alone, then all of it with a small learning rate. A body that starts from nothing is the measure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning.metrics import Accuracy
from ringgrad.nn import functional as F


def body(nn: Any) -> Any:
    """The same layers for both: `nn` is torch.nn or ringgrad.nn."""
    first = (nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*first, *second, nn.Flatten())


def digits(wanted: range, count: slice) -> TensorDataset:
    from sklearn.datasets import load_digits

    found = load_digits()
    chosen = [i for i, label in enumerate(found.target) if label in wanted][count]
    images = rg.tensor(found.images[chosen], dtype=rg.float32).unsqueeze(1) / 16
    return TensorDataset(images, rg.tensor(found.target[chosen] - wanted.start))


def pretrain(path: Path, epochs: int) -> None:
    """What somebody has done before, in PyTorch."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(body(torch.nn), torch.nn.Linear(128, 5))
    images, labels = (torch.from_numpy(t.numpy()) for t in digits(range(5), slice(None)).tensors)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(50):
            loss = torch.nn.functional.cross_entropy(model(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"body": model[0].state_dict(), "classes": [0, 1, 2, 3, 4]}, path)


class Classifier(L.LightningModule):
    """A body and a head for 5 classes; the body learns from epoch `thaw` on, with a tenth of the rate."""

    def __init__(self, thaw: int, lr: float = 5e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body, self.head = body(nn), nn.Linear(128, 5)
        self.accuracy = Accuracy("multiclass", num_classes=5)

    def on_train_epoch_start(self) -> None:
        frozen = self.current_epoch < self.hparams.thaw
        self.body.requires_grad_(not frozen)
        self.body.train(not frozen)  # its batch norms keep the statistics they came with

    def training_step(self, batch: list[rg.Tensor], batch_idx: int) -> rg.Tensor:
        loss = F.cross_entropy(self.head(self.body(batch[0])), batch[1])
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: list[rg.Tensor], batch_idx: int) -> None:
        self.accuracy(self.head(self.body(batch[0])), batch[1])
        self.log("accuracy", self.accuracy)

    def configure_optimizers(self) -> optim.Optimizer:
        lr = self.hparams.lr
        groups = [{"params": self.head.parameters()}, {"params": self.body.parameters(), "lr": lr / 10}]
        return optim.AdamW(groups, lr=lr)


def accuracy(state: dict[str, rg.Tensor] | None, epochs: int) -> float:
    L.seed_everything(1, verbose=False)
    model = Classifier(thaw=0 if state is None else epochs // 2)
    if state is not None:
        model.body.load_state_dict(state)  # the names are PyTorch's
    trainer = L.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_model_summary=False, devices=1
    )
    few, rest = digits(range(5, 10), slice(0, 50)), digits(range(5, 10), slice(50, None))
    trainer.fit(model, DataLoader(few, 10, shuffle=True))
    (tested,) = trainer.test(model, DataLoader(rest, 200), verbose=False)
    return tested["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, default=Path("runs/finetune/body.pt"))
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    if not args.checkpoint.exists():
        pretrain(args.checkpoint, epochs=5)
    saved = rg.load(args.checkpoint)
    print(f"{args.checkpoint}: a body that knows {saved['classes']}, {len(saved['body'])} tensors")
    found = {"fine-tuned": accuracy(saved["body"], args.epochs), "from nothing": accuracy(None, args.epochs)}
    for name, value in found.items():
        print(f"{name}: accuracy {value:.3f} on 5 to 9, from 50 samples")
    print("result:", json.dumps(found))


if __name__ == "__main__":
    main()
