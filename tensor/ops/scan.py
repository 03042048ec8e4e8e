"""Running and windowed ops: views by strides, sliding windows, scans."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...autograd.op import Op
from .declare import axis_of
from .elementwise import log_add

Prepared = tuple[tuple[Any, ...], dict[str, Any]]
Array = Any

# ---- sliding windows


def _unfold_prepare(x: Any, *, dimension: int, size: int, step: int) -> Prepared:
    d = axis_of("unfold", dimension, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if not 0 <= size <= n:
        raise RuntimeError(f"[unfold] size must be in [0, {n}] for dimension {d}, came {size}")
    if step <= 0:
        raise RuntimeError(f"[unfold] step must be positive, came {step}")
    return (x,), {"dimension": d, "size": size, "step": step}


def _unfold(xp: Any, x: Array, *, dimension: int, size: int, step: int) -> Array:
    if not x.ndim:
        return x.reshape(1)[:size]
    shape, strides = list(x.shape), list(x.strides)
    shape[dimension] = (x.shape[dimension] - size) // step + 1
    strides[dimension] *= step
    return xp.lib.stride_tricks.as_strided(x, (*shape, size), (*strides, x.strides[dimension]))


def _unfold_adjoint(
    xp: Any, x: Array, *, shape: tuple[int, ...], dimension: int, size: int, step: int
) -> Array:
    out = xp.zeros(shape, x.dtype)
    if not shape:
        return x.sum().reshape(())
    windows = x.shape[dimension]
    if size <= windows or size <= step:
        for k in range(size):
            cut = slice(k, k + (windows - 1) * step + 1, step)
            out[(slice(None),) * dimension + (cut,)] += x[..., k]
    else:
        target = xp.moveaxis(out, dimension, -1)
        parts = xp.moveaxis(x, dimension, -2)
        for i in range(windows):
            target[..., i * step : i * step + size] += parts[..., i, :]
    return out


unfold_adjoint = Op(
    "unfold_adjoint",
    _unfold_adjoint,
    [lambda ops, g, dimension, size, step: ops.unfold(g, dimension=dimension, size=size, step=step)],
)
unfold = Op(
    "unfold",
    _unfold,
    [
        lambda ops, g, x_shape, dimension, size, step: ops.unfold_adjoint(
            g, shape=x_shape, dimension=dimension, size=size, step=step
        )
    ],
    view=True,
    half="native",
    prepare=_unfold_prepare,
)

# ---- views by strides


def memory(x: Array) -> Array:
    """The whole memory that a view is cut from, as one row; the array itself where that is contiguous."""
    root = x
    while not root.flags.c_contiguous and isinstance(root.base, np.ndarray) and root.base.dtype == x.dtype:
        root = root.base
    if not root.flags.c_contiguous:
        raise RuntimeError("[as_strided] the tensor's memory must be one contiguous piece: use contiguous()")
    return root.reshape(-1)


def _strided_prepare(x: Any, *, size: Any, stride: Any, storage_offset: int | None = None) -> Prepared:
    size, stride = tuple(int(n) for n in size), tuple(int(n) for n in stride)
    if len(size) != len(stride):
        raise RuntimeError(f"[as_strided] size and stride must be of one length, came {size} and {stride}")
    if min(size, default=0) < 0 or min(stride, default=0) < 0:
        raise RuntimeError(f"[as_strided] size and stride must not be negative, came {size} and {stride}")
    return (x,), {"size": size, "stride": stride, "storage_offset": storage_offset or 0}


def _as_strided(
    xp: Any, x: Array, *, size: tuple[int, ...], stride: tuple[int, ...], storage_offset: int
) -> Array:
    flat = memory(x)
    last = storage_offset + sum((n - 1) * s for n, s in zip(size, stride))
    if min(size, default=1) > 0 and not 0 <= last < flat.size:
        raise RuntimeError(
            f"[as_strided] size {list(size)}, stride {list(stride)} and offset {storage_offset} must stay inside"
            f" the {flat.size} elements of the memory, came to element {last}"
        )
    strides = tuple(s * x.itemsize for s in stride)
    if xp is np and 0 not in size:  # NumPy's as_strided hides whose memory it is
        raw = flat.view(f"u{x.itemsize}") if x.dtype.kind == "V" else flat  # those have no buffers
        return np.ndarray(size, raw.dtype, raw, storage_offset * x.itemsize, strides).view(x.dtype)
    return xp.lib.stride_tricks.as_strided(flat[storage_offset:], size, strides)


def _strided_adjoint(
    xp: Any,
    x: Array,
    *,
    shape: tuple[int, ...],
    size: tuple[int, ...],
    stride: tuple[int, ...],
    storage_offset: int,
) -> Array:
    at = xp.zeros(size, np.intp) + storage_offset
    for k, (n, s) in enumerate(zip(size, stride)):
        at = at + (xp.arange(n) * s).reshape((n,) + (1,) * (len(size) - k - 1))
    out = xp.zeros(int(np.prod(shape)), x.dtype)
    xp.add.at(out, at.reshape(-1), x.reshape(-1))
    return out.reshape(shape)


strided_adjoint = Op(
    "strided_adjoint",
    _strided_adjoint,
    [
        lambda ops, g, size, stride, storage_offset: ops.as_strided(
            ops.contiguous(g), size=size, stride=stride, storage_offset=storage_offset
        )
    ],
)
as_strided = Op(
    "as_strided",
    _as_strided,
    [
        lambda ops, g, x_shape, size, stride, storage_offset: ops.strided_adjoint(
            g, shape=x_shape, size=size, stride=stride, storage_offset=storage_offset
        )
    ],
    view=True,
    half="native",
    prepare=_strided_prepare,
)

# ---- scans


def running(xp: Any, pairwise: Any, x: Array, axis: int) -> Array:
    """pairwise.accumulate; where the array module has none, by doubling: as many passes as n has bits."""
    if isinstance(pairwise, np.ufunc):
        return pairwise.accumulate(x, axis=axis)
    y = xp.moveaxis(x.copy(), axis, 0)
    step = 1
    while step < y.shape[0]:
        y[step:] = pairwise(y[step:], y[:-step])
        step *= 2
    return xp.moveaxis(y, 0, axis)


def _logcumsumexp(xp: Any, x: Array, *, dim: int) -> Array:
    if not x.ndim:
        return x.copy()
    return running(xp, xp.logaddexp if x.dtype.kind != "c" else partial(log_add, xp), x, dim)


def _logcumsumexp_rule(ops: Any, g: Any, x: Any, y: Any, dim: int) -> Any:
    """dx_i = exp(x_i) sum over j >= i of g_j exp(-y_j)."""
    if not x.ndim or 0 in x.shape:
        return g

    def from_the_end(t: Any, scan: Any) -> Any:
        return ops.flip(scan(ops.flip(t, dims=(dim,)), dim=dim), dims=(dim,))

    def part(h: Any) -> Any:
        return ops.exp(from_the_end(ops.log(h) - y, ops.logcumsumexp) + x)

    top, low = ops.amax(y, dim=dim, keepdim=True), ops.amin(y, dim=dim, keepdim=True)
    if float(ops.amax(top - low)) < 80:  # the exponentials stay within float32
        return ops.exp(x - top) * from_the_end(g * ops.exp(top - y), ops.cumsum)
    return part(ops.clamp(g, 0)) - part(ops.clamp(-g, 0))


logcumsumexp = Op(
    "logcumsumexp",
    _logcumsumexp,
    [_logcumsumexp_rule],
    prepare=lambda x, *, dim: ((x,), {"dim": axis_of("logcumsumexp", dim, x.ndim)}),
)
