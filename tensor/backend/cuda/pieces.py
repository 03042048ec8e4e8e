"""Many tensors in one launch: a table of pieces, each an address or two, a place in flat state, and a length.

The table's layout is made once for a set of tensors; a step fills in today's addresses and copies the table only when
one has changed. In a captured graph the addresses are fixed, so there it is copied once, beside the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import graph, transfer
from .kernel import THREADS, launch, suffix
from .runtime import load

PIECE = 1 << 16  # elements a block of threads works through


class Table:
    """The pieces of tensors of these sizes, whose state begins at `starts`."""

    def __init__(self, sizes: list[int], starts: list[int], itemsize: int) -> None:
        cuts = [(i, at, min(PIECE, n - at)) for i, n in enumerate(sizes) for at in range(0, n, PIECE)]
        which, at, length = np.array(cuts, np.int64).reshape(-1, 3).T
        self.which, self.offset = which, at * itemsize
        self.rows = np.zeros((len(cuts), 4), np.int64)
        self.rows[:, 2] = np.array(starts, np.int64)[which] + at
        self.rows[:, 3] = length
        self.count = len(cuts)
        self._there: Any = None

    def on_device(self, params: list[int] | None, grads: list[int]) -> Any:
        """The table in device memory with today's addresses."""
        rows = self.rows.copy()
        if params is not None:
            rows[:, 0] = np.array(params, np.int64)[self.which] + self.offset
        rows[:, 1] = np.array(grads, np.int64)[self.which] + self.offset
        if self._there is None or not np.array_equal(rows, self.rows) or graph.is_capturing():
            self.rows = rows
            there = upload(rows)
            if graph.is_capturing():  # the graph's own, which no later step may overwrite
                return there
            self._there = there
        return self._there


def upload(rows: np.ndarray[Any, Any]) -> Any:
    """A host array in device memory; while a graph is captured, copied beside it and kept as long as it."""
    cp = load()
    index = int(cp.cuda.runtime.getDevice())
    if graph.is_capturing():
        return graph.constant(rows)
    return transfer.to_device(transfer.pin(rows), index, non_blocking=True)


def addresses(arrays: list[Any]) -> list[int]:
    """Where arrays begin."""
    return [int(a.data.ptr) for a in arrays]


class Adam:
    """Adam's coefficients in device memory, moved on there from step to step."""

    def __init__(self, buffers: list[Any], kind: str) -> None:
        cp = load()
        self.buffers, self.kind = buffers, kind
        self.hyper, self.step, self.c = cp.zeros(8, "float64"), cp.zeros(1, "float64"), cp.zeros(8, "float32")
        self._hyper: Any = None
        self._step = -1.0

    def settle(self, hyper: list[float], done: float) -> None:
        """Sees that the device has these hyperparameters and this number of steps done."""
        if graph.is_capturing() and (self._hyper != hyper or self._step != done):
            raise RuntimeError(
                "[CUDAGraph] an optimizer must have made a step with the same settings before its step is captured"
            )
        if self._hyper != hyper:
            self.hyper[...] = upload(np.array(hyper, np.float64))
            self._hyper = list(hyper)
        if self._step != done:
            self.step[...] = done
            self._step = done

    def run(self, table: Table, params: list[int], grads: list[int], scale: Any = None) -> None:
        """One step; `scale` in device memory multiplies the gradients."""
        launch("optimizer.cu", "adam_coefficients", 1, 32, self.hyper, self.step, self.c)
        self._step += 1
        m, v, *most = self.buffers
        args = (table.on_device(params, grads), m, v, most[0] if most else None, self.c, scale)
        launch("optimizer.cu", f"adam_{self.kind}", table.count, THREADS, *args)


def sgd(
    table: Table, kind: str, params: list[int], grads: list[int], momentum: Any, c: Any, scale: Any = None
) -> None:
    """One step of gradient descent; c: lr, momentum, 1 - dampening, decay, nesterov, sign, in device memory."""
    args = (table.on_device(params, grads), momentum, c, scale)
    launch("optimizer.cu", f"sgd_{kind}", table.count, THREADS, *args)


def clip(arrays: list[Any], most: float) -> Any:
    """Scales arrays of one dtype in place so that their common 2-norm is at most `most`; the norm before, float32.

    Nothing is read by the host. `most` inf only measures.
    """
    cp = load()
    kind = suffix(*arrays)
    assert kind is not None, "clip takes float32, float16 and bfloat16 arrays of one dtype"
    table = Table([a.size for a in arrays], [0] * len(arrays), arrays[0].itemsize)
    there = table.on_device(None, addresses(arrays))
    squares = cp.empty(table.count, "float32")
    norm, scale = cp.empty((), "float32"), cp.empty((), "float32")
    launch("optimizer.cu", f"norm_squares_{kind}", table.count, THREADS, there, squares)
    launch("optimizer.cu", "norm_finish", 1, 1024, squares, table.count, float(most), norm, scale)
    if most != float("inf"):
        launch("optimizer.cu", f"scale_{kind}", table.count, THREADS, there, scale)
    return norm
