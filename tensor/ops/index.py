"""Indexing: reading and writing parts of tensors, gathering and scattering."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from ...autograd.engine import Variable, array_namespace, read
from ...autograd.op import Op, describe
from ..dtypes import BOOL, I64, category
from .declare import axis_of, single, viewing
from .faster import faster
from .rows import row_major

U8 = np.dtype("uint8")
Prepared = tuple[tuple[Any, ...], dict[str, Any]]


def plain_index(index: Any) -> tuple[Any, bool]:
    """An index in NumPy's terms, and whether it is basic (slices, ints, None, ...): then the result is a view."""
    items = index if type(index) is tuple else (index,)
    out: list[Any] = []
    basic = True
    for item in items:
        if isinstance(item, Variable):
            array = item.array
            if category(array.dtype) > 1:
                raise IndexError(f"[index] an index must be integer or bool, came {describe(item)}")
            array = mask_of("index", array)
            if not array.ndim and array.dtype != BOOL:
                read(item, "index")
                item = int(array)
            else:
                item, basic = array, False
        elif isinstance(item, list | range):
            found = _sequence_index(item)
            if isinstance(found, list):
                out.extend(found)
                continue
            item, basic = found, False
        elif type(item) in array_namespace:
            basic = basic and item.ndim == 0 and item.dtype != BOOL
        elif isinstance(item, bool | np.bool_):
            basic = False
        elif isinstance(item, slice):
            item = _slice(item)
        elif item is not None and item is not Ellipsis and not isinstance(item, int | np.integer):
            if hasattr(item, "__index__"):
                item = item.__index__()
            else:
                kind = TypeError if isinstance(item, str) else IndexError  # as PyTorch has it
                raise kind(
                    f"[index] must be ints, slices, None, ..., or integer or bool tensors, came {type(item).__name__}"
                )
        out.append(item)
    if basic and not any(item is Ellipsis for item in out):
        out.append(Ellipsis)  # without it NumPy copies a single element out instead of giving a 0-d view
    return tuple(out), basic


def mask_of(name: str, array: Any) -> Any:
    """uint8 was how PyTorch wrote masks, and it still takes them as such."""
    if array.dtype != U8:
        return array
    warnings.warn(f"[{name}] a uint8 tensor is taken as a mask, as PyTorch does: use .bool()", stacklevel=4)
    return array.astype(BOOL)


def _slice(s: slice) -> slice:
    parts = [int(p) if isinstance(p, Variable) else p for p in (s.start, s.stop, s.step)]
    if parts[2] is not None and parts[2] <= 0:
        raise ValueError(f"[index] the step of a slice must be positive, came {parts[2]}: use flip")
    return slice(*parts)


def _sequence_index(items: Any) -> Any:
    items = list(items)
    if any(isinstance(i, slice) or i is None or i is Ellipsis for i in items):
        return list(plain_index(tuple(items))[0])
    for i in items:
        if isinstance(i, Variable):
            read(i, "index")
    array = np.asarray([i.array if isinstance(i, Variable) else i for i in items])
    return array.astype(I64) if not array.size else array


def _adjoint(xp: Any, g: Any, *, shape: tuple[int, ...], index: Any, basic: bool) -> Any:
    out = xp.zeros(shape, g.dtype)
    if basic:
        out[index] += g
    elif all(type(i) not in array_namespace or i.dtype == BOOL for i in index):
        out[index] = g  # masks never name an element twice
    elif xp is np and g.dtype.kind == "f" and (d := _one_list(g, index)) is not None and index[d].ndim == 1:
        return _index_add_zeros(np, g, shape=shape, dim=d, index=index[d])
    else:
        add_at(xp, out, index, g)
    return out


def add_at(xp: Any, out: Any, index: Any, values: Any) -> None:
    """out[index] += values, where an element may be named several times."""
    if len(index) == 1 and out.ndim == 2 and index[0].dtype != BOOL and index[0].size > 32:
        rows_add(xp, out, index[0].reshape(-1), values.reshape(-1, out.shape[1]))
    else:
        xp.add.at(out, index, values)


def rows_add(xp: Any, out: Any, rows: Any, values: Any) -> None:
    """Adds values[i] to out[rows[i]]: sorted by row, then summed in runs, which keeps the order of each row's sum."""
    if xp is np and faster("rows_add", np, out, rows, values) is not None:
        return
    order = rows.argsort(kind="stable")
    sorted_rows = rows[order]
    starts = xp.flatnonzero(xp.concatenate([[True], sorted_rows[1:] != sorted_rows[:-1]]))
    out[sorted_rows[starts]] += xp.add.reduceat(values[order], starts, axis=0)


getitem_adjoint = Op(
    "getitem_adjoint",
    _adjoint,
    [lambda ops, g, index, basic: ops.getitem(g, index=index) if basic else ops.index(g, index=index)],
)
getitem = viewing(
    Op(
        "getitem",
        lambda xp, x, *, index: x[index],
        [lambda ops, g, x_shape, index: ops.getitem_adjoint(g, shape=x_shape, index=index, basic=True)],
        view=True,
        half="native",
    )
)


