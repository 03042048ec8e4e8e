"""CombinedLoader: several loaders as one, whose batch has a part from each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...tensor import Tensor

MODES = ("min_size", "max_size", "max_size_cycle", "sequential")
_END = object()


class CombinedLoader:
    """Loaders in nested dicts, lists and tuples; a batch has their form, with each loader's batch in its place.

    mode "min_size" ends with the shortest, "max_size" with the longest (then None stands for the others' batches),
    "max_size_cycle" too, but begins the others again; "sequential" gives one loader's batches after another's.
    Iterating yields (batch, batch_idx, dataloader_idx) as Lightning's.
    """

    def __init__(self, iterables: Any, mode: str = "min_size") -> None:
        if mode not in MODES:
            raise ValueError(f"[CombinedLoader] mode must be one of {', '.join(MODES)}, came {mode!r}")
        self.iterables, self.mode = iterables, mode
        self.flattened: list[Any] = []
        mapped(iterables, self.flattened.append)
        if not self.flattened:
            raise ValueError("[CombinedLoader] needs loaders, came none")
        for loader in self.flattened:
            if not hasattr(loader, "__iter__"):
                raise TypeError(f"[CombinedLoader] takes iterables of batches, came {type(loader).__name__}")

    def replaced(self, change: Callable[[Any], Any]) -> CombinedLoader:
        """The same with `change` of each loader in its place."""
        return CombinedLoader(mapped(self.iterables, change), self.mode)

    def __len__(self) -> int:
        """Of batches. TypeError where a loader does not know its length."""
        lengths = [len(loader) for loader in self.flattened]
        if self.mode == "sequential":
            return sum(lengths)
        return min(lengths) if self.mode == "min_size" else max(lengths)

    def __iter__(self) -> Iterator[tuple[Any, int, int]]:
        if self.mode != "sequential":
            for i, batch in enumerate(self.batches()):
                yield batch, i, 0
            return
        for which, loader in enumerate(self.flattened):
            for i, batch in enumerate(loader):
                yield batch, i, which

    def batches(self) -> Iterator[Any]:
        """Batches alone."""
        if self.mode == "sequential":
            for loader in self.flattened:
                yield from loader
            return
        running = [iter(loader) for loader in self.flattened]
        over = [False] * len(running)
        while True:
            parts = [next(one, _END) for one in running]
            ended = [i for i, part in enumerate(parts) if part is _END]
            for i in ended:
                over[i] = True
            if all(over) or (ended and self.mode == "min_size"):
                return
            for i in ended:  # only now: where all end together none begins again
                running[i] = iter(self.flattened[i] if self.mode == "max_size_cycle" else ())
                parts[i] = next(running[i], _END if self.mode == "max_size_cycle" else None)
                if parts[i] is _END:
                    raise ValueError(f"[CombinedLoader] loader {i} has no batches to begin again with")
            yield self._formed(parts)

    def _formed(self, parts: list[Any]) -> Any:
        following = iter(parts)
        return mapped(self.iterables, lambda loader: next(following))


def mapped(loaders: Any, change: Callable[[Any], Any]) -> Any:
    """The same form with `change` of each loader in its place."""
    if isinstance(loaders, dict):
        return {name: mapped(part, change) for name, part in loaders.items()}
    if are_several(loaders):
        return type(loaders)(mapped(part, change) for part in loaders)
    return change(loaders)


def are_several(given: Any) -> bool:
    """Whether a list holds loaders, and not the batches of one."""
    if not isinstance(given, list | tuple) or not given:
        return False
    batches = Tensor | np.ndarray | list | tuple | str | int | float
    return all(
        hasattr(part, "__iter__") and not isinstance(part, batches) and not _is_batch(part) for part in given
    )


def _is_batch(part: Any) -> bool:
    """A dict of tensors is a batch, one of loaders is none."""
    return isinstance(part, dict) and all(isinstance(value, Tensor) for value in part.values())
