"""Bodies by the compiled loops over images (images.py): float32 arrays that are large enough, as looped.py says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import looped
from .looped import F32


def _loops(*arrays: Any) -> Any:
    """The compiled loops, where they take these arrays and the first is large enough."""
    size = arrays[0].size
    if not size or size < looped.LARGE or any(a is not None and a.dtype != F32 for a in arrays):
        return None
    if looped.loops() is None:
        return None
    from . import images

    return images


def moments(x: Any) -> Any:
    """(mean, variance) of each channel of (N, C, L)."""
    if (found := _loops(x)) is None:
        return None
    mean, variance = np.empty(x.shape[1], F32), np.empty(x.shape[1], F32)
    found.moments(x, mean, variance)
    return mean, variance


def batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, eps: float) -> Any:
    """(y, scale) of (N, C, L)."""
    if (found := _loops(x, weight, bias, mean, variance)) is None:
        return None
    y, scale = np.empty(x.shape, F32), np.empty(x.shape[1], F32)
    given = looped.affine(x.shape[1], weight, bias)
    flat = np.ascontiguousarray(mean), np.ascontiguousarray(variance)
    found.batch_norm(x, *given, *flat, np.float32(eps), False, y, scale)
    return y, scale


def batch_norm_backward(g: Any, x: Any, weight: Any, mean: Any, scale: Any) -> Any:
    """Gradients of (x, weight, bias), x of (N, C, L)."""
    if (found := _loops(x, g, weight, mean, scale)) is None:
        return None
    dx, dw, db = np.empty(x.shape, F32), np.empty(x.shape[1], F32), np.empty(x.shape[1], F32)
    weight, _ = looped.affine(x.shape[1], weight, None)
    found.batch_norm_backward(
        g, x, weight, np.ascontiguousarray(mean), np.ascontiguousarray(scale), dx, dw, db
    )
    return dx, dw, db


def _window(x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """Sizes of windows as the loops take them; None for what they do not compute."""
    if x.ndim != 4 or set(dilation) != {1}:
        return None
    return (*kernel, *stride, padding[0][0], padding[1][0])


def _planes(a: Any) -> Any:
    return np.ascontiguousarray(a).reshape(math.prod(a.shape[:2]), *a.shape[2:])


def max_pool(x: Any, out: tuple[int, ...], **window: Any) -> Any:
    """out: height and width of the result."""
    sizes = _window(x, **window)
    if sizes is None or (found := _loops(x)) is None:
        return None
    y = np.empty((*x.shape[:2], *out), F32)
    found.max_pool(_planes(x), *sizes, _planes(y))
    return y


def max_pool_adjoint(gy: Any, x: Any, top: Any, **window: Any) -> Any:
    sizes = _window(x, **window)
    if sizes is None or (found := _loops(x, gy, top)) is None:
        return None
    dx = np.empty(x.shape, F32)
    found.max_pool_backward(_planes(gy), _planes(x), _planes(top), *sizes, _planes(dx))
    return dx


BODIES: dict[str, Callable[..., Any]] = {
    "moments": moments,
    "batch_norm": batch_norm,
    "batch_norm_backward": batch_norm_backward,
    "max_pool": max_pool,
    "max_pool_adjoint": max_pool_adjoint,
}
