"""SyncBatchNorm and collectives with gradients, against one process that has the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad
from ringgrad import nn
from ringgrad.distributed import functional
from ringgrad.distributed.ddp import DistributedDataParallel
from ringgrad.distributed.group import Group
from ringgrad.distributed.sync_batch_norm import SyncBatchNorm
from ringgrad.distributed.transport.local import LocalTransport, run_threads


def run(world: int, body: Callable[[Group], Any]) -> list[Any]:
    def rank(transport: LocalTransport) -> Any:
        return body(Group(transport, timeout=60))

    return run_threads(world, rank)


class Net(nn.Module):
    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.b = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4, momentum=None, affine=False))
        self.to(dtype)
        for i, p in enumerate(self.parameters()):
            p.array[...] = np.random.default_rng(i).standard_normal(p.array.shape)

    def forward(self, x: Any) -> Any:
        return self.b(self.norm(self.a(x)).relu())


def whole(rows: np.ndarray, weights: np.ndarray, steps: int) -> Any:
    net, x = Net(ringgrad.float64), ringgrad.from_numpy(rows).requires_grad_()
    for _ in range(steps):
        net.zero_grad()
        x.grad = None
        y = net(x)
        (y * ringgrad.from_numpy(weights)).sum().backward()
    return net, y.detach().array, x.grad.array


@pytest.mark.parametrize("cuts", [[0, 4, 8], [0, 5, 6, 8], [0, 8]])
def test_outputs_gradients_and_statistics_are_those_of_the_whole_batch(cuts: list[int]) -> None:
    rng = np.random.default_rng(0)
    rows, weights = rng.standard_normal((8, 2, 4, 4)) + 100, rng.standard_normal((8, 4))
    net, y, dx = whole(rows, weights, 2)

    def body(group: Group) -> Any:
        inner = nn.SyncBatchNorm.convert_sync_batchnorm(Net(ringgrad.float64), group)
        assert type(inner.norm) is type(inner.b[2]) is SyncBatchNorm
        model = DistributedDataParallel(inner, process_group=group)
        part = slice(cuts[group.rank], cuts[group.rank + 1])
        x = ringgrad.from_numpy(rows[part].copy()).requires_grad_()
        for _ in range(2):
            model.zero_grad()
            x.grad = None
            out = model(x)
            (out * ringgrad.from_numpy(weights[part]) * group.size).sum().backward()  # DDP takes the mean
        return (
            out.detach().array,
            x.grad.array / group.size,
            [p.grad.array for p in model.parameters()],
            inner,
        )

    results = run(len(cuts) - 1, body)
    np.testing.assert_allclose(np.concatenate([r[0] for r in results]), y, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.concatenate([r[1] for r in results]), dx, rtol=1e-7, atol=1e-8)
    for _, _, found, inner in results:
        for a, p in zip(found, net.parameters()):
            np.testing.assert_allclose(a, p.grad.array, rtol=1e-7, atol=1e-8)
        for a, b in zip(inner.buffers(), net.buffers()):
            np.testing.assert_allclose(a.array, b.array, rtol=1e-10)


def test_halves_are_normalised_in_float32() -> None:
    rows = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float16)

    def body(group: Group) -> Any:
        norm = SyncBatchNorm(3, process_group=group)
        x = ringgrad.from_numpy(rows[group.rank :: 2].copy()).requires_grad_()
        y = norm(x)
        (y.float() ** 3).sum().backward()
        return y.detach().array, x.grad.array

    wide = ringgrad.from_numpy(rows.astype(np.float32)).requires_grad_()
    expected = nn.BatchNorm1d(3)(wide)
    (expected**3).sum().backward()
    for rank, (y, dx) in enumerate(run(2, body)):
        assert y.dtype == dx.dtype == np.float16
        np.testing.assert_allclose(y, expected.detach().array[rank::2], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(dx, wide.grad.array[rank::2], rtol=2e-2, atol=2e-2)


def test_evaluation_and_a_world_of_one_are_batch_norm() -> None:
    def body(group: Group) -> None:
        norm, plain = SyncBatchNorm(3, process_group=group).eval(), nn.BatchNorm1d(3).eval()
        x = ringgrad.from_numpy(np.random.default_rng(group.rank).standard_normal((4, 3)).astype(np.float32))
        np.testing.assert_array_equal(norm(x).detach().array, plain(x).detach().array)

    run(2, body)
    x = ringgrad.randn(5, 3)
    y = SyncBatchNorm(3)(x)
    np.testing.assert_array_equal(y.detach().array, nn.BatchNorm1d(3)(x).detach().array)
    with pytest.raises(ValueError, match=r"the input must be \(N, C, ...\)"):
        SyncBatchNorm(3)(ringgrad.ones(3))


def test_a_rank_without_samples_and_too_few_samples() -> None:
    def body(group: Group) -> Any:
        norm = SyncBatchNorm(2, process_group=group)
        x = ringgrad.arange(8.0).reshape(4, 2)[: 4 if group.rank else 0].requires_grad_()
        y = norm(x)
        (y * x).sum().backward()
        with pytest.raises(ValueError, match="more than one value a channel"):
            norm(ringgrad.ones(group.rank, 2))
        with pytest.raises(ValueError, match="came none on all"):
            norm(ringgrad.ones(0, 2))
        return y.detach().array, norm.running_mean.array

    (empty, mean), (full, again) = run(2, body)
    assert empty.shape == (0, 2) and np.isfinite(full).all()
    np.testing.assert_allclose(mean, np.array([3, 4]) * 0.1, rtol=1e-6)
    np.testing.assert_array_equal(mean, again)


def test_conversion_keeps_parameters_and_mode() -> None:
    net = nn.Sequential(nn.BatchNorm3d(2), nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))).eval()
    weight, names = net[0].weight, list(net.state_dict())
    made = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert made[0].weight is weight and not made[0].training and list(made.state_dict()) == names
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(2))) is SyncBatchNorm


def gradients(group: Group, call: Callable[[Any, Group], Any]) -> tuple[list[float], list[float]]:
    """Result and gradient of this rank, for an input and a weight of the result that tell ranks apart."""
    x = ringgrad.tensor([1.0, 2.0], dtype=ringgrad.float64) * (group.rank + 1)
    x = x.requires_grad_()
    y = call(x, group)
    (y * (10.0 ** (group.rank + 1))).sum().backward()
    return y.detach().array.tolist(), x.grad.array.tolist()


@pytest.mark.parametrize(
    ("call", "values", "grads"),
    [
        (lambda x, g: functional.all_reduce(x, group=g), [[3, 6], [3, 6]], [[110, 110]] * 2),
        (lambda x, g: functional.all_reduce(x, "avg", group=g), [[1.5, 3]] * 2, [[55, 55]] * 2),
        (lambda x, g: functional.broadcast(x, 1, group=g), [[2, 4]] * 2, [[0, 0], [110, 110]]),
        (lambda x, g: functional.reduce(x, 1, group=g), [[0, 0], [3, 6]], [[100, 100]] * 2),
        (lambda x, g: functional.reduce(x, 0, "avg", group=g), [[1.5, 3], [0, 0]], [[5, 5]] * 2),
        (lambda x, g: functional.all_gather(x, group=g)[1], [[2, 4]] * 2, [[0, 0], [110, 110]]),
        (lambda x, g: functional.gather(x, 0, group=g)[1], [[2, 4], [0, 0]], [[0, 0], [10, 10]]),
        (
            lambda x, g: functional.reduce_scatter(x, [x, 3 * x], group=g),
            [[3, 6], [9, 18]],
            [[310, 310]] * 2,
        ),
        (lambda x, g: functional.scatter([x, 2 * x], 1, group=g), [[2, 4], [4, 8]], [[0, 0], [210, 210]]),
        (
            lambda x, g: functional.all_to_all_single(x, x, group=g),
            [[1, 2], [2, 4]],
            [[10, 100]] * 2,
        ),
        (
            lambda x, g: functional.all_to_all([x, x], [x, 5 * x], group=g)[0],
            [[1, 2], [5, 10]],
            [[510, 510], [0, 0]],
        ),
    ],
)
def test_collectives_have_gradients(call: Callable[[Any, Group], Any], values: Any, grads: Any) -> None:
    results = run(2, lambda group: gradients(group, call))
    assert [r[1] for r in results] == grads
    assert [r[0] for r in results] == values


def test_uneven_all_to_all_has_gradients() -> None:
    def body(group: Group) -> Any:
        x = ringgrad.arange(3.0).requires_grad_()
        ins = [1, 2] if group.rank == 0 else [2, 1]
        outs = [1, 2] if group.rank == 0 else [2, 1]
        y = functional.all_to_all_single(ringgrad.empty(3), x, outs, ins, group=group)
        (y * (group.rank + 1)).sum().backward()
        return y.tolist(), x.grad.tolist()

    assert run(2, body) == [([0, 0, 1], [1, 2, 2]), ([1, 2, 2], [1, 1, 2])]


def test_second_derivatives_go_through_collectives() -> None:
    def body(group: Group) -> Any:
        x = ringgrad.tensor(2.0 + group.rank, dtype=ringgrad.float64).requires_grad_()
        y = functional.all_reduce(x**3, group=group)
        (first,) = ringgrad.autograd.grad(y, x, create_graph=True)
        (second,) = ringgrad.autograd.grad(first, x)
        return first.item(), second.item()

    assert run(2, body) == [(24.0, 24.0), (54.0, 36.0)]


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="op must be sum or avg to have a gradient, got 'max'"):
        functional.all_reduce(ringgrad.ones(1), "max", group=Group())
    with pytest.raises(ValueError, match="the list must have 1 tensors, one a rank, got 2"):
        functional.scatter([ringgrad.ones(1)] * 2, group=Group())
    with pytest.raises(ValueError, match="output must have the inputs' shape"):
        functional.reduce_scatter(ringgrad.ones(2), [ringgrad.ones(1)], group=Group())
