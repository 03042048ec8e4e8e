"""Tensors in memory that several processes share.

Memory comes from anonymous files (memfd): they have no name, so nothing is left behind when the processes that
use them are gone, however they ended. Small tensors share a file, as every process has few file descriptors.
"""

from __future__ import annotations

import mmap
import os
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ..autograd.engine import Variable

ALIGNMENT = 64
ARENA = 64 << 20  # bytes of a file that tensors share; memory is taken when it is first written
LARGE = ARENA // 4  # tensors from here on have a file of their own


class Block(mmap.mmap):
    """An anonymous file mapped into this process; arrays over it keep it alive."""

    fd: int

    def __new__(cls, fd: int, size: int) -> Block:
        self = super().__new__(cls, fd, size)
        self.fd = fd
        key = _key(fd)
        _blocks[key] = self
        return self

    def __del__(self) -> None:
        os.close(self.fd)


_blocks: WeakValueDictionary[tuple[int, int], Block] = WeakValueDictionary()  # those mapped in this process


def _key(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def open_block(fd: int, size: int) -> Block:
    """The block behind a file descriptor that came from another process, which is ours to close."""
    found = _blocks.get(_key(fd))
    if found is not None:
        os.close(fd)
        return found
    return Block(fd, size)


class _Arena:
    """The block that small tensors are placed in, and how much of it is taken."""

    block: Block | None = None
    taken = 0


def _forget_arena() -> None:
    """A forked child must not place tensors where its parent goes on placing them."""
    _Arena.block = None


os.register_at_fork(after_in_child=_forget_arena)


def _new_block(size: int) -> Block:
    fd = os.memfd_create("ringgrad", os.MFD_CLOEXEC)
    os.truncate(fd, size)
    return Block(fd, size)


def _place(size: int) -> tuple[Block, int]:
    if size >= LARGE:
        return _new_block(size), 0
    if _Arena.block is None or _Arena.taken + size > ARENA:
        _Arena.block, _Arena.taken = _new_block(ARENA), 0
    offset = _Arena.taken
    _Arena.taken += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
    return _Arena.block, offset


def block_of(array: Any) -> Block | None:
    """The shared block that an array lies in, or None."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, Block) else None


def shared_copy(array: Any) -> Any:
    """The same elements in shared memory."""
    block, offset = _place(array.nbytes)
    copy: Any = np.ndarray(array.shape, array.dtype, buffer=block, offset=offset)
    copy[...] = array
    return copy


def is_shared(t: Variable) -> bool:
    """Whether the tensor's memory is shared with other processes."""
    return block_of(t.array) is not None


def share_memory_(t: Any) -> Any:
    """Moves the tensor's elements into shared memory, in place; views taken before keep the old memory.

    A process forked later, or one that gets the tensor through `multiprocessing`, reads and writes the same memory.
    """
    if block_of(t.array) is None:
        t.array = shared_copy(t.array)
    return t


__all__ = ["Block", "block_of", "is_shared", "open_block", "share_memory_", "shared_copy"]
