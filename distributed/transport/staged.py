"""GPU memory through the host: for MPI libraries and networks that know nothing of GPUs.

Two page-locked buffers take turns: while the host's group reduces one piece, the next is copied out and the one before
is copied back. A CUDA-aware MPI library is given the GPU's addresses instead.
"""

from __future__ import annotations

from typing import Any

from ...tensor.backend.cuda import transfer
from ...tensor.backend.cuda.runtime import load

PIECE_BYTES = 8 << 20
OUT, IN = transfer.DEVICE_TO_HOST, transfer.HOST_TO_DEVICE


class Staged:
    """The collectives of one group over its host transport; the host waits in each."""

    name = "staged"
    queued = False

    def __init__(self, group: Any) -> None:
        self.group = group
        self.slots: dict[int, Any] = {}

    def all_reduce(self, array: Any, op: str, stream: Any) -> None:
        """array = reduction over all ranks."""
        self._in_pieces(array, stream, lambda piece: self.group.all_reduce(piece, op))

    def broadcast(self, array: Any, root: int, stream: Any) -> None:
        """array = root's array."""
        self._in_pieces(array, stream, lambda piece: self.group.broadcast(piece, root))

    def all_gather(self, out: Any, array: Any, stream: Any) -> None:
        """out = the arrays of all ranks."""
        mine = self._out(array, stream)
        whole = transfer.pinned_empty(out.shape, out.dtype)
        self.group.all_gather(whole, mine)
        self._in(out, whole, stream)

    def reduce_scatter(self, out: Any, array: Any, op: str, stream: Any) -> None:
        """out = this rank's block of the reduction."""
        whole = self._out(array, stream)
        mine = transfer.pinned_empty(out.shape, out.dtype)
        self.group.reduce_scatter(mine, whole, op)
        self._in(out, mine, stream)

    def close(self) -> None:
        """Gives the buffers back."""
        self.slots.clear()

    # ----

    def _in_pieces(self, array: Any, stream: Any, act: Any) -> None:
        cp = load()
        n = max(1, PIECE_BYTES // array.itemsize)
        pieces = [array[at : at + n] for at in range(0, array.size, n)]
        slots = [self._slot(i, pieces[0].size, array.dtype) for i in range(min(2, len(pieces)))]
        arrived: list[Any] = [None] * len(pieces)
        left: list[Any] = [None, None]

        def fetch(i: int) -> None:
            if left[i % 2] is not None:
                left[i % 2].synchronize()  # the slot's last piece has been copied back
            _copy(slots[i % 2].ctypes.data, pieces[i].data.ptr, pieces[i].nbytes, OUT, stream)
            arrived[i] = cp.cuda.Event(disable_timing=True)
            arrived[i].record(stream)

        for i in range(len(pieces)):
            if i == 0:
                fetch(0)
            if i + 1 < len(pieces):
                fetch(i + 1)
            arrived[i].synchronize()
            here = slots[i % 2][: pieces[i].size]
            act(here)
            _copy(pieces[i].data.ptr, here.ctypes.data, pieces[i].nbytes, IN, stream)
            left[i % 2] = cp.cuda.Event(disable_timing=True)
            left[i % 2].record(stream)
        stream.synchronize()

    def _slot(self, i: int, n: int, dtype: Any) -> Any:
        held = self.slots.get(i)
        if held is None or held.nbytes < n * dtype.itemsize:
            held = self.slots[i] = transfer.pinned_empty(max(n * dtype.itemsize, 1), "uint8")
        return held[: n * dtype.itemsize].view(dtype)

    def _out(self, array: Any, stream: Any) -> Any:
        host = transfer.pinned_empty(array.shape, array.dtype)
        if array.size:
            _copy(host.ctypes.data, array.data.ptr, array.nbytes, OUT, stream)
        stream.synchronize()
        return host

    def _in(self, array: Any, host: Any, stream: Any) -> None:
        if array.size:
            _copy(array.data.ptr, host.ctypes.data, array.nbytes, IN, stream)
        stream.synchronize()


class CudaAwareMpi(Staged):
    """The same with sums, means, extremes and broadcasts by an MPI library that takes the GPU's addresses."""

    name = "mpi"

    def __init__(self, group: Any) -> None:
        super().__init__(group)
        self.comm = group.transport.comm.Create_group(group.transport.comm.group.Incl(group.members))

    def all_reduce(self, array: Any, op: str, stream: Any) -> None:
        """array = reduction over all ranks."""
        from mpi4py import MPI

        kinds = {"sum": MPI.SUM, "avg": MPI.SUM, "mean": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}
        if op not in kinds or array.dtype.itemsize == 2:
            super().all_reduce(array, op, stream)
            return
        stream.synchronize()  # MPI knows no streams
        self.comm.Allreduce(MPI.IN_PLACE, array, op=kinds[op])
        if op in ("avg", "mean"):
            array /= self.group.size

    def broadcast(self, array: Any, root: int, stream: Any) -> None:
        """array = root's array."""
        if array.dtype.itemsize == 2:
            super().broadcast(array, root, stream)
            return
        stream.synchronize()
        self.comm.Bcast(array, root)


def _copy(dst: int, src: int, size: int, kind: int, stream: Any) -> None:
    load().cuda.runtime.memcpyAsync(dst, src, size, kind, stream.ptr)
