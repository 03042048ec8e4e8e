"""Communication hooks, exact means over uneven batches, and the order in which buckets are filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad
from ringgrad import nn
from ringgrad.distributed import hooks
from ringgrad.distributed.ddp import DistributedDataParallel
from ringgrad.distributed.group import Group
from ringgrad.distributed.powersgd import PowerSGDState, powerSGD_hook
from ringgrad.distributed.transport.local import LocalTransport, run_threads

ROWS = np.random.default_rng(3).standard_normal((12, 6)).astype(np.float32)


class Net(nn.Module):
    """Weights that are the same in every thread, whichever comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
        rng = np.random.default_rng(1)
        for p in self.parameters():
            p.array[...] = rng.standard_normal(p.array.shape) * 0.5

    def forward(self, x: Any) -> Any:
        return self.b(self.a(x).tanh())


def run(world: int, body: Callable[[Group], Any]) -> list[Any]:
    def rank(transport: LocalTransport) -> Any:
        return body(Group(transport, timeout=60))

    return run_threads(world, rank)


def grads(model: nn.Module) -> list[np.ndarray]:
    return [p.grad.array.copy() for p in model.parameters()]


def whole_batch(rows: np.ndarray = ROWS) -> list[np.ndarray]:
    net = Net()
    (net(ringgrad.from_numpy(rows)) ** 2).mean().backward()
    return grads(net)


def step_with(hook: Callable[..., Any], make_state: Callable[[Group], object]) -> Callable[[Group], Any]:
    def body(group: Group) -> list[np.ndarray]:
        model = DistributedDataParallel(Net(), process_group=group, bucket_cap_mb=1e-4)
        model.register_comm_hook(make_state(group), hook)
        assert len(model._reducer.buckets) > 1
        (model(ringgrad.from_numpy(ROWS[group.rank :: group.size])) ** 2).mean().backward()
        return grads(model)

    return body


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(
    ("hook", "error"),
    [
        (hooks.allreduce_hook, 1e-6),
        (hooks.fp16_compress_hook, 2e-3),
        (hooks.bf16_compress_hook, 2e-2),
        (hooks.fp16_compress_wrapper(hooks.allreduce_hook), 2e-3),
    ],
)
def test_hooks_give_the_mean_in_their_precision(world: int, hook: Callable[..., Any], error: float) -> None:
    results = run(world, step_with(hook, lambda group: group))
    for found in results:
        for a, first, b in zip(found, results[0], whole_batch()):
            assert (a == first).all()
            np.testing.assert_allclose(a, b, rtol=error, atol=error)
            assert error == 1e-6 or not np.array_equal(a, b)


def test_a_users_hook_sees_the_bucket() -> None:
    seen: list[Any] = []

    def hook(state: Group, bucket: hooks.GradBucket) -> hooks.Future[Any]:
        if state.rank == 0:
            shapes = [tuple(g.shape) for g in bucket.gradients()]
            assert shapes == [tuple(p.shape) for p in bucket.parameters()]
            assert sum(g.numel() for g in bucket.gradients()) == bucket.buffer().numel()
            seen.append((bucket.index(), bucket.is_last()))
        total = ringgrad.from_numpy(bucket.buffer().array * 2)  # a tensor of its own
        work = state.all_reduce(total.array, "sum", async_op=True)
        return hooks.Future.of(work, total).then(lambda f: f.value() / (2 * state.size))

    for found in run(2, step_with(hook, lambda group: group)):
        for a, b in zip(found, whole_batch()):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert [i for i, _ in seen] == list(range(len(seen))) and [last for _, last in seen][-1]


def test_no_communication_leaves_local_gradients() -> None:
    first, second = run(2, step_with(hooks.noop_hook, lambda group: None))
    assert not any(np.array_equal(a, b) for a, b in zip(first, second))


