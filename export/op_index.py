"""Indexing, gathering and scattering as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compare import Dim
from .graph import Graph, Val
from .op_pointwise import _floor_divide
from .op_shape import LAST
from .table import emits
from .trace import ExportError


def _spelled(index: Any, ndim: int) -> list[Any]:
    """An index with its ... written out: one entry for each dimension, and the Nones."""
    index = index if isinstance(index, tuple) else (index,)
    taken = sum(_width(i) for i in index)
    out: list[Any] = []
    for item in index:
        out += [slice(None)] * (ndim - taken) if item is Ellipsis else [item]
    return out + [slice(None)] * (ndim - sum(_width(i) for i in out))


def _width(item: Any) -> int:
    """How many dimensions an entry of an index takes."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, Val) and item.dtype == np.bool_ else 1


def _cut(g: Graph, x: Any, items: list[Any]) -> str:
    """The slices among the entries, which are those of the dimensions."""
    found = [(axis, s) for axis, s in enumerate(items) if isinstance(s, slice) and s != slice(None)]
    if not found:
        return str(x)
    starts = g.ints([0 if s.start is None else s.start for _, s in found])
    stops = g.ints([LAST if s.stop is None else s.stop for _, s in found])
    steps = g.ints([1 if s.step is None else s.step for _, s in found])
    return g.node("Slice", x, starts, stops, g.ints([axis for axis, _ in found]), steps)


@emits("getitem", sizes=("index",))
def _getitem(g: Graph, x: Val, index: Any) -> str:
    items = _spelled(index, x.ndim)
    axes = [i for i in items if i is not None]
    y = _cut(g, x, axes)
    for axis in reversed(range(len(axes))):
        at = axes[axis]
        if not isinstance(at, slice):
            y = g.node("Gather", y, _scalar(g, at), axis=axis)
    new, place = [], 0
    for item in items:
        if item is None:
            new.append(place)
        place += item is None or isinstance(item, slice)
    y = g.node("Unsqueeze", y, g.ints(new)) if new else y
    return y if y != x.name else g.node("Identity", x)


def _scalar(g: Graph, at: Any) -> str:
    if isinstance(at, Val):
        return at.name
    if isinstance(at, Dim):
        return g.content(at, np.dtype(np.int64))
    return g.constant(int(at), np.int64)


@emits("index", sizes=("index",))
def _index(g: Graph, x: Val, index: Any) -> str:
    """Advanced indexing: the indexed dimensions first, then GatherND, then the result's dimensions in order."""
    items: list[Any] = []
    for item in _spelled(index, x.ndim):
        items += _places(g, item) if isinstance(item, Val) and item.dtype == np.bool_ else [item]
    axes = [i for i in items if i is not None]
    y = _cut(g, x, axes)
    taken = [a for a, i in enumerate(axes) if not isinstance(i, slice)]
    indices = [
        axes[a] if isinstance(axes[a], Val) else Val(_scalar(g, axes[a]), (), np.dtype(np.int64))
        for a in taken
    ]
    rank = max(i.ndim for i in indices)
    if len(taken) == 1:
        y = g.node("Gather", y, indices[0], axis=taken[0])
        return _renewed(g, y, items, taken[0], rank)
    rest = [a for a in range(len(axes)) if a not in taken]
    y = g.node("Transpose", y, perm=[*taken, *rest])
    y = g.node("GatherND", y, _together(g, indices, rank))
    apart = [i for i, item in enumerate(items) if not isinstance(item, slice)]
    inner = [i for i in apart if items[i] is not None]
    together = inner == list(range(inner[0], inner[-1] + 1))
    front = taken[0] if together else 0
    order = [*range(rank, rank + front), *range(rank), *range(rank + front, rank + len(rest))]
    y = g.node("Transpose", y, perm=order)
    return _renewed(g, y, items, front, rank, together)


def _places(g: Graph, mask: Val) -> list[Val]:
    if mask.array is None:
        raise ExportError(
            "[onnx] a mask that depends on the inputs gives a result of unknown shape: use where or masked_fill"
        )
    found = np.nonzero(mask.array)
    return [Val(g.constant(i, np.int64), i.shape, i.dtype, i) for i in found]


def _together(g: Graph, indices: list[Val], rank: int) -> str:
    """Index tensors, broadcast and joined along a new last dimension, as GatherND wants them."""
    shape: Any = None
    if any(i.shape != indices[0].shape for i in indices):
        total = indices[0].name
        for i in indices[1:]:
            total = g.node("Add", total, i)
        shape = g.node("Shape", total)
    parts = [i.name if shape is None else g.node("Expand", i, shape) for i in indices]
    return g.node("Concat", *(g.node("Unsqueeze", p, g.ints([rank])) for p in parts), axis=rank)


def _renewed(g: Graph, y: str, items: list[Any], front: int, rank: int, together: bool = True) -> str:
    """New dimensions for the Nones of an index; the indexed dimensions stand at `front` and are `rank`."""
    if None not in items:
        return y
    if not together:
        raise ExportError("[onnx] None between index tensors that stand apart: use unsqueeze")
    new, place, seen = [], 0, False
    for item in items:
        if item is None:
            new.append(place)
            place += 1
        elif isinstance(item, slice):
            place += 1
        elif not seen:
            place, seen = place + rank, True
    return g.node("Unsqueeze", y, g.ints(new))


