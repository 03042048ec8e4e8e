"""Ranks joined by MPI: our own plans over Isend and Irecv, so that waits have deadlines and failures have
names.

All calls are non-blocking and polled. A watcher thread listens on a communicator of its own for goodbyes,
failures and signs of life, which each rank sends to the next.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..call import HEADER_BYTES, Call
from ..errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from . import ABORT_BYTES, TAGGED, Channel, Incoming, Outgoing, Pace, Transport, peer_failure
from .slurm_pmi import shorten_values

PIECE_BYTES = 1 << 20
INLINE_BYTES = 16 * 1024  # of payload that travel in one message with the header
HEARTBEAT, SILENCE = 1.0, 10.0  # s: as in shm
POLL = 0.02  # s between looks of the watcher
PARTING = 0.5  # s that a rank that leaves waits for the others' goodbyes
_NUMBER_BITS = 12  # of MPI's tag for the number of the conversation; the rest for a message's own tag
_SIZE = struct.Struct("<Q")
_HEAD = _SIZE.size + HEADER_BYTES


def load() -> Any:
    """mpi4py's MPI module, initialised. Raises ImportError naming the extra, RuntimeError without full
    threading.
    """
    MPI = _found()
    if not MPI.Is_initialized():
        shorten_values()
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise RuntimeError(
            "[distributed] MPI must be initialised with MPI_THREAD_MULTIPLE, as communication overlaps "
            f"computation; got thread level {MPI.Query_thread()}. Import ringgrad before what initialises "
            "MPI with less."
        )
    return MPI


def library_version() -> str:
    """What the MPI library that mpi4py finds calls itself. Does not initialise it. Raises ImportError as `load`."""
    return _found().Get_library_version()


def _found() -> Any:
    """mpi4py's MPI module, which ends MPI with the process whoever has initialised it."""
    try:
        import mpi4py

        wanted = mpi4py.rc.initialize, mpi4py.rc.finalize
        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        try:
            from mpi4py import MPI
        finally:
            mpi4py.rc.initialize, mpi4py.rc.finalize = wanted
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py is there and libmpi is not
        raise ImportError(
            '[distributed] the mpi transport needs mpi4py and an MPI library: pip install "ringgrad[mpi]" '
            f"({type(error).__name__}: {error})"
        ) from error
    return MPI


