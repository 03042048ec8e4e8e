"""Collectives of GPU arrays: by NCCL, by mapped memory on one host, by CUDA-aware MPI, or through the host.

The way is chosen once for a group, by what all its ranks have; RINGGRAD_GPU_TRANSPORT overrules it. Work goes to a
stream of its own, ordered by events before and after, so that it overlaps with computation; `wait` orders the current
stream behind it, and the host goes on.
"""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..tensor.backend.cuda.runtime import load
from ..tensor.backend.cuda.transfer import keep_until
from .transport import cudaaware, ipc, nccl, staged
from .work import Work

WAYS = ("nccl", "ipc", "mpi", "staged")


class DeviceWork(Work):
    """A collective on a stream. `wait` lets the current stream wait for it."""

    def __init__(self, text: str, done: Any, future: Future[None] | None) -> None:
        super().__init__(text)
        self._event, self._future = done, future

    def is_completed(self) -> bool:
        """Whether the GPU is done with it."""
        if self._future is not None:
            return self._future.done()
        return bool(self._event.done)

    def wait(self, timeout: float | None = None) -> bool:
        """Orders what is queued from now on behind it; raises what the collective raised."""
        if self._future is not None:
            self._future.result(timeout)
        load().cuda.get_current_stream().wait_event(self._event)
        after, self._after = self._after, None
        if after is not None:
            after()
        return True


class DeviceGroup:
    """The verbs of a Group on GPU arrays."""

    def __init__(self, group: Any) -> None:
        """All ranks of the group call it together, with their first collective of a GPU array."""
        cp = load()
        self.index = int(cp.cuda.runtime.getDevice())
        own = group.split(0, group.rank)  # a conversation of its own, apart from the host's arrays
        assert own is not None
        self.group = own
        self.way: Any = _chosen(own, self.index)
        self.stream = cp.cuda.Stream(non_blocking=True, priority=-1)
        self.thread = None if self.way.queued else ThreadPoolExecutor(1, "ringgrad gpu")

    def all_reduce(self, array: Any, op: str = "sum", *, async_op: bool = False, name: str = "") -> Work:
        """array = reduction over all ranks."""
        return self._written(array, lambda a, s: self.way.all_reduce(a, op, s), "all_reduce", async_op)

    def broadcast(self, array: Any, root: int = 0, *, async_op: bool = False, name: str = "") -> Work:
        """array = root's array."""
        return self._written(array, lambda a, s: self.way.broadcast(a, root, s), "broadcast", async_op)

    def all_gather(self, out: Any, array: Any, *, async_op: bool = False) -> Work:
        """out = the arrays of all ranks in the order of ranks."""
        flat = load().ascontiguousarray(array).reshape(-1)
        return self._written(out, lambda a, s: self.way.all_gather(a, flat, s), "all_gather", async_op, flat)

    def reduce_scatter(self, out: Any, array: Any, op: str = "sum", *, async_op: bool = False) -> Work:
        """out = block `rank` of the reduction of array."""
        flat = load().ascontiguousarray(array).reshape(-1)
        return self._written(
            out, lambda a, s: self.way.reduce_scatter(a, flat, op, s), "reduce_scatter", async_op, flat
        )

    def close(self) -> None:
        """Ends the thread and gives mapped memory back."""
        if self.thread is not None:
            self.thread.shutdown()
        self.way.close()

    def _written(self, array: Any, act: Any, text: str, async_op: bool, *held: Any) -> Work:
        """Runs `act(flat array, stream)` behind what is queued; an array with gaps is written from a copy."""
        cp = load()
        flat = array.reshape(-1) if array.flags.c_contiguous else cp.ascontiguousarray(array).reshape(-1)
        ready, done = (cp.cuda.Event(disable_timing=True) for _ in range(2))
        ready.record(cp.cuda.get_current_stream())

        def run() -> None:
            with cp.cuda.Device(self.index), self.stream:
                self.stream.wait_event(ready)
                if flat.size:
                    act(flat, self.stream)
                done.record(self.stream)

        future = None
        if self.thread is None:
            run()
            if not getattr(self.stream, "is_capturing", False):
                keep_until(done, (flat, held))
        else:
            future = self.thread.submit(run)
        work = DeviceWork(text, done, future)
        if not array.flags.c_contiguous:
            work.then(lambda: array.__setitem__(Ellipsis, flat.reshape(array.shape)))
        if not async_op:
            work.wait()
        return work


def _chosen(group: Any, index: int) -> Any:
    """The way that all ranks can go."""
    wish = os.environ.get("RINGGRAD_GPU_TRANSPORT", "")
    if wish and wish not in WAYS:
        raise ValueError(
            f"[distributed] RINGGRAD_GPU_TRANSPORT must be one of {', '.join(WAYS)}, came {wish!r}"
        )
    mpi = group.transport is not None and group.transport.name == "mpi"
    aware = mpi and cudaaware.cuda_aware(group.transport.comm)
    mine = [_host(), str(load().cuda.runtime.deviceGetPCIBusId(index)), nccl.library() is not None, aware]
    rows = group.all_gather_object(mine)
    places = {(row[0], row[1]) for row in rows}
    if wish == "nccl" or (not wish and all(row[2] for row in rows) and len(places) == group.size):
        return nccl.Nccl(group)
    if wish == "ipc" or (not wish and len({row[0] for row in rows}) == 1):
        return ipc.Ring(group)
    if wish == "mpi" or (not wish and all(row[3] for row in rows)):
        return staged.CudaAwareMpi(group)
    return staged.Staged(group)


def _host() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return socket.gethostname() + file.read().strip()
    except OSError:
        return socket.gethostname()
