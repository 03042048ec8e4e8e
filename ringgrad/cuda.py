"""`ringgrad.cuda`: what scripts ask before they use a GPU."""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    """Whether a GPU can be used by this process."""
    return False


def device_count() -> int:
    """How many GPUs this process can use."""
    return 0


def synchronize(device: Any = None) -> None:
    """Waits for the GPU; nothing to wait for on a CPU."""


def empty_cache() -> None:
    """Gives cached GPU memory back; there is none on a CPU."""


def manual_seed(seed: int) -> None:
    """Seeds the current GPU's generator; without a GPU, nothing."""


def manual_seed_all(seed: int) -> None:
    """Seeds all GPUs' generators; without a GPU, nothing."""
