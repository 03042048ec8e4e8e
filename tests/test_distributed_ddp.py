"""DistributedDataParallel: ranks are threads here, each with its own group over the local transport."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad
from ringgrad.distributed.ddp import DistributedDataParallel
from ringgrad.distributed.errors import CollectiveMismatch
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.local import LocalTransport, run_threads
from ringgrad.nn.module import Module
from ringgrad.tensor import Parameter, Tensor


def tensor(array: Any) -> Tensor:
    return ringgrad.from_numpy(np.array(array, np.float64))


class Net(Module):
    """Two tanh layers, a branch that is taken on demand, and a buffer."""

    def __init__(self, seed: int = 0, width: int = 5, extra: bool = False) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.w1 = Parameter(tensor(rng.standard_normal((3, width))))
        self.b1 = Parameter(tensor(rng.standard_normal(width)))
        self.w2 = Parameter(tensor(rng.standard_normal((width, 1))))
        if extra:
            self.branch = Parameter(tensor(rng.standard_normal(width)))
        self.register_buffer("count", tensor([float(seed)]))

    def forward(self, x: Tensor, branch: bool = False) -> Tensor:
        h = (x @ self.w1 + self.b1).tanh()
        if branch:
            h = h * self.branch
        return (h @ self.w2).mean()


def data(rows: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, 3))


def step(model: Module, rate: float = 0.1) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.array[...] -= rate * p.grad.array


def clear(model: Module, set_to_none: bool) -> None:
    for p in model.parameters():
        if set_to_none:
            p.grad = None
        elif p.grad is not None:
            p.grad.array[...] = 0


def run(world: int, body: Callable[[Group], Any]) -> list[Any]:
    def rank(transport: LocalTransport) -> Any:
        return body(Group(transport, timeout=60))

    return run_threads(world, rank)


def values(model: Module) -> np.ndarray:
    return np.concatenate([p.array.reshape(-1) for p in model.parameters()])


def train_alone(rows: np.ndarray, steps: int) -> np.ndarray:
    model = Net()
    for _ in range(steps):
        clear(model, True)
        model(tensor(rows)).backward()
        step(model)
    return values(model)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("bucket_cap_mb", [None, 50 / (1 << 20), 1e-6])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_equals_training_on_the_whole_batch(
    world: int, bucket_cap_mb: float | None, set_to_none: bool
) -> None:
    rows = data(6)

    def body(group: Group) -> np.ndarray:
        # Different seeds: what counts is rank 0's model.
        model = DistributedDataParallel(
            Net(seed=group.rank), process_group=group, bucket_cap_mb=bucket_cap_mb
        )
        part = rows[group.rank :: world]
        for _ in range(4):
            clear(model, set_to_none)
            model(tensor(part)).backward()
            step(model)
        return values(model)

    results = run(world, body)
    assert all((r == results[0]).all() for r in results)
    np.testing.assert_allclose(results[0], train_alone(rows, 4), rtol=1e-12)


def test_gradients_are_views_of_their_bucket() -> None:
    def body(group: Group) -> None:
        model = DistributedDataParallel(Net(), process_group=group)
        for set_to_none in (True, False, True):
            clear(model, set_to_none)
            model(tensor(data(4))).backward()
            (bucket,) = model._reducer.buckets
            assert all(np.shares_memory(p.grad.array, bucket.flat) for p in model.parameters())

    run(2, body)


def test_a_gradient_that_the_user_assigned_is_reduced_too() -> None:
    def body(group: Group) -> np.ndarray:
        model = DistributedDataParallel(Net(), process_group=group)
        for p in model.parameters():
            p.grad = tensor(np.full(p.array.shape, 1.0 + group.rank))
        model(tensor(data(4))).backward()
        return np.concatenate([p.grad.array.reshape(-1) for p in model.parameters()])

    first, second = run(2, body)
    alone = Net()
    alone(tensor(data(4))).backward()
    local = np.concatenate([p.grad.array.reshape(-1) for p in alone.parameters()])
    np.testing.assert_allclose(first, local + 1.5, rtol=1e-12)
    assert (first == second).all()


def test_no_sync_accumulates_and_the_next_backward_reduces_all() -> None:
    rows = data(8)

    def body(group: Group) -> tuple[np.ndarray, bool]:
        model = DistributedDataParallel(Net(), process_group=group)
        part = rows[group.rank :: 2]
        with model.no_sync():
            model(tensor(part[:1])).backward()
        local = model.module.w1.grad.array.copy()
        with model.no_sync():
            loss = model(tensor(part[1:2]))
        loss.backward()  # the forward decides, as in PyTorch
        model(tensor(part[2:])).backward()
        return np.concatenate([p.grad.array.reshape(-1) for p in model.parameters()]), local

    (first, local0), (second, local1) = run(2, body)
    assert not np.allclose(local0, local1)
    assert (first == second).all()
    expected = np.zeros_like(first)
    for rank in range(2):
        alone, part = Net(), rows[rank::2]
        for piece in (part[:1], part[1:2], part[2:]):
            alone(tensor(piece)).backward()
        expected += np.concatenate([p.grad.array.reshape(-1) for p in alone.parameters()]) / 2
    np.testing.assert_allclose(first, expected, rtol=1e-12)


def test_two_backwards_without_no_sync_add_their_means() -> None:
    def body(group: Group) -> np.ndarray:
        model = DistributedDataParallel(Net(), process_group=group)
        model(tensor(data(4)[group.rank :])).backward()
        once = model.module.w1.grad.array.copy()
        model(tensor(data(4)[group.rank :])).backward()
        return model.module.w1.grad.array - 2 * once

    for rest in run(2, body):
        np.testing.assert_allclose(rest, 0, atol=1e-15)


def test_unused_parameters_are_named_on_every_rank() -> None:
    def body(group: Group) -> str:
        model = DistributedDataParallel(Net(extra=True), process_group=group)
        with pytest.raises(RuntimeError, match="no gradient came for branch") as caught:
            model(tensor(data(4))).backward()
        return str(caught.value)

    assert len(set(run(2, body))) == 1


@pytest.mark.parametrize("option", ["find_unused_parameters", "static_graph"])
def test_unused_parameters_count_as_zero_when_asked(option: str) -> None:
    def body(group: Group) -> tuple[np.ndarray, Any]:
        model = DistributedDataParallel(Net(extra=True), process_group=group, **{option: True})
        model(tensor(data(4)), branch=True).backward()  # leaves something in the bucket
        clear(model, True)
        model(tensor(data(4)), branch=group.rank == 0).backward()
        some = model.module.branch.grad.array.copy()
        clear(model, True)
        model(tensor(data(4)), branch=False).backward()
        return some, model.module.branch.grad

    alone = Net(extra=True)
    alone(tensor(data(4)), branch=True).backward()
    for some, none in run(2, body):
        np.testing.assert_allclose(some, alone.branch.grad.array / 2, rtol=1e-12)
        assert none is None


def test_different_models_are_one_error_on_every_rank() -> None:
    def body(group: Group) -> str:
        with pytest.raises(CollectiveMismatch) as caught:
            DistributedDataParallel(Net(width=5 if group.rank != 1 else 6), process_group=group)
        return str(caught.value)

    texts = run(3, body)
    assert len(set(texts)) == 1
    assert (
        "parameter w1: rank 0, 2: float64[3, 5], requires_grad; rank 1: float64[3, 6], requires_grad"
        in texts[0]
    )


def test_a_missing_parameter_and_a_frozen_one_are_found() -> None:
    def body(group: Group) -> str:
        net = Net(extra=group.rank == 0)
        if group.rank == 1:
            net.b1.requires_grad_(False)
        with pytest.raises(CollectiveMismatch) as caught:
            DistributedDataParallel(net, process_group=group)
        return str(caught.value)

    text, again = run(2, body)
    assert text == again
    assert "parameter branch: rank 0: float64[5], requires_grad; rank 1: missing" in text
    assert "parameter b1: rank 0: float64[5], requires_grad; rank 1: float64[5]" in text


def test_buffers_follow_rank_0_in_training_only() -> None:
    def body(group: Group) -> list[float]:
        model = DistributedDataParallel(Net(), process_group=group)
        seen = []
        for train in (True, False):
            model.train(train)
            model.module.count.array[...] = 10 + group.rank
            model(tensor(data(4))).backward()
            seen.append(float(model.module.count.array[0]))
        return seen

    assert run(2, body) == [[10, 10], [10, 11]]


def test_state_dict_has_the_prefix_of_pytorch() -> None:
    def body(group: Group) -> list[str]:
        return list(DistributedDataParallel(Net(), process_group=group).state_dict())

    assert run(2, body)[1] == ["module.w1", "module.b1", "module.w2", "module.count"]


def test_buckets_follow_backward_and_hold_one_dtype_each() -> None:
    from ringgrad.distributed.buckets import make_buckets

    sizes = [("a", 100, np.float32), ("b", 50, np.float64), ("c", 300, np.float32), ("d", 10, np.float32)]
    named = [(name, Parameter(ringgrad.from_numpy(np.zeros(n, dtype)))) for name, n, dtype in sizes]
    buckets = make_buckets(named, 1250, Group())
    assert [[name for name, _ in b.parameters] for b in buckets] == [["d", "c"], ["b"], ["a"]]


class Chain(Module):
    """Layers that are used in another order than that in which they were made, so that buckets are filled anew."""

    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        for i in range(layers):
            setattr(self, f"w{i}", Parameter(tensor(rng.standard_normal((4, 4)) / 2)))
        self.order = [f"w{i}" for i in np.random.default_rng(4).permutation(layers)]

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            x = (x @ getattr(self, name)).tanh()
        return x.mean()


def rows_of(group: Group) -> Tensor:
    return tensor(np.random.default_rng(group.rank).standard_normal((5, 4)))


def test_filling_buckets_anew_takes_no_second_copy_of_the_gradients() -> None:
    """A bucket's old memory is given back before the next is made."""

    def body(group: Group) -> tuple[int, list[str], list[str]]:
        empty, held, most = group.empty, [0], [0]

        def counted(shape: Any, dtype: Any = np.float32) -> np.ndarray:
            array = np.empty(shape, dtype)
            held[0] += array.size
            most[0] = max(held[0], most[0])
            weakref.finalize(array, lambda n: held.__setitem__(0, held[0] - n), array.size)
            return array

        group.empty = counted  # type: ignore[method-assign]
        model = DistributedDataParallel(Chain(), process_group=group, bucket_cap_mb=1e-6)
        for _ in range(2):
            clear(model, False)
            model(rows_of(group)).backward()
        group.empty = empty  # type: ignore[method-assign]
        order = [name for bucket in model._reducer.buckets for name, _ in bucket.parameters]
        return most[0], order, list(reversed(model.module.order))

    for most, order, came in run(2, body):
        assert order == came
        assert most <= (12 + 2) * 16