class MpiTransport(Transport):
    name = "mpi"
    one_host = False

    def __init__(self, comm: Any = None, *, silence: float = SILENCE) -> None:
        """comm: an mpi4py communicator to copy (default COMM_WORLD)."""
        self.MPI = load()
        comm = self.MPI.COMM_WORLD if comm is None else comm
        self.rank, self.world_size, self.silence = comm.Get_rank(), comm.Get_size(), silence
        self.comm, self.control = comm.Dup(), comm.Dup()
        host = comm.Split_type(self.MPI.COMM_TYPE_SHARED)
        cores, ranks = len(os.sched_getaffinity(0)), host.Get_size()
        self.may_spin, self.spare_cores = cores >= ranks, cores >= 2 * ranks
        host.Free()
        self.gone: dict[int, str] = {}
        self.failure: DistributedError | None = None
        self.on_news: Callable[[], None] | None = None  # called when `failure` is set
        self._heard = time.monotonic()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="ringgrad mpi watcher", daemon=True)
        self._watcher.start()

    def channel(self, number: int, members: Sequence[int]) -> Channel:
        return MpiChannel(self, number, members)

    def check(self, call: Call, awaited: int, gone: dict[int, str]) -> None:
        """Raise if `awaited` cannot come any more. gone: who had left before the last look for a message."""
        if self.failure is not None:
            raise self.failure
        if awaited in gone:
            raise PeerFailure(
                f"[distributed] rank {awaited} {gone[awaited]} while {call} waits for it", awaited
            )

    def abort(self, text: str, *, mismatch: bool = False) -> None:
        self._tell_all(b"M" if mismatch else b"A", text.encode()[:ABORT_BYTES])

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._tell_all(b"B", b"")
        self._closing.set()
        self._watcher.join(timeout=2)
        # MPI warns on the user's output of messages that nobody took: the others' goodbyes come at about this time.
        end = time.monotonic() + PARTING
        while len(self.gone) < self.world_size - 1 and self.failure is None and time.monotonic() < end:
            self._listen()
            time.sleep(0.001)

    def _tell_all(self, kind: bytes, body: bytes) -> None:
        message = kind + body
        peers = [p for p in range(self.world_size) if p != self.rank and p not in self.gone]
        requests = [self.control.Isend([message, self.MPI.BYTE], p) for p in peers]
        end = time.monotonic() + 2.0
        while not self.MPI.Request.Testall(requests) and time.monotonic() < end:
            time.sleep(0.001)

    def _watch(self) -> None:
        MPI = self.MPI
        following, previous = (self.rank + 1) % self.world_size, (self.rank - 1) % self.world_size
        sign, sent_at = None, 0.0
        while not self._closing.wait(POLL) and not MPI.Is_finalized():
            now = time.monotonic()
            if now - sent_at > HEARTBEAT and (sign is None or sign.Test()) and following not in self.gone:
                sign, sent_at = self.control.Isend([b".", MPI.BYTE], following), now
            self._listen()
            quiet = now - self._heard
            if quiet > self.silence and previous not in self.gone and self.failure is None:
                silent = (
                    f"[distributed] rank {previous} has shown no sign of life for {quiet:.0f} s: it is "
                    "stopped, or its host cannot be reached"
                )
                self._fail(PeerFailure(silent, previous))
                self.abort(f"it lost rank {previous}, silent for {quiet:.0f} s")

    def _listen(self) -> None:
        MPI, status = self.MPI, self.MPI.Status()
        while self.control.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            message = bytearray(status.Get_count(MPI.BYTE))
            self.control.Recv([message, MPI.BYTE], status.Get_source(), status.Get_tag())
            self._hear(status.Get_source(), bytes(message))

    def _hear(self, rank: int, message: bytes) -> None:
        kind, body = message[:1], message[1:].decode(errors="replace")
        if rank == (self.rank - 1) % self.world_size:
            self._heard = time.monotonic()
        if kind == b"B":
            self.gone.setdefault(rank, "left the group")
        elif kind == b"M":
            self._fail(CollectiveMismatch(body))
        elif kind == b"A":
            self._fail(peer_failure(rank, body))

    def _fail(self, error: DistributedError) -> None:
        """The first failure counts."""
        if self.failure is None:
            self.failure = error
            if self.on_news is not None:
                self.on_news()


class MpiChannel(Channel):
    def __init__(self, transport: MpiTransport, number: int, members: Sequence[int]) -> None:
        self.transport, self.tag, self.members = transport, _mpi_tag(transport, number), list(members)
        self.rank = self.members.index(transport.rank)
        self._byte = transport.MPI.BYTE
        self.heads: list[np.ndarray] = []  # spare ones

    def ready(self, peer: int) -> bool:
        return bool(self.transport.comm.Iprobe(self.members[peer], self.tag))

    def exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        step = _Step(self, call, pace)
        try:
            heads = [step.listen(recv) for recv in recvs]
            for send in sends:
                step.send(send)
            for recv, (head, request) in zip(recvs, heads):
                yield from step.receive(recv, head, request)
            yield from step.finish()
        except CollectiveMismatch as error:
            if error is not self.transport.failure:
                self.transport.abort(str(error), mismatch=True)
            raise


def _mpi_tag(transport: MpiTransport, number: int) -> int:
    """The tag of MPI for a conversation. Raises ValueError if this MPI has none so large."""
    tag, low = divmod(number, TAGGED)
    combined, most = tag << _NUMBER_BITS | low, transport.comm.Get_attr(transport.MPI.TAG_UB)
    if combined > most:
        raise ValueError(
            f"[distributed] over this MPI a message's tag must be at most {most >> _NUMBER_BITS}, got {tag}"
        )
    return combined


