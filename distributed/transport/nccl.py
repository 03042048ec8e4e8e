"""NCCL: collectives of GPU memory between GPUs, queued on a stream. One rank a GPU.

The communicator is CuPy's thin one: it takes addresses, counts and NCCL's own numbers, so bfloat16 works too. Ranks
meet through the host's group, which carries the unique id.
"""

from __future__ import annotations

from typing import Any

TYPES = {"int8": 0, "uint8": 1, "bool": 1, "int32": 2, "uint32": 3, "int64": 4, "uint64": 5}
TYPES |= {"float16": 6, "float32": 7, "float64": 8, "bfloat16": 9}
OPS = {"sum": 0, "prod": 1, "product": 1, "max": 2, "min": 3, "avg": 4, "mean": 4}


def library() -> Any:
    """CuPy's binding of NCCL, or None where libnccl is missing."""
    from ...tensor.backend.cuda.runtime import load

    try:
        found = load().cuda.nccl
        return found if getattr(found, "available", True) else None
    except (AttributeError, ImportError, RuntimeError):
        return None


class Nccl:
    """The collectives of one group; every call is queued on `stream` and returns at once."""

    name = "nccl"
    queued = True  # the host need not wait

    def __init__(self, group: Any) -> None:
        """All ranks of the host's group call it, each with its GPU current."""
        nccl = library()
        if nccl is None:
            raise RuntimeError('[nccl] NCCL cannot be loaded: pip install "ringgrad[nccl]"')
        mine = [int(v) for v in nccl.get_unique_id()] if group.rank == 0 else None
        ident = tuple(group.broadcast_object(mine, 0))
        self.comm = nccl.NcclCommunicator(group.size, ident, group.rank)

    def all_reduce(self, array: Any, op: str, stream: Any) -> None:
        """array = reduction over all ranks."""
        ptr = array.data.ptr
        self.comm.allReduce(ptr, ptr, array.size, self._type(array), self._op(op, array), stream.ptr)

    def broadcast(self, array: Any, root: int, stream: Any) -> None:
        """array = root's array."""
        ptr = array.data.ptr
        self.comm.broadcast(ptr, ptr, array.size, self._type(array), root, stream.ptr)

    def all_gather(self, out: Any, array: Any, stream: Any) -> None:
        """out = the arrays of all ranks."""
        self.comm.allGather(array.data.ptr, out.data.ptr, array.size, self._type(array), stream.ptr)

    def reduce_scatter(self, out: Any, array: Any, op: str, stream: Any) -> None:
        """out = this rank's block of the reduction."""
        kind, number = self._type(array), self._op(op, array)
        self.comm.reduceScatter(array.data.ptr, out.data.ptr, out.size, kind, number, stream.ptr)

    def close(self) -> None:
        """Gives the communicator back."""
        self.comm.destroy()

    @staticmethod
    def _type(array: Any) -> int:
        kind = TYPES.get(array.dtype.name)
        if kind is None:
            raise TypeError(f"[nccl] the dtype must be one of {', '.join(TYPES)}, came {array.dtype.name}")
        return kind

    @staticmethod
    def _op(op: str, array: Any) -> int:
        if op not in OPS:
            raise ValueError(f"[nccl] op must be one of {', '.join(OPS)}, came {op!r}")
        return OPS[op]
