"""Resizing, and moving pixels between space and channels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from operator import index as whole
from typing import Any

import numpy as np

from ...autograd.engine import wrap
from ...autograd.op import describe
from ...tensor import Tensor, functions
from ...tensor.checks import refuse
from ...tensor.ops import index as _index
from .pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, along

_KERNELS = {
    "linear": (1, "triangle"),
    "bilinear": (2, "triangle"),
    "trilinear": (3, "triangle"),
    "bicubic": (2, "cubic"),
}


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resizes the spatial dimensions of (N, C, ...) to `size`, or by `scale_factor`.

    mode: nearest, nearest-exact, area, linear (3-d input), bilinear and bicubic (4-d), trilinear (5-d). Each
    dimension is mapped by a matrix of its own. antialias: widens the kernel where the size shrinks.
    """
    refuse("interpolate", "bci", input)
    dims = input.ndim - 2
    if not 0 < dims < 4:
        raise NotImplementedError(
            f"[interpolate] the input must have 3 to 5 dimensions, came {describe(input)}"
        )
    if isinstance(size, str):
        raise TypeError(f"[interpolate] size must be ints, came {size!r}")
    if mode in ("nearest", "nearest-exact", "area"):
        if align_corners is not None:
            raise ValueError(f"[interpolate] align_corners is for linear and cubic modes, came mode {mode!r}")
    elif mode not in _KERNELS:
        raise NotImplementedError(f"[interpolate] mode must be one that PyTorch knows, came {mode!r}")
    elif dims != _KERNELS[mode][0]:
        raise NotImplementedError(
            f"[interpolate] mode {mode!r} needs {_KERNELS[mode][0] + 2} dimensions, came {describe(input)}"
        )
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"[interpolate] antialias is for bilinear and bicubic, came mode {mode!r}")
    sizes, scales = _sizes(input, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[dims - 1](input, sizes)
    for d, (n, out, scale) in enumerate(zip(input.array.shape[2:], sizes, scales)):
        if mode in ("nearest", "nearest-exact"):
            input = _index.index_select(input, dim=2 + d, index=wrap(_nearest(n, out, scale, mode)))
        elif n != out or scale not in (None, 1.0):
            matrix = _resampling(n, out, scale, _KERNELS[mode][1], bool(align_corners), antialias)
            input = _along_band(input, 2 + d, matrix)
    return input


def _sizes(
    input: Tensor, size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[list[int], list[float | None]]:
    """Output sizes, and the scales to place samples by (None: the ratio of the sizes)."""
    spatial = input.array.shape[2:]
    dims = len(spatial)
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"[interpolate] one of size and scale_factor must be given, came {size} and {scale_factor}"
        )
    values = size if size is not None else scale_factor
    values = [values] * dims if isinstance(values, int | float) else list(values)
    if len(values) != dims:
        raise ValueError(
            f"[interpolate] size and scale_factor must have one number for each of {dims} dimensions, came {values}"
        )
    scales: list[float | None] = [None] * dims
    if size is not None:
        if recompute:
            raise ValueError("[interpolate] recompute_scale_factor is for scale_factor, came with size")
        sizes = [whole(v) for v in values]
    else:
        sizes = [math.floor(n * v) for n, v in zip(spatial, values)]
        scales = scales if recompute else [float(v) for v in values]
    if min(sizes, default=1) < 1:
        raise RuntimeError(
            f"[interpolate] the output must not be empty, came size {sizes} for {describe(input)}"
        )
    return sizes, scales


def _nearest(n: int, out: int, scale: float | None, mode: str) -> np.ndarray:
    ratio = np.float32(n / out if scale is None else 1 / scale)
    i = np.arange(out, dtype=np.float32) + np.float32(0.5 if mode == "nearest-exact" else 0)
    return np.minimum(np.floor(i * ratio).astype(np.int64), n - 1)


def _resampling(
    n: int, out: int, scale: float | None, kernel: str, align_corners: bool, antialias: bool
) -> np.ndarray:
    """The matrix (out, n) of one dimension."""
    i = np.arange(out)
    if align_corners:
        ratio = (n - 1) / (out - 1) if out > 1 else 0.0
        centre = i * ratio
    else:
        ratio = n / out if scale is None else 1 / scale
        centre = (i + 0.5) * ratio - 0.5
    if antialias:
        return _antialiased(n, centre, max(ratio, 1.0), kernel)
    if kernel == "triangle":
        centre = np.clip(centre, 0, None)
    start = np.floor(centre).astype(np.int64)
    reach = range(0, 2) if kernel == "triangle" else range(-1, 3)
    matrix = np.zeros((out, n))
    for j in reach:
        weight = _triangle(centre - start - j) if kernel == "triangle" else _cubic(centre - start - j, -0.75)
        np.add.at(matrix, (i, np.clip(start + j, 0, n - 1)), weight)
    return matrix


PART = 32  # positions that are resampled by one product


def _along_band(input: Tensor, dim: int, matrix: np.ndarray) -> Tensor:
    """`along` with a matrix that is zero away from its diagonal: long dimensions in parts, of the input they need."""
    if min(matrix.shape) < 4 * PART:
        return along(input, dim, matrix)
    parts = []
    for start in range(0, len(matrix), PART):
        rows = matrix[start : start + PART]
        used = np.flatnonzero(rows.any(axis=0))
        low, count = int(used[0]), int(used[-1] - used[0] + 1)
        parts.append(along(input.narrow(dim, low, count), dim, rows[:, low : low + count]))
    return functions.cat(parts, dim)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys's cubic convolution (doi:10.1109/TASSP.1981.1163711)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _antialiased(n: int, centre: np.ndarray, ratio: float, kernel: str) -> np.ndarray:
    """A kernel as wide as a step between output samples, as Pillow's resize has it."""
    support = (1 if kernel == "triangle" else 2) * ratio
    at = np.arange(n)
    distance = (at - centre[:, None]) / ratio
    weight = _triangle(distance) if kernel == "triangle" else _cubic(distance, -0.5)
    middle = centre[:, None] + 0.5
    first = np.maximum(np.floor(middle - support + 0.5), 0)
    last = np.minimum(np.floor(middle + support + 0.5), n)
    weight = np.where((at >= first) & (at < last), weight, 0)
    return weight / weight.sum(axis=1, keepdims=True)


def upsample(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
) -> Tensor:
    """PyTorch's old name for interpolate."""
    warnings.warn("[upsample] deprecated: use interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """PyTorch's old name for interpolate with mode "nearest"."""
    warnings.warn("[upsample_nearest] deprecated: use interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """PyTorch's old name for interpolate with mode "bilinear" and align_corners."""
    warnings.warn("[upsample_bilinear] deprecated: use interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r^2, H, W) to (..., C, H r, W r) (arXiv:1609.05158)."""
    r = upscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-3] % (r * r):
        raise RuntimeError(f"[pixel_shuffle] the channels must divide by {r}^2, came {describe(input)}")
    *lead, c, h, w = input.array.shape
    k = len(lead)
    x = input.reshape((*lead, c // (r * r), r, r, h, w))
    order = (*range(k), k, k + 3, k + 1, k + 4, k + 2)
    return x.permute(order).reshape((*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) to (..., C r^2, H, W): undoes pixel_shuffle."""
    r = downscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-2] % r or input.shape[-1] % r:
        raise RuntimeError(f"[pixel_unshuffle] height and width must divide by {r}, came {describe(input)}")
    *lead, c, h, w = input.array.shape
    k = len(lead)
    x = input.reshape((*lead, c, h // r, r, w // r, r))
    order = (*range(k), k, k + 2, k + 4, k + 1, k + 3)
    return x.permute(order).reshape((*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Exchanges channels between groups: (N, g, C / g, ...) to (N, C / g, g, ...) (arXiv:1707.01083)."""
    n, c, *rest = input.array.shape
    if groups < 1 or c % groups:
        raise RuntimeError(
            f"[channel_shuffle] the channels must divide by groups {groups}, came {describe(input)}"
        )
    x = input.reshape((n, groups, c // groups, *rest))
    return x.transpose(1, 2).reshape((n, c, *rest))
