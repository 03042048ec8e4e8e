"""What the ONNX nodes Resize and Upsample compute, on Tensors: each dimension by itself, by a matrix of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.op import tensor_ops as ops
from .run_nodes import ints_of, runs

Floats = Any


def _places(mode: str, n: int, scale: float, roi: tuple[float, float]) -> Floats:
    """Where each element of the result lies among the n elements of the input."""
    length = n * scale  # may be no whole number: the corners are then those of the input scaled
    i = np.arange(int(length + 1e-6), dtype=np.float64)
    half = (i + 0.5) / scale - 0.5
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return i * 0 if length == 1 else i * (n - 1) / (length - 1)
    if mode == "pytorch_half_pixel":
        return half if len(i) > 1 else i * 0
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if mode == "half_pixel_symmetric":
        return n / 2 * (1 - len(i) / length) + half
    if mode == "tf_crop_and_resize":
        start, end = roi
        step = (end - start) * (n - 1) / (length - 1) if length > 1 else 0.0
        return start * (n - 1) + i * step if length > 1 else i * 0 + 0.5 * (start + end) * (n - 1)
    return half


ROUNDED: dict[str, Callable[[Floats], Floats]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def _cubic(a: float) -> Callable[[Floats], Floats]:
    def weight(t: Floats) -> Floats:
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        return np.where(t <= 1, near, np.where(t < 2, far, 0.0))

    return weight


def _linear(t: Floats) -> Floats:
    return np.maximum(1 - t, 0)


def _matrix(x: Floats, n: int, weight: Any, reach: int, scale: float, outside: bool) -> Floats:
    """Rows of weights of the n elements. `outside`: elements past the ends count as nothing, not as the last one."""
    first = np.floor(x - reach / scale).astype(int)
    taps = first[:, None] + np.arange(int(2 * reach / scale) + 3)
    w = weight(np.abs(x[:, None] - taps) * scale)
    w = np.where((taps < 0) | (taps >= n), 0, w) if outside else w
    w /= w.sum(axis=1, keepdims=True)
    full = np.zeros((len(x), n))
    np.add.at(full, (np.arange(len(x))[:, None], np.clip(taps, 0, n - 1)), w)
    return full


def _axis(x: Any, d: int, scale: float, roi: Any, kw: dict[str, Any]) -> Any:
    n = x.array.shape[d]
    at = _places(kw["coordinates"], n, scale, roi)
    off = (at < 0) | (at > n - 1) if kw["coordinates"] == "tf_crop_and_resize" else None
    if kw["mode"] == "nearest":
        places = np.clip(ROUNDED[kw["nearest"]](at), 0, n - 1).astype(np.int64)
        y = ops["index_select"](x, dim=d, index=places)
    else:
        weight, reach = (_linear, 1) if kw["mode"] == "linear" else (_cubic(kw["cubic"]), 2)
        shrink = min(scale, 1.0) if kw["antialias"] else 1.0
        rows = _matrix(at, n, weight, reach, shrink, bool(kw["exclude_outside"]))
        across = wrap(np.ascontiguousarray(rows.T).astype(x.array.dtype))
        y = ops["matmul"](x.transpose(d, x.ndim - 1), across).transpose(d, x.ndim - 1)
    if off is None or not off.any():
        return y
    mask = off.reshape([-1 if k == d else 1 for k in range(x.ndim)])
    return ops["where"](wrap(mask), kw["extrapolation"], y)


def _kept(sizes: list[int], old: list[int], policy: str) -> list[float]:
    """The scales that give these sizes, or, where the shape is to be kept, the nearest that are alike."""
    if policy != "stretch":
        scale = (min if policy == "not_larger" else max)(m / n for m, n in zip(sizes, old))
        sizes = [int(scale * n + 0.5) for n in old]
    return [m / n for m, n in zip(sizes, old)]


def _resized(x: Any, dims: list[int], steps: list[float], roi: Any, kw: dict[str, Any]) -> Any:
    for i, (d, scale) in enumerate(zip(dims, steps)):
        crop = (0.0, 1.0) if roi is None else (roi[i], roi[i + len(dims)])
        if scale != 1 or crop != (0.0, 1.0):
            x = _axis(x, d, scale, crop, kw)
    return x


@runs("Resize")
def _resize(
    x: Any, *given: Any, mode: str = "nearest", coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75, nearest_mode: str = "round_prefer_floor", exclude_outside: int = 0,
    extrapolation_value: float = 0.0, antialias: int = 0, axes: Any = None, keep_aspect_ratio_policy: str = "stretch",
    opset: int = 13,
) -> Any:  # fmt: skip
    if opset < 11:
        return _upsample(x, *given, mode=mode)
    roi, scales, sizes = (*given, None, None, None)[:3]
    dims = [a % x.ndim for a in axes] if axes else list(range(x.ndim))
    if sizes is not None and sizes.array.size:
        old = [x.array.shape[d] for d in dims]
        steps = _kept(ints_of(sizes), old, keep_aspect_ratio_policy)
    else:
        steps = [float(s) for s in scales.array]
    kw = {
        "mode": mode, "coordinates": coordinate_transformation_mode, "nearest": nearest_mode, "cubic": cubic_coeff_a,
        "antialias": antialias, "exclude_outside": exclude_outside, "extrapolation": extrapolation_value,
    }  # fmt: skip
    crop = None if roi is None or not roi.array.size else [float(v) for v in roi.array]
    return _resized(x, dims, steps, crop, kw)


@runs("Upsample")
def _upsample(x: Any, factors: Any = None, *, mode: str = "nearest", scales: Any = None) -> Any:
    steps = [float(s) for s in (scales if factors is None else factors.array)]
    kw = {"mode": "linear" if mode == "bilinear" else mode, "coordinates": "asymmetric", "nearest": "floor"}
    more = {"cubic": -0.75, "antialias": 0, "exclude_outside": 0, "extrapolation": 0.0}
    return _resized(x, list(range(x.ndim)), steps, None, kw | more)
