"""The device side of the stand-in for CuPy: memory, streams, events, captured graphs.

Work is done at once, in the order of the calls; what a real GPU would leave undefined is an error here. Every stream
has a clock, and knows how far the others had come when it last waited for them; every allocation knows which stream
wrote it and when, and who read it since. So a use on another stream without an event is found in the first run.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

ALIGN = 512


class RaceError(AssertionError):
    """Memory used on a stream that was not told to wait for another's work on it."""


class CaptureError(AssertionError):
    """Something that cannot be recorded into a graph happened while one was recorded."""


class OutOfMemoryError(MemoryError):
    """The pool's limit is reached."""


class State:
    """What the fake knows of its machine."""

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.local = threading.local()
        self.host: dict[int, int] = {}  # stream -> how far the host has waited for it
        self.launches: list[str] = []  # names of kernels and functions, in order
        self.limit: int | None = None
        self.live: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()
        self.capturing: Stream | None = None
        self.relaxed = False

    @property
    def device(self) -> int:
        return getattr(self.local, "device", 0)

    @device.setter
    def device(self, index: int) -> None:
        assert 0 <= index < self.devices, f"cudaErrorInvalidDevice: {index}"
        self.local.device = index

    @property
    def stream(self) -> Stream:
        streams = self.local.__dict__.setdefault("streams", {})
        return streams.get(self.device) or null_stream(self.device)


state = State()
_null: dict[int, Stream] = {}
_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()


def stream_at(ptr: int) -> Stream:
    """The stream of a handle; 0 is the current device's null stream."""
    return null_stream(state.device) if ptr == 0 else _streams[ptr]


def reset(devices: int = 1) -> None:
    """A fresh machine."""
    global state
    state = State(devices)
    _null.clear()


def null_stream(device: int) -> Stream:
    if device not in _null:
        _null[device] = Stream(null=True, device=device)
    return _null[device]


def forbid(what: str) -> None:
    """Raises while a graph is recorded."""
    if state.capturing is not None:
        raise CaptureError(f"{what} while a graph is recorded")


# ---- memory


