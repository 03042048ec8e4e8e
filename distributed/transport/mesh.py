"""Unix sockets between all ranks of a host: they carry descriptors, goodbyes and the news of failures."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Sequence

from ..errors import CollectiveTimeout, DistributedError

_HELLO = struct.Struct("<8sQIII")  # magic, job, generation, rank, world size
_MAGIC = b"rgshm-01"
_RETRY = 0.005  # s


def _path(directory: str, rank: int) -> tuple[str, int | None]:
    """The socket's path; a long one goes through a descriptor of its directory (a path has at most 107
    bytes).
    """
    path = os.path.join(directory, f"{rank}.sock")
    if len(os.fsencode(path)) < 100:
        return path, None
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    return f"/proc/self/fd/{fd}/{rank}.sock", fd


def _with_path(directory: str, rank: int, act: Callable[[str], None]) -> None:
    path, fd = _path(directory, rank)
    try:
        act(path)
    finally:
        if fd is not None:
            os.close(fd)


def private_directory(path: str) -> str:
    """Make `path` with mode 0700, or check that it is ours alone. Raises PermissionError if it is not."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    stat = os.lstat(path)
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077:
        raise PermissionError(
            f"[shm] {path} must belong to uid {os.getuid()} with mode 700, "
            f"got uid {stat.st_uid} mode {stat.st_mode & 0o777:o}"
        )
    return path


class Peer:
    """The socket to one rank, and the process behind it (0 where its process number is not visible to us)."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        size = struct.calcsize("3i")
        self.process, uid, _ = struct.unpack(
            "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        if uid != os.getuid():
            sock.close()
            raise PermissionError(
                f"[shm] peers must run as uid {os.getuid()}, got a connection from uid {uid}"
            )

    def send(self, kind: bytes, body: bytes, fd: int | None = None) -> None:
        socket.send_fds(self.socket, [kind + body], [] if fd is None else [fd])

    def receive(self, wait: bool = True) -> tuple[bytes, bytes, int | None]:
        """(kind, body, file descriptor); an empty kind when there will be no more, or none yet without `wait`."""
        flags = 0 if wait else socket.MSG_DONTWAIT
        try:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 128 * 1024, 1, flags)
            except ConnectionResetError:
                # It closed with something of ours unread. Told once, before what it had said until then.
                data, fds, _, _ = socket.recv_fds(self.socket, 128 * 1024, 1, flags)
        except (ConnectionError, TimeoutError, BlockingIOError):
            return b"", b"", None
        return data[:1], data[1:], fds[0] if fds else None


def connect(
    directory: str,
    rank: int,
    world: int,
    job: int,
    generation: int,
    deadline: float,
    ranks: Sequence[int] | None = None,
) -> dict[int, Peer]:
    """Join `ranks` (default: all), which are on this host, through sockets in `directory`; returns the peers by rank.

    Raises CollectiveTimeout naming the ranks that did not come, DistributedError for a peer of another job.
    """
    ranks = range(world) if ranks is None else ranks
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def bind(path: str) -> None:
        if os.path.exists(path):
            os.unlink(path)  # left by a killed job with the same name
        listener.bind(path)

    _with_path(directory, rank, bind)
    listener.listen(world)
    hello = _HELLO.pack(_MAGIC, job, generation, rank, world)
    peers: dict[int, Peer] = {}
    try:
        for lower in (r for r in ranks if r < rank):
            peers[lower] = _dial(directory, lower, rank, world, deadline)
            peers[lower].send(b"H", hello)
        while len(peers) < len(ranks) - 1:
            peer, other = _accept(
                listener, (job, generation, world), set(ranks) - {rank} - set(peers), deadline
            )
            peers[other] = peer
    except BaseException:
        for peer in peers.values():
            peer.socket.close()
        raise
    finally:
        listener.close()
        _with_path(directory, rank, os.unlink)
    return peers


def _dial(directory: str, other: int, rank: int, world: int, deadline: float) -> Peer:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    while True:
        try:
            _with_path(directory, other, sock.connect)
            return Peer(sock)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                sock.close()
                raise CollectiveTimeout(
                    f"[init_process_group] rank {rank} of {world} waits for rank {other}, which did not come "
                    f"to {directory}"
                ) from None
            time.sleep(_RETRY)


def _accept(
    listener: socket.socket, expected: tuple[int, int, int], missing: set[int], deadline: float
) -> tuple[Peer, int]:
    left = deadline - time.monotonic()
    listener.settimeout(max(left, 0.001))
    try:
        sock, _ = listener.accept()
    except TimeoutError:
        raise CollectiveTimeout(
            f"[init_process_group] all ranks must join, and these did not come: {sorted(missing)}"
        ) from None
    try:
        peer, other = _greeted(sock, expected, missing)
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return peer, other


def _greeted(sock: socket.socket, expected: tuple[int, int, int], missing: set[int]) -> tuple[Peer, int]:
    """The peer behind a new connection and its rank. Raises DistributedError for one that does not belong here."""
    sock.settimeout(2.0)
    peer = Peer(sock)
    kind, body, _ = peer.receive()
    if kind != b"H" or len(body) != _HELLO.size or body[:8] != _MAGIC:
        raise DistributedError(
            f"[init_process_group] a peer must greet with {_MAGIC!r}, got {kind + body[:16]!r}"
        )
    _, job, generation, other, world = _HELLO.unpack(body)
    if (job, generation, world) != expected or other not in missing:
        raise DistributedError(
            f"[init_process_group] a peer must be of (job, generation, world size) {expected} and a rank of "
            f"{sorted(missing)}, got {(job, generation, world)} rank {other}"
        )
    return peer, other
