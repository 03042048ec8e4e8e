"""What dropout multiplies with, drawn as PyTorch draws it."""

from __future__ import annotations

from typing import Any

from .. import generator


def dropout_noise(shape: tuple[int, ...], p: float, dtype: Any) -> Any:
    """1 / (1 - p) with probability 1 - p, else 0. Nothing is drawn where p is 0 or 1."""
    noise = generator.default_generator.bernoulli(1.0 - p, shape, dtype)
    noise /= dtype.type(1.0 - p)
    return noise


def channel_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one number for each channel of each sample."""
    return (*shape[:2], *(1 for _ in shape[2:]))
