"""torch.utils.data and ringgrad.data side by side: orders, splits, seeds, batches, errors."""

from __future__ import annotations

import random
import warnings
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.utils.data as theirs  # noqa: E402

import ringgrad as rg  # noqa: E402
from ringgrad import data as ours  # noqa: E402

pytestmark = [pytest.mark.parity, pytest.mark.timeout(60)]
BOTH = pytest.mark.parametrize("seed", [0, 1, 2**40 + 3])
Point = namedtuple("Point", "x y")


def both(make: Any, seed: int = 0) -> list[Any]:
    """What `make` gives with PyTorch and with ringgrad, each from the same seed."""
    found = []
    for library, data in ((torch, theirs), (rg, ours)):
        library.manual_seed(seed)
        found.append(plain(make(library, data)))
    return found


def plain(value: Any) -> Any:
    """Tensors as lists with their dtype, so that the two libraries' can be compared."""
    if isinstance(value, torch.Tensor | rg.Tensor):
        return (str(value.dtype).split(".")[1], list(value.shape), value.tolist())
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *[plain(v) for v in value]]
    return value


def same(make: Any, seed: int = 0) -> None:
    expected, found = both(make, seed)
    assert found == expected


def fails_alike(make: Any) -> None:
    kinds = []
    for library, data in ((torch, theirs), (rg, ours)):
        with pytest.raises(Exception) as caught:
            make(library, data)
        kinds.append(caught.type)
    assert kinds[0] is kinds[1], kinds


# ---- samplers


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_samples": 5},
        {"num_samples": 23},
        {"num_samples": 30},
        {"replacement": True},
        {"replacement": True, "num_samples": 77},
        {"replacement": True, "num_samples": 64},
    ],
)
def test_random_samplers(seed: int, options: dict[str, Any]) -> None:
    def draw(library: Any, data: Any) -> Any:
        sampler = data.RandomSampler(range(10), **options)
        orders = [list(sampler), list(sampler)]
        own = data.RandomSampler(range(10), generator=library.Generator().manual_seed(seed), **options)
        return orders, list(own), list(own), len(own), library.rand(3)

    same(draw, seed)


@BOTH
def test_subset_and_weighted_samplers(seed: int) -> None:
    def draw(library: Any, data: Any) -> Any:
        own = library.Generator().manual_seed(3)
        weights = [0.1, 0.9, 0.4, 0.7, 3.0, 0.6]
        return (
            list(data.SubsetRandomSampler([4, 8, 15, 16, 23, 42])),
            list(data.SubsetRandomSampler("abcdef", generator=own)),
            list(data.WeightedRandomSampler(weights, 20)),
            list(data.WeightedRandomSampler(library.tensor(weights), 6, replacement=False)),
            list(data.WeightedRandomSampler(weights, 3, replacement=False, generator=own)),
            library.rand(3),
        )

    same(draw, seed)


@pytest.mark.parametrize("count", [1, 2, 7, 10, 12])
@pytest.mark.parametrize("replicas", [1, 3, 5, 25])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_distributed_samplers(count: int, replicas: int, drop_last: bool, shuffle: bool) -> None:
    def draw(library: Any, data: Any) -> Any:
        found = []
        for rank in range(replicas):
            sampler = data.DistributedSampler(
                range(count), replicas, rank, shuffle, seed=7, drop_last=drop_last
            )
            for epoch in (0, 3):
                sampler.set_epoch(epoch)
                found.append([*sampler, len(sampler), sampler.total_size])
        return found

    same(draw)


@pytest.mark.parametrize(
    "size, drop_last", [(1, False), (3, False), (3, True), (5, True), (20, False), (20, True)]
)
def test_batch_samplers(size: int, drop_last: bool) -> None:
    def draw(library: Any, data: Any) -> Any:
        sampler = data.BatchSampler(data.SequentialSampler(range(10)), size, drop_last)
        return list(sampler), len(sampler)

    same(draw)


# ---- datasets


@BOTH
@pytest.mark.parametrize("lengths", [[3, 7], [0.5, 0.5], [0.3, 0.3, 0.4], [0.85, 0.1, 0.05], [1.0], [10, 0]])
def test_random_splits(seed: int, lengths: list[float]) -> None:
    def split(library: Any, data: Any) -> Any:
        own = library.Generator().manual_seed(42)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = data.random_split(range(10), lengths), data.random_split(range(10), lengths, own)
        return [[list(part.indices) for part in each] for each in parts], library.rand(2)

    same(split, seed)