def test_topk_sends_the_largest_and_makes_up_for_the_rest() -> None:
    """What is applied over the steps, and what is still held back, add up to all gradients."""

    def body(group: Group) -> Any:
        state = hooks.TopKState(group, ratio=0.1)
        model = DistributedDataParallel(Net(), process_group=group)
        model.register_comm_hook(state, hooks.topk_hook)
        applied = [np.zeros(p.array.shape, np.float64) for p in model.parameters()]
        for i in range(5):
            model.zero_grad()
            (model(ringgrad.from_numpy(ROWS[group.rank :: 2] * (i + 1))) ** 2).mean().backward()
            for total, g in zip(applied, grads(model)):
                assert 0 < np.count_nonzero(np.concatenate([x.ravel() for x in grads(model)])) <= 2 * 9
                total += g
        return applied, [state.residual._of[id(p)].copy() for p in model.parameters()]

    (applied, held0), (again, held1) = run(2, body)
    net = Net()
    for i in range(5):
        for part in (ROWS[::2], ROWS[1::2]):
            ((net(ringgrad.from_numpy(part * (i + 1))) ** 2).mean() / 2).backward()
    for a, b, r0, r1, g in zip(applied, again, held0, held1, grads(net)):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a + (r0 + r1) / 2, g, rtol=1e-4, atol=1e-5)


def power_grads(group: Group, rank: int, steps: int, feedback: bool) -> Any:
    state = PowerSGDState(
        group,
        matrix_approximation_rank=rank,
        start_powerSGD_iter=2,
        min_compression_rate=0.1,
        use_error_feedback=feedback,
    )
    model = DistributedDataParallel(Net(), process_group=group)
    model.register_comm_hook(state, powerSGD_hook)
    applied = [np.zeros(p.array.shape, np.float64) for p in model.parameters()]
    for i in range(steps):
        model.zero_grad()
        (model(ringgrad.from_numpy(ROWS[group.rank :: group.size])) ** 2).mean().backward()
        for total, g in zip(applied, grads(model)):
            total += g if i >= 2 else 0
    held = [state.residual._of[id(p)].copy() for p in model.parameters()] if feedback else None
    return grads(model), applied, held


def test_powersgd_of_full_rank_is_the_mean() -> None:
    for found, _, _ in run(2, lambda group: power_grads(group, 8, 4, False)):
        for a, b in zip(found, whole_batch()):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_powersgd_of_rank_one_is_of_rank_one_and_makes_up_for_the_rest() -> None:
    results = run(2, lambda group: power_grads(group, 1, 8, True))
    (found, applied, held0), (again, _, held1) = results
    for a, b in zip(found, again):
        np.testing.assert_array_equal(a, b)
    assert [np.linalg.matrix_rank(g, tol=1e-5) for g in found if g.ndim == 2] == [1, 1]
    for total, r0, r1, g in zip(applied, held0, held1, whole_batch()):
        np.testing.assert_allclose(total + (r0 + r1) / 2, 6 * g, rtol=1e-4, atol=1e-4)


def test_powersgd_needs_the_first_step_whole() -> None:
    with pytest.raises(ValueError, match="start_powerSGD_iter must be above 1"):
        PowerSGDState(start_powerSGD_iter=1)


def test_misuse_of_hooks_is_named() -> None:
    model = DistributedDataParallel(Net(), process_group=Group())
    with pytest.raises(TypeError, match="must be callable, got int"):
        model.register_comm_hook(None, 3)  # type: ignore[arg-type]
    model.register_comm_hook(None, lambda state, bucket: bucket.buffer())
    with pytest.raises(RuntimeError, match="must be called once"):
        model.register_comm_hook(None, hooks.allreduce_hook)
    with pytest.raises(TypeError, match="must return a Future"):
        model(ringgrad.ones(1, 6)).sum().backward()
    short = DistributedDataParallel(Net(), process_group=Group())
    short.register_comm_hook(None, lambda state, bucket: hooks.Future.completed(bucket.buffer()[1:]))
    with pytest.raises(ValueError, match="as many elements as its bucket has"):
        short(ringgrad.ones(1, 6)).sum().backward()


