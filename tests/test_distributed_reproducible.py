"""Reproducible mode: one digest of parameters and optimizer state on any number of ranks.

Run as a script it is one worker of a job: `test_distributed_reproducible.py CASE STEPS` prints the digest.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad
from ringgrad import distributed as dist
from ringgrad import nn
from ringgrad.distributed.ddp import DistributedDataParallel
from ringgrad.distributed.errors import CollectiveMismatch
from ringgrad.distributed.group import Group
from ringgrad.distributed.process_group import world_group
from ringgrad.distributed.reproducible import KeyedDataset, KeyedRandom, ShardSampler, divide
from ringgrad.distributed.shards import ShardSum, Tree, subtrees
from ringgrad.distributed.transport.local import LocalTransport, run_threads
from ringgrad.nn import functional as F
from ringgrad.tensor import generator

SHARDS, BATCH = 24, 48
PYTHON, BIN = sys.executable, Path(sys.executable).parent


class PerThread:
    """A default generator for each thread, as each process has one."""

    local = threading.local()

    def _own(self) -> generator.Generator:
        if not hasattr(PerThread.local, "generator"):
            PerThread.local.generator = generator.Generator()
        return PerThread.local.generator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own(), name)

    __dict__ = property(lambda self: vars(self._own()))  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def own_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "default_generator", PerThread())


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8, momentum=None),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32, 5),
        )

    def forward(self, x: Any) -> Any:
        return self.features(x)


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(17, 24), nn.Embedding(9, 24)
        layer = nn.TransformerEncoderLayer(24, 3, 48, dropout=0.1, batch_first=True, norm_first=True)
        self.layers, self.norm = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.LayerNorm(24)

    def forward(self, tokens: Any) -> Any:
        length = tokens.shape[1]
        x = self.token(tokens) + self.position(ringgrad.arange(length))
        x = self.layers(x, nn.Transformer.generate_square_subsequent_mask(length))
        return self.norm(x) @ self.token.weight.t()


class Images:
    """Images that are mirrored at random whenever they are read."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        image = np.random.default_rng(i).standard_normal((3, 8, 8)).astype(np.float32)
        return (image[:, :, ::-1] if ringgrad.rand(1).item() < 0.5 else image), i % 5


class Texts:
    def __len__(self) -> int:
        return 200

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        text = np.random.default_rng(i).integers(0, 17, 10)
        return text[:-1], text[1:]


CASES: dict[str, tuple[Any, Any]] = {"cnn": (CNN, Images), "gpt": (GPT, Texts)}


def digest(model: Any, optimizer: Any) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode() + tensor.array.tobytes())
    for _, state in sorted(optimizer.state_dict()["state"].items()):
        for name in sorted(state):
            sha.update(name.encode() + state[name].array.tobytes())
    return sha.hexdigest()


def train(group: Group, case: str, steps: int, **options: Any) -> str:
    ringgrad.manual_seed(5)
    build, dataset = CASES[case]
    data = KeyedDataset(dataset(), seed=2)
    sampler = ShardSampler(data, BATCH, SHARDS, group.size, group.rank, seed=3)
    model = DistributedDataParallel(build(), process_group=group, reproducible=SHARDS, **options)
    optimizer = ringgrad.optim.AdamW(model.parameters(), lr=1e-2)
    done = epoch = 0
    while done < steps:
        sampler.set_epoch(epoch)
        data.set_epoch(epoch)
        for rows in sampler:
            x, y = (ringgrad.from_numpy(np.stack(part)) for part in zip(*[data[i] for i in rows]))
            for xs, ys in model.shards(x, y):
                logits = model(xs)
                F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ys.reshape(-1)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                break
        epoch += 1
    assert np.isfinite(next(iter(model.parameters())).array).all()
    return digest(model, optimizer)


def run(world: int, body: Callable[[Group], Any]) -> list[Any]:
    def rank(transport: LocalTransport) -> Any:
        return body(Group(transport, timeout=60))

    return run_threads(world, rank)


def digests_of(case: str, steps: int, runs: dict[int, tuple[float | None, ...]]) -> set[str]:
    """Of all ranks, for worlds with the bucket sizes (MiB) that are tried in each."""
    found: set[str] = set()
    for world, caps in runs.items():
        for cap in caps:
            found |= set(run(world, lambda g, cap=cap: train(g, case, steps, bucket_cap_mb=cap)))  # type: ignore[misc]
    return found


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_ranks_and_any_bucket_size_give_the_same_bits(case: str) -> None:
    runs = {1: (None,), 2: (0.002,), 3: (1e-6,), 4: (0.1,), 6: (0.01,), 8: (0.002,)}
    assert len(digests_of(case, 6, runs)) == 1  # into the second epoch


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_after_thirty_steps(case: str) -> None:
    assert len(digests_of(case, 30, {1: (0.01,), 8: (0.002,)})) == 1