def test_datasets_put_together() -> None:
    def read(library: Any, data: Any) -> Any:
        rows = data.TensorDataset(library.arange(6).reshape(3, 2), library.tensor([1.0, 2.0, 3.0]))
        joined = data.ConcatDataset([rows, data.Subset(rows, [2, 0])])
        stacked = data.StackDataset(image=rows, text=["a", "b", "c"])
        pairs = data.StackDataset(rows, ["a", "b", "c"])
        return (
            [joined[i] for i in (0, 2, 3, 4, -1, -5)],
            (len(joined), joined.cumulative_sizes, len(rows + rows), (rows + rows)[4]),
            [stacked[1], stacked.__getitems__([0, 2]), pairs[2], pairs.__getitems__([1])],
            data.Subset(rows, [2, 1, 0])[[0, 1]],
            data.Subset(rows, [2, 1, 0]).__getitems__([0, 1]),
            rows[1:],
        )

    same(read)


# ---- collating


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2, 3],
        [1.5, 2.5],
        [True, False],
        [np.float32(1), np.float32(2)],
        [np.int16(4)],
        [np.bool_(True), np.bool_(False)],
        ["a", "b"],
        [b"a", b"b"],
        [(1, 2.0, "x"), (3, 4.0, "y")],
        [[1, 2], [3, 4]],
        [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [3, 4]}],
        [Point(1, 2.0), Point(3, 4.0)],
        [np.arange(3), np.arange(3)],
        [np.ones((2, 2), np.float16), np.zeros((2, 2), np.float16)],
        [np.array(1.0), np.array(2.0)],
        [OrderedDict(x=1, y=(2, 3)), OrderedDict(x=4, y=(5, 6))],
        [{"deep": [(np.ones(2), {"k": "v"})]}],
        [range(2), range(2, 4)],
        [(), ()],
        [1, 2.5],
    ],
)
def test_collating(batch: list[Any]) -> None:
    same(lambda library, data: data.default_collate(batch))
    same(lambda library, data: [type(data.default_collate(batch)).__name__])


def test_collating_tensors() -> None:
    def collate(library: Any, data: Any) -> Any:
        rows = [library.arange(3, dtype=library.int32) + i for i in range(4)]
        scalars = [library.tensor(1.0), library.tensor(2.0)]
        mixed = [library.ones(2), library.ones(2, dtype=library.float64)]
        leaf = library.ones(2, requires_grad=True)
        return (
            *[data.default_collate(batch) for batch in (rows, scalars, mixed, [rows[0]])],
            data.default_collate([leaf, leaf]).requires_grad,
        )

    same(collate)


@pytest.mark.parametrize(
    "batch",
    [
        [object()],
        [None, None],
        [{1, 2}],
        [np.array(["a"])],
        [np.array([None])],
        [[1, 2], [1]],
        [np.ones(2), np.ones(3)],
        [{"a": 1}, {"b": 1}],
    ],
)
def test_batches_that_do_not_fit_fail_alike(batch: list[Any]) -> None:
    fails_alike(lambda library, data: data.default_collate(batch))


@pytest.mark.parametrize(
    "sample",
    [np.arange(3), 1, "a", (np.ones(1), 2), [np.ones(1)], {"a": np.ones(1)}, Point(np.ones(1), 1), None],
)
def test_converting(sample: Any) -> None:
    same(lambda library, data: data.default_convert(sample))


# ---- the loader


class Numbers:
    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> int:
        return i * i


@BOTH
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own", [False, True])
def test_two_shuffled_epochs_and_the_numbers_after_them(seed: int, workers: int, own: bool) -> None:
    def run(library: Any, data: Any) -> Any:
        generator = library.Generator().manual_seed(9) if own else None
        loader = data.DataLoader(Numbers(), 3, shuffle=True, num_workers=workers, generator=generator)
        first = next(iter(loader))
        return first, [list(loader) for _ in range(2)], library.rand(2)

    same(run, seed)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4},
        {"batch_size": 4, "drop_last": True},
        {"batch_size": None},
        {"batch_sampler": [[1, 2], [9]]},
        {"sampler": [5, 3, 1], "batch_size": 2},
        {"collate_fn": list, "batch_size": 3},
    ],
)
def test_batches(options: dict[str, Any]) -> None:
    def run(library: Any, data: Any) -> Any:
        loader = data.DataLoader(Numbers(), **options)
        return list(loader), len(loader)

    same(run)


