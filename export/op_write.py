"""Writing a part of a tensor as ONNX nodes: a new tensor each time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .compare import Dim
from .graph import Graph, Val
from .op_index import _one_dimension, _places, _scalar, _spelled, _together
from .op_shape import fixed, plus
from .table import emits
from .trace import ExportError

I64 = np.dtype(np.int64)


def _zeros(g: Graph, shape: Any, dtype: Any) -> Val:
    return Val(g.node("Expand", g.constant(0, dtype), g.ints(shape)), tuple(shape), dtype)


def _flat(g: Graph, x: Any) -> str:
    return g.node("Reshape", x, g.ints([-1]))


def written(g: Graph, x: Val, value: Any, index: Any, adds: bool = False) -> str:
    """x with `value` (a Val, or a number) at an index, or added there."""
    items = _spelled(index, x.ndim)
    masks = [i for i in items if isinstance(i, Val) and i.dtype == np.bool_]
    if any(m.array is None for m in masks):
        return _where(g, x, value, items)
    items = [part for i in items for part in (_places(g, i) if i in masks else [i])]
    plain = all(not isinstance(i, Val) and (not isinstance(i, slice) or i.step in (None, 1)) for i in items)
    if plain and not adds:
        return _pieces(g, x, value, items)
    axes = [i for i in items if i is not None]
    if None not in items and all(i == slice(None) for i in axes if isinstance(i, slice)):
        return _rows(g, x, value, axes, "add" if adds else None)
    return _by_number(g, x, value, items, "add" if adds else None)


def _where(g: Graph, x: Val, value: Any, items: list[Any]) -> str:
    """One value where a mask of the first dimensions is True."""
    mask, *rest = items
    if not isinstance(mask, Val) or any(i != slice(None) for i in rest):
        raise ExportError("[onnx] a mask that depends on the inputs must be the only index: use where")
    if isinstance(value, Val) and any(n != 1 for n in value.shape):
        raise ExportError("[onnx] where the mask depends on the inputs, one value can be written: use where")
    number = g.node("Reshape", value, g.ints([])) if isinstance(value, Val) else g.like(value, x)
    spread = g.node("Unsqueeze", mask, g.ints(range(mask.ndim, x.ndim))) if x.ndim > mask.ndim else mask
    return g.node("Where", spread, number, x)


def _pieces(g: Graph, x: Val, value: Any, items: list[Any]) -> str:
    """Ints and slices: dimension by dimension, what stands before, the new part, what stands after."""
    axes = [i for i in items if i is not None]
    shape: list[Any] = []  # of the value, as the index reads it
    kept: list[Any] = []  # of the part of x
    bounds = [_bounds(g, i, n) for i, n in zip(axes, x.shape)]
    kept = [length for _, _, length in bounds]
    place = iter(kept)
    for item in items:
        n = 1 if item is None else next(place)
        if item is None or isinstance(item, slice):
            shape.append(n)
    new = value.name if isinstance(value, Val) else g.like(value, x)
    new = g.reshape(g.node("Expand", new, g.ints(shape)), kept)

    def inside(whole: str, axis: int) -> str:
        while axis < x.ndim and isinstance(axes[axis], slice) and axes[axis] == slice(None):
            axis += 1
        if axis == x.ndim:
            return new
        start, stop, _ = bounds[axis]
        parts = [inside(g.slice(whole, axis, start, stop), axis + 1)]
        parts = parts if start == 0 else [g.slice(whole, axis, 0, start), *parts]
        parts = parts if stop == x.shape[axis] else [*parts, g.slice(whole, axis, stop, 2**63 - 1)]
        return parts[0] if len(parts) == 1 else g.node("Concat", *parts, axis=axis)

    return g.node("Identity", inside(x.name, 0))


def _bounds(g: Graph, item: Any, n: Any) -> tuple[Any, Any, Any]:
    """Start, stop and length of an int or slice in a dimension of size n."""
    if not isinstance(item, slice):
        at = plus(g, item, n) if not isinstance(item, Dim) and item < 0 else item
        return at, plus(g, at, 1), 1
    if item == slice(None):
        return 0, n, n
    if not any(isinstance(v, Dim) for v in (item.start, item.stop, n)):
        start, stop, _ = item.indices(n)
        return start, max(start, stop), max(start, stop) - start
    start = item.start or 0
    stop = n if item.stop is None else item.stop
    start, stop = (plus(g, v, n) if isinstance(v, int) and v < 0 else v for v in (start, stop))
    return start, stop, plus(g, stop, start, -1)


def _rows(g: Graph, x: Val, value: Any, axes: list[Any], reduction: str | None) -> str:
    """Index tensors and whole dimensions: ScatterND, with the indexed dimensions first."""
    taken = [a for a, i in enumerate(axes) if not isinstance(i, slice)]
    rest = [a for a in range(x.ndim) if a not in taken]
    indices = [axes[a] if isinstance(axes[a], Val) else Val(_scalar(g, axes[a]), (), I64) for a in taken]
    common = _common_shape([i.shape for i in indices])
    rank = len(common)
    front = taken[0] if taken == list(range(taken[0], taken[-1] + 1)) else 0
    sizes = [x.shape[a] for a in rest]
    new = value.name if isinstance(value, Val) else g.like(value, x)
    new = g.node("Expand", new, g.ints([*sizes[:front], *common, *sizes[front:]]))
    order = [*range(front, front + rank), *range(front), *range(front + rank, rank + len(rest))]
    new = g.node("Transpose", new, perm=order)
    there = [*taken, *rest]
    moved = g.node("Transpose", x, perm=there)
    y = g.node("ScatterND", moved, _together(g, indices, rank), new, reduction=reduction)
    return g.node("Transpose", y, perm=[there.index(a) for a in range(x.ndim)])


def _common_shape(shapes: list[Any]) -> tuple[Any, ...]:
    """What index tensors broadcast to; a size that varies is never stretched."""
    rank = max(map(len, shapes))
    columns = zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes))
    return tuple(next((n for n in column if n != 1), 1) for column in columns)


def _by_number(g: Graph, x: Val, value: Any, items: list[Any], reduction: str | None) -> str:
    """Any fixed index of fixed sizes: the numbers of the elements that it names."""
    shape = fixed(1, 1, *x.shape)[2:]
    if any(isinstance(i, Val) and i.array is None for i in items):
        raise ExportError(
            "[onnx] index tensors that depend on the inputs must not stand beside parts of slices"
        )
    index = tuple(i.array if isinstance(i, Val) else i for i in items)
    places = np.arange(math.prod(shape)).reshape(shape)[index]
    new = value.name if isinstance(value, Val) else g.like(value, x)
    new = _flat(g, g.node("Expand", new, g.ints(places.shape)))
    return at_numbers(g, x, new, places, reduction)


def at_numbers(g: Graph, x: Val, new: str, places: Any, reduction: str | None) -> str:
    """x with new values at the positions `places` of its flattened form."""
    at = g.constant(places.reshape(-1), np.int64)
    y = g.node("ScatterElements", _flat(g, x), at, new, axis=0, reduction=reduction)
    return g.reshape(y, x.shape)


@emits("setitem", sizes=("index",))
def _setitem(g: Graph, x: Val, value: Any, index: Any) -> str:
    if isinstance(value, Val):
        lead = max(value.ndim - x.ndim - sum(i is None for i in _spelled(index, x.ndim)), 0)
        name = value.name if value.dtype == x.dtype else g.cast(value, x.dtype)
        name = g.node("Squeeze", name, g.ints(range(lead))) if lead else name
        value = Val(name, value.shape[lead:], x.dtype)
    return written(g, x, value, index)


@emits("erase", sizes=("index",))
def _erase(g: Graph, x: Val, index: Any) -> str:
    return written(g, x, 0, index)


@emits("index_accumulate", sizes=("index",))
def _index_accumulate(g: Graph, x: Val, values: Val, index: Any) -> str:
    return written(g, x, values, index, adds=True)


@emits("getitem_adjoint", sizes=("index", "shape"))
def _getitem_adjoint(g: Graph, x: Val, shape: Any, index: Any, basic: bool) -> str:
    """Zeros, but for x at an index."""
    return written(g, _zeros(g, shape, x.dtype), x, index, adds=not basic)


@emits("narrow_adjoint", sizes=("shape", "start"))
def _narrow_adjoint(g: Graph, x: Val, shape: Any, dim: int, start: Any) -> str:
    part = slice(start, plus(g, start, x.shape[dim]))
    return written(g, _zeros(g, shape, x.dtype), x, (*[slice(None)] * dim, part))


@emits("masked_scatter")
def _masked_scatter(g: Graph, x: Val, source: Val, mask: Val) -> str:
    """The number of True up to an element says which one of the source is written there."""
    count = g.node("CumSum", g.cast(_flat(g, mask), np.int64), g.constant(0, np.int64))
    places = g.node("Max", g.node("Sub", count, g.constant(1, np.int64)), g.constant(0, np.int64))
    picked = g.node("Gather", _flat(g, source), places, axis=0)
    return g.node("Where", mask, g.reshape(picked, x.shape), x)


@emits("scatter_into_zeros", sizes=("shape",))
def _scatter_into_zeros(g: Graph, x: Val, shape: Any, dim: int, index: Val) -> str:
    zeros = _zeros(g, shape, x.dtype)
    parts = [_one_dimension(g, v) for v in (zeros, index, x)]
    y = g.node("ScatterElements", *parts, axis=dim, reduction="add")
    return y if zeros.ndim and index.ndim else g.reshape(y, shape)


__all__ = ["at_numbers", "written"]
