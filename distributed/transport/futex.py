"""Sleeping on a word of shared memory (futex(2)), from Python and without the GIL.

Only Linux has it; where the system call's number is unknown, `wait` is a short sleep and `ring` a plain
store.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import threading
import time

_NUMBER = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}.get(platform.machine())
_ORDERED = platform.machine() == "x86_64"  # where taking a lock orders all reads and writes around it
_WAIT, _WAKE_OP = 0, 5
_ADD_ONE = 1 << 28 | 1 << 12  # FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)
_EVERYONE = 2**31 - 1


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class Doorbell:
    """A 32-bit counter in memory that several processes map, and how many threads of its owner listen to it.

    Ringing wakes them. While nobody listens it is no system call, so who is about to sleep does in this order:
    `listen`, `read`, look whether there is something to do, `wait`.
    """

    BYTES = 192

    def __init__(self, memory: memoryview) -> None:
        """memory: BYTES writable bytes, aligned to 4."""
        self._word = ctypes.c_uint32.from_buffer(memory)
        self._listeners = ctypes.c_uint32.from_buffer(memory, 128)
        self._lock = threading.Lock()
        self._address = ctypes.c_void_p(ctypes.addressof(self._word))
        self._number = None if _NUMBER is None else ctypes.c_long(_NUMBER)

    def read(self) -> int:
        return self._word.value

    def listen(self) -> None:
        """From now on until `unlisten`, rings are told. For the owner only."""
        with self._lock:
            self._listeners.value += 1

    def unlisten(self) -> None:
        with self._lock:
            self._listeners.value -= 1

    def ring(self) -> None:
        """Add one and wake the sleepers. The kernel adds: two ringers at once never lose one."""
        if self._number is None:
            self._word.value += 1
            return
        if _ORDERED:
            with self._lock:  # what was written before is seen before the listeners are counted
                pass
            if not self._listeners.value:
                return
        address = self._address
        zero = ctypes.c_long(0)
        _syscall(self._number, address, _WAKE_OP, _EVERYONE, zero, address, _ADD_ONE)

    def wait(self, seen: int, seconds: float) -> None:
        """Sleep until the count differs from `seen`, a signal comes, or `seconds` pass."""
        if self._number is None:
            time.sleep(min(seconds, 1e-4) if self._word.value == seen else 0)
            return
        limit = _Timespec(int(seconds), int(seconds % 1 * 1e9))
        failed = _syscall(
            self._number, self._address, _WAIT, ctypes.c_uint32(seen), ctypes.byref(limit), None, 0
        )
        if failed and (code := ctypes.get_errno()) not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            raise OSError(code, os.strerror(code))
