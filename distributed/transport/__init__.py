"""Transports move bytes between ranks and nothing else: what to move is a plan's business.

A Transport joins the ranks of a job; a Channel is one ordered conversation among some of them. On a channel,
`exchange` performs one step of a plan. One thread at a time uses a channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..call import Call
from ..errors import DistributedError, PeerFailure
from ..reduction import Combine

TAGGED = 1 << 32  # conversations of messages with a tag t have their group's number + t * TAGGED
ABORT_BYTES = 64 * 1024  # of traceback text


class Pace:
    """How one collective is driven. deadline: of time.monotonic().

    wait: whether to sleep where nothing can move; else the collective yields there, and its owner goes on later.
    spin: whether polling for some microseconds before sleeping is welcome.
    """

    __slots__ = ("deadline", "spin", "wait")

    def __init__(self, wait: bool = True, spin: bool = False, deadline: float = math.inf) -> None:
        self.wait, self.spin, self.deadline = wait, spin, deadline


class Incoming(NamedTuple):
    """Where a message goes. With `combine`, several messages may go to one target: they are taken in this
    order.
    """

    peer: int
    target: np.ndarray
    combine: Combine | None  # None: copy
    dtype: np.dtype  # of the message; the target may be wider (float32 for halves)


class Outgoing(NamedTuple):
    peer: int
    source: np.ndarray


def peer_failure(rank: int, text: str) -> PeerFailure:
    """The error of the others when `rank` aborts with `text`."""
    first, _, rest = text.strip().partition("\n")
    return PeerFailure(f"[distributed] rank {rank} failed: {first or 'no reason given'}", rank, rest)


class Channel:
    """One ordered conversation among `members` (ranks of the transport). Peers are numbered by place in
    members.
    """

    members: Sequence[int]
    rank: int  # this process's place in members
    one_host = False  # whether these members, of a transport over several hosts, are on one
    lends = False  # whether it has `together`

    def exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        """Send and receive all of these at once; arrays are flat and contiguous.

        A generator: it ends when every target is filled and every source may be overwritten, and yields where
        it would have to sleep and `pace.wait` is not set. Raises CollectiveMismatch, PeerFailure or
        CollectiveTimeout, and tells the other ranks of a mismatch.
        """
        raise NotImplementedError

    def together(
        self, call: Call, flat: np.ndarray, use: Callable[[list[np.ndarray]], None], pace: Pace
    ) -> Generator[None, None, bool]:
        """Call `use` with the arrays of all members, by place, when all are here; each may write to all of them.

        Returns True when all have done so. Where an array lies outside shared memory, False on all members, and
        nobody's `use` was called. Yields and raises as `exchange`.
        """
        raise NotImplementedError

    def ready(self, peer: int) -> bool:
        """Whether a message from `peer` has begun to arrive that no `exchange` has taken."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the channel holds."""


class Transport:
    """Joins `world_size` ranks. All calls that wait have a deadline, and raise PeerFailure if a peer dies."""

    name = ""
    rank: int
    world_size: int
    job = 0  # together with the generation, what keeps messages of another or an earlier job out
    generation = 0
    spare_cores = (
        False  # whether each rank of this host has a second core, on which communication can overlap
    )
    failure: DistributedError | None = None  # what ends all waits
    gone: dict[int, str] = {}  # how ranks have left, by rank
    one_host = True  # whether peers can read each other's memory: then a plan with the fewest rounds is best

    def trouble(self, members: Sequence[int]) -> DistributedError | None:
        """Why nothing will come from any of `members`, others than this rank: a failure, or all have gone."""
        if self.failure is not None:
            return self.failure
        gone = {m: self.gone[m] for m in members if m in self.gone}
        if len(gone) < len(members):
            return None
        rank, how = next(iter(gone.items()))
        return PeerFailure(
            f"[distributed] rank {rank} {how} while a message from any rank is waited for", rank
        )

    def channel(self, number: int, members: Sequence[int]) -> Channel:
        """Open conversation `number` among `members`, which all open it; does not wait for them."""
        raise NotImplementedError

    def empty(self, count: int, dtype: np.dtype) -> np.ndarray:
        """A flat array that peers can reach without a copy, where the transport has such memory."""
        return np.empty(count, dtype)

    def abort(self, text: str, *, mismatch: bool = False) -> None:
        """Tell all other ranks that this one fails: their waits end by raising. Bounded to 2 s.

        text: the error in one line, then its traceback; for a mismatch the whole error.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Say goodbye and give everything back. Peers that still wait for this rank raise PeerFailure."""
