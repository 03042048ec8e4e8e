"""The smallest model and data that go through every step of a Trainer: for tests and reports of mistakes."""

from __future__ import annotations

from typing import Any

from ...data import DataLoader, Dataset
from ...nn import Linear
from ...optim import SGD
from ...optim.lr_scheduler import StepLR
from ...tensor import Tensor
from ...tensor.random import randn
from ..datamodule import LightningDataModule
from ..module import LightningModule


class RandomDataset(Dataset[Any]):
    """`length` normally distributed vectors of `size` numbers."""

    def __init__(self, size: int, length: int) -> None:
        self.len, self.data = length, randn(length, size)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index]

    def __len__(self) -> int:
        return self.len


def _loader() -> DataLoader[Any]:
    return DataLoader(RandomDataset(32, 64))


class BoringModel(LightningModule):
    """Linear(32, 2), whose outputs are pulled to 1; validation returns a dict with "x", the test one with "y"."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def loss(self, preds: Tensor) -> Tensor:
        return ((preds - 1) ** 2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.loss(self(batch))}

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        return {"x": self.loss(self(batch))}

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        return {"y": self.loss(self(batch))}

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.layer.parameters(), lr=0.1)
        return [optimizer], [StepLR(optimizer, step_size=1)]

    def train_dataloader(self) -> Any:
        return _loader()

    def val_dataloader(self) -> Any:
        return _loader()

    def test_dataloader(self) -> Any:
        return _loader()

    def predict_dataloader(self) -> Any:
        return _loader()


class BoringDataModule(LightningDataModule):
    """64 random vectors for each stage."""

    def train_dataloader(self) -> Any:
        return _loader()

    def val_dataloader(self) -> Any:
        return _loader()

    def test_dataloader(self) -> Any:
        return _loader()

    def predict_dataloader(self) -> Any:
        return _loader()


class DemoModel(LightningModule):
    """Linear(32, out_dim) with a learning rate that is a hyperparameter."""

    def __init__(self, out_dim: int = 10, learning_rate: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.l1 = Linear(32, out_dim)
        self.learning_rate = learning_rate

    def forward(self, x: Tensor) -> Tensor:
        return self.l1(x.view(x.size(0), -1)).relu()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch).sum()

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=self.learning_rate)
