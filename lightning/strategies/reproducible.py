"""The same bits for any number of workers: batches in shards, whose gradients a fixed tree adds up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ...data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset, TensorDataset
from .strategy import DDPStrategy, shared_seed, with_batches

SHARDS = 24  # divides evenly over 1, 2, 3, 4, 6, 8, 12 and 24 workers


class ReproducibleStrategy(DDPStrategy):
    """Weights, optimizer state and logged values have the same bits on any number of workers (docs/reproducible.md).

    A loader's batch_size is that of all workers together. It is cut into `shards`: default the largest
    divisor that it shares with 24. training_step is called once for each shard of this worker.
    """

    def __init__(self, shards: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if shards is not None and (not isinstance(shards, int) or isinstance(shards, bool) or shards < 1):
            raise ValueError(f"[Trainer] reproducible must be a number of shards, as 24, came {shards!r}")
        self.shards = shards
        self.exact = True

    def _join(self) -> None:
        super()._join()
        if self.group is None:  # one worker adds up by the same tree
            self._init_group()

    def _setup_gradients(self, module: Any) -> None:
        if not module.automatic_optimization:
            raise ValueError(
                "[Trainer] the strategy reproducible runs training_step shard by shard, which needs automatic "
                "optimization"
            )
        self._options["reproducible"] = self.shards or SHARDS
        super()._setup_gradients(module)

    def parameters_changed(self, module: Any) -> None:
        raise RuntimeError(
            "[Trainer] under the strategy reproducible the same parameters are trained all along"
        )

    def parts(self, batch: Any, number: int) -> Iterator[Any]:
        return self.ddp.shards(batch, step=number)

    def mean_of_parts(self, losses: list[Any]) -> Any:
        return self.ddp.shard_mean(losses)

    def share_out(self, loader: Any, training: bool) -> Any:
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            raise ValueError(
                "[Trainer] the strategy reproducible shares out a DataLoader over a dataset with a length, came "
                f"{loader!r:.60}"
            )
        if type(loader.sampler) not in (RandomSampler, SequentialSampler) or loader.batch_size is None:
            raise ValueError(
                "[Trainer] the strategy reproducible gives batches an order of its own, came a loader with its own "
                f"sampler or batches ({type(loader.sampler).__name__}): pass batch_size and shuffle"
            )
        if not training:
            return with_batches(loader, EvaluationBatches(loader, self.world_size, self.rank))
        from ...distributed.reproducible import ShardSampler

        shuffle = isinstance(loader.sampler, RandomSampler)
        seed = self.broadcast_object(shared_seed() if shuffle else 0)
        shards = self.shards = self.shards or math.gcd(loader.batch_size, SHARDS)
        if loader.batch_size % shards or shards < self.world_size:
            raise ValueError(
                f"[Trainer] the strategy reproducible cuts a batch into {shards} equal shards, at least one for each "
                f"of {self.world_size} workers, came batch_size={loader.batch_size} (of all workers): take a multiple "
                "of 24, or Trainer(reproducible=SHARDS)"
            )
        sampler = ShardSampler(
            loader.dataset,
            loader.batch_size,
            shards,
            self.world_size,
            self.rank,
            shuffle,
            seed,
            loader.drop_last,
        )
        return with_batches(loader, sampler, keyed(loader.dataset, seed))


class EvaluationBatches:
    """Every world_size-th batch from rank on, of those that one worker would have: products keep their shapes."""

    def __init__(self, loader: Any, world_size: int, rank: int) -> None:
        count, self.size, self.drop_last = len(loader.dataset), loader.batch_size, loader.drop_last
        stop = count - count % self.size if self.drop_last else count
        self.count, self.starts = count, range(0, stop, self.size)[rank::world_size]

    def __iter__(self) -> Iterator[list[int]]:
        for start in self.starts:
            yield list(range(start, min(start + self.size, self.count)))

    def __len__(self) -> int:
        return len(self.starts)


def keyed(dataset: Any, seed: int) -> Any:
    """The dataset, whose samples draw random numbers by their index, whoever reads them; tensors draw none."""
    from ...distributed.reproducible import KeyedDataset

    inner = dataset
    while isinstance(inner, Subset):
        inner = inner.dataset
    return dataset if isinstance(inner, TensorDataset | KeyedDataset) else KeyedDataset(dataset, seed)
