"""ShardedDataParallel against DistributedDataParallel, and what both keep in memory."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad
from ringgrad import nn, optim
from ringgrad.distributed.ddp import DistributedDataParallel
from ringgrad.distributed.group import Group
from ringgrad.distributed.sharded import IN_FLIGHT, ShardedDataParallel
from ringgrad.distributed.transport.local import run_threads

ROWS = np.random.default_rng(3).standard_normal((24, 6)).astype(np.float32)
OPTIMIZERS: list[tuple[Any, dict[str, Any]]] = [
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    # The gradient of a bias in front of a norm is rounding alone: eps keeps Adam from making it large.
    (optim.AdamW, {"lr": 0.01, "eps": 1e-3}),
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        for i, p in enumerate(self.parameters()):
            p.array[...] = np.random.default_rng(i).standard_normal(p.array.shape)

    def forward(self, x: Any) -> Any:
        return (self.b(self.norm(self.a(x)).tanh()) ** 2).mean()


def run(world: int, body: Callable[[Group], Any]) -> list[Any]:
    return run_threads(world, lambda transport: body(Group(transport, timeout=60)))


def part(group: Group) -> Any:
    return ringgrad.from_numpy(ROWS.reshape(group.size, -1, 6)[group.rank])


def values(module: nn.Module) -> list[list[float]]:
    return [p.array.tolist() for p in module.parameters()]


def plain(group: Group, optimizer_class: Any, options: dict[str, Any], steps: int, backwards: int) -> Any:
    model = DistributedDataParallel(Net(), process_group=group)
    optimizer = optimizer_class(model.parameters(), **options)
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(backwards):
            model(part(group)).backward()
        optimizer.step()
    return model.module, optimizer


def sharded(
    group: Group, optimizer_class: Any, options: dict[str, Any], steps: int, backwards: int, **how: Any
) -> ShardedDataParallel:
    model = ShardedDataParallel(Net(), optimizer_class, group, **how, **options)
    for _ in range(steps):
        model.optimizer.zero_grad()
        for _ in range(backwards):
            model(part(group)).backward()
        if not model.step_in_backward:
            model.optimizer.step()
    return model


@pytest.mark.parametrize("cap", [1e-4, 25])
@pytest.mark.parametrize(("optimizer_class", "options"), OPTIMIZERS)
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_training_is_that_of_whole_gradients(
    world: int, optimizer_class: Any, options: Any, cap: float
) -> None:
    def rank(group: Group) -> None:
        expected, _ = plain(group, optimizer_class, options, 5, 2)
        model = sharded(group, optimizer_class, options, 5, 2, bucket_cap_mb=cap)
        for ours, theirs in zip(model.module.parameters(), expected.parameters()):
            np.testing.assert_allclose(ours.array, theirs.array, rtol=2e-5, atol=1e-6)
        assert all(p.grad is None for p in model.module.parameters())

    run(world, rank)


def test_steps_within_backward_are_the_same_steps() -> None:
    def rank(group: Group) -> Any:
        how = {"bucket_cap_mb": 1e-4}
        after = sharded(group, optim.AdamW, {"lr": 0.01}, 4, 1, **how)
        within = sharded(group, optim.AdamW, {"lr": 0.01}, 4, 1, step_in_backward=True, **how)
        assert all(piece.shard.grad is None for piece in within._pieces)
        assert values(within.module) == values(after.module)
        return values(within.module)

    found = run(3, rank)
    assert found[0] == found[1] == found[2]


def test_a_rank_keeps_its_part_of_gradients_and_state_only() -> None:
    def rank(group: Group) -> tuple[int, int, int]:
        taken: list[int] = []
        empty = group.empty

        def counted(shape: Any, dtype: Any = np.float32) -> np.ndarray:
            taken.append(int(np.prod(shape)))
            return empty(shape, dtype)

        group.empty = counted  # type: ignore[method-assign]
        model = ShardedDataParallel(
            nn.Sequential(*[nn.Linear(16, 16, bias=False) for _ in range(12)]),
            optim.AdamW,
            group,
            bucket_cap_mb=1e-3,
        )
        for _ in range(3):
            model(ringgrad.ones(2, 16)).sum().backward()
            model.optimizer.step()
        gradients = sum(piece.shard.grad.array.size for piece in model._pieces)
        state = sum(s["exp_avg"].array.size for s in model.optimizer.state.values())
        return gradients, state, len(taken)

    for gradients, state, buffers in run(4, rank):
        assert gradients == state == 12 * 256 // 4
        assert buffers <= IN_FLIGHT + 1


def test_the_state_is_that_of_the_whole_optimizer_and_loads_for_another_world() -> None:
    def rank(group: Group) -> Any:
        expected = plain(group, *OPTIMIZERS[1], 3, 1)[1].state_dict()
        model = sharded(group, *OPTIMIZERS[1], 3, 1, bucket_cap_mb=1e-4)
        state = model.optimizer_state_dict()
        assert state["param_groups"][0]["params"] == expected["param_groups"][0]["params"]
        for number, row in expected["state"].items():
            for name, value in row.items():
                ours = state["state"][number][name]
                np.testing.assert_allclose(ours.array, value.array, rtol=1e-5, atol=1e-6)
        return state, [p.array.copy() for p in model.module.parameters()]

    state, parameters = run(2, rank)[0]

    def go_on(group: Group) -> Any:
        model = ShardedDataParallel(Net(), optim.AdamW, group, lr=0.5)
        for p, value in zip(model.module.parameters(), parameters):
            p.array[...] = value
        fresh = ShardedDataParallel(model.module, optim.AdamW, group, lr=0.5)
        fresh.load_optimizer_state_dict(state)
        again = fresh.optimizer_state_dict()
        for number, row in state["state"].items():
            assert all((again["state"][number][name].array == v.array).all() for name, v in row.items())
        return again["param_groups"][0]["lr"]

    assert run(3, go_on) == [0.01] * 3


def test_the_norm_is_that_of_all_gradients() -> None:
    def rank(group: Group) -> None:
        whole = DistributedDataParallel(Net(), process_group=group)
        whole(part(group)).backward()
        expected = nn.utils.clip_grad_norm_(whole.parameters(), 0.1).item()
        model = ShardedDataParallel(Net(), optim.SGD, group, lr=1.0)
        model(part(group)).backward()
        assert abs(model.clip_grad_norm_(0.1).item() - expected) < 1e-4 * expected
        assert abs(model.clip_grad_norm_(1e9).item() - 0.1) < 1e-4

    run(3, rank)


def test_a_parameter_without_a_gradient_is_named_or_counts_as_zero() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.used(x).sum()

    def rank(group: Group) -> None:
        model = ShardedDataParallel(Two(), optim.SGD, group, lr=0.1)
        with pytest.raises(RuntimeError, match="no gradient came for spare"):
            model(ringgrad.ones(1, 2)).backward()
        model = ShardedDataParallel(Two(), optim.SGD, group, lr=0.1, find_unused_parameters=True)
        before = model.module.spare.weight.array.copy()
        model(ringgrad.ones(1, 2)).backward()
        model.optimizer.step()
        assert (model.module.spare.weight.array == before).all()

    run(2, rank)


MEMORY = """
    import sys
    import ringgrad as rg
    from ringgrad import distributed as dist, nn
    dist.init_process_group()
    model = nn.Sequential(*[nn.Linear(1024, 1024, bias=False) for _ in range(12)])
    wrapped = nn.parallel.DistributedDataParallel(model) if dist.get_world_size() > 1 else model
    for _ in range(3):
        model.zero_grad()
        wrapped(rg.ones(1, 1024)).sum().backward()
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    dist.barrier()
    if dist.get_rank() == 0:
        print("pss", kib)
    dist.destroy_process_group()
"""


def test_communication_adds_no_copy_of_the_gradients(tmp_path: Path) -> None:
    """Memory shared between ranks counts once: half for each. A second copy of the gradients would be 48 MiB."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(MEMORY))

    def mib(ranks: int) -> float:
        command = [
            sys.executable,
            "-m",
            "ringgrad.launch",
            "-n",
            str(ranks),
            "--no-prefix",
            "--threads",
            "1",
            str(script),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        return float(done.stdout.split()[1]) / 1024

    alone, together = mib(1), mib(2)
    assert together < alone + 32, f"a rank of two takes {together:.0f} MiB, one alone {alone:.0f} MiB"