def _one_list(x: Any, index: Any) -> int | None:
    """The dimension that a list of positions picks from where all others are whole, if x is worth the look."""
    lists = [d for d, item in enumerate(index) if type(item) is np.ndarray]
    if x.size < LARGE or len(lists) != 1 or index[lists[0]].dtype != I64:
        return None
    d = lists[0]
    whole = [item == slice(None) for item in index[:d]] + [
        item is Ellipsis or item == slice(None) for item in index[d + 1 :]
    ]
    return d if all(whole) else None


def _index(xp: Any, x: Any, *, index: Any) -> Any:
    d = _one_list(x, index) if xp is np else None
    return x[index] if d is None else x.take(index[d], axis=d)


index = Op(
    "index",
    _index,
    [lambda ops, g, x_shape, index: ops.getitem_adjoint(g, shape=x_shape, index=index, basic=False)],
    half="native",
)


def _setitem(xp: Any, x: Any, value: Any, *, index: Any) -> Any:
    y = x.copy()
    y[index] = value
    return y


def _without(xp: Any, g: Any, *, index: Any) -> Any:
    y = g.copy()
    y[index] = 0
    return y


erase = Op(
    "erase", _without, [lambda ops, g, index: ops.erase(g, index=index)], half="native"
)  # zeros at an index: the gradient of what was overwritten
setitem = Op(
    "setitem",
    _setitem,
    [
        lambda ops, g, index: ops.erase(g, index=index),
        lambda ops, g, value_shape, index: ops.sum_to_shape(ops.index(g, index=index), shape=value_shape),
    ],
    half="native",
    hint="the value must broadcast to the indexed part",
)

# ---- along one dimension


def _index_of(name: str, index: Any) -> np.ndarray[Any, Any]:
    array = index.array if isinstance(index, Variable) else index
    if category(array.dtype) != 1:
        kind = RuntimeError if isinstance(index, Variable) else TypeError
        raise kind(f"[{name}] the index must be an integer tensor, came {describe(index)}")
    return array


def _below(index: Any, size: int) -> bool:
    """Whether all are in [0, size): one look for the largest as unsigned numbers, by argmax, which is vectorised."""
    if type(index) is not np.ndarray or index.dtype is not I64 or not index.flags.c_contiguous:
        return False
    flat = index.reshape(-1).view(np.uint64)
    return bool(flat[flat.argmax()] < size)


def _inside(name: str, index: Any, size: int, kind: type[Exception] = IndexError, low: int = 0) -> None:
    if not index.size or (low == 0 and _below(index, size)):
        return
    if index.min() < low or index.max() >= size:
        bad = index.min() if index.min() < low else index.max()
        raise kind(f"[{name}] indices must be in [{low}, {size - 1}], came {int(bad)}")


def _gather_prepare(x: Any, *, dim: int, index: Any, sure: bool = False) -> Prepared:
    """sure: the index was made by an op that gives positions of x along `dim`."""
    if sure:
        return (x,), {"dim": dim, "index": index}
    i = _index_of("gather", index)
    a = x.array if isinstance(x, Variable) else x
    d = axis_of("gather", dim, a.ndim)
    if i.size and i.ndim != a.ndim and ((a.ndim and i.ndim) or max(a.ndim, i.ndim) > 1):
        raise RuntimeError(
            f"[gather] input and index must have equally many dimensions, came {a.ndim} and {i.ndim}"
        )
    for k in range(a.ndim if i.size else 0):
        if k != d and i.ndim and i.shape[k] > a.shape[k]:
            raise RuntimeError(
                f"[gather] the index must not be larger than the input outside of dimension {d}, came"
                f" {list(i.shape)} and {list(a.shape)}"
            )
    _inside("gather", i, a.shape[d] if a.ndim else 1, RuntimeError)
    return (x,), {"dim": d, "index": i}


def along(xp: Any, index: Any, dim: int) -> tuple[Any, ...]:
    """The full index of take_along_axis, for an index smaller than the array too."""
    grid = [
        xp.arange(n).reshape((1,) * k + (n,) + (1,) * (index.ndim - k - 1)) for k, n in enumerate(index.shape)
    ]
    grid[dim] = index
    return tuple(grid)


CACHED = 4096  # offsets
LARGE = 1 << 15  # elements


def _offsets(shape: tuple[int, ...], counts: tuple[int, ...], dim: int) -> Any:
    """Where the first element of each line along `dim` stands in a flattened array of `shape`."""
    total: Any = np.zeros((), np.intp)
    for k, n in enumerate(counts):
        if k != dim:
            lines = np.arange(n) * math.prod(shape[k + 1 :])
            total = total + lines.reshape((n,) + (1,) * (len(counts) - k - 1))
    return total


_kept_offsets = lru_cache(maxsize=256)(_offsets)


