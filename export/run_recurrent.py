"""What the ONNX nodes LSTM, GRU and RNN compute, on Tensors; see op_recurrent.py for the order of the gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.op import tensor_ops as ops
from ..nn.layers import rnn as _rnn  # noqa: F401  (declares the ops of recurrent layers)
from .op_recurrent import RECURRENT
from .run_nodes import nodes
from .trace import ExportError

DEFAULTS = {"lstm_sequence": "Sigmoid Tanh Tanh", "gru_sequence": "Sigmoid Tanh", "rnn_sequence": "Tanh"}


def _recurrent(op: str, states: int) -> Callable[..., Any]:
    def run(
        x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None, c0: Any = None,
        peepholes: Any = None, *, hidden_size: int = 0, direction: str = "forward", linear_before_reset: int = 0,
        activations: Any = None, input_forget: int = 0, layout: int = 0,
    ) -> Any:  # fmt: skip
        if peepholes is not None or input_forget:
            raise ExportError("[onnx] LSTM with peepholes or input_forget cannot be run")
        x = x.transpose(0, 1) if layout else x
        steps, batch = x.array.shape[:2]
        if lengths is not None and lengths.array.min(initial=1) < 1:
            raise ExportError(f"[onnx] {op} with empty sequences cannot be run")
        packed = Packed(np.full(batch, steps) if lengths is None else lengths.array, steps)
        initial = [h0, c0][:states]
        if layout:
            initial = [None if i is None else i.transpose(0, 1) for i in initial]
        found = []
        backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        for i, back in enumerate(backward):
            names = _part(activations or [], i, len(backward))
            relu = _activation(op, names)
            own = [p[i] for p in (w, r, *([] if b is None else [b]))]
            state = [x.new_zeros(batch, hidden_size) if s is None else s[i] for s in initial]
            found.append(_direction(op, x, own, state, back, relu, bool(linear_before_reset), packed))
        parts = [ops["stack"](*p, dim=0) for p in zip(*found)]  # (directions, steps or none, batch, hidden)
        y = parts[0].transpose(0, 1)
        last = parts[1:]
        if layout:
            y, last = y.permute(2, 0, 1, 3), [s.transpose(0, 1) for s in last]
        return [y, *last]

    return run


def _part(activations: Any, i: int, count: int) -> list[str]:
    each = len(activations) // count
    return list(activations[i * each : (i + 1) * each])


def _activation(op: str, names: list[str]) -> bool:
    """Whether an RNN's activation is Relu; ExportError for what the layers do not have."""
    relu = op == "rnn_sequence" and names == ["Relu"]
    if names and not relu and names != DEFAULTS[op].split():
        raise ExportError(f"[onnx] {op} with the activations {', '.join(names)} cannot be run")
    return relu


class Packed:
    """Sequences of different lengths as rows without gaps: step by step, the longest first, as the layers' ops want."""

    def __init__(self, lengths: Any, steps: int) -> None:
        self.order = np.argsort(-lengths, kind="stable")
        self.back = np.argsort(self.order)
        sizes = [int((lengths > t).sum()) for t in range(steps)]
        self.sizes = tuple(n for n in sizes if n)
        self.whole = sizes.count(len(lengths)) == steps
        n = len(lengths)
        self.rows = np.concatenate([t * n + self.order[:m] for t, m in enumerate(sizes)]) if n else self.order


def _direction(
    op: str, x: Any, parts: list[Any], state: list[Any], back: bool, relu: bool, linear: bool, packed: Packed
) -> list[Any]:
    """The outputs (steps, batch, hidden) and the last states of one direction."""
    steps, batch, width = x.array.shape
    order, hidden = RECURRENT[op], state[0].array.shape[1]
    rows = np.concatenate([np.arange(hidden) + order.index(i) * hidden for i in range(len(order))])
    halves = [*parts[:2], *(parts[2].chunk(2) if len(parts) > 2 else ())]
    weights = [ops["index_select"](p, dim=0, index=rows) for p in halves]
    if op == "gru_sequence" and not linear:
        if not packed.whole:
            raise ExportError(
                "[onnx] a GRU of linear_before_reset=0 with sequences of different lengths cannot be run"
            )
        return _reset_first(x, state[0], weights, back, hidden)
    kw = {"relu": relu} if op == "rnn_sequence" else {}
    flat = ops["index_select"](x.reshape(steps * batch, width), dim=0, index=packed.rows)
    state = [ops["index_select"](s, dim=0, index=packed.order) for s in state]
    y, *last = ops[op](flat, *state, *weights, sizes=packed.sizes, reverse=back, **kw)
    zeros = x.new_zeros(steps * batch, hidden)
    whole = ops["index_copy"](zeros, y, dim=0, index=packed.rows).reshape(steps, batch, hidden)
    return [whole, *(ops["index_select"](s, dim=0, index=packed.back) for s in last)]


def _reset_first(x: Any, h: Any, weights: list[Any], back: bool, n: int) -> list[Any]:
    """A GRU that resets the state before it is multiplied (linear_before_reset=0), which nn.GRU does not."""
    w, r, *biases = weights
    wide = x @ w.transpose(0, 1) + (sum(biases) if biases else 0)
    steps: list[Any] = [None] * x.array.shape[0]
    for t in reversed(range(len(steps))) if back else range(len(steps)):
        gates = wide[t, :, : 2 * n] + h @ r[: 2 * n].transpose(0, 1)
        reset, update = ops["sigmoid"](gates).chunk(2, 1)
        new = ops["tanh"](wide[t, :, 2 * n :] + (reset * h) @ r[2 * n :].transpose(0, 1))
        h = (1 - update) * new + update * h
        steps[t] = h
    return [ops["stack"](*steps, dim=0), h]


nodes["LSTM"] = _recurrent("lstm_sequence", 2)
nodes["GRU"] = _recurrent("gru_sequence", 1)
nodes["RNN"] = _recurrent("rnn_sequence", 1)
