"""Reductions of the rows of a matrix, each by the fastest way that NumPy has, and blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from .faster import faster

LARGE = 65536  # elements from which the order of a copy matters
BLOCK = 32768  # elements: a handful of such float32 blocks fit a core's second-level cache


def blocks(count: int, width: int = 1) -> Iterator[slice]:
    """Slices over `count` rows of `width` elements, each about BLOCK elements."""
    step = max(1, BLOCK // max(width, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


@lru_cache(maxsize=256)
def ones(xp: Any, n: int, dtype: Any) -> Any:
    """A vector of ones that is not to be written."""
    return xp.ones(n, dtype)


@lru_cache(maxsize=64)
def zeros(xp: Any, n: int, dtype: Any) -> Any:
    """A vector of zeros that is not to be written."""
    return xp.zeros(n, dtype)


def row_sum(xp: Any, x: Any) -> Any:
    """Sums of the rows of a matrix: with NumPy a product with ones is several times faster than a reduction."""
    if xp is not np:
        return x.sum(axis=1)
    return x.dot(ones(xp, x.shape[1], x.dtype))  # starts sooner than @


def column_sum(xp: Any, x: Any) -> Any:
    """Sums of the columns of a matrix."""
    if xp is not np:
        return x.sum(axis=0)
    return ones(xp, x.shape[0], x.dtype).dot(x)


@lru_cache(maxsize=256)
def row_starts(xp: Any, rows: int, width: int) -> Any:
    """Where each row starts in the flattened matrix; not to be written."""
    return xp.arange(0, rows * width, width)


def row_max(xp: Any, x: Any) -> Any:
    """Maxima of the rows of a contiguous matrix: by argmax, which is vectorised where max of short rows is not."""
    at = x.argmax(axis=1)
    at += row_starts(xp, *x.shape)
    return x.reshape(-1)[at]


def row_min(xp: Any, x: Any) -> Any:
    """Minima of the rows of a contiguous matrix, likewise."""
    at = x.argmin(axis=1)
    at += row_starts(xp, *x.shape)
    return x.reshape(-1)[at]


def row_major(xp: Any, x: Any) -> Any:
    """A row-major copy. Of a transposed matrix it is taken in strips of columns, which use whole cache lines."""
    if x.ndim < 2 or x.size < LARGE or x.strides[-1] == x.itemsize or x.strides[-2] != x.itemsize:
        return xp.asarray(x, order="C")
    y, step = xp.empty(x.shape, x.dtype), max(1, 64 // x.itemsize)
    if x.shape[-2] < step:  # few long columns
        for i in range(x.shape[-2]):
            y[..., i, :] = x[..., i, :]
        return y
    for start in range(0, x.shape[-1], step):
        y[..., start : start + step] = x[..., start : start + step]
    return y


def bounded(xp: Any, x: Any, low: Any, high: Any, out: Any) -> Any:
    """x in [low, high], into `out`; a bound may be None.

    NumPy takes extremes of two arrays many at a time, those of an array and a number one by one.
    """
    if x.size >= LARGE // 2 and xp is np:
        ends = (-np.inf if low is None else low, np.inf if high is None else high)
        if faster("bounded", np, x, *ends, out) is not None:
            return out
    for limit, pick in ((low, xp.maximum), (high, xp.minimum)):
        if limit is None:
            continue
        if xp is not np or x.size < 4096 or not x.flags.c_contiguous or not out.flags.c_contiguous:
            pick(x, x.dtype.type(limit), out=out)
        else:
            flat_x, flat_y = x.reshape(-1), out.reshape(-1)
            bounds = np.full(min(flat_x.size, BLOCK), limit, x.dtype)
            for part in blocks(flat_x.size):
                pick(flat_x[part], bounds[: part.stop - part.start], out=flat_y[part])
        x = out
    return out


def last(xp: Any, x: Any, dim: int) -> Any:
    """A contiguous array with dimension `dim` moved to the end."""
    return xp.ascontiguousarray(x) if dim == x.ndim - 1 else row_major(xp, xp.moveaxis(x, dim, -1))


def back(xp: Any, x: Any, dim: int) -> Any:
    """Undoes `last`."""
    return x if dim == x.ndim - 1 else row_major(xp, xp.moveaxis(x, -1, dim))