@pytest.mark.parametrize(
    ("launcher", "transport", "worlds"),
    [("ringrun", "shm", (2, 4)), ("ringrun", "tcp", (3,)), ("mpirun", "mpi", (2, 4))],
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_processes_give_the_same_bits_over_every_transport(
    case: str, launcher: str, transport: str, worlds: tuple[int, ...]
) -> None:
    if launcher == "mpirun":
        pytest.importorskip("mpi4py")
        if not (BIN / "mpirun").exists():
            pytest.skip("no mpirun beside this Python")
    digests = set(run(1, lambda g: train(g, case, 6)))
    for world in worlds:
        start = [str(BIN / "mpirun")] if launcher == "mpirun" else [PYTHON, "-m", "ringgrad.launch"]
        program = [PYTHON] if launcher == "mpirun" else []
        command = [*start, "-n", str(world), *program, __file__, case, "6"]
        env = {**os.environ, "RINGGRAD_TRANSPORT": transport}
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env)
        assert done.returncode == 0, done.stderr
        found = [line.split("digest ")[1] for line in done.stdout.splitlines() if "digest " in line]
        digests.update(found[0].split())
    assert len(digests) == 1


def test_the_gradient_is_the_mean_over_shards() -> None:
    x = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)

    def model_of() -> nn.Module:
        ringgrad.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))

    def body(group: Group) -> list[np.ndarray]:
        model = DistributedDataParallel(model_of(), process_group=group, reproducible=6)
        part = np.array_split(x, group.size)[group.rank]
        for _ in range(2):  # two loops without zero_grad add up, as backwards do
            losses = []
            for shard in model.shards(ringgrad.from_numpy(part)):
                losses.append((model(shard) ** 2).mean())
                losses[-1].backward()
        return [*[p.grad.array.copy() for p in model.parameters()], model.shard_mean(losses).array]

    alone = model_of()
    loss = (alone(ringgrad.from_numpy(x)) ** 2).mean()
    (2 * loss).backward()
    expected = [*[p.grad.array for p in alone.parameters()], loss.array]
    for world in (1, 2, 3):
        for found in run(world, body):
            for a, b in zip(found, expected):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_halves_are_summed_in_float32_and_rounded_once() -> None:
    def body(group: Group) -> list[float]:
        out = np.zeros(group.size, np.float16)
        total = ShardSum(group, 8, out)
        each = 8 // group.size
        for shard in range(group.rank * each, (group.rank + 1) * each):
            array = total.take()
            array[:] = 2048 if shard == 0 else 1  # in float16 adding 1 to 2048 changes nothing
            total.push(shard, array)
        total.launch()
        total.combine(add=False).wait()
        return out.tolist()

    for world in (1, 2, 4):
        assert all(v == float(np.float16(2055 / 8)) for found in run(world, body) for v in found)


def test_unused_parameters_and_buffers_that_do_not_change() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
            self.norm = nn.BatchNorm1d(3)
            self.register_buffer("mask", ringgrad.tensor([float("-inf"), 0.1, 0.3]))

        def forward(self, x: Any, both: bool) -> Any:
            x = self.norm(x)
            return self.a(x).sum() + (self.b(x).sum() if both else 0)

    rows = np.arange(72, dtype=np.float32).reshape(24, 3) % 7

    def body(group: Group, unused: bool) -> Any:
        ringgrad.manual_seed(0)
        net = Net()
        model = DistributedDataParallel(
            net, process_group=group, reproducible=6, find_unused_parameters=unused
        )
        part = np.array_split(rows, group.size)[group.rank]
        for k, shard in enumerate(model.shards(ringgrad.from_numpy(part))):
            model(shard, both=k == 0 and group.rank == 0).backward()
        assert net.c.weight.grad is None and (net.b.bias.grad.array == 4 / 6).all()
        return [
            net.mask.array.tolist(),
            int(net.norm.num_batches_tracked),
            net.norm.running_mean.array.tobytes(),
        ]

    first, *others = [found for world in (1, 2, 3) for found in run(world, lambda g: body(g, True))]
    assert all(other == first for other in others)
    assert first[:2] == [np.array([float("-inf"), 0.1, 0.3], np.float32).tolist(), 1]
    np.testing.assert_allclose(np.frombuffer(first[2], np.float32), 0.1 * rows.mean(0), rtol=1e-5)
    with pytest.raises(RuntimeError, match="no gradient came for c"):
        run(1, lambda g: body(g, False))


def test_misuse_is_named() -> None:
    net = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"reproducible must be the number of shards .* got 0"):
        DistributedDataParallel(net, process_group=Group(), reproducible=0)
    model = DistributedDataParallel(net, process_group=Group(), reproducible=3)
    x = ringgrad.ones(6, 2)
    with pytest.raises(RuntimeError, match="a forward in training must be within"):
        model(x)
    with pytest.raises(RuntimeError, match="backward must be called within"):
        model.eval()(x).sum().backward()
    model.train()
    with pytest.raises(ValueError, match="a multiple of this rank's 3 shards, got 4"):
        next(iter(model.shards(ringgrad.ones(4, 2))))
    with pytest.raises(RuntimeError, match=r"once a shard, .* second gradient of"):
        for part in model.shards(x):
            model(part).sum().backward()
            model(part).sum().backward()
    state = generator.default_generator.get_state()
    for _ in model.shards(x):
        ringgrad.rand(3)
        break  # a broken-off step leaves nothing behind
    assert net.weight.grad is None and (generator.default_generator.get_state() == state).all()
    for part in model.shards(x):
        model(part).sum().backward()
    np.testing.assert_array_equal(net.weight.grad.array, [[2, 2]])
    with pytest.raises(RuntimeError, match=r"count.. does not go with reproducible"):
        model.count(3)
    with pytest.raises(RuntimeError, match=r"shards.. needs the model to be wrapped with reproducible="):
        DistributedDataParallel(nn.Linear(2, 1), process_group=Group()).shards(x)


