"""Messages between two ranks of a group: in order for each pair and tag, and from whoever sends first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from .call import Call, caller
from .collectives import Runner, Steps
from .errors import CollectiveTimeout
from .hierarchy import runner_for
from .transport import TAGGED, Pace, Transport
from .work import Lane, Work

Job = Callable[[Runner, Call, Pace], Steps]


@lru_cache(4096)
def text_of(
    verb: str, dtype: np.dtype, count: int, op: str = "", name: str = "", root: int | None = None
) -> str:
    words = [
        verb,
        op,
        f"{dtype.name}[{count}]",
        "" if root is None else f"root={root}",
        f"'{name}'" if name else "",
    ]
    return " ".join(w for w in words if w)


class Talk:
    """A lane with its count of calls: what both sides of a conversation number alike."""

    def __init__(self, name: str) -> None:
        self.lane, self.sequence = Lane(name), 0


class Messages:
    """What a Group is made of for messages between pairs. Each tag has a conversation of its own."""

    transport: Transport | None
    timeout: float
    rank: int
    size: int
    members: list[int]
    _number: int
    _lock: threading.Lock
    _pairs: dict[int, Runner]
    _talks: dict[tuple[str, int, int], Talk]

    def send(self, array: np.ndarray, peer: int, *, tag: int = 0, async_op: bool = False) -> Work:
        """Send to `peer`, which must call recv with an array of the same dtype and size, and with this tag."""
        self._check_peer("send", peer, other=True)
        flat, _ = readable(array)
        text = self._message_text(flat, self.rank, peer, tag)
        return self._do(
            text, lambda r, call, pace: r.send(call, flat, peer, pace), async_op, None, ("send", peer, tag)
        )

    def recv(self, array: np.ndarray, peer: int | None, *, tag: int = 0, async_op: bool = False) -> Work:
        """Receive from `peer`, or with None from whoever sends first: the Work's `result` is its rank.

        Messages of a pair and tag arrive in the order they were sent.
        """
        flat, back = writable("recv", array)
        if peer is None:
            return self._recv_any(flat, back, tag, async_op)
        self._check_peer("recv", peer, other=True)
        text = self._message_text(flat, peer, self.rank, tag)
        how = ("recv", peer, tag)
        work = self._do(text, lambda r, call, pace: r.recv(call, flat, peer, pace), async_op, back, how)
        work._result = peer
        return work

    def _message_text(self, flat: np.ndarray, source: int, target: int, tag: int) -> str:
        way = f"{self.members[source]} to {self.members[target]}" + (f" tag {tag}" if tag else "")
        return text_of("message", flat.dtype, flat.size, way)

    def _recv_any(self, flat: np.ndarray, back: Callable[[], None] | None, tag: int, async_op: bool) -> Work:
        if self.size == 1:
            raise ValueError("[recv] a message from any rank needs another rank, and the group has one")
        source: list[int] = []
        pace, site = Pace(), caller()

        def steps() -> Steps:
            runner, nap = self._pair_runner(tag), 1e-5
            deadline = time.monotonic() + self.timeout
            while (peer := self._first_to_send(runner)) is None:
                if time.monotonic() > deadline:
                    raise CollectiveTimeout(
                        f"[distributed] no rank sent a message with tag {tag} in time, waited for at {site}"
                    )
                if pace.wait:
                    time.sleep(nap)
                    nap = min(nap * 1.1, 1e-3)
                else:
                    yield
            source.append(peer)
            talk, found = self._talk("recv", peer, tag), peer
            talk.sequence += 1
            call = self._call(self._message_text(flat, peer, self.rank, tag), talk, site)
            yield from self._steps(
                lambda r, call, pace: r.recv(call, flat, found, pace), runner, call, pace, back
            )

        lane = self._talk("recv", -1, tag).lane
        work = lane.submit("recv", steps(), pace) if async_op else lane.run("recv", steps(), pace)
        return (
            work.then(lambda: setattr(work, "_result", source[0]))
            if async_op
            else Work("recv", source[0], done=True)
        )

    def _first_to_send(self, runner: Runner) -> int | None:
        assert self.transport is not None
        for peer in range(self.size):
            if peer != self.rank and runner.channel.ready(peer):
                return peer
        trouble = self.transport.trouble([m for m in self.members if m != self.transport.rank])
        if trouble is not None and all(
            not runner.channel.ready(p) for p in range(self.size) if p != self.rank
        ):
            raise trouble
        return None

    def _pair_runner(self, tag: int) -> Runner:
        """The conversation of messages with this tag, opened when first used."""
        if not 0 <= tag < 1 << 31:
            raise ValueError(f"[distributed] a message's tag must be in 0..{(1 << 31) - 1}, got {tag}")
        with self._lock:
            if tag not in self._pairs:
                assert self.transport is not None
                self._pairs[tag] = runner_for(self.transport, self._number + 1 + tag * TAGGED, self.members)
            return self._pairs[tag]

    def _do(
        self,
        text: str,
        job: Job,
        async_op: bool,
        back: Callable[[], None] | None = None,
        pair: tuple[str, int, int] | None = None,
    ) -> Work:
        raise NotImplementedError

    def _steps(
        self, job: Job, runner: Runner, call: Call, pace: Pace, back: Callable[[], None] | None
    ) -> Steps:
        raise NotImplementedError

    def _call(self, text: str, talk: Talk, site: str) -> Call:
        raise NotImplementedError

    def _talk(self, kind: str, peer: int, tag: int) -> Talk:
        with self._lock:
            return self._talks.setdefault((kind, peer, tag), Talk(f"ringgrad {kind} {peer}"))

    def _check_peer(self, verb: str, peer: int, other: bool = False) -> None:
        if not 0 <= peer < self.size:
            raise ValueError(f"[{verb}] rank must be in 0..{self.size - 1}, got {peer}")
        if other and peer == self.rank:
            raise ValueError(f"[{verb}] a rank cannot {verb} with itself, got rank {peer} on rank {peer}")


def readable(array: Any) -> tuple[np.ndarray, None]:
    if not isinstance(array, np.ndarray):  # of a GPU: by way of the host
        array = array.get()
    return np.ascontiguousarray(array).reshape(-1), None


def writable(verb: str, array: np.ndarray) -> tuple[np.ndarray, Callable[[], None] | None]:
    """A flat view; or a flat copy, and what writes it back."""
    if not isinstance(array, np.ndarray):
        from ..tensor.backend.cuda.runtime import load

        host, target = array.get(), array
        return host.reshape(-1), lambda: target.__setitem__(Ellipsis, load().asarray(host))
    flags = array.flags
    if not flags.writeable:
        raise ValueError(
            f"[{verb}] the array to write must be writable, got a read-only one of shape {array.shape}"
        )
    if flags.c_contiguous:
        return array if array.ndim == 1 else array.reshape(-1), None
    flat = array.reshape(-1)

    def back() -> None:
        array[...] = flat.reshape(array.shape)

    return flat, back
