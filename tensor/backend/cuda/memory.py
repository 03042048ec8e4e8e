"""How much GPU memory is in use, by the pool that CuPy's arrays come from."""

from __future__ import annotations

from typing import Any

from .runtime import check_index, load
from .streams import device_index

_peaks: dict[int, int] = {}
_hooks: list[Any] = []
MACHINE = ("_peaks", "_hooks")


def _at(device: Any) -> Any:
    return load().cuda.Device(check_index(device_index(device)))


def allocated(device: Any = None) -> int:
    """Bytes that arrays take now."""
    with _at(device):
        return int(load().get_default_memory_pool().used_bytes())


def reserved(device: Any = None) -> int:
    """Bytes that the pool holds, those kept for later arrays included."""
    with _at(device):
        return int(load().get_default_memory_pool().total_bytes())


def peak(device: Any = None) -> int:
    """Most bytes that arrays took at once since `reset_peak`.

    Watching costs a Python call an array, so it begins with the first `reset_peak`; before that the bytes that the pool
    holds are given, which the peak cannot have passed unless the cache was emptied.
    """
    with _at(device) as d:
        if not _hooks:
            return reserved(device)
        return max(_peaks.get(d.id, 0), allocated(device))


def reset_peak(device: Any = None) -> None:
    """Starts the peak anew, and begins to watch."""
    with _at(device) as d:
        if not _hooks:
            _watch()
        _peaks[d.id] = allocated(device)


def _watch() -> None:
    cp = load()

    base: Any = cp.cuda.MemoryHook

    class Watch(base):
        name = "ringgrad peak"
        now: dict[int, int] = {}

        def malloc_postprocess(self, **kw: Any) -> None:
            d = kw["device_id"]
            total = self.now[d] = self.now.get(d, 0) + kw["mem_size"]
            if total > _peaks.get(d, 0):
                _peaks[d] = total

        def free_postprocess(self, **kw: Any) -> None:
            d = kw["device_id"]
            self.now[d] = self.now.get(d, 0) - kw["mem_size"]

    hook = Watch()
    for d in range(cp.cuda.runtime.getDeviceCount()):
        hook.now[d] = allocated(d)
    hook.__enter__()
    _hooks.append(hook)


def empty_cache() -> None:
    """Gives the pool's unused memory back to the GPU."""
    load().get_default_memory_pool().free_all_blocks()


def info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of the GPU."""
    with _at(device):
        free, total = load().cuda.runtime.memGetInfo()
        return int(free), int(total)


def summary(device: Any = None) -> str:
    """A table of the memory in use."""
    free, total = info(device)
    rows = [
        ("taken by tensors", allocated(device)),
        ("most at once", peak(device)),
        ("held by the pool", reserved(device)),
        ("free on the GPU", free),
        ("total", total),
    ]
    with _at(device) as d:
        head = f"GPU memory of cuda:{d.id}"
    return "\n".join([head, *(f"  {name:<18}{size / (1 << 20):>12.1f} MiB" for name, size in rows)])
