"""Ops that find positions by order: sorting, the k best, medians, modes, running extremes.

They return int64 positions, which have no gradient; values are then read by `gather`, which has one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...autograd.op import Op
from ..dtypes import I64, category
from .declare import axis_of
from .faster import faster
from .index import take_along
from .rows import last, row_starts
from .scan import running

Prepared = tuple[tuple[Any, ...], dict[str, Any]]
Array = Any
FEW = 8  # so many of the best are found by as many passes
SMALL = 4096  # below this many elements a stable sort is not worth avoiding


def _ascending(xp: Any, x: Array, axis: int) -> Array:
    """A stable argsort. NumPy's unstable one is ten times faster, and the same where all elements differ."""
    if x.size <= SMALL or x.dtype.kind == "b":
        return x.argsort(axis=axis, kind="stable")
    order = x.argsort(axis=axis)
    values = xp.moveaxis(take_along(xp, x, order, axis), axis, -1)
    tied = (values[..., 1:] == values[..., :-1]).any() or (values[..., -1:] != values[..., -1:]).any()
    return x.argsort(axis=axis, kind="stable") if tied else order


def stable_order(xp: Any, x: Array, axis: int, descending: bool) -> Array:
    """Positions in sorted order, equal elements in their own order, NaN as the largest."""
    if not descending:
        return _ascending(xp, x, axis)
    n = x.shape[axis]
    turned = (slice(None),) * axis + (slice(None, None, -1),)
    return n - 1 - _ascending(xp, x[turned], axis)[turned]


def _argsort(xp: Any, x: Array, *, dim: int, descending: bool) -> Array:
    if not x.ndim:
        return xp.zeros((), I64)
    return stable_order(xp, x, dim, descending)


def _along(name: str) -> Any:
    def prepare(x: Any, *, dim: int = -1, **kw: Any) -> Prepared:
        return (x,), {"dim": axis_of(name, dim, x.ndim), **kw}

    return prepare


argsort = Op(
    "argsort",
    _argsort,
    prepare=lambda x, *, dim=-1, descending=False: (
        (x,),
        {"dim": axis_of("argsort", dim, x.ndim), "descending": descending},
    ),
)