def test_ranks_with_batches_of_different_size_are_an_error() -> None:
    def body(group: Group) -> None:
        model = DistributedDataParallel(nn.Linear(2, 1), process_group=group, reproducible=4)
        for part in model.shards(ringgrad.ones(4 if group.rank else 8, 2)):
            model(part).mean().backward()

    with pytest.raises(CollectiveMismatch, match="4 rows a shard"):
        run(2, body)


def test_random_numbers_follow_from_the_step_when_training_goes_on() -> None:
    def drawn(model: DistributedDataParallel, step: int | None) -> list[float]:
        found = []
        for part in model.shards(ringgrad.ones(2, 2), step=step):
            found += [ringgrad.rand(1).item(), float(np.random.random())]
            model(part).sum().backward()
        return found

    ringgrad.manual_seed(4)
    model = DistributedDataParallel(nn.Linear(2, 1), process_group=Group(), reproducible=2)
    steps = [drawn(model, None) for _ in range(3)]
    assert len({v for step in steps for v in step}) == 12
    assert drawn(model, 1) == steps[1] and drawn(model, None) == steps[2]


@pytest.mark.parametrize("places", [1, 5, 8, 24, 37])
def test_a_tree_cut_into_runs_is_the_same_tree(places: int) -> None:
    values = np.random.default_rng(places).standard_normal((places, 3)).astype(
        np.float32
    ) * 10.0 ** np.arange(3)

    def whole() -> np.ndarray:
        tree = Tree()
        for i in range(places):
            tree.push(0, i, values[i].copy())
        return tree.total()[0]

    for cut in range(1, places):
        parts, joined = (range(cut), range(cut, places)), Tree()
        for part in parts:
            tree = Tree()
            for i in part:
                tree.push(0, i, values[i].copy())
            assert [node[:2] for node in tree.nodes] == subtrees(part.start, part.stop)
            for node in tree.nodes:
                joined.push(*node)
        assert (joined.total()[0] == whole()).all()


def test_a_tree_keeps_few_arrays() -> None:
    tree, most = Tree(), 0
    for i in range(1000):
        tree.push(0, i, np.zeros(1))
        most = max(most, len(tree.nodes))
    assert most <= 10


def test_the_sampler_gives_the_same_batches_for_any_number_of_ranks() -> None:
    def batches(world: int, drop_last: bool) -> list[list[int]]:
        samplers = [
            ShardSampler(range(50), 24, 12, world, r, seed=9, drop_last=drop_last) for r in range(world)
        ]
        for sampler in samplers:
            sampler.set_epoch(2)
        assert len(samplers[0]) == (2 if drop_last else 3)
        return [list(itertools.chain(*parts)) for parts in zip(*samplers)]

    for drop_last in (True, False):
        alone = batches(1, drop_last)
        assert all(batches(world, drop_last) == alone for world in (2, 3, 5, 12))
        assert [len(b) for b in alone] == ([24, 24] if drop_last else [24, 24, 12])
        assert set(itertools.chain(*alone)) == set(range(50)) or drop_last
    with pytest.raises(ValueError, match="batch_size must be a multiple of shards, got 10 and 4"):
        ShardSampler(range(5), 10, 4, 1, 0)


def test_batches_are_cut_wherever_they_hold_tensors() -> None:
    rows, cut = divide(([ringgrad.arange(6), {"x": np.arange(12).reshape(6, 2), "n": 3}],), 3)
    assert rows == 2
    ((y, rest),) = cut(1)
    assert y.tolist() == [2, 3] and rest["x"].tolist() == [[4, 5], [6, 7]] and rest["n"] == 3
    with pytest.raises(ValueError, match=r"the same number of rows .* got 3, 6"):
        divide((ringgrad.ones(3), ringgrad.ones(6)), 3)


def test_keyed_random_numbers_leave_no_trace() -> None:
    ringgrad.manual_seed(1)
    before = generator.default_generator.get_state()
    with KeyedRandom(1, 2, 3):
        a = ringgrad.rand(2).tolist()
    with KeyedRandom(1, 2, 3):
        assert ringgrad.rand(2).tolist() == a
    with KeyedRandom(1, 2, 4):
        assert ringgrad.rand(2).tolist() != a
    assert (generator.default_generator.get_state() == before).all()


if __name__ == "__main__":
    dist.init_process_group()
    found = world_group().all_gather_object(train(world_group(), sys.argv[1], int(sys.argv[2])))
    if dist.get_rank() == 0:
        print("digest", *found, flush=True)
    dist.destroy_process_group()