@emits("embedding")
def _embedding(g: Graph, index: Val, weight: Val, padding_idx: Any) -> str:
    return g.node("Gather", weight, index, axis=0)


@emits("index_select")
def _index_select(g: Graph, x: Val, dim: int, index: Val) -> str:
    return g.node("Gather", x, index, axis=dim) if x.ndim else g.node("Identity", x)


def _one_dimension(g: Graph, x: Val) -> str:
    return x.name if x.ndim else g.node("Reshape", x, g.ints([1]))


@emits("gather")
def _gather(g: Graph, x: Val, dim: int, index: Val) -> str:
    y = g.node("GatherElements", _one_dimension(g, x), _one_dimension(g, index), axis=dim)
    return y if x.ndim and index.ndim else g.reshape(y, g.out[0].shape)


@emits("pick")
def _pick(g: Graph, x: Val, dim: int, index: Val) -> str:
    axes = g.ints([dim])
    return g.node("Squeeze", g.node("GatherElements", x, g.node("Unsqueeze", index, axes), axis=dim), axes)


REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


def _scattered(g: Graph, x: Val, dim: int, index: Any, source: Any, reduction: str | None = None) -> str:
    if reduction in ("max", "min"):
        g.needs(18, "scatter_reduce with a maximum or minimum")
    if not x.ndim:
        raise ExportError("[onnx] a 0-d tensor cannot be scattered into")
    return g.node("ScatterElements", x, index, source, axis=dim, reduction=reduction)


@emits("scatter")
def _scatter(g: Graph, x: Val, src: Val, dim: int, index: Val) -> str:
    return _scattered(g, x, dim, index, _fitting(g, src, index))


@emits("scatter_add")
def _scatter_add(g: Graph, x: Val, src: Val, dim: int, index: Val) -> str:
    return _scattered(g, x, dim, index, _fitting(g, src, index), "add")


def _fitting(g: Graph, src: Val, index: Val) -> str:
    """The part of the source that has the index's shape."""
    items = [slice(None) if n == m else slice(0, m) for n, m in zip(src.shape, index.shape)]
    return _cut(g, src, items)


@emits("scatter_reduce")
def _scatter_reduce(g: Graph, x: Val, src: Val, dim: int, index: Val, reduce: str, include_self: bool) -> str:
    new, start = _fitting(g, src, index), x
    spread = g.node("Shape", index)
    if not include_self:  # the places begin with what changes nothing
        none = g.node("Expand", g.constant(_neutral(reduce, x.dtype), x.dtype), spread)
        start = Val(_scattered(g, x, dim, index, none), x.shape, x.dtype)
    if reduce != "mean":
        return _scattered(g, start, dim, index, new, REDUCTIONS[reduce])
    total = _scattered(g, start, dim, index, new, "add")
    ones = g.node("Expand", g.like(1, x), spread)
    first = g.node("Expand", g.like(int(include_self), x), g.node("Shape", x))
    count = _scattered(g, Val(first, x.shape, x.dtype), dim, index, ones, "add")
    count = g.node("Max", count, g.like(1, x))
    if x.dtype.kind == "f":
        return g.node("Div", total, count)
    return _floor_divide(g, Val(total, x.shape, x.dtype), Val(count, x.shape, x.dtype))


def _neutral(reduce: str, dtype: Any) -> Any:
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if dtype.kind == "f":
        return np.inf if reduce == "amin" else -np.inf
    return np.iinfo(dtype).max if reduce == "amin" else np.iinfo(dtype).min


@emits("scatter_value")
def _scatter_value(g: Graph, x: Val, dim: int, index: Val, value: Any) -> str:
    return _scattered(g, x, dim, index, g.node("Expand", g.like(value, x), g.node("Shape", index)))


def _spread(g: Graph, index: Val, dim: int, shape: tuple[Any, ...]) -> str:
    """A 1-d index for all rows along the other dimensions."""
    row = g.reshape(index, [index.shape[0] if d == dim else 1 for d in range(len(shape))])
    return g.node("Expand", row, g.ints([index.shape[0] if d == dim else n for d, n in enumerate(shape)]))


@emits("index_add")
def _index_add(g: Graph, x: Val, source: Val, dim: int, index: Val, alpha: Any) -> str:
    scaled = source.name if alpha == 1 else g.node("Mul", source, g.like(alpha, source))
    return _scattered(g, x, dim, _spread(g, index, dim, source.shape), scaled, "add")


@emits("index_copy")
def _index_copy(g: Graph, x: Val, source: Val, dim: int, index: Val) -> str:
    return _scattered(g, x, dim, _spread(g, index, dim, source.shape), source)


@emits("index_fill")
def _index_fill(g: Graph, x: Val, dim: int, index: Val, value: Any) -> str:
    where = _spread(g, index, dim, x.shape)
    return _scattered(g, x, dim, where, g.node("Expand", g.like(value, x), g.node("Shape", where)))
