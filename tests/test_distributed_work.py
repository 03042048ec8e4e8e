"""Collectives in pieces: begun on the caller's thread, and taken further by whoever passes by."""

import time

import numpy as np
import pytest

from ringgrad.distributed.errors import CollectiveMismatch
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.local import LocalTransport, run_threads


def test_what_is_started_under_overlapping_needs_no_thread_and_keeps_its_order() -> None:
    def rank(transport: LocalTransport) -> None:
        group = Group(transport, timeout=60)
        arrays = [np.full(n, group.rank + 1.0) for n in (3, 40_000)]
        with group.overlapping():
            works = [group.all_reduce(a, async_op=True) for a in arrays]
        assert works[1].wait() and works[0].is_completed()  # those that came before end first
        assert [a[0] for a in arrays] == [6, 6]
        with group.overlapping():
            work = group.all_reduce(arrays[0], async_op=True)
        group.all_reduce(arrays[1])  # waits for what came before it
        assert work.is_success() and (arrays[0][0], arrays[1][0]) == (18, 18)
        assert group._main.lane._thread is None

    run_threads(3, rank)


def test_advance_takes_what_was_begun_to_its_end() -> None:
    def rank(transport: LocalTransport) -> None:
        group = Group(transport, timeout=60)
        array = np.full(40_000, group.rank + 1.0)
        with group.overlapping():
            work = group.all_reduce(array, "avg", async_op=True)
        end = time.monotonic() + 20
        while not work.is_completed() and time.monotonic() < end:
            group.advance()
        assert work.exception() is None and array[0] == 1.5

    run_threads(2, rank)


def test_a_begun_collective_that_fails_raises_in_wait_and_breaks_the_group() -> None:
    def rank(transport: LocalTransport) -> None:
        group = Group(transport, timeout=60)
        with group.overlapping():
            work = group.all_reduce(np.ones(4 + group.rank), async_op=True)
        with pytest.raises(CollectiveMismatch):
            work.wait()
        assert not work.is_success() and isinstance(work.exception(), CollectiveMismatch)
        with pytest.raises(CollectiveMismatch), group.overlapping():
            group.all_reduce(np.ones(4), async_op=True)

    run_threads(2, rank)


def test_wait_with_a_timeout_leaves_a_begun_collective_under_way() -> None:
    def rank(transport: LocalTransport) -> None:
        group, other = Group(transport, timeout=60), Group(transport, number=10)
        array = np.ones(4)
        if group.rank == 0:
            with group.overlapping():
                work = group.all_reduce(array, async_op=True)
            with pytest.raises(TimeoutError, match=r"all_reduce sum float64\[4\] must end within 0.05 s"):
                work.wait(0.05)
            other.barrier()
            assert work.wait() and array[0] == 2
        else:
            other.barrier()
            group.all_reduce(array)

    run_threads(2, rank)
