"""Reductions of the rows of a matrix, each by the fastest way that NumPy has, and blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

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
    return x @ ones(xp, x.shape[1], x.dtype)


def column_sum(xp: Any, x: Any) -> Any:
    """Sums of the columns of a matrix."""
    if xp is not np:
        return x.sum(axis=0)
    return ones(xp, x.shape[0], x.dtype) @ x


@lru_cache(maxsize=256)
def row_starts(xp: Any, rows: int, width: int) -> Any:
    """Where each row starts in the flattened matrix; not to be written."""
    return xp.arange(0, rows * width, width)


def row_max(xp: Any, x: Any) -> Any:
    """Maxima of the rows of a contiguous matrix: by argmax, which is vectorised where max of short rows is not."""
    at = x.argmax(axis=1)
    at += row_starts(xp, *x.shape)
    return x.reshape(-1)[at]


def last(xp: Any, x: Any, dim: int) -> Any:
    """A contiguous array with dimension `dim` moved to the end."""
    return xp.ascontiguousarray(x if dim == x.ndim - 1 else xp.moveaxis(x, dim, -1))


def back(xp: Any, x: Any, dim: int) -> Any:
    """Undoes `last`."""
    return x if dim == x.ndim - 1 else xp.ascontiguousarray(xp.moveaxis(x, -1, dim))
