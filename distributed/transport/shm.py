"""All ranks on one host: they read each other's memory, and sleep on futexes in it.

Each rank writes only to its own memory (and rings the doorbell of others, and puts results into arrays that were
lent to it), so every word has one writer. A message is an entry in the sender's ring for that peer: where the bytes
lie, how many, and the call's header. Arrays from `empty` lie in shared memory, and the receiver adds straight out of
them; others go through slots in chunks. A watcher thread reads the sockets: it learns of new memory, of goodbyes and
of failures, and shows that this process lives.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import select
import struct
import threading
import time
import weakref
from collections.abc import Sequence

import numpy as np

from ..call import Call
from ..errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from . import ABORT_BYTES, Channel, Transport, peer_failure
from .futex import Doorbell
from .mesh import connect
from .segment import Segment, attach, create
from .shm_channel import ShmChannel, channel_bytes, channel_segment, is_channel

HEARTBEAT = 1.0  # s between signs of life
SILENCE = 10.0  # s without one, after which a process counts as stopped
_SEGMENT = struct.Struct("<QQ")  # id, size


class ShmTransport(Transport):
    name = "shm"

    def __init__(
        self,
        directory: str,
        rank: int,
        world_size: int,
        *,
        job: int = 0,
        generation: int = 0,
        join_timeout: float = 60.0,
        silence: float = SILENCE,
        ranks: Sequence[int] | None = None,
    ) -> None:
        """directory: private to this user, the same on all ranks. Waits for all ranks to come.

        ranks: those on this host, if there are others elsewhere.
        """
        self.rank, self.world_size, self.silence = rank, world_size, silence
        self._beat_every = min(HEARTBEAT, silence / 10)
        self.job, self.generation = job, generation
        # With fewer cores than ranks, who polls takes the core from the one waited for.
        ranks = range(world_size) if ranks is None else ranks
        cores = len(os.sched_getaffinity(0))
        self.may_spin, self.spare_cores = cores >= len(ranks), cores >= 2 * len(ranks)
        deadline = time.monotonic() + join_timeout
        self.peers = connect(directory, rank, world_size, job, generation, deadline, ranks)
        self.gone: dict[int, str] = {}
        self.failure: DistributedError | None = None
        self._lock = threading.Lock()
        self._own: list[tuple[int, int, int]] = []  # (start address, end address, id) of arrays from `empty`
        self._next_id = 1
        self._remote: dict[int, dict[int, Segment]] = {p: {} for p in self.peers}
        self._bells: dict[int, Doorbell] = {}
        self._fds: dict[int, tuple[int, Segment]] = {}
        self.control = self._share(0, "ringgrad-control", 4096)
        self.bell = Doorbell(self.control.memory[: Doorbell.BYTES])
        self._beat = self.control.memory[64:72].cast("Q")
        self._beat[0] = time.monotonic_ns()
        self._closing = False
        self._wake_read, self._wake_write = os.pipe()
        self._watcher = threading.Thread(target=self._watch, name="ringgrad shm watcher", daemon=True)
        self._watcher.start()
        for peer in self.peers:
            self._await_control(peer, deadline)

    # Memory.

    def empty(self, count: int, dtype: np.dtype) -> np.ndarray:
        """A flat array in shared memory, given back when its last view is gone."""
        with self._lock:
            number = self._next_id
            self._next_id += 1
        segment = self._share(number, f"ringgrad-{number}", count * dtype.itemsize)
        span = (segment.address, segment.address + segment.size, number)
        with self._lock:
            bisect.insort(self._own, span)
        # The finalizer hangs on the array that all views have as their base.
        weakref.finalize(segment.bytes, self._free, span).atexit = False
        return segment.bytes[: count * dtype.itemsize].view(dtype)

    def locate(self, array: np.ndarray) -> tuple[int, int] | None:
        """(id, offset) of an array that lies in memory from `empty`."""
        own = self._own
        if not own:
            return None
        address: int = array.__array_interface__["data"][0]
        at = bisect.bisect_right(own, (address, 1 << 64, 0)) - 1
        if at < 0 or address + array.nbytes > own[at][1]:
            return None
        return own[at][2], address - own[at][0]

    def remote(self, peer: int, number: int) -> Segment | None:
        """A peer's memory, or None if the news of it has not come yet."""
        return self._remote[peer].get(number)

    def ring(self, peer: int) -> None:
        self._bells[peer].ring()

    def channel(self, number: int, members: Sequence[int]) -> Channel:
        segment = self._share(
            channel_segment(number), f"ringgrad-channel-{number}", channel_bytes(len(members))
        )
        return ShmChannel(self, number, members, segment)

    def forget(self, number: int) -> None:
        """Let go of the peers' memory of this id."""
        for segments in self._remote.values():
            segments.pop(number, None)

    # Failures.

    def fail(self, error: DistributedError) -> None:
        """End all waits here with `error`, which another transport of this process has found."""
        if self.failure is None:
            self.failure = error
        self.bell.ring()

    def check(self, call: Call, awaited: int, gone: dict[int, str]) -> None:
        """Raise if `awaited` cannot come any more. gone: who had left before the last look at its memory."""
        if self.failure is not None:
            raise self.failure
        if awaited in gone:
            raise PeerFailure(
                f"[distributed] rank {awaited} {gone[awaited]} while {call} waits for it", awaited
            )

    def check_alive(self, call: Call, awaited: int) -> None:
        """Raise if `awaited` has shown no sign of life for too long."""
        beat = self._remote[awaited][0].memory[64:72].cast("Q")[0]
        quiet = (time.monotonic_ns() - beat) / 1e9
        if quiet > self.silence:
            process = self.peers[awaited].process
            raise PeerFailure(
                f"[distributed] rank {awaited} (pid {process}) has shown no sign of life for {quiet:.0f} s "
                f"while {call} waits for it: it is stopped, or its host has no time for it",
                awaited,
            )

    def late(self, call: Call, awaited: int) -> CollectiveTimeout:
        return CollectiveTimeout(
            f"[distributed] rank {awaited} lives but did not take part in time in {call}"
        )

    def abort(self, text: str, *, mismatch: bool = False) -> None:
        self._tell_all(b"M" if mismatch else b"A", text.encode()[:ABORT_BYTES])

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._tell_all(b"B", b"")
        os.write(self._wake_write, b"x")
        self._watcher.join(timeout=2)
        for peer in self.peers.values():
            peer.socket.close()
        for fd in (self._wake_read, self._wake_write):
            os.close(fd)

    # Inside.

    def _share(self, number: int, label: str, size: int) -> Segment:
        fd, segment = create(label, size)
        try:
            for peer in self.peers.values():
                # One that has left: how, the watcher finds out from what it said last.
                with contextlib.suppress(ConnectionError):
                    peer.send(b"S", _SEGMENT.pack(number, segment.size), fd)
        finally:
            os.close(fd)
        return segment

    def _free(self, span: tuple[int, int, int]) -> None:
        with self._lock:
            self._own.remove(span)
        if not self._closing:
            self._tell_all(b"F", _SEGMENT.pack(span[2], 0))

    def _tell_all(self, kind: bytes, body: bytes) -> None:
        end = time.monotonic() + 2.0
        for peer in self.peers.values():
            while True:
                try:
                    peer.socket.send(kind + body, 0x40)  # MSG_DONTWAIT: a stopped peer must not stop us
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        break
                    time.sleep(0.001)
                except OSError:
                    break  # it has gone

    def _await_control(self, peer: int, deadline: float) -> None:
        self.bell.listen()
        while True:
            seen = self.bell.read()
            if peer in self._bells:
                return self.bell.unlisten()
            if peer in self.gone:
                raise PeerFailure(f"[init_process_group] rank {peer} {self.gone[peer]} while joining", peer)
            if time.monotonic() > deadline:
                raise CollectiveTimeout(
                    f"[init_process_group] rank {peer} came but did not share its memory in time"
                )
            self.bell.wait(seen, 0.1)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        sources: dict[int, int] = {}
        processes: dict[int, int] = {}
        for rank, peer in self.peers.items():
            poll.register(peer.socket, select.POLLIN)
            sources[peer.socket.fileno()] = rank
            # A child that the peer forked holds the socket open after its death: the process itself tells
            # too.
            if peer.process and (fd := _pidfd(peer.process)) is not None:
                poll.register(fd, select.POLLIN)
                processes[fd] = rank
        while not self._closing:
            events = [fd for fd, _ in poll.poll(self._beat_every * 1000)]
            self._beat[0] = time.monotonic_ns()
            for fd in events:
                rank = sources.get(fd, processes.get(fd, -1))
                if rank < 0:
                    continue
                died = fd in processes
                while (more := self._listen(rank, wait=not died)) and died:
                    pass  # a goodbye or a traceback says more than the death that followed it
                if not more:
                    self.gone.setdefault(rank, f"(pid {self.peers[rank].process}) died")
                    poll.unregister(fd)
            if events:
                self.bell.ring()
        for fd in processes:
            os.close(fd)

    def _listen(self, rank: int, wait: bool) -> bool:
        """Take one message; False when there will be no more, or is none without `wait`."""
        kind, body, fd = self.peers[rank].receive(wait)
        if kind == b"S" and fd is not None:
            number, size = _SEGMENT.unpack(body)
            segment = attach(fd, size, writable=not is_channel(number))
            self._remote[rank][number] = segment
            if number == 0:
                self._bells[rank] = Doorbell(segment.memory[: Doorbell.BYTES])
        elif kind == b"F":
            self._remote[rank].pop(_SEGMENT.unpack(body)[0], None)
        elif kind == b"B":
            self.gone.setdefault(rank, "left the group")
        elif kind == b"A" and self.failure is None:
            self.failure = peer_failure(rank, body.decode(errors="replace"))
        elif kind == b"M" and self.failure is None:
            self.failure = CollectiveMismatch(body.decode(errors="replace"))
        return kind != b""


def _pidfd(process: int) -> int | None:
    try:
        return os.pidfd_open(process)
    except OSError:
        return None
