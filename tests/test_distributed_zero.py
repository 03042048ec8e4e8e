"""ZeroRedundancyOptimizer against the optimizer that it shares out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad
from ringgrad import nn, optim
from ringgrad.distributed.ddp import DistributedDataParallel
from ringgrad.distributed.group import Group
from ringgrad.distributed.join import Join
from ringgrad.distributed.transport.local import LocalTransport, run_threads
from ringgrad.distributed.zero import ZeroRedundancyOptimizer

ROWS = np.random.default_rng(3).standard_normal((24, 6)).astype(np.float32)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
        for i, p in enumerate(self.parameters()):
            p.array[...] = np.random.default_rng(i).standard_normal(p.array.shape)

    def forward(self, x: Any) -> Any:
        return (self.b(self.a(x).tanh()) ** 2).mean()


def run(world: int, body: Callable[[Group], Any]) -> list[Any]:
    def rank(transport: LocalTransport) -> Any:
        return body(Group(transport, timeout=60))

    return run_threads(world, rank)


def flat(state: Any) -> dict[Any, Any]:
    """Every number of a state_dict by its place."""
    arrays = {
        (n, k): v.array.tolist() for n, s in state["state"].items() for k, v in s.items() if v is not None
    }
    return {**arrays, "groups": [dict(g) for g in state["param_groups"]]}


def groups_of(net: Net) -> list[dict[str, Any]]:
    return [{"params": net.a.parameters()}, {"params": net.b.parameters(), "lr": 0.02, "weight_decay": 0.1}]


def train(model: Any, optimizer: Any, part: np.ndarray, steps: int) -> None:
    schedule = optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ringgrad.from_numpy(part)).backward()
        optimizer.step()
        schedule.step()


CASES: list[tuple[Any, dict[str, Any]]] = [
    (optim.AdamW, {"lr": 0.01}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, {"lr": 0.1}),
    (optim.Adagrad, {"lr": 0.1}),
]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_updates_and_saved_state_are_those_of_the_optimizer(world: int, kind: Any, options: Any) -> None:
    def body(group: Group, zero: bool) -> Any:
        net = Net()
        model = DistributedDataParallel(net, process_group=group)
        if zero:
            optimizer = ZeroRedundancyOptimizer(groups_of(net), kind, group, **options)
        else:
            optimizer = kind(groups_of(net), **options)
        train(model, optimizer, ROWS[group.rank :: world], 5)
        held = len(optimizer.state)
        if zero:
            optimizer.consolidate_state_dict(to=world - 1)
        state = optimizer.state_dict() if not zero or group.rank == world - 1 else None
        return [p.array.tolist() for p in net.parameters()], held, state and flat(state)

    plain, shared = run(world, lambda g: body(g, False)), run(world, lambda g: body(g, True))
    assert all(r[0] == plain[0][0] for r in shared)
    assert shared[-1][2] == plain[0][2]
    if kind is optim.AdamW:
        assert sum(r[1] for r in shared) == 4 and max(r[1] for r in shared) <= (4 if world == 1 else 3)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_training_goes_on_from_a_state_saved_with_another_number_of_ranks(after: int) -> None:
    def first(group: Group) -> Any:
        net = Net()
        model = DistributedDataParallel(net, process_group=group)
        optimizer = ZeroRedundancyOptimizer(net.parameters(), optim.AdamW, group, lr=0.01)
        train(model, optimizer, ROWS, 3)
        optimizer.consolidate_state_dict()
        return (net.state_dict(), optimizer.state_dict()) if group.rank == 0 else None

    weights, state = run(2, first)[0]

    def second(group: Group) -> list[Any]:
        net = Net()
        net.load_state_dict(weights)
        model = DistributedDataParallel(net, process_group=group)
        optimizer = ZeroRedundancyOptimizer(net.parameters(), optim.AdamW, group, lr=0.5)
        optimizer.load_state_dict(state)
        train(model, optimizer, ROWS, 2)
        return [p.array.tolist() for p in net.parameters()]

    net = Net()
    net.load_state_dict(weights)
    optimizer = optim.AdamW(net.parameters(), lr=0.5)
    optimizer.load_state_dict(state)
    train(net, optimizer, ROWS, 2)
    for found in run(after, second):
        for a, p in zip(found, net.parameters()):
            np.testing.assert_allclose(a, p.array, rtol=1e-5, atol=1e-6)


def test_a_group_that_is_added_later_is_shared_out() -> None:
    def body(group: Group) -> Any:
        net = Net()
        optimizer = ZeroRedundancyOptimizer(net.a.parameters(), optim.SGD, group, lr=0.1, momentum=0.5)
        optimizer.add_param_group({"params": net.b.parameters(), "lr": 0.2})
        model = DistributedDataParallel(net, process_group=group)
        model(ringgrad.from_numpy(ROWS)).backward()
        optimizer.step()
        return len(optimizer.state), [p.array.tolist() for p in net.parameters()]

    net = Net()
    plain = optim.SGD([{"params": net.a.parameters()}, {"params": net.b.parameters(), "lr": 0.2}], 0.1, 0.5)
    net(ringgrad.from_numpy(ROWS)).backward()
    plain.step()
    results = run(2, body)
    assert sum(held for held, _ in results) == 4 and all(held for held, _ in results)
    for _, found in results:
        for a, p in zip(found, net.parameters()):
            np.testing.assert_allclose(a, p.array, rtol=1e-5, atol=1e-6)


def test_it_joins_with_its_model() -> None:
    counts = [1, 3]

    def body(group: Group) -> Any:
        net = Net()
        model = DistributedDataParallel(net, process_group=group)
        optimizer = ZeroRedundancyOptimizer(net.parameters(), optim.AdamW, group, lr=0.01)
        with Join([model, optimizer], divide_by_initial_world_size=False):
            for i in range(counts[group.rank]):
                optimizer.zero_grad()
                model(ringgrad.from_numpy(ROWS[(2 * i + group.rank) * 4 :][:4])).backward()
                optimizer.step()
        return [p.array for p in net.parameters()]

    net = Net()
    optimizer = optim.AdamW(net.parameters(), lr=0.01)
    for i in range(3):
        optimizer.zero_grad()
        ranks = [r for r in range(2) if i < counts[r]]
        for r in ranks:
            (net(ringgrad.from_numpy(ROWS[(2 * i + r) * 4 :][:4])) / len(ranks)).backward()
        optimizer.step()
    first, second = run(2, body)
    for a, b, p in zip(first, second, net.parameters()):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, p.array, rtol=1e-4, atol=1e-5)


def test_misuse_is_named() -> None:
    def body(group: Group) -> None:
        net = Net()
        optimizer = ZeroRedundancyOptimizer(net.parameters(), optim.Adam, group)
        with pytest.raises(RuntimeError, match=rf"needs consolidate_state_dict\(to={group.rank}\)"):
            optimizer.state_dict()
        with pytest.raises(ValueError, match=r"must have \[4\] parameters, came groups with \[1\]"):
            optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0]}]})

    run(2, body)
    with pytest.warns(UserWarning, match="overlap_with_ddp change nothing"):
        ZeroRedundancyOptimizer(Net().parameters(), optim.Adam, Group(), overlap_with_ddp=True)
