"""Same bits for any number of workers: a batch is cut into shards, and a fixed tree adds up their gradients.

Floating-point sums depend on their order, and matrix products on their shapes. So a batch is computed shard by
shard, whoever does it, and shards.py adds up. docs/reproducible.md tells users what that asks of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import numpy as np

from ..autograd.engine import Variable, wrap
from ..data.sampler import Sampler
from ..tensor import generator
from ..tensor.generator import Generator
from .buckets import WHO, broadcast_coalesced
from .group import Group
from .plan import bounds
from .shards import ShardReducer, ShardSum


class ShardBuffers:
    """Buffers of a module: every shard starts from the same, and the mean of what the shards changed is kept.

    So running statistics move once a step, by the mean over shards; of other kinds (counts), shard 0's stay.
    """

    def __init__(self, group: Group, module: Any, shards: int) -> None:
        self.group, self.module = group, module
        self.base = [b.array.copy() for b in module.buffers()]
        self.floats = [i for i, a in enumerate(self.base) if a.dtype.kind not in "biuS"]
        size = sum(self.base[i].size for i in self.floats)
        out = np.zeros(-(-size // group.size) * group.size, np.float64)
        self.sum = ShardSum(group, shards, out) if size else None
        self.kept: list[np.ndarray] = []

    def begin(self) -> None:
        if self.base:
            self.base = [b.array.copy() for b in self.module.buffers()]

    def close(self, shard: int, first: bool) -> None:
        """Note what a shard made of them, and put them back."""
        if not self.base:
            return
        buffers = list(self.module.buffers())
        if first:
            self.kept = [b.array.copy() for b in buffers]
        if self.sum is not None:
            array, at = self.sum.take(), 0
            for i in self.floats:
                old, new = self.base[i].reshape(-1), buffers[i].array.reshape(-1)
                # Where nothing changed, exactly nothing: infinities would leave NaN.
                array[at : at + old.size] = np.where(new == old, 0, new.astype(np.float64) - old)
                at += old.size
            array[at:] = 0
            self.sum.push(shard, array)
        self._write(buffers, self.base)

    def finish(self) -> None:
        if not self.base:
            return
        buffers = list(self.module.buffers())
        if self.sum is not None:
            self.sum.launch()
            self.sum.combine(add=False).wait()
            at = 0
            for i in self.floats:
                change = self.sum.out[at : at + self.base[i].size].reshape(self.base[i].shape)
                self.kept[i] = np.where(change == 0, self.base[i], self.base[i] + change)
                at += change.size
        self._write(buffers, self.kept)
        broadcast_coalesced(self.group, [b for i, b in enumerate(buffers) if i not in self.floats])

    def reset(self) -> None:
        if self.sum is not None:
            self.sum.reset()
        self._write(list(self.module.buffers()), self.base)

    @staticmethod
    def _write(buffers: list[Any], values: list[np.ndarray]) -> None:
        for buffer, value in zip(buffers, values):
            buffer.array[...] = value
            buffer._version[0] += 1


class KeyedRandom:
    """Within: random numbers of ringgrad, `random` and NumPy's global generator follow from the last key alone.

    After it they go on as if nothing had been drawn.
    """

    def __init__(self, *key: int) -> None:
        self.first = key

    def __enter__(self) -> KeyedRandom:
        # Seeding gives the generator a new stream, so that holding on to the old one is enough.
        self.before = vars(generator.default_generator).copy(), random.getstate(), np.random.get_state()
        self.key(*self.first)
        return self

    def key(self, *key: int) -> None:
        """Start again at another key."""
        seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
        generator.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)

    def __exit__(self, *_: object) -> None:
        own, python, numpy = self.before
        vars(generator.default_generator).clear()
        vars(generator.default_generator).update(own)
        random.setstate(python)
        np.random.set_state(numpy)


class ShardedStep:
    """What DistributedDataParallel(reproducible=shards) does in `shards(batch)`."""

    def __init__(
        self,
        group: Group,
        module: Any,
        named: list[tuple[str, Any]],
        cap_bytes: int,
        shards: int,
        unused: bool,
    ) -> None:
        _check(group, module, shards)
        from ..tensor.settings import set_num_threads

        set_num_threads(1)  # how BLAS cuts a product depends on the number of threads, and so do the bits
        self.group, self.count = group, shards
        self.reducer = ShardReducer(group, named, cap_bytes, shards, unused)
        self.buffers = ShardBuffers(group, module, shards)
        seed = generator.default_generator.initial_seed() & (1 << 64) - 1
        self.seed, self.step = group.broadcast_object(seed, 0), 0

    def shards(self, batch: tuple[Any, ...], step: int | None) -> Iterator[Any]:
        if self.reducer.shard is not None:
            raise RuntimeError(f"{WHO} shards() must not be called within another one's loop")
        self.step = self.step if step is None else step
        own = range(self.reducer.first, self.reducer.last)
        rows, cut = divide(batch, len(own))
        self.reducer.begin()
        self.buffers.begin()
        done = False
        try:
            with KeyedRandom() as numbers:
                for shard in own:
                    part = cut(shard - own.start)
                    numbers.key(self.seed, self.step, shard)
                    self.reducer.open(shard)
                    yield part if len(part) > 1 else part[0]
                    self.reducer.close()
                    self.buffers.close(shard, first=shard == own.start)
            self.reducer.finish(f"step {self.step} seed {self.seed}, {rows} rows a shard")
            self.buffers.finish()
            self.step += 1
            done = True
        finally:
            if not done:  # broken off by break or an error
                self.reducer.reset()
                self.buffers.reset()

    def check_within(self, training: bool) -> None:
        """Raise for a training forward outside of the loop: its gradients would not be reduced."""
        if training and self.reducer.shard is None:
            raise RuntimeError(
                f"{WHO} with reproducible=, a forward in training must be within `for part in model.shards(batch)`, "
                "came one outside. For evaluation call model.eval() and use no_grad()"
            )

    def mean(self, values: Sequence[Any]) -> Any:
        own = self.reducer.last - self.reducer.first
        if len(values) != own:
            raise ValueError(
                f"{WHO} shard_mean needs a value of each of this rank's {own} shards, got {len(values)}"
            )
        arrays = [v.array if isinstance(v, Variable) else np.asarray(v, np.float64) for v in values]
        size, world = arrays[0].size, self.group.size
        out = np.zeros(-(-size // world) * world, arrays[0].dtype)
        total = ShardSum(self.group, self.count, out)
        for i, array in enumerate(arrays):
            flat = np.zeros(out.size, total.dtype)
            flat[:size] = array.reshape(-1)
            total.push(self.reducer.first + i, flat)
        total.launch()
        total.combine(add=False).wait()
        return wrap(out[:size].reshape(arrays[0].shape))


def _check(group: Group, module: Any, shards: int) -> None:
    if not isinstance(shards, int) or isinstance(shards, bool) or shards < 1:
        raise ValueError(
            f"{WHO} reproducible must be the number of shards that a batch is cut into, as 24, got {shards!r}"
        )
    if shards < group.size:
        raise ValueError(
            f"{WHO} there must be at least one shard a rank: {group.size}, got reproducible={shards}"
        )
    for name, part in module.named_modules():
        if type(part).__name__ == "SyncBatchNorm":
            raise ValueError(
                f"{WHO} with reproducible=, statistics are those of a shard; use BatchNorm, got SyncBatchNorm {name!r}"
            )


def divide(batch: tuple[Any, ...], count: int) -> tuple[int, Callable[[int], Any]]:
    """(rows a shard, a function that gives shard i of `count`): tensors and arrays are cut along dimension 0.

    Lists, tuples and dicts are walked; what is neither goes to every shard as it is. Raises ValueError if the
    rows cannot be divided, or differ.
    """
    found: set[int] = set()

    def walk(value: Any, at: Callable[[np.ndarray], np.ndarray] | None) -> Any:
        if isinstance(value, Variable | np.ndarray):
            array = value.array if isinstance(value, Variable) else value
            if at is None:
                found.add(array.shape[0] if array.ndim else -1)
                return None
            # A copy, so that even where its memory begins does not tell which rank this is.
            part = at(array).copy()
            return wrap(part) if isinstance(value, Variable) else part
        if isinstance(value, dict):
            return {key: walk(v, at) for key, v in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*[walk(v, at) for v in value])
        if isinstance(value, list | tuple):
            return type(value)(walk(v, at) for v in value)
        return value

    walk(batch, None)
    if len(found) != 1 or min(found) < 1 or min(found) % count:
        told = ", ".join("a scalar" if n < 0 else str(n) for n in sorted(found)) or "no tensor"
        raise ValueError(
            f"{WHO} all tensors of a batch must have the same number of rows (dimension 0), a multiple of this "
            f"rank's {count} shards, got {told}. ShardSampler gives such batches"
        )
    rows = found.pop() // count
    return rows, lambda i: walk(batch, lambda array: array[i * rows : (i + 1) * rows])


class ShardSampler(Sampler[list[int]]):
    """A batch_sampler: this rank's rows of global batches that are the same for any number of ranks.

    batch_size: of the whole, a multiple of `shards`. The order follows from (seed, epoch) alone. The last batch
    is left out with drop_last; otherwise it is filled up to a multiple of shards by starting over.
    num_replicas, rank: by default those that the launcher of this process tells.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        shards: int,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            from ..launch.environment import detect

            place = detect()
            num_replicas = place.world_size if num_replicas is None else num_replicas
            rank = place.rank if rank is None else rank
        if shards < 1 or batch_size < 1 or batch_size % shards:
            raise ValueError(
                f"[ShardSampler] batch_size must be a multiple of shards, got {batch_size} and {shards}"
            )
        if not 0 <= rank < num_replicas <= shards:
            raise ValueError(
                "[ShardSampler] rank must be below num_replicas, and that at most shards, "
                f"got rank={rank}, num_replicas={num_replicas}, shards={shards}"
            )
        self.dataset, self.batch_size, self.shards = dataset, batch_size, shards
        self.first, self.last = bounds(shards, num_replicas)[rank : rank + 2]
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0

    def __iter__(self) -> Iterator[list[int]]:
        count = len(self.dataset)
        order = np.arange(count)
        if self.shuffle:
            order = Generator().manual_seed(self.seed + self.epoch).randperm(count)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = order[start : start + self.batch_size]
            missing = -len(batch) % self.shards
            batch = np.concatenate([batch, np.resize(order, missing)])
            rows = len(batch) // self.shards
            yield batch[self.first * rows : self.last * rows].tolist()

    def __len__(self) -> int:
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is for: with `shuffle`, each has its own order."""
        self.epoch = epoch


class KeyedDataset:
    """`dataset` whose items draw random numbers (augmentation) by (seed, epoch, index), whichever rank reads them."""

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        with KeyedRandom(self.seed, self.epoch, index):
            return self.dataset[index]

    def set_epoch(self, epoch: int) -> None:
        """The epoch that items are read for from now on."""
        self.epoch = epoch
