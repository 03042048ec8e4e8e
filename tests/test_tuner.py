"""What messages cost, and that every plan it may choose gives the same sums."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringgrad.distributed import group as group_module
from ringgrad.distributed import tuner
from ringgrad.distributed.call import Call
from ringgrad.distributed.collectives import KINDS, PLANS
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport import Channel, Pace
from ringgrad.distributed.transport.local import LocalTransport, run_threads
from ringgrad.distributed.tuner import ADD, LEAST_BUCKET, MOST_BUCKET, Cache, Costs, shape

COSTS = Costs(next_latency=3e-6, next_byte=1e-9, all_latency=7e-6, all_byte=2e-9)


def modelled(kind: str, count: int, world: int) -> float:
    """Seconds of the slowest rank's steps, walked one by one."""
    reduce, gather = PLANS[kind]
    latency, byte = (COSTS.all_latency, COSTS.all_byte) if kind == "direct" else COSTS[:2]
    times = []
    for rank in range(world):
        steps = [*reduce(rank, world, count).steps, *gather(rank, world, count)]
        sent = sum(send.stop - send.start for step in steps for send in step.sends)
        times.append(len(steps) * latency + sent * byte + count * ADD)
    return max(times)


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("kind", PLANS)
def test_the_formulas_are_those_of_the_plans(kind: str, world: int) -> None:
    count = 1 << 20  # of one byte each, so that elements are bytes
    assert math.isclose(getattr(COSTS, kind)(count, world), modelled(kind, count, world), rel_tol=1e-9)


def test_small_messages_take_few_rounds_and_large_ones_few_bytes() -> None:
    costs = Costs(1e-4, 1e-8, 1.5e-4, 2e-8)
    chosen = [costs.all_reduce_plan(n, 6, KINDS) for n in (8, 32 << 10, 64 << 20)]
    assert chosen == ["one_round", "direct", "ring"]
    assert [costs.broadcast_plan(n, 8) for n in (8, 64 << 20)] == ["tree", "ring"]
    assert [costs.all_gather_plan(n, 8) for n in (8, 64 << 20)] == ["direct", "ring"]
    # Where everybody-to-everybody is slow to begin with, halving has fewer rounds than a ring.
    assert Costs(1e-4, 1e-8, 1e-2, 1e-8).all_reduce_plan(32 << 10, 8, KINDS) == "halving"


def test_buckets_are_so_large_that_latency_is_a_tenth() -> None:
    costs = Costs(1e-3, 1e-8, 1e-3, 1e-8)
    size = costs.bucket_bytes(4)
    transfer = 2 * 3 / 4 * size * costs.all_byte
    assert math.isclose(2 * costs.all_latency / (2 * costs.all_latency + transfer), 0.1, rel_tol=1e-3)
    assert Costs(0, 1e-8, 0, 1e-8).bucket_bytes(2) == LEAST_BUCKET
    assert Costs(1, 1e-12, 1, 0).bucket_bytes(2) == MOST_BUCKET


class TwoHosts(LocalTransport):
    one_host = False


def tuned(transport: LocalTransport) -> Costs:
    return Group(TwoHosts(transport.world, transport.rank), timeout=30).tune()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RINGGRAD_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ringgrad" / "costs.json"


def test_all_ranks_agree_on_what_was_measured_and_keep_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_threads(3, tuned)
    assert len(set(found)) == 1 and found[0].next_latency > 0 and found[0].all_latency > 0  # type: ignore[attr-defined]
    (key,) = json.loads(cache.read_text())
    assert key.startswith("local, 3 ranks, ")
    monkeypatch.setattr("ringgrad.distributed.collectives.measure", None)  # not measured again
    assert run_threads(3, tuned) == found


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"KEY": [1, 2]}', '{"KEY": [1, 2, 3, "x"]}', '{"KEY": [1, 2, 3, -1]}']
)
def test_a_broken_cache_is_as_none(cache: Path, text: str) -> None:
    key = shape("local", [[group_module.platform.node(), group_module.os.cpu_count()]] * 2)
    cache.parent.mkdir()
    cache.write_text(text.replace("KEY", key))
    assert Cache().find(key) is None
    costs = run_threads(2, tuned)[0]
    assert Cache().find(key) == costs


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "costs.json")
    cache.keep("a", Costs())
    assert cache.find("a") is None


