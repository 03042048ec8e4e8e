"""Batch norm by kernels that sum over channels: its statistics, its result, its gradient. Both memory layouts."""

from __future__ import annotations

import math
from typing import Any

from ....autograd.op import Variant, registry
from ...ops import norm
from .kernel import THREADS, aligned, flat_grid, launch, suffix


def attach(cp: Any) -> None:
    """Attaches them."""
    Variant(registry["batch_norm"], cp, _fits, _batch_norm, _gradient, extras=("scale",))
    norm.faster_moments[cp] = moments


def _last(x: Any) -> bool | None:
    """Whether the channels lie last in memory; None where the array has gaps or another order."""
    if x.flags.c_contiguous:
        return False
    order = (0, *range(2, x.ndim), 1)
    return True if x.transpose(order).flags.c_contiguous else None


def _fits(x: Any, weight: Any, bias: Any, *, mean: Any, variance: Any, eps: float) -> bool:
    small = [a for a in (weight, bias, mean, variance) if a is not None]
    return suffix(x) is not None and x.ndim > 1 and x.size > 0 and all(suffix(a) for a in small)


def _dense(xp: Any, x: Any) -> tuple[Any, bool]:
    last = _last(x)
    return (xp.ascontiguousarray(x), False) if last is None else (x, last)


def _sums(
    xp: Any, x: Any, g: Any, mean: Any, last: bool, scale: float, first: bool, second: bool
) -> tuple[Any, Any]:
    """Sums over each channel, times `scale`: see channel.cu."""
    channels, length = x.shape[1], math.prod(x.shape[2:])
    count = x.size // channels
    groups = -(-channels // 32) if last else channels
    splits = max(1, min(-(-512 // groups), -(-count // 1024)))
    partial = xp.empty((splits, 2, channels), "float32")
    args = (x, g, mean, partial, count, channels, length, splits, last)
    launch("channel.cu", f"channel_partial_{suffix(x)}", groups * splits, 256, *args)
    a, b = (xp.empty(channels, "float32") if wanted else None for wanted in (first, second))
    launch(
        "channel.cu", "channel_finish", -(-2 * channels // 256), 256, partial, a, b, channels, splits, scale
    )
    return a, b


def moments(x: Any) -> tuple[Any, Any] | None:
    """Mean and variance (divided by n) of each channel, float32, in two passes; None for other dtypes."""
    if suffix(x) is None or x.ndim < 2 or not x.size:
        return None
    from .runtime import load

    xp = load()
    x, last = _dense(xp, x)
    each = x.shape[1] / x.size
    mean, _ = _sums(xp, x, None, None, last, each, True, False)
    _, variance = _sums(xp, x, None, mean, last, each, False, True)
    return mean, variance


def _line(xp: Any, x: Any, g: Any, factor: Any, slope: Any, shift: Any, last: bool) -> Any:
    y = xp.empty_like(x)
    channels, length = x.shape[1], math.prod(x.shape[2:])
    rest = (factor, slope, shift, x.size, channels, length, last, aligned(16, x, g, y))
    launch(
        "channel.cu",
        f"channel_line_{suffix(x)}",
        flat_grid(x.size, 16 // x.itemsize),
        THREADS,
        x,
        g,
        y,
        *rest,
    )
    return y


def _float(a: Any) -> Any:
    return None if a is None else a.astype("float32", copy=False)


def _batch_norm(xp: Any, x: Any, weight: Any, bias: Any, *, mean: Any, variance: Any, eps: float) -> Any:
    x, last = _dense(xp, x)
    weight, bias, mean, variance = map(_float, (weight, bias, mean, variance))
    scale = 1 / xp.sqrt(variance + float(eps))
    factor = scale if weight is None else scale * weight
    shift = -mean * factor if bias is None else bias - mean * factor
    return _line(xp, x, None, factor, None, shift, last), scale


def _gradient(
    xp: Any, g: Any, needs: Any, x: Any, weight: Any, mean: Any, scale: Any, x_shape: Any
) -> list[Any]:
    """With n the normalised input, r its scale and h = g weight: r (h - mean h - n mean(h n))."""
    x, last = _dense(xp, x)
    if g.dtype != x.dtype or g.strides != x.strides:
        at = xp.empty_like(x)
        at[...] = g
        g = at
    mean = _float(mean)
    total, product = _sums(xp, x, g, mean, last, 1.0, True, True)
    product *= scale
    dx = None
    if needs[0]:
        factor = scale if weight is None else scale * _float(weight)
        each = x.shape[1] / x.size
        slope = -factor * scale * product * each
        shift = -factor * total * each - slope * mean
        dx = _line(xp, x, g, factor, slope, shift, last)
    kind = x.dtype if weight is None else weight.dtype
    dw, db = (
        t.astype(kind, copy=False) if wanted else None for t, wanted in zip((product, total), needs[1:])
    )
    return [dx, dw, db]
