"""Collectives over several hosts with several ranks each: inside the host, between hosts, inside again.

All-reduce is reduce-scatter in the host, all-reduce of each slice with its counterparts on the other hosts,
all-gather in the host: what crosses the network is what one rank a host would send, spread over its ranks.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from . import plan
from .call import Call
from .collectives import Runner, Steps
from .reduction import accumulator, combiner, finish
from .transport import Pace, Transport
from .transport.hosts import Across, HostsChannel, Near
from .tuner import Costs


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

    def use(self, costs: Costs) -> None:
        super().use(costs)
        if self._across is not None:
            self._across.use(costs)

    def measure(self, call: Call, into: np.ndarray, pace: Pace) -> Steps:
        """Between hosts, which is what plans are chosen for; a rank that does not talk to others leaves zeros."""
        return iter(()) if self._across is None else self._across.measure(call, into, pace)

    def plan_of(self, nbytes: int, wide: bool = False) -> str:
        if self._across is None:
            return "direct in the host"
        return f"direct in the host, {self._across.plan_of(nbytes // self.owners, wide)} between hosts"

    def all_reduce(self, call: Call, flat: np.ndarray, op: str, pace: Pace) -> Steps:
        sizes = (self.slot, self.width, flat.size, self.owners)
        part = plan.direct_reduce_scatter(*sizes)
        own = flat[part.start : part.stop]
        total = yield from self._sum_near(call, flat, own, part, op, pace)
        if self._across is not None:
            yield from self._across.all_reduce(call, total, _partial(op), pace)
            finish(op, total, self.world)
        if total is not own:
            own[...] = total
        if self._near is not None:
            yield from self._near._run(plan.direct_all_gather(*sizes), call, flat, flat, pace)

    def reduce(self, call: Call, flat: np.ndarray, root: int, op: str, pace: Pace) -> Steps:
        return self.all_reduce(call, flat if self.rank == root else flat.copy(), op, pace)

    def reduce_scatter(
        self, call: Call, source: np.ndarray, target: np.ndarray, op: str, pace: Pace
    ) -> Steps:
        if not self.even or self._near is None or self._across is None:
            return super().reduce_scatter(call, source, target, op, pace)
        return self._reduce_scatter_by_slot(call, source, target, op, pace, self._across)

    def _reduce_scatter_by_slot(
        self, call: Call, source: np.ndarray, target: np.ndarray, op: str, pace: Pace, across: Runner
    ) -> Steps:
        # Blocks of one slot side by side: a slot's owner sums them for the ranks of that slot on all hosts.
        order = [places[slot] for slot in range(self.width) for places in self.hosts]
        blocks = source.reshape(self.world, -1)[order].reshape(-1)
        part = plan.direct_reduce_scatter(self.slot, self.width, blocks.size)
        own = blocks[part.start : part.stop]
        total = yield from self._sum_near(call, blocks, own, part, op, pace)
        wide = target if total.dtype == target.dtype else np.empty(target.size, total.dtype)
        yield from across.reduce_scatter(call, total, wide, _partial(op), pace)
        finish(op, wide, self.world)
        if wide is not target:
            target[...] = wide

    def all_gather(self, call: Call, source: np.ndarray, target: np.ndarray, pace: Pace) -> Steps:
        if not self.even or self._near is None or self._across is None:
            return super().all_gather(call, source, target, pace)
        return self._all_gather_by_slot(call, source, target, pace, self._across, self._near)

    def _all_gather_by_slot(
        self,
        call: Call,
        source: np.ndarray,
        target: np.ndarray,
        pace: Pace,
        across: Runner,
        near: Runner,
    ) -> Steps:
        rows = np.empty((self.width, len(self.hosts), source.size), source.dtype)
        yield from across.all_gather(call, source, rows[self.slot].reshape(-1), pace)
        flat = rows.reshape(-1)
        steps = plan.direct_all_gather(self.slot, self.width, flat.size)
        yield from near._run(steps, call, flat, flat, pace)
        out = target.reshape(self.world, source.size)
        for number, places in enumerate(self.hosts):
            out[list(places)] = rows[:, number]

    def broadcast(self, call: Call, flat: np.ndarray, root: int, pace: Pace) -> Steps:
        doors = [root if root in places else places[0] for places in self.hosts]
        if self.rank in doors:
            across = Runner(Across(self._whole, doors), one_host=False)
            yield from across.broadcast(call, flat, doors.index(root), pace)
        if self._near is not None:
            entry = next(i for i, place in enumerate(self.here) if place in doors)
            yield from self._near.broadcast(call, flat, entry, pace)

    def _sum_near(
        self,
        call: Call,
        flat: np.ndarray,
        own: np.ndarray,
        part: plan.ReduceScatter,
        op: str,
        pace: Pace,
    ) -> Generator[None, None, np.ndarray]:
        """This host's sum of `own`: in place, or for halves in a float32 copy that is rounded once, later."""
        combine, dtype = combiner(op, flat.dtype), accumulator(op, flat.dtype)
        total = own if dtype == own.dtype else own.astype(dtype)
        if self._near is not None:
            yield from self._near._run(part.steps, call, flat, total, pace, combine, origin=part.start)
        return total


def _partial(op: str) -> str:
    """The op between hosts: an average is divided once, at the end, by the number of all ranks."""
    return "sum" if op == "avg" else op
