"""From what the user gave to batches: loaders, limits, and an iteration that knows its last batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..data import DataLoader, RandomSampler, SequentialSampler
from .hooks import DataHooks, overridden
from .strategies.strategy import with_sampler
from .utilities.combined_loader import CombinedLoader, are_several


def loaders_of(trainer: Any, stage: str, given: Any) -> list[Any]:
    """The loaders of a stage ("train", "val", "test", "predict"), shared out to the workers; [] where there are none.

    given: those passed to fit and the like; else the data module's, else the module's.
    """
    if given is None:
        name = f"{stage}_dataloader"
        for source in (trainer.datamodule, trainer.lightning_module):
            if source is not None and overridden(name, source, DataHooks):
                given = getattr(source, name)()
                break
    if given is None:
        return []
    training = stage == "train"
    if training and (isinstance(given, dict) or are_several(given)):
        given = CombinedLoader(given, "max_size_cycle")
    elif isinstance(given, CombinedLoader) and given.mode == "sequential" and not training:
        given = given.flattened
    several = isinstance(given, list | tuple) and not training
    if several and given and not hasattr(given[0], "__iter__"):
        raise TypeError(f"[{stage}_dataloader] must give a loader or a list of them, came {given!r:.80}")
    loaders = list(given) if several else [given]
    for loader in loaders:
        if not hasattr(loader, "__iter__"):
            raise TypeError(
                f"[{stage}_dataloader] must give an iterable of batches, came {type(loader).__name__}"
            )
    if trainer.overfit_batches:
        loaders = [_each(loader, _in_order) for loader in loaders]
    if trainer.use_distributed_sampler:
        loaders = [_each(loader, lambda one: trainer.strategy.share_out(one, training)) for loader in loaders]
    return loaders


def _each(loader: Any, change: Callable[[Any], Any]) -> Any:
    return loader.replaced(change) if isinstance(loader, CombinedLoader) else change(loader)


def set_epoch(loader: Any, epoch: int) -> None:
    """Tells samplers and datasets, which may have an order for each epoch."""
    for one in loader.flattened if isinstance(loader, CombinedLoader) else [loader]:
        for name in ("sampler", "batch_sampler", "dataset"):
            tell = getattr(getattr(one, name, None), "set_epoch", None)
            if tell is not None:
                tell(epoch)


def _in_order(loader: Any) -> Any:
    if isinstance(loader, DataLoader) and isinstance(loader.sampler, RandomSampler):
        return with_sampler(loader, SequentialSampler(loader.dataset))
    return loader


def count(loader: Any, limit: int | float | None, who: str) -> int | None:
    """How many batches: the loader's, cut to `limit` (a number, or a share as a float). None: nobody knows."""
    try:
        length: int | None = len(loader)
    except (TypeError, NotImplementedError):
        length = None
    if limit is None:
        return length
    if isinstance(limit, bool) or limit < 0 or (isinstance(limit, float) and limit > 1):
        raise ValueError(
            f"[Trainer] {who} must be a number of batches or a share of 0.0 to 1.0, came {limit!r}"
        )
    if isinstance(limit, int):
        return limit if length is None else min(limit, length)
    if length is None:
        if limit not in (0.0, 1.0):
            raise ValueError(
                f"[Trainer] {who}={limit} needs a loader with a length: give a number of batches"
            )
        return None if limit else 0
    taken = int(length * limit)
    if limit and length and not taken:
        raise ValueError(f"[Trainer] {who}={limit} of {length} batches leaves none: use a number of batches")
    return taken


def iterate(
    loader: Any, total: int | None, skip: int = 0, skipped: Callable[[], None] | None = None
) -> Iterator[tuple[int, Any, bool]]:
    """(index, batch, whether it is the last) of `total` batches. The first `skip` are drawn and dropped, then
    `skipped` is called: a run that was resumed goes on where it was.
    """
    if total == 0:
        return
    batches = loader.batches() if isinstance(loader, CombinedLoader) else iter(loader)
    for _ in range(skip):
        if next(batches, _END) is _END:
            break
    if total is not None:
        if skipped is not None:
            skipped()
        for i in range(skip, total):
            batch = next(batches, _END)
            if batch is _END:
                raise RuntimeError(f"[Trainer] the loader said it has {total} batches, came {i}")
            yield i, batch, i == total - 1
        return
    following = next(batches, _END)
    if skipped is not None:
        skipped()
    i = skip
    while following is not _END:
        batch, following = following, next(batches, _END)
        yield i, batch, following is _END
        i += 1


_END = object()
