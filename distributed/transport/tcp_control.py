"""The control plane of the tcp transport: a star of authenticated connections around rank 0.

Over it ranks meet, show that they live, say goodbye and tell of failures; rank 0 passes on what concerns all.
Each frame carries a MAC over its number and content, and is no longer than the reader's own limit.
"""

from __future__ import annotations

import socket
import struct
import threading
import time

from .handshake import Session, sealer, tag_bytes

# Kinds of messages, from `rank`'s point of view.
JOIN, TABLE, ALIVE, ABORT, MISMATCH, BYE, DIED = b"J", b"T", b".", b"A", b"M", b"B", b"D"
_HEAD = struct.Struct("<cII")  # kind, rank that it is about, bytes of body
_TAG = tag_bytes("mac")
_BACKLOG_BYTES = 4 << 20  # a peer that reads nothing must not fill our memory


class LinkBroken(Exception):
    """What came of the other end: it closed, can not be reached, or sent what is not a frame of ours."""


class Link:
    """One end of a control connection. `send` never waits; `flush` may."""

    def __init__(self, sock: socket.socket, session: Session, dialed: bool, limit: int) -> None:
        sock.setblocking(False)
        self.socket, self.rank, self.limit = sock, session.hello.rank, limit
        self.heard = time.monotonic()
        # The two directions have keys of their own: a frame sent back is not taken for an answer.
        names = (b"dialer", b"listener") if dialed else (b"listener", b"dialer")
        self._seal, self._open = (sealer("mac", session.key + name) for name in names)
        self._sent = self._received = 0
        self._out, self._in = bytearray(), bytearray()
        self._lock = threading.Lock()

    def send(self, kind: bytes, rank: int, body: bytes = b"") -> None:
        """Queue a frame and send what the socket takes."""
        with self._lock:
            if len(self._out) > _BACKLOG_BYTES:
                return  # it will be taken for dead by its silence
            frame = _HEAD.pack(kind, rank, len(body)) + body
            self._out += frame + self._seal(self._sent, frame)
            self._sent += 1
            self._push()

    def pending(self) -> bool:
        return bool(self._out)

    def flush(self) -> None:
        with self._lock:
            self._push()

    def _push(self) -> None:
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()  # the reader finds out that the line is dead

    def receive(self) -> list[tuple[bytes, int, bytes]]:
        """(kind, rank, body) of all frames that have come whole. Raises LinkBroken."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return []
        except ConnectionError as error:  # its kernel says that nobody is there any more
            raise LinkBroken(f"died ({error.strerror or error})") from None
        except OSError as error:  # no route, or no answer: it may well live
            raise LinkBroken(f"can not be reached any more ({error.strerror or error})") from None
        if not data:
            raise LinkBroken("died (closed the connection)")
        self.heard = time.monotonic()
        self._in += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> tuple[bytes, int, bytes] | None:
        if len(self._in) < _HEAD.size:
            return None
        kind, rank, size = _HEAD.unpack_from(self._in)
        if size > self.limit:
            raise LinkBroken(f"sent a control message of {size} bytes, and at most {self.limit} are taken")
        end = _HEAD.size + size
        if len(self._in) < end + _TAG:
            return None
        frame, tag = bytes(self._in[:end]), bytes(self._in[end : end + _TAG])
        if tag != self._open(self._received, frame):
            raise LinkBroken("sent a control message that was changed on its way")
        self._received += 1
        del self._in[: end + _TAG]
        return kind, rank, frame[_HEAD.size :]
