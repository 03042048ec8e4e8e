"""The LSTM over a sequence with compiled cells: the same arguments and results as the op's own bodies.

What lies between the two products of a step is one pass over memory, forward and backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor.ops import rnn
from .kernel_table import compiled

F32 = np.dtype("float32")


def lstm(
    xp: Any,
    x: Any,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    w_hr: Any = None,
    *,
    sizes: tuple[int, ...],
    reverse: bool = False,
) -> Any:
    if w_hr is not None or x.dtype != F32 or not len(x):
        rest = (b_ih, b_hh, w_hr)
        return rnn._lstm(xp, x, h0, c0, w_ih, w_hh, *rest, sizes=sizes, reverse=reverse)
    gates = rnn._project(x, w_ih, None if b_ih is None else b_ih + b_hh)
    h, c = h0.copy(order="C"), c0.copy(order="C")
    total, size = len(x), c.shape[1]
    y, h_before, c_before, tanh_c = (np.empty((total, size), F32) for _ in range(4))
    product = np.empty((len(h), 4 * size), F32)
    turned, cell = (
        np.ascontiguousarray(w_hh.T),
        compiled().lstm_cell,
    )  # a product as it lies is a quarter faster
    for a, b in rnn._spans(sizes, reverse):
        now = h[: b - a]
        h_before[a:b] = now
        np.matmul(now, turned, out=product[: b - a])
        cell(gates[a:b], product, h, c, c_before[a:b], tanh_c[a:b], y[a:b])
    return (y, h, c), gates, h_before, c_before, tanh_c, y


def lstm_backward(
    xp: Any,
    g: Any,
    needs: Any,
    x: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    w_hr: Any,
    sizes: tuple[int, ...],
    reverse: bool,
    gates: Any,
    h_before: Any,
    c_before: Any,
    tanh_c: Any,
    hidden: Any,
) -> Any:
    if w_hr is not None or gates.dtype != F32 or not len(x):
        saved = (gates, h_before, c_before, tanh_c, hidden)
        return rnn._lstm_backward(xp, g, needs, x, c0, w_ih, w_hh, w_hr, sizes, reverse, *saved)
    dy, dh, dc = rnn._incoming(g, [c0.shape, c0.shape], x, xp)
    dh, dc = np.ascontiguousarray(dh), np.ascontiguousarray(dc)
    dy = np.zeros_like(tanh_c) if dy is None else np.ascontiguousarray(dy)
    dgates, cell = np.empty_like(gates), compiled().lstm_cell_backward
    for a, b in reversed(rnn._spans(sizes, reverse)):
        cell(gates[a:b], c_before[a:b], tanh_c[a:b], dy[a:b], dh, dc, dgates[a:b])
        np.matmul(dgates[a:b], w_hh, out=dh[: b - a])
    wanted = [needs[0], *needs[3:7]]
    dx, *weights = rnn._weight_gradients(wanted, x, h_before, dgates, dgates, w_ih)
    return [dx, dh, dc, *weights, None][: len(needs)]


# (kind of node, op) -> what is called in place of the op's own body, with the same arguments
BODIES: dict[tuple[str, str], Any] = {
    ("op", "lstm_sequence"): lstm, ("backward", "lstm_sequence"): lstm_backward,
}  # fmt: skip
__all__ = ["BODIES", "lstm", "lstm_backward"]
