"""Whether the MPI library takes addresses of GPU memory. One that does not would crash on them: never guessed."""

from __future__ import annotations

import ctypes
import os
from typing import Any


def cuda_aware(comm: Any) -> bool:
    """Asks the loaded MPI library; RINGGRAD_MPI_CUDA=0 or 1 overrules it.

    Open MPI and MPICH have MPIX_Query_cuda_support, MPICH also MPIX_GPU_query_support; MPI 4.1 names the kinds of
    memory in the info of a communicator.
    """
    wish = os.environ.get("RINGGRAD_MPI_CUDA")
    if wish is not None:
        return wish not in ("", "0")
    return _asked() or "cuda" in _kinds(comm)


def _asked() -> bool:
    library = ctypes.CDLL(None)
    try:
        return bool(library.MPIX_Query_cuda_support())
    except AttributeError:
        pass
    try:
        found = ctypes.c_int(0)
        return library.MPIX_GPU_query_support(0, ctypes.byref(found)) == 0 and bool(found.value)
    except AttributeError:
        return False


def _kinds(comm: Any) -> list[str]:
    try:
        return (comm.Get_info().Get("mpi_memory_alloc_kinds") or "").split(",")
    except Exception:  # older libraries have no such key
        return []
