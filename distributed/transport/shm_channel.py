"""The rings of messages between ranks of one host."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..call import HEADER_BYTES, Call
from ..errors import CollectiveMismatch, DistributedError
from . import Channel, Incoming, Outgoing, Pace
from .segment import Segment
from .shm_loan import DEPTH, Borrow, Lend, Return

if TYPE_CHECKING:
    from .shm import ShmTransport

ZERO_COPY_BYTES = 64 * 1024  # below, copying into a slot is quicker than waiting until the peer has read
SPIN = 50e-6  # s of polling before sleeping: about what a sleep and a wake-up cost
NAP = 0.5  # s of sleep between looks at the peers' health

_ENTRY = struct.Struct("<QQQQ")  # segment id, offset, bytes in this chunk, bytes of the whole message
_ENTRY_BYTES = _ENTRY.size + HEADER_BYTES
_POSTED, _TAKEN, _ENTRIES = 0, 64, 128  # offsets in a block; the counters keep to their own cache lines
_SLOTS = _ENTRIES + -(-DEPTH * _ENTRY_BYTES // 64) * 64
_CHANNEL = 1 << 63


def channel_segment(number: int) -> int:
    """The id of a channel's memory, apart from those of arrays."""
    return _CHANNEL | number


def is_channel(segment: int) -> bool:
    """Whether this memory holds a channel's rings, which only their owner writes."""
    return bool(segment & _CHANNEL)


