"""What ONNX's nodes on quantised integers compute. They have no gradient: they work on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.op import tensor_ops as ops
from . import run_layers as _layers  # noqa: F401  (Conv)
from .run_nodes import dtype_of, like, nodes, runs
from .trace import ExportError

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32")


def _spread(v: Any, x: Any, axis: int, block: int) -> Any:
    """A scale or zero point, one for all, one a position of `axis`, or one a block, in a shape that broadcasts to x."""
    if v.ndim == 0 or (v.size == 1 and v.ndim <= 1 and not block):
        return v.reshape(())
    if block:
        return np.repeat(v, block, axis=axis)[tuple(slice(n) for n in x.shape)]
    shape = [1] * x.ndim
    shape[axis] = -1
    return v.reshape(shape)


def _checked(dtype: Any) -> Any:
    if dtype.name not in INTEGERS:
        raise ExportError(f"[onnx] quantised numbers must be of {', '.join(INTEGERS)}, came {dtype.name}")
    return dtype


def _quantized(x: Any, scale: Any, zero: Any, dtype: Any) -> Any:
    info = np.iinfo(dtype)
    return np.clip(np.rint(x / scale) + zero.astype(np.float64), info.min, info.max).astype(dtype)


@runs("QuantizeLinear")
def _quantize(
    x: Any, scale: Any, zero: Any = None, *, axis: int = 1, saturate: int = 1, block_size: int = 0,
    output_dtype: int = 0, precision: int = 0,
) -> Any:  # fmt: skip
    dtype = _checked(
        zero.array.dtype
        if zero is not None
        else dtype_of("QuantizeLinear", output_dtype)
        if output_dtype
        else np.dtype("uint8")
    )
    offset = np.zeros_like(scale.array, dtype) if zero is None else zero.array
    s, z = (_spread(v, x.array, axis, block_size) for v in (scale.array.astype(x.array.dtype), offset))
    return wrap(_quantized(x.array, s, z, dtype))


@runs("DequantizeLinear")
def _dequantize(
    x: Any, scale: Any, zero: Any = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0
) -> Any:
    _checked(x.array.dtype)
    wide = x.array.astype(np.int64)
    offset = np.zeros_like(scale.array, np.int64) if zero is None else zero.array.astype(np.int64)
    s, z = (_spread(v, x.array, axis, block_size) for v in (scale.array, offset))
    y = ((wide - z) * s.astype(np.float32)).astype(scale.array.dtype)
    return wrap(y.astype(dtype_of("DequantizeLinear", output_dtype)) if output_dtype else y)


@runs("DynamicQuantizeLinear")
def _dynamic(x: Any) -> Any:
    low, high = (min(0.0, x.array.min(initial=0)), max(0.0, x.array.max(initial=0)))
    scale = np.float32((high - low) / 255) or np.float32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
    return wrap(_quantized(x.array, scale, zero, np.uint8)), wrap(np.asarray(scale)), wrap(np.asarray(zero))


def _less(x: Any, zero: Any, axis: int | None = None) -> Any:
    """An integer tensor as float64, which holds these products exactly, without its zero point."""
    wide = x.array.astype(np.float64)
    if zero is None:
        return wide
    z = zero.array.astype(np.float64)
    if axis is not None and z.size > 1 and z.ndim == 1:
        shape = [1] * wide.ndim
        shape[axis] = -1
        z = z.reshape(shape)
    return wide - (z.reshape(()) if z.size == 1 else z)


@runs("MatMulInteger")
def _matmul_integer(a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Any:
    return wrap((_less(a, a_zero, -2) @ _less(b, b_zero, -1)).astype(np.int32))


@runs("ConvInteger")
def _conv_integer(x: Any, w: Any, x_zero: Any = None, w_zero: Any = None, **kw: Any) -> Any:
    y = nodes["Conv"](wrap(_less(x, x_zero)), wrap(_less(w, w_zero, 0)), **kw)
    return ops["cast"](y, dtype=np.dtype("int32"))


@runs("QLinearMatMul")
def _qlinear_matmul(
    a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any
) -> Any:
    scale = y_scale.array.astype(np.float64) / (a_scale.array.astype(np.float64) * b_scale.array)
    y = _less(a, a_zero, -2) @ _less(b, b_zero, -1)
    return wrap(_quantized(y, scale, y_zero.array, _checked(y_zero.array.dtype)))


@runs("QLinearConv")
def _qlinear_conv(
    x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any, y_scale: Any, y_zero: Any,
    b: Any = None, **kw: Any,
) -> Any:  # fmt: skip
    bias = None if b is None else wrap(b.array.astype(np.float64))
    y = nodes["Conv"](wrap(_less(x, x_zero)), wrap(_less(w, w_zero, 0)), bias, **kw).array
    shape = (-1, *[1] * (y.ndim - 2)) if w_scale.array.size > 1 else ()
    scale = w_scale.array.astype(np.float64).reshape(shape) * x_scale.array.item()
    return wrap(_quantized(y, y_scale.array.item() / scale, y_zero.array, _checked(y_zero.array.dtype)))


like |= {"ConvInteger": "Conv", "QLinearConv": "Conv"}
