"""From the indices of a batch to the batch, in whichever process that happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .collate import default_collate
from .dataset import IterableDataset, collated_of

Fetch = Callable[[Any], Any]


class StreamEnd(Exception):
    """The dataset's iterator has no more samples; not StopIteration, which a mistake in a dataset may raise."""


def make_fetch(dataset: Any, batched: bool, collate_fn: Callable[[Any], Any], drop_last: bool) -> Fetch:
    """The function that makes a batch of the sampler's next item; it raises StreamEnd when a stream has ended."""
    if isinstance(dataset, IterableDataset):
        return _Stream(dataset, batched, collate_fn, drop_last)
    if not batched:
        return lambda index: collate_fn(dataset[index])
    whole = collated_of(dataset) if collate_fn is default_collate else None
    many = getattr(dataset, "__getitems__", None)

    def fetch(indices: Sequence[Any]) -> Any:
        if whole is not None and (batch := whole(indices)) is not None:
            return batch
        return collate_fn(many(indices) if many else [dataset[i] for i in indices])

    return fetch


class _Stream:
    """Batches off an iterator; the last may be short."""

    def __init__(
        self, dataset: Any, batched: bool, collate_fn: Callable[[Any], Any], drop_last: bool
    ) -> None:
        self.samples: Iterator[Any] = iter(dataset)
        self.batched, self.collate_fn, self.drop_last = batched, collate_fn, drop_last
        self.ended = False

    def __call__(self, indices: Any) -> Any:
        if self.ended:  # an iterator need not say so twice
            raise StreamEnd
        batch: list[Any] = []
        for _ in indices if self.batched else (None,):
            try:
                batch.append(next(self.samples))
            except StopIteration:
                self.ended = True
                break
        if not batch or (self.drop_last and len(batch) < len(indices)):
            raise StreamEnd
        return self.collate_fn(batch if self.batched else batch[0])