def _spans(size: int) -> list[int]:
    """What a long message of `size` bytes is cut into, alike on both sides: adding up then overlaps the
    transfer.
    """
    length = -(-max(size // 64, PIECE_BYTES) // 64) * 64  # whole elements of any dtype
    return [min(length, size - at) for at in range(0, size, length)]


def _pieces(data: np.ndarray) -> list[np.ndarray]:
    at, pieces = 0, []
    for span in _spans(data.size):
        pieces.append(data[at : at + span])
        at += span
    return pieces


class _Step:
    """The messages of one exchange."""

    def __init__(self, channel: MpiChannel, call: Call, pace: Pace) -> None:
        self.channel, self.call, self.pace = channel, call, pace
        self.comm, self.tag, self.byte = channel.transport.comm, channel.tag, channel._byte
        self.sent: list[tuple[Any, int, Any]] = []  # request, member, buffer that must outlive it

    def send(self, send: Outgoing) -> None:
        member, size = self.channel.members[send.peer], send.source.nbytes
        body: Any = send.source.view(np.uint8) if 0 < size <= INLINE_BYTES else b""
        self._post(b"".join((_SIZE.pack(size), self.call.header.ljust(HEADER_BYTES), body)), member)
        if size > INLINE_BYTES:
            for piece in _pieces(send.source.view(np.uint8)):
                self._post(piece, member)

    def listen(self, recv: Incoming) -> tuple[np.ndarray, Any]:
        # Room for the longest first message, so that a peer that disagrees is understood and not cut off.
        spare = self.channel.heads
        head = spare.pop() if spare else np.empty(_HEAD + INLINE_BYTES, np.uint8)
        return head, self._expect(head, self.channel.members[recv.peer])

    def receive(self, recv: Incoming, head: np.ndarray, request: Any) -> Iterator[None]:
        member = self.channel.members[recv.peer]
        size, rank = recv.target.size * recv.dtype.itemsize, self.channel.transport.rank
        yield from self._wait(request, member)
        self.call.check(rank, member, head[_SIZE.size : _HEAD].tobytes())
        self.call.check_size(rank, member, size, _SIZE.unpack_from(head.data)[0])
        if size <= INLINE_BYTES:
            self._store(recv, recv.target, head[_HEAD : _HEAD + size].view(recv.dtype))
            self.channel.heads.append(head)
        elif recv.combine is None:
            requests = [self._expect(piece, member) for piece in _pieces(recv.target.view(np.uint8))]
            for request in requests:
                yield from self._wait(request, member)
        else:
            yield from self._combine(recv, member)

    def finish(self) -> Iterator[None]:
        for request, member, _ in self.sent:
            yield from self._wait(request, member)

    def _combine(self, recv: Incoming, member: int) -> Iterator[None]:
        """Two buffers in turn: one fills while the other is added up."""
        spans = _spans(recv.target.size * recv.dtype.itemsize)
        buffers = [np.empty(max(spans), np.uint8) for _ in range(2)]
        requests = [self._expect(buffers[i][: spans[i]], member) for i in range(min(2, len(spans)))]
        at = 0
        for i, span in enumerate(spans):
            yield from self._wait(requests[i], member)
            part = buffers[i % 2][:span].view(recv.dtype)
            self._store(recv, recv.target[at : at + part.size], part)
            at += part.size
            if i + 2 < len(spans):
                requests.append(self._expect(buffers[i % 2][: spans[i + 2]], member))

    @staticmethod
    def _store(recv: Incoming, target: np.ndarray, part: np.ndarray) -> None:
        if recv.combine is None:
            target[...] = part
        else:
            recv.combine(target, part)

    def _post(self, buffer: np.ndarray | bytes, member: int) -> None:
        self.sent.append((self.comm.Isend([buffer, self.byte], member, self.tag), member, buffer))

    def _expect(self, buffer: np.ndarray, member: int) -> Any:
        return self.comm.Irecv([buffer, self.byte], member, self.tag)

    def _wait(self, request: Any, member: int) -> Iterator[None]:
        """Poll: first without a break, then with ever longer ones."""
        pace = self.pace
        transport, polls, nap = self.channel.transport, 0, 2e-5
        while True:
            gone = dict(transport.gone) if transport.gone else transport.gone
            if request.Test():
                return
            polls += 1
            if pace.wait and pace.spin and transport.may_spin and polls < 2000:
                continue
            transport.check(self.call, member, gone)
            if not pace.wait:
                yield
                continue
            if time.monotonic() > pace.deadline:
                raise CollectiveTimeout(
                    f"[distributed] rank {member} did not take part in time in {self.call}"
                )
            time.sleep(nap)
            nap = min(nap * 1.1, 1e-3)
