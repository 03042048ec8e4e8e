"""Flat buffers for gradients. Parameters' gradients are views of them, so reducing a bucket moves no
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from .group import Group
from .work import Work

FIRST_BUCKET_BYTES = 1 << 20  # small, so that communication starts early
LARGEST_BROADCAST_BYTES = 32 << 20


class Bucket:
    """A run of parameters of one dtype whose gradients are reduced together.

    homes: for each parameter the Tensor over its part of `flat`, which is its `.grad` whenever it has one.
    """

    def __init__(self, index: int, parameters: Sequence[tuple[str, Any]], group: Group) -> None:
        arrays = [p.array for _, p in parameters]
        self.parameters = list(parameters)
        self.flat = group.empty(sum(a.size for a in arrays), arrays[0].dtype)
        self.homes, at = [], 0
        for array in arrays:
            self.homes.append(wrap(self.flat[at : at + array.size].reshape(array.shape)))
            at += array.size
        first, last = parameters[0][0], parameters[-1][0]
        self.label = f"gradients of bucket {index}: {first}" + (f" .. {last}" if len(parameters) > 1 else "")
        self.waiting: set[int] = set()  # positions whose gradient has yet to come in this backward
        self.work: Work | None = None
        self.reset()

    def reset(self) -> None:
        self.waiting, self.work = set(range(len(self.parameters))), None

    def settle(self, position: int) -> None:
        """Bring a gradient that lies elsewhere (the user assigned one) home."""
        parameter, home = self.parameters[position][1], self.homes[position]
        if parameter._grad is not home:
            home.array[...] = parameter._grad.array
            home._version[0] += 1
            parameter._grad = home

    def launch(self, group: Group) -> None:
        """Start averaging over all ranks."""
        self.work = group.all_reduce(self.flat, "avg", async_op=True, name=self.label)

    def finish(self) -> None:
        """Wait for the averages. Raises what the reduction raised."""
        assert self.work is not None
        self.work.wait()
        self._wrote()

    def reduce(self, group: Group) -> None:
        """Average over all ranks on the caller's thread."""
        group.all_reduce(self.flat, "avg", name=self.label)
        self._wrote()

    def _wrote(self) -> None:
        for home in self.homes:
            home._version[0] += 1


def make_buckets(parameters: Sequence[tuple[str, Any]], cap_bytes: int, group: Group) -> list[Bucket]:
    """Buckets of at most cap_bytes (a larger parameter has its own), in the order in which backward fills
    them.
    """
    runs: list[list[tuple[str, Any]]] = []
    open_runs: dict[np.dtype, tuple[list[tuple[str, Any]], int]] = {}
    for item in reversed(parameters):
        array = item[1].array
        run, size = open_runs.get(array.dtype, ([], 0))
        limit = min(FIRST_BUCKET_BYTES, cap_bytes) if len(runs) <= 1 else cap_bytes
        if not run or size + array.nbytes > limit:
            run, size = [], 0
            runs.append(run)
        run.append(item)
        open_runs[array.dtype] = (run, size + array.nbytes)
    return [Bucket(i, run, group) for i, run in enumerate(runs)]


def broadcast_coalesced(group: Group, tensors: Sequence[Any], root: int = 0) -> None:
    """Give all ranks the root's values of `tensors`, in few messages."""
    by_dtype: dict[np.dtype, list[Any]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.array.dtype, []).append(tensor)
    for same in by_dtype.values():
        for run in _runs(same):
            _broadcast_run(group, run, root)


def _runs(tensors: Sequence[Any]) -> list[list[Any]]:
    runs: list[list[Any]] = []
    size = LARGEST_BROADCAST_BYTES
    for tensor in tensors:
        if not runs or size + tensor.array.nbytes > LARGEST_BROADCAST_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(tensor)
        size += tensor.array.nbytes
    return runs


def _broadcast_run(group: Group, tensors: Sequence[Any], root: int) -> None:
    arrays = [t.array for t in tensors]
    if len(arrays) == 1 and arrays[0].flags.c_contiguous:
        group.broadcast(arrays[0], root)
    else:
        flat = np.concatenate([a.reshape(-1) for a in arrays])
        group.broadcast(flat, root)
        at = 0
        for array in arrays:
            array[...] = flat[at : at + array.size].reshape(array.shape)
            at += array.size
    for tensor in tensors:
        tensor._version[0] += 1
