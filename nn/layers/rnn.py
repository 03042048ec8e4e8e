"""Recurrent layers: LSTM, GRU, RNN over sequences, and their cells for one step."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ...tensor import creation, functions
from ...tensor.ops import rnn as _ops
from .. import functional as F
from .. import init
from ..module import Module
from ..parameter import Parameter
from ..utils.rnn import PackedSequence

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _run(
    mode: str, x: Any, state: tuple[Any, ...], weights: list[Any], sizes: tuple[int, ...], reverse: bool
) -> Any:
    """One layer in one direction: (y, *states)."""
    if mode == "LSTM":
        return _ops.lstm_sequence(x, *state, *weights, sizes=sizes, reverse=reverse)
    if mode == "GRU":
        return _ops.gru_sequence(x, *state, *weights, sizes=sizes, reverse=reverse)
    return _ops.rnn_sequence(x, *state, *weights, sizes=sizes, reverse=reverse, relu=mode == "RNN_RELU")


class RNNBase(Module):
    """Several recurrent layers, in one or both directions.

    Input (L, N, input_size), with batch_first (N, L, input_size), without a batch (L, input_size), or a
    PackedSequence. Output of the same form, then the last states (num_layers * directions, N, hidden_size).
    dropout: on the output of each layer but the last.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.mode, self.input_size, self.hidden_size, self.num_layers = (
            mode,
            input_size,
            hidden_size,
            num_layers,
        )
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self._check_settings(dropout)
        directions = 2 if bidirectional else 1
        out = proj_size or hidden_size
        rows = _GATES[mode] * hidden_size
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            for direction in range(directions):
                width = input_size if layer == 0 else out * directions
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, out)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = [f"{name}_l{layer}{'_reverse' if direction else ''}" for name in shapes]
                for name, shape in zip(names, shapes.values()):
                    setattr(self, name, Parameter(creation.empty(shape, device=device, dtype=dtype)))
                self._all_weights.append(names)
        self.reset_parameters()

    def _check_settings(self, dropout: Any) -> None:
        who = type(self).__name__
        if isinstance(dropout, bool) or not 0 <= self.dropout <= 1:
            raise ValueError(f"[{who}] dropout must be a probability in [0, 1], came {dropout!r}")
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"[{who}] dropout is applied after all but the last layer: dropout={dropout} with num_layers=1"
                " has no effect",
                UserWarning,
                stacklevel=4,
            )
        for name in ("hidden_size", "num_layers"):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise TypeError(f"[{who}] {name} must be an int, came {type(value).__name__}")
            if value <= 0:
                raise ValueError(f"[{who}] {name} must be greater than zero, came {value}")
        if not 0 <= self.proj_size < self.hidden_size:
            raise ValueError(
                f"[{who}] proj_size must be in [0, hidden_size={self.hidden_size}), came {self.proj_size}"
            )
        if self.proj_size and self.mode != "LSTM":
            raise ValueError(f"[{who}] proj_size is for LSTM only, came {self.proj_size}")

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(hidden_size), all."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def flatten_parameters(self) -> None:
        """Nothing: the parameters need not lie side by side on a CPU."""

    def _weights(self, place: int) -> list[Any]:
        held = [getattr(self, name) for name in self._all_weights[place]]
        if self.proj_size and not self.bias:
            held[2:2] = [None, None]
        return held

    def _state_sizes(self) -> list[int]:
        out = self.proj_size or self.hidden_size
        return [out, self.hidden_size] if self.mode == "LSTM" else [out]

    def _initial(self, hx: Any, batch: int, like: Any, single: bool) -> list[Any]:
        """States (layers * directions, batch, size), checked, or zeros."""
        places = len(self._all_weights)
        if hx is None:
            return [like.new_zeros(places, batch, size) for size in self._state_sizes()]
        who = type(self).__name__
        lstm = self.mode == "LSTM"
        if lstm and not (isinstance(hx, tuple | list) and len(hx) == 2):
            raise TypeError(f"[{who}] the state must be a pair (h_0, c_0), came {type(hx).__name__}")
        given = list(hx) if lstm else [hx]
        if single:
            for t in given:
                if t.ndim != 2:
                    raise RuntimeError(
                        f"[{who}] For unbatched 2-D input, hx should also be 2-D, came shape {list(t.shape)}"
                    )
            given = [t.unsqueeze(1) for t in given]
        for name, t, size in zip(("h_0", "c_0"), given, self._state_sizes()):
            if t.array.shape != (places, batch, size):
                raise RuntimeError(
                    f"[{who}] Expected hidden size {(places, batch, size)} for {name}, got {list(t.shape)}"
                )
        return given

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        who = type(self).__name__
        if input.ndim not in (2, 3):
            raise ValueError(
                f"[{who}] Expected input to be 2D or 3D, got {input.ndim}D, shape {list(input.shape)}"
            )
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"[{who}] input.size(-1) must be equal to input_size. Expected {self.input_size},"
                f" got {input.shape[-1]}"
            )
        single = input.ndim == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        steps, batch = x.array.shape[:2]
        if not steps:
            raise RuntimeError(
                f"[{who}] the sequence must have at least one step, came shape {list(input.shape)}"
            )
        state = self._initial(hx, batch, x, single)
        y, state = self._layers(x.reshape(steps * batch, self.input_size), state, (batch,) * steps)
        y = y.reshape(steps, batch, y.shape[-1])
        if single:
            return y.squeeze(1), self._result([s.squeeze(1) for s in state])
        return y.transpose(0, 1) if self.batch_first else y, self._result(state)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> Any:
        sizes = tuple(packed.batch_sizes.array.tolist())
        if packed.data.shape[-1] != self.input_size:
            raise RuntimeError(
                f"[{type(self).__name__}] input.size(-1) must be equal to input_size. Expected {self.input_size},"
                f" got {packed.data.shape[-1]}"
            )
        state = self._initial(hx, sizes[0], packed.data, False)
        if hx is not None and packed.sorted_indices is not None:
            state = [functions.index_select(s, 1, packed.sorted_indices) for s in state]
        y, state = self._layers(packed.data, state, sizes)
        if packed.unsorted_indices is not None:
            state = [functions.index_select(s, 1, packed.unsorted_indices) for s in state]
        out = PackedSequence(y, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return out, self._result(state)

    def _result(self, state: list[Any]) -> Any:
        return tuple(state) if self.mode == "LSTM" else state[0]

    def _layers(self, x: Any, state: list[Any], sizes: tuple[int, ...]) -> tuple[Any, list[Any]]:
        """Rows through all layers: (rows of the last one, states stacked)."""
        directions = 2 if self.bidirectional else 1
        last: list[list[Any]] = [[] for _ in state]
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                place = layer * directions + direction
                start = tuple(s[place] for s in state)
                y, *ends = _run(self.mode, x, start, self._weights(place), sizes, bool(direction))
                outputs.append(y)
                for held, end in zip(last, ends):
                    held.append(end)
            x = outputs[0] if directions == 1 else functions.cat(outputs, 1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, True)
        return x, [functions.stack(held) for held in last]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        text += f", proj_size={self.proj_size}" if self.proj_size else ""
        text += f", num_layers={self.num_layers}" if self.num_layers != 1 else ""
        text += "" if self.bias else f", bias={self.bias}"
        text += f", batch_first={self.batch_first}" if self.batch_first else ""
        text += f", dropout={self.dropout}" if self.dropout else ""
        return text + (f", bidirectional={self.bidirectional}" if self.bidirectional else "")


class RNN(RNNBase):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu of it (Elman 1990). See RNNBase for shapes."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"[RNN] nonlinearity must be 'tanh' or 'relu', came {nonlinearity!r}")
        mode = "RNN_" + nonlinearity.upper()
        super().__init__(
            mode,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
        )
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); its state is the pair (h, c).

    proj_size: h is projected to this size (Sak et al. 2014). See RNNBase for shapes.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        settings = (num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype)
        super().__init__("LSTM", input_size, hidden_size, *settings)


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al. 2014). See RNNBase for shapes."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        settings = (num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype)
        super().__init__("GRU", input_size, hidden_size, *settings)


