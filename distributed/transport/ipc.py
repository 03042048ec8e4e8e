"""CUDA IPC: ranks of one host read each other's GPU memory, also several ranks on one GPU, which NCCL refuses.

Each rank has an arena that the others map once. A collective copies in, waits for all, reads the peers' parts and
waits again: no kernel spins on another process, as processes that share a GPU run in turns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tensor.backend.cuda.runtime import load

SMALLEST = 1 << 20


class Ring:
    """The collectives of one group over mapped memory; the host waits in each."""

    name = "ipc"
    queued = False

    def __init__(self, group: Any) -> None:
        """All ranks of the host's group call it, each with its GPU current."""
        self.group = group
        self.size = 0
        self.mine = 0
        self.peers: list[int] = []

    def all_reduce(self, array: Any, op: str, stream: Any) -> None:
        """array = reduction over all ranks, in the order of ranks: the same bits on each."""
        n, ranks = array.size, self.group.size
        self._grow(array.nbytes)
        self._copy_in(array, stream)
        cut = [n * r // ranks for r in range(ranks + 1)]
        mine = slice(cut[self.group.rank], cut[self.group.rank + 1])
        total = self._reduced(array, mine, op)
        self._meet(stream)  # all have read what they reduce
        self._view(self.group.rank, n, array.dtype)[mine] = total
        self._meet(stream)
        for rank in range(ranks):
            part = slice(cut[rank], cut[rank + 1])
            array[part] = self._view(rank, n, array.dtype)[part]
        self._meet(stream)

    def reduce_scatter(self, out: Any, array: Any, op: str, stream: Any) -> None:
        """out = this rank's block of the reduction."""
        self._grow(array.nbytes)
        self._copy_in(array, stream)
        at = self.group.rank * out.size
        out[...] = self._reduced(array, slice(at, at + out.size), op)
        self._meet(stream)

    def all_gather(self, out: Any, array: Any, stream: Any) -> None:
        """out = the arrays of all ranks."""
        self._grow(array.nbytes)
        self._copy_in(array, stream)
        for rank in range(self.group.size):
            out[rank * array.size : (rank + 1) * array.size] = self._view(rank, array.size, array.dtype)
        self._meet(stream)

    def broadcast(self, array: Any, root: int, stream: Any) -> None:
        """array = root's array."""
        self._grow(array.nbytes)
        if self.group.rank == root:
            self._view(root, array.size, array.dtype)[...] = array
        self._meet(stream)
        if self.group.rank != root:
            array[...] = self._view(root, array.size, array.dtype)
        self._meet(stream)

    def close(self) -> None:
        """Unmaps the peers' memory and frees this rank's, when all have."""
        if not self.size:
            return
        runtime = load().cuda.runtime
        for rank, ptr in enumerate(self.peers):
            if rank != self.group.rank:
                runtime.ipcCloseMemHandle(ptr)
        self.group.barrier()
        runtime.free(self.mine)
        self.size = 0

    # ----

    def _grow(self, size: int) -> None:
        """Arenas of at least `size` bytes, mapped by all; sizes are equal on all ranks, so all grow together."""
        if size <= self.size:
            return
        self.close()
        runtime = load().cuda.runtime
        self.size = max(SMALLEST, 1 << (size - 1).bit_length())
        self.mine = int(runtime.malloc(self.size))
        handles = self.group.all_gather_object(runtime.ipcGetMemHandle(self.mine))
        self.peers = [
            self.mine if rank == self.group.rank else int(runtime.ipcOpenMemHandle(handle))
            for rank, handle in enumerate(handles)
        ]

    def _view(self, rank: int, n: int, dtype: Any) -> Any:
        cp = load()
        memory = cp.cuda.UnownedMemory(self.peers[rank], self.size, self)
        return cp.ndarray((n,), dtype, cp.cuda.MemoryPointer(memory, 0))

    def _copy_in(self, array: Any, stream: Any) -> None:
        self._view(self.group.rank, array.size, array.dtype)[...] = array
        self._meet(stream)

    def _reduced(self, array: Any, part: slice, op: str) -> Any:
        """The reduction of a part over all ranks, 16-bit floats summed in float32."""
        cp = load()
        function = {"sum": cp.add, "avg": cp.add, "mean": cp.add, "max": cp.maximum, "min": cp.minimum}
        function |= {"prod": cp.multiply, "product": cp.multiply}
        if op not in function:
            raise ValueError(f"[ipc] op must be one of {', '.join(function)}, came {op!r}")
        narrow = array.dtype.itemsize == 2 and array.dtype.kind in "fV"
        work = np.dtype("float32") if narrow else array.dtype
        total = self._view(0, array.size, array.dtype)[part].astype(work)
        for rank in range(1, self.group.size):
            total = function[op](
                total, self._view(rank, array.size, array.dtype)[part].astype(work, copy=False)
            )
        if op in ("avg", "mean"):
            total = total / self.group.size
        return total.astype(array.dtype, copy=False)

    def _meet(self, stream: Any) -> None:
        """All ranks have done on their GPUs what they queued."""
        stream.synchronize()
        self.group.barrier()
