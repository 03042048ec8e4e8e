"""Reproducible mode: one digest of parameters and optimizer state on any number of ranks.

Run as a script it is one worker of a job: `test_distributed_reproducible.py CASE STEPS` prints the digest.
"""

from __future__ import annotations

import hashlib
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

SHARDS, BATCH, WORLDS = 24, 48, (1, 2, 3, 4, 6, 8)
PYTHON, BIN = sys.executable, Path(sys.executable).parent


class PerThread:
    """A default generator for each thread, as each process has one."""

    def __init__(self) -> None:
        self.local = threading.local()

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__["local"]
        if not hasattr(own, "generator"):
            own.generator = generator.Generator()
        return getattr(own.generator, name)


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
        return body(Group(transport, timeout=30))

    return run_threads(world, rank)


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_ranks_and_any_bucket_size_give_the_same_bits(case: str) -> None:
    digests: set[str] = set()
    for world in WORLDS:
        for bucket_cap_mb in (None, 0.002, 1e-6) if world in (2, 3) else (0.002,):
            digests |= set(run(world, lambda g, cap=bucket_cap_mb: train(g, case, 12, bucket_cap_mb=cap)))  # type: ignore[misc]
    assert len(digests) == 1


@pytest.mark.parametrize("launcher", ["ringrun", "mpirun"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_processes_give_the_same_bits_over_every_transport(case: str, launcher: str) -> None:
    if launcher == "mpirun":
        pytest.importorskip("mpi4py")
        if not (BIN / "mpirun").exists():
            pytest.skip("no mpirun beside this Python")
    digests = set(run(1, lambda g: train(g, case, 10)))
    for world in (1, 2, 4):
        start = [str(BIN / "mpirun")] if launcher == "mpirun" else [PYTHON, "-m", "ringgrad.launch"]
        command = [*start, "-n", str(world), PYTHON, __file__, case, "10"]
        transport = "mpi" if launcher == "mpirun" else "shm"
        env = {**os.environ, "RINGGRAD_TRANSPORT": transport}
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env)
        assert done.returncode == 0, done.stderr
        found = [line.split("digest ")[1] for line in done.stdout.splitlines() if "digest " in line]
        assert len(found) == world
        digests |= set(found)
    assert len(digests) == 1


if __name__ == "__main__":
    dist.init_process_group()
    print("digest", train(world_group(), sys.argv[1], int(sys.argv[2])), flush=True)
    dist.destroy_process_group()