class Memory:
    """One allocation, with the last writer and the readers since; `ptr` is a true host address, 512-byte aligned."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.buffer = np.full(size + ALIGN, 0xFF, np.uint8)  # garbage: floats are NaN
        self.offset = -self.buffer.ctypes.data % ALIGN
        self.ptr = self.buffer.ctypes.data + self.offset
        self.device_id = state.device
        self.writer: tuple[int, int] | None = None
        self.readers: dict[int, int] = {}
        self.hooks: list[Any] = []
        state.live[self.ptr] = self

    def __del__(self) -> None:
        for hook in self.hooks:
            hook.free_postprocess(device_id=self.device_id, mem_size=self.size, mem_ptr=self.ptr, pmem_id=0)


class MemoryPointer:
    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.offset, self.ptr = mem, offset, mem.ptr + offset
        self.device_id = mem.device_id

    def __add__(self, n: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.offset + n)


def alloc_pinned_memory(size: int) -> Any:
    class PinnedMemoryPointer(ctypes.c_char * size):  # type: ignore[misc]  # with CuPy's name, as `is_pinned` looks for it
        pass

    forbid("page-locked memory was allocated")
    return PinnedMemoryPointer()


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, max(device_id, 0)
        self.memory = owner if isinstance(owner, Memory) else memory_at(ptr)


def memory_at(ptr: int) -> Memory | None:
    """The live allocation that an address lies in."""
    for start, memory in list(state.live.items()):
        if start <= ptr < start + max(memory.size, 1):
            return memory
    return None


_raw: dict[int, Memory] = {}


def raw_malloc(size: int) -> int:
    """cudaMalloc: memory that no pool knows."""
    memory = Memory(size)
    _raw[memory.ptr] = memory
    return memory.ptr


def raw_free(ptr: int) -> None:
    del _raw[ptr]


class MemoryPool:
    """Counts what is held; keeps nothing back."""

    def __init__(self) -> None:
        self.total = 0

    def malloc(self, size: int) -> MemoryPointer:
        if state.capturing is not None and state.local.__dict__.get("arena") is not self:
            raise CaptureError(f"{size} bytes were allocated outside of the graph's own pool")
        if state.limit is not None and self.used_bytes() + size > state.limit:
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
        memory = Memory(size)
        for hook in state.local.__dict__.setdefault("hooks", []):
            hook.malloc_postprocess(
                device_id=state.device, size=size, mem_size=size, mem_ptr=memory.ptr, pmem_id=0
            )
        memory.hooks = list(state.local.hooks)
        if state.capturing is not None:  # a graph's pool stays as it was, whatever the arrays do
            state.capturing.graph.append(memory)
        return MemoryPointer(memory, 0)

    def used_bytes(self) -> int:
        return sum(m.size for m in state.live.values() if m.device_id == state.device)

    total_bytes = used_bytes

    def free_all_blocks(self, stream: Any = None) -> None:
        pass


class MemoryHook:
    def __enter__(self) -> Any:
        state.local.__dict__.setdefault("hooks", []).append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        state.local.hooks.remove(self)


# ---- streams


class Stream:
    """A queue whose work is done at once, with a clock."""

    count = 0

    def __init__(
        self, null: bool = False, non_blocking: bool = False, priority: int = 0, device: int | None = None
    ) -> None:
        Stream.count += 1
        self.id = Stream.count
        self.ptr = 0 if null else 0x1000 + self.id
        self.device_id = state.device if device is None else device
        self.blocking = null or not non_blocking
        self.now = 0
        self.knows: dict[int, int] = {}
        self.graph: list[Any] | None = None
        _streams[self.ptr] = self

    def use(self) -> Stream:
        state.local.__dict__.setdefault("streams", {})[state.device] = self
        return self

    def __enter__(self) -> Stream:
        self.before = state.stream
        return self.use()

    def __exit__(self, *_: Any) -> None:
        self.before.use()

    @property
    def done(self) -> bool:
        forbid("a stream was queried")
        return True

    def synchronize(self) -> None:
        if self.graph is not None or not state.relaxed:
            forbid("a stream was synchronised")
        learn(state.host, {**self.knows, self.id: self.now})

    def record(self, event: Any = None) -> Any:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        learn(self.knows, event.clock)
        if event.capture and self.graph is None:
            self.graph = state.capturing.graph if state.capturing else None

    # ---- capture

    def begin_capture(self, mode: Any = None) -> None:
        assert self.ptr != 0, "cudaErrorStreamCaptureUnsupported: the null stream cannot be captured"
        forbid("a second capture was begun")
        self.graph = []
        state.capturing, state.relaxed = self, mode == 2

    def end_capture(self) -> Graph:
        assert state.capturing is self, "end_capture on another stream than begin_capture"
        state.capturing = None
        work, self.graph = self.graph, None
        return Graph(work or [])

    @property
    def is_capturing(self) -> bool:
        return self.graph is not None


Stream.null = property(lambda self: null_stream(state.device))  # type: ignore[attr-defined]


def learn(into: dict[int, int], clock: dict[int, int]) -> None:
    for k, v in clock.items():
        if v > into.get(k, 0):
            into[k] = v


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.clock: dict[int, int] = {}
        self.timed = not disable_timing
        self.ptr = id(self)
        self.capture = False

    def record(self, stream: Any = None) -> None:
        stream = state.stream if stream is None else stream
        self.clock = {**stream.knows, stream.id: stream.now}
        self.capture = stream.graph is not None

    @property
    def done(self) -> bool:
        forbid("an event was queried") if self.capture else None
        return True

    def synchronize(self) -> None:
        forbid("an event was waited for by the host")
        learn(state.host, self.clock)


class Work(NamedTuple):
    """A recorded piece of work."""

    name: str
    reads: list[Any]
    writes: list[Any]
    job: Any


class Graph:
    """Recorded work, done again at each launch."""

    def __init__(self, work: list[Any]) -> None:
        self.work = work

    def launch(self, stream: Any = None) -> None:
        forbid("a graph was launched")
        stream = state.stream if stream is None else stream
        for work in self.work:
            if isinstance(work, Work):
                touch(work.name, stream, work.reads, work.writes)
                work.job()

    def upload(self, stream: Any = None) -> None:
        pass


def launch(
    name: str, reads: list[Any], writes: list[Any], job: Any, replay: bool = True, on: Stream | None = None
) -> Any:
    """Does a piece of work on a stream, the current one, after checking that it may touch its memory there.

    While a graph is captured the work is kept for the replays instead, and not done.
    """
    stream = state.stream if on is None else on
    state.launches.append(name)
    if state.capturing is not None:
        if stream.graph is not None:
            if replay:
                stream.graph.append(Work(name, reads, writes, job))
            return None
        if name == "memcpy" and state.relaxed:
            return job()  # on a stream that is not captured
        raise CaptureError(f"{name} was queued on a stream that is not being captured")
    touch(name, stream, reads, writes)
    return job()


def touch(name: str, stream: Stream, reads: list[Any], writes: list[Any]) -> None:
    """Notes a use of memory on a stream; RaceError where the stream has not waited for others' uses."""
    stream.now += 1
    learn(stream.knows, state.host)
    if stream.blocking:  # the null stream and blocking ones order each other
        for other in [*_null.values()]:
            learn(stream.knows, {other.id: other.now})
    for memory in reads:
        _after_writer(name, stream, memory)
    for memory in writes:
        _after_writer(name, stream, memory)
        for reader, when in memory.readers.items():
            _known(name, stream, reader, when, "read")
    for memory in reads:
        memory.readers[stream.id] = stream.now
    for memory in writes:
        memory.writer, memory.readers = (stream.id, stream.now), {}


def _after_writer(name: str, stream: Stream, memory: Any) -> None:
    if memory.writer is not None:
        _known(name, stream, *memory.writer, "written")


def _known(name: str, stream: Stream, other: int, when: int, how: str) -> None:
    if other != stream.id and stream.knows.get(other, 0) < when:
        raise RaceError(
            f"{name} on stream {stream.id} uses memory that stream {other} has {how}, without waiting for it"
        )


def host_reads(memory: Any) -> None:
    """The host may read what it has waited for, or what the call waits for itself."""
    forbid("the host read device memory")