class Draws:
    """The random numbers that a worker's sources give."""

    def __init__(self, library: Any, data: Any) -> None:
        self.library, self.data = library, data

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Any:
        info = self.data.get_worker_info()
        numbers = self.library.rand(2).tolist(), np.random.rand(), random.random()
        return (*numbers, self.library.initial_seed() == info.seed, info.id, info.num_workers, info.seed)


def test_workers_draw_the_same_random_numbers() -> None:
    def run(library: Any, data: Any) -> Any:
        loader = data.DataLoader(Draws(library, data), 2, num_workers=2, collate_fn=list)
        return list(loader), list(loader)

    same(run, seed=11)


def test_streams_of_unequal_workers_take_the_same_turns() -> None:
    def run(library: Any, data: Any) -> Any:
        class Uneven(data.IterableDataset):
            def __iter__(self) -> Any:
                worker = data.get_worker_info().id
                return iter(range(100 * worker, 100 * worker + (3, 11)[worker]))

        return [list(data.DataLoader(Uneven(), size, num_workers=2)) for size in (1, 2, 4, None)]

    same(run)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": -1},
        {"timeout": -1},
        {"prefetch_factor": 2},
        {"num_workers": 1, "prefetch_factor": -1},
        {"persistent_workers": True},
        {"sampler": [1], "shuffle": True},
        {"batch_sampler": [[1]], "batch_size": 2},
        {"batch_sampler": [[1]], "shuffle": True},
        {"batch_sampler": [[1]], "drop_last": True},
        {"batch_size": None, "drop_last": True},
        {"batch_size": 0},
        {"batch_size": -3},
        {"multiprocessing_context": "fork"},
        {"num_workers": 1, "multiprocessing_context": "quick"},
        {"num_workers": 1, "multiprocessing_context": 3},
    ],
)
def test_options_that_fail_alike(options: dict[str, Any]) -> None:
    fails_alike(lambda library, data: data.DataLoader(Numbers(), **options))


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}])
def test_options_of_streams_that_fail_alike(options: dict[str, Any]) -> None:
    fails_alike(lambda library, data: data.DataLoader(data.ChainDataset([]), **options))


@pytest.mark.parametrize(
    "make",
    [
        lambda t, d: d.RandomSampler([]),
        lambda t, d: d.RandomSampler([1], replacement=1),
        lambda t, d: d.RandomSampler([1], num_samples=0),
        lambda t, d: d.WeightedRandomSampler([1.0], 0),
        lambda t, d: d.WeightedRandomSampler([[1.0]], 1),
        lambda t, d: d.WeightedRandomSampler([1.0], 1, replacement=2),
        lambda t, d: list(d.WeightedRandomSampler([1.0, 2.0], 3, replacement=False)),
        lambda t, d: d.BatchSampler([1], True, False),
        lambda t, d: d.BatchSampler([1], 2, 1),
        lambda t, d: d.DistributedSampler([1], 2, 2),
        lambda t, d: d.TensorDataset(t.ones(2), t.ones(3)),
        lambda t, d: d.ConcatDataset([]),
        lambda t, d: d.ConcatDataset([[1]])[-2],
        lambda t, d: d.ConcatDataset([d.ChainDataset([])]),
        lambda t, d: list(d.ChainDataset([[1]])),
        lambda t, d: d.StackDataset(),
        lambda t, d: d.StackDataset([1], a=[1]),
        lambda t, d: d.StackDataset([1], [1, 2]),
        lambda t, d: d.random_split([1, 2], [3]),
        lambda t, d: d.random_split([1, 2], [1.5, -0.5]),
        lambda t, d: d.Dataset()[0],
        lambda t, d: len(d.Dataset()),
        lambda t, d: len(d.Sampler()),
    ],
)
def test_mistakes_that_fail_alike(make: Any) -> None:
    fails_alike(make)


def test_the_modules_carry_pytorchs_names() -> None:
    import importlib

    for module in ("", ".dataset", ".sampler", ".dataloader", ".distributed"):
        there = importlib.import_module(f"torch.utils.data{module}")
        here = importlib.import_module(f"ringgrad.utils.data{module}")
        wanted = {
            name
            for name in vars(ours)
            if isinstance(vars(ours)[name], type) or callable(vars(ours)[name])
            if hasattr(there, name)
        }
        missing = {name for name in wanted if not hasattr(here, name)}
        assert not missing, f"ringgrad.utils.data{module} lacks {missing}"
