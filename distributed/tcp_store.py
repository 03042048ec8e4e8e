"""TCPStore: a table at one process, which the others reach over authenticated connections."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import tempfile
import threading
import time
import weakref
from datetime import timedelta
from typing import Any

from .errors import DistributedError
from .rendezvous import shared_secret, token_for
from .store import DEFAULT_TIMEOUT, OPERATIONS, DistStoreError, Store, Table
from .transport.handshake import CONTROL, TIMEOUT, Identity, Refused, Session, answer, derive_key, dial
from .transport.tcp import reach, resolve
from .transport.tcp_control import Link, LinkBroken

LIMIT = 64 << 20  # bytes of one question or answer
RETRY = 0.05  # s between attempts to reach the listening process
_KIND = b"Q"
_JOINED = "init/"  # counts who has come


class TCPStore(Store):
    """Arguments as in torch.distributed.TCPStore; the last three of them change nothing.

    is_master: listen on host_name:port (0: a free one; see `port`). The others dial it, and wait until it is there.
    world_size with wait_for_workers: return when so many have come, this one included.

    Who connects must hold RINGGRAD_TOKEN. Without one only loopback is listened on, and a secret lies in a directory
    of this user. What is sent is guarded by a MAC and not encrypted.

    Raises RuntimeError without a token for an address that others reach, DistStoreError when nobody listens there or
    not all come within the timeout.
    """

    def __init__(
        self,
        host_name: str,
        port: int,
        world_size: int | None = None,
        is_master: bool = False,
        timeout: timedelta = DEFAULT_TIMEOUT,
        wait_for_workers: bool = True,
        multi_tenant: bool = False,
        master_listen_fd: int | None = None,
        use_libuv: bool = True,
    ) -> None:
        super().__init__()
        self._timeout, self.host, self.port = timeout, host_name, port
        self._turn = threading.Lock()
        self._server: Server | None = None
        deadline = time.monotonic() + timeout.total_seconds()
        if is_master:
            self._server = Server(host_name, port)
            self.port = self._server.port
            weakref.finalize(self, self._server.close)
        self._link = _reach(host_name, self.port, deadline)
        weakref.finalize(self, self._link.socket.close)
        self.add(_JOINED, 1)
        while world_size and wait_for_workers and self.add(_JOINED, 0) < world_size:
            if time.monotonic() > deadline:
                raise DistStoreError(
                    f"[TCPStore] {world_size} workers must come to {self.host}:{self.port} within {timeout}, and "
                    f"{self.add(_JOINED, 0)} did"
                )
            time.sleep(RETRY)

    def __repr__(self) -> str:
        return f"TCPStore({self.host}:{self.port}{', listening' if self._server else ''})"

    def own_address(self) -> str:
        return str(self._link.socket.getsockname()[0])

    def _run(self, name: str, *arguments: Any) -> Any:
        import msgpack

        with self._turn:
            try:
                self._link.send(_KIND, 0, msgpack.packb([name, *arguments]))
                ((_, _, body),) = _next_frames(self._link)
            except LinkBroken as error:
                raise DistStoreError(
                    f"[TCPStore] the process that listens on {self.host}:{self.port} must live as long as its "
                    f"users, and {error}"
                ) from None
        good, result = msgpack.unpackb(body)
        if not good:
            raise ValueError(f"[TCPStore] {name}({', '.join(map(repr, arguments))}): {result}")
        return result


class Server:
    """Holds the table, and answers on a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        family, target = resolve(host, port)
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(target)
            self._listener.listen(128)
            self.port = int(self._listener.getsockname()[1])
            self._directory = None if token_for(host, "TCPStore") else _directory(self.port)
            self._who = _identity(host, self.port, 0, time.monotonic())
        except BaseException:
            self._listener.close()
            raise
        self._table: Table = {}
        self._links: dict[int, Link] = {}
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = False
        self._greeting = threading.BoundedSemaphore(64)
        self._thread = threading.Thread(target=self._serve, name="ringgrad store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(timeout=2)
        for link in list(self._links.values()):
            link.socket.close()
        self._listener.close()
        os.close(self._wake)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _serve(self) -> None:
        while not self._closing:
            poll = select.poll()
            for source in (self._listener, self._wake):
                poll.register(source, select.POLLIN)
            for link in list(self._links.values()):
                poll.register(link.socket, select.POLLIN | (select.POLLOUT if link.pending() else 0))
            for fd, event in poll.poll(1000):
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._wake:
                    os.eventfd_read(fd)
                elif (link := self._links[fd]) and event:
                    link.flush()
                    self._hear(fd, link)

    def _hear(self, fd: int, link: Link) -> None:
        try:
            for _, _, body in link.receive():
                link.send(_KIND, 0, self._reply(body))
        except LinkBroken:
            self._links.pop(fd).socket.close()

    def _reply(self, body: bytes) -> bytes:
        import msgpack

        try:
            name, *arguments = msgpack.unpackb(body)
            answer = [True, OPERATIONS[name](self._table, *arguments)]
        except (ValueError, TypeError, KeyError) as error:
            answer = [False, str(error)]
        packed: bytes = msgpack.packb(answer)
        return packed

    def _accept(self) -> None:
        """Greet who comes on a thread of its own: a stranger who says nothing keeps nobody waiting."""
        sock, _ = self._listener.accept()
        if not self._greeting.acquire(blocking=False):
            sock.close()
            return
        threading.Thread(
            target=self._greet, args=(sock,), name="ringgrad store greeting", daemon=True
        ).start()

    def _greet(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(TIMEOUT)
            self._links[sock.fileno()] = _link(sock, answer(sock, self._who, 0), dialed=False)
            os.eventfd_write(self._wake, 1)  # the poll does not know it yet
        except (OSError, Refused):
            sock.close()
        finally:
            self._greeting.release()


def _reach(host: str, port: int, deadline: float) -> Link:
    """An authenticated connection to who listens there, which may start later than we."""
    family, target = resolve(host, port)
    reason: Exception | None = None
    while time.monotonic() < deadline:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            reach(sock, target, deadline)
            return _link(sock, dial(sock, _identity(host, port, 1, deadline), 1, 0, CONTROL), dialed=True)
        except (OSError, DistributedError) as error:
            sock.close()
            reason = error
            if isinstance(error, Refused) and token_for(host, "TCPStore"):
                raise  # else it read the secret of one that listened here before
        time.sleep(RETRY)
    raise DistStoreError(f"[TCPStore] a process must listen on {host}:{port}, and none is reached: {reason}")


def _link(sock: socket.socket, session: Session, dialed: bool) -> Link:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Link(sock, session, dialed, LIMIT)


def _identity(host: str, port: int, rank: int, deadline: float) -> Identity:
    """Rank 0 listens, all others are 1. Apart from process groups by its job, which theirs never is."""
    token = token_for(host, "TCPStore") or shared_secret(_directory(port), rank, deadline)
    return Identity(derive_key(f"store {token}"), 0, 0, 2, "mac")


def _directory(port: int) -> str:
    return os.path.join(tempfile.gettempdir(), f"ringgrad-{os.getuid()}-store-{port}")


def _next_frames(link: Link) -> list[tuple[bytes, int, bytes]]:
    """Wait for the answer. Raises LinkBroken."""
    while True:
        with contextlib.suppress(InterruptedError):
            waiting = [link.socket] if link.pending() else []
            select.select([link.socket], waiting, [])
        link.flush()
        if frames := link.receive():
            return frames
