"""`torch.cuda`: what scripts ask before they use a GPU. Without a CUDA backend there is none to use."""

from __future__ import annotations

from typing import Any


class OutOfMemoryError(RuntimeError):
    """The GPU's memory does not hold what was asked for."""


def _absent(what: str) -> RuntimeError:
    return RuntimeError(
        f"[cuda] {what} needs a GPU, and this process can use none: cuda.is_available() tells before"
    )


def is_available() -> bool:
    """Whether a GPU can be used by this process."""
    return False


def is_initialized() -> bool:
    """Whether the GPU runtime has been started."""
    return False


def init() -> None:
    """Starts the GPU runtime; an error where there is none."""
    raise _absent("init")


def device_count() -> int:
    """How many GPUs this process can use."""
    return 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the GPU computes in bfloat16."""
    return False


def current_device() -> int:
    """Index of the GPU in use."""
    raise _absent("current_device")


def set_device(device: Any) -> None:
    """Chooses the GPU that 'cuda' means from now on; nothing to choose from on a CPU."""
    name = str(device)
    if name not in ("cpu", "-1"):
        raise _absent(f"set_device({device!r})")


def get_device_name(device: Any = None) -> str:
    """The GPU's name."""
    raise _absent("get_device_name")


def get_device_properties(device: Any = None) -> Any:
    """Memory, processors and compute capability of a GPU."""
    raise _absent("get_device_properties")


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The GPU's compute capability."""
    raise _absent("get_device_capability")


def synchronize(device: Any = None) -> None:
    """Waits for the GPU; nothing to wait for on a CPU."""


def empty_cache() -> None:
    """Gives cached GPU memory back; there is none on a CPU."""


def ipc_collect() -> None:
    """Frees memory shared with processes that are gone; there is none on a CPU."""


def manual_seed(seed: int) -> None:
    """Seeds the current GPU's generator; without a GPU, nothing."""


def manual_seed_all(seed: int) -> None:
    """Seeds all GPUs' generators; without a GPU, nothing."""


def get_rng_state_all() -> list[Any]:
    """The states of all GPUs' generators: none."""
    return []


def set_rng_state_all(new_states: Any) -> None:
    """Puts back what get_rng_state_all gave."""


def memory_allocated(device: Any = None) -> int:
    """Bytes of GPU memory that tensors take."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    """Most bytes of GPU memory that tensors have taken at once."""
    return 0


memory_reserved = max_memory_reserved = memory_cached = max_memory_cached = memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    """Starts the maximum anew."""


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """A table of GPU memory in use."""
    return "no GPU in use"


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of GPU memory."""
    raise _absent("mem_get_info")


class Stream:
    """A queue of GPU work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise _absent("Stream")


class Event:
    """A mark in a queue of GPU work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise _absent("Event")


def current_stream(device: Any = None) -> Any:
    """The queue that GPU work goes to."""
    raise _absent("current_stream")


def __getattr__(name: str) -> Any:
    if name == "amp":
        import importlib

        return importlib.import_module(".amp", __name__)
    if name.endswith("Tensor"):
        from ..tensor.legacy import TYPES

        if name in TYPES:  # scripts choose between torch.cuda.FloatTensor and torch.FloatTensor
            return TYPES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
