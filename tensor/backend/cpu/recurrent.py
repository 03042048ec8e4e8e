"""The LSTM over a sequence with compiled cells: one pass over memory between the two products of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops import rnn
from . import gemm, looped


def lstm(
    x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, bias: Any, *, sizes: tuple[int, ...], reverse: bool
) -> Any:
    """What the op's own body returns (tensor/ops/rnn.py), without a projection; None where that must compute it."""
    if x.dtype != looped.F32 or len(x) * w_ih.shape[0] < looped.LARGE or (found := looped.loops()) is None:
        return None
    gates = rnn._project(np, x, w_ih, bias)
    h, c = h0.copy(order="C"), c0.copy(order="C")
    total, size = len(x), c.shape[1]
    y, h_before, c_before, tanh_c = (np.empty((total, size), looped.F32) for _ in range(4))
    product = np.empty((len(h), 4 * size), looped.F32)
    multiply = gemm.times(sizes, np.ascontiguousarray(w_hh.T))  # a product as it lies is a quarter faster
    for a, b in rnn._spans(sizes, reverse):
        now, part = h[: b - a], gates[a:b]
        h_before[a:b] = now
        multiply(now, product[: b - a])
        found.lstm_add(part, product)
        np.tanh(part, out=part)  # NumPy's is several times faster than a loop's
        found.lstm_cell(part, c, c_before[a:b])
        np.tanh(c[: b - a], out=tanh_c[a:b])
        np.multiply(part[:, 3 * size :], tanh_c[a:b], out=now)
        y[a:b] = now
    return (y, h, c), gates, h_before, c_before, tanh_c, y


def lstm_backward(
    dy: Any,
    dh: Any,
    dc: Any,
    w_hh: Any,
    gates: Any,
    c_before: Any,
    tanh_c: Any,
    *,
    sizes: tuple[int, ...],
    reverse: bool,
) -> Any:
    """The gradient of the gates before their nonlinearities; dh and dc become those of the first state."""
    if (
        gates.dtype != looped.F32
        or gates.size < looped.LARGE
        or not (dh.flags.c_contiguous and dc.flags.c_contiguous)
    ):
        return None
    if (found := looped.loops()) is None:
        return None
    dy = np.zeros_like(tanh_c) if dy is None else np.ascontiguousarray(dy)
    dgates = np.empty_like(gates)
    multiply = gemm.times(sizes, w_hh)
    for a, b in reversed(rnn._spans(sizes, reverse)):
        found.lstm_cell_backward(gates[a:b], c_before[a:b], tanh_c[a:b], dy[a:b], dh, dc, dgates[a:b])
        multiply(dgates[a:b], dh[: b - a])
    return dgates


BODIES: dict[str, Callable[..., Any]] = {"lstm": lstm, "lstm_backward": lstm_backward}
