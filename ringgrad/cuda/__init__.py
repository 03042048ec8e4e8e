"""`torch.cuda`: GPUs, their streams, memory and random numbers. Safe to ask anything on a machine without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..tensor.settings import OutOfMemoryError

_LATE = {
    "Stream": ("streams", "Stream"),
    "Event": ("streams", "Event"),
    "CUDAGraph": ("graph", "CUDAGraph"),
    "graph": ("graph", "graph"),
    "make_graphed_callables": ("graph", "make_graphed_callables"),
    "is_current_stream_capturing": ("graph", "is_capturing"),
    "graph_pool_handle": ("graph", "pool_handle"),
}


def _backend(module: str) -> Any:
    """A module of the CUDA backend; RuntimeError where no GPU can be used."""
    import importlib

    from ..tensor.backend.cuda import runtime

    runtime.load()
    return importlib.import_module(f"..tensor.backend.cuda.{module}", __package__)


def _in_use() -> bool:
    from ..tensor.backend.cuda import runtime

    return runtime.loaded()


def is_available() -> bool:
    """Whether a GPU can be used by this process."""
    return device_count() > 0


def is_initialized() -> bool:
    """Whether the GPU runtime has been started."""
    return _in_use()


def init() -> None:
    """Starts the GPU runtime; an error that says what is missing where there is none."""
    _backend("runtime")


def device_count() -> int:
    """How many GPUs this process can use."""
    from ..tensor.backend.cuda import runtime

    return runtime.device_count()


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the GPU computes in bfloat16: from compute capability 8.0 on."""
    return is_available() and get_device_capability()[0] >= 8


def current_device() -> int:
    """Index of the GPU in use."""
    return _backend("runtime").check_index(None)


def set_device(device: Any) -> None:
    """Chooses the GPU that 'cuda' means from now on; nothing to choose from on a CPU."""
    if str(device) in ("cpu", "-1"):
        return
    index = _backend("streams").device_index(device)
    if index is not None:
        runtime = _backend("runtime")
        runtime.load().cuda.runtime.setDevice(runtime.check_index(index))


class device:
    """`with ringgrad.cuda.device(1):` makes 'cuda' mean that GPU inside; None and -1 change nothing."""

    def __init__(self, device: Any) -> None:
        negative = isinstance(device, int) and device < 0
        self.idx = -1 if device is None or negative else _backend("streams").device_index(device)
        self.idx = -1 if self.idx is None else self.idx

    def __enter__(self) -> device:
        if self.idx >= 0:
            self.before = current_device()
            set_device(self.idx)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.idx >= 0:
            set_device(self.before)


class device_of(device):
    """Makes 'cuda' mean the GPU of a tensor inside; a CPU tensor changes nothing."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.get_device() if obj.is_cuda else -1)


def get_device_name(device: Any = None) -> str:
    """The GPU's name."""
    return get_device_properties(device).name


def get_device_properties(device: Any = None) -> Any:
    """Memory, processors and compute capability of a GPU."""
    return _backend("properties").of(device)


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The GPU's compute capability, such as (9, 0)."""
    p = get_device_properties(device)
    return p.major, p.minor


