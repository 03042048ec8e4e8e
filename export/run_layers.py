"""What the ONNX nodes of layers compute, on Tensors; see run_nodes.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.op import tensor_ops as ops
from ..nn.layers import rnn as _rnn  # noqa: F401  (declares the ops of recurrent layers)
from ..tensor.products import einsum
from .run_nodes import nodes, pairs_of, runs
from .trace import ExportError

# ---- products, convolution, pooling, normalisation


@runs("Gemm")
def _gemm(
    a: Any, b: Any, c: Any = None, *, transA: int = 0, transB: int = 0, alpha: float = 1.0, beta: float = 1.0
) -> Any:
    a = a.transpose(0, 1) if transA else a
    y = ops["matmul"](a, b.transpose(0, 1) if transB else b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


@runs("Einsum")
def _einsum(*x: Any, equation: str = "") -> Any:
    return einsum(equation, *x)


@runs("Conv")
def _conv(
    x: Any, w: Any, b: Any = None, *, strides: Any = None, pads: Any = None, dilations: Any = None, group: int = 1,
    kernel_shape: Any = None,
) -> Any:  # fmt: skip
    dims = x.ndim - 2
    ones = (1,) * dims
    kw = {
        "stride": tuple(strides or ones),
        "dilation": tuple(dilations or ones),
        "padding": pairs_of(pads, dims),
    }
    return ops["conv"](x, w, b, groups=group, **kw)


@runs("ConvTranspose")
def _conv_transpose(
    x: Any, w: Any, b: Any = None, *, strides: Any = None, pads: Any = None, dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, output_padding: Any = None,
) -> Any:  # fmt: skip
    dims = x.ndim - 2
    ones = (1,) * dims
    stride, spread, pairs = tuple(strides or ones), tuple(dilations or ones), pairs_of(pads, dims)
    rows = zip(x.array.shape[2:], stride, w.array.shape[2:], spread, pairs, output_padding or [0] * dims)
    size = tuple((n - 1) * s + d * (k - 1) + 1 - p - q + e for n, s, k, d, (p, q), e in rows)
    return ops["conv_input"](x, w, b, size=size, stride=stride, padding=pairs, dilation=spread, groups=group)


@runs("MaxPool")
def _max_pool(
    x: Any,
    *,
    kernel_shape: Any = None,
    strides: Any = None,
    pads: Any = None,
    dilations: Any = None,
    outputs: int = 1,
) -> Any:
    dims = x.ndim - 2
    kw: dict[str, Any] = {"kernel": tuple(kernel_shape), "stride": tuple(strides or [1] * dims)}
    kw |= {"padding": pairs_of(pads, dims), "dilation": tuple(dilations or [1] * dims)}
    y = ops["max_pool"](x, **kw)
    if outputs == 1:
        return y
    first = np.arange(math.prod(x.array.shape[:2])).reshape(*x.array.shape[:2], *[1] * dims)
    return y, ops["max_pool_indices"](x, y, **kw) + wrap(first * math.prod(x.array.shape[2:]))


@runs("AveragePool")
def _average_pool(
    x: Any, *, kernel_shape: Any = None, strides: Any = None, pads: Any = None, count_include_pad: int = 0
) -> Any:
    dims = x.ndim - 2
    kw: dict[str, Any] = {"kernel": tuple(kernel_shape), "stride": tuple(strides or [1] * dims)}
    kw |= {"padding": pairs_of(pads, dims), "extra": (0,) * dims, "divisor": None}
    return ops["avg_pool"](x, include=bool(count_include_pad), **kw)


@runs("LayerNormalization")
def _layer_norm(x: Any, w: Any, b: Any = None, *, axis: int = -1, epsilon: float = 1e-5) -> Any:
    return ops["layer_norm"](x, w, b, shape=x.array.shape[axis:], eps=epsilon)


# ---- recurrent layers: see op_recurrent.py for the order of the gates


def _recurrent(op: str, order: tuple[int, ...], states: int) -> Callable[..., Any]:
    def run(
        x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, *initial: Any, hidden_size: int = 0,
        direction: str = "forward", linear_before_reset: int = 0, activations: Any = None,
    ) -> Any:  # fmt: skip
        known = ([], ["Tanh"], ["Relu"]) if op == "rnn_sequence" else ([],)
        if direction == "bidirectional" or lengths is not None or (activations or []) not in known:
            raise ExportError(
                f"[onnx] {op} with direction {direction!r}, lengths or activations cannot be run"
            )
        if op == "gru_sequence" and not linear_before_reset:
            raise ExportError("[onnx] GRU with linear_before_reset=0 cannot be run")
        steps, batch, width = x.array.shape
        back = np.concatenate(
            [np.arange(hidden_size) + list(order).index(i) * hidden_size for i in range(len(order))]
        )
        parts = [w[0], r[0], *([] if b is None else b[0].chunk(2))]
        weights = [ops["index_select"](p, dim=0, index=back) for p in parts]
        state = [i[0] for i in initial] or [x.new_zeros(batch, hidden_size) for _ in range(states)]
        kw = {"relu": activations == ["Relu"]} if op == "rnn_sequence" else {}
        rows = x.reshape(steps * batch, width)
        y, *last = ops[op](
            rows, *state, *weights, sizes=(batch,) * steps, reverse=direction == "reverse", **kw
        )
        return [y.reshape(steps, 1, batch, hidden_size), *(s.unsqueeze(0) for s in last)]

    return run


nodes["LSTM"] = _recurrent("lstm_sequence", (0, 3, 1, 2), 2)
nodes["GRU"] = _recurrent("gru_sequence", (1, 0, 2), 1)
nodes["RNN"] = _recurrent("rnn_sequence", (0,), 1)

__all__ = ["nodes"]
