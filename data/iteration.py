"""One pass over a DataLoader: what its iterators share, and the one that works in this process."""

from __future__ import annotations

from typing import Any

from .collate import pinned
from .fetch import StreamEnd, make_fetch
from .sampler import draw_seed


class LoaderIterator:
    """Gives batches; `next_batch` of a subclass makes them of `indices`, the sampler's iterator."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.rewind()
        # Drawn even where nothing uses it, and in this order: then the sampler's own seed is PyTorch's too.
        self.base_seed = draw_seed(loader.generator)

    def rewind(self) -> None:
        """Begins another pass."""
        self.indices = iter(self.loader.index_sampler)
        self.given = 0
        self.promised = self.loader.promised

    def next_batch(self) -> Any:
        raise NotImplementedError

    def __iter__(self) -> LoaderIterator:
        return self

    def __len__(self) -> int:
        return len(self.loader.index_sampler)

    def __next__(self) -> Any:
        batch = self.next_batch()
        if self.promised is not None:
            self._check_promise()
        return batch

    def _check_promise(self) -> None:
        """Warns when a stream gives more than its __len__ said, as it does if each worker gives all of it."""
        import warnings

        self.given += 1
        if self.given > self.promised:
            divide = ": divide the stream between the workers by get_worker_info()"
            warnings.warn(
                f"[DataLoader] Length of IterableDataset {type(self.loader.dataset).__name__} was reported to be "
                f"{self.promised}, but {self.given} samples have been fetched"
                f"{divide if self.loader.num_workers else ''}",
                stacklevel=3,
            )

    def __reduce__(self) -> Any:
        raise NotImplementedError("[DataLoader] an iterator cannot be pickled or copied: pass the DataLoader")


class LocalIterator(LoaderIterator):
    """Makes each batch when it is asked for."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self.fetch = make_fetch(
            loader.dataset, loader.batch_sampler is not None, loader.collate_fn, loader.drop_last
        )

    def next_batch(self) -> Any:
        indices = next(self.indices)
        try:
            batch = self.fetch(indices)
        except StreamEnd:
            raise StopIteration from None
        except StopIteration as error:
            # Let through it would end the epoch without a word.
            raise RuntimeError(
                "[DataLoader] the dataset must return a sample and collate_fn a batch, came StopIteration from one of "
                f"them for {indices}"
            ) from error
        return pinned(batch) if self.loader.pin_memory else batch