def places(shape: tuple[int, ...], index: Any, dim: int) -> Any:
    """Positions in a flattened array of `shape` for positions along `dim`; many times faster than a grid of indices."""
    step = 1 if dim == len(shape) - 1 else math.prod(shape[dim + 1 :])
    at = index if step == 1 else index.astype(np.intp, copy=False) * step
    if index.ndim == 1:
        return at
    lines = index.size // max(index.shape[dim], 1)
    return at + (_kept_offsets if lines <= CACHED else _offsets)(shape, index.shape, dim)


def take_along(xp: Any, x: Any, index: Any, dim: int) -> Any:
    """The elements at positions along `dim`; the index may be smaller than x in the other dimensions."""
    if not x.ndim or not index.size or not index.ndim:
        return x.reshape(-1)[index.reshape(-1)].reshape(index.shape)
    if xp is np and index.size >= LARGE and (made := faster("take_along", xp, x, index, dim)) is not None:
        return made
    if xp is np and x.flags.c_contiguous:
        return x.reshape(-1).take(places(x.shape, index, dim))
    return x[along(xp, index, dim)]


def _gather(xp: Any, x: Any, *, dim: int, index: Any) -> Any:
    return take_along(xp, x, index, dim)


def _scatter_into_zeros(xp: Any, x: Any, *, shape: tuple[int, ...], dim: int, index: Any) -> Any:
    out = xp.zeros(shape, x.dtype)
    if not out.ndim or not index.size or not index.ndim:
        xp.add.at(out.reshape(-1), index.reshape(-1), x.reshape(-1))
    elif xp is np:
        np.add.at(out.reshape(-1), places(shape, index, dim).reshape(-1), x.reshape(-1))
    else:
        xp.add.at(out, along(xp, index, dim), x)
    return out


def _plain_prepare(x: Any, *, shape: tuple[int, ...], dim: int, index: Any) -> Prepared:
    """In a recorded backward the index comes back as a Tensor."""
    return (x,), {"shape": shape, "dim": dim, "index": _index_of("scatter", index)}


scatter_into_zeros = Op(
    "scatter_into_zeros",
    _scatter_into_zeros,
    [lambda ops, g, dim, index: ops.gather(g, dim=dim, index=index)],
    prepare=_plain_prepare,
)
gather = single(
    Op(
        "gather",
        _gather,
        [lambda ops, g, x_shape, dim, index: ops.scatter_into_zeros(g, shape=x_shape, dim=dim, index=index)],
        half="native",
        prepare=_gather_prepare,
    )
)


def _kept(index: Any, dim: int) -> Any:
    return index.reshape((*index.shape[:dim], 1, *index.shape[dim:]))


# One element of each line along `dim`, at positions that an op gave: the values of max, median and their kin.
pick = single(
    Op(
        "pick",
        lambda xp, x, *, dim, index: take_along(xp, x, _kept(index, dim), dim).reshape(index.shape),
        [
            lambda ops, g, x_shape, dim, index: ops.scatter_into_zeros(
                _kept(g, dim), shape=x_shape, dim=dim, index=_kept(index, dim)
            )
        ],
        half="native",
    )
)


def _index_select_prepare(x: Any, *, dim: int, index: Any) -> Prepared:
    i = _index_of("index_select", index)
    if i.ndim > 1:
        raise IndexError(f"[index_select] the index must have one dimension, came shape {list(i.shape)}")
    d = axis_of("index_select", dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if i.size and ((not n and x.ndim > 1) or (not x.ndim and i.size > 1)):
        raise RuntimeError(
            f"[index_select] dimension {d} must hold the positions, came {list(x.shape)} and {i.size} of them"
        )
    _inside("index_select", i, n)
    return (x,), {"dim": d, "index": i.reshape(-1)}


def _index_add_zeros(xp: Any, x: Any, *, shape: tuple[int, ...], dim: int, index: Any) -> Any:
    if xp is np and x.ndim and x.size >= LARGE and x.dtype.kind == "f":
        index = np.where(index < 0, index + shape[dim], index)
        lines = row_major(np, np.moveaxis(x, dim, 0)).reshape(index.size, -1)
        rows = np.zeros((shape[dim], lines.shape[1]), x.dtype)
        rows_add(np, rows, index, lines)
        moved = (shape[dim], *shape[:dim], *shape[dim + 1 :])
        return row_major(np, np.moveaxis(rows.reshape(moved), 0, dim))
    out = xp.zeros(shape, x.dtype)
    xp.add.at(
        xp.moveaxis(out, dim, 0) if out.ndim else out.reshape(1),
        index,
        xp.moveaxis(x, dim, 0) if x.ndim else x,
    )
    return out


index_add_zeros = Op(
    "index_add_zeros",
    _index_add_zeros,
    [lambda ops, g, dim, index: ops.index_select(g, dim=dim, index=index)],
    prepare=_plain_prepare,
)
index_select = Op(
    "index_select",
    lambda xp, x, *, dim, index: xp.take(x, index, axis=dim) if x.ndim else x.copy(),
    [lambda ops, g, x_shape, dim, index: ops.index_add_zeros(g, shape=x_shape, dim=dim, index=index)],
    half="native",
    prepare=_index_select_prepare,
)
