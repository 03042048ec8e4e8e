"""Collectives as data: a plan is the list of steps that one rank takes, and nothing here touches a wire.

A step names slices (in elements) of a flat source to send and of a flat target to receive into; all messages
of a step may fly at the same time. Between two ranks messages arrive in the order they were sent. In a
collective that works in place, source and target are one buffer.

Algorithms: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations in
MPICH", IJHPCA 19(1), 2005; rings after P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for
clusters of workstations", JPDC 69(2), 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Send(NamedTuple):
    peer: int
    start: int
    stop: int


class Recv(NamedTuple):
    peer: int
    start: int
    stop: int
    reduce: bool = False


class Step(NamedTuple):
    sends: tuple[Send, ...] = ()
    recvs: tuple[Recv, ...] = ()


class ReduceScatter(NamedTuple):
    """Steps after which this rank holds the whole sum of elements [start, stop)."""

    steps: list[Step]
    start: int
    stop: int


def bounds(count: int, parts: int) -> list[int]:
    """Offsets of `parts` nearly equal blocks of `count` elements: parts + 1 numbers from 0 to count."""
    return [count * i // parts for i in range(parts + 1)]


def _others(rank: int, world: int) -> list[int]:
    # Starting after oneself spreads the load: no two ranks begin with the same peer.
    return [(rank + i) % world for i in range(1, world)]


# Direct exchange: one step, every rank talks to every other. As many bytes as a ring, the fewest rounds.


def direct_reduce_scatter(rank: int, world: int, count: int, owners: int | None = None) -> ReduceScatter:
    """owners: how many of the first ranks get a part (default: all)."""
    owners = world if owners is None else owners
    at = [*bounds(count, owners), *[count] * (world - owners)]
    start, stop = at[rank], at[rank + 1]
    sends = tuple(Send(p, at[p], at[p + 1]) for p in _others(rank, world) if p < owners)
    # Always in the same order of ranks, so that a sum has the same bits whoever comes first.
    recvs = tuple(Recv(p, start, stop, True) for p in range(world) if p != rank and rank < owners)
    return ReduceScatter([Step(sends, recvs)], start, stop)


def direct_all_gather(rank: int, world: int, count: int, owners: int | None = None) -> list[Step]:
    """The way back of `direct_reduce_scatter`."""
    owners = world if owners is None else owners
    at = [*bounds(count, owners), *[count] * (world - owners)]
    others = _others(rank, world)
    sends = tuple(Send(p, at[rank], at[rank + 1]) for p in others if rank < owners)
    return [Step(sends, tuple(Recv(p, at[p], at[p + 1]) for p in others if p < owners))]


# Ring: each rank talks to its two neighbours only, world - 1 rounds a phase.


def ring_reduce_scatter(rank: int, world: int, count: int) -> ReduceScatter:
    at = bounds(count, world)
    steps = []
    for s in range(world - 1):
        out, into = (rank - s - 1) % world, (rank - s - 2) % world
        send = Send((rank + 1) % world, at[out], at[out + 1])
        steps.append(Step((send,), (Recv((rank - 1) % world, at[into], at[into + 1], True),)))
    return ReduceScatter(steps, at[rank], at[rank + 1])


def ring_all_gather(rank: int, world: int, count: int) -> list[Step]:
    at = bounds(count, world)
    steps = []
    for s in range(world - 1):
        out, into = (rank - s) % world, (rank - s - 1) % world
        send = Send((rank + 1) % world, at[out], at[out + 1])
        steps.append(Step((send,), (Recv((rank - 1) % world, at[into], at[into + 1]),)))
    return steps


# Halving and doubling: log2(world) rounds. Ranks beyond a power of two hand their part to a neighbour first.


def _fold(rank: int, world: int) -> tuple[int, int, int | None]:
    """(power of two, ranks beyond it, this rank's number among the power of two or None if it sits out)."""
    power = 1 << (world.bit_length() - 1)
    extra = world - power
    if rank >= 2 * extra:
        return power, extra, rank - extra
    return power, extra, rank // 2 if rank % 2 else None


def _unfold(number: int, extra: int) -> int:
    return number * 2 + 1 if number < extra else number + extra


def _halves(number: int, power: int) -> list[tuple[int, tuple[int, int], tuple[int, int]]]:
    """For each round: the partner's number, the blocks kept and the blocks given away."""
    low, high, rounds = 0, power, []
    while high - low > 1:
        middle = (low + high) // 2
        half = (high - low) // 2
        lower, upper = (low, middle), (middle, high)
        keep, give = (lower, upper) if number < middle else (upper, lower)
        rounds.append((number + half if number < middle else number - half, keep, give))
        low, high = keep
    return rounds


def halving_reduce_scatter(rank: int, world: int, count: int) -> ReduceScatter:
    power, extra, number = _fold(rank, world)
    if number is None:
        return ReduceScatter([Step((Send(rank + 1, 0, count),))], 0, 0)
    at = bounds(count, power)
    steps = [Step((), (Recv(rank - 1, 0, count, True),))] if rank < 2 * extra else []
    for partner, keep, give in _halves(number, power):
        peer = _unfold(partner, extra)
        send = Send(peer, at[give[0]], at[give[1]])
        steps.append(Step((send,), (Recv(peer, at[keep[0]], at[keep[1]], True),)))
    return ReduceScatter(steps, at[number], at[number + 1])


def doubling_all_gather(rank: int, world: int, count: int) -> list[Step]:
    """The way back of `halving_reduce_scatter`: blocks are those of the power of two below `world`."""
    power, extra, number = _fold(rank, world)
    if number is None:
        return [Step((), (Recv(rank + 1, 0, count),))]
    at = bounds(count, power)
    steps = []
    for partner, keep, give in reversed(_halves(number, power)):
        peer = _unfold(partner, extra)
        steps.append(Step((Send(peer, at[keep[0]], at[keep[1]]),), (Recv(peer, at[give[0]], at[give[1]]),)))
    if rank < 2 * extra:
        steps.append(Step((Send(rank - 1, 0, count),)))
    return steps


# Trees and stars.


def binomial_broadcast(rank: int, world: int, count: int, root: int) -> list[Step]:
    relative, steps, mask = (rank - root) % world, [], 1
    while mask < world and not relative & mask:
        mask <<= 1
    if relative:
        steps.append(Step((), (Recv((rank - mask) % world, 0, count),)))
    while mask > 1:
        mask >>= 1
        if relative + mask < world:
            steps.append(Step((Send((rank + mask) % world, 0, count),)))
    return steps


def binomial_reduce(rank: int, world: int, count: int, root: int) -> list[Step]:
    """The broadcast tree walked from the leaves to the root."""
    back = []
    for step in reversed(binomial_broadcast(rank, world, count, root)):
        sends = tuple(Send(r.peer, r.start, r.stop) for r in step.recvs)
        back.append(Step(sends, tuple(Recv(s.peer, s.start, s.stop, True) for s in step.sends)))
    return back


def flat_broadcast(rank: int, world: int, count: int, root: int) -> list[Step]:
    if rank != root:
        return [Step((), (Recv(root, 0, count),))]
    return [Step(tuple(Send(p, 0, count) for p in _others(rank, world)))]


def gather(rank: int, world: int, count: int, root: int, *, blocks: bool = True) -> list[Step]:
    """Root's target takes block p of `world` blocks from rank p.

    count: elements of the whole target. blocks: whether a sender's source is only its own block (an input of
    `gather`) or a buffer as long as the target (what a reduce-scatter left behind).
    """
    at = bounds(count, world)
    if rank == root:
        return [Step((), tuple(Recv(p, at[p], at[p + 1]) for p in range(world) if p != root))]
    start = 0 if blocks else at[rank]
    return [Step((Send(root, start, start + at[rank + 1] - at[rank]),))]


def scatter(rank: int, world: int, count: int, root: int) -> list[Step]:
    """Rank p's target takes block p of the root's source of `count` elements."""
    at = bounds(count, world)
    if rank != root:
        return [Step((), (Recv(root, 0, at[rank + 1] - at[rank]),))]
    return [Step(tuple(Send(p, at[p], at[p + 1]) for p in _others(rank, world)))]


def all_to_all(rank: int, world: int, send_at: Sequence[int], recv_at: Sequence[int]) -> list[Step]:
    """Block p of the source goes to rank p; block p of the target comes from it. Offsets: world + 1 each."""
    others = _others(rank, world)
    sends = tuple(Send(p, send_at[p], send_at[p + 1]) for p in others)
    return [Step(sends, tuple(Recv(p, recv_at[p], recv_at[p + 1]) for p in others))]


def dissemination(rank: int, world: int) -> list[Step]:
    """Barrier: after round k each rank has heard, at one remove or more, of 2^(k+1) ranks."""
    steps, distance = [], 1
    while distance < world:
        steps.append(Step((Send((rank + distance) % world, 0, 0),), (Recv((rank - distance) % world, 0, 0),)))
        distance <<= 1
    return steps


def play(
    plans: Sequence[Sequence[Step]],
    sources: Sequence[np.ndarray],
    targets: Sequence[np.ndarray] | None = None,
    combine: Callable[..., np.ndarray] = np.add,
) -> None:
    """Run all ranks' plans in one loop, in place on `targets` (default: the sources themselves).

    Raises RuntimeError if the plans wait for each other for ever, AssertionError if a message is left over or
    has the wrong size. A send copies at the moment its step begins, as on a wire.
    """
    targets = sources if targets is None else targets
    world = len(plans)
    wires: dict[tuple[int, int], list[np.ndarray]] = {(a, b): [] for a in range(world) for b in range(world)}
    at, started = [0] * world, [False] * world
    while any(at[r] < len(plans[r]) for r in range(world)):
        moved = False
        for rank, plan in enumerate(plans):
            if at[rank] == len(plan):
                continue
            step = plan[at[rank]]
            if not started[rank]:
                for send in step.sends:
                    wires[rank, send.peer].append(sources[rank][send.start : send.stop].copy())
                started[rank] = moved = True
            if all(wires[recv.peer, rank] for recv in step.recvs):
                for recv in step.recvs:
                    part, message = targets[rank][recv.start : recv.stop], wires[recv.peer, rank].pop(0)
                    assert part.size == message.size, (rank, recv, message.size)
                    part[...] = combine(part, message) if recv.reduce else message
                at[rank], started[rank], moved = at[rank] + 1, False, True
        if not moved:
            raise RuntimeError(
                f"[play] the plans wait for each other: steps {at} of {[len(p) for p in plans]}"
            )
    assert not any(wires.values()), "a message was sent that nobody takes"
