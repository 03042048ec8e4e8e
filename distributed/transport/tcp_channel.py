"""Messages of the tcp transport: one connection for each channel, sender and receiver, opened when first used.

A message is a head (sizes, the call's header) and its bytes in pieces, each followed by a tag over the number
of the frame and its content. The receiver knows what must come: a size on the wire is compared and never
trusted, and bytes go straight into the target, or with `combine` through one buffer a connection.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..call import HEADER_BYTES, Call
from ..errors import CollectiveMismatch, CollectiveTimeout, DistributedError
from . import Channel, Incoming, Outgoing, Pace
from .handshake import Session, sealer, tag_bytes

if TYPE_CHECKING:
    from .tcp import TcpTransport

# Of payload in one frame: whole elements of any dtype. The first piece's tag delays it and the last one's what
# follows, so pieces are the smaller the dearer the tag.
PIECE_BYTES = {"mac": 64 * 1024, "gmac": 256 * 1024, "crc": 256 * 1024, "none": 256 * 1024}
SPIN = 50e-6  # s of polling before sleeping
NAP = 0.25  # s of sleep between looks at the peers' health
_HEAD = struct.Struct("<4sIQ")  # magic, length of the call's header, bytes of the message
_MAGIC = b"rgt1"
_BUFFER_BYTES = 16 * 1024  # read ahead: small messages come whole with one system call


class Outbox:
    """The sending end of a connection."""

    def __init__(self, sock: socket.socket, session: Session, member: int) -> None:
        sock.setblocking(False)
        self.socket, self.member, self.sent = sock, member, 0
        self.piece_bytes = PIECE_BYTES[session.seal]
        self._seal = sealer(session.seal, session.key)

    def tag(self, data: bytes | memoryview) -> bytes:
        tag = self._seal(self.sent, data)
        self.sent += 1
        return tag


class Inbox:
    """The receiving end, with what has been read ahead."""

    def __init__(self, sock: socket.socket, session: Session) -> None:
        sock.setblocking(False)
        self.socket, self.member, self.received = sock, session.hello.rank, 0
        self.tag_bytes, self.piece_bytes = tag_bytes(session.seal), PIECE_BYTES[session.seal]
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self.start = self.stop = 0
        self._seal = sealer(session.seal, session.key)
        self._piece: np.ndarray | None = None

    def piece(self) -> np.ndarray:
        """Memory for one piece that is added up once it is whole."""
        if self._piece is None:
            self._piece = np.empty(self.piece_bytes, np.uint8)
        return self._piece

    def read(self, into: memoryview | None = None) -> int:
        """Read into `into` and what is left over into the buffer; the number of bytes for `into`.

        Raises BlockingIOError if there are none, ConnectionResetError at the end, other OSErrors.
        """
        if self.start:  # at most a head's or tag's bytes
            left = bytes(self.buffer[self.start : self.stop])
            self.buffer[: len(left)] = left
            self.start, self.stop = 0, len(left)
        free = self.buffer[self.stop :]
        count = self.socket.recv_into(free) if into is None else self.socket.recvmsg_into([into, free])[0]
        if not count:
            raise ConnectionResetError("the connection was closed")
        direct = 0 if into is None else min(count, len(into))
        self.stop += count - direct
        return direct

    def held(self) -> int:
        return self.stop - self.start

    def take(self, size: int) -> memoryview:
        part = self.buffer[self.start : self.start + size]
        self.start += size
        return part

    def verify(self, data: bytes | memoryview, tag: memoryview) -> None:
        """Raise DistributedError unless `tag` is the next frame's over `data`."""
        if not hmac.compare_digest(self._seal(self.received, data), bytes(tag)):
            raise DistributedError(
                f"[tcp] a message from rank {self.member} was changed on its way (frame {self.received}: its "
                "checksum does not fit): the network damages data, or somebody writes into it"
            )
        self.received += 1


