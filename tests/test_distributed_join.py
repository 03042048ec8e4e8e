"""Join: ranks with different numbers of inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad
from ringgrad import nn
from ringgrad.distributed.ddp import DistributedDataParallel
from ringgrad.distributed.group import Group
from ringgrad.distributed.join import Join, Joinable, JoinHook
from ringgrad.distributed.transport.local import LocalTransport, run_threads

ROWS = np.random.default_rng(3).standard_normal((40, 3)).astype(np.float64)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()
        self.register_buffer("seen", ringgrad.zeros(1))
        for i, p in enumerate(self.parameters()):
            p.array[...] = np.random.default_rng(i).standard_normal(p.array.shape)

    def forward(self, x: Any) -> Any:
        if self.training:
            self.seen += 1
        return self.b(self.a(x).tanh())


def run(world: int, body: Callable[[Group], Any]) -> list[Any]:
    def rank(transport: LocalTransport) -> Any:
        return body(Group(transport, timeout=60))

    return run_threads(world, rank)


def batches(rank: int, counts: list[int]) -> list[np.ndarray]:
    return [
        ROWS[(i * len(counts) + rank) * 2 : (i * len(counts) + rank) * 2 + 2] for i in range(counts[rank])
    ]


def sgd(model: nn.Module) -> None:
    for p in model.parameters():
        p.array[...] -= 0.1 * p.grad.array
        p.grad = None


def values(model: nn.Module) -> np.ndarray:
    return np.concatenate([p.array.reshape(-1) for p in model.parameters()])


def alone(counts: list[int], divide_by_initial: bool) -> np.ndarray:
    net = Net()
    for i in range(max(counts)):
        parts = [batches(rank, counts)[i] for rank, n in enumerate(counts) if i < n]
        ranks = len(counts) if divide_by_initial else len(parts)
        for part in parts:
            ((net(ringgrad.from_numpy(part)) ** 2).mean() / ranks).backward()
        sgd(net)
    return values(net)


@pytest.mark.parametrize("counts", [[3, 1, 2], [0, 3], [2, 2], [1, 4]])
@pytest.mark.parametrize("divide_by_initial", [True, False])
@pytest.mark.parametrize("bucket_cap_mb", [None, 1e-6])
def test_training_goes_on_until_the_last_rank_is_done(
    counts: list[int], divide_by_initial: bool, bucket_cap_mb: float | None
) -> None:
    def body(group: Group) -> tuple[np.ndarray, float]:
        model = DistributedDataParallel(Net(), process_group=group, bucket_cap_mb=bucket_cap_mb)
        with model.join(divide_by_initial_world_size=divide_by_initial):
            for part in batches(group.rank, counts):
                (model(ringgrad.from_numpy(part)) ** 2).mean().backward()
                sgd(model)
        return values(model), model.module.seen.item()

    for found, seen in run(len(counts), body):
        np.testing.assert_allclose(found, alone(counts, divide_by_initial), rtol=1e-12)
        assert seen == max(counts)


def test_find_unused_no_sync_and_counts_go_with_join() -> None:
    def body(group: Group) -> np.ndarray:
        model = DistributedDataParallel(Net(), process_group=group, find_unused_parameters=True)
        with model.join():
            for part in batches(group.rank, [1, 3]):
                with model.no_sync():
                    model.count(4)
                    (model(ringgrad.from_numpy(part)) ** 2).sum().backward()
                model.count(4)
                (model(ringgrad.from_numpy(part)) ** 2).sum().backward()
                sgd(model)
        return values(model)

    expected = alone([1, 3], False)
    for found in run(2, body):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_early_end_can_be_an_error_on_all_ranks() -> None:
    def body(group: Group) -> str:
        model = DistributedDataParallel(Net(), process_group=group)
        with pytest.raises(RuntimeError) as caught, model.join(throw_on_early_termination=True):
            for part in batches(group.rank, [3, 1, 3]):
                model(ringgrad.from_numpy(part)).sum().backward()
        return str(caught.value)

    assert set(run(3, body)) == {"[Join] all ranks must have as many inputs, but these have run out: [1]"}


def test_join_that_is_off_changes_nothing() -> None:
    def body(group: Group) -> np.ndarray:
        model = DistributedDataParallel(Net(), process_group=group)
        with model.join(enable=False):
            for part in batches(group.rank, [2, 2]):
                (model(ringgrad.from_numpy(part)) ** 2).mean().backward()
                sgd(model)
        return values(model)

    np.testing.assert_allclose(run(2, body)[1], alone([2, 2], True), rtol=1e-12)


def test_an_exception_within_join_comes_out() -> None:
    model = DistributedDataParallel(Net(), process_group=Group())
    with pytest.raises(KeyError), model.join():
        raise KeyError
    assert model._join is None


class Counter(Joinable):
    """A joinable of the user's own: adds up a number over ranks in each step."""

    def __init__(self, group: Group) -> None:
        self.group, self.total, self.ended = group, 0.0, None

    def step(self, value: float) -> None:
        Join.notify_join_context(self)
        array = np.array([value])
        self.group.all_reduce(array)
        self.total += array[0]

    def join_hook(self, **kwargs: Any) -> JoinHook:
        counter, add = self, kwargs["missing"]

        class Hook(JoinHook):
            def main_hook(self) -> None:
                array = np.array([add])
                counter.group.all_reduce(array)
                counter.total += array[0]

            def post_hook(self, is_last_joiner: bool) -> None:
                counter.ended = is_last_joiner

        return Hook()

    @property
    def join_device(self) -> str:
        return "cpu"

    @property
    def join_process_group(self) -> Group:
        return self.group


def test_a_users_joinable() -> None:
    def body(group: Group) -> Any:
        counter = Counter(group)
        with Join([counter], missing=100.0):
            for _ in range(group.rank + 1):
                counter.step(1.0)
        return counter.total, counter.ended

    # steps: all three; ranks 1 and 2 with 100 from rank 0; rank 2 alone with 200
    assert run(3, body) == [(306.0, False), (306.0, False), (306.0, True)]


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="at least one Joinable"):
        Join([])
    with pytest.raises(TypeError, match="must be Joinables, got int"):
        Join([3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="share one process group, got 2"):
        Join([Counter(Group()), Counter(Group())])
    model = DistributedDataParallel(Net(), process_group=Group(), reproducible=2)
    with pytest.raises(RuntimeError, match=r"join\(\) does not go with reproducible="):
        model.join()
