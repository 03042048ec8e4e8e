"""What a Group promises, held by every transport: one base class, inherited once a transport.

Threads run each case in this process. For the others this file is also the worker's script: one job runs all
cases, each rank writes down how they went, and each test reads its own line.
"""

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringgrad.distributed.collectives import KINDS
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.local import LocalTransport, run_threads

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


def values(rank: int, count: int, dtype: type) -> np.ndarray:
    """Small whole numbers, so that sums are exact in every order and dtype."""
    return (np.arange(count) * 7 + rank * 3).astype(np.int64).__mod__(5).astype(dtype)


def per_rank(group: Group, count: int, dtype: type) -> list[np.ndarray]:
    return [values(r, count, dtype) for r in range(group.size)]


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


Step = tuple[str, int, int, int, bool]  # verb, elements a rank, which op or root, which dtype, async?
VERBS = (
    "all_reduce",
    "broadcast",
    "all_gather",
    "reduce_scatter",
    "reduce",
    "all_to_all",
    "gather",
    "scatter",
    "barrier",
)


def begin(group: Group, step: Step) -> Callable[[], None]:
    """Start one collective, and give back what waits for it and compares with NumPy."""
    verb, count, pick, kind, async_op = step
    dtype = (np.int64, np.float32, np.uint8)[kind]
    w, r, root = group.size, group.rank, pick % group.size
    op = ("sum", "max", "min")[pick % 3]
    reduced = {"sum": np.add, "max": np.maximum, "min": np.minimum}[op]
    if verb == "barrier":
        work = group.barrier(async_op=async_op)
        return lambda: work.wait() and None  # type: ignore[return-value]
    wide = count * (w if verb in ("reduce_scatter", "all_to_all", "scatter") else 1)
    parts = per_rank(group, wide, dtype)  # type: ignore[arg-type]
    mine, out = parts[r].copy(), np.zeros(count * w, dtype)
    total = parts[0].copy()
    for part in parts[1:]:
        total = reduced(total, part)
    blocks = [part.reshape(w, -1)[r] for part in parts] if verb == "all_to_all" else []
    if verb == "all_reduce":
        work, result, expected = group.all_reduce(mine, op, async_op=async_op), mine, total
    elif verb == "reduce":
        work, result = group.reduce(mine, root, op, async_op=async_op), mine
        expected = total if r == root else parts[r]
    elif verb == "broadcast":
        work, result, expected = group.broadcast(mine, root, async_op=async_op), mine, parts[root]
    elif verb == "all_gather":
        work, result, expected = group.all_gather(out, mine, async_op=async_op), out, np.concatenate(parts)
    elif verb == "reduce_scatter":
        result = out[:count]
        work, expected = group.reduce_scatter(result, mine, op, async_op=async_op), total.reshape(w, -1)[r]
    elif verb == "all_to_all":
        work, result, expected = group.all_to_all(out, mine, async_op=async_op), out, np.concatenate(blocks)
    elif verb == "gather":
        at_root = r == root
        work, result = group.gather(mine, out if at_root else None, root, async_op=async_op), out
        expected = np.concatenate(parts) if at_root else np.zeros_like(out)
    else:
        result = out[:count]
        work = group.scatter(result, mine if r == root else None, root, async_op=async_op)
        expected = parts[root].reshape(w, -1)[r]

    def check() -> None:
        assert work.wait() and (result == expected).all(), (step, result, expected)

    return check


def run_sequence(group: Group, steps: Sequence[Step]) -> None:
    for check in [begin(group, step) for step in steps]:
        check()


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


def read_results(folder: Path, world: int, name: str, output: str) -> None:
    for rank in range(world):
        path = folder / f"rank{rank}.json"
        assert path.exists(), f"rank {rank} of {world} ended early:\n{output}"
        assert json.loads(path.read_text()).get(name, "not reached") == "ok", (
            f"rank {rank} of {world}: {json.loads(path.read_text()).get(name, 'stopped at an earlier case')}"
        )


