"""MNIST from files that the user has, as examples of Lightning ask for it."""

from __future__ import annotations

from typing import Any

from ...data import DataLoader, random_split, vision
from ...tensor import Tensor
from ...tensor.creation import tensor
from ...tensor.generator import Generator
from ..datamodule import LightningDataModule

MEAN, STD = 0.1307, 0.3081  # of the training images


class MNIST(vision.MNIST):
    """Samples are (float32 (1, 28, 28), class): in [0, 1], less the mean over the deviation of `normalize`; or whatever
    `transform` makes of the uint8 array. Nothing is downloaded.
    """

    def __init__(
        self,
        root: Any,
        train: bool = True,
        normalize: tuple[float, float] | None = (MEAN, STD),
        download: bool = True,
        transform: Any = None,
    ) -> None:
        super().__init__(root, train, transform or self._as_tensor)
        self.normalize = normalize

    def _as_tensor(self, image: Any) -> Tensor:
        x = tensor(image)[None] / 255
        return x if self.normalize is None else (x - self.normalize[0]) / self.normalize[1]


class MNISTDataModule(LightningDataModule):
    """Training images less `val_split`, those for validation, and the test images."""

    name = "mnist"

    def __init__(
        self,
        data_dir: str = "./data",
        val_split: int = 5000,
        num_workers: int = 0,
        normalize: bool = False,
        seed: int = 42,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        self.data_dir, self.val_split, self.num_workers = data_dir, val_split, num_workers
        self.normalize, self.seed, self.batch_size = normalize, seed, batch_size
        self.dataset_train: Any = None
        self.dataset_val: Any = None

    @property
    def num_classes(self) -> int:
        return 10

    def _images(self, train: bool) -> MNIST:
        return MNIST(self.data_dir, train, (MEAN, STD) if self.normalize else None)

    def setup(self, stage: str) -> None:
        images = self._images(True)
        lengths = [len(images) - self.val_split, self.val_split]
        self.dataset_train, self.dataset_val = random_split(
            images, lengths, generator=Generator().manual_seed(self.seed)
        )

    def _loader(self, images: Any, train: bool = False) -> DataLoader[Any]:
        options: dict[str, Any] = dict(num_workers=self.num_workers, drop_last=True, pin_memory=True)
        return DataLoader(images, self.batch_size, shuffle=train, **options)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.dataset_train, True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.dataset_val)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._images(False))
