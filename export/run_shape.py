"""What the ONNX nodes that move elements compute, on Tensors; see run_nodes.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.op import tensor_ops as ops
from .run_nodes import dtype_of, ints_of, pairs_of, runs

# ---- shapes


@runs("Shape")
def _shape(x: Any, *, start: int = 0, end: int | None = None) -> Any:
    return wrap(np.array(x.array.shape[start:end], np.int64))


@runs("Size")
def _size(x: Any) -> Any:
    return wrap(np.array(x.array.size, np.int64))


@runs("Constant")
def _constant(
    *, value: Any = None, value_float: Any = None, value_floats: Any = None, value_int: Any = None,
    value_ints: Any = None,
) -> Any:  # fmt: skip
    floats, ints = (
        (value_floats if value_float is None else value_float),
        (value_ints if value_int is None else value_int),
    )
    if value is not None:
        return wrap(np.array(value))
    return wrap(np.array(floats, np.float32) if floats is not None else np.array(ints, np.int64))


@runs("ConstantOfShape")
def _constant_of_shape(shape: Any, *, value: Any = None) -> Any:
    number = np.zeros(1, np.float32) if value is None else value
    return wrap(np.full(ints_of(shape), number.reshape(-1)[0], number.dtype))


@runs("BitCast")
def _bit_cast(x: Any, *, to: int = 0) -> Any:
    return wrap(np.ascontiguousarray(x.array).view(dtype_of("BitCast", to)).reshape(x.array.shape))


@runs("EyeLike")
def _eye(x: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    kind = x.array.dtype if dtype is None else dtype_of("EyeLike", dtype)
    rows, columns = x.array.shape
    return wrap(np.eye(rows, columns, k=k, dtype=kind))


@runs("Flatten")
def _flatten(x: Any, *, axis: int = 1) -> Any:
    shape = x.array.shape
    return x.reshape(int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))


@runs("Reshape")
def _reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
    sizes = ints_of(shape)
    return x.reshape(*[x.array.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(sizes)])


@runs("Transpose")
def _transpose(x: Any, *, perm: Any = None) -> Any:
    return ops["permute"](x, dims=tuple(perm or reversed(range(x.ndim))))


@runs("Expand")
def _expand(x: Any, shape: Any) -> Any:
    return ops["expand"](x, shape=np.broadcast_shapes(x.array.shape, tuple(ints_of(shape))))


@runs("Tile")
def _tile(x: Any, repeats: Any) -> Any:
    return x.repeat(*ints_of(repeats)) if x.ndim else x


@runs("Unsqueeze")
def _unsqueeze(x: Any, given: Any = None, *, axes: Any = None) -> Any:
    dims = ints_of(given) if given is not None else list(axes)
    rank = x.ndim + len(dims)
    for dim in sorted(d % rank for d in dims):
        x = ops["unsqueeze"](x, dim=dim)
    return x


@runs("Squeeze")
def _squeeze(x: Any, given: Any = None, *, axes: Any = None) -> Any:
    dims = tuple(ints_of(given)) if given is not None else axes and tuple(axes)
    return ops["squeeze"](x, dim=dims or None)


@runs("Concat")
def _concat(*x: Any, axis: int = 0) -> Any:
    return ops["cat"](*x, dim=axis)


@runs("Split")
def _split(
    x: Any, given: Any = None, *, axis: int = 0, split: Any = None, num_outputs: int = 0, outputs: int = 1
) -> Any:
    sizes = tuple(ints_of(given)) if given is not None else tuple(split or ())
    return ops["split"](x, sizes=sizes or -(-x.array.shape[axis] // outputs), dim=axis)


@runs("Slice")
def _slice(
    x: Any, from_: Any = None, to: Any = None, along: Any = None, by: Any = None, *, starts: Any = None,
    ends: Any = None, axes: Any = None,
) -> Any:  # fmt: skip
    begin, end = (ints_of(v) if v is not None else list(w) for v, w in ((from_, starts), (to, ends)))
    dims = ints_of(along) if along is not None else axes or range(len(begin))
    for a, b, d, s in zip(begin, end, dims, [1] * len(begin) if by is None else ints_of(by)):
        n = x.array.shape[d]
        if s > 0:
            x = ops["getitem"](
                x, index=(*[slice(None)] * (d % x.ndim), slice(*slice(a, b, s).indices(n)), ...)
            )
        else:
            places = np.arange(n)[slice(a, b if b >= -n else None, s)]
            x = ops["index_select"](x, dim=d, index=places)
    return x


@runs("Pad")
def _pad(
    x: Any, around: Any = None, number: Any = None, axes: Any = None, *, mode: str = "constant", pads: Any = None,
    value: float = 0.0,
) -> Any:  # fmt: skip
    wanted = ints_of(around) if around is not None else list(pads)
    dims = list(range(x.ndim)) if axes is None else [a % x.ndim for a in ints_of(axes)]
    found = dict(zip(dims, pairs_of(wanted, len(dims))))
    widths = [found.get(d, (0, 0)) for d in range(x.ndim)]
    if mode == "constant":
        fill = value if number is None else number.array.item()
        return ops["pad"](x, widths=tuple(widths), value=fill)
    for d, (a, b) in enumerate(widths):  # positions along each dimension, padded as the elements are to be
        if (a, b) != (0, 0):
            n = x.array.shape[d]
            places: Any = np.pad(np.arange(n), (max(a, 0), max(b, 0)), mode=mode)  # type: ignore[call-overload]
            x = ops["index_select"](x, dim=d, index=places[max(-a, 0) : len(places) - max(-b, 0)])
    return x


@runs("Trilu")
def _trilu(x: Any, k: Any = None, *, upper: int = 1) -> Any:
    return ops["triu" if upper else "tril"](x, diagonal=0 if k is None else int(k.array.item()))


@runs("Range")
def _range(start: Any, limit: Any, delta: Any) -> Any:
    return wrap(
        np.arange(start.array.item(), limit.array.item(), delta.array.item(), dtype=start.array.dtype)
    )


# ---- indexing


@runs("Gather")
def _gather(x: Any, index: Any, *, axis: int = 0) -> Any:
    d = axis % x.ndim
    flat = ops["index_select"](x, dim=d, index=index.array.reshape(-1) % max(x.array.shape[d], 1))
    return flat.reshape(*x.array.shape[:d], *index.array.shape, *x.array.shape[d + 1 :])


@runs("GatherElements")
def _gather_elements(x: Any, index: Any, *, axis: int = 0) -> Any:
    return ops["gather"](x, dim=axis, index=index.array % max(x.array.shape[axis], 1))


def _batched(index: Any, batch_dims: int) -> tuple[Any, ...]:
    """Positions for all dimensions that an index names: those of the batch count themselves."""
    lead = index.array.shape[:batch_dims]
    grid = np.meshgrid(*(np.arange(n) for n in lead), indexing="ij") if lead else []
    own = [g.reshape(*lead, *[1] * (index.ndim - 1 - batch_dims)) for g in grid]
    return (*own, *np.moveaxis(index.array, -1, 0))


@runs("GatherND")
def _gather_nd(x: Any, index: Any, *, batch_dims: int = 0) -> Any:
    return ops["index"](x, index=_batched(index, batch_dims))


@runs("ScatterND")
def _scatter_nd(x: Any, index: Any, source: Any, *, reduction: str = "none") -> Any:
    at = tuple(np.moveaxis(index.array, -1, 0))
    if reduction == "add":
        return ops["index_accumulate"](x, source, index=at)
    if reduction == "none":
        y = x.clone()
        y[at] = source
        return y
    numbers = np.arange(x.array.size).reshape(x.array.shape)[at].reshape(-1)
    kw = {"dim": 0, "index": numbers, "reduce": _REDUCTIONS[reduction], "include_self": True}
    return ops["scatter_reduce"](x.reshape(-1), source.reshape(-1), **kw).reshape(*x.array.shape)


@runs("OneHot")
def _one_hot(index: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    n = ints_of(depth)[0]
    hit = index.array[..., None].astype(np.int64) % n == np.arange(n)
    hit &= (index.array[..., None] >= -n) & (index.array[..., None] < n)
    y = np.where(hit, values.array[1], values.array[0])
    return wrap(np.moveaxis(y, -1, axis if axis >= 0 else index.ndim + 1 + axis))


@runs("NonZero")
def _non_zero(x: Any) -> Any:
    return wrap(np.array(np.nonzero(x.array), np.int64).reshape(x.ndim, -1))


@runs("Compress")
def _compress(x: Any, keep: Any, *, axis: int | None = None) -> Any:
    x, dim = (x.reshape(-1), 0) if axis is None else (x, axis)
    return ops["index_select"](x, dim=dim, index=np.flatnonzero(keep.array))


@runs("ReverseSequence")
def _reverse_sequence(x: Any, lengths: Any, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    steps = np.arange(x.array.shape[time_axis])[:, None]
    n = lengths.array[None]
    places = np.where(steps < n, n - 1 - steps, steps)
    places = places if time_axis < batch_axis else places.T
    shape = x.array.shape
    index = np.broadcast_to(places.reshape(*places.shape, *[1] * (x.ndim - 2)), shape)
    return ops["gather"](x, dim=time_axis, index=np.ascontiguousarray(index))


@runs("DepthToSpace")
def _depth_to_space(x: Any, *, blocksize: int = 1, mode: str = "DCR") -> Any:
    n, c, h, w = x.array.shape
    k, rest = blocksize, c // blocksize**2
    if mode == "DCR":
        y = x.reshape(n, k, k, rest, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, rest, k, k, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, rest, h * k, w * k)


@runs("SpaceToDepth")
def _space_to_depth(x: Any, *, blocksize: int = 1, mode: str = "DCR") -> Any:
    n, c, h, w = x.array.shape
    k = blocksize
    y = x.reshape(n, c, h // k, k, w // k, k)
    y = y.permute(0, 3, 5, 1, 2, 4) if mode == "DCR" else y.permute(0, 1, 3, 5, 2, 4)
    return y.reshape(n, c * k * k, h // k, w // k)


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@runs("ScatterElements", "Scatter")
def _scatter(x: Any, index: Any, source: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    places = index.array % max(x.array.shape[axis], 1)
    if reduction == "none":
        return ops["scatter"](x, source, dim=axis, index=places)
    kw = {"dim": axis, "index": places, "reduce": _REDUCTIONS[reduction], "include_self": True}
    return ops["scatter_reduce"](x, source, **kw)


@runs("TopK")
def _topk(x: Any, count: Any = None, *, axis: int = -1, largest: int = 1, sorted: int = 1, k: int = 0) -> Any:
    wanted = k if count is None else ints_of(count)[0]
    places = ops["argtopk"](x, k=wanted, dim=axis, largest=bool(largest))
    return ops["gather"](x, dim=axis, index=places), places


@runs("Unique")
def _unique(x: Any, *, axis: int | None = None, sorted: int = 1) -> Any:
    found, *rest = np.unique(x.array, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    first, back, counts = rest
    if not sorted:  # in the order of their first occurrence
        order = np.argsort(first)
        back = np.argsort(order)[back]
        found, first, counts = np.take(found, order, axis=axis or 0), first[order], counts[order]
    return tuple(wrap(np.asarray(v)) for v in (found, first, back.reshape(-1), counts))
