"""Batches from a worker process to its parent, with large arrays in memory that both have mapped.

A slot is such a piece of memory, an anonymous file (memfd): it has no name, so nothing can be left behind. The
worker makes it and fills it; the parent's tensors lie in it, and when the last of them is gone the parent offers
the slot for the next batch. Pages are thus mapped and cleared once, not once a batch. Where many batches are kept,
further ones are copied out of their slot.
"""

from __future__ import annotations

import mmap
import os
import pickle
import weakref
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

INLINE = 4096  # bytes up to which an array costs less inside the message
ALIGNMENT = 64
SPARE = 4  # slots that a worker keeps beside those in use
ROOMY = 4  # a slot this many times too large is given up
LENT = 128  # slots that tensors of this process may lie in: each takes a file descriptor, and 1024 is a usual limit

_lent: dict[
    object, weakref.ref[Any]
] = {}  # of all loaders, also of those that are gone while their batches live


class Parcel(NamedTuple):
    """A batch on its way: pickled but for its large arrays, which lie in a slot at `places`."""

    body: bytes
    slot: int | None = None
    size: int = 0
    fresh: bool = False  # the slot is new: its file descriptor comes right after
    places: tuple[tuple[int, int], ...] = ()


class _Pickler(pickle.Pickler):
    """Pickles large arrays of whatever numbers as bare memory, also those of types that NumPy itself does not know."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not np.ndarray or value.nbytes <= INLINE or value.dtype.hasobject:
            return NotImplemented
        flat: Any = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        if not flat.flags.writeable:  # pickle would make it so on the other side too
            flat = flat.copy()
        return _array, (pickle.PickleBuffer(flat), value.dtype, value.shape)


def _array(memory: Any, dtype: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    flat = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
    return flat.view(dtype).reshape(shape)


class Packer:
    """The worker's side: fills slots."""

    def __init__(self) -> None:
        self.slots: dict[int, mmap.mmap] = {}
        self.made = 0
        self.fd = -1  # of the slot made last, until it is sent

    def pack(self, batch: Any, offered: int | None) -> Parcel:
        """The batch's large arrays copied into the slot that the parent offered, or into a new one."""
        stream = BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        shared = hasattr(os, "memfd_create")
        _Pickler(stream, 5, buffer_callback=buffers.append if shared else None).dump(batch)
        if not buffers:
            return Parcel(stream.getvalue())
        places, size = [], 0
        for buffer in buffers:
            length = buffer.raw().nbytes
            places.append((size, length))
            size += -(-length // ALIGNMENT) * ALIGNMENT
        slot, fresh = self._slot(size, offered)
        memory = self.slots[slot]
        for (start, length), buffer in zip(places, buffers):
            memory[start : start + length] = buffer.raw()
        return Parcel(stream.getvalue(), slot, len(memory), fresh, tuple(places))

    def _slot(self, size: int, offered: int | None) -> tuple[int, bool]:
        if offered is not None and size <= len(self.slots[offered]) <= max(ROOMY * size, 1 << 20):
            return offered, False
        room = -(-size * 9 // 8 // mmap.PAGESIZE) * mmap.PAGESIZE  # the next batch may be somewhat larger
        self.fd = os.memfd_create("ringgrad-batch", os.MFD_CLOEXEC)
        os.truncate(self.fd, room)
        self.made += 1
        self.slots[self.made] = mmap.mmap(self.fd, room)
        if offered is not None:
            self.drop(offered)
        return self.made, True

    def drop(self, slot: int) -> None:
        """Gives up a slot that the parent has given up."""
        self.slots.pop(slot).close()


class Unpacker:
    """The parent's side, for one worker: opens slots, and keeps account of those that are free."""

    def __init__(self) -> None:
        self.slots: dict[int, mmap.mmap] = {}
        self.free: list[int] = []

    def offer(self) -> tuple[int | None, list[int]]:
        """A free slot for the next batch, and those that the worker is to drop."""
        offered = self.free.pop() if self.free else None
        dropped = []
        while len(self.free) > SPARE:
            dropped.append(self.free.pop(0))
            del self.slots[dropped[-1]]
        return offered, dropped

    def unpack(self, parcel: Parcel, offered: int | None, fd: int) -> Any:
        """The batch. `offered` is what came with its request, `fd` that of a fresh slot or -1."""
        if offered is not None and parcel.slot != offered:
            self.give_back(offered, dropped=parcel.slot is not None)
        if parcel.slot is None:
            return pickle.loads(parcel.body)
        if parcel.fresh:
            # Populated at once: cheaper than a fault for each page.
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self.slots[parcel.slot] = mmap.mmap(fd, parcel.size, flags)
            os.close(fd)
        memory = np.frombuffer(self.slots[parcel.slot], np.uint8)
        if len(_lent) < LENT:
            self._lend(parcel.slot, memory)
        else:
            memory = memory.copy()
            self.free.append(parcel.slot)
        return pickle.loads(parcel.body, buffers=[memory[start : start + n] for start, n in parcel.places])

    def _lend(self, slot: int, memory: np.ndarray[Any, Any]) -> None:
        """Counts the slot as free when `memory`, the base of all arrays over it, dies with the last of them."""
        free, lent, key = self.free, _lent, object()

        def released(_: Any) -> None:
            del lent[key]
            free.append(slot)

        lent[key] = weakref.ref(memory, released)

    def give_back(self, slot: int, dropped: bool = False) -> None:
        """Takes account of a slot that was offered but not used, or that the worker has dropped."""
        if dropped:
            del self.slots[slot]
        else:
            self.free.append(slot)
