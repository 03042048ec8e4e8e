"""Collectives over several hosts with several ranks each: inside the host, between hosts, inside again.

All-reduce is reduce-scatter in the host, all-reduce of each slice with its counterparts on the other hosts,
all-gather in the host: what crosses the network is what one rank a host would send, spread over its ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import plan
from .call import Call
from .collectives import Runner
from .reduction import accumulator, combiner, finish
from .transport import Transport
from .transport.hosts import Across, HostsChannel, Near


def runner_for(transport: Transport, number: int, members: Sequence[int]) -> Runner:
    """Conversation `number` among `members`, with the plans that fit how they are spread over hosts."""
    channel = transport.channel(number, members)
    if not isinstance(channel, HostsChannel):
        one_host = transport.one_host or channel.one_host
        return Runner(channel, one_host)
    several = any(len(places) > 1 for places in channel.hosts)
    return HostsRunner(channel) if several else Runner(channel, one_host=False)


class HostsRunner(Runner):
    """Verbs that are not here run over all ranks at once, each message by the way that is nearest."""

    def __init__(self, channel: HostsChannel) -> None:
        super().__init__(channel, one_host=False)
        self.hosts, self.here = channel.hosts, channel.here
        self.slot, self.width = self.here.index(self.rank), len(self.here)
        self.even = len({len(places) for places in self.hosts}) == 1
        # Each host's first ranks own a slice each, as many as the smallest host has ranks.
        self.owners = min(len(places) for places in self.hosts)
        self._whole = channel
        self._near = Runner(Near(channel), one_host=True) if self.width > 1 else None
        mates = [places[self.slot] for places in self.hosts] if self.slot < self.owners else []
        self._across = Runner(Across(channel, mates), one_host=False) if mates else None

    def all_reduce(self, call: Call, flat: np.ndarray, op: str, deadline: float, spin: bool) -> None:
        sizes = (self.slot, self.width, flat.size, self.owners)
        part = plan.direct_reduce_scatter(*sizes)
        own = flat[part.start : part.stop]
        total = self._sum_near(call, flat, own, part, op, deadline, spin)
        if self._across is not None:
            self._across.all_reduce(call, total, _partial(op), deadline, spin)
            finish(op, total, self.world)
        if total is not own:
            own[...] = total
        if self._near is not None:
            self._near._run(plan.direct_all_gather(*sizes), call, flat, flat, deadline, spin)

    def reduce(self, call: Call, flat: np.ndarray, root: int, op: str, deadline: float, spin: bool) -> None:
        self.all_reduce(call, flat if self.rank == root else flat.copy(), op, deadline, spin)

    def reduce_scatter(
        self, call: Call, source: np.ndarray, target: np.ndarray, op: str, deadline: float, spin: bool
    ) -> None:
        if not self.even or self._near is None or self._across is None:
            return super().reduce_scatter(call, source, target, op, deadline, spin)
        # Blocks of one slot side by side: a slot's owner sums them for the ranks of that slot on all hosts.
        order = [places[slot] for slot in range(self.width) for places in self.hosts]
        blocks = source.reshape(self.world, -1)[order].reshape(-1)
        part = plan.direct_reduce_scatter(self.slot, self.width, blocks.size)
        own = blocks[part.start : part.stop]
        total = self._sum_near(call, blocks, own, part, op, deadline, spin)
        wide = target if total.dtype == target.dtype else np.empty(target.size, total.dtype)
        self._across.reduce_scatter(call, total, wide, _partial(op), deadline, spin)
        finish(op, wide, self.world)
        if wide is not target:
            target[...] = wide

    def all_gather(
        self, call: Call, source: np.ndarray, target: np.ndarray, deadline: float, spin: bool
    ) -> None:
        if not self.even or self._near is None or self._across is None:
            return super().all_gather(call, source, target, deadline, spin)
        rows = np.empty((self.width, len(self.hosts), source.size), source.dtype)
        self._across.all_gather(call, source, rows[self.slot].reshape(-1), deadline, spin)
        flat = rows.reshape(-1)
        steps = plan.direct_all_gather(self.slot, self.width, flat.size)
        self._near._run(steps, call, flat, flat, deadline, spin)
        out = target.reshape(self.world, source.size)
        for number, places in enumerate(self.hosts):
            out[list(places)] = rows[:, number]

    def broadcast(self, call: Call, flat: np.ndarray, root: int, deadline: float, spin: bool) -> None:
        doors = [root if root in places else places[0] for places in self.hosts]
        if self.rank in doors:
            across = Runner(Across(self._whole, doors), one_host=False)
            across.broadcast(call, flat, doors.index(root), deadline, spin)
        if self._near is not None:
            entry = next(i for i, place in enumerate(self.here) if place in doors)
            self._near.broadcast(call, flat, entry, deadline, spin)

    def _sum_near(
        self,
        call: Call,
        flat: np.ndarray,
        own: np.ndarray,
        part: plan.ReduceScatter,
        op: str,
        deadline: float,
        spin: bool,
    ) -> np.ndarray:
        """This host's sum of `own`: in place, or for halves in a float32 copy that is rounded once, later."""
        combine, dtype = combiner(op, flat.dtype), accumulator(op, flat.dtype)
        total = own if dtype == own.dtype else own.astype(dtype)
        if self._near is not None:
            self._near._run(part.steps, call, flat, total, deadline, spin, combine, origin=part.start)
        return total


def _partial(op: str) -> str:
    """The op between hosts: an average is divided once, at the end, by the number of all ranks."""
    return "sum" if op == "avg" else op
