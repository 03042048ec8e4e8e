"""Copies of a state's tensors, from which a thread writes while training goes on.

What only an optimizer's step changes need not be copied before the next forward and backward, which read it too: the
thread copies it beside them, and `copied()` before the step waits for the rest. Everything else is copied at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...tensor.serialization import CheckpointError
from ...tensor.serialization.leaves import Leaf

LATER = 1 << 16  # bytes; less is copied sooner than handed over
PIECE = 8 << 20  # bytes copied at a time, so that two threads can share one large tensor
GRACE = 2.0  # s for which the thread waits to hear `copied()` from a caller who may have forgotten it


class Snapshot:
    """Copies of `leaves`, in `self.leaves`. The thread calls `finish`, whoever goes on training `copied`."""

    def __init__(
        self, leaves: Iterable[Leaf], memory: dict[str, np.ndarray], steady: Iterable[Any] = ()
    ) -> None:
        """memory: arrays of earlier saves by path, used again: new memory takes several times as long.

        steady: tensors that nobody writes until `copied()`; also optimizers, for their parameters and states.
        """
        known = {_place(t.array): t for t in tensors(steady) if type(t.array) is np.ndarray}
        self._pieces: deque[tuple[np.ndarray, np.ndarray]] = deque()
        self._counters: list[tuple[str, Any, int]] = []
        self.leaves: list[Leaf] = []
        for leaf in leaves:
            copy = _room(leaf, memory)
            self.leaves.append(leaf._replace(array=copy))
            tensor = known.get(_place(leaf.array)) if leaf.array.nbytes >= LATER else None
            if tensor is None:
                np.copyto(copy, leaf.array)
            else:
                self._counters.append((leaf.path, tensor._version, tensor._version[0]))
                self._pieces.extend(_pieces(copy, leaf.array))
        self._left, self._lock = len(self._pieces), threading.Lock()
        self._whole, self._checked = threading.Event(), threading.Event()
        self._torn = ""
        if not self._left:
            self._whole.set()
            self._checked.set()

    def copied(self) -> None:
        """Returns once nothing reads the state any more: it may be written again. Helps with the copying."""
        if not self._checked.is_set():
            self._copy()
            self._check()

    def finish(self) -> None:
        """The thread's part. CheckpointError where a tensor was written meanwhile: its copy may be torn."""
        self._copy()
        if not self._checked.wait(GRACE):
            self._check()
        if self._torn:
            raise CheckpointError(
                f"[checkpoint] {self._torn} must not be written while it is copied, and was: call copied() before "
                "whatever writes it, or leave it out of `steady`"
            )

    def _copy(self) -> None:
        while True:
            try:
                copy, array = self._pieces.popleft()
            except IndexError:
                break
            np.copyto(copy, array)
            with self._lock:
                self._left -= 1
                if not self._left:
                    self._whole.set()
        self._whole.wait()

    def _check(self) -> None:
        self._torn = next((path for path, counter, before in self._counters if counter[0] != before), "")
        self._checked.set()


def tensors(steady: Iterable[Any]) -> Iterable[Any]:
    """The tensors, and those of the optimizers, in `steady`."""
    for each in steady:
        if not hasattr(each, "param_groups"):
            yield each
            continue
        for group in each.param_groups:
            yield from group["params"]
        for state in each.state.values():
            yield from (value for value in state.values() if hasattr(value, "array"))


def _place(array: np.ndarray) -> tuple[int, Sequence[int], Any]:
    return array.__array_interface__["data"][0], array.shape, array.dtype


def _room(leaf: Leaf, memory: dict[str, np.ndarray]) -> np.ndarray:
    copy = memory.get(leaf.path)
    if copy is None or copy.shape != leaf.array.shape or copy.dtype != leaf.array.dtype:
        copy = memory[leaf.path] = np.empty_like(leaf.array, order="C")
    return copy


def _pieces(copy: np.ndarray, array: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    if not array.flags.c_contiguous:
        return [(copy, array)]
    to, source, step = copy.reshape(-1), array.reshape(-1), PIECE // array.itemsize
    return [(to[i : i + step], source[i : i + step]) for i in range(0, source.size, step)]
