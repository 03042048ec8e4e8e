"""Flat buffers for gradients. Parameters' gradients are views of them, so reducing a bucket moves no
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd.engine import Variable, array_namespace, wrap
from .group import Group

FIRST_BUCKET_BYTES = 1 << 20  # small, so that communication starts early where it has a core of its own
LARGEST_BROADCAST_BYTES = 32 << 20
WHO = "[DistributedDataParallel]"
SHOWN = 5  # names in an error

Run = list[tuple[str, Any]]  # of named parameters, all of one dtype


class Bucket:
    """A run of parameters of one dtype whose gradients are reduced together.

    homes: for each parameter the Tensor over its part of `flat`, which is its `.grad` whenever it has one.
    multiple: the length of `flat` is rounded up to it; what is too much stays zero.
    """

    def __init__(
        self, index: int, parameters: Sequence[tuple[str, Any]], group: Group, multiple: int = 1
    ) -> None:
        self.index, self.parameters = index, list(parameters)
        size = sum(p.array.size for _, p in parameters)
        first = parameters[0][1].array
        xp = array_namespace[type(first)]
        make = group.empty if xp is np else xp.empty
        self.flat = make(-(-size // multiple) * multiple, first.dtype)
        self.flat[size:] = 0
        self.homes = self.views(self.flat)
        begin, last = parameters[0][0], parameters[-1][0]
        self.label = f"gradients of bucket {index}: {begin}" + (f" .. {last}" if len(parameters) > 1 else "")
        self.waiting: set[int] = set()  # positions whose gradient has yet to come in this backward
        self.work: Any = None  # the reduction under way: a Work, or the Future of a hook
        self.reset()

    def views(self, flat: np.ndarray) -> list[Any]:
        """For each parameter the Tensor over its part of an array as long as `flat`."""
        homes, at = [], 0
        for _, parameter in self.parameters:
            array = parameter.array
            homes.append(wrap(flat[at : at + array.size].reshape(array.shape)))
            at += array.size
        return homes

    def reset(self) -> None:
        self.waiting, self.work = set(range(len(self.parameters))), None

    def settle(self, position: int) -> None:
        """Bring a gradient that lies elsewhere (the user assigned one) home."""
        parameter, home = self.parameters[position][1], self.homes[position]
        if parameter._grad is not home:
            home.array[...] = parameter._grad.array
            home._version[0] += 1
            parameter._grad = home

    def is_home(self) -> bool:
        """Whether a gradient still belongs here."""
        return any(p._grad_home is home for (_, p), home in zip(self.parameters, self.homes))

    def finish(self) -> None:
        """Wait for the averages. Raises what the reduction raised."""
        assert self.work is not None
        result = self.work.wait()
        if isinstance(result, Variable) and result.array is not self.flat:  # a hook's own tensor
            if result.array.size != self.flat.size:
                raise ValueError(
                    f"{WHO} a communication hook must give as many elements as its bucket has, {self.flat.size}, "
                    f"got {result.array.size}"
                )
            self.flat[...] = result.array.reshape(-1)
        self._wrote()

    def _wrote(self) -> None:
        for home in self.homes:
            home._version[0] += 1


def make_buckets(
    parameters: Sequence[tuple[str, Any]], cap_bytes: int, group: Group, multiple: int = 1
) -> list[Bucket]:
    """Buckets of at most cap_bytes (a larger parameter has its own), filled from the last parameter on, as
    backward does.
    """
    return [Bucket(i, run, group, multiple) for i, run in enumerate(bucket_runs(parameters, cap_bytes))]


def first_bucket_bytes(cap_bytes: int, group: Group) -> int:
    """The limit of the first bucket where the user named none: communication starts early where that helps."""
    early = group.transport is not None and group.transport.spare_cores
    return min(FIRST_BUCKET_BYTES, cap_bytes) if early else cap_bytes


def bucket_runs(
    parameters: Sequence[tuple[str, Any]],
    cap_bytes: int,
    first_bytes: int | None = None,
    apart: Callable[[Any], Any] = lambda parameter: None,
) -> list[Run]:
    """The parameters of each bucket, from the last on, each of one dtype. first_bytes: a lower limit for the first.

    apart: parameters for which it differs are in different buckets.
    """
    runs: list[Run] = []
    open_runs: dict[Any, tuple[Run, int]] = {}
    for item in reversed(parameters):
        array = item[1].array
        kind = array.dtype, apart(item[1])
        run, size = open_runs.get(kind, ([], 0))
        limit = first_bytes if first_bytes is not None and len(runs) <= 1 else cap_bytes
        if not run or size + array.nbytes > limit:
            run, size = [], 0
            runs.append(run)
        run.append(item)
        open_runs[kind] = (run, size + array.nbytes)
    return runs


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
        flat = array_namespace[type(arrays[0])].concatenate([a.reshape(-1) for a in arrays])
        group.broadcast(flat, root)
        at = 0
        for array in arrays:
            array[...] = flat[at : at + array.size].reshape(array.shape)
            at += array.size
    for tensor in tensors:
        tensor._version[0] += 1


def unused_text(names: list[str]) -> str:
    """The error for parameters that got no gradient."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"{WHO} every parameter must take part in the loss, but no gradient came for "
        f"{', '.join(names[:SHOWN])}{more}. Pass find_unused_parameters=True to let them count as zero, set "
        "requires_grad=False on those never used, or call backward once on the sum of all losses."
    )
