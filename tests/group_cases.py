"""What a Group promises, as functions that each rank of a world runs. Workers load this, and not the tests."""

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from group_sequences import VERBS, per_rank, run_sequence, values

from ringgrad.distributed.collectives import KINDS
from ringgrad.distributed.group import Group

Case = Callable[[Group], None]
CASES: dict[str, Case] = {}
DTYPES = [
    np.bool_,
    np.uint8,
    np.int16,
    np.int32,
    np.int64,
    np.float16,
    ml_dtypes.bfloat16,
    np.float32,
    np.float64,
]


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def sizes(group: Group) -> list[int]:
    w = group.size
    return sorted({0, 1, w - 1, w, w + 1, 63, 64, 65, 997, 20011})


@case
def each_rank_counts_once(group: Group) -> None:
    for count in sizes(group):
        for array in (np.empty(count, np.int64), group.empty(count, np.int64)):
            array[...] = 1 << group.rank
            group.all_reduce(array)
            assert (array == (1 << group.size) - 1).all(), (count, np.unique(array))


@case
def large_arrays_come_whole(group: Group) -> None:
    count = 1_500_007
    for array in (np.empty(count, np.float32), group.empty(count)):
        array[...] = values(group.rank, count, np.float32)
        group.all_reduce(array)
        assert (array == sum(per_rank(group, count, np.float32))).all()


@case
def arrays_that_peers_reach_and_others_give_the_same_bits(group: Group) -> None:
    count = 300_001
    rng = np.random.default_rng(group.rank)
    for dtype, op in (
        (np.float32, "sum"),
        (np.float16, "avg"),
        (ml_dtypes.bfloat16, "sum"),
        (np.float64, "max"),
    ):
        start = rng.normal(size=count).astype(dtype)
        plain = start.copy()
        group.all_reduce(plain, op)
        for reached in (range(group.size), [0], []):  # whose array is in shared memory
            memory = (
                group.empty(count + 1, np.dtype(dtype))
                if group.rank in reached
                else np.empty(count + 1, dtype)
            )
            array = memory[1:]
            array[...] = start
            memory[0] = 9
            group.all_reduce(array, op)
            assert array.tobytes() == plain.tobytes() and memory[0] == 9, (dtype, op, reached)


