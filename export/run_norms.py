"""What the ONNX nodes of normalisation compute, on Tensors; see run_nodes.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.op import tensor_ops as ops
from ..tensor.ops import linalg as _linalg  # noqa: F401
from ..tensor.ops import spectral as _spectral  # noqa: F401  (declare their ops)
from .run_nodes import runs
from .trace import ExportError


@runs("Det")
def _det(x: Any) -> Any:
    return ops["det"](x)


@runs("Dropout")
def _dropout(
    x: Any, share: Any = None, training: Any = None, *, ratio: float = 0.5, seed: int = 0, opset: int = 13,
    outputs: int = 1,
) -> Any:  # fmt: skip
    if training is not None and training.array.item() and (share is None or share.array.item()):
        raise ExportError(
            "[onnx] Dropout in training mode cannot be run: the file must be of an evaluated model"
        )
    mask = np.ones(x.array.shape, bool if opset >= 10 else x.array.dtype)
    return x if outputs == 1 else (x, wrap(mask))


def _by_channel(v: Any, ndim: int) -> Any:
    return v.reshape(-1, *[1] * (ndim - 2))


@runs("BatchNormalization")
def _batch_norm(
    x: Any, scale: Any, bias: Any, mean: Any, variance: Any, *, epsilon: float = 1e-5, momentum: float = 0.9,
    training_mode: int = 0, spatial: int = 1, outputs: int = 1,
) -> Any:  # fmt: skip
    if training_mode or outputs > 1 or not spatial:
        raise ExportError(
            "[onnx] BatchNormalization in training mode, with spatial=0 or with several outputs cannot be run: the file"
            " must be of an evaluated model"
        )
    s, b, m, v = (_by_channel(t, x.ndim) for t in (scale, bias, mean, variance))
    y = (x - m) * (s * ops["rsqrt"](v + epsilon)) + b
    return y if y.array.dtype == x.array.dtype else ops["cast"](y, dtype=x.array.dtype)


@runs("InstanceNormalization")
def _instance_norm(x: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5) -> Any:
    dims = tuple(range(2, x.ndim))
    return _centred(x, dims, epsilon) * _by_channel(scale, x.ndim) + _by_channel(bias, x.ndim)


def _centred(x: Any, dims: tuple[int, ...], epsilon: float) -> Any:
    d = x - ops["mean"](x, dim=dims, keepdim=True)
    return d * ops["rsqrt"](ops["mean"](d * d, dim=dims, keepdim=True) + epsilon)


@runs("LayerNormalization")
def _layer_norm(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> Any:
    shape = x.array.shape[axis:]
    if outputs == 1 and w.array.shape == shape:
        return ops["layer_norm"](x, w, b, shape=shape, eps=epsilon)
    dims = tuple(range(axis % x.ndim, x.ndim))
    mean = ops["mean"](x, dim=dims, keepdim=True)
    d = x - mean
    scale = ops["rsqrt"](ops["mean"](d * d, dim=dims, keepdim=True) + epsilon)
    y = d * scale * w
    return (y if b is None else y + b), mean, scale


@runs("LRN")
def _local_response(
    x: Any, *, size: int = 1, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Any:
    before = (size - 1) // 2
    around = ((0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2))
    square = ops["pad"](x * x, widths=around, value=0.0)
    n = x.array.shape[1]
    total = sum(ops["narrow"](square, dim=1, start=i, length=n) for i in range(size))
    return x / (total * (alpha / size) + bias) ** beta


@runs("LpNormalization")
def _lp_norm(x: Any, *, axis: int = -1, p: int = 2) -> Any:
    size = ops["abs"](x) if p == 1 else x * x
    total = ops["sum"](size, dim=(axis,), keepdim=True)
    total = total if p == 1 else ops["sqrt"](total)
    return ops["where"](ops["eq"](total, 0), x * 0, x / ops["where"](ops["eq"](total, 0), total + 1, total))
