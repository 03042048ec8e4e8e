"""Pooling in any number of dimensions: one pass over the input for each place in the window."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ...autograd.op import Op
from .faster import faster
from .pad import pad

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


def _padded(xp: Any, x: Any, padding: Pairs, value: float) -> Any:
    if not any(map(any, padding)):
        return x
    return pad.forward(xp, x, widths=((0, 0), (0, 0), *padding), value=value)


def _out(size: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Ints:
    return tuple(
        (n + a + b - d * (k - 1) - 1) // s + 1
        for n, k, s, (a, b), d in zip(size, kernel, stride, padding, dilation)
    )


def _places(kernel: Ints, stride: Ints, dilation: Ints, out: Ints) -> Iterator[tuple[slice, ...]]:
    """For each place in the window, where it stands in the padded input, for all windows."""
    for offset in np.ndindex(*kernel):
        spatial = (
            slice(i * d, i * d + s * (o - 1) + 1, s) for i, d, s, o in zip(offset, dilation, stride, out)
        )
        yield (slice(None), slice(None), *spatial)


def _inner(size: Ints, padding: Pairs) -> tuple[slice, ...]:
    return (slice(None), slice(None), *(slice(a, a + n) for n, (a, _) in zip(size, padding)))


# ---- maximum


def _least(dtype: Any) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _max_pool(xp: Any, x: Any, *, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Any:
    out = _out(x.shape[2:], kernel, stride, padding, dilation)
    window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    if (found := faster("max_pool", xp, x, out, **window)) is not None:
        return found
    x = _padded(xp, x, padding, _least(x.dtype))
    y = None
    for at in _places(kernel, stride, dilation, out):
        y = x[at].copy() if y is None else xp.maximum(y, x[at], out=y)
    return y


def _hits(
    xp: Any, x: Any, top: Any, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> Iterator[Any]:
    """For each place in the window: where it stands, and for which windows it is the first largest."""
    x = _padded(xp, x, padding, _least(x.dtype))
    taken = xp.zeros(top.shape, bool)
    for at in _places(kernel, stride, dilation, top.shape[2:]):
        hit = x[at] == top
        hit &= ~taken
        taken |= hit
        yield at, hit


def _max_pool_adjoint(
    xp: Any, gy: Any, x: Any, top: Any, *, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> Any:
    window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    if (found := faster("max_pool_adjoint", xp, gy, x, top, **window)) is not None:
        return found
    shape = (*x.shape[:2], *(n + a + b for n, (a, b) in zip(x.shape[2:], padding)))
    dx = xp.zeros(shape, gy.dtype)
    for at, hit in _hits(xp, x, top, kernel, stride, padding, dilation):
        dx[at] += gy * hit
    return dx[_inner(x.shape[2:], padding)] if any(map(any, padding)) else dx


def _max_pool_select(
    xp: Any, h: Any, x: Any, top: Any, *, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> Any:
    """Elements of h where x has the maxima."""
    h = _padded(xp, h, padding, 0.0)
    y = xp.zeros(top.shape, h.dtype)
    for at, hit in _hits(xp, x, top, kernel, stride, padding, dilation):
        y += h[at] * hit
    return y


def _max_pool_indices(
    xp: Any, x: Any, top: Any, *, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> Any:
    """Places of the maxima in the flattened spatial dimensions of the input."""
    size = x.shape[2:]
    numbers = xp.arange(int(np.prod(size))).reshape(1, 1, *size)
    numbers = _padded(xp, numbers, padding, 0)
    y = xp.zeros(top.shape, np.int64)
    for at, hit in _hits(xp, x, top, kernel, stride, padding, dilation):
        y += numbers[at] * hit
    return y


max_pool = Op(
    "max_pool",
    _max_pool,
    [
        lambda ops, g, x, y, kernel, stride, padding, dilation: ops.max_pool_adjoint(
            g, x, y, kernel=kernel, stride=stride, padding=padding, dilation=dilation
        )
    ],
    remake=True,
)
max_pool_adjoint = Op(
    "max_pool_adjoint",
    _max_pool_adjoint,
    [
        lambda ops, g, x, top, kernel, stride, padding, dilation: ops.max_pool_select(
            g, x, top, kernel=kernel, stride=stride, padding=padding, dilation=dilation
        ),
        None,
        None,
    ],
)
max_pool_select = Op(
    "max_pool_select",
    _max_pool_select,
    [
        lambda ops, g, x, top, kernel, stride, padding, dilation: ops.max_pool_adjoint(
            g, x, top, kernel=kernel, stride=stride, padding=padding, dilation=dilation
        ),
        None,
        None,
    ],
)
max_pool_indices = Op("max_pool_indices", _max_pool_indices)

# ---- average


@lru_cache(maxsize=64)
def _counts(size: Ints, kernel: Ints, stride: Ints, padding: Pairs, extra: Ints, include: bool) -> Any:
    """How many elements each window is divided by. `extra`: padding that only ceil_mode added never counts."""
    total: Any = np.ones(())
    for n, k, s, (a, b), more in zip(size, kernel, stride, padding, extra):
        start = np.arange((n + a + b - k) // s + 1) * s - a
        end = np.minimum(start + k, n + b - more)
        if not include:
            start, end = np.maximum(start, 0), np.minimum(end, n)
        total = np.multiply.outer(total, end - start)
    return total


def _avg_pool(
    xp: Any,
    x: Any,
    *,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    extra: Ints,
    include: bool,
    divisor: int | None,
) -> Any:
    size, ones = x.shape[2:], (1,) * len(kernel)
    out = _out(size, kernel, stride, padding, ones)
    x = _padded(xp, x, padding, 0.0)
    y: Any = None
    for at in _places(kernel, stride, ones, out):
        if y is None:
            y = x[at].copy()
        else:
            y += x[at]
    count = divisor or xp.asarray(_counts(size, kernel, stride, padding, extra, include), x.dtype)
    if y.dtype.kind in "iu":
        return (y / count).astype(y.dtype)  # towards 0
    y /= count
    return y


def _avg_pool_adjoint(
    xp: Any,
    gy: Any,
    *,
    size: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Pairs,
    extra: Ints,
    include: bool,
    divisor: int | None,
) -> Any:
    g = gy / (divisor or xp.asarray(_counts(size, kernel, stride, padding, extra, include), gy.dtype))
    dx = xp.zeros((*g.shape[:2], *(n + a + b for n, (a, b) in zip(size, padding))), g.dtype)
    for at in _places(kernel, stride, (1,) * len(kernel), g.shape[2:]):
        dx[at] += g
    return dx[_inner(size, padding)] if any(map(any, padding)) else dx


avg_pool = Op(
    "avg_pool",
    _avg_pool,
    [
        lambda ops, g, x_shape, kernel, stride, padding, extra, include, divisor: ops.avg_pool_adjoint(
            g,
            size=tuple(x_shape[2:]),
            kernel=kernel,
            stride=stride,
            padding=padding,
            extra=extra,
            include=include,
            divisor=divisor,
        )
    ],
)
avg_pool_adjoint = Op(
    "avg_pool_adjoint",
    _avg_pool_adjoint,
    [
        lambda ops, g, kernel, stride, padding, extra, include, divisor: ops.avg_pool(
            g, kernel=kernel, stride=stride, padding=padding, extra=extra, include=include, divisor=divisor
        )
    ],
)
