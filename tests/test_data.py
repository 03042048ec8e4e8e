"""Datasets and samplers. Orders marked as recorded were given by PyTorch 2.13."""

from __future__ import annotations

from typing import Any

import pytest

import ringgrad as rg
from ringgrad.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)
from ringgrad.launch.environment import Environment


class Count(IterableDataset):
    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __iter__(self) -> Any:
        return iter(range(self.start, self.end))

    def __len__(self) -> int:
        return self.end - self.start


class Many(Dataset):
    """Records the calls that ask for many samples."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> str:
        return f"one {i}"

    def __getitems__(self, indices: list[int]) -> list[str]:
        self.asked.append(indices)
        return [f"many {i}" for i in indices]


# ---- datasets


def test_tensor_datasets_give_rows() -> None:
    data = TensorDataset(rg.arange(6).reshape(3, 2), rg.tensor([1.0, 2.0, 3.0]))
    x, y = data[1]
    assert len(data) == 3 and x.tolist() == [2, 3] and y.item() == 2.0
    with pytest.raises(AssertionError, match=r"Size mismatch between tensors.*came \[2, 3\]"):
        TensorDataset(rg.ones(2), rg.ones(3))


def test_concatenation_counts_through() -> None:
    data = Dataset.__add__([1, 2], ConcatDataset([[3], [], [4, 5]]))  # type: ignore[arg-type]
    assert isinstance(data, ConcatDataset) and [data[i] for i in range(5)] == [1, 2, 3, 4, 5]
    assert (data[-1], data[-5], data.cumulative_sizes) == (5, 1, [2, 5])
    with pytest.raises(ValueError, match="came -6 with 5 samples"):
        data[-6]
    with pytest.raises(IndexError):
        data[5]
    with pytest.raises(AssertionError, match="use ChainDataset"):
        ConcatDataset([Count(0, 1)])


def test_chains_of_streams() -> None:
    chain = Count(0, 3) + Count(7, 9)
    assert (
        isinstance(chain, ChainDataset) and list(chain) == [0, 1, 2, 7, 8] == list(chain) and len(chain) == 5
    )
    with pytest.raises(AssertionError, match="only supports IterableDataset, came list"):
        list(ChainDataset([[1]]))


def test_stacks_by_order_and_by_name() -> None:
    many = Many()
    ordered, named = StackDataset([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], many), StackDataset(a=many, b="abcdefghij")
    assert ordered[2] == (2, "one 2") and named[1] == {"a": "one 1", "b": "b"}
    assert ordered.__getitems__([3, 1]) == [(3, "many 3"), (1, "many 1")]
    assert named.__getitems__([0]) == [{"a": "many 0", "b": "a"}] and len(named) == 10


def test_a_call_for_many_must_give_all_of_them() -> None:
    class Short(Many):
        def __getitems__(self, indices: list[int]) -> list[str]:
            return ["x"]

    with pytest.raises(ValueError, match=r"output size mismatch\. Expected 2, got 1"):
        StackDataset(Short()).__getitems__([0, 1])


def test_subsets_pass_on_the_call_for_many() -> None:
    data = Many()
    part = Subset(Subset(data, [9, 8, 7, 6]), [3, 1])
    assert part[0] == "one 6" and part.__getitems__([1, 0]) == ["many 8", "many 6"] and data.asked == [[8, 6]]
    rows = Subset(TensorDataset(rg.arange(10)), [4, 5, 6])
    assert rows[[0, 2]][0].tolist() == [4, 6]


def test_a_subset_that_changes_samples_must_change_both_ways() -> None:
    class Doubled(Subset):
        def __getitem__(self, i: int) -> int:
            return 2 * super().__getitem__(i)

    with pytest.raises(NotImplementedError, match="Doubled overrides __getitem__ but not __getitems__"):
        Doubled([1, 2], [0]).__getitems__([0])


def test_random_splits_as_recorded() -> None:
    def split(count: int) -> list[list[int]]:
        parts = random_split(range(count), [0.5, 0.3, 0.2], rg.Generator().manual_seed(42))
        return [list(part.indices) for part in parts]

    assert split(10) == [[2, 6, 1, 8, 4], [5, 0, 9], [3, 7]]
    assert split(11) == [[6, 8, 9, 2, 1, 10], [0, 7, 3], [5, 4]]


def test_random_splits_by_lengths_and_their_errors() -> None:
    parts = random_split("abcdefg", [3, 4])
    assert sorted(letter for part in parts for letter in part) == list("abcdefg")
    with pytest.raises(ValueError, match=r"does not equal .* \[3, 3\] for 7 samples"):
        random_split("abcdefg", [3, 3])
    with pytest.raises(ValueError, match=r"Fraction at index 0 is not between 0 and 1, came 1\.5"):
        random_split("abcdefg", [1.5, -0.5])
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        random_split("abc", [0.9, 0.1])


def test_what_a_subclass_must_define() -> None:
    with pytest.raises(NotImplementedError, match="Dataset must define __getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError, match="IterableDataset must define __iter__"):
        iter(IterableDataset())


# ---- samplers


def test_samplers_as_recorded() -> None:
    rg.manual_seed(0)
    eight = range(8)
    assert list(RandomSampler(eight)) == [2, 5, 4, 6, 1, 7, 0, 3]
    assert list(RandomSampler(eight, num_samples=11)) == [2, 0, 5, 3, 1, 4, 7, 6, 5, 3, 6]
    assert list(RandomSampler(eight, replacement=True, num_samples=6)) == [7, 5, 1, 1, 5, 6]
    assert list(SubsetRandomSampler([4, 8, 15, 16, 23, 42])) == [8, 23, 16, 15, 42, 4]
    assert list(WeightedRandomSampler([1.0, 2.0, 3.0, 0.0], 6)) == [1, 1, 0, 1, 1, 1]
    assert list(WeightedRandomSampler([1.0, 2.0, 3.0], 3, replacement=False)) == [2, 1, 0]


def test_distributed_samplers_as_recorded() -> None:
    def shares(epoch: int, **options: Any) -> list[list[int]]:
        samplers = [DistributedSampler(range(10), 4, rank, seed=3, **options) for rank in range(4)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        return [list(sampler) for sampler in samplers]

    assert shares(0) == [[6, 8, 2], [0, 5, 4], [3, 1, 6], [7, 9, 0]]
    assert shares(2, drop_last=True) == [[1, 3], [4, 5], [9, 0], [6, 2]]
    assert shares(0, shuffle=False) == [[0, 4, 8], [1, 5, 9], [2, 6, 0], [3, 7, 1]]
    assert shares(1) != shares(0)


@pytest.mark.parametrize("count, replicas", [(1, 7), (2, 5), (12, 4), (13, 4), (3, 3)])
def test_distributed_samplers_share_out_everything(count: int, replicas: int) -> None:
    shares = [list(DistributedSampler(range(count), replicas, rank)) for rank in range(replicas)]
    assert {len(share) for share in shares} == {-(-count // replicas)}
    assert {i for share in shares for i in share} == set(range(count))


def test_the_launcher_tells_rank_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Environment(rank=1, world_size=3, local_rank=1, local_world_size=3, launcher="ringrun")
    for name, value in place.variables().items():
        monkeypatch.setenv(name, value)
    assert list(DistributedSampler(range(6), shuffle=False)) == [1, 4]
    assert list(DistributedSampler(range(6), rank=2, shuffle=False)) == [2, 5]
    with pytest.raises(ValueError, match=r"Invalid rank 3, rank should be in the interval \[0, 2\]"):
        DistributedSampler(range(6), rank=3)


def test_a_dataset_that_changed_its_length_is_told() -> None:
    data = [0, 1, 2]
    sampler = DistributedSampler(data, 2, 0)
    data += [3, 4]
    with pytest.raises(AssertionError, match="came 5 samples"):
        iter(sampler)


def test_batch_samplers() -> None:
    assert list(BatchSampler(SequentialSampler("abcde"), 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(BatchSampler(iter("abcde"), 2, True)) == [["a", "b"], ["c", "d"]]
    assert [len(BatchSampler(range(5), 2, drop)) for drop in (False, True)] == [3, 2]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: RandomSampler([]), ValueError, "num_samples=0"),
        (lambda: RandomSampler([1], replacement=1), TypeError, "replacement=1"),  # type: ignore[arg-type]
        (lambda: WeightedRandomSampler([[1.0]], 1), ValueError, r"have shape \(1, 1\)"),
        (lambda: WeightedRandomSampler([1.0], -1), ValueError, "num_samples=-1"),
        (lambda: BatchSampler([1], True, False), ValueError, "batch_size=True"),
        (lambda: BatchSampler([1], 1, "no"), ValueError, "drop_last=no"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
