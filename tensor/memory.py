"""How the C library keeps memory that arrays gave back.

A training step frees and takes the same arrays over and over. glibc returns large ones to the system at once, which
must then clear every page again: a quarter of a small transformer's step. PyTorch's users know this as the reason
to preload another allocator; here glibc is told to keep what was freed for the next array.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 32 << 20  # glibc takes no higher threshold; larger arrays go back to the system as before


def keep_freed_memory() -> bool:
    """Asks malloc to keep freed memory; False where it cannot be asked, or where the user has set its variables."""
    if any(
        name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_MMAP_THRESHOLD, LARGEST))


def give_back() -> None:
    """Returns freed memory to the system: after a phase whose arrays will not come again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
