"""Recurrent layers as one op a layer and direction: LSTM, GRU and the plain RNN over a whole sequence.

Rows of `x` are (time, sample) pairs, time first: (sum of sizes, input). `sizes` says how many samples each time
step has, never growing (a packed sequence), so that a step works on the first rows of the state, whatever the
direction. The products with the input, and those that make the gradients of weights, are one GEMM for all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...autograd.op import Op
from . import linear as _linear  # noqa: F401  (the composites use it)
from .faster import faster
from .linear import product

Arrays = tuple[Any, ...]


def _spans(sizes: Sequence[int], reverse: bool) -> list[tuple[int, int]]:
    """Rows of each step, in the order in which the layer goes through them."""
    spans, start = [], 0
    for n in sizes:
        spans.append((start, start + n))
        start += n
    return spans[::-1] if reverse else spans


def _sigmoid_(xp: Any, a: Any) -> None:
    """In place, by the hyperbolic tangent: NumPy's is faster than its exponential."""
    a *= 0.5
    xp.tanh(a, out=a)
    a *= 0.5
    a += 0.5


def _project(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
    y = product(xp, x, weight.T)
    if bias is not None:
        y += bias
    return y


def _incoming(parts: Sequence[Any], shapes: Sequence[Any], like: Any, xp: Any) -> list[Any]:
    """Gradients of the outputs; those of states as arrays of our own, zeros where there are none."""
    made = [parts[0]]
    for g, shape in zip(parts[1:], shapes):
        made.append(xp.zeros(shape, like.dtype) if g is None else g.copy())
    return made


def _weight_gradients(
    xp: Any, needs: Sequence[bool], x: Any, h_before: Any, dx: Any, dh: Any, w_ih: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """Gradients of (x, w_ih, w_hh, b_ih, b_hh) from those of the two products before the nonlinearity."""
    needs = [*needs, False, False]  # biases may have been left out
    bias_ih = dx.sum(0) if needs[3] else None
    if not needs[4]:
        bias_hh = None
    else:
        bias_hh = bias_ih.copy() if dx is dh and bias_ih is not None else dh.sum(0)
    return (
        product(xp, dx, w_ih) if needs[0] else None,
        product(xp, dx.T, x) if needs[1] else None,
        product(xp, dh.T, h_before) if needs[2] else None,
        bias_ih,
        bias_hh,
    )


# ---- LSTM (Hochreiter and Schmidhuber 1997), with a projection of the output (Sak et al. 2014)


def _lstm(
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
) -> Arrays:
    bias = None if b_ih is None else b_ih + b_hh
    if w_hr is None:
        made = faster("lstm", xp, x, h0, c0, w_ih, w_hh, bias, sizes=sizes, reverse=reverse)
        if made is not None:
            return made
    gates = _project(xp, x, w_ih, bias)
    total, size = len(x), c0.shape[1]
    # tanh of all four gates at once, which scale and shift turn into three sigmoids and a tanh
    scale, shift = xp.full(4 * size, 0.5, x.dtype), xp.full(4 * size, 0.5, x.dtype)
    scale[2 * size : 3 * size], shift[2 * size : 3 * size] = 1, 0
    h, c = h0.copy(), c0.copy()
    y, h_before = xp.empty((total, h.shape[1]), x.dtype), xp.empty((total, h.shape[1]), x.dtype)
    c_before, tanh_c = xp.empty((total, size), x.dtype), xp.empty((total, size), x.dtype)
    hidden = y if w_hr is None else xp.empty((total, size), x.dtype)
    for a, b in _spans(sizes, reverse):
        part, now, cell = gates[a:b], h[: b - a], c[: b - a]
        h_before[a:b], c_before[a:b] = now, cell
        part += product(xp, now, w_hh.T)
        part *= scale
        xp.tanh(part, out=part)
        part *= scale
        part += shift
        cell *= part[:, size : 2 * size]
        cell += part[:, :size] * part[:, 2 * size : 3 * size]
        xp.tanh(cell, out=tanh_c[a:b])
        xp.multiply(tanh_c[a:b], part[:, 3 * size :], out=hidden[a:b])
        if w_hr is not None:
            y[a:b] = hidden[a:b] @ w_hr.T
        now[...] = y[a:b]
    return (y, h, c), gates, h_before, c_before, tanh_c, hidden


def _lstm_backward(
    xp: Any,
    g: Sequence[Any],
    needs: Sequence[bool],
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
) -> list[Any]:
    dy, dh, dc = _incoming(g, [(len(c0), h_before.shape[1]), c0.shape], x, xp)
    dgates, dw_hr = None, None
    if w_hr is None:
        saved = dy, dh, dc, w_hh, gates, c_before, tanh_c
        dgates = faster("lstm_backward", xp, *saved, sizes=sizes, reverse=reverse)
    if dgates is None:
        dgates, dout = _lstm_gates_backward(
            xp, dy, dh, dc, w_hh, w_hr, sizes, reverse, gates, c_before, tanh_c, h_before.shape[1]
        )
        dw_hr = dout.T @ hidden if dout is not None and needs[-1] else None
    dx, dw_ih, dw_hh, db_ih, db_hh = _weight_gradients(
        xp, [needs[0], *needs[3:7]], x, h_before, dgates, dgates, w_ih
    )
    return [dx, dh, dc, dw_ih, dw_hh, db_ih, db_hh, dw_hr][: len(needs)]


def _lstm_gates_backward(
    xp: Any,
    dy: Any,
    dh: Any,
    dc: Any,
    w_hh: Any,
    w_hr: Any,
    sizes: tuple[int, ...],
    reverse: bool,
    gates: Any,
    c_before: Any,
    tanh_c: Any,
    width: int,
) -> tuple[Any, Any]:
    """Gradients of the gates before their nonlinearities, and of the output before its projection.

    dh and dc, those of the last state, become those of the first.
    """
    total, size = tanh_c.shape
    # everything but the gradients themselves is known for all steps: what each is multiplied by
    i, f, cand, o = (gates[:, k * size : (k + 1) * size] for k in range(4))
    into_cell = o * (1 - tanh_c * tanh_c)
    factors = xp.empty((total, 4, size), gates.dtype)
    factors[:, 0] = cand * i * (1 - i)
    factors[:, 1] = c_before * f * (1 - f)
    factors[:, 2] = i * (1 - cand * cand)
    factors[:, 3] = tanh_c * o * (1 - o)
    dgates = xp.empty_like(gates)
    by_gate = dgates.reshape(total, 4, size)
    dout = xp.empty((total, width), gates.dtype) if w_hr is not None else None
    for a, b in reversed(_spans(sizes, reverse)):
        n = b - a
        d = dh[:n] if dy is None else dh[:n] + dy[a:b]
        if dout is not None:
            dout[a:b] = d
            d = d @ w_hr
        inner = dc[:n]
        inner += d * into_cell[a:b]
        xp.multiply(factors[a:b, :3], inner[:, None], out=by_gate[a:b, :3])
        xp.multiply(factors[a:b, 3], d, out=by_gate[a:b, 3])
        inner *= f[a:b]
        dh[:n] = product(xp, dgates[a:b], w_hh)
    return dgates, dout


def _unrolled(
    ops: Any,
    state: list[Any],
    sizes: Sequence[int],
    reverse: bool,
    step: Callable[[int, int, list[Any]], list[Any]],
) -> tuple[Any, ...]:
    """The loop over time on Tensors: (y, *states). `step` maps the rows of a step and the state to the new state."""
    parts: dict[int, Any] = {}
    for a, b in _spans(sizes, reverse):
        n = b - a
        new = step(a, b, [s[:n] for s in state])
        parts[a] = new[0]
        state = [fresh if n == len(old) else ops.cat(fresh, old[n:], dim=0) for fresh, old in zip(new, state)]
    return ops.cat(*[parts[a] for a in sorted(parts)], dim=0), *state


def _linear_of(ops: Any, x: Any, weight: Any, bias: Any) -> Any:
    return ops.linear(x, weight) if bias is None else ops.linear(x, weight, bias)


def _lstm_composite(
    ops: Any,
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
) -> tuple[Any, ...]:
    size = c0.shape[1]
    projected = _linear_of(ops, x, w_ih, b_ih)

    def step(a: int, b: int, state: list[Any]) -> list[Any]:
        h, c = state
        gates = projected[a:b] + _linear_of(ops, h, w_hh, b_hh)
        i, f, cand, o = (gates[:, k * size : (k + 1) * size] for k in range(4))
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(cand)
        h = ops.sigmoid(o) * ops.tanh(c)
        return [h if w_hr is None else ops.linear(h, w_hr), c]

    return _unrolled(ops, [h0, c0], sizes, reverse, step)


lstm_sequence = Op(
    "lstm_sequence",
    _lstm,
    backward=_lstm_backward,
    composite=_lstm_composite,
    extras=("gates", "h_before", "c_before", "tanh_c", "hidden"),
    outputs=3,
)

# ---- GRU (Cho et al. 2014), with the reset gate after the product as in cuDNN


def _gru(
    xp: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    sizes: tuple[int, ...],
    reverse: bool = False,
) -> Arrays:
    gates = _project(xp, x, w_ih, b_ih)
    total, size = len(x), h0.shape[1]
    h = h0.copy()
    y, h_before, recurrent = (xp.empty((total, size), x.dtype) for _ in range(3))
    for a, b in _spans(sizes, reverse):
        part, now = gates[a:b], h[: b - a]
        h_before[a:b] = now
        inner = _project(xp, now, w_hh, b_hh)
        recurrent[a:b] = inner[:, 2 * size :]
        both = part[:, : 2 * size]
        both += inner[:, : 2 * size]
        _sigmoid_(xp, both)
        new = part[:, 2 * size :]
        new += part[:, :size] * recurrent[a:b]
        xp.tanh(new, out=new)
        now -= new
        now *= part[:, size : 2 * size]
        now += new
        y[a:b] = now
    return (y, h), gates, h_before, recurrent


def _gru_backward(
    xp: Any,
    g: Sequence[Any],
    needs: Sequence[bool],
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    sizes: tuple[int, ...],
    reverse: bool,
    gates: Any,
    h_before: Any,
    recurrent: Any,
) -> list[Any]:
    total, size = len(x), h0.shape[1]
    dy, dh = _incoming(g, [h0.shape], x, xp)
    # everything but the gradients themselves is known for all steps: what each is multiplied by
    r, z, new = (gates[:, k * size : (k + 1) * size] for k in range(3))
    into_new = (1 - z) * (1 - new * new)
    factors = xp.empty((total, 3, size), x.dtype)
    factors[:, 0] = into_new * recurrent * r * (1 - r)
    factors[:, 1] = (h_before - new) * z * (1 - z)
    factors[:, 2] = into_new * r
    dstate = xp.empty_like(h_before)
    dinner = xp.empty_like(gates)
    by_gate = dinner.reshape(total, 3, size)
    for a, b in reversed(_spans(sizes, reverse)):
        n = b - a
        d = dstate[a:b]
        d[...] = dh[:n]
        if dy is not None:
            d += dy[a:b]
        xp.multiply(factors[a:b], d[:, None], out=by_gate[a:b])
        xp.multiply(d, z[a:b], out=dh[:n])
        dh[:n] += product(xp, dinner[a:b], w_hh)
    dgates = dinner.copy()
    xp.multiply(dstate, into_new, out=dgates[:, 2 * size :])
    dx, *weights = _weight_gradients(xp, [needs[0], *needs[2:6]], x, h_before, dgates, dinner, w_ih)
    return [dx, dh, *weights][: len(needs)]


def _gru_composite(
    ops: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    sizes: tuple[int, ...],
    reverse: bool = False,
) -> tuple[Any, ...]:
    size = h0.shape[1]
    projected = _linear_of(ops, x, w_ih, b_ih)

    def step(a: int, b: int, state: list[Any]) -> list[Any]:
        (h,) = state
        outer, inner = projected[a:b], _linear_of(ops, h, w_hh, b_hh)
        gates = ops.sigmoid(outer[:, : 2 * size] + inner[:, : 2 * size])
        r, z = gates[:, :size], gates[:, size:]
        new = ops.tanh(outer[:, 2 * size :] + r * inner[:, 2 * size :])
        return [new + z * (h - new)]

    return _unrolled(ops, [h0], sizes, reverse, step)


gru_sequence = Op(
    "gru_sequence",
    _gru,
    backward=_gru_backward,
    composite=_gru_composite,
    extras=("gates", "h_before", "recurrent"),
    outputs=2,
)

# ---- the plain recurrence (Elman 1990)


def _rnn(
    xp: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    sizes: tuple[int, ...],
    reverse: bool = False,
    relu: bool = False,
) -> Arrays:
    out = _project(xp, x, w_ih, None if b_ih is None else b_ih + b_hh)
    h = h0.copy()
    h_before = xp.empty(out.shape, x.dtype)
    for a, b in _spans(sizes, reverse):
        part, now = out[a:b], h[: b - a]
        h_before[a:b] = now
        part += product(xp, now, w_hh.T)
        if relu:
            xp.maximum(part, 0, out=part)
        else:
            xp.tanh(part, out=part)
        now[...] = part
    return (out, h), h_before, out


def _rnn_backward(
    xp: Any,
    g: Sequence[Any],
    needs: Sequence[bool],
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    sizes: tuple[int, ...],
    reverse: bool,
    relu: bool,
    h_before: Any,
    out: Any,
) -> list[Any]:
    dy, dh = _incoming(g, [h0.shape], x, xp)
    dout = xp.empty_like(out)
    slope = out > 0 if relu else 1 - out * out
    for a, b in reversed(_spans(sizes, reverse)):
        n = b - a
        d = dh[:n] if dy is None else dh[:n] + dy[a:b]
        xp.multiply(d, slope[a:b], out=dout[a:b])
        dh[:n] = product(xp, dout[a:b], w_hh)
    dx, *weights = _weight_gradients(xp, [needs[0], *needs[2:6]], x, h_before, dout, dout, w_ih)
    return [dx, dh, *weights][: len(needs)]


def _rnn_composite(
    ops: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    sizes: tuple[int, ...],
    reverse: bool = False,
    relu: bool = False,
) -> tuple[Any, ...]:
    projected = _linear_of(ops, x, w_ih, b_ih)

    def step(a: int, b: int, state: list[Any]) -> list[Any]:
        before = projected[a:b] + _linear_of(ops, state[0], w_hh, b_hh)
        return [ops.relu(before) if relu else ops.tanh(before)]

    return _unrolled(ops, [h0], sizes, reverse, step)


rnn_sequence = Op(
    "rnn_sequence",
    _rnn,
    backward=_rnn_backward,
    composite=_rnn_composite,
    extras=("h_before", "out"),
    outputs=2,
)