def _slot_bytes(members: int) -> int:
    return max(256 * 1024 // max(members // 4, 1), 32 * 1024)


def _block_bytes(members: int) -> int:
    return _SLOTS + DEPTH * _slot_bytes(members)


def channel_bytes(members: int) -> int:
    return members * _block_bytes(members)


class _Out:
    """What this rank sends to one peer: it writes `posted`, entries, slots, and reads the peer's `taken`."""

    def __init__(self, channel: ShmChannel, peer: int, segment: Segment) -> None:
        self.channel, self.member = channel, channel.members[peer]
        self.base = peer * _block_bytes(len(channel.members))
        self.slot = _slot_bytes(len(channel.members))
        self.memory, self.bytes = segment.memory, segment.bytes
        self.posted_word = segment.memory[self.base + _POSTED : self.base + _POSTED + 8].cast("Q")
        self.posted = 0
        self._taken_word: memoryview | None = None

    def taken(self) -> int:
        if self._taken_word is None:
            theirs = self.channel.transport.remote(self.member, self.channel.segment_id)
            if theirs is None:
                return 0
            at = self.channel.rank * _block_bytes(len(self.channel.members)) + _TAKEN
            self._taken_word = theirs.memory[at : at + 8].cast("Q")
        return self._taken_word[0]

    def post(self, segment: int, offset: int, size: int, total: int, header: bytes) -> None:
        at = self.base + _ENTRIES + self.posted % DEPTH * _ENTRY_BYTES
        _ENTRY.pack_into(self.memory, at, segment, offset, size, total)
        at += _ENTRY.size
        self.memory[at : at + len(header)] = header
        self.posted += 1
        self.posted_word[0] = self.posted


class _In:
    """What one peer sends to this rank."""

    def __init__(self, channel: ShmChannel, peer: int, segment: Segment) -> None:
        self.channel, self.member = channel, channel.members[peer]
        at = peer * _block_bytes(len(channel.members)) + _TAKEN
        self.taken_word = segment.memory[at : at + 8].cast("Q")
        self.taken = 0
        self.base = channel.rank * _block_bytes(len(channel.members))
        self._posted_word: memoryview | None = None
        self.theirs: Segment | None = None

    def ready(self) -> bool:
        if self._posted_word is None:
            self.theirs = theirs = self.channel.transport.remote(self.member, self.channel.segment_id)
            if theirs is None:
                return False
            self._posted_word = theirs.memory[self.base + _POSTED : self.base + _POSTED + 8].cast("Q")
        return self._posted_word[0] > self.taken

    def entry(self) -> tuple[int, int, int, int, memoryview]:
        assert self.theirs is not None
        at, memory = self.base + _ENTRIES + self.taken % DEPTH * _ENTRY_BYTES, self.theirs.memory
        return *_ENTRY.unpack_from(memory, at), memory[at + _ENTRY.size : at + _ENTRY_BYTES]

    def checked(self, call: Call, size: int) -> tuple[int, int]:
        """Where the next message lies: (segment id, offset). Raises CollectiveMismatch unless it is `call`'s, and of
        `size` bytes.
        """
        number, offset, _, total, header = self.entry()
        rank = self.channel.transport.rank
        call.check(rank, self.member, bytes(header))
        call.check_size(rank, self.member, size, total)
        return number, offset

    def take(self) -> None:
        self.taken += 1
        self.taken_word[0] = self.taken


class _Push:
    """One message on its way out."""

    __slots__ = ("call", "done", "out", "place", "source", "ticket")

    def __init__(self, out: _Out, source: np.ndarray, call: Call) -> None:
        self.out, self.call = out, call
        self.place = out.channel.transport.locate(source) if source.nbytes >= ZERO_COPY_BYTES else None
        self.source = source.view(np.uint8) if source.itemsize != 1 or source.dtype != np.uint8 else source
        self.done = -1  # bytes handed over; -1 before the first entry, as a message may be empty
        self.ticket = 0

    def move(self) -> bool:
        """Hand over what fits; whether anything moved."""
        out, total, moved = self.out, self.source.size, False
        while self.done < total and out.posted - out.taken() < DEPTH:
            start = max(self.done, 0)
            if self.place is not None:
                out.post(self.place[0], self.place[1], total, total, self.call.header)
                self.done = total
            else:
                stop = min(start + out.slot, total)
                at = out.base + _SLOTS + out.posted % DEPTH * out.slot
                out.bytes[at : at + stop - start] = self.source[start:stop]
                out.post(out.channel.segment_id, at, stop - start, total, self.call.header)
                self.done = stop
            self.ticket, moved = out.posted, True
        if moved:
            out.channel.transport.ring(out.member)
        return moved

    def finished(self) -> bool:
        if self.done < self.source.size:
            return False
        # The peer reads our own array: it must not change before that.
        return self.place is None or self.out.taken() >= self.ticket


class _Pull:
    """One message on its way in."""

    __slots__ = ("call", "done", "recv", "ring", "total")

    def __init__(self, ring: _In, recv: Incoming, call: Call) -> None:
        self.ring, self.recv, self.call = ring, recv, call
        self.total, self.done = recv.target.size * recv.dtype.itemsize, -1

    def move(self) -> bool:
        """Take what has come; whether anything moved."""
        ring, moved = self.ring, False
        while self.done < self.total and ring.ready():
            number, offset, size, total, _ = ring.entry()
            transport = ring.channel.transport
            if self.done < 0:
                ring.checked(self.call, self.total)
                self.done = 0
            segment = transport.remote(ring.member, number)
            if segment is None:
                break  # the watcher has yet to hear of it, and rings when it has
            if size > self.total - self.done or offset + size > segment.size:
                raise DistributedError(
                    f"[shm] rank {ring.member} sent a broken entry: {(number, offset, size, total)}"
                )
            self._store(segment.bytes[offset : offset + size].view(self.recv.dtype))
            self.done += size
            ring.take()
            moved = True
            if self.total == 0:
                break
        if moved:
            ring.channel.transport.ring(ring.member)
        return moved

    def finished(self) -> bool:
        return self.done >= self.total

    def _store(self, part: np.ndarray) -> None:
        start = self.done // self.recv.dtype.itemsize
        target = self.recv.target[start : start + part.size]
        if self.recv.combine is None:
            target[...] = part
        else:
            self.recv.combine(target, part)


class ShmChannel(Channel):
    one_host = lends = True

    def __init__(
        self, transport: ShmTransport, number: int, members: Sequence[int], segment: Segment
    ) -> None:
        self.transport, self.members = transport, list(members)
        self.rank = self.members.index(transport.rank)
        self.segment_id = channel_segment(number)
        peers = [p for p in range(len(members)) if p != self.rank]
        self._outs = {p: _Out(self, p, segment) for p in peers}
        self._ins = {p: _In(self, p, segment) for p in peers}

    def exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        pushes = [_Push(self._outs[s.peer], s.source, call) for s in sends]
        pulls = [_Pull(self._ins[r.peer], r, call) for r in recvs]
        return self._drive(call, pushes, pulls, pace)

    def together(
        self, call: Call, flat: np.ndarray, use: Callable[[list[np.ndarray]], None], pace: Pace
    ) -> Generator[None, None, bool]:
        place = self.transport.locate(flat)
        lent = [Lend(out, flat, place, call) for out in self._outs.values()]
        borrowed = {peer: Borrow(ring, flat, call) for peer, ring in self._ins.items()}
        yield from self._drive(call, lent, list(borrowed.values()), pace)
        rows = [flat if p == self.rank else borrowed[p].row for p in range(len(self.members))]
        shared = [row for row in rows if row is not None]
        reached = place is not None and len(shared) == len(rows)
        if reached:
            use(shared)
        for loan in borrowed.values():
            loan.give_back()
        if reached:
            yield from self._drive(call, [Return(loan) for loan in lent], [], pace)
        return reached

    def ready(self, peer: int) -> bool:
        return self._ins[peer].ready()

    def close(self) -> None:
        # Ours stays with those peers that have yet to read the last messages in it.
        self.transport.forget(self.segment_id)

    def _drive(
        self,
        call: Call,
        pushes: Sequence[_Push] | Sequence[Lend] | Sequence[Return],
        pulls: Sequence[_Pull] | Sequence[Borrow],
        pace: Pace,
    ) -> Iterator[None]:
        """Move all of these to their ends, pulls in their order; tells the others of a mismatch."""
        try:
            yield from self._move(call, list(pushes), list(reversed(pulls)), pace)
        except CollectiveMismatch as error:
            if error is not self.transport.failure:
                self.transport.abort(str(error), mismatch=True)
            raise

    def _move(
        self,
        call: Call,
        pushes: list[_Push | Lend | Return],
        pulls: list[_Pull | Borrow],
        pace: Pace,
    ) -> Iterator[None]:
        """pulls: taken from the end."""
        transport, bell = self.transport, self.transport.bell
        polling_ends, listening = 0.0, False
        try:
            while True:
                seen, gone = bell.read(), dict(transport.gone) if transport.gone else transport.gone
                moved = False
                for push in pushes:
                    moved |= push.move()
                pushes = [p for p in pushes if not p.finished()]
                while pulls and (pulls[-1].move() or pulls[-1].finished()):
                    moved = True
                    if not pulls[-1].finished():
                        break
                    pulls.pop()
                if not pushes and not pulls:
                    return
                if moved:
                    polling_ends = 0.0
                    continue
                awaited = pulls[-1].ring.member if pulls else pushes[0].out.member
                transport.check(call, awaited, gone)
                if not pace.wait:
                    yield
                    continue
                if pace.spin and transport.may_spin:
                    now = time.perf_counter()
                    polling_ends = polling_ends or now + SPIN
                    if now < polling_ends:
                        continue
                if not listening:
                    bell.listen()
                    listening = True
                    continue
                left = pace.deadline - time.monotonic()
                if left <= 0:
                    raise transport.late(call, awaited)
                bell.wait(seen, min(left, NAP))
                if bell.read() == seen:
                    transport.check_alive(call, awaited)
        finally:
            if listening:
                bell.unlisten()
