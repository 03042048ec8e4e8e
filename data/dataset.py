"""Where samples come from: datasets read by index, datasets that are streams, and ways to put them together.

The classes and what they do are PyTorch's `torch.utils.data.dataset`.
"""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..autograd.engine import wrap
from ..tensor import generator as _g

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """Samples read by index: a subclass has `__getitem__` and, for most samplers, `__len__`.

    A `__getitems__(indices)` that returns a list of samples, where there is one, is called once a batch. A
    `collated(indices)`, which ringgrad adds, gives at once what `default_collate` would make of these samples,
    or None where it cannot.
    """

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(
            f"[Dataset] {type(self).__name__} must define __getitem__, which it does not"
        )

    def __add__(self, other: Any) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Samples that come one after another: a subclass has `__iter__`.

    With worker processes each of them iterates over a copy: divide the stream by `get_worker_info()`.
    """

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"[Dataset] {type(self).__name__} must define __iter__, which it does not")

    def __add__(self, other: Any) -> ChainDataset:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Sample i is row i of each tensor: tensors of shapes [n, ...] with the same n."""

    def __init__(self, *tensors: Any) -> None:
        lengths = [len(t) for t in tensors]
        if len(set(lengths)) > 1:
            raise AssertionError(
                f"[TensorDataset] Size mismatch between tensors: all must have as many rows, came {lengths}"
            )
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple([t[index] for t in self.tensors])

    def collated(self, indices: Sequence[int]) -> list[Any] | None:
        """The rows of each tensor as new tensors: one copy a tensor, however many rows."""
        if any(type(getattr(t, "array", None)) is not np.ndarray or t.requires_grad for t in self.tensors):
            return None
        rows = np.asarray(indices)
        return [wrap(t.array.take(rows, 0)) for t in self.tensors]

    def __len__(self) -> int:
        return len(self.tensors[0])


class StackDataset(Dataset[Any]):
    """Sample i holds sample i of each dataset: a tuple of them, or a dict if they were given by name."""

    datasets: tuple[Any, ...] | dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise ValueError(
                "[StackDataset] At least one dataset should be passed, all in order or all by name, "
                f"came {len(args)} in order and {len(kwargs)} by name"
            )
        lengths = [len(d) for d in (*args, *kwargs.values())]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"[StackDataset] Size mismatch between datasets: lengths must be equal, came {lengths}"
            )
        self.datasets = args or kwargs
        self._length = lengths[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: d[index] for name, d in self.datasets.items()}
        return tuple([d[index] for d in self.datasets])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples by their indices, through the `__getitems__` of those datasets that have it."""
        if isinstance(self.datasets, dict):
            columns = [samples(d, indices) for d in self.datasets.values()]
            return [dict(zip(self.datasets, row)) for row in zip(*columns)]
        return list(zip(*[samples(d, indices) for d in self.datasets]))

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[T]):
    """The samples of several datasets, one dataset after the other."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("[ConcatDataset] datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise AssertionError(
                "[ConcatDataset] ConcatDataset does not support IterableDataset: use ChainDataset"
            )
        self.cumulative_sizes = self.cumsum(self.datasets)

    @staticmethod
    def cumsum(sequence: Iterable[Any]) -> list[int]:
        """The lengths of the datasets, summed up to and with each."""
        return list(itertools.accumulate(len(d) for d in sequence))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        if index < 0:
            if -index > len(self):
                raise ValueError(
                    "[ConcatDataset] absolute value of index should not exceed dataset length, "
                    f"came {index} with {len(self)} samples"
                )
            index += len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - before]


class ChainDataset(IterableDataset[Any]):
    """Streams one after another."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = datasets

    def _streams(self) -> Iterator[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise AssertionError(
                    f"[ChainDataset] ChainDataset only supports IterableDataset, came {type(dataset).__name__}"
                )
            yield dataset

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self._streams())

    def __len__(self) -> int:
        return sum([len(d) for d in self._streams()])


class Subset(Dataset[T]):
    """The samples of `dataset` that `indices` names, in that order."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples by their indices. A subclass with its own `__getitem__` must have its own of this."""
        if type(self).__getitem__ is not Subset.__getitem__:
            raise NotImplementedError(
                f"[Subset] {type(self).__name__} overrides __getitem__ but not __getitems__: it must override "
                "both, or a DataLoader would pass by the first"
            )
        return samples(self.dataset, [self.indices[i] for i in indices])

    def collated(self, indices: Sequence[int]) -> Any:
        """The batch of these samples at once, if the dataset below can give it."""
        whole = collated_of(self.dataset)
        return None if whole is None else whole([self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


def samples(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """The samples at these indices, by one call if the dataset has `__getitems__`."""
    many = getattr(dataset, "__getitems__", None)
    if not many:
        return [dataset[i] for i in indices]
    found = many(indices)
    if len(found) != len(indices):
        raise ValueError(
            f"[{type(dataset).__name__}] __getitems__ must return a sample for each index: "
            f"output size mismatch. Expected {len(indices)}, got {len(found)}"
        )
    return found


def collated_of(dataset: Any) -> Callable[[Sequence[Any]], Any] | None:
    """The dataset's `collated`, unless a subclass has changed what a sample is."""
    for cls in type(dataset).__mro__:
        if "collated" in vars(cls):
            return dataset.collated
        if "__getitem__" in vars(cls) or "__getitems__" in vars(cls):
            return None
    return None


def random_split(dataset: Any, lengths: Sequence[float], generator: Any = None) -> list[Subset]:
    """Shares the samples out at random to subsets that do not overlap.

    lengths: numbers of samples that add up to len(dataset), or fractions that add up to 1; what rounding
    down leaves over then goes to the first subsets, one sample each. generator: default the global one.
    """
    sizes = _sizes(len(dataset), lengths)
    if sum(sizes) != len(dataset):
        raise ValueError(
            "[random_split] Sum of input lengths does not equal the length of the input dataset! "
            f"They came as {sizes} for {len(dataset)} samples"
        )
    if generator is None:
        generator = _g.default_generator
    order = generator.randperm(sum(sizes)).tolist()
    ends = itertools.accumulate(sizes)
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, ends)]


def _sizes(total: int, lengths: Sequence[float]) -> list[Any]:
    if not (math.isclose(sum(lengths), 1) and sum(lengths) <= 1):
        return list(lengths)
    for i, fraction in enumerate(lengths):
        if not 0 <= fraction <= 1:
            raise ValueError(f"[random_split] Fraction at index {i} is not between 0 and 1, came {fraction}")
    sizes = [math.floor(total * fraction) for fraction in lengths]
    for i in range(total - sum(sizes)):
        sizes[i % len(sizes)] += 1
    for i, size in enumerate(sizes):
        if size == 0:
            warnings.warn(
                f"[random_split] Length of split at index {i} is 0. This might result in an empty dataset.",
                stacklevel=3,
            )
    return sizes
