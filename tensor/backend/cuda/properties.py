"""What a GPU is: name, memory, processors."""

from __future__ import annotations

from typing import Any, NamedTuple

from .runtime import check_index, load
from .streams import device_index


class Properties(NamedTuple):
    """A GPU's name, compute capability, bytes of memory and multiprocessors, under PyTorch's names."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    L2_cache_size: int
    warp_size: int
    max_threads_per_multi_processor: int
    shared_memory_per_block_optin: int


_known: dict[int, Properties] = {}
MACHINE = ("_known",)


def of(device: Any = None) -> Properties:
    """The properties of a GPU."""
    index = check_index(device_index(device))
    if index not in _known:
        p = load().cuda.runtime.getDeviceProperties(index)
        name = p["name"]
        _known[index] = Properties(
            name.decode() if isinstance(name, bytes) else str(name),
            int(p["major"]),
            int(p["minor"]),
            int(p["totalGlobalMem"]),
            int(p["multiProcessorCount"]),
            int(p["l2CacheSize"]),
            int(p["warpSize"]),
            int(p["maxThreadsPerMultiProcessor"]),
            int(p.get("sharedMemPerBlockOptin", 49152)),
        )
    return _known[index]