def _topk_prepare(x: Any, *, k: int, dim: int = -1, largest: bool = True) -> Prepared:
    d = axis_of("topk", dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError(f"[topk] k must be in [0, {n}], came {k}")
    return (x,), {"k": k, "dim": d, "largest": largest}


def _by_passes(x: Array, k: int, dim: int, largest: bool) -> Array | None:
    """The k best by k passes, the best struck out after each; None where an element cannot be told from a struck one.

    Equal elements come in order, as a stable sort has them.
    """
    rows = last(np, x, dim)
    shape, width = rows.shape, rows.shape[-1]
    rows = rows.reshape(-1, width).copy() if k > 1 else rows.reshape(-1, width)
    flat, starts = rows.reshape(-1), row_starts(np, *rows.shape)
    worst = _worst(rows.dtype, largest)
    best = np.empty((len(rows), k), I64)
    for j in range(k):
        at = best[:, j] = rows.argmax(axis=1) if largest else rows.argmin(axis=1)
        where = at + starts
        found = flat[where]
        if (found == worst).any() or (not largest and (found != found).any()):
            return None
        if j + 1 < k:
            flat[where] = worst
    return np.moveaxis(best.reshape(*shape[:-1], k), -1, dim)


def _worst(dtype: Any, largest: bool) -> Any:
    if dtype.kind == "f":
        return -np.inf if largest else np.inf
    limits = np.iinfo(dtype)
    return limits.min if largest else limits.max


def _argtopk(xp: Any, x: Array, *, k: int, dim: int, largest: bool) -> Array:
    """Positions of the k largest or smallest, best first."""
    if not x.ndim:
        return xp.zeros((), I64)
    n = x.shape[dim]
    if not k:
        return xp.zeros((*x.shape[:dim], 0, *x.shape[dim + 1 :]), I64)
    front = (slice(None),) * dim
    if (
        xp is np
        and k <= FEW
        and n > 64
        and x.dtype.kind in "fiu"
        and (best := _by_passes(x, k, dim, largest)) is not None
    ):
        return best
    if n <= 64 or 4 * k > n or x.dtype.kind == "b":
        return stable_order(xp, x, dim, largest)[(*front, slice(0, k))]
    part = slice(n - k, n) if largest else slice(0, k)
    found = xp.sort(xp.argpartition(x, n - k if largest else k - 1, axis=dim)[(*front, part)], axis=dim)
    inner = stable_order(xp, take_along(xp, x, found, dim), dim, largest)
    return take_along(xp, found, inner, dim)


argtopk = Op("argtopk", _argtopk, prepare=_topk_prepare)


def _argkth(xp: Any, x: Array, *, k: int, dim: int) -> Array:
    """Position of the k-th smallest, counted from 1."""
    if not x.ndim:
        return xp.zeros((), I64)
    n = x.shape[dim]
    order = _ascending(xp, x, dim) if n <= 64 else xp.argpartition(x, k - 1, axis=dim)
    return xp.take(order, k - 1, axis=dim)


def _kth_prepare(x: Any, *, k: int, dim: int = -1) -> Prepared:
    d = axis_of("kthvalue", dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if not 1 <= k <= n:
        raise (RuntimeError if n else IndexError)(
            f"[kthvalue] k must be in [1, {n}] for dimension {d}, came {k}"
        )
    return (x,), {"k": k, "dim": d}


argkth = Op("argkth", _argkth, prepare=_kth_prepare)


def _filled(name: str, x: Any, dim: int) -> int:
    d = axis_of(name, dim, x.ndim)
    if x.ndim and x.shape[d] == 0:
        raise IndexError(f"[{name}] dimension {d} must not be empty, came shape {list(x.shape)}")
    return d


def _argmedian(xp: Any, x: Array, *, dim: int, ignore_nan: bool) -> Array:
    """Position of the lower median; of the first NaN where there is one and it counts."""
    if not x.ndim:
        return xp.zeros((), I64)
    n = x.shape[dim]
    if category(x.dtype) < 2:
        return _argkth(xp, x, k=(n + 1) // 2, dim=dim)
    missing = xp.isnan(x)
    if not missing.any():
        return _argkth(xp, x, k=(n + 1) // 2, dim=dim)
    order = _ascending(xp, x, dim)  # NaN come last
    count = n - missing.sum(axis=dim, keepdims=True)
    place = xp.maximum(count - 1, 0) // 2
    if not ignore_nan:
        place = xp.where(count < n, count, place)
    return xp.squeeze(take_along(xp, order, place, dim), dim)


argmedian = Op(
    "argmedian",
    _argmedian,
    prepare=lambda x, *, dim=-1, ignore_nan=False: (
        (x,),
        {"dim": _filled("median", x, dim), "ignore_nan": ignore_nan},
    ),
)


def _argmode(xp: Any, x: Array, *, dim: int) -> Array:
    """Position of the commonest element (the smallest of equally common ones), its last occurrence."""
    if not x.ndim:
        return xp.zeros((), I64)
    rows = xp.moveaxis(x, dim, -1)
    order = rows.argsort(axis=-1, kind="stable")
    values = take_along(xp, rows, order, rows.ndim - 1)
    at = xp.arange(rows.shape[-1])
    starts = xp.concatenate(
        [xp.zeros((*values.shape[:-1], 1), I64), xp.where(values[..., 1:] != values[..., :-1], at[1:], 0)], -1
    )
    run = at - running(xp, xp.maximum, starts, -1)
    return take_along(xp, order, run.argmax(axis=-1)[..., None], rows.ndim - 1)[..., 0]


argmode = Op("argmode", _argmode, prepare=lambda x, *, dim=-1: ((x,), {"dim": _filled("mode", x, dim)}))


def _running(xp: Any, x: Array, dim: int, name: str, pairwise: Any) -> Array:
    if not x.ndim:
        return xp.zeros((), I64)
    if (made := faster(name, xp, x, dim=dim)) is not None:
        return made
    best = running(xp, pairwise, x, dim)
    hit = (x == best) | (x != x)
    shape = [1] * x.ndim
    shape[dim] = x.shape[dim]
    at = xp.arange(x.shape[dim]).reshape(shape)
    return running(xp, xp.maximum, xp.where(hit, at, 0), dim)


argcummax = Op(
    "argcummax",
    lambda xp, x, *, dim: _running(xp, x, dim, "argcummax", xp.maximum),
    prepare=_along("cummax"),
)
argcummin = Op(
    "argcummin",
    lambda xp, x, *, dim: _running(xp, x, dim, "argcummin", xp.minimum),
    prepare=_along("cummin"),
)


def _median_all(xp: Any, x: Array, *, ignore_nan: bool) -> Array:
    flat = x.reshape(-1)
    if not flat.size:
        return xp.asarray(xp.nan, x.dtype)
    return flat[_argmedian(xp, flat, dim=0, ignore_nan=ignore_nan)]


def _median_all_rule(ops: Any, g: Any, x: Any, y: Any) -> Any:
    """Equal elements share the gradient."""
    hit = ops.cast((x == y) | ((x != x) & (y != y)), dtype=g.dtype)
    return hit * (g / ops.sum(hit))


median_all = Op(
    "median_all",
    _median_all,
    [_median_all_rule],
    prepare=lambda x, *, ignore_nan=False: ((x,), {"ignore_nan": ignore_nan}),
)
