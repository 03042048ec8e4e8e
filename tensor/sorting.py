"""Sorting, searching and counting under PyTorch's names."""

from __future__ import annotations

import math
from operator import index as whole
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.engine import Variable, as_array, wrap
from .checks import refuse
from .device import by_the_host
from .dtypes import F32, F64, I64, category
from .functions import Extreme
from .ops import index as _index
from .ops import pointwise as _p
from .ops import reduce as _r
from .ops import shape as _s
from .ops import sort as _o
from .ops.declare import axis_of

if TYPE_CHECKING:
    from .tensor import Tensor


def _read(input: Tensor, dim: int, indices: Tensor) -> Extreme:
    """The elements at positions along `dim`, with the positions."""
    if not input.array.ndim:
        return Extreme(input.clone(), indices)
    d = axis_of("gather", dim, input.array.ndim)
    return Extreme(_index.gather(input, dim=d, index=indices.array, sure=True), indices)


def _read_one(input: Tensor, dim: int, indices: Tensor, keepdim: bool) -> Extreme:
    if not input.ndim:
        return Extreme(input.clone(), indices)
    d = axis_of("gather", dim, input.ndim)
    if keepdim:
        return _read(input, d, _s.unsqueeze(indices, dim=d))
    return Extreme(_index.pick(input, dim=d, index=indices.array), indices)


def sort(input: Tensor, dim: Any = -1, descending: bool = False, stable: bool = False) -> Extreme:
    """(values, indices) in sorted order along `dim`; equal elements keep their order, NaN is the largest."""
    return _read(input, dim, _o.argsort(input, dim=dim, descending=descending))


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The positions that sort a tensor along `dim`."""
    return _o.argsort(input, dim=dim, descending=descending)


def msort(input: Tensor) -> Tensor:
    """Sorted along the first dimension."""
    return sort(input, 0).values


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extreme:
    """(values, indices) of the `k` largest (or smallest) elements along `dim`, best first."""
    return _read(input, dim, _o.argtopk(input, k=whole(k), dim=dim, largest=largest))


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Extreme:
    """(values, indices) of the k-th smallest element along `dim`, counted from 1."""
    return _read_one(input, dim, _o.argkth(input, k=whole(k), dim=dim), keepdim)


def median(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The lower median of all elements, or (values, indices) along `dim`; NaN where there is one."""
    if dim is None:
        return _o.median_all(input, ignore_nan=False)
    return _read_one(input, dim, _o.argmedian(input, dim=dim), keepdim)


