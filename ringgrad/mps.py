"""`torch.mps`: what scripts ask before they use Apple's GPUs. There is no such backend."""

from .xpu import (
    current_allocated_memory,
    device_count,
    driver_allocated_memory,
    empty_cache,
    is_available,
    manual_seed,
    synchronize,
)

__all__ = [
    "current_allocated_memory",
    "device_count",
    "driver_allocated_memory",
    "empty_cache",
    "is_available",
    "manual_seed",
    "synchronize",
]