class RNNCellBase(Module):
    """One step of one layer: input (N, input_size) or (input_size), state (N, hidden_size) or (hidden_size)."""

    mode = ""
    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = num_chunks * hidden_size
        made = {"device": device, "dtype": dtype}
        self.weight_ih = Parameter(creation.empty((rows, input_size), **made))
        self.weight_hh = Parameter(creation.empty((rows, hidden_size), **made))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(creation.empty(rows, **made)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(hidden_size), all."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(self, input: Any, given: list[Any]) -> list[Any]:
        """The new states from the input and the states before (None: zeros)."""
        who = type(self).__name__
        if input.ndim not in (1, 2):
            raise ValueError(f"[{who}] Expected input to be 1D or 2D, got {input.ndim}D instead")
        single = input.ndim == 1
        x = input.unsqueeze(0) if single else input
        if x.shape[1] != self.input_size:
            raise RuntimeError(
                f"[{who}] input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}"
            )
        batch, shape = len(x.array), (len(x.array), self.hidden_size)
        state = []
        for h in given:
            if h is None:
                h = x.new_zeros(shape)
            elif h.ndim not in (1, 2):
                raise ValueError(f"[{who}] Expected hidden to be 1D or 2D, got {h.ndim}D instead")
            else:
                h = h.unsqueeze(0) if h.ndim == 1 else h
            if h.array.shape != shape:
                raise RuntimeError(f"[{who}] the state must have shape {list(shape)}, came {list(h.shape)}")
            state.append(h)
        weights: list[Any] = [self.weight_ih, self.weight_hh]
        weights += [self.bias_ih, self.bias_hh] if self.bias else []
        _, *new = _run(self.mode, x, tuple(state), weights, (batch,), False)
        return [h.squeeze(0) for h in new] if single else list(new)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else f", bias={self.bias}")
        nonlinearity = self.__dict__.get("nonlinearity", "tanh")
        return text + (f", nonlinearity={nonlinearity}" if nonlinearity != "tanh" else "")


class RNNCell(RNNCellBase):
    """One step of RNN."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"[RNNCell] nonlinearity must be 'tanh' or 'relu', came {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity, self.mode = nonlinearity, "RNN_" + nonlinearity.upper()

    def forward(self, input: Any, hx: Any = None) -> Any:
        return self._step(input, [hx])[0]


class LSTMCell(RNNCellBase):
    """One step of LSTM; its state and its result are pairs (h, c)."""

    mode = "LSTM"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        h, c = self._step(input, [None, None] if hx is None else list(hx))
        return h, c


class GRUCell(RNNCellBase):
    """One step of GRU."""

    mode = "GRU"

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        return self._step(input, [hx])[0]
