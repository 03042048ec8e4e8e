"""Sampling of images at real-valued places."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...autograd.engine import whole, wrap
from ...autograd.op import describe
from ...tensor import Tensor, functions
from ...tensor.device import by_the_host
from ...tensor.ops import pointwise

Tap = tuple[np.ndarray, Any]  # whole-numbered places along a dimension, and their weights (None: 1)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Places (N, H, W, 2) or (N, D, H, W, 3) for grid_sample, from affine maps theta (N, 2, 3) or (N, 3, 4)."""
    n, _, *spatial = (int(s) for s in size)
    dims = len(spatial)
    if theta.array.shape != (n, dims, dims + 1) or dims not in (2, 3):
        raise RuntimeError(
            f"[affine_grid] theta must be (N, 2, 3) for 4-d and (N, 3, 4) for 5-d sizes, came {describe(theta)} for"
            f" {list(size)}"
        )
    if min(n, *spatial) < 1:
        raise RuntimeError(f"[affine_grid] the size must be positive, came {list(size)}")
    lines = []
    for count in spatial:
        steps = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
        lines.append(steps if align_corners else steps * (count - 1) / count)
    mesh = np.meshgrid(*lines, indexing="ij")
    places = np.stack([*mesh[::-1], np.ones(spatial)], axis=-1).reshape(-1, dims + 1)
    base = wrap(places.astype(theta.array.dtype))
    return functions.matmul(base, theta.transpose(1, 2)).reshape((n, *spatial, dims))


@whole
@by_the_host
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """Values of (N, C, H, W) or (N, C, D, H, W) at places (N, ..., 2 or 3) in [-1, 1], x first (arXiv:1506.02025).

    mode: bilinear, nearest or (4-d) bicubic. padding_mode: zeros, border or reflection. align_corners: -1 and 1
    are the centres of the outermost pixels, not their outer edges.
    """
    dims = input.ndim - 2
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(f"[grid_sample] mode must be bilinear, nearest or bicubic, came {mode!r}")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            f"[grid_sample] padding_mode must be zeros, border or reflection, came {padding_mode!r}"
        )
    if (
        dims not in (2, 3)
        or grid.ndim != input.ndim
        or grid.shape[-1] != dims
        or grid.shape[0] != input.shape[0]
    ):
        raise RuntimeError(
            f"[grid_sample] the grid of (N, C, H, W) must be (N, h, w, 2), of (N, C, D, H, W) (N, d, h, w, 3), came"
            f" input {describe(input)} and grid {describe(grid)}"
        )
    if mode == "bicubic" and dims == 3:
        raise RuntimeError(f"[grid_sample] bicubic needs a 4-d input, came {describe(input)}")
    if align_corners is None:
        warnings.warn("[grid_sample] align_corners should be given: it is False by default", stacklevel=2)
    corners = bool(align_corners)
    spatial = input.array.shape[2:]
    taps = [
        _taps(grid[..., dims - 1 - d], n, mode, padding_mode, corners) for d, n in enumerate(spatial)
    ]  # the grid's last dimension counts from the input's last
    return _gathered(input, grid.array.shape[1:-1], taps, padding_mode, corners, mode)


def _taps(coordinate: Tensor, n: int, mode: str, padding: str, corners: bool) -> list[Tap]:
    x = (coordinate + 1) * ((n - 1) / 2) if corners else ((coordinate + 1) * n - 1) * 0.5
    if mode != "bicubic" and padding == "reflection":
        x = pointwise.clamp(_reflected(x, n, corners), 0, n - 1)
    elif mode != "bicubic" and padding == "border":
        x = pointwise.clamp(x, 0, n - 1)
    if mode == "nearest":
        return [(np.rint(x.array).astype(np.int64), None)]
    start = np.floor(x.array)
    part = x - wrap(start)
    first = start.astype(np.int64)
    if mode == "bilinear":
        return [(first, 1 - part), (first + 1, part)]
    near, far = (lambda t: (1.25 * t - 2.25) * t * t + 1), (lambda t: (((t - 5) * t + 8) * t - 4) * -0.75)
    weights = (far(part + 1), near(part), near(1 - part), far(2 - part))
    return [(first + j - 1, w) for j, w in enumerate(weights)]


def _reflected(x: Any, n: int, corners: bool) -> Any:
    """Folded back at the edges: 0 and n - 1, or half a pixel further out."""
    low, span = (0.0, n - 1.0) if corners else (-0.5, float(n))
    if span == 0:
        return x * 0
    away = (x - low).abs() if isinstance(x, Tensor) else np.abs(x - low)
    array = away.array if isinstance(away, Tensor) else away
    flips = np.floor(array / span)
    odd = (flips % 2).astype(array.dtype)
    sign, shift = (1 - 2 * odd), (flips + odd) * span
    if isinstance(x, Tensor):
        return (away - wrap(shift.astype(array.dtype))) * wrap(sign) + low
    return (away - shift) * sign + low


def _gathered(
    input: Tensor, out: tuple[int, ...], taps: list[list[Tap]], padding: str, corners: bool, mode: str
) -> Tensor:
    """The sum over all combinations of taps of values times weights."""
    n, c, *spatial = input.array.shape
    flat = input.reshape((n, c, -1))
    total: Any = 0
    for chosen in itertools.product(*taps):
        index = np.zeros((n, *out), np.int64)
        inside = np.ones((n, *out), bool)
        weight: Any = None
        for (at, w), size in zip(chosen, spatial):
            if mode == "bicubic" and padding == "reflection":
                at = np.rint(_reflected(at.astype(float), size, corners)).astype(np.int64)
            inside &= (at >= 0) & (at < size)
            index = index * size + at.clip(0, size - 1)
            weight = w if weight is None or w is None else weight * w
        spread = np.broadcast_to(index.reshape(n, 1, -1), (n, c, index[0].size))
        values = functions.gather(flat, 2, wrap(np.ascontiguousarray(spread))).reshape((n, c, *out))
        if padding == "zeros":
            values = values * wrap(inside[:, None].astype(input.array.dtype))
        total = total + (values if weight is None else values * weight.unsqueeze(1))
    return total
