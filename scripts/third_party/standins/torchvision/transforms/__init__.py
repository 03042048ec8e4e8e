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
        return (
            torch.from_numpy(np.ascontiguousarray(np.atleast_3d(picture).transpose(2, 0, 1)))
            .to(torch.get_default_dtype())
            .div(255)
        )


class Normalize:
    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def __call__(self, picture: Any) -> Any:
        return picture.sub(self.mean).div(self.std)


class Resize:
    """Nearest elements; a square of `size`."""

    def __init__(self, size: Any, *_: Any) -> None:
        self.size = size if isinstance(size, int) else size[0]

    def __call__(self, picture: Any) -> Any:
        rows, columns = (np.arange(self.size) * n // self.size for n in picture.shape[:2])
        return picture[rows[:, None], columns]


class CenterCrop(Resize):
    def __call__(self, picture: Any) -> Any:
        top, left = ((n - self.size) // 2 for n in picture.shape[:2])
        return picture[top : top + self.size, left : left + self.size]


class Pad:
    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, picture: Any) -> Any:
        p = self.padding
        return np.pad(picture, ((p, p), (p, p), (0, 0)))


class Lambda:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, picture: Any) -> Any:
        return self.function(picture)


class RandomCrop:
    def __init__(self, size: int, padding: int = 0) -> None:
        self.size, self.padding = size, padding

    def __call__(self, picture: Any) -> Any:
        picture = Pad(self.padding)(picture)
        y, x = (int(torch.randint(0, n - self.size + 1, (1,))) for n in picture.shape[:2])
        return picture[y : y + self.size, x : x + self.size]


class RandomHorizontalFlip:
    def __call__(self, picture: Any) -> Any:
        return picture[:, ::-1] if torch.rand(1) < 0.5 else picture
