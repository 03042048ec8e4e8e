"""Arrays that the ranks of a host lend each other for one step: each reads them and writes to them where they lie.

Who lends waits until all have given back. Where that wait ends with an error, others may still write to the array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..call import Call

if TYPE_CHECKING:
    from .shm_channel import _In, _Out

DEPTH = 4  # messages or chunks of one, under way between two ranks
_NOWHERE = (0, 0)  # of an array outside shared memory: no array has the number 0


class Lend:
    """One array offered to one peer."""

    def __init__(self, out: _Out, array: np.ndarray, place: tuple[int, int] | None, call: Call) -> None:
        self.out, self.size, self.place, self.call = out, array.nbytes, place or _NOWHERE, call
        self.ticket = 0

    def move(self) -> bool:
        """Say where it lies, once there is room to say so; whether anything moved."""
        out = self.out
        if self.ticket or out.posted - out.taken() >= DEPTH:
            return False
        out.post(*self.place, self.size, self.size, self.call.header)
        self.ticket = out.posted
        out.channel.transport.ring(out.member)
        return True

    def finished(self) -> bool:
        return self.ticket > 0


class Return:
    """The wait until a peer gives an array back."""

    def __init__(self, lent: Lend) -> None:
        self.out, self.ticket = lent.out, lent.ticket

    def move(self) -> bool:
        return False

    def finished(self) -> bool:
        return self.out.taken() >= self.ticket


class Borrow:
    """One peer's array, as large as ours."""

    def __init__(self, ring: _In, array: np.ndarray, call: Call) -> None:
        self.ring, self.size, self.dtype, self.call = ring, array.nbytes, array.dtype, call
        self.row: np.ndarray | None = None  # None in the end: it is not in shared memory
        self.come = False

    def move(self) -> bool:
        """Look where it lies, if that has come; whether anything moved."""
        if self.come or not self.ring.ready():
            return False
        number, offset = self.ring.checked(self.call, self.size)
        if number:
            segment = self.ring.channel.transport.remote(self.ring.member, number)
            if segment is None:
                return False  # the watcher has yet to hear of it, and rings when it has
            self.row = segment.bytes[offset : offset + self.size].view(self.dtype)
        self.come = True
        return True

    def finished(self) -> bool:
        return self.come

    def give_back(self) -> None:
        self.ring.take()
        self.ring.channel.transport.ring(self.ring.member)