class _Push:
    """One message on its way out."""

    def __init__(self, box: Outbox, send: Outgoing, call: Call) -> None:
        self.box = box
        self._source = memoryview(send.source.view(np.uint8))  # type: ignore[arg-type]
        self._at = 0
        head = _HEAD.pack(_MAGIC, len(call.header), len(self._source)) + call.header
        self._parts: list[bytes | memoryview] = [head + box.tag(head)]
        self._add_piece()

    def move(self) -> bool:
        """Hand the kernel what it takes; whether anything moved."""
        moved = False
        while self._parts:
            try:
                count = self.box.socket.sendmsg(self._parts)
            except BlockingIOError:
                if len(self._parts) <= 2:
                    self._add_piece()  # its tag is made while the line is busy
                break
            moved = True
            self._parts = _rest(self._parts, count)
            if not self._parts:
                self._add_piece()
        return moved

    def finished(self) -> bool:
        return not self._parts

    def _add_piece(self) -> None:
        piece = self._source[self._at : self._at + self.box.piece_bytes]
        if len(piece):
            self._parts += [piece, self.box.tag(piece)]
            self._at += len(piece)


def _rest(parts: list[bytes | memoryview], count: int) -> list[bytes | memoryview]:
    for i, part in enumerate(parts):
        if count < len(part):
            return [memoryview(part)[count:], *parts[i + 1 :]]
        count -= len(part)
    return []


class _Pull:
    """One message on its way in."""

    def __init__(self, channel: TcpChannel, recv: Incoming, call: Call) -> None:
        self.channel, self.recv, self.call = channel, recv, call
        self.member = channel.members[recv.peer]
        self.total, self.done = recv.target.size * recv.dtype.itemsize, -1  # -1: before the head
        self._piece: memoryview | None = None  # where the bytes of the current piece go
        self._filled = 0

    def move(self) -> bool:
        """Take what has come; whether anything moved."""
        box = self.channel.inbox(self.member)
        if box is None:
            return False
        moved = False
        try:
            while not self.finished():
                while self._step(box):
                    moved = True
                if self.finished():
                    break
                if self._piece is not None and self._filled < len(self._piece):
                    self._filled += box.read(self._piece[self._filled :])
                else:
                    box.read()
                moved = True
        except BlockingIOError:
            pass
        return moved

    def finished(self) -> bool:
        return self.done >= self.total

    def _step(self, box: Inbox) -> bool:
        """Use what has been read; False if more is needed."""
        if self.finished():
            return False
        if self.done < 0:
            return self._head(box)
        if self._piece is None:
            size = min(box.piece_bytes, self.total - self.done)
            whole = self.recv.target.view(np.uint8)[self.done : self.done + size]
            self._piece = memoryview(whole if self.recv.combine is None else box.piece()[:size])  # type: ignore[arg-type]
            self._filled = 0
        if self._filled < len(self._piece):
            count = min(box.held(), len(self._piece) - self._filled)
            self._piece[self._filled : self._filled + count] = box.take(count)
            self._filled += count
        if self._filled < len(self._piece) or box.held() < box.tag_bytes:
            return False
        box.verify(self._piece, box.take(box.tag_bytes))
        self._store(self._piece)
        self.done += len(self._piece)
        self._piece = None
        return True

    def _head(self, box: Inbox) -> bool:
        if box.held() < _HEAD.size:
            return False
        magic, length, total = _HEAD.unpack_from(box.buffer, box.start)
        if magic != _MAGIC or length > HEADER_BYTES:
            raise DistributedError(f"[tcp] rank {box.member} sent a broken head: {(magic, length, total)}")
        size = _HEAD.size + length
        if box.held() < size + box.tag_bytes:
            return False
        head = box.take(size)
        box.verify(head, box.take(box.tag_bytes))
        transport = self.channel.transport
        self.call.check(transport.rank, self.member, bytes(head[_HEAD.size :]))
        self.call.check_size(transport.rank, self.member, self.total, total)
        self.done = 0
        return True

    def _store(self, piece: memoryview) -> None:
        if self.recv.combine is not None:
            start, dtype = self.done // self.recv.dtype.itemsize, self.recv.dtype
            part = np.frombuffer(piece, np.uint8).view(dtype)
            self.recv.combine(self.recv.target[start : start + part.size], part)