def test_the_shape_of_a_job_tells_hosts_apart() -> None:
    keys = {shape("tcp", [["a", 2], ["b", 2]]), shape("tcp", [["a", 2], ["b", 4]]), shape("tcp", [["a", 2]])}
    assert len(keys | {shape("mpi", [["a", 2]])}) == 4


def test_one_host_measures_anew_and_chooses_among_two_plans() -> None:
    def rank(transport: LocalTransport) -> list[str]:
        group = Group(transport, timeout=60)
        group.tune()
        return [group.plan_of(n) for n in (4, 64 << 20)]

    assert run_threads(4, rank) == [["one_round", "direct"]] * 4


def sizes(world: int) -> list[int]:
    return sorted({0, 1, world - 1, world, world + 1, 63, 65, 127, 8191, 8193, 10_007})


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_every_plan_is_exact_for_every_size_dtype_and_world(
    kind: str, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGGRAD_PLAN", kind)

    def rank(transport: LocalTransport) -> None:
        group = Group(transport, timeout=60)
        for count in sizes(world):
            for dtype in (np.int32, np.float16, np.float32, np.float64):
                # Integer-valued, so that a sum is exact in any order; each element and rank has its own.
                parts = [(np.arange(count) % 13 + r * 3).astype(dtype) for r in range(world)]
                array = parts[group.rank].copy()
                group.all_reduce(array)
                assert (array == sum(parts)).all() and array.dtype == dtype, (kind, count, dtype)
            tags = np.full(count, 1 << group.rank, np.uint8)  # each rank's bit: counted once, by all
            group.all_reduce(tags)
            assert (tags == (1 << world) - 1).all()

    run_threads(world, rank, timeout=100)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_of_any_rank_reach_all(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGGRAD_PLAN", kind)

    def rank(transport: LocalTransport) -> None:
        group = Group(transport, timeout=60)
        for op in ("sum", "max", "min", "product"):
            for source in range(group.size):
                array = np.ones(5 * group.size, np.float32)
                if group.rank == source:
                    array[::5], array[1::5] = np.nan, np.inf
                group.all_reduce(array, op)
                assert np.isnan(array[::5]).all(), (op, source)
                assert (np.isinf(array[1::5]) == (op != "min")).all()
                assert np.isfinite(array[2::5]).all()

    run_threads(3, rank)


def test_an_unknown_plan_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGGRAD_PLAN", "star")

    def rank(transport: LocalTransport) -> None:
        with pytest.raises(ValueError, match=r"RINGGRAD_PLAN must be one of one_round, direct.*got 'star'"):
            Group(transport)

    run_threads(2, rank)


def test_plans_that_differ_between_ranks_are_an_error_and_no_hang() -> None:
    def rank(transport: LocalTransport) -> type:
        group = Group(transport, timeout=1)
        assert group._collective is not None
        group._collective._forced = ("ring", "halving")[group.rank % 2]
        try:
            group.all_reduce(np.ones(999))
        except group_module.DistributedError as error:
            return type(error)
        return type(None)

    assert type(None) not in run_threads(4, rank)


def test_measuring_is_quick_and_needs_no_thread_of_its_own() -> None:
    def rank(transport: LocalTransport) -> bool:
        group = Group(transport, timeout=60)
        group.tune()
        return group._main.lane._thread is None

    assert run_threads(2, rank) == [True, True]


def test_a_peer_that_is_ahead_makes_no_wire_look_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of one message has arrived before it is waited for, and the wire is still busy with the next."""
    now = [0.0]

    class Wire(Channel):
        members, rank, calls = [0, 1], 0, 0

        def exchange(self, call: Any, sends: Any, recvs: Any, pace: Any) -> Iterator[None]:
            self.calls += 1
            now[0] += 2 * (1e-5 + recvs[0].target.size * 8e-9) * (self.calls % 2)
            return iter(())

    monkeypatch.setattr(tuner.time, "perf_counter", lambda: now[0])
    figures = np.zeros(4)
    for _ in tuner.measure(Wire(), Call("tune", "here", 1), Pace(), figures):
        pass
    np.testing.assert_allclose(figures, [1e-5 + 64 * 8e-9, 8e-9] * 2, rtol=1e-3)
