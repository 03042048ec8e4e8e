"""Messages between two ranks by torch.distributed's names, and barriers that name who did not come."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from ringgrad import distributed as dist
from ringgrad.distributed.errors import CollectiveTimeout, PeerFailure
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.local import LocalTransport, run_threads


def ranks(world: int, body: Callable[[Group], object]) -> list[object]:
    return run_threads(world, lambda transport: body(Group(transport, timeout=60)))


def test_a_batch_of_messages_goes_both_ways() -> None:
    def rank(group: Group) -> None:
        other = 1 - group.rank
        out = [np.zeros(5), np.zeros(5)]
        ops = [dist.P2POp(dist.irecv, out[tag], other, group, tag) for tag in (1, 0)]
        ops += [
            dist.P2POp(dist.isend, np.full(5, 10.0 * group.rank + tag), other, group, tag) for tag in (0, 1)
        ]
        works = dist.batch_isend_irecv(ops)
        assert all(work.wait() for work in works) and works[0].source_rank() == other
        # The first operation received the message with tag 1 into out[1], the second that with tag 0 into out[0].
        assert [o[0] for o in out] == [10 * other, 10 * other + 1]

    ranks(2, rank)


def test_recv_from_anyone_returns_the_sender() -> None:
    def rank(group: Group) -> set[int]:
        if group.rank:
            dist.send(np.array([group.rank]), 0, group, tag=3)
            return set()
        found, value = set(), np.zeros(1, np.int64)
        for _ in range(2):
            found.add(dist.recv(value, group=group, tag=3))
            assert value[0] in found
        return found

    assert ranks(3, rank)[0] == {1, 2}


def test_objects_travel_in_lists() -> None:
    def rank(group: Group) -> list[object]:
        values: list[object] = [{"a": 1}, None, b"x"] if group.rank else [0, 0, 0]
        if group.rank:
            dist.send_object_list(values, 0, group)
        else:
            assert dist.recv_object_list(values, group=group) == 1
            return values
        return []

    assert ranks(2, rank)[0] == [{"a": 1}, None, b"x"]


def test_an_object_list_of_another_length_is_told() -> None:
    def rank(group: Group) -> None:
        if group.rank:
            dist.send_object_list([1, 2], 0, group)
        else:
            with pytest.raises(ValueError, match="the list must have 2 places, got 1"):
                dist.recv_object_list([0], 1, group)

    ranks(2, rank)


def test_a_receive_from_anyone_ends_when_all_others_have_left() -> None:
    def rank(group: Group) -> None:
        if group.rank == 0:
            with pytest.raises(
                PeerFailure, match="left the group while a message from any rank is waited for"
            ):
                dist.recv(np.zeros(1), group=group)

    ranks(3, rank)


def test_a_receive_from_anyone_ends_at_the_group_s_timeout() -> None:
    done = threading.Event()

    def rank(transport: LocalTransport) -> None:
        group = Group(transport, timeout=0.2)
        if group.rank:
            assert done.wait(20)
            return
        with pytest.raises(CollectiveTimeout, match=f"no rank sent a message with tag 4 in time.*{__file__}"):
            dist.recv(np.zeros(1), group=group, tag=4)
        done.set()

    run_threads(2, rank)


@pytest.mark.parametrize("tag", [-1, 1 << 31])
def test_a_tag_out_of_range_is_told(tag: int) -> None:
    def rank(group: Group) -> None:
        with pytest.raises(ValueError, match=r"tag must be in 0\.\.2147483647"):
            dist.isend(np.ones(1), 1 - group.rank, group, tag)

    ranks(2, rank)


def test_monitored_barrier_lets_all_through() -> None:
    passed: list[int] = []

    def rank(group: Group) -> None:
        for _ in range(3):
            passed.append(group.rank)
            dist.monitored_barrier(group)
            assert len(set(passed)) == 4

    ranks(4, rank)


@pytest.mark.parametrize(("wait_all", "named"), [(False, "rank 1 did not"), (True, "rank 1, 3 did not")])
def test_monitored_barrier_names_who_did_not_come(wait_all: bool, named: str) -> None:
    over = threading.Event()

    def rank(group: Group) -> None:
        if group.rank in (1, 3):
            assert over.wait(20)
        elif group.rank == 0:
            with pytest.raises(CollectiveTimeout, match=f"all must come within 0.3 s, and {named}"):
                dist.monitored_barrier(group, 0.3, wait_all)
            over.set()
        else:
            with pytest.raises((CollectiveTimeout, PeerFailure), match=r"rank 0 (must answer within|left)"):
                dist.monitored_barrier(group, 0.5, wait_all)

    ranks(4, rank)


def test_a_work_s_future_gives_the_tensors() -> None:
    def rank(group: Group) -> None:
        array = np.full(3, group.rank + 1.0)
        work = dist.all_reduce(array, group=group, async_op=True)
        assert work is not None
        doubled = work.get_future().then(lambda future: future.value()[0] * 2)
        assert (doubled.wait() == 6).all() and (array == 3).all()

    ranks(2, rank)