@case
def all_reduce_of_every_dtype_and_op(group: Group) -> None:
    ufuncs = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum}
    bits = {"band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor}
    for dtype in DTYPES:
        for op, ufunc in (ufuncs | (bits if np.dtype(dtype).kind in "biu" else {})).items():
            for count in (5, 20011):
                array = values(group.rank, count, dtype)
                group.all_reduce(array, op)
                expected = per_rank(group, count, dtype)[0]
                for part in per_rank(group, count, dtype)[1:]:
                    expected = ufunc(expected, part)
                assert array.dtype == dtype and (array == expected).all(), (dtype, op, count)


@case
def average_divides_once(group: Group) -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        for count in (3, 20011):
            array = values(group.rank, count, dtype)
            group.all_reduce(array, "avg")
            wide = np.float64 if dtype is np.float64 else np.float32
            total = sum(part.astype(wide) for part in per_rank(group, count, dtype))
            assert (array == (total / wide(group.size)).astype(dtype)).all(), (dtype, count)


@case
def halves_are_summed_in_float32(group: Group) -> None:
    # 2048 + 1 is 2048 in float16: added one by one in float16, the ones would be lost.
    for count in (1, 40011):
        array = np.full(count, 2048 if group.rank == 0 else 1, np.float16)
        group.all_reduce(array)
        assert (array == np.float32(2048 + group.size - 1).astype(np.float16)).all()


@case
def nan_and_infinity_spread_from_every_rank(group: Group) -> None:
    for op in ("sum", "avg", "max", "min", "product"):
        for culprit in range(group.size):
            for count in (3, 20011):
                array = np.ones(count, np.float32)
                if group.rank == culprit:
                    array[0], array[-1] = np.nan, np.inf
                group.all_reduce(array, op)
                assert np.isnan(array[0]) and (op == "min" or np.isinf(array[-1])), (op, culprit)


@case
def all_ranks_get_the_same_bits(group: Group) -> None:
    for count in (100, 30011):
        array = np.random.default_rng(group.rank).standard_normal(count).astype(np.float32)
        group.all_reduce(array)
        rows = np.empty((group.size, count), np.float32)
        group.all_gather(rows, array)
        assert (rows == rows[0]).all()


@case
def arrays_of_any_layout(group: Group) -> None:
    base = np.zeros((7, 11), np.float32)
    view = base[::2, 1:9]
    view[...] = 1 << group.rank
    group.all_reduce(view)
    assert (view == (1 << group.size) - 1).all() and base.sum() == view.sum()
    raw = np.zeros(4 * 5000 + 1, np.uint8)
    unaligned = raw[1:].view(np.float32)
    unaligned[...] = 1 << group.rank
    group.all_reduce(unaligned)
    assert (unaligned == (1 << group.size) - 1).all()
    scalar = np.array(float(1 << group.rank))
    group.all_reduce(scalar)
    assert scalar == (1 << group.size) - 1


@case
def broadcast_from_every_root(group: Group) -> None:
    for root in range(group.size):
        for count in (0, 1, 997, 400_003):
            array = values(group.rank, count, np.float32)
            group.broadcast(array, root)
            assert (array == values(root, count, np.float32)).all()


@case
def reduce_reaches_the_root_alone(group: Group) -> None:
    for root in range(group.size):
        for count in (1, 20011):
            array = values(group.rank, count, np.float16)
            group.reduce(array, root)
            mine = values(group.rank, count, np.float16)
            expected = sum(per_rank(group, count, np.float16)) if group.rank == root else mine
            assert (array == expected).all()


@case
def reduce_scatter_keeps_its_input(group: Group) -> None:
    for dtype in (np.int32, np.float16, np.float32):
        for count in (0, 1, 5003):
            array, out = values(group.rank, count * group.size, dtype), np.empty(count, dtype)
            group.reduce_scatter(out, array)
            whole = sum(per_rank(group, count * group.size, dtype))
            assert (out == whole[group.rank * count : (group.rank + 1) * count]).all()
            assert (array == values(group.rank, count * group.size, dtype)).all()


@case
def gathers_and_scatters(group: Group) -> None:
    for count in (0, 1, 30011):
        everything = np.concatenate(per_rank(group, count, np.int32))
        mine = values(group.rank, count, np.int32)
        out = np.empty(count * group.size, np.int32)
        group.all_gather(out, mine)
        assert (out == everything).all()
        for root in range(group.size):
            out = np.empty(count * group.size, np.int32) if group.rank == root else None
            group.gather(mine, out, root)
            assert out is None or (out == everything).all()
            back = np.empty(count, np.int32)
            group.scatter(back, everything if group.rank == root else None, root)
            assert (back == mine).all()


@case
def all_to_all_even_and_uneven(group: Group) -> None:
    w, r = group.size, group.rank
    for rows in (1, 4001):
        array = np.repeat(np.arange(w), rows)[:, None] * 100 + np.array([r, r])
        out = np.empty_like(array)
        group.all_to_all(out, array)
        assert (out == np.repeat(np.arange(w), rows)[:, None] + np.array([r * 100] * 2)).all()
    sends, takes = [(r + 2 * p) % 4 for p in range(w)], [(p + 2 * r) % 4 for p in range(w)]
    array = np.concatenate([np.full(n, 10 * r + p) for p, n in enumerate(sends)])
    out = np.empty(sum(takes), array.dtype)
    group.all_to_all(out, array, takes, sends)
    assert (out == np.concatenate([np.full(n, 10 * p + r) for p, n in enumerate(takes)])).all()


@case
def messages_between_pairs(group: Group) -> None:
    if group.size == 1:
        return
    right, left = (group.rank + 1) % group.size, (group.rank - 1) % group.size
    for count in (0, 1, 300_007):
        # Everybody sends first: only possible if sends do not wait in the same line as receives.
        array, out = values(group.rank, count, np.float32), np.empty(count, np.float32)
        again = np.empty(count, np.float32)
        works = [group.send(array, right, async_op=True), group.send(array + 1, right, async_op=True)]
        group.recv(out, left)
        group.recv(again, left)
        assert all(work.wait() for work in works)
        assert (out == values(left, count, np.float32)).all() and (again == out + 1).all()


@case
def messages_with_other_tags_wait_their_turn(group: Group) -> None:
    if group.size == 1:
        return
    right, left = (group.rank + 1) % group.size, (group.rank - 1) % group.size
    for count in (3, 70_003):
        works = [group.send(np.full(count, tag), right, tag=tag, async_op=True) for tag in (5, 0, 60_000)]
        for tag in (60_000, 5, 0):
            out = np.zeros(count, np.int64)
            work = group.recv(out, left, tag=tag)
            assert (out == tag).all() and work.source_rank() == left
        assert all(work.wait() for work in works)


@case
def a_message_is_taken_from_whoever_sends_first(group: Group) -> None:
    for tag, count in ((0, 4), (7, 50_001)):
        if group.rank:
            for turn in range(3):
                group.send(np.full(count, group.rank * 10 + turn), 0, tag=tag)
            continue
        came: list[list[int]] = [[] for _ in range(group.size)]
        for number in range(3 * (group.size - 1)):
            out = np.empty(count, np.int64)
            work = group.recv(out, None, tag=tag, async_op=number % 2 == 1)
            assert work.wait() and (out == out[0]).all()
            came[work.source_rank()].append(int(out[0]))
        assert came[1:] == [[r * 10 + turn for turn in range(3)] for r in range(1, group.size)]


@case
def mixed_sequences_are_right(group: Group) -> None:
    rng = np.random.default_rng(5)
    for _ in range(6):
        picks = rng.integers(0, [len(VERBS), 5, 8, 3, 2], (12, 5))
        run_sequence(group, [(VERBS[v], (0, 1, 5, 997, 20_011)[n], p, k, bool(a)) for v, n, p, k, a in picks])


@case
def objects_travel_without_pickle(group: Group) -> None:
    value = {"rank": group.rank, "list": [1, 2.5, None, True], "bytes": b"x" * group.rank * 1000}
    everybody = group.all_gather_object(value)
    assert [v["rank"] for v in everybody] == list(range(group.size)) and everybody[group.rank] == value
    for root in range(group.size):
        assert group.broadcast_object({"from": root} if group.rank == root else None, root) == {"from": root}
        gathered = group.gather_object(group.rank, root)
        assert gathered == (list(range(group.size)) if group.rank == root else None)
        given = [f"for {r}" for r in range(group.size)] if group.rank == root else None
        assert group.scatter_object(given, root) == f"for {group.rank}"


@case
def works_end_in_order(group: Group) -> None:
    arrays = [np.full(n, float(1 << group.rank), np.float32) for n in (10, 100_000, 3, 50_000)]
    works = [group.all_reduce(a, async_op=True) for a in arrays]
    works[-1].wait()
    assert all(w.is_completed() and w.is_success() for w in works)
    assert all((a == (1 << group.size) - 1).all() for a in arrays)


@case
def what_is_begun_under_overlapping_advances_in_order(group: Group) -> None:
    arrays = [np.full(n, 1 << group.rank) for n in (5, 50_000, 0, 200_000)]
    with group.overlapping():
        works = [group.all_reduce(a, async_op=True) for a in arrays]
        gathered = np.empty(group.size, np.int64)
        works.append(group.all_gather(gathered, np.array([group.rank]), async_op=True))
    while not works[1].is_completed():
        group.advance()
    assert works[0].is_completed()
    assert works[-1].wait() and all(w.is_success() for w in works)
    assert all((a == (1 << group.size) - 1).all() for a in arrays)
    assert gathered.tolist() == list(range(group.size))


@case
def barrier_waits_for_everybody(group: Group) -> None:
    for _ in range(20):
        group.barrier()


@case
def split_makes_groups_that_work_side_by_side(group: Group) -> None:
    # Reversed by the key, so that a group's ranks are not the transport's.
    part = group.split(group.rank % 2, key=-group.rank)
    assert part is not None
    members = [r for r in reversed(range(group.size)) if r % 2 == group.rank % 2]
    assert part.size == len(members) and part.rank == members.index(group.rank)
    array = np.full(40_001, 1 << group.rank)
    part.all_reduce(array)
    assert (array == sum(1 << r for r in members)).all()
    assert part.all_gather_object(group.rank) == members
    alone = group.split(0 if group.rank == 0 else None)
    assert (alone is not None and alone.size == 1) == (group.rank == 0)
    part.close()


@case
def empty_gives_its_memory_back(group: Group) -> None:
    for _ in range(20):
        array = group.empty((3, 50_000), np.float64)
        array[...] = 1
        view = array[1]
        del array
        group.all_reduce(view)
        assert (view == group.size).all()


def every_plan_is_exact(group: Group) -> None:
    """In sub-groups of 2 ranks and more, with numbers of which float32 holds every sum."""
    for world in range(2, group.size + 1):
        for kind in KINDS:
            os.environ["RINGGRAD_PLAN"] = kind
            part = group.split(0 if group.rank < world else None)
            if part is None:
                continue
            for count in (0, 1, world - 1, world, world + 1, 8191):
                parts = [(np.arange(count) % 13 + r * 3).astype(np.float32) for r in range(world)]
                array = parts[part.rank].copy()
                part.all_reduce(array)
                assert (array == sum(parts)).all(), (world, kind, count)
            part.close()


def run_case(name: str, group: Group) -> str:
    """ "ok" or the traceback."""
    try:
        CASES[name](group)
    except BaseException:
        return traceback.format_exc()
    return "ok"


def run_all(group: Group, folder: Path) -> None:
    results = {}
    for name in CASES:
        results[name] = run_case(name, group)
        if results[name] != "ok":
            break
    (folder / f"rank{group.rank}.json").write_text(json.dumps(results))
