"""Which samples, in which order. With the same seed the orders are PyTorch's."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from ..autograd.engine import Variable, wrap
from ..tensor import generator as _g
from ..tensor.generator import Generator

T = TypeVar("T", covariant=True)
DRAWN_AT_ONCE = 32  # with replacement PyTorch draws this many indices a call


class Sampler(Generic[T]):
    """Indices of samples, or lists of them: a subclass has `__iter__` and, if it can, `__len__`."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"[Sampler] {type(self).__name__} must define __iter__, which it does not")


class SequentialSampler(Sampler[int]):
    """0, 1, 2 ... to the end."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """Indices at random: every one once, in a new order each time round, or drawn with replacement.

    num_samples: how many (default: as many as there are samples). generator: where numbers come from; by
    default each iteration has one of its own, seeded from the global one.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples
        if not isinstance(replacement, bool):
            raise TypeError(
                f"[RandomSampler] replacement should be a boolean value, but got replacement={replacement}"
            )
        if not isinstance(self.num_samples, int) or self.num_samples <= 0:
            raise ValueError(
                "[RandomSampler] num_samples should be a positive integer value, "
                f"but got num_samples={self.num_samples}"
            )

    @property
    def num_samples(self) -> int:
        """How many indices an iteration gives: those asked for, else as many as there are samples now."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        generator = Generator().manual_seed(draw_seed()) if self.generator is None else self.generator
        n, count = len(self.data_source), self.num_samples
        if self.replacement:
            for start in range(0, count, DRAWN_AT_ONCE):
                yield from generator.randint(0, n, min(DRAWN_AT_ONCE, count - start)).tolist()
            return
        for _ in range(count // n):
            yield from generator.randperm(n).tolist()
        # Drawn even if none of it is needed: PyTorch's generator has moved on by it.
        yield from generator.randperm(n).tolist()[: count % n]

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        generator = self.generator or _g.default_generator
        for i in generator.randperm(len(self.indices)).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices 0 ... len(weights)-1 drawn with these weights, which need not add up to 1."""

    def __init__(
        self,
        weights: Any,
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        _check_count("WeightedRandomSampler", "num_samples", num_samples)
        _check_bool("WeightedRandomSampler", "replacement", replacement)
        array = np.asarray(weights.array if isinstance(weights, Variable) else weights, np.float64)
        if array.ndim != 1:
            raise ValueError(
                "[WeightedRandomSampler] weights should be a 1d sequence but given weights "
                f"have shape {array.shape}"
            )
        self.weights = wrap(array)
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        from ..tensor.generator_sampling import multinomial

        generator = self.generator or _g.default_generator
        yield from multinomial(generator, self.weights.array, self.num_samples, self.replacement).tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices from another sampler; the last may be shorter, or is left out."""

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool) -> None:
        _check_count("BatchSampler", "batch_size", batch_size)
        _check_bool("BatchSampler", "drop_last", drop_last)
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


class DistributedSampler(Sampler[T]):
    """Every `num_replicas`-th sample from `rank` on, so that the workers of a job share out the dataset.

    All workers must pass the same dataset length and seed; `set_epoch` before each epoch gives it an order of
    its own. drop_last: leave out samples at the end until all have as many, instead of repeating the first.
    num_replicas, rank: by default those that the launcher of this process tells.
    """

    def __init__(
        self,
        dataset: Sized,
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
        if not 0 <= rank < num_replicas:
            raise ValueError(
                f"[DistributedSampler] Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]"
            )
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.epoch = 0
        self.num_samples = self._share(len(dataset))
        self.total_size = self.num_samples * num_replicas

    def _share(self, count: int) -> int:
        return count // self.num_replicas if self.drop_last else -(-count // self.num_replicas)

    def __iter__(self) -> Iterator[Any]:
        count = len(self.dataset)
        order = (
            Generator().manual_seed(self.seed + self.epoch).randperm(count)
            if self.shuffle
            else np.arange(count)
        )
        # Padded by starting over as often as it takes; cut where there are more than total_size.
        whole = np.resize(order, self.total_size) if count else order
        if self._share(count) != self.num_samples:
            raise AssertionError(
                f"[DistributedSampler] the dataset must stay as long as it was, came {count} samples where "
                f"{self.num_samples} were to go to each of {self.num_replicas} workers: make a new sampler"
            )
        return iter(whole[self.rank :: self.num_replicas].tolist())

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is for: with `shuffle`, each has its own order."""
        self.epoch = epoch


def draw_seed(generator: Generator | None = None) -> int:
    """A seed drawn as PyTorch draws one: `torch.empty((), dtype=torch.int64).random_(generator=generator)`."""
    return int((generator or _g.default_generator).random((), np.int64))


def _check_count(who: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"[{who}] {name} should be a positive integer value, but got {name}={value}")


def _check_bool(who: str, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"[{who}] {name} should be a boolean value, but got {name}={value}")
