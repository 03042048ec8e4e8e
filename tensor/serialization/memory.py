"""Dtypes and devices as files name them, and which arrays share memory: shared memory is stored once."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from .. import dtypes
from ..device import device

NAMES = (
    *("bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32"),
    *("float64", "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
)


def dtype_named(name: str) -> dtypes.dtype:
    """The dtype that a file names; ValueError for one that no tensor has."""
    if name not in NAMES:
        raise ValueError(f"dtype must be one of {', '.join(NAMES)}, not {name!r}")
    return getattr(dtypes, "bool_" if name == "bool" else name)


def device_named(kind: str, index: int | None = None) -> device:
    """The device that a file names; ValueError for none."""
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise ValueError("a device must be a name and a number")
    try:
        return device(kind, index)
    except RuntimeError as error:
        raise ValueError(str(error)) from None


class View(NamedTuple):
    """An array as a window on a stored block; offset and strides in elements."""

    block: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(max(n, 1) for n in shape[i + 1 :]) for i in range(len(shape)))


def share(arrays: list[np.ndarray]) -> tuple[list[np.ndarray], list[View]]:
    """Blocks to store and, for each array, its window on one of them.

    An array that overlaps no other is a block by itself, by value: a small slice of a large array costs a
    small slice. Arrays that overlap share one flat block that spans them all, so that tied weights and views
    come back tied.
    """
    blocks: list[np.ndarray] = []
    views: dict[int, View] = {}
    for cluster in _clusters(arrays):
        span = _span([arrays[i] for i in cluster])
        seen: dict[tuple, int] = {}
        for i in cluster:
            array = arrays[i]
            if span is None:
                block = seen.setdefault(_place(array), len(blocks))
                if block == len(blocks):
                    blocks.append(array)
                views[i] = View(block, 0, array.shape, contiguous_strides(array.shape))
            else:
                offset = (array.ctypes.data - span.ctypes.data) // array.itemsize
                views[i] = View(len(blocks), offset, array.shape, _element_strides(array))
        if span is not None:
            blocks.append(span)
    return blocks, [views[i] for i in range(len(arrays))]


def _clusters(arrays: list[np.ndarray]) -> list[list[int]]:
    """Indices of arrays of one dtype whose memory overlaps, by address within a cluster; clusters by first
    use."""
    clusters: list[list[int]] = []
    bounds: dict[str, list[tuple[int, int, int]]] = {}
    for i, array in enumerate(arrays):
        if array.size and all(s >= 0 and s % array.itemsize == 0 for s in _steps(array)):
            low, high = np.lib.array_utils.byte_bounds(array)
            bounds.setdefault(array.dtype.str + array.dtype.name, []).append((low, high, i))
        else:
            clusters.append([i])
    for places in bounds.values():
        end = -1
        for low, high, i in sorted(places):
            if low >= end:
                clusters.append([])
            clusters[-1].append(i)
            end = max(end, high)
    return sorted(clusters, key=min)


def _steps(array: np.ndarray) -> list[int]:
    """Strides that matter: an axis of length 1 is never stepped along and may hold any number in NumPy."""
    return [s for n, s in zip(array.shape, array.strides) if n > 1]


def _place(array: np.ndarray) -> tuple:
    return array.ctypes.data, array.shape, array.strides, array.dtype


def _element_strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(s // array.itemsize if n > 1 else 1 for n, s in zip(array.shape, array.strides))


def _span(cluster: list[np.ndarray]) -> np.ndarray | None:
    """The memory under a cluster, or None where each array is stored by value: all are the very same
    window, or one cannot be expressed as a window on a flat array."""
    first = cluster[0]
    if first.size == 0 or any(s < 0 or s % first.itemsize for s in _steps(first)):
        return None
    low, high = first.ctypes.data, max(np.lib.array_utils.byte_bounds(a)[1] for a in cluster)
    if all(_place(a) == _place(first) for a in cluster) and high - low >= first.nbytes:
        return None
    if any((a.ctypes.data - low) % first.itemsize for a in cluster):
        return None
    for a in cluster:
        if a.flags.c_contiguous and a.nbytes == high - low:
            return a
    count = (high - low) // first.itemsize
    return np.lib.stride_tricks.as_strided(first, shape=(count,), strides=(first.itemsize,))


def window(block: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """The array that a file describes as a window on `block`; ValueError where it would leave the block."""
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > 64 or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(
            f"offset, shape and strides must be whole numbers, {len(shape)} and {len(strides)} of them"
        )
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides)) if 0 not in shape else offset - 1
    if last >= block.size:
        raise ValueError(
            f"shape {shape} with strides {strides} at {offset} leaves its storage of {block.size} elements"
        )
    if 0 in shape:
        return np.empty(shape, block.dtype)
    flat = block.reshape(-1).view(np.uint8)
    item = block.itemsize
    return np.ndarray(
        shape, block.dtype, buffer=flat, offset=offset * item, strides=[s * item for s in strides]
    )
