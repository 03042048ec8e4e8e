"""Ops that write at positions: scatter, index_add and their kin, out of place (the in-place forms reuse them)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...autograd.engine import Variable
from ...autograd.op import Op, describe
from ..dtypes import BOOL, category
from .declare import axis_of
from .faster import faster
from .index import add_at

Prepared = tuple[tuple[Any, ...], dict[str, Any]]
Array = Any


def plain(index: Any) -> Array:
    return index.array if isinstance(index, Variable) else index


def integer_index(name: str, index: Any) -> Array:
    array = plain(index)
    if getattr(array, "dtype", BOOL).kind not in "iu":
        kind = RuntimeError if isinstance(index, Variable) else TypeError
        raise kind(f"[{name}] the index must be an integer tensor, came {describe(index)}")
    return array


def check_range(
    name: str, index: Array, size: int, error: type[Exception] = IndexError, low: int = 0
) -> None:
    if index.size and (index.min() < low or index.max() >= size):
        bad = index.min() if index.min() < low else index.max()
        raise error(f"[{name}] indices must be in [{low}, {size - 1}], came {int(bad)}")


def _dtype(x: Any) -> Any:
    return plain(x).dtype


def _scatter_prepare(name: str, x: Any, src: Any, dim: int, index: Any) -> tuple[int, Array]:
    i = integer_index(name, index)
    d = axis_of(name, dim, x.ndim)
    if max(i.ndim, 1) != max(x.ndim, 1) and i.size:
        raise RuntimeError(
            f"[{name}] index and input must have equally many dimensions, came {i.ndim} and {x.ndim}"
        )
    if i.size:
        check_range(name, i, x.shape[d] if x.ndim else 1, RuntimeError)
    if src is not None:
        if _dtype(src) != _dtype(x):
            raise RuntimeError(
                f"[{name}] input and src must have one dtype, came {describe(x)} and {describe(src)}"
            )
        if i.size and (max(src.ndim, 1) != max(i.ndim, 1) or (i.ndim > 1 and not src.ndim)):
            raise (IndexError if 0 < src.ndim <= d and 0 not in src.shape else RuntimeError)(
                f"[{name}] index and src must have equally many dimensions, came {i.ndim} and {src.ndim}"
            )
    for k in range(i.ndim if i.size else 0):
        large = src is not None and src.ndim and i.shape[k] > src.shape[k]
        if large or (k != d and x.ndim and i.shape[k] > x.shape[k]):
            raise RuntimeError(
                f"[{name}] the index {list(i.shape)} must not be larger than the src"
                f" {list(src.shape) if src is not None else ''}, nor than the input {list(x.shape)} outside of"
                f" dimension {d}"
            )
    return d, i


def flat_index(xp: Any, shape: tuple[int, ...], dim: int, index: Array) -> Array:
    """Positions in the flattened array of the elements that `gather` along `dim` would read."""
    if not shape or not index.ndim or len(shape) == 1:
        return index.reshape(-1)
    stride: int = 1
    flat: Any = 0
    for k in range(len(shape) - 1, -1, -1):
        if k == dim:
            flat = flat + index * stride
        else:
            step = [1] * len(shape)
            step[k] = index.shape[k]
            flat = flat + (xp.arange(index.shape[k]) * stride).reshape(step)
        stride *= shape[k]
    return flat.reshape(-1)


def fitting(src: Array, index: Array) -> Array:
    """The part of `src` that the index uses, flat."""
    if src.shape != index.shape and src.ndim:
        src = src[tuple(slice(n) for n in index.shape)]
    return src.reshape(-1)


def padded(ops: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """Zeros after the end of each dimension, up to `shape`: the adjoint of `fitting`."""
    if not shape:
        return g.reshape(())
    for d, n in enumerate(shape):
        if g.shape[d] != n:
            g = ops.narrow_adjoint(g, shape=(*g.shape[:d], n, *g.shape[d + 1 :]), dim=d, start=0)
    return g


def _fresh(xp: Any, x: Array) -> tuple[Array, Array]:
    """A copy to write to, and its elements as one row of the same memory."""
    y = xp.array(x, order="C")
    return y, y.reshape(-1)


def _scatter(xp: Any, x: Array, src: Array, *, dim: int, index: Array) -> Array:
    y, flat = _fresh(xp, x)
    flat[flat_index(xp, x.shape, dim, index)] = fitting(src, index)
    return y


def _two(name: str) -> Any:
    def prepare(x: Any, src: Any, *, dim: int, index: Any, **kw: Any) -> Prepared:
        d, i = _scatter_prepare(name, x, src, dim, index)
        return (x, src), {"dim": d, "index": i, **kw}

    return prepare


scatter_value = Op(
    "scatter_value",
    lambda xp, x, *, dim, index, value: _filled(xp, x, dim, index, value),
    [lambda ops, g, dim, index: ops.scatter_value(g, dim=dim, index=index, value=0)],
    half="native",
    prepare=lambda x, *, dim, index, value: (
        (x,),
        dict(zip(("dim", "index", "value"), (*_scatter_prepare("scatter", x, None, dim, index), value))),
    ),
)


def _filled(xp: Any, x: Array, dim: int, index: Array, value: Any) -> Array:
    y, flat = _fresh(xp, x)
    flat[flat_index(xp, x.shape, dim, index)] = value
    return y


def _read(ops: Any, g: Any, src_shape: Any, dim: int, index: Any) -> Any:
    return padded(ops, ops.gather(g, dim=dim, index=index), src_shape)


scatter = Op(
    "scatter",
    _scatter,
    [lambda ops, g, dim, index: ops.scatter_value(g, dim=dim, index=index, value=0), _read],
    half="native",
    prepare=_two("scatter"),
)


def _scatter_add(xp: Any, x: Array, src: Array, *, dim: int, index: Array) -> Array:
    y, flat = _fresh(xp, x)
    if x.dtype == BOOL:
        xp.logical_or.at(flat, flat_index(xp, x.shape, dim, index), fitting(src, index))
    else:
        xp.add.at(flat, flat_index(xp, x.shape, dim, index), fitting(src, index))
    return y


scatter_add = Op("scatter_add", _scatter_add, [lambda g: g, _read], prepare=_two("scatter_add"))

# ---- scatter_reduce

REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _identity(xp: Any, dtype: Any, reduce: str) -> Any:
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if category(dtype) == 2:
        return xp.inf if reduce == "amin" else -xp.inf
    if category(dtype) == 0:
        return reduce == "amin"
    return xp.iinfo(dtype).max if reduce == "amin" else xp.iinfo(dtype).min


def _counts(xp: Any, shape: tuple[int, ...], at: Array, include_self: bool) -> Array:
    size = int(np.prod(shape))
    return xp.bincount(at, minlength=size).reshape(shape) + int(include_self)


def _scatter_reduce(
    xp: Any, x: Array, src: Array, *, dim: int, index: Array, reduce: str, include_self: bool
) -> Array:
    y, flat = _fresh(xp, x)
    at, values = flat_index(xp, x.shape, dim, index), fitting(src, index)
    if not include_self:
        flat[at] = _identity(xp, x.dtype, reduce)
    names = {"sum": "add", "mean": "add", "prod": "multiply", "amax": "maximum", "amin": "minimum"}
    getattr(xp, names[reduce]).at(flat, at, values)
    if reduce == "mean":
        n = xp.maximum(_counts(xp, x.shape, at, include_self), 1)
        y = (y / n).astype(x.dtype) if category(x.dtype) > 1 else y // n
    return y


def _mean_rule(ops: Any, g: Any, x: Any, src: Any, dim: int, index: Any, include_self: bool) -> Any:
    ones = src * 0 + 1
    n = ops.scatter_add(g * 0 + int(include_self), ones, dim=dim, index=index)
    return g / ops.clamp(n, 1)


def _prod_rule(
    ops: Any, g: Any, x: Any, src: Any, y: Any, dim: int, index: Any, include_self: bool
) -> tuple[Any, Any]:
    """Products of all others. A zero is left out by counting: with one zero only that one has a gradient."""
    used = ops.gather(g * y, dim=dim, index=index)
    nothing, one = g * 0, g * 0 + 1
    full = padded(ops, used, tuple(src.shape)) * 0 + src
    zero_x, zero_src = ops.cast(x == 0, dtype=g.dtype), ops.cast(full == 0, dtype=g.dtype)
    zeros = ops.scatter_add(zero_x if include_self else nothing, zero_src, dim=dim, index=index)
    safe_x, safe_src = x + zero_x, full + zero_src
    kw = {"dim": dim, "index": index, "reduce": "prod", "include_self": include_self}
    rest = ops.scatter_reduce(safe_x if include_self else one, safe_src, **kw)
    none, single = ops.cast(zeros == 0, dtype=g.dtype), ops.cast(zeros == 1, dtype=g.dtype)
    gx = g * rest / safe_x * (none + single * zero_x) if include_self else g
    at = padded(ops, ops.gather(g * rest * none, dim=dim, index=index), tuple(src.shape))
    lone = padded(ops, ops.gather(g * rest * single, dim=dim, index=index), tuple(src.shape))
    return gx, (at + lone * zero_src) / safe_src


def _scatter_reduce_rule(
    ops: Any,
    g: Any,
    needs: Any,
    x: Any,
    src: Any,
    y: Any,
    dim: int,
    index: Any,
    reduce: str,
    include_self: bool,
) -> list[Any]:
    index = plain(index)
    where = {"dim": dim, "index": index}
    shape = tuple(src.shape)
    if reduce == "prod":
        gx, gs = _prod_rule(ops, g, x, src, y, dim, index, include_self)
    elif reduce in ("sum", "mean"):
        gx = g if reduce == "sum" else _mean_rule(ops, g, x, src, dim, index, include_self)
        gs = padded(ops, ops.gather(gx, **where), shape)
    else:
        best = padded(ops, ops.gather(y, **where), shape)
        hit_x, hit_src = ops.cast(x == y, dtype=g.dtype), ops.cast(src == best, dtype=g.dtype)
        share = g / ops.clamp(ops.scatter_add(hit_x if include_self else g * 0, hit_src, **where), 1)
        gx = hit_x * share
        gs = hit_src * padded(ops, ops.gather(share, **where), shape)
    if not include_self:
        gx = ops.scatter_value(gx if reduce not in ("amax", "amin") else g, **where, value=0)
    return [gx, gs]


def _reduce_prepare(
    x: Any, src: Any, *, dim: int, index: Any, reduce: str, include_self: bool = True
) -> Prepared:
    if reduce not in REDUCTIONS:
        raise RuntimeError(f"[scatter_reduce] reduce must be one of {', '.join(REDUCTIONS)}, came {reduce!r}")
    d, i = _scatter_prepare("scatter_reduce", x, src, dim, index)
    return (x, src), {"dim": d, "index": i, "reduce": reduce, "include_self": include_self}


scatter_reduce = Op("scatter_reduce", _scatter_reduce, _scatter_reduce_rule, prepare=_reduce_prepare)

# ---- along one dimension


def _index_prepare(name: str, x: Any, source: Any, dim: int, index: Any) -> tuple[int, Array]:
    i = integer_index(name, index)
    d = axis_of(name, dim, x.ndim)
    if i.ndim > 1:
        raise IndexError(f"[{name}] the index must have one dimension, came shape {list(i.shape)}")
    i = i.reshape(-1)
    n = x.shape[d] if x.ndim else 1
    check_range(name, i, n, low=-n if name == "index_fill" else 0)
    if source is not None:
        if _dtype(source) != _dtype(x):
            raise RuntimeError(
                f"[{name}] input and source must have one dtype, came {describe(x)} and {describe(source)}"
            )
        want = (*x.shape[:d], len(i), *x.shape[d + 1 :]) if x.ndim else ()
        if tuple(source.shape) != tuple(want) and (
            x.ndim or source.size if not callable(source.size) else x.ndim
        ):
            raise (RuntimeError if name == "index_add" else IndexError)(
                f"[{name}] the source must have the shape {list(want)}, came {list(source.shape)}"
            )
    return d, i


def _lines(source: Array, dim: int, width: int) -> Array:
    return np.moveaxis(source, dim, 0).reshape(-1, width)


def _index_add(xp: Any, x: Array, source: Array, *, dim: int, index: Array, alpha: Any) -> Array:
    if alpha != 1:
        source = source * x.dtype.type(alpha)
    if not x.ndim or not index.size:
        return x + source.sum() if index.size else x.copy()
    y = xp.array(xp.moveaxis(x, dim, 0), order="C")
    width = y.size // y.shape[0] if y.size else 0
    if (
        width > 1
        and faster("rows_add", xp, y.reshape(-1, width), index, _lines(source, dim, width)) is not None
    ):
        return xp.moveaxis(y, 0, dim)
    at = (index[:, None] * width + xp.arange(width)).reshape(-1)  # NumPy adds fast at flat positions only
    xp.add.at(y.reshape(-1), at, xp.moveaxis(source, dim, 0).reshape(-1))
    return xp.moveaxis(y, 0, dim)


index_add = Op(
    "index_add",
    _index_add,
    [
        lambda g: g,
        lambda ops, g, source_shape, dim, index, alpha: (
            ops.index_select(g, dim=dim, index=index).reshape(source_shape) * alpha
        ),
    ],
    prepare=lambda x, source, *, dim, index, alpha=1: (
        (x, source),
        {**dict(zip(("dim", "index"), _index_prepare("index_add", x, source, dim, index))), "alpha": alpha},
    ),
)


def _at(x: Array, dim: int, index: Array) -> Any:
    return (slice(None),) * dim + (index,) if x.ndim else ...


def _index_copy(xp: Any, x: Array, source: Array, *, dim: int, index: Array) -> Array:
    y = xp.array(x)
    if index.size:
        y[_at(x, dim, index)] = source
    return y


def _index_fill(xp: Any, x: Array, *, dim: int, index: Array, value: Any) -> Array:
    y = xp.array(x)
    if index.size:
        y[_at(x, dim, index)] = value
    return y


index_fill = Op(
    "index_fill",
    _index_fill,
    [lambda ops, g, dim, index: ops.index_fill(g, dim=dim, index=index, value=0)],
    half="native",
    prepare=lambda x, *, dim, index, value: (
        (x,),
        {**dict(zip(("dim", "index"), _index_prepare("index_fill", x, None, dim, index))), "value": value},
    ),
)
index_copy = Op(
    "index_copy",
    _index_copy,
    [
        lambda ops, g, dim, index: ops.index_fill(g, dim=dim, index=index, value=0),
        lambda ops, g, source_shape, dim, index: ops.index_select(g, dim=dim, index=index).reshape(
            source_shape
        ),
    ],
    half="native",
    prepare=lambda x, source, *, dim, index: (
        (x, source),
        dict(zip(("dim", "index"), _index_prepare("index_copy", x, source, dim, index))),
    ),
)

# ---- by full indices and masks


def _index_accumulate(xp: Any, x: Array, values: Array, *, index: tuple[Any, ...]) -> Array:
    y = xp.array(x)
    add_at(xp, y, index, xp.broadcast_to(values, x[index].shape))
    return y


index_accumulate = Op(
    "index_accumulate",
    _index_accumulate,
    [
        lambda g: g,
        lambda ops, g, values_shape, index: ops.sum_to_shape(ops.index(g, index=index), shape=values_shape),
    ],
    hint="the values must broadcast to the indexed part",
)


def _masked_scatter(xp: Any, x: Array, source: Array, *, mask: Array) -> Array:
    y = xp.array(x)
    y[mask] = source.reshape(-1)[: int(mask.sum())]
    return y


def _masked_source(ops: Any, g: Any, source_shape: tuple[int, ...], mask: Any) -> Any:
    taken = ops.index(g, index=(plain(mask),))
    return padded(ops, taken, (int(np.prod(source_shape)),)).reshape(source_shape)


def _masked_prepare(x: Any, source: Any, *, mask: Any) -> Prepared:
    m = plain(mask)
    if m.dtype != BOOL:
        raise RuntimeError(f"[masked_scatter] the mask must be a bool tensor, came {describe(mask)}")
    if _dtype(source) != _dtype(x):
        raise RuntimeError(
            f"[masked_scatter] input and source must have one dtype, came {describe(x)} and {describe(source)}"
        )
    m = np.broadcast_to(m, x.shape)
    have = plain(source).size
    if have < m.sum():
        raise RuntimeError(
            f"[masked_scatter] the source must have at least {int(m.sum())} elements, came {have}"
        )
    return (x, source), {"mask": m}


masked_scatter = Op(
    "masked_scatter",
    _masked_scatter,
    [lambda ops, g, mask: ops.masked_fill(g, plain(mask), 0), _masked_source],
    half="native",
    prepare=_masked_prepare,
)
