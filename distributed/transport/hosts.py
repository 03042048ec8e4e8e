"""Several hosts with several ranks each: shared memory inside a host, another transport between hosts.

The outer transport joins all ranks, so that failures reach everybody; the inner one joins those of this host.
A step's messages inside the host go first and the others after them: all ranks keep that order, so none
waits in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..call import Call
from ..errors import CollectiveMismatch, DistributedError
from . import Channel, Incoming, Outgoing, Pace, Transport

if TYPE_CHECKING:
    from .mpi import MpiTransport
    from .shm import ShmTransport
    from .tcp import TcpTransport


class HostsTransport(Transport):
    one_host = False

    def __init__(
        self, outer: TcpTransport | MpiTransport, inner: ShmTransport | None, hosts: Sequence[int]
    ) -> None:
        """hosts: the number of its host, by rank. inner: None where this host runs one rank alone."""
        self.outer, self.inner, self.hosts = outer, inner, list(hosts)
        self.name = f"shm+{outer.name}"
        self.rank, self.world_size = outer.rank, outer.world_size
        self.job, self.generation = outer.job, outer.generation
        near = outer if inner is None else inner
        self.spare_cores = near.spare_cores
        if inner is not None:
            # Who sleeps on shared memory for a neighbour that waits for another host hears of its end too.
            outer.on_news = self._pass_on
            if outer.failure is not None:
                self._pass_on()

    def trouble(self, members: Sequence[int]) -> DistributedError | None:
        return self.outer.trouble(members)

    def channel(self, number: int, members: Sequence[int]) -> Channel:
        here = [m for m in members if self.hosts[m] == self.hosts[self.rank]]
        if len(here) == len(members) and self.inner is not None:
            return self.inner.channel(number, members)
        near = self.inner.channel(number, here) if self.inner is not None and len(here) > 1 else None
        places: dict[int, list[int]] = {}
        for place, member in enumerate(members):
            places.setdefault(self.hosts[member], []).append(place)
        return HostsChannel(self.outer, near, self.outer.channel(number, members), list(places.values()))

    def empty(self, count: int, dtype: np.dtype) -> np.ndarray:
        return self.outer.empty(count, dtype) if self.inner is None else self.inner.empty(count, dtype)

    def abort(self, text: str, *, mismatch: bool = False) -> None:
        # Outside first: a neighbour that hears it and ends may be the one who passes it on to other hosts.
        self.outer.abort(text, mismatch=mismatch)
        if self.inner is not None:
            self.inner.abort(text, mismatch=mismatch)

    def close(self) -> None:
        if self.inner is not None:
            self.inner.close()
        self.outer.close()

    def _pass_on(self) -> None:
        assert self.inner is not None and self.outer.failure is not None
        self.inner.fail(self.outer.failure)


class HostsChannel(Channel):
    """hosts: the places of each host's members, hosts in the order of their first member."""

    def __init__(
        self,
        outer: TcpTransport | MpiTransport,
        near: Channel | None,
        far: Channel,
        hosts: Sequence[Sequence[int]],
    ) -> None:
        self.outer, self.near, self.far, self.hosts = outer, near, far, hosts
        self.members, self.rank = far.members, far.rank
        self.here = next(places for places in hosts if self.rank in places)
        self._near_place = {place: i for i, place in enumerate(self.here)}

    def exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        place = self._near_place
        near_sends = [Outgoing(place[s.peer], s.source) for s in sends if s.peer in place]
        near_recvs = [r._replace(peer=place[r.peer]) for r in recvs if r.peer in place]
        if near_sends or near_recvs:
            yield from self.exchange_near(call, near_sends, near_recvs, pace)
        far_sends = [s for s in sends if s.peer not in place]
        far_recvs = [r for r in recvs if r.peer not in place]
        if far_sends or far_recvs:
            yield from self.far.exchange(call, far_sends, far_recvs, pace)

    def ready(self, peer: int) -> bool:
        if peer in self._near_place and self.near is not None:
            return self.near.ready(self._near_place[peer])
        return self.far.ready(peer)

    def exchange_near(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        """`exchange` inside the host; peers are places in `here`."""
        assert self.near is not None
        try:
            yield from self.near.exchange(call, sends, recvs, pace)
        except CollectiveMismatch as error:
            if error is not self.outer.failure:
                self.outer.abort(str(error), mismatch=True)  # the other hosts must know as well
            raise

    def close(self) -> None:
        if self.near is not None:
            self.near.close()
        self.far.close()


class Near(Channel):
    """The part of a channel inside this host. Peers are numbered by place among the host's members."""

    def __init__(self, channel: HostsChannel) -> None:
        self.channel, self.members = channel, [channel.members[p] for p in channel.here]
        self.rank = channel.here.index(channel.rank)

    def exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        return self.channel.exchange_near(call, sends, recvs, pace)


class Across(Channel):
    """The conversation with some members of other hosts: `places` in the whole channel, one a host."""

    def __init__(self, channel: HostsChannel, places: Sequence[int]) -> None:
        self.channel, self.places = channel, list(places)
        self.members = [channel.members[p] for p in places]
        self.rank = self.places.index(channel.rank)

    def exchange(
        self, call: Call, sends: Sequence[Outgoing], recvs: Sequence[Incoming], pace: Pace
    ) -> Iterator[None]:
        sends = [Outgoing(self.places[s.peer], s.source) for s in sends]
        recvs = [r._replace(peer=self.places[r.peer]) for r in recvs]
        return self.channel.far.exchange(call, sends, recvs, pace)