@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("counts", [False, True])
def test_steps_in_backward_are_the_same_steps(counts: bool, unused: bool) -> None:
    def train(group: Group, within: bool) -> np.ndarray:
        model = DistributedDataParallel(
            Chain(), process_group=group, bucket_cap_mb=1e-6, find_unused_parameters=unused
        )
        optimizer = ringgrad.optim.AdamW(model.parameters(), lr=0.1)
        if within:
            model.step_in_backward(optimizer)
        for i in range(4):
            optimizer.zero_grad(set_to_none=i % 2 == 0)
            with model.no_sync():
                model(rows_of(group)).backward()
            if counts:
                model.count(3 + group.rank)
            model(rows_of(group)).backward()
            if not within:
                optimizer.step()
        return values(model)

    found = run(2, lambda group: (train(group, True), train(group, False)))
    assert all((one == found[0][0]).all() for both in found for one in both)


def test_each_bucket_is_a_step_of_its_parameters_alone() -> None:
    def body(group: Group) -> list[list[str]]:
        steps: list[list[str]] = []

        class Noting(ringgrad.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                having = [name for name, p in names if p.grad is not None]
                steps.append(having)
                return super().step(closure)

        model = DistributedDataParallel(Chain(3), process_group=group, bucket_cap_mb=1e-6)
        names = list(model.module.named_parameters())
        model._register_fused_optim(Noting, 0.1)
        model(rows_of(group)).backward()
        assert all(p.grad is not None for _, p in names)
        return steps

    assert run(2, body) == [[["w2"], ["w1"], ["w0"]]] * 2
    model = DistributedDataParallel(Net(), process_group=Group())
    with pytest.raises(TypeError, match="needs an optimizer"):
        model.step_in_backward(0.1)
    exact = DistributedDataParallel(Net(), process_group=Group(), reproducible=24)
    with pytest.raises(RuntimeError, match="does not go with reproducible="):
        exact.step_in_backward(ringgrad.optim.SGD(exact.parameters(), 0.1))


def test_wrong_arguments_say_what_must_hold() -> None:
    frozen = Net()
    for p in frozen.parameters():
        p.requires_grad_(False)
    with pytest.raises(RuntimeError, match="must have a parameter that requires grad"):
        DistributedDataParallel(frozen, process_group=Group())
    with pytest.raises(ValueError, match="bucket_cap_mb must be positive, got 0"):
        DistributedDataParallel(Net(), process_group=Group(), bucket_cap_mb=0)
    with pytest.raises(ValueError, match="device_ids and output_device must be None"):
        DistributedDataParallel(Net(), process_group=Group(), device_ids=[0])
    with pytest.warns(UserWarning, match="check_reduction changes nothing"):
        DistributedDataParallel(Net(), process_group=Group(), check_reduction=True)
