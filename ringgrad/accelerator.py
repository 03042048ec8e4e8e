"""`torch.accelerator`: the GPU under a neutral name."""

from __future__ import annotations

from typing import Any

from . import cuda


def is_available() -> bool:
    """Whether a GPU can be used by this process."""
    return cuda.is_available()


def current_accelerator(check_available: bool = False) -> Any:
    """The kind of accelerator in use, as a device, or None."""
    if not cuda.is_available():
        return None
    from .tensor.device import device

    return device("cuda")


def device_count() -> int:
    """How many GPUs this process can use."""
    return cuda.device_count()


def set_device_index(device: Any) -> None:
    """Chooses the GPU that 'cuda' means from now on."""
    cuda.set_device(device)


def current_device_index() -> int:
    """Index of the GPU in use."""
    return cuda.current_device()


def synchronize(device: Any = None) -> None:
    """Waits for the GPU."""
    cuda.synchronize(device)
