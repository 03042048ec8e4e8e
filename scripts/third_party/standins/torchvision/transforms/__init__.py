"""Transforms of pictures, drawing from torch's generator as torchvision's do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class Compose:
    def __init__(self, transforms: Any) -> None:
        self.transforms = transforms

    def __call__(self, picture: Any) -> Any:
        for transform in self.transforms:
            picture = transform(picture)
        return picture


class ToTensor:
    def __call__(self, picture: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float().div(255)


class Normalize:
    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def __call__(self, picture: Any) -> Any:
        return picture.sub(self.mean).div(self.std)


class Resize:
    """Leaves the picture as it is: the made-up pictures have the size that they are made with."""

    def __init__(self, size: Any, *_: Any) -> None:
        pass

    def __call__(self, picture: Any) -> Any:
        return picture


CenterCrop = Resize


class RandomCrop:
    def __init__(self, size: int, padding: int = 0) -> None:
        self.size, self.padding = size, padding

    def __call__(self, picture: Any) -> Any:
        p = self.padding
        picture = np.pad(picture, ((p, p), (p, p), (0, 0)))
        y, x = (int(torch.randint(0, n - self.size + 1, (1,))) for n in picture.shape[:2])
        return picture[y : y + self.size, x : x + self.size]


class RandomHorizontalFlip:
    def __call__(self, picture: Any) -> Any:
        return picture[:, ::-1] if torch.rand(1) < 0.5 else picture
