"""Plans are played for all ranks in one loop, without a transport: rank r contributes 2^r, so that a wrong
sum
names the rank whose part was lost or counted twice."""

import itertools

import numpy as np
import pytest

from ringgrad.distributed import plan

WORLDS = range(1, 10)
REDUCE_SCATTERS = {
    "direct": (plan.direct_reduce_scatter, plan.direct_all_gather),
    "ring": (plan.ring_reduce_scatter, plan.ring_all_gather),
    "halving": (plan.halving_reduce_scatter, plan.doubling_all_gather),
}


def sizes(world: int) -> list[int]:
    return sorted({0, 1, max(world - 1, 0), world, world + 1, 16, 17, 31, 97})


def tagged(world: int, count: int) -> list[np.ndarray]:
    return [np.full(count, 1 << r, np.int64) for r in range(world)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", REDUCE_SCATTERS)
def test_all_reduce_sums_each_rank_once(name: str, world: int) -> None:
    scatter, gather = REDUCE_SCATTERS[name]
    for count in sizes(world):
        buffers = tagged(world, count)
        parts = [scatter(r, world, count) for r in range(world)]
        plan.play([p.steps for p in parts], buffers)
        for part, buffer in zip(parts, buffers):
            assert (buffer[part.start : part.stop] == (1 << world) - 1).all()
        owned = sorted((p.start, p.stop) for p in parts if p.stop > p.start)
        assert sum(stop - start for start, stop in owned) == count
        assert all(a[1] == b[0] for a, b in itertools.pairwise(owned))
        plan.play([gather(r, world, count) for r in range(world)], buffers)
        assert all((buffer == (1 << world) - 1).all() for buffer in buffers)


@pytest.mark.parametrize("world", WORLDS)
def test_ring_moves_the_fewest_bytes(world: int) -> None:
    count = 10 * world
    steps = plan.ring_reduce_scatter(0, world, count).steps + plan.ring_all_gather(0, world, count)
    assert sum(s.stop - s.start for step in steps for s in step.sends) == 2 * (world - 1) * 10


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("tree", [plan.binomial_broadcast, plan.flat_broadcast])
def test_broadcast_from_every_root(tree, world: int) -> None:
    for root in range(world):
        buffers = tagged(world, 5)
        plan.play([tree(r, world, 5, root) for r in range(world)], buffers)
        assert all((b == 1 << root).all() for b in buffers)


@pytest.mark.parametrize("world", WORLDS)
def test_binomial_reduce_to_every_root(world: int) -> None:
    for root in range(world):
        buffers = tagged(world, 5)
        plan.play([plan.binomial_reduce(r, world, 5, root) for r in range(world)], buffers)
        assert (buffers[root] == (1 << world) - 1).all()


@pytest.mark.parametrize("world", WORLDS)
def test_gather_and_scatter(world: int) -> None:
    for root in range(world):
        parts = [np.full(3, r) for r in range(world)]
        targets = [np.full(3 * world, -1) for _ in range(world)]
        plan.play([plan.gather(r, world, 3 * world, root) for r in range(world)], parts, targets)
        targets[root][3 * root : 3 * root + 3] = root
        assert (targets[root] == np.repeat(np.arange(world), 3)).all()
        back = [np.full(3, -1) for _ in range(world)]
        plan.play([plan.scatter(r, world, 3 * world, root) for r in range(world)], targets, back)
        assert all((back[r] == r).all() for r in range(world) if r != root)


@pytest.mark.parametrize("world", WORLDS)
def test_all_to_all_with_uneven_blocks(world: int) -> None:
    def block(a: int, b: int) -> np.ndarray:  # what rank a has for rank b
        return np.full((a + 2 * b) % 4, 10 * a + b)

    def offsets(blocks: list[np.ndarray]) -> list[int]:
        return [0, *np.cumsum([b.size for b in blocks]).tolist()]

    ranks = range(world)
    rows = [[block(a, b) for b in ranks] for a in ranks]
    columns = [[block(a, b) for a in ranks] for b in ranks]
    targets = [np.full(sum(b.size for b in column), -1) for column in columns]
    steps = [plan.all_to_all(r, world, offsets(rows[r]), offsets(columns[r])) for r in ranks]
    plan.play(steps, [np.concatenate(row) for row in rows], targets)
    for r in ranks:
        own = slice(*offsets(columns[r])[r : r + 2])
        targets[r][own] = block(r, r)
        assert (targets[r] == np.concatenate(columns[r])).all()


@pytest.mark.parametrize("world", WORLDS)
def test_dissemination_hears_of_every_rank(world: int) -> None:
    plans = [plan.dissemination(r, world) for r in range(world)]
    heard = [{r} for r in range(world)]
    for i in range(max(len(p) for p in plans)):
        heard = [heard[r] | heard[plans[r][i].recvs[0].peer] for r in range(world)]
    assert all(h == set(range(world)) for h in heard)
    plan.play(plans, [np.zeros(0) for _ in range(world)])


def test_play_finds_a_deadlock_and_a_lost_message() -> None:
    waiting = [[plan.Step((), (plan.Recv(1, 0, 1),))], [plan.Step((), (plan.Recv(0, 0, 1),))]]
    with pytest.raises(RuntimeError, match="wait for each other"):
        plan.play(waiting, tagged(2, 1))
    lost: list[list[plan.Step]] = [[plan.Step((plan.Send(1, 0, 1),))], []]
    with pytest.raises(AssertionError, match="nobody takes"):
        plan.play(lost, tagged(2, 1))