def nanmedian(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """`median` of the elements that are not NaN."""
    if dim is None:
        return _o.median_all(input, ignore_nan=True)
    return _read_one(input, dim, _o.argmedian(input, dim=dim, ignore_nan=True), keepdim)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Extreme:
    """(values, indices) of the commonest element along `dim`, the smallest of equally common ones."""
    return _read_one(input, dim, _o.argmode(input, dim=dim), keepdim)


def cummax(input: Tensor, dim: int) -> Extreme:
    """(values, indices) of the largest element so far along `dim`."""
    return _read(input, dim, _o.argcummax(input, dim=dim))


def cummin(input: Tensor, dim: int) -> Extreme:
    """(values, indices) of the smallest element so far along `dim`."""
    return _read(input, dim, _o.argcummin(input, dim=dim))


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The named pair (min, max) over `dim`, or over all elements."""
    return AMinMax(_r.amin(input, dim=dim, keepdim=keepdim), _r.amax(input, dim=dim, keepdim=keepdim))


class AMinMax(tuple[Any, Any]):
    """(min, max) by name."""

    __slots__ = ()

    def __new__(cls, low: Any, high: Any) -> AMinMax:
        return tuple.__new__(cls, (low, high))

    min = property(lambda self: self[0])
    max = property(lambda self: self[1])


# ---- unique


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Distinct elements (or slices along `dim`), sorted; with their inverse and counts if wanted."""
    refuse("unique", "c", input)
    array = input.array
    if dim is not None:
        dim = axis_of("unique", dim, array.ndim)
    distinct: Any = np.unique
    found = distinct(
        array, return_inverse=return_inverse, return_counts=return_counts, axis=dim, equal_nan=False
    )
    if not return_inverse and not return_counts:
        return wrap(found)
    parts = [wrap(as_array(part)) for part in found]
    if return_inverse and dim is None:
        parts[1] = wrap(parts[1].array.reshape(array.shape))
    return tuple(parts)


@by_the_host
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Without repetitions of the element (or slice along `dim`) before."""
    refuse("unique_consecutive", "c", input)
    array = input.array
    rows = (
        array.reshape(-1)
        if dim is None
        else np.moveaxis(array, axis_of("unique_consecutive", dim, array.ndim), 0)
    )
    n = rows.shape[0]
    new = np.ones(n, bool)
    new[1:] = (rows[1:] != rows[:-1]).reshape(max(n - 1, 0), math.prod(rows.shape[1:])).any(axis=1)
    starts = np.flatnonzero(new)
    out = rows[starts] if dim is None else np.moveaxis(rows[starts], 0, dim)
    parts = [wrap(np.ascontiguousarray(out) if isinstance(out, np.ndarray) else out)]
    if return_inverse:
        inverse = np.cumsum(new) - 1
        parts.append(wrap(inverse.reshape(array.shape) if dim is None else inverse))
    if return_counts:
        parts.append(wrap(np.diff(np.append(starts, n))))
    return parts[0] if len(parts) == 1 else tuple(parts)


# ---- search


@by_the_host
def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where elements would be inserted into sorted rows: before equal ones, or after (`right`)."""
    if not isinstance(input, Variable | int | float):
        raise TypeError(f"[searchsorted] the input must be a Tensor or a number, came {type(input).__name__}")
    both_bool = (
        sorted_sequence.array.dtype == bool and isinstance(input, Variable) and input.array.dtype == bool
    )
    refuse("searchsorted", "bc" if both_bool else "c", sorted_sequence, input)
    if side is not None and (side not in ("left", "right") or (side == "left" and right)):
        raise RuntimeError(
            f"[searchsorted] side must be 'left' or 'right' and agree with right, came {side!r}, {right}"
        )
    where: Any = "right" if right or side == "right" else "left"
    rows = sorted_sequence.array
    if sorter is not None:
        rows = np.take_along_axis(rows, sorter.array, -1)
    values = input.array if isinstance(input, Variable) else np.asarray(input, rows.dtype)
    if rows.ndim == 1:
        found = np.asarray(np.searchsorted(rows, values, where))
    else:
        if rows.shape[:-1] != values.shape[:-1]:
            raise RuntimeError(
                f"[searchsorted] all dimensions but the last must be equal, came {list(rows.shape)} and"
                f" {list(values.shape)}"
            )
        found = np.empty(values.shape, I64)
        for at in np.ndindex(rows.shape[:-1]):
            found[at] = np.searchsorted(rows[at], values[at], where)
    return wrap(found.astype(np.int32 if out_int32 else I64, copy=False))


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The index of the bucket between sorted boundaries into which each element falls."""
    if boundaries.ndim != 1:
        raise RuntimeError(
            f"[bucketize] the boundaries must be a vector, came shape {list(boundaries.shape)}"
        )
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is among `test_elements`."""
    for value in (elements, test_elements):
        if not isinstance(value, Variable | int | float):
            raise TypeError(f"[isin] must be called with Tensors or numbers, came {type(value).__name__}")
    refuse("isin", "bc", elements, test_elements)
    a, b = (t.array if isinstance(t, Variable) else as_array(t) for t in (elements, test_elements))
    return wrap(as_array(np.isin(a, b, assume_unique, invert)))


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each value occurs in a vector of non-negative integers, or the sum of its weights."""
    array = input.array
    if array.dtype.kind not in "iu":
        raise RuntimeError(f"[bincount] the dtype must be an integer one, came {input.dtype}")
    if array.ndim != 1 or (array.size and array.min() < 0):
        raise RuntimeError(
            f"[bincount] must be a vector without negative values, came shape {list(array.shape)}"
        )
    if weights is None:
        return wrap(np.bincount(array, minlength=minlength))
    if weights.array.shape != array.shape:
        raise RuntimeError(
            f"[bincount] the weights must have the input's shape {list(array.shape)}, came {list(weights.shape)}"
        )
    counts = np.bincount(array, weights.array, minlength)
    return wrap(counts.astype(F32 if weights.array.dtype == F32 else F64))


def _limits(array: Any, low: float, high: float, beside: float = 1) -> tuple[float, float]:
    if low == high and array.size:
        low, high = float(array.min()), float(array.max())
    if not np.isfinite(low) or not np.isfinite(high) or low > high:
        raise RuntimeError(f"[histc] the range must be finite and ordered, came [{low}, {high}]")
    return (low, high) if low != high else (low - beside, high + beside)


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Counts in `bins` equal bins from `min` to `max` (of the data where both are equal), in the input's dtype."""
    refuse("histc", "c", input)
    if bins <= 0:
        raise RuntimeError(f"[histc] bins must be positive, came {bins}")
    if category(input.array.dtype) < 2:
        raise RuntimeError(f"[histc] the dtype must be floating, came {input.dtype}")
    counts, _ = np.histogram(input.array, bins, _limits(input.array, min, max))
    return wrap(counts.astype(input.array.dtype))


class Histogram(tuple[Any, Any]):
    """(hist, bin_edges) by name."""

    __slots__ = ()
    hist = property(lambda self: self[0])
    bin_edges = property(lambda self: self[1])


def histogram(
    input: Tensor, bins: Any = 100, *, range: Any = None, weight: Tensor | None = None, density: bool = False
) -> Histogram:
    """(hist, bin_edges): counts in equal bins, or between given edges."""
    refuse("histogram", "biuc", input)
    if isinstance(bins, str):
        raise TypeError(f"[histogram] bins must be an int or a tensor of edges, came {bins!r}")
    array, edges = input.array, bins.array if isinstance(bins, Variable) else bins
    if isinstance(edges, int):
        low, high = range or ((0, 0) if array.size else (0, 1))
        range = _limits(array, low, high, beside=0.5)
    weights = None if weight is None else weight.array
    hist, edges = np.histogram(array, edges, range, density, weights)
    return Histogram((wrap(hist.astype(array.dtype)), wrap(edges.astype(array.dtype))))


def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements over `dim` are not zero."""
    axis = dim if dim is None or isinstance(dim, int) else tuple(dim)
    return wrap(as_array(np.count_nonzero(input.array, axis)))


def argwhere(input: Tensor) -> Tensor:
    """Indices of the elements that are not zero, one row each."""
    return wrap(np.argwhere(input.array))


def _fractions(q: Any, like: Any) -> Any:
    if not isinstance(q, Variable | int | float):
        raise TypeError(f"[quantile] q must be a number or a Tensor, came {type(q).__name__}")
    fractions = q.array if isinstance(q, Variable) else np.asarray(q, like)
    if fractions.dtype != like:
        raise RuntimeError(
            f"[quantile] q must have the input's dtype {like.name}, came {fractions.dtype.name}"
        )
    if fractions.ndim > 1:
        raise RuntimeError(f"[quantile] q must be a number or a vector, came shape {list(fractions.shape)}")
    if fractions.size and (fractions.min() < 0 or fractions.max() > 1):
        raise RuntimeError(f"[quantile] q must be in [0, 1], came {fractions.tolist()}")
    return fractions


MODES = ("linear", "lower", "higher", "midpoint", "nearest")


@by_the_host
def _quantile(input: Tensor, q: Any, dim: Any, keepdim: bool, interpolation: str, skip: bool) -> Tensor:
    if input.array.dtype not in (F32, F64):
        raise RuntimeError(f"[quantile] the dtype must be float32 or float64, came {input.dtype}")
    if not input.array.size:
        raise RuntimeError("[quantile] the input must not be empty")
    if interpolation not in MODES:
        raise RuntimeError(
            f"[quantile] interpolation must be one of {', '.join(MODES)}, came {interpolation!r}"
        )
    fractions = _fractions(q, input.array.dtype)
    ndim, x = input.ndim, input
    if dim is not None and not ndim:
        axis_of("quantile", dim, 0)
    if dim is None or not ndim:
        x = _s.reshape(input, shape=(-1,))
        out_shape: tuple[int, ...] = (1,) * ndim if keepdim else ()
    else:
        dim = axis_of("quantile", dim, ndim)
        x = _s.permute(input, dims=(*range(dim), *range(dim + 1, ndim), dim))
        out_shape = tuple(x.shape[:-1])
        out_shape = (*out_shape[:dim], 1, *out_shape[dim:]) if keepdim else out_shape
    ordered = sort(x, -1).values
    missing = np.isnan(x.array).sum(axis=-1, keepdims=True)
    count = x.shape[-1] - missing
    rank = fractions.reshape(-1) * (np.maximum(count, 1) - 1).astype(fractions.dtype)  # [..., q]
    if interpolation in ("lower", "higher", "nearest"):
        rounding: dict[str, Any] = {"lower": np.floor, "higher": np.ceil, "nearest": np.round}
        rank = rounding[interpolation](rank)
    low = np.floor(rank)
    low_index = np.where((missing > 0) & (not skip), x.shape[-1] - 1, low).astype(I64)
    high_index = np.where((missing > 0) & (not skip), x.shape[-1] - 1, np.ceil(rank)).astype(I64)
    weight = np.full_like(rank, 0.5) * (rank != low) if interpolation == "midpoint" else rank - low
    below = _index.gather(ordered, dim=-1, index=wrap(low_index))
    above = _index.gather(ordered, dim=-1, index=wrap(high_index))
    y = _p.add(below, _p.mul(_p.sub(above, below), wrap(weight.astype(fractions.dtype))))
    y = _s.permute(y, dims=(y.ndim - 1, *range(y.ndim - 1)))
    return _s.reshape(y, shape=(*(fractions.shape), *out_shape))


def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The q-th quantiles along `dim`; a vector `q` adds a leading dimension."""
    return _quantile(input, q, dim, keepdim, interpolation, False)


def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """`quantile` of the elements that are not NaN."""
    return _quantile(input, q, dim, keepdim, interpolation, True)