class TcpChannel(Channel):
    def __init__(self, transport: TcpTransport, number: int, members: Sequence[int]) -> None:
        self.transport, self.number, self.members = transport, number, list(members)
        self.rank = self.members.index(transport.rank)
        self._outs: dict[int, Outbox] = {}
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def inbox(self, member: int) -> Inbox | None:
        """The connection that `member` opened to us, or None if it has not yet."""
        return self.transport.inboxes.get((self.number, member))

    def wake(self) -> None:
        """Called by the watcher: there is a new connection, or news of a peer."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._news, 1)

    def exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        try:
            yield from self._exchange(call, sends, recvs, pace)
        except DistributedError as error:
            transport = self.transport
            if isinstance(error, CollectiveMismatch) and error is not transport.failure:
                transport.abort(str(error), mismatch=True)
            raise

    def ready(self, peer: int) -> bool:
        box = self.inbox(self.members[peer])
        return box is not None and (box.held() > 0 or bool(select.select([box.socket], [], [], 0)[0]))

    def close(self) -> None:
        self.transport.forget(self)
        for box in self._outs.values():
            box.socket.close()
        os.close(self._news)

    def _exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        pushes = [_Push(self._outbox(s.peer, call, pace.deadline), s, call) for s in sends]
        pulls = [_Pull(self, r, call) for r in recvs]
        pulls.reverse()  # taken from the end, in order: sums get the same bits whoever comes first
        polling_ends = 0.0
        while True:
            moved = self._move(pushes, pulls, call)
            if not pushes and not pulls:
                return
            if moved:
                polling_ends = 0.0
                continue
            awaited = pulls[-1].member if pulls else pushes[0].box.member
            self.transport.check(call, awaited, connected=not pulls or self.inbox(awaited) is not None)
            if not pace.wait:
                yield
                continue
            if pace.spin and self.transport.may_spin:
                now = time.perf_counter()
                polling_ends = polling_ends or now + SPIN
                if now < polling_ends:
                    continue
            if time.monotonic() > pace.deadline:
                raise CollectiveTimeout(
                    f"[distributed] rank {awaited} lives but did not take part in time in {call}"
                )
            self._sleep(pushes, pulls, pace.deadline)

    def _move(self, pushes: list[_Push], pulls: list[_Pull], call: Call) -> bool:
        moved, member = False, -1
        try:
            for push in list(pushes):
                member = push.box.member
                moved |= push.move()
                if push.finished():
                    pushes.remove(push)
            while pulls:
                member = pulls[-1].member
                moved |= pulls[-1].move()
                if not pulls[-1].finished():
                    break
                pulls.pop()
        except OSError as error:
            raise self.transport.lost(member, call, error) from None
        return moved

    def _sleep(self, pushes: list[_Push], pulls: list[_Pull], deadline: float) -> None:
        poll = select.poll()
        poll.register(self._news, select.POLLIN)
        for push in pushes:
            poll.register(push.box.socket, select.POLLOUT)
        if pulls and (box := self.inbox(pulls[-1].member)) is not None:
            poll.register(box.socket, select.POLLIN)
        for fd, _ in poll.poll(max(min(deadline - time.monotonic(), NAP), 0.001) * 1000):
            if fd == self._news:
                with contextlib.suppress(BlockingIOError):  # another thread on this channel took it
                    os.eventfd_read(fd)

    def _outbox(self, peer: int, call: Call, deadline: float) -> Outbox:
        member = self.members[peer]
        box = self._outs.get(member)
        if box is None:
            box = self._outs[member] = self.transport.open_outbox(member, self.number, call, deadline)
        return box