@pytest.mark.parametrize("hook", [None, hooks.allreduce_hook])
def test_count_gives_the_mean_over_samples_that_ranks_hold_unevenly(hook: Any) -> None:
    cuts = [0, 7, 7, 12]  # rank 1 has nothing

    def body(group: Group) -> list[np.ndarray]:
        model = DistributedDataParallel(Net(), process_group=group)
        if hook is not None:
            model.register_comm_hook(group, hook)
        part = ROWS[cuts[group.rank] : cuts[group.rank + 1]]
        for micro, last in ((part[:2], False), (part[2:], True)):
            model.require_backward_grad_sync = last
            model.count(micro.size * 4 // 6)  # elements of the output
            (model(ringgrad.from_numpy(micro)) ** 2).sum().backward()
        return grads(model)

    for found in run(3, body):
        for a, b in zip(found, whole_batch()):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_counts_that_are_missing_or_nothing_are_errors() -> None:
    model = DistributedDataParallel(Net(), process_group=Group())
    with pytest.raises(ValueError, match="needs a number of samples, got -1"):
        model.count(-1)
    model.count(0)
    with pytest.raises(RuntimeError, match="numbers that add up to more than 0"):
        model(ringgrad.ones(1, 6)).sum().backward()
    model(ringgrad.ones(1, 6)).sum().backward()  # the next one is a mean over ranks again


class Reversed(nn.Module):
    """Uses its parameters in the reverse of the order in which they were made."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(4, 4) for _ in range(5)])
        for i, p in enumerate(self.parameters()):
            p.array[...] = np.random.default_rng(i).standard_normal(p.array.shape)

    def forward(self, x: Any) -> Any:
        for part in reversed(list(self.parts)):
            x = part(x)
        return x.sum()


def test_buckets_follow_the_order_in_which_gradients_came() -> None:
    def body(group: Group) -> Any:
        model = DistributedDataParallel(Reversed(), process_group=group, bucket_cap_mb=1e-4)
        x = ringgrad.from_numpy(ROWS[group.rank :: 2, :4].copy())
        before = [name for b in model._reducer.buckets for name, _ in b.parameters]
        model(x).backward()
        first = grads(model)
        assert all(np.shares_memory(p.grad.array, p._grad_home.array) for p in model.parameters())
        after = [name.split(".")[1] for b in model._reducer.buckets for name, _ in b.parameters]
        model.zero_grad()
        model(x).backward()
        for a, b in zip(first, grads(model)):
            np.testing.assert_array_equal(a, b)
        return before[0].split(".")[1], after, first

    (begun, order, first), (_, same, second) = run(2, body)
    assert begun == "4" and order == same == sorted(order)
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)


def test_local_sgd_averages_gradients_first_and_parameters_later() -> None:
    from ringgrad.distributed.localsgd import (
        PeriodicModelAverager,
        PostLocalSGDOptimizer,
        PostLocalSGDState,
        post_localSGD_hook,
    )

    def nets_alone(steps: int) -> list[list[np.ndarray]]:
        """Parameters of both ranks after `steps`: two of data-parallel training, then local ones."""
        nets = [Net(), Net()]
        for step in range(steps):
            for rank, net in enumerate(nets):
                net.zero_grad()
                (net(ringgrad.from_numpy(ROWS[rank::2])) ** 2).mean().backward()
            for a, b in zip(*[list(net.parameters()) for net in nets]):
                both = (a.grad.array + b.grad.array) / 2
                for p in (a, b):
                    p.array[...] -= 0.1 * (both if step < 2 else p.grad.array)
                if step >= 2 and (step - 2) % 3 == 0:  # averaged at steps 2, 5, ...
                    a.array[...] = b.array[...] = (a.array + b.array) / 2
        return [[p.array for p in net.parameters()] for net in nets]

    def body(group: Group) -> list[list[np.ndarray]]:
        model = DistributedDataParallel(Net(), process_group=group)
        model.register_comm_hook(PostLocalSGDState(group, start_localSGD_iter=2), post_localSGD_hook)
        averager = PeriodicModelAverager(3, warmup_steps=2, process_group=group)
        optimizer = PostLocalSGDOptimizer(ringgrad.optim.SGD(model.parameters(), lr=0.1), averager)
        seen = []
        for _ in range(6):
            optimizer.zero_grad()
            (model(ringgrad.from_numpy(ROWS[group.rank :: 2])) ** 2).mean().backward()
            optimizer.step()
            seen.append([p.array.copy() for p in model.parameters()])
        state = optimizer.state_dict()
        averager.step = 0
        optimizer.load_state_dict(state)
        assert state["step"] == averager.step == 6
        return seen

    for rank, seen in enumerate(run(2, body)):
        for steps, found in enumerate(seen):
            for a, b in zip(found, nets_alone(steps + 1)[rank]):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="period must be at least 1"):
        PeriodicModelAverager(0, process_group=Group())
