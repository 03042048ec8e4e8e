"""Ranks as threads of one process: the readable reference, and the double in tests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..call import Call
from ..errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from . import Channel, Incoming, Outgoing, Pace, Transport, peer_failure


class Message:
    __slots__ = ("call", "source", "taken")

    def __init__(self, call: Call, source: np.ndarray) -> None:
        self.call, self.source, self.taken = call, source, False


class World:
    """What the threads share: the wires between them, and the news of who ended."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.changed = threading.Condition()
        self.wires: dict[tuple[int, int, int], deque[Message]] = {}
        self.ended: dict[int, str] = {}
        self.aborted: DistributedError | None = None
        self.aborter = -1

    def wire(self, number: int, source: int, target: int) -> deque[Message]:
        return self.wires.setdefault((number, source, target), deque())


class LocalTransport(Transport):
    name = "local"

    def __init__(self, world: World, rank: int) -> None:
        self.world, self.rank, self.world_size = world, rank, world.size

    @property
    def failure(self) -> DistributedError | None:  # type: ignore[override]
        return None if self.world.aborter == self.rank else self.world.aborted

    @property
    def gone(self) -> dict[int, str]:  # type: ignore[override]
        return self.world.ended

    def channel(self, number: int, members: Sequence[int]) -> LocalChannel:
        return LocalChannel(self, number, members)

    def abort(self, text: str, *, mismatch: bool = False) -> None:
        error = CollectiveMismatch(text) if mismatch else peer_failure(self.rank, text)
        with self.world.changed:
            if self.world.aborted is None:
                self.world.aborted, self.world.aborter = error, self.rank
            self.world.changed.notify_all()

    def close(self) -> None:
        with self.world.changed:
            self.world.ended.setdefault(self.rank, "left the group")
            self.world.changed.notify_all()


class LocalChannel(Channel):
    def __init__(self, transport: LocalTransport, number: int, members: Sequence[int]) -> None:
        self.transport, self.number, self.members = transport, number, list(members)
        self.rank = self.members.index(transport.rank)

    def ready(self, peer: int) -> bool:
        return bool(self.transport.world.wire(self.number, self.members[peer], self.transport.rank))

    def exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        world = self.transport.world
        posted = [Message(call, send.source) for send in sends]
        with world.changed:
            for send, message in zip(sends, posted):
                world.wire(self.number, self.transport.rank, self.members[send.peer]).append(message)
            world.changed.notify_all()
        for recv in recvs:
            wire = world.wire(self.number, self.members[recv.peer], self.transport.rank)
            yield from self._wait(lambda w=wire: bool(w), recv.peer, call, pace)  # type: ignore[misc]
            self._receive(call, recv, wire)
        for send, message in zip(sends, posted):
            yield from self._wait(lambda m=message: m.taken, send.peer, call, pace)  # type: ignore[misc]

    def _receive(self, call: Call, recv: Incoming, wire: deque[Message]) -> None:
        world = self.transport.world
        with world.changed:
            message = wire.popleft()
        try:
            call.check(self.transport.rank, self.members[recv.peer], message.call.header)
            size = recv.target.size * recv.dtype.itemsize
            call.check_size(self.transport.rank, self.members[recv.peer], size, message.source.nbytes)
        except CollectiveMismatch as error:
            self.transport.abort(str(error), mismatch=True)
            raise
        if recv.combine is None:
            recv.target[...] = message.source
        else:
            recv.combine(recv.target, message.source)
        with world.changed:
            message.taken = True
            world.changed.notify_all()

    def _wait(self, ready: Callable[[], bool], peer: int, call: Call, pace: Pace) -> Iterator[None]:
        world = self.transport.world
        while True:
            with world.changed:
                if self._look(ready, self.members[peer], call):
                    return
                if pace.wait:
                    left = pace.deadline - time.monotonic()
                    if left <= 0:
                        raise CollectiveTimeout(
                            f"[distributed] rank {self.members[peer]} did not take part in time in {call}"
                        )
                    world.changed.wait(left)
                    continue
            yield

    def _look(self, ready: Callable[[], bool], member: int, call: Call) -> bool:
        """Whether it is `ready`; raises if it never will be."""
        world = self.transport.world
        if world.aborted is not None and world.aborter != self.transport.rank:
            raise world.aborted
        if ready():
            return True
        if member in world.ended:
            raise PeerFailure(
                f"[distributed] rank {member} {world.ended[member]} while {call} waits for it", member
            )
        return False


def run_threads(size: int, body: Callable[[LocalTransport], object], timeout: float = 60.0) -> list[object]:
    """Run `body(transport)` as `size` ranks, one thread each, and return what they returned, by rank.

    If ranks raise, the error of the rank that failed first of its own accord is raised here.
    """
    world = World(size)
    results: list[object] = [None] * size
    errors: list[tuple[bool, BaseException]] = []

    def rank_body(rank: int) -> None:
        transport = LocalTransport(world, rank)
        try:
            results[rank] = body(transport)
        except BaseException as error:
            errors.append((isinstance(error, PeerFailure), error))
            if not isinstance(error, DistributedError):
                transport.abort(f"{type(error).__name__}: {error}")
        finally:
            transport.close()

    threads = [
        threading.Thread(target=rank_body, args=(r,), name=f"rank {r}", daemon=True) for r in range(size)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout
    for rank, thread in enumerate(threads):
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            raise CollectiveTimeout(f"[run_threads] rank {rank} must end within {timeout} s, and still runs")
    if errors:
        raise sorted(errors, key=lambda item: item[0])[0][1]
    return results
