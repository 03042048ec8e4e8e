"""Memory that other processes of this host map too: anonymous files, so nothing can be left behind."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

import numpy as np

POPULATED_BYTES = 64 << 20


class Segment:
    """A mapped piece of shared memory. `bytes` is a flat uint8 array over it; the map lives as long as its
    users.
    """

    def __init__(self, fd: int, size: int, writable: bool) -> None:
        self.size = size
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        # Faults are paid here and not in the first collective; but Python's lock is held meanwhile, and who maps
        # gigabytes so long shows no sign of life.
        populate = mmap.MAP_POPULATE if size <= POPULATED_BYTES else 0
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED | populate, protection)
        self.bytes = np.frombuffer(self._map, np.uint8)
        self.memory = memoryview(self._map)
        self.address: int = self.bytes.__array_interface__["data"][0]


def create(label: str, size: int) -> tuple[int, Segment]:
    """New zeroed shared memory of at least `size` bytes: its file descriptor and our map of it.

    Raises MemoryError if the host has not that much: without the reservation, the first touch would be
    SIGBUS.
    """
    size = max(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE, mmap.PAGESIZE)
    fd = os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, size)
        # No peer can cut the file under our feet.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd, Segment(fd, size, writable=True)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise MemoryError(
                f"[shm] {label} needs {size} bytes of shared memory, and the host refuses them"
            ) from error
        raise


def attach(fd: int, size: int, writable: bool) -> Segment:
    """Map a peer's memory; closes fd. Raises ValueError if it is smaller than said or could still shrink."""
    try:
        if os.fstat(fd).st_size < size or not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise ValueError(
                f"[shm] a peer's memory must hold {size} bytes and be sealed, got {os.fstat(fd)}"
            )
        return Segment(fd, size, writable)
    finally:
        os.close(fd)
