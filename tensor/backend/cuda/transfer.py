"""Arrays from memory to memory: host to GPU, GPU to host, GPU to GPU, and page-locked host memory.

Copies are queued on the current stream. A copy from or to pageable memory is waited for; with page-locked memory and
`non_blocking` the call returns at once, and the host array is kept until the copy is done.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from .runtime import load

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
_in_flight: deque[tuple[Any, Any]] = deque()  # (event after the copy, what it reads or writes)
MACHINE = ("_in_flight",)


def to_device(array: Any, index: int, non_blocking: bool = False) -> Any:
    """The array on GPU `index`."""
    cp = load()
    with cp.cuda.Device(index):
        if not isinstance(array, np.ndarray):
            return array.copy() if array.device.id == index else _between(cp, array)
        source = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        out = cp.empty(source.shape, source.dtype)
        if source.nbytes:
            stream = cp.cuda.get_current_stream()
            cp.cuda.runtime.memcpyAsync(
                out.data.ptr, source.ctypes.data, source.nbytes, HOST_TO_DEVICE, stream.ptr
            )
            _settle(cp, stream, source, non_blocking and is_pinned(source))
        return out


def to_host(array: Any, non_blocking: bool = False) -> np.ndarray[Any, Any]:
    """A NumPy array with the elements; with `non_blocking` it is page-locked, and filled once the stream is."""
    cp = load()
    with cp.cuda.Device(array.device.id):
        source = cp.ascontiguousarray(array)
        out = (
            pinned_empty(source.shape, source.dtype) if non_blocking else np.empty(source.shape, source.dtype)
        )
        if source.nbytes:
            stream = cp.cuda.get_current_stream()
            cp.cuda.runtime.memcpyAsync(
                out.ctypes.data, source.data.ptr, source.nbytes, DEVICE_TO_HOST, stream.ptr
            )
            _settle(cp, stream, (source, out), non_blocking)
        return out


def _between(cp: Any, array: Any) -> Any:
    """A copy on the current GPU of an array on another one."""
    with cp.cuda.Device(array.device.id):
        source = cp.ascontiguousarray(array)
        ready = cp.cuda.Event(disable_timing=True)
        ready.record(cp.cuda.get_current_stream())
    out = cp.empty(source.shape, source.dtype)
    stream = cp.cuda.get_current_stream()
    stream.wait_event(ready)
    if source.nbytes:
        cp.cuda.runtime.memcpyAsync(
            out.data.ptr, source.data.ptr, source.nbytes, DEVICE_TO_DEVICE, stream.ptr
        )
        _settle(cp, stream, source, True)
    return out


def _settle(cp: Any, stream: Any, held: Any, later: bool) -> None:
    if not later:
        stream.synchronize()
        return
    done = cp.cuda.Event(disable_timing=True)
    done.record(stream)
    keep_until(done, held)


def keep_until(event: Any, held: Any) -> None:
    """Holds an object until an event has passed; earlier ones that have are let go."""
    while _in_flight and _in_flight[0][0].done:
        _in_flight.popleft()
    _in_flight.append((event, held))


def pinned_empty(shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """An uninitialised NumPy array in page-locked memory, from CuPy's pool of it."""
    cp = load()
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.empty(shape, dtype)
    memory = cp.cuda.alloc_pinned_memory(count * dtype.itemsize)
    return np.frombuffer(memory, np.uint8, count * dtype.itemsize).view(dtype).reshape(shape)


def pin(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy in page-locked memory; the array itself where it is there already."""
    if is_pinned(array):
        return array
    out = pinned_empty(array.shape, array.dtype)
    out[...] = array
    return out


def is_pinned(array: Any) -> bool:
    """Whether a NumPy array lies in page-locked memory that `pin` or `pinned_empty` took."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return type(base).__name__ == "PinnedMemoryPointer"