class GroupBehaviour:
    """Inherit, and say how a world of ranks runs a case."""

    worlds: list[int] = []

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        metafunc.parametrize("world", metafunc.cls.worlds)
        metafunc.parametrize("name", list(CASES))

    def test_case(self, world: int, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.check(world, name, tmp_path_factory)

    def check(self, world: int, name: str, paths: pytest.TempPathFactory) -> None:
        raise NotImplementedError


# Not collected by itself: it has no worlds of its own.
GroupBehaviour.__test__ = False  # type: ignore[attr-defined]


class TestAlone(GroupBehaviour):
    __test__ = True
    worlds = [1]

    def check(self, world: int, name: str, paths: pytest.TempPathFactory) -> None:
        CASES[name](Group())


class TestLocal(GroupBehaviour):
    __test__ = True
    worlds = [1, 2, 3, 4, 5, 6, 7, 8]

    def check(self, world: int, name: str, paths: pytest.TempPathFactory) -> None:
        def body(transport: LocalTransport) -> None:
            CASES[name](Group(transport))

        run_threads(world, body)


STEPS = st.tuples(
    st.sampled_from(VERBS), st.integers(0, 300), st.integers(0, 7), st.integers(0, 2), st.booleans()
)


@settings(max_examples=25, deadline=None)
@given(world=st.integers(1, 8), steps=st.lists(STEPS, min_size=1, max_size=10))
def test_any_sequence_of_collectives_is_right(world: int, steps: list[Step]) -> None:
    run_threads(world, lambda transport: run_sequence(Group(transport, timeout=30), steps))


class JobBehaviour(GroupBehaviour):
    """One job of processes for each world size, whose results all tests of that size read."""

    jobs: dict[tuple[str, int], tuple[Path, str]] = {}
    __test__ = False

    def check(self, world: int, name: str, paths: pytest.TempPathFactory) -> None:
        key = (type(self).__name__, world)
        if key not in self.jobs:
            folder = paths.mktemp(f"{key[0]}{world}")
            self.jobs[key] = (folder, self.start(world, folder))
        read_results(self.jobs[key][0], world, name, self.jobs[key][1])

    def start(self, world: int, folder: Path) -> str:
        """Run the job to its end and return its output."""
        raise NotImplementedError


class TestShm(JobBehaviour):
    __test__ = True
    worlds = [2, 3, 5]

    def start(self, world: int, folder: Path) -> str:
        return run_workers(
            [[sys.executable, __file__, "shm", str(folder), str(r), str(world)] for r in range(world)]
        )


class TestMpi(JobBehaviour):
    __test__ = True
    worlds = [2, 3]

    def start(self, world: int, folder: Path) -> str:
        pytest.importorskip("mpi4py")
        mpirun = Path(sys.executable).parent / "mpirun"
        if not mpirun.exists():
            pytest.skip("no mpirun beside this Python")
        command = [str(mpirun), "-n", str(world), sys.executable, __file__, "mpi", str(folder)]
        return run_workers([command])


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


def test_every_plan_is_exact_between_processes(tmp_path: Path) -> None:
    world = 8
    output = run_workers(
        [[sys.executable, __file__, "plans", str(tmp_path), str(r), str(world)] for r in range(world)]
    )
    for rank in range(world):
        assert (tmp_path / f"rank{rank}.json").read_text() == '"ok"', output


def run_workers(commands: list[list[str]], limit: float = 60) -> str:
    """Run all at once, kill them after `limit` seconds, return what they printed."""
    # More ranks than cores is the rule here, and Open MPI refuses that and root unless told.
    environ = os.environ | {
        "OPENBLAS_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }
    kinds = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environ}
    workers = [subprocess.Popen(command, **kinds) for command in commands]  # type: ignore[call-overload]
    timer = threading.Timer(limit, lambda: [w.kill() for w in workers])
    timer.start()
    output = "".join(w.communicate()[0] for w in workers)
    timer.cancel()
    return output


def main(kind: str, folder: str, *place: str) -> None:
    from ringgrad.distributed.transport import Transport

    transport: Transport
    if kind != "mpi":
        from ringgrad.distributed.transport.shm import ShmTransport

        transport = ShmTransport(folder, int(place[0]), int(place[1]))
    else:
        from ringgrad.distributed.transport.mpi import MpiTransport

        transport = MpiTransport()
    group = Group(transport, timeout=30)
    if kind == "plans":
        CASES["plans"] = every_plan_is_exact
        Path(folder, f"rank{group.rank}.json").write_text(json.dumps(run_case("plans", group)))
    else:
        run_all(group, Path(folder))
    group.close()
    transport.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
