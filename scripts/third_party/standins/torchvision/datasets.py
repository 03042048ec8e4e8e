"""Data sets of made-up pictures: a bright bar whose place tells the class, in noise. The same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

COUNT = 640


class Pictures:
    """Pairs of a picture (height, width, channels) in uint8, which the transform turns into a tensor, and its class."""

    shape = (28, 28, 1)

    def __init__(
        self,
        root: Any = None,
        train: bool = True,
        transform: Any = None,
        target_transform: Any = None,
        download: bool = False,
    ) -> None:
        rng = np.random.default_rng(0 if train else 1)
        self.transform, self.target_transform = transform, target_transform
        self.targets = rng.integers(0, 10, COUNT).tolist()
        self.data = rng.integers(0, 120, (COUNT, *self.shape), dtype=np.uint8)
        width = self.shape[1] // 10
        for picture, label in zip(self.data, self.targets):
            picture[:, label * width : label * width + width] += 120
        self.classes = [str(i) for i in range(10)]

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> tuple[Any, int]:
        picture, label = self.data[i], self.targets[i]
        picture = picture if self.transform is None else self.transform(picture)
        return picture, label if self.target_transform is None else self.target_transform(label)


class MNIST(Pictures):
    """`data` and `targets` are tensors, as torchvision's are."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.data, self.targets = torch.from_numpy(self.data[..., 0]), torch.tensor(self.targets)
        self.train_data = self.test_data = self.data  # names of older versions
        self.train_labels = self.test_labels = self.targets

    def __getitem__(self, i: int) -> tuple[Any, int]:
        picture = self.data[i].numpy()[..., None]
        label = int(self.targets[i])
        picture = picture if self.transform is None else self.transform(picture)
        return picture, label if self.target_transform is None else self.target_transform(label)


class FashionMNIST(MNIST):
    pass


class CIFAR10(Pictures):
    shape = (32, 32, 3)


class FakeData(Pictures):
    def __init__(self, size: int = 0, image_size: Any = (3, 64, 64), transform: Any = None, **_: Any) -> None:
        self.shape = (*image_size[1:], image_size[0])
        super().__init__(transform=transform)
