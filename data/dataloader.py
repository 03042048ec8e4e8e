"""DataLoader: a dataset, an order and a way to make batches, in this process or in others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any, Generic, TypeVar

from .collate import default_collate, default_convert
from .dataset import IterableDataset
from .iteration import LocalIterator
from .sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from .worker import WorkerInfo, get_worker_info

T = TypeVar("T", covariant=True)


class _Forever(Sampler[None]):
    """What a stream gets for indices: it decides itself what comes and when it ends."""

    def __iter__(self) -> Iterator[None]:
        return repeat(None)


class DataLoader(Generic[T]):
    """Batches of a dataset; each `iter()` is one epoch. Arguments and orders are PyTorch's.

    batch_size: samples a batch, None for single samples as they are. shuffle: a new random order each epoch, from
    `generator` or the global one. sampler / batch_sampler: the order, or the batches, instead. drop_last: leave out a
    last batch that is short. collate_fn: makes a batch of a list of samples. num_workers: processes that make batches
    ahead, `prefetch_factor` each (default 2); 0 makes them here. worker_init_fn(worker id) runs in each first.
    timeout: seconds to wait for a batch before RuntimeError, 0 for ever. persistent_workers: keep the processes
    between epochs. in_order=False: batches as they are ready. multiprocessing_context: default "fork", under which
    datasets need not be picklable. pin_memory: calls `pin_memory()` of the batch's tensors.

    A worker that dies is a RuntimeError that names it and its batch; an exception in one is raised here with its
    traceback. Sources of random numbers of worker i are seeded from one draw plus i, as in PyTorch.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, prefetch_factor, persistent_workers, timeout)
        _check_order(
            isinstance(dataset, IterableDataset), batch_size, shuffle, sampler, batch_sampler, drop_last
        )
        self.dataset = dataset
        self.num_workers, self.timeout, self.worker_init_fn = num_workers, timeout, worker_init_fn
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory, self.pin_memory_device = pin_memory, pin_memory_device
        self.persistent_workers, self.in_order = persistent_workers, in_order
        self.multiprocessing_context = _context(multiprocessing_context, num_workers)
        self.generator, self.drop_last = generator, drop_last
        if sampler is None:
            if isinstance(dataset, IterableDataset):
                sampler = _Forever()
            else:
                sampler = (
                    RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
                )
        if batch_sampler is not None:
            batch_size = None
        elif batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.sampler, self.batch_sampler = batch_size, sampler, batch_sampler
        self.collate_fn = collate_fn or (default_convert if batch_sampler is None else default_collate)
        self.promised: int | None = None  # what a stream's __len__ said when it was asked
        self._iterator: Any = None
        self._settled = True

    def __setattr__(self, name: str, value: Any) -> None:
        fixed = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")
        if name in fixed and "_settled" in self.__dict__:
            raise ValueError(
                f"[DataLoader] {name} attribute should not be set after DataLoader is initialized: make another one"
            )
        super().__setattr__(name, value)

    @property
    def index_sampler(self) -> Iterable[Any]:
        """What each item of an epoch is made of: lists of indices, or single ones without batches."""
        found = self.sampler if self.batch_sampler is None else self.batch_sampler
        assert found is not None
        return found

    def __iter__(self) -> Any:
        if self.num_workers == 0:
            return LocalIterator(self)
        from .processes import ProcessIterator

        if not self.persistent_workers:
            return ProcessIterator(self)
        if self._iterator is None or not self._iterator.usable:
            self._iterator = ProcessIterator(self)
        else:
            self._iterator.restart()
        return self._iterator

    def __len__(self) -> int:
        if not isinstance(self.dataset, IterableDataset):
            return len(self.index_sampler)  # type: ignore[arg-type]
        count = self.promised = len(self.dataset)  # type: ignore[arg-type]
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


def _sampler(dataset: Any, shuffle: bool | None, generator: Any) -> Sampler[Any]:
    if isinstance(dataset, IterableDataset):
        return _Forever()
    return RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)


def _check_workers(
    num_workers: int, prefetch_factor: int | None, persistent_workers: bool, timeout: float
) -> None:
    if num_workers < 0:
        raise ValueError(f"[DataLoader] num_workers option should be non-negative, came {num_workers}")
    if timeout < 0:
        raise ValueError(f"[DataLoader] timeout option should be non-negative, came {timeout}")
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError(f"[DataLoader] prefetch_factor option should be positive, came {prefetch_factor}")
    if num_workers == 0:
        for name, value in (
            ("prefetch_factor", prefetch_factor),
            ("persistent_workers", persistent_workers),
            ("timeout", timeout),
        ):
            if value:
                raise ValueError(
                    f"[DataLoader] {name} option needs num_workers > 0, came {name}={value} without"
                )


def _check_order(
    stream: bool, batch_size: int | None, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    if stream:
        for name, value in (
            ("shuffle", shuffle or None),
            ("sampler", sampler),
            ("batch_sampler", batch_sampler),
        ):
            if value is not None:
                raise ValueError(
                    f"[DataLoader] DataLoader with IterableDataset: expected unspecified {name} option, "
                    f"but got {name}={value}: a stream has its own order"
                )
    if sampler is not None and shuffle:
        raise ValueError("[DataLoader] sampler option is mutually exclusive with shuffle, came both")
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ValueError(
            "[DataLoader] batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and "
            f"drop_last, came batch_size={batch_size}, shuffle={shuffle}, sampler={sampler}, drop_last={drop_last}"
        )
    if batch_size is None and batch_sampler is None and drop_last:
        raise ValueError(
            "[DataLoader] batch_size=None option disables auto-batching and is mutually exclusive with drop_last"
        )


def _context(context: Any, num_workers: int) -> Any:
    if context is None:
        return None
    if num_workers == 0:
        raise ValueError(
            "[DataLoader] multiprocessing_context can only be used with multi-process loading (num_workers > 0)"
        )
    import multiprocessing
    from multiprocessing.context import BaseContext

    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise ValueError(
                f"[DataLoader] multiprocessing_context option should specify a valid start method in {methods}, "
                f"but got multiprocessing_context={context!r}"
            )
        return multiprocessing.get_context(context)
    if not isinstance(context, BaseContext):
        raise TypeError(
            "[DataLoader] multiprocessing_context option should be a valid context object or a string specifying "
            f"the start method, but got {context!r}"
        )
    return context


__all__ = ["DataLoader", "WorkerInfo", "default_collate", "default_convert", "get_worker_info"]
