"""Collectives over flat arrays: choose a plan, run it on a channel, add up in the right dtype."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from . import plan
from .call import Call
from .reduction import Combine, accumulator, combiner, finish, reduce_everywhere, reduce_rows
from .transport import Channel, Incoming, Outgoing, Pace
from .tuner import ONE_HOST, Costs, measure

Steps = Iterator[
    None
]  # a collective under way: it yields where it would have to wait and `Pace.wait` is not set

PLANS = {
    "direct": (plan.direct_reduce_scatter, plan.direct_all_gather),
    "halving": (plan.halving_reduce_scatter, plan.doubling_all_gather),
    "ring": (plan.ring_reduce_scatter, plan.ring_all_gather),
}
KINDS = ("one_round", *PLANS)
LENT_BYTES = (
    256 * 1024
)  # below, asking whether all arrays can be reached costs more than it saves where they cannot


def forced_plan() -> str | None:
    """The plan that RINGGRAD_PLAN asks for all all-reduces, or None. Raises ValueError for an unknown one."""
    forced = os.environ.get("RINGGRAD_PLAN") or None
    if forced is not None and forced not in KINDS:
        raise ValueError(f"[distributed] RINGGRAD_PLAN must be one of {', '.join(KINDS)}, got {forced!r}")
    return forced


class Runner:
    """Runs collectives on one channel. Arrays are flat and contiguous; world size is at least 2.

    one_host: whether a message to many peers costs no more than one to a neighbour.
    """

    def __init__(self, channel: Channel, one_host: bool) -> None:
        self.channel, self.one_host = channel, one_host
        self.costs, self._forced = ONE_HOST if one_host else Costs(), forced_plan()
        self.rank, self.world = channel.rank, len(channel.members)
        self._peers = [p for p in range(self.world) if p != self.rank]
        self._plans: dict[tuple[Any, ...], Any] = {}
        self._kinds: dict[tuple[int, bool], str] = {}  # plans of all-reduces by size

    def all_reduce(self, call: Call, flat: np.ndarray, op: str, pace: Pace) -> Steps:
        """In place. The same bits on every rank, and in every run."""
        kind = self.plan_of(flat.nbytes, accumulator(op, flat.dtype) != flat.dtype)
        if kind == "one_round":
            rows = yield from self._rows(call, flat, pace)
            reduce_rows(rows, op, flat)
            return
        scatter, gather = PLANS[kind]
        part: plan.ReduceScatter = self._plan(scatter, flat.size)
        if kind == "direct" and self.channel.lends and flat.nbytes >= LENT_BYTES:
            share = lambda rows: reduce_everywhere(
                [row[part.start : part.stop] for row in rows], self.rank, op
            )
            if (yield from self.channel.together(call, flat, share, pace)):
                return
        yield from self._reduce_part(call, flat, flat[part.start : part.stop], part, op, pace)
        yield from self._run(self._plan(gather, flat.size), call, flat, flat, pace)

    def reduce_scatter(
        self, call: Call, source: np.ndarray, target: np.ndarray, op: str, pace: Pace
    ) -> Steps:
        """target = reduction over ranks of block `rank` of source, which stays as it is."""
        part = self._plan(plan.direct_reduce_scatter, source.size)
        target[...] = source[part.start : part.stop]
        return self._reduce_part(call, source, target, part, op, pace)

    def reduce(self, call: Call, flat: np.ndarray, root: int, op: str, pace: Pace) -> Steps:
        """Root's flat = reduction over ranks; the others' stays as it is."""
        whole = flat if self.rank == root else flat.copy()
        part = self._plan(plan.direct_reduce_scatter, flat.size)
        yield from self._reduce_part(call, whole, whole[part.start : part.stop], part, op, pace)
        steps = plan.gather(self.rank, self.world, flat.size, root, blocks=False)
        yield from self._run(steps, call, whole, whole, pace)

    def broadcast(self, call: Call, flat: np.ndarray, root: int, pace: Pace) -> Steps:
        if self.one_host:
            return self._run(self._plan(plan.flat_broadcast, flat.size, root), call, flat, flat, pace)
        if self.costs.broadcast_plan(flat.nbytes, self.world) == "tree":
            return self._run(self._plan(plan.binomial_broadcast, flat.size, root), call, flat, flat, pace)
        return self._scatter_and_ring(call, flat, root, pace)

    def _scatter_and_ring(self, call: Call, flat: np.ndarray, root: int, pace: Pace) -> Steps:
        at = plan.bounds(flat.size, self.world)
        own = flat[at[self.rank] : at[self.rank + 1]]
        yield from self._run(plan.scatter(self.rank, self.world, flat.size, root), call, flat, own, pace)
        yield from self._run(self._plan(plan.ring_all_gather, flat.size), call, flat, flat, pace)

    def all_gather(self, call: Call, source: np.ndarray, target: np.ndarray, pace: Pace) -> Steps:
        """target = the sources of all ranks, one after another."""
        target[self.rank * source.size : (self.rank + 1) * source.size] = source
        ring = not self.one_host and self.costs.all_gather_plan(target.nbytes, self.world) == "ring"
        steps = self._plan(plan.ring_all_gather if ring else plan.direct_all_gather, target.size)
        return self._run(steps, call, target, target, pace)

    def gather(
        self,
        call: Call,
        source: np.ndarray,
        target: np.ndarray | None,
        root: int,
        pace: Pace,
    ) -> Steps:
        if target is not None:
            target[root * source.size : (root + 1) * source.size] = source
        steps = plan.gather(self.rank, self.world, source.size * self.world, root)
        return self._run(steps, call, source, source if target is None else target, pace)

    def scatter(
        self,
        call: Call,
        source: np.ndarray | None,
        target: np.ndarray,
        root: int,
        pace: Pace,
    ) -> Steps:
        if source is not None:
            target[...] = source[root * target.size : (root + 1) * target.size]
        steps = plan.scatter(self.rank, self.world, target.size * self.world, root)
        return self._run(steps, call, target if source is None else source, target, pace)

    def all_to_all(
        self,
        call: Call,
        source: np.ndarray,
        target: np.ndarray,
        send_at: Sequence[int],
        recv_at: Sequence[int],
        pace: Pace,
    ) -> Steps:
        r = self.rank
        target[recv_at[r] : recv_at[r + 1]] = source[send_at[r] : send_at[r + 1]]
        return self._run(plan.all_to_all(r, self.world, send_at, recv_at), call, source, target, pace)

    def barrier(self, call: Call, pace: Pace) -> Steps:
        nothing = np.empty(0, np.uint8)
        return self._run(plan.dissemination(self.rank, self.world), call, nothing, nothing, pace)

    def send(self, call: Call, flat: np.ndarray, peer: int, pace: Pace) -> Steps:
        return self.channel.exchange(call, [Outgoing(peer, flat)], [], pace)

    def recv(self, call: Call, flat: np.ndarray, peer: int, pace: Pace) -> Steps:
        return self.channel.exchange(call, [], [Incoming(peer, flat, None, flat.dtype)], pace)

    def use(self, costs: Costs) -> None:
        """Choose plans by these costs from now on: the same on all ranks."""
        self.costs = costs
        self._kinds.clear()

    def measure(self, call: Call, into: np.ndarray, pace: Pace) -> Steps:
        """Leave this rank's costs in `into`. All ranks call it."""
        return measure(self.channel, call, pace, into)

    def plan_of(self, nbytes: int, wide: bool = False) -> str:
        """Which plan an all-reduce of `nbytes` takes. wide: whether it adds up in a wider dtype than the array's."""
        kind = self._kinds.get((nbytes, wide))
        if kind is None:
            if len(self._kinds) > 1024:
                self._kinds.clear()
            kind = self._kinds[nbytes, wide] = self._choose(nbytes, wide)
        return kind

    def _choose(self, nbytes: int, wide: bool) -> str:
        if self._forced in KINDS[:2] or (self._forced is not None and not wide):
            return str(self._forced)
        # In one memory a message to many costs no more than one to a neighbour. And a ring would round a half at
        # every hop; direct exchange adds up in float32 and rounds once.
        simple = self.one_host or wide or self.world == 2
        return self.costs.all_reduce_plan(nbytes, self.world, KINDS[:2] if simple else KINDS)

    def _plan(self, make: Callable[..., Any], *sizes: int) -> Any:
        key = (make, *sizes)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) > 1024:
                self._plans.clear()
            found = self._plans[key] = make(self.rank, self.world, *sizes)
        return found

    def _rows(self, call: Call, flat: np.ndarray, pace: Pace) -> Generator[None, None, list[np.ndarray]]:
        """All ranks' arrays; this one's is `flat` itself where reduce_rows allows it."""
        rows = [np.empty_like(flat) if p != self.rank else flat for p in range(self.world)]
        sends = [Outgoing(p, flat) for p in self._peers]
        recvs = [Incoming(p, rows[p], None, flat.dtype) for p in self._peers]
        yield from self.channel.exchange(call, sends, recvs, pace)
        if self.rank > 1:
            rows[self.rank] = flat.copy()
        return rows

    def _reduce_part(
        self,
        call: Call,
        source: np.ndarray,
        own: np.ndarray,
        part: plan.ReduceScatter,
        op: str,
        pace: Pace,
    ) -> Steps:
        """Run a reduce-scatter and leave the whole result in `own`; halves add up in a float32 copy of it."""
        combine = combiner(op, source.dtype)
        dtype = accumulator(op, source.dtype)
        in_place = np.shares_memory(own, source) if own.size else True
        if in_place and dtype == source.dtype:
            yield from self._run(part.steps, call, source, source, pace, combine)
            finish(op, own, self.world)
            return
        total = own if dtype == own.dtype else own.astype(dtype)
        yield from self._run(part.steps, call, source, total, pace, combine, origin=part.start)
        finish(op, total, self.world)
        if total is not own:
            own[...] = total

    def _run(
        self,
        steps: Sequence[plan.Step],
        call: Call,
        source: np.ndarray,
        target: np.ndarray,
        pace: Pace,
        combine: Combine | None = None,
        origin: int = 0,
    ) -> Steps:
        """origin: the element of the plan's target at which `target` begins."""
        dtype = source.dtype
        for step in steps:
            sends = [Outgoing(s.peer, source[s.start : s.stop]) for s in step.sends]
            recvs = [
                Incoming(
                    r.peer, target[r.start - origin : r.stop - origin], combine if r.reduce else None, dtype
                )
                for r in step.recvs
            ]
            yield from self.channel.exchange(call, sends, recvs, pace)