def get_arch_list() -> list[str]:
    """Architectures for which kernels are compiled: those of the GPUs that are there."""
    found = {get_device_capability(i) for i in range(device_count())}
    return [f"sm_{major}{minor}" for major, minor in sorted(found)]


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether one GPU can read the memory of another."""
    streams, runtime = _backend("streams"), _backend("runtime")
    a, b = (runtime.check_index(streams.device_index(d)) for d in (device, peer_device))
    return bool(runtime.load().cuda.runtime.deviceCanAccessPeer(a, b))


def synchronize(device: Any = None) -> None:
    """Waits for all work of the GPU; nothing to wait for on a CPU."""
    if _in_use():
        _backend("streams").synchronize(device)


def current_stream(device: Any = None) -> Any:
    """The queue that GPU work goes to."""
    return _backend("streams").current(device)


def default_stream(device: Any = None) -> Any:
    """The queue that is used where none is chosen."""
    return _backend("streams").default(device)


def set_stream(stream: Any) -> None:
    """Sends GPU work to a stream from now on."""
    if stream is not None:
        stream._stream.use()


@contextmanager
def stream(stream: Any) -> Iterator[None]:
    """Sends the GPU work inside to a stream; None changes nothing."""
    if stream is None:
        yield
        return
    with device(stream.device_index), stream:
        yield


StreamContext = stream

# ---- memory


def empty_cache() -> None:
    """Gives cached GPU memory back; there is none on a CPU."""
    if _in_use():
        _backend("memory").empty_cache()


def ipc_collect() -> None:
    """Frees memory shared with processes that are gone: done when the mappings are closed."""


def memory_allocated(device: Any = None) -> int:
    """Bytes of GPU memory that tensors take."""
    return _backend("memory").allocated(device) if _in_use() else 0


def max_memory_allocated(device: Any = None) -> int:
    """Most bytes of GPU memory that tensors have taken at once since `reset_peak_memory_stats`.

    Watching begins with the first `reset_peak_memory_stats`; before that, the most that the pool has held.
    """
    return _backend("memory").peak(device) if _in_use() else 0


def memory_reserved(device: Any = None) -> int:
    """Bytes of GPU memory that this process holds for tensors, in use or not."""
    return _backend("memory").reserved(device) if _in_use() else 0


max_memory_reserved = memory_cached = max_memory_cached = memory_reserved


def reset_peak_memory_stats(device: Any = None) -> None:
    """Starts the maximum anew."""
    if _in_use():
        _backend("memory").reset_peak(device)


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def memory_stats(device: Any = None) -> dict[str, int]:
    """The figures above under PyTorch's keys."""
    return {
        "allocated_bytes.all.current": memory_allocated(device),
        "allocated_bytes.all.peak": max_memory_allocated(device),
        "reserved_bytes.all.current": memory_reserved(device),
    }


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """A table of GPU memory in use."""
    return _backend("memory").summary(device) if _in_use() else "no GPU in use"


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of GPU memory."""
    return _backend("memory").info(device)


# ---- random numbers


def _on_gpu(act: Callable[[Any], Any], otherwise: Any = None) -> Any:
    """Something done with the random numbers' module where a GPU is in use or can be."""
    return act(_backend("random")) if _in_use() or is_available() else otherwise


def manual_seed(seed: int) -> None:
    """Seeds the current GPU's generator; without a GPU, nothing."""
    _on_gpu(lambda random: random.default().manual_seed(seed))


def manual_seed_all(seed: int) -> None:
    """Seeds all GPUs' generators; without a GPU, nothing."""
    _on_gpu(lambda random: [random.default(i).manual_seed(seed) for i in range(device_count())])


def seed() -> None:
    """Seeds the current GPU's generator from the system; without a GPU, nothing."""
    _on_gpu(lambda random: random.default().seed())


def initial_seed() -> int:
    """The seed of the current GPU's generator."""
    return _backend("random").default().initial_seed()


def get_rng_state(device: Any = "cuda") -> Any:
    """The state of a GPU's generator: 16 bytes, seed and offset."""
    return _backend("random").default_of(device).get_state()


def set_rng_state(new_state: Any, device: Any = "cuda") -> None:
    """Puts a GPU's generator into a state from `get_rng_state`."""
    _backend("random").default_of(device).set_state(new_state)


def get_rng_state_all() -> list[Any]:
    """The states of all GPUs' generators."""
    return _on_gpu(lambda random: [random.default(i).get_state() for i in range(device_count())], [])


def set_rng_state_all(new_states: Any) -> None:
    """Puts back what get_rng_state_all gave."""
    for i, state in enumerate(new_states):
        _backend("random").default(i).set_state(state)


def __getattr__(name: str) -> Any:
    if name == "amp":
        import importlib

        return importlib.import_module(".amp", __name__)
    if name in _LATE:
        module, found = _LATE[name]
        import importlib

        return getattr(importlib.import_module(f"..tensor.backend.cuda.{module}", __package__), found)
    if name.endswith("Tensor"):
        from ..tensor.legacy import TYPES

        if name in TYPES:  # scripts choose between torch.cuda.FloatTensor and torch.FloatTensor
            return TYPES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")



__all__ = ["OutOfMemoryError", *_LATE]
