"""Errors that kernels find: an index out of range is noted in device memory and raised at the next synchronisation.

Looking for them earlier would make the host wait for the GPU in every call. One 32-byte record a device: a code that
is written once, with what the kernel saw.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .runtime import load

OPS = {1: "embedding", 2: "cross_entropy"}
_records: dict[int, Any] = {}
MACHINE = ("_records",)


def pointer() -> int:
    """Address of the current GPU's record: int64 (code, index, limit, spare)."""
    cp = load()
    index = int(cp.cuda.runtime.getDevice())
    if index not in _records:
        _records[index] = cp.zeros(4, np.int64)
    return int(_records[index].data.ptr)


def check() -> None:
    """IndexError for what a kernel of the current GPU has noted since the last look; waits for the GPU."""
    held = _records.get(int(load().cuda.runtime.getDevice()))
    if held is None:
        return
    code, index, limit, _ = (int(v) for v in held.get())
    if code:
        held.fill(0)
        raise IndexError(
            f"[{OPS.get(code, 'kernel')}] indices must be in [0, {limit - 1}], came {index} (found on the GPU,"
            " at a call before this one)"
        )
