"""Recurrent layers as ONNX's LSTM, GRU and RNN."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compare import Repeated
from .graph import Graph, Val
from .op_shape import fixed
from .table import emits

# How ONNX orders the gates, in terms of ours: LSTM i f c o -> i o f c, GRU r z n -> z r n.
RECURRENT = {"lstm_sequence": (0, 3, 1, 2), "gru_sequence": (1, 0, 2), "rnn_sequence": (0,)}
_KINDS = {"lstm_sequence": "LSTM", "gru_sequence": "GRU", "rnn_sequence": "RNN"}


def direct(inputs: tuple[Any, ...], kw: dict[str, Any]) -> bool:
    """Whether ONNX has this: all sequences of one length, no projection. Else the steps are written one by one."""
    return len(set(kw["sizes"])) == 1 and (len(inputs) < 8 or inputs[7] is None)


@emits("lstm_sequence", sizes=("sizes",))
def _lstm(g: Graph, x: Val, h0: Val, c0: Val, *weights: Any, sizes: Any, reverse: bool = False) -> list[str]:
    return _sequence(g, x, [h0, c0], weights[:4], sizes, reverse)


@emits("gru_sequence", sizes=("sizes",))
def _gru(g: Graph, x: Val, h0: Val, *weights: Any, sizes: Any, reverse: bool = False) -> list[str]:
    return _sequence(g, x, [h0], weights, sizes, reverse, linear_before_reset=1)


@emits("rnn_sequence", sizes=("sizes",))
def _rnn(
    g: Graph, x: Val, h0: Val, *weights: Any, sizes: Any, reverse: bool = False, relu: bool = False
) -> list[str]:
    return _sequence(g, x, [h0], weights, sizes, reverse, activations=["Relu" if relu else "Tanh"])


def _sequence(
    g: Graph, x: Val, state: list[Val], weights: Any, sizes: Any, reverse: bool, **attributes: Any
) -> list[str]:
    kind, order = _KINDS[g.label], RECURRENT[g.label]
    steps, batch = (sizes.count, sizes.item) if isinstance(sizes, Repeated) else (len(sizes), sizes[0])
    width = fixed(x.shape[1])
    hidden = fixed(state[0].shape[1])
    rows = np.concatenate([np.arange(hidden) + gate * hidden for gate in order])
    first = g.ints([0])

    def ordered(weight: Any) -> str:
        return g.node("Gather", weight, g.constant(rows, np.int64), axis=0)

    biases = [b for b in weights[2:4] if b is not None]
    bias = g.node("Unsqueeze", g.node("Concat", *map(ordered, biases), axis=0), first) if biases else None
    w, r = (g.node("Unsqueeze", ordered(weight), first) for weight in weights[:2])
    initial = [g.node("Unsqueeze", s, first) for s in state]
    sequence = g.reshape(x, [steps, batch, width])
    attributes |= {"hidden_size": hidden, "direction": "reverse" if reverse else "forward"}
    y, *last = g.nodes_out(kind, 1 + len(state), sequence, w, r, bias, None, *initial, **attributes)
    return [g.reshape(y, g.out[0].shape), *(g.node("Squeeze", s, first) for s in last)]
