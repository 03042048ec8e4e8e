"""Writing at positions under PyTorch's names: scatter, index_add and their kin, in place and not."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.engine import Variable, wrap
from ..autograd.inplace import apply_inplace, assign, written
from ..autograd.op import listeners
from .checks import tensors
from .dtypes import category
from .ops import index as _index
from .ops import scatter as _w
from .ops import shape as _s
from .ops.declare import axis_of

if TYPE_CHECKING:
    from .tensor import Tensor

Call = Callable[..., Any]


def _plainly(op: Any, x: Any, *others: Any, **kw: Any) -> Any:
    return op(x, *others, **kw)


def _number(x: Any, value: Any) -> Any:
    """A number in the type of a tensor's elements."""
    if isinstance(value, Variable):
        value = value.item()
    return value


def _in_place(op: Any, x: Any, *others: Any, **kw: Any) -> Any:
    """`apply_inplace`, or only the named elements written where no graph is recorded."""
    write: Any = _DIRECT.get(op)
    if (
        write is None
        or listeners
        or x._base is not None
        or not isinstance(x.array, np.ndarray)
        or not x.array.flags.carray
        or any(t._needs for t in (x, *others))
    ):
        return apply_inplace(op, x, *others, **kw)
    _, kw = op.prepare(x, *others, **kw)
    flat = x.array.reshape(-1)
    write(flat, _w.flat_index(np, x.array.shape, kw["dim"], kw["index"]), *[t.array for t in others], **kw)
    written(x)
    return x


def _write_value(flat: Any, at: Any, *, value: Any, **_: Any) -> None:
    flat[at] = value


def _write(flat: Any, at: Any, src: Any, *, index: Any, **_: Any) -> None:
    flat[at] = _w.fitting(src, index)


def _write_sum(flat: Any, at: Any, src: Any, *, index: Any, **_: Any) -> None:
    (np.logical_or if flat.dtype == bool else np.add).at(flat, at, _w.fitting(src, index))


_DIRECT = {_w.scatter_value: _write_value, _w.scatter: _write, _w.scatter_add: _write_sum}

# ---- scatter

_OLD = {"add": "sum", "multiply": "prod"}


def _scatter(call: Call, input: Any, dim: int, index: Any, src: Any, value: Any, reduce: str | None) -> Any:
    src = value if src is None else src
    if src is None:
        raise TypeError("[scatter] must be given src, a tensor, or value, a number")
    if reduce is not None and reduce not in _OLD:
        raise RuntimeError(f"[scatter] reduce must be 'add' or 'multiply', came {reduce!r}")
    if isinstance(src, Variable) and (reduce is None or src.ndim or not input.ndim):
        if reduce is None:
            return call(_w.scatter, input, src, dim=dim, index=index)
        return call(_w.scatter_reduce, input, src, dim=dim, index=index, reduce=_OLD[reduce])
    if not isinstance(src, Variable | Number | np.bool_):
        raise TypeError(f"[scatter] src must be a Tensor or a number, came {type(src).__name__} {src!r}")
    number = _number(input, src)
    if reduce is None:
        return call(_w.scatter_value, input, dim=dim, index=index, value=number)
    spread = wrap(np.full(index.array.shape, number, input.array.dtype))
    return call(_w.scatter_reduce, input, spread, dim=dim, index=index, reduce=_OLD[reduce])


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """A copy with out[index[i][j]][j] = src[i][j] for dim 0, and so on; `src` is a tensor or a number."""
    return _scatter(_plainly, input, dim, index, src, value, reduce)


