"""`torch.xpu`: what scripts ask before they use Intel's GPUs. There is no such backend."""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    """Whether such a GPU can be used: never."""
    return False


def device_count() -> int:
    """How many such GPUs there are to use: none."""
    return 0


def synchronize(device: Any = None) -> None:
    """Nothing to wait for."""


empty_cache = reset_peak_memory_stats = synchronize


def manual_seed(seed: int) -> None:
    """No generator to seed."""


manual_seed_all = manual_seed


def memory_allocated(device: Any = None) -> int:
    """Bytes in use: none."""
    return 0


max_memory_allocated = current_allocated_memory = driver_allocated_memory = memory_allocated


def set_device(device: Any) -> None:
    """There is no such GPU to choose."""
    raise RuntimeError(
        f"[set_device] needs a GPU of a kind that is not supported, came {device!r}: use 'cpu'"
    )


get_device_properties = set_device
__all__ = [
    "current_allocated_memory",
    "device_count",
    "driver_allocated_memory",
    "empty_cache",
    "get_device_properties",
    "is_available",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "memory_allocated",
    "reset_peak_memory_stats",
    "set_device",
    "synchronize",
]
