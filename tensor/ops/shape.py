"""Ops that move elements: views, joins, splits, permutations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...autograd.engine import Variable, array_namespace
from ...autograd.op import Op, array_forms, namespace_of
from ..dtypes import promote_types
from .declare import axes_of, axis_of, single, viewing
from .pointwise import cast
from .rows import LARGE, row_major

Prepared = tuple[tuple[Any, ...], dict[str, Any]]


def shape_of(name: str, shape: Any, numel: int) -> tuple[int, ...]:
    """A requested shape with its -1 worked out."""
    if type(shape) is tuple and -1 not in shape and math.prod(shape) == numel and min(shape, default=0) >= 0:
        return shape
    shape = tuple(int(n) for n in shape)
    if -1 not in shape:
        if math.prod(shape) != numel or min(shape, default=0) < 0:
            raise RuntimeError(f"[{name}] the shape must hold {numel} elements, came {list(shape)}")
        return shape
    rest = math.prod(n for n in shape if n != -1)
    if shape.count(-1) > 1 or min(shape) < -1:
        raise RuntimeError(f"[{name}] only one dimension can be -1, came {list(shape)}")
    if rest == 0 or numel % rest:
        raise RuntimeError(f"[{name}] the shape must hold {numel} elements, came {list(shape)}")
    return tuple(numel // rest if n == -1 else n for n in shape)


def _reshape_prepare(x: Any, *, shape: Any) -> Prepared:
    size = x.array.size if isinstance(x, Variable) else x.size
    return (x,), {"shape": shape_of("reshape", shape, size)}


def _reshape(xp: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    if xp is np and x.size >= LARGE and not x.flags.c_contiguous:
        try:
            return x.reshape(shape, copy=False)
        except ValueError:
            return row_major(np, x).reshape(shape)
    return x.reshape(shape)


reshape = viewing(
    Op(
        "reshape",
        _reshape,
        [lambda g, x_shape: g.reshape(x_shape)],
        view=None,
        half="native",
        prepare=_reshape_prepare,
    )
)


def _view(xp: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    y = x.reshape(shape)
    if not x.flags.c_contiguous and y.size and not xp.may_share_memory(x, y):
        raise RuntimeError(
            f"[view] memory must allow the shape {list(shape)} without a copy, came shape {list(x.shape)} with"
            f" strides {[s // x.itemsize for s in x.strides]}: use .reshape(...), which copies"
        )
    return y


view = viewing(
    Op(
        "view",
        _view,
        [lambda g, x_shape: g.reshape(x_shape)],
        view=True,
        half="native",
        prepare=lambda x, *, shape: (
            (x,),
            {"shape": shape_of("view", shape, x.array.size if isinstance(x, Variable) else x.size)},
        ),
    )
)


def _permute_prepare(x: Any, *, dims: Any) -> Prepared:
    axes = tuple(dims)
    if not all(isinstance(d, int | np.integer) for d in axes):
        raise TypeError(f"[permute] dims must be ints, came {list(dims)}")
    if len(axes) != x.ndim:
        raise RuntimeError(
            f"[permute] every dimension of {list(x.shape)} must be named once, came {list(dims)}"
        )
    return (x,), {"dims": axes_of("permute", axes, x.ndim)}


def _inverse(dims: Sequence[int]) -> tuple[int, ...]:
    inverse = [0] * len(dims)
    for i, d in enumerate(dims):
        inverse[d] = i
    return tuple(inverse)


permute = viewing(
    Op(
        "permute",
        lambda xp, x, *, dims: x.transpose(dims),
        [lambda ops, g, dims: ops.permute(g, dims=_inverse(dims))],
        view=True,
        half="native",
        prepare=_permute_prepare,
    )
)


def _transpose_prepare(x: Any, *, dim0: int, dim1: int) -> Prepared:
    return (x,), {"dim0": axis_of("transpose", dim0, x.ndim), "dim1": axis_of("transpose", dim1, x.ndim)}


transpose = viewing(
    Op(
        "transpose",
        lambda xp, x, *, dim0, dim1: x.swapaxes(dim0, dim1) if x.ndim else x.view(),
        [lambda ops, g, dim0, dim1: ops.transpose(g, dim0=dim0, dim1=dim1)],
        view=True,
        half="native",
        prepare=_transpose_prepare,
    )
)


def _grows(have: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array of shape `have` broadcasts to `shape`, which names all sizes."""
    lead = len(shape) - len(have)
    if lead < 0 or min(shape, default=0) < 0:
        return False
    return shape[lead:] == have or all(n == m or m == 1 for n, m in zip(shape[lead:], have))


