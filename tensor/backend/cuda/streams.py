"""Streams and events under PyTorch's names, over CuPy's."""

from __future__ import annotations

from typing import Any

from .runtime import check_index, load


class Event:
    """A mark in a stream: `record()`, then `wait()`, `synchronize()`, `query()`, `elapsed_time(end)` in ms."""

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.enable_timing = enable_timing
        self._event = load().cuda.Event(
            block=blocking, disable_timing=not enable_timing, interprocess=interprocess
        )

    def record(self, stream: Any = None) -> None:
        """Marks what is queued now on a stream, by default the current one."""
        self._event.record(raw(stream))

    def wait(self, stream: Any = None) -> None:
        """Lets a stream, by default the current one, wait for the mark."""
        raw(stream).wait_event(self._event)

    def query(self) -> bool:
        """Whether all that was marked is done."""
        return bool(self._event.done)

    def synchronize(self) -> None:
        """Waits until all that was marked is done."""
        self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this mark to a later one; both with enable_timing=True and passed."""
        if not (self.enable_timing and end_event.enable_timing):
            raise RuntimeError("[Event] both events must be made with enable_timing=True to measure time")
        return float(load().cuda.get_elapsed_time(self._event, end_event._event))

    @property
    def cuda_event(self) -> int:
        """The CUDA handle."""
        return int(self._event.ptr)


class Stream:
    """A queue of GPU work; `with ringgrad.cuda.stream(s):` sends what follows to it.

    priority: 0, or -1 for a stream that goes first.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, _of: Any = None) -> None:
        cp = load()
        index = check_index(device_index(device))
        with cp.cuda.Device(index):
            self._stream = cp.cuda.Stream(non_blocking=True, priority=priority) if _of is None else _of
        self.device_index, self.priority = index, priority

    def synchronize(self) -> None:
        """Waits until all that is queued here is done."""
        self._stream.synchronize()
        check_flags()

    def query(self) -> bool:
        """Whether all that is queued here is done."""
        return bool(self._stream.done)

    def record_event(self, event: Any = None) -> Event:
        """An event that marks what is queued here now."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Lets what is queued from now on wait for a mark in another stream."""
        self._stream.wait_event(event._event)

    def wait_stream(self, stream: Any) -> None:
        """Lets what is queued from now on wait for all that is queued on `stream` now."""
        self.wait_event(stream.record_event())

    @property
    def cuda_stream(self) -> int:
        """The CUDA handle."""
        return int(self._stream.ptr)

    def __enter__(self) -> Stream:
        self._before = load().cuda.get_current_stream()
        self._stream.use()
        return self

    def __exit__(self, *_: Any) -> None:
        self._before.use()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.cuda_stream == other.cuda_stream

    def __hash__(self) -> int:
        return hash(self.cuda_stream)

    def __repr__(self) -> str:
        return f"<ringgrad.cuda.Stream device=cuda:{self.device_index} cuda_stream={self.cuda_stream:#x}>"


def raw(stream: Any) -> Any:
    """CuPy's stream under ours; None is the current one."""
    return load().cuda.get_current_stream() if stream is None else stream._stream


def device_index(device: Any) -> int | None:
    """The number in None, 1, "cuda:1" or a device; None stands for the current one."""
    from ...device import device as kind

    if device is None or isinstance(device, int):
        return None if device is None or device < 0 else device
    found = kind(device)
    if found.type != "cuda":
        raise ValueError(f"[cuda] must be a CUDA device, came {str(found)!r}")
    return found.index


def current(device: Any = None) -> Stream:
    """The stream that GPU work goes to now."""
    cp = load()
    index = check_index(device_index(device))
    with cp.cuda.Device(index):
        return Stream(index, _of=cp.cuda.get_current_stream())


def default(device: Any = None) -> Stream:
    """The stream that is used where none is chosen."""
    return Stream(device, _of=load().cuda.Stream.null)


def synchronize(device: Any = None) -> None:
    """Waits for all work of a GPU; raises what its kernels reported, such as an index out of range."""
    cp = load()
    with cp.cuda.Device(check_index(device_index(device))):
        cp.cuda.runtime.deviceSynchronize()
        check_flags()


def record(array: Any, stream: Stream) -> None:
    """Keeps an array's memory from being handed out again until what is queued on `stream` now is done."""
    from .transfer import keep_until

    event = load().cuda.Event(disable_timing=True)
    event.record(stream._stream)
    keep_until(event, array)


def check_flags() -> None:
    """Raises the errors that kernels have noted on the current GPU."""
    from .flags import check

    check()