def scatter_(
    self: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """`scatter` in place."""
    return _scatter(_in_place, self, dim, index, src, value, reduce)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy to which src[i][j] is added at [index[i][j]][j] for dim 0, and so on."""
    return _w.scatter_add(input, src, dim=dim, index=index)


def scatter_add_(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`scatter_add` in place."""
    return _in_place(_w.scatter_add, self, src, dim=dim, index=index)


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy where all src elements of one place are reduced: "sum", "prod", "mean", "amax" or "amin"."""
    return _w.scatter_reduce(input, src, dim=dim, index=index, reduce=reduce, include_self=include_self)


def scatter_reduce_(
    self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`scatter_reduce` in place."""
    kw = {"dim": dim, "index": index, "reduce": reduce, "include_self": include_self}
    return apply_inplace(_w.scatter_reduce, self, src, **kw)


# ---- index_*


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy to whose named positions of `dim` `alpha * source` is added."""
    return _w.index_add(input, source, dim=dim, index=index, alpha=alpha)


def index_add_(self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """`index_add` in place."""
    return apply_inplace(_w.index_add, self, source, dim=dim, index=index, alpha=alpha)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy whose named positions of `dim` are those of `source`."""
    return _w.index_copy(input, source, dim=dim, index=index)


def index_copy_(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`index_copy` in place."""
    return apply_inplace(_w.index_copy, self, source, dim=dim, index=index)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with one value at the named positions of `dim`."""
    return _w.index_fill(input, dim=dim, index=index, value=_number(input, value))


def index_fill_(self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """`index_fill` in place."""
    return apply_inplace(_w.index_fill, self, dim=dim, index=index, value=_number(self, value))


_STEPS = {"prod": "prod", "mean": "mean", "amax": "amax", "amin": "amin"}


def _spread_index(input: Any, dim: int, index: Any, source: Any) -> tuple[int, Any]:
    d = axis_of("index_reduce", dim, input.ndim)
    shape = [1] * source.ndim
    shape[d] = -1
    return d, wrap(np.broadcast_to(index.array.reshape(shape), source.array.shape))


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy whose named positions of `dim` are reduced with `source`: "prod", "mean", "amax" or "amin"."""
    d, full = _spread_index(input, dim, index, source)
    return scatter_reduce(input, d, full, source, _STEPS.get(reduce, reduce), include_self=include_self)


def index_reduce_(
    self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`index_reduce` in place."""
    d, full = _spread_index(self, dim, index, source)
    return scatter_reduce_(self, d, full, source, _STEPS.get(reduce, reduce), include_self=include_self)


def index_put_(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """self[indices] = values, or += where `accumulate`, elements named twice counting twice."""
    index = _index.plain_index(tuple(indices))[0]
    if accumulate:
        return apply_inplace(_w.index_accumulate, self, values, index=index)
    assign(self, index, values)
    return self


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """`index_put_` on a copy."""
    return index_put_(input.clone(), indices, values, accumulate)


# ---- masks and flat positions


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy into which elements of `source` are written in order where the mask is True."""
    shape = np.broadcast_shapes(input.array.shape, mask.array.shape)
    return _w.masked_scatter(_s.expand(input, shape=shape), source, mask=mask)


def masked_scatter_(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`masked_scatter` in place."""
    return apply_inplace(_w.masked_scatter, self, source, mask=mask)


def _flat(name: str, input: Any, index: Any) -> Any:
    array, n = _w.integer_index(name, index), input.array.size
    _w.check_range(name, array, n, low=-n)
    return wrap(np.where(array < 0, array + n, array).reshape(-1))


def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the flattened tensor, in the shape of the index."""
    at = _w.integer_index("take", index)
    return _index.index(_s.reshape(input, shape=(-1,)), index=(at,))


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with elements of the flattened tensor overwritten (or added to)."""
    flat, at = _s.reshape(input, shape=(-1,)), _flat("put", input, index)
    values = _s.reshape(source, shape=(-1,))
    op = _w.index_add if accumulate else _w.index_copy
    return _s.reshape(op(flat, values, dim=0, index=at), shape=input.array.shape)


def put_(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """`put` in place."""
    at = np.unravel_index(_flat("put_", self, index).array, self.array.shape) if self.ndim else (...,)
    return index_put_(
        self, [wrap(i) for i in at] if self.ndim else at, _s.reshape(source, shape=(-1,)), accumulate
    )


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather`, with shapes broadcast; without `dim` from the flattened tensor."""
    if indices.array.dtype.kind not in "iu":
        raise RuntimeError(f"[take_along_dim] the indices must be integers, came {indices.dtype}")
    if dim is None:
        flat = _s.reshape(input, shape=(-1,))
        return _index.gather(flat, dim=0, index=_s.reshape(indices, shape=(-1,)))
    d = axis_of("take_along_dim", dim, input.ndim)
    if input.ndim != indices.ndim:
        raise RuntimeError(
            f"[take_along_dim] both must have equally many dimensions, came {input.ndim} and {indices.ndim}"
        )
    shape = list(np.broadcast_shapes(_without(input, d), _without(indices, d)))
    a, b = list(shape), list(shape)
    a[d], b[d] = input.shape[d], indices.shape[d]
    return _index.gather(_s.expand(input, shape=a), dim=d, index=_s.expand(indices, shape=b))


def _without(x: Any, d: int) -> tuple[int, ...]:
    return (*x.shape[:d], 1, *x.shape[d + 1 :])


# ---- parts overwritten, out of place


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with `src` at one position of `dim`."""
    out = input.clone()
    d = axis_of("select_scatter", dim, input.ndim)
    assign(out, (slice(None),) * d + (index,), src)
    return out


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy with `src` at a slice of `dim`."""
    tensors("slice_scatter", src)
    out = input.clone()
    d = axis_of("slice_scatter", dim, input.ndim)
    place = (slice(None),) * d + (slice(start, end, step),)
    _fits("slice_scatter", src, out[place])
    assign(out, place, src)
    return out


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy with `src` on a diagonal."""
    tensors("diagonal_scatter", src)
    out = input.clone()
    _fits("diagonal_scatter", src, _s.diagonal(out, offset=offset, dim1=dim1, dim2=dim2)).copy_(src)
    return out


def _fits(name: str, src: Tensor, part: Any) -> Any:
    if src.shape != part.shape:
        raise RuntimeError(
            f"[{name}] src must have the shape {list(part.shape)} of its place, came {list(src.shape)}"
        )
    return part


def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """One value on the main diagonal; `wrap` starts anew below the square part of a tall matrix."""
    shape = self.array.shape
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise RuntimeError(
            f"[fill_diagonal_] must be a matrix, or have equal dimensions, came shape {list(shape)}"
        )
    n = min(shape)
    at: list[Any] = [np.arange(n)] * len(shape)
    if wrap and len(shape) == 2:
        flat = np.arange(0, shape[0] * shape[1], shape[1] + 1)
        at = list(np.unravel_index(flat, shape))
    assign(self, tuple(at), fill_value)
    return self


def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element (or slice along `dim`) repeated; with counts alone, each position so often."""
    if repeats is None:
        return wrap(np.repeat(np.arange(input.array.size), input.array))
    if not isinstance(repeats, Variable | int | list | tuple):
        raise TypeError(
            f"[repeat_interleave] repeats must be an int or a Tensor, came {type(repeats).__name__}"
        )
    counts = repeats.array if isinstance(repeats, Variable) else np.asarray(repeats)
    if category(counts.dtype) != 1:
        raise RuntimeError(f"[repeat_interleave] repeats must be integers, came {counts.dtype.name}")
    if counts.size and counts.min() < 0:
        raise RuntimeError(f"[repeat_interleave] repeats must not be negative, came {int(counts.min())}")
    if dim is None:
        input, dim = _s.reshape(input, shape=(-1,)), 0
    d = axis_of("repeat_interleave", dim, input.ndim)
    n = input.shape[d] if input.ndim else 1
    if counts.size not in (1, n):
        raise RuntimeError(f"[repeat_interleave] must be given one count or {n}, came {counts.size}")
    if counts.size == 1 and input.ndim:
        times, shape = int(counts.reshape(-1)[0]), input.array.shape
        spread = _s.expand(_s.unsqueeze(input, dim=d + 1), shape=(*shape[: d + 1], times, *shape[d + 1 :]))
        return _s.reshape(spread, shape=(*shape[:d], n * times, *shape[d + 1 :]))
    return _index.index_select(input, dim=d, index=wrap(np.repeat(np.arange(n), counts)))