def _expand_prepare(x: Any, *, shape: Any) -> Prepared:
    shape = tuple(map(int, shape))
    have = x.array.shape if isinstance(x, Variable) else x.shape
    lead = len(shape) - len(have)
    if _grows(have, shape):
        return (x,), {"shape": shape}
    if lead < 0:
        raise RuntimeError(
            f"[expand] must name at least {x.ndim} sizes, came {list(shape)} for {list(x.shape)}"
        )
    full = []
    for i, n in enumerate(shape):
        own = have[i - lead] if i >= lead else None
        if n == -1:
            if own is None:
                raise RuntimeError(
                    f"[expand] -1 is not allowed in a new, leading dimension, came {list(shape)}"
                )
            n = own
        elif own is not None and own not in (1, n):
            raise RuntimeError(
                f"[expand] sizes must be equal or grow from 1, came {list(x.shape)} to {list(shape)}"
            )
        full.append(n)
    return (x,), {"shape": tuple(full)}


def _expand(xp: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    """A read-only view, as NumPy's broadcast_to makes it, at a tenth of the price."""
    if xp is not np or not x.flags.c_contiguous or not x.size:
        return xp.broadcast_to(x, shape)
    lead = len(shape) - x.ndim
    strides = tuple(s if n == m else 0 for s, n, m in zip(x.strides, x.shape, shape[lead:]))
    y: Any = np.ndarray(shape, x.dtype, x, 0, (0,) * lead + strides)
    y.flags.writeable = False
    return y


expand = viewing(
    Op(
        "expand",
        _expand,
        [lambda ops, g, x_shape: ops.sum_to_shape(g, shape=x_shape)],
        view=True,
        half="native",
        prepare=_expand_prepare,
    )
)


def _expand_array(x: Any, *, shape: Any) -> Any:
    """For gradients: a small array is copied out sooner than NumPy makes a broadcast view of it."""
    if x.shape == shape:
        return x
    xp = np if len(array_namespace) == 1 else namespace_of((x,))
    if math.prod(shape) > 8192:
        return xp.broadcast_to(x, shape)
    y = xp.empty(shape, x.dtype)
    y[...] = x
    return y


array_forms["expand"] = _expand_array


def _sum_to_shape(xp: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    """The adjoint of broadcasting: sums over the axes that were stretched."""
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(
        i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1
    )
    return x.sum(axis=axes, keepdims=True).reshape(shape) if axes else x.reshape(shape)


sum_to_shape = Op(
    "sum_to_shape",
    _sum_to_shape,
    [
        lambda ops, g, x_shape: (
            ops.expand(g, shape=x_shape) if g.ndim == len(x_shape) else _spread(ops, g, x_shape)
        )
    ],
    view=None,
)


def _spread(ops: Any, g: Any, shape: tuple[int, ...]) -> Any:
    return ops.expand(g.reshape((1,) * (len(shape) - g.ndim) + tuple(g.shape)), shape=shape)


def _unsqueeze_prepare(x: Any, *, dim: int) -> Prepared:
    return (x,), {"dim": axis_of("unsqueeze", dim, x.ndim + 1)}


unsqueeze = viewing(
    Op(
        "unsqueeze",
        lambda xp, x, *, dim: x[(slice(None),) * dim + (None,)],
        [lambda g, x_shape: g.reshape(x_shape)],
        view=True,
        half="native",
        prepare=_unsqueeze_prepare,
    )
)


def _squeeze_prepare(x: Any, *, dim: Any = None) -> Prepared:
    shape = x.array.shape if isinstance(x, Variable) else x.shape
    axes = axes_of("squeeze", dim, len(shape)) if shape or dim is not None else ()
    return (x,), {"dim": tuple(d for d in axes if shape and shape[d] == 1)}


squeeze = viewing(
    Op(
        "squeeze",
        lambda xp, x, *, dim: x.squeeze(dim) if dim else x.view(),
        [lambda g, x_shape: g.reshape(x_shape)],
        view=True,
        half="native",
        prepare=_squeeze_prepare,
    )
)


def _narrow_prepare(x: Any, *, dim: int, start: int, length: int) -> Prepared:
    d = axis_of("narrow", dim, x.ndim)
    n = x.shape[d]
    if start < 0:
        start += n
    if not (0 <= start <= n and length >= 0 and start + length <= n):
        raise (RuntimeError if 0 <= start <= n else IndexError)(
            f"[narrow] start and length must lie in [0, {n}], came start={start}, length={length}"
        )
    return (x,), {"dim": d, "start": int(start), "length": int(length)}


def _cut(ndim: int, dim: int, start: int, stop: int) -> tuple[slice, ...]:
    return (slice(None),) * dim + (slice(start, stop),)


def _narrow_adjoint(xp: Any, x: Any, *, shape: tuple[int, ...], dim: int, start: int) -> Any:
    y = xp.zeros(shape, x.dtype)
    y[_cut(len(shape), dim, start, start + x.shape[dim])] = x
    return y


narrow_adjoint = Op(
    "narrow_adjoint",
    _narrow_adjoint,
    [lambda ops, g, x_shape, dim, start: ops.narrow(g, dim=dim, start=start, length=x_shape[dim])],
    half="native",
)
narrow = viewing(
    Op(
        "narrow",
        lambda xp, x, *, dim, start, length: x[_cut(x.ndim, dim, start, start + length)],
        [lambda ops, g, x_shape, dim, start: ops.narrow_adjoint(g, shape=x_shape, dim=dim, start=start)],
        view=True,
        half="native",
        prepare=_narrow_prepare,
    )
)


def _split_sizes(name: str, n: int, sizes: Any) -> tuple[int, ...]:
    if isinstance(sizes, int | np.integer):
        if sizes <= 0 and n:
            raise RuntimeError(f"[{name}] the size of a part must be positive, came {sizes}")
        step = max(int(sizes), 1)
        return tuple(min(step, n - i) for i in range(0, max(n, 1), step))
    sizes = tuple(int(s) for s in sizes)
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise RuntimeError(f"[{name}] the sizes of the parts must add up to {n}, came {list(sizes)}")
    return sizes


def _split_prepare(x: Any, *, sizes: Any, dim: int = 0) -> Prepared:
    shape = x.array.shape if isinstance(x, Variable) else x.shape
    d = axis_of("split", dim, len(shape))
    return (x,), {"sizes": _split_sizes("split", shape[d], sizes), "dim": d}


def _split(xp: Any, x: Any, *, sizes: tuple[int, ...], dim: int) -> list[Any]:
    parts, start, lead = [], 0, (slice(None),) * dim
    for n in sizes:
        parts.append(x[(*lead, slice(start, start + n))])
        start += n
    return parts


def _split_backward(
    ops: Any, g: Any, needs: Any, x_shape: Any, x_dtype: Any, sizes: Any, dim: int
) -> list[Any]:
    like = next(part for part in g if part is not None)
    parts = []
    for part, n in zip(g, sizes):
        if part is None:
            shape = (*x_shape[:dim], n, *x_shape[dim + 1 :])
            part = like.new_zeros(shape) if isinstance(like, Variable) else np.zeros(shape, like.dtype)
        parts.append(part)
    return [ops.cat(*parts, dim=dim)]


split = Op(
    "split",
    _split,
    _split_backward,
    outputs=0,
    view=True,
    half="native",
    prepare=_split_prepare,
)


def _unbind_prepare(x: Any, *, dim: int = 0) -> Prepared:
    if not x.ndim:
        raise IndexError("[unbind] the tensor must have at least one dimension, came a 0-d one")
    return (x,), {"dim": axis_of("unbind", dim, x.ndim)}


def _unbind_backward(ops: Any, g: Any, needs: Any, x_shape: Any, dim: int) -> list[Any]:
    like = next(part for part in g if part is not None)
    zero = like.new_zeros(like.shape) if isinstance(like, Variable) else np.zeros(like.shape, like.dtype)
    return [ops.stack(*[zero if part is None else part for part in g], dim=dim)]


unbind = Op(
    "unbind",
    lambda xp, x, *, dim: list(xp.moveaxis(x, dim, 0)),
    _unbind_backward,
    outputs=0,
    view=True,
    half="native",
    prepare=_unbind_prepare,
)


def _cat_prepare(*parts: Any, dim: int = 0) -> Prepared:
    if not parts:
        raise ValueError("[cat] at least one tensor must be given, came none")
    if not isinstance(parts[0], Variable):
        return parts, {"dim": axis_of("cat", dim, parts[0].ndim)}
    first = parts[0].array
    for p in parts:
        if not isinstance(p, Variable):
            raise TypeError(f"[cat] all parts must be Tensors, came {type(p).__name__}")
        array = p.array
        if array.dtype is not first.dtype or array.ndim != first.ndim or not array.size or not array.ndim:
            return _cat_any(parts, dim)
    return parts, {"dim": axis_of("cat", dim, first.ndim)}


def _cat_any(parts: tuple[Any, ...], dim: int) -> Prepared:
    """Parts of several dtypes, and PyTorch's rule that a tensor of shape [0] joins anything."""
    full = tuple(p for p in parts if p.array.shape != (0,)) or parts[:1]
    if not full[0].ndim:
        raise RuntimeError("[cat] tensors must have at least one dimension, came a 0-d one: use stack")
    target = parts[0].array.dtype
    for p in parts[1:]:
        target = promote_types(target, p.array.dtype)
    full = tuple(p if p.array.dtype == target else cast(p, dtype=target) for p in full)
    return full, {"dim": axis_of("cat", dim, full[0].ndim)}


def _cat_backward(ops: Any, g: Any, needs: Any, inputs_shape: Any, dim: int) -> list[Any]:
    grads, start = [], 0
    for shape, wanted in zip(inputs_shape, needs):
        grads.append(ops.narrow(g, dim=dim, start=start, length=shape[dim]) if wanted else None)
        start += shape[dim]
    return grads


cat = Op(
    "cat",
    lambda xp, *inputs, dim: xp.concatenate(inputs, dim),
    _cat_backward,
    half="native",
    prepare=_cat_prepare,
    hint="shapes must be equal but in the dimension that is joined",
)


def _stack_prepare(*parts: Any, dim: int = 0) -> Prepared:
    if not parts:
        raise RuntimeError("[stack] at least one tensor must be given, came none")
    first = parts[0].array if isinstance(parts[0], Variable) else parts[0]
    shape = first.shape
    for p in parts:
        if (p.array if isinstance(p, Variable) else p).shape != shape:
            raise RuntimeError(f"[stack] shapes must be equal, came {[list(p.shape) for p in parts]}")
    if isinstance(parts[0], Variable):
        target = first.dtype
        for p in parts[1:]:
            target = promote_types(target, p.array.dtype)
        parts = tuple(p if p.array.dtype is target else cast(p, dtype=target) for p in parts)
    return parts, {"dim": axis_of("stack", dim, first.ndim + 1)}


def _stack(xp: Any, *inputs: Any, dim: int) -> Any:
    cut = (slice(None),) * dim + (None,)
    return xp.concatenate([x[cut] for x in inputs], dim)


stack = Op(
    "stack",
    _stack,
    lambda ops, g, needs, dim: ops.unbind(g, dim=dim),
    half="native",
    prepare=_stack_prepare,
)


def _flip_prepare(x: Any, *, dims: Any) -> Prepared:
    return (x,), {"dims": axes_of("flip", dims, x.ndim)}


flip = single(
    Op(
        "flip",
        lambda xp, x, *, dims: xp.flip(x, axis=dims).copy(),
        [lambda ops, g, dims: ops.flip(g, dims=dims)],
        half="native",
        prepare=_flip_prepare,
    )
)


def _roll_prepare(x: Any, *, shifts: Any, dims: Any = None) -> Prepared:
    if dims is None:
        return (x,), {"shifts": shifts if isinstance(shifts, int) else next(iter(shifts)), "dims": None}
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(shifts) != len(dims):
        raise RuntimeError(f"[roll] shifts and dims must be of one length, came {shifts} and {dims}")
    return (x,), {"shifts": shifts, "dims": tuple(axis_of("roll", d, x.ndim) for d in dims)}


def _negative(shifts: Any) -> Any:
    return -shifts if isinstance(shifts, int) else tuple(-s for s in shifts)


def _roll(xp: Any, x: Any, *, shifts: Any, dims: Any) -> Any:
    if type(dims) is not tuple or len(dims) != 1 or not x.size:
        return xp.roll(x, shifts, dims)
    lead, cut = (slice(None),) * dims[0], -shifts[0] % x.shape[dims[0]]
    return xp.concatenate((x[(*lead, slice(cut, None))], x[(*lead, slice(None, cut))]), dims[0])


roll = single(
    Op(
        "roll",
        _roll,
        [lambda ops, g, shifts, dims: ops.roll(g, shifts=_negative(shifts), dims=dims)],
        half="native",
        prepare=_roll_prepare,
    )
)


def _diagonal_prepare(x: Any, *, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Prepared:
    a, b = axis_of("diagonal", dim1, x.ndim), axis_of("diagonal", dim2, x.ndim)
    if a == b or x.ndim < 2:
        raise RuntimeError(
            f"[diagonal] needs two distinct dimensions, came dim1={dim1}, dim2={dim2} of {list(x.shape)}"
        )
    return (x,), {"offset": offset, "dim1": a, "dim2": b}


def _diagonal(xp: Any, x: Any, *, offset: int, dim1: int, dim2: int) -> Any:
    """NumPy's diagonal is read-only: the same memory, writeable."""
    y = x.diagonal(offset, dim1, dim2)
    if isinstance(x, np.ndarray) and x.flags.writeable:
        y.flags.writeable = True
    return y


def _diagonal_adjoint(xp: Any, x: Any, *, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    y = xp.zeros(shape, x.dtype)
    _diagonal(xp, y, offset=offset, dim1=dim1, dim2=dim2)[...] = x
    return y


diagonal_adjoint = Op(
    "diagonal_adjoint",
    _diagonal_adjoint,
    [lambda ops, g, offset, dim1, dim2: ops.diagonal(g, offset=offset, dim1=dim1, dim2=dim2)],
    half="native",
)
diagonal = viewing(
    Op(
        "diagonal",
        _diagonal,
        [
            lambda ops, g, x_shape, offset, dim1, dim2: ops.diagonal_adjoint(
                g, shape=x_shape, offset=offset, dim1=dim1, dim2=dim2
            )
        ],
        view=True,
        half="native",
        prepare=_diagonal_prepare,
    )
)


def _tri_prepare(name: str) -> Any:
    def prepare(x: Any, *, diagonal: int = 0) -> Prepared:
        if x.ndim < 2:
            raise RuntimeError(
                f"[{name}] the tensor must have at least 2 dimensions, came shape {list(x.shape)}"
            )
        return (x,), {"diagonal": diagonal}

    return prepare


@lru_cache(maxsize=64)
def _triangle(rows: int, columns: int, diagonal: int) -> Any:
    """Where a lower triangle is; not to be written."""
    return np.tri(rows, columns, diagonal, dtype=bool)


def _tri(xp: Any, x: Any, diagonal: int, lower: bool) -> Any:
    if xp is not np or x.shape[-1] * x.shape[-2] > 65536:
        return xp.tril(x, diagonal) if lower else xp.triu(x, diagonal)
    zero, inside = np.zeros((), x.dtype), _triangle(*x.shape[-2:], diagonal if lower else diagonal - 1)
    return np.where(inside, x, zero) if lower else np.where(inside, zero, x)


tril = single(
    Op(
        "tril",
        lambda xp, x, *, diagonal: _tri(xp, x, diagonal, True),
        [lambda ops, g, diagonal: ops.tril(g, diagonal=diagonal)],
        half="native",
        prepare=_tri_prepare("tril"),
    )
)
triu = single(
    Op(
        "triu",
        lambda xp, x, *, diagonal: _tri(xp, x, diagonal, False),
        [lambda ops, g, diagonal: ops.triu(g, diagonal=diagonal)],
        half="native",
        prepare=_tri_prepare("triu"),
    )
)


contiguous = Op(
    "contiguous",
    row_major,
    [lambda g: g],
    half="native",
    view=None,
)
alias = viewing(Op("alias", lambda xp, x: x.view(), [lambda g: g], half="native", view=True))
