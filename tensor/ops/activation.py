"""Activations. Where a gradient takes work it is an op of its own, so that it can be differentiated again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...autograd.engine import Variable, array_namespace
from ...autograd.op import Op, array_forms
from ..dtypes import F32, category
from .choose import kept, where
from .declare import axis_of, describe, single, unary
from .faster import faster
from .pointwise import erf
from .rows import BLOCK, back, blocks, bounded, last, row_max, row_sum

Prepared = tuple[tuple[Any, ...], dict[str, Any]]


def floating(name: str, x: Any) -> None:
    """PyTorch's activations do not take integers."""
    dtype = x.array.dtype if isinstance(x, Variable) else x.dtype
    if category(dtype) < 2:
        raise RuntimeError(f"[{name}] the dtype must be floating, came {describe(x)}: use .float()")


def _floating_only(name: str) -> Callable[..., Prepared]:
    def prepare(x: Any, **kw: Any) -> Prepared:
        floating(name, x)
        return (x,), kw

    return prepare


SMALL = 4096  # elements that are not worth cutting up
LARGE = 1 << 15  # elements from which on a compiled loop may pay


def in_pieces(xp: Any, body: Callable[..., None], buffers: int, *arrays: Any) -> Any:
    """A new array y like the first, filled by body(y, *arrays, *buffers) in pieces that stay in the cache."""
    y = xp.empty(arrays[0].shape, arrays[0].dtype)
    if y.size <= SMALL:
        body(y, *arrays, *[xp.empty(y.shape, y.dtype) for _ in range(buffers)])
        return y
    flat = [a.reshape(-1) for a in arrays]
    flat_y = y.reshape(-1)
    held: list[Any] = []
    for part in blocks(flat_y.size):
        n = part.stop - part.start
        if not held:
            held = [xp.empty(n, y.dtype) for _ in range(buffers)]
        body(flat_y[part], *[a[part] for a in flat], *[b[:n] for b in held])
    return y


def by_loop(name: str, xp: Any, x: Any, number: float) -> Any:
    """What a compiled loop makes of a large array and a number; None where there is none."""
    return faster(name, xp, x, number) if x.size >= LARGE else None


# ---- relu and its kind


def _relu(xp: Any, x: Any) -> Any:
    if x.size >= LARGE and xp is np and x.dtype == F32:
        return bounded(np, x, 0, None, np.empty(x.shape, F32))
    # a maximum with an array is vectorised, one with a number is not
    return xp.maximum(x, xp.zeros(x.shape[1:] if x.size < 1 << 26 else (), x.dtype))


threshold_backward = Op(
    "threshold_backward",
    lambda xp, g, x, *, threshold: kept(xp, x > threshold, g),
    [lambda ops, g, x, threshold: ops.threshold_backward(g, x, threshold=threshold), None],
)
array_forms["threshold_backward"] = lambda g, x, *, threshold: kept(
    array_namespace.get(type(g), np), x > threshold, g
)
relu = unary("relu", _relu, lambda ops, g, y: ops.threshold_backward(g, y, threshold=0))
threshold = Op(
    "threshold",
    lambda xp, x, *, threshold, value: where(xp, x > threshold, x, _number(x, value)),
    [lambda ops, g, x, threshold: ops.threshold_backward(g, x, threshold=threshold)],
    half="native",
)


between_backward = Op(
    "between_backward",
    lambda xp, g, x, *, low, high: kept(xp, (x > low) & (x < high), g),
    [lambda ops, g, x, low, high: ops.between_backward(g, x, low=low, high=high), None],
)
hardtanh = single(
    Op(
        "hardtanh",
        lambda xp, x, *, low, high: bounded(xp, x, low, high, xp.empty(x.shape, x.dtype)),
        [lambda ops, g, x, low, high: ops.between_backward(g, x, low=low, high=high)],
    )
)


def _hardsigmoid(xp: Any, x: Any) -> Any:
    y = xp.asarray(x / 6 + 0.5)
    return bounded(xp, y, 0, 1, y)


hardsigmoid = single(
    Op(
        "hardsigmoid",
        _hardsigmoid,
        [lambda ops, g, x: ops.between_backward(g, x, low=-3.0, high=3.0) / 6],
        prepare=_floating_only("hardsigmoid"),
    )
)


def _hardswish_piece(y: Any, x: Any, xp: Any) -> None:
    xp.multiply(x, 1 / 6, out=y)
    y += 0.5
    bounded(xp, y, 0, 1, y)
    y *= x


def _hardswish(xp: Any, x: Any) -> Any:
    made = by_loop("hardswish", xp, x, 1 / 6)
    return in_pieces(xp, lambda y, x: _hardswish_piece(y, x, xp), 0, x) if made is None else made


hardswish = single(
    Op(
        "hardswish",
        _hardswish,
        [lambda ops, g, x: g * ops.hardsigmoid(x) + ops.between_backward(g * x, x, low=-3.0, high=3.0) / 6],
        prepare=_floating_only("hardswish"),
    )
)


def _leaky(xp: Any, x: Any, *, negative_slope: float) -> Any:
    if 0 <= negative_slope <= 1 and (made := by_loop("leaky_relu", xp, x, negative_slope)) is not None:
        return made
    return (
        xp.maximum(x, x * negative_slope)
        if 0 <= negative_slope <= 1
        else where(xp, x > 0, x, x * negative_slope)
    )


leaky_relu_backward = Op(
    "leaky_relu_backward",
    lambda xp, g, x, *, negative_slope: where(xp, x > 0, g, g * g.dtype.type(negative_slope)),
    [lambda ops, g, x, negative_slope: ops.leaky_relu_backward(g, x, negative_slope=negative_slope), None],
)
leaky_relu = single(
    Op(
        "leaky_relu",
        _leaky,
        [lambda ops, g, x, negative_slope: ops.leaky_relu_backward(g, x, negative_slope=negative_slope)],
        prepare=_floating_only("leaky_relu"),
    )
)


def _hardshrink(xp: Any, x: Any, *, lambd: float) -> Any:
    return where(xp, xp.abs(x) <= lambd, _number(x, 0), x)


shrink_backward = Op(
    "shrink_backward",
    lambda xp, g, x, *, lambd: kept(xp, xp.abs(x) > lambd, g),
    [lambda ops, g, x, lambd: ops.shrink_backward(g, x, lambd=lambd), None],
)
hardshrink = Op(
    "hardshrink",
    _hardshrink,
    [lambda ops, g, x, lambd: ops.shrink_backward(g, x, lambd=lambd)],
    prepare=_floating_only("hardshrink"),
)
softshrink = Op(
    "softshrink",
    lambda xp, x, *, lambd: xp.where(x > lambd, x - lambd, xp.where(x < -lambd, x + lambd, x * 0)),
    [lambda ops, g, x, lambd: ops.shrink_backward(g, x, lambd=lambd)],
    prepare=_floating_only("softshrink"),
)

# ---- exponential ones


def _elu(xp: Any, x: Any, *, alpha: float, scale: float, input_scale: float) -> Any:
    negative = xp.expm1(x if input_scale == 1 else x * input_scale)  # overflow is not chosen
    negative *= alpha
    y = where(xp, x > 0, x, negative)
    return y if scale == 1 else y * scale


def _elu_rule(ops: Any, g: Any, x: Any, alpha: float, scale: float, input_scale: float) -> Any:
    slope = ops.exp(ops.minimum(x, _number(x, 0)) * input_scale) * (alpha * input_scale)
    return g * ops.where(x > 0, _number(x, 1), slope) * scale


def _number(like: Any, value: float) -> Any:
    """A 0-d number of the kind (array or Tensor) and dtype of `like`."""
    return like.new_full((), value) if isinstance(like, Variable) else like.dtype.type(value).reshape(())


elu = single(Op("elu", _elu, [_elu_rule], prepare=_floating_only("elu")))


def _softplus(xp: Any, x: Any, *, beta: float, threshold: float) -> Any:
    z = x if beta == 1 else x * beta
    y = xp.log1p(xp.exp(xp.minimum(z, threshold)))
    if beta != 1:
        y /= beta
    return where(xp, z > threshold, x, y)


def _softplus_rule(ops: Any, g: Any, x: Any, beta: float, threshold: float) -> Any:
    z = x * beta
    return g * ops.where(z > threshold, _number(x, 1), ops.sigmoid(z))


softplus = single(Op("softplus", _softplus, [_softplus_rule], prepare=_floating_only("softplus")))
logsigmoid = single(
    Op(
        "logsigmoid",
        lambda xp, x: xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x))),
        [lambda ops, g, x: g * ops.sigmoid(-x)],
        prepare=_floating_only("logsigmoid"),
    )
)


def _silu_piece(y: Any, x: Any, xp: Any) -> None:
    xp.negative(x, out=y)
    xp.exp(y, out=y)
    y += 1
    xp.divide(x, y, out=y)


def _silu_backward_piece(y: Any, g: Any, x: Any, t: Any, xp: Any) -> None:
    """g s (1 + x (1 - s)), with s the sigmoid of x."""
    xp.negative(x, out=t)
    xp.exp(t, out=t)
    t += 1
    xp.reciprocal(t, out=t)
    xp.subtract(1, t, out=y)
    y *= x
    y += 1
    y *= t
    y *= g


def _silu_backward(xp: Any, g: Any, needs: Any, x: Any) -> list[Any]:
    return [in_pieces(xp, lambda y, g, x, t: _silu_backward_piece(y, g, x, t, xp), 1, g, x)]


silu = single(
    Op(
        "silu",
        lambda xp, x: in_pieces(xp, lambda y, x: _silu_piece(y, x, xp), 0, x),
        backward=_silu_backward,
        composite=lambda ops, x: x * ops.sigmoid(x),
        prepare=_floating_only("silu"),
    )
)
mish = single(
    Op(
        "mish",
        lambda xp, x: x * xp.tanh(xp.log1p(xp.exp(-xp.abs(x))) + xp.maximum(x, 0)),
        [lambda ops, g, x: _mish_rule(ops, g, x)],
        prepare=_floating_only("mish"),
    )
)


def _mish_rule(ops: Any, g: Any, x: Any) -> Any:
    t = ops.tanh(ops.softplus(x, beta=1, threshold=20))
    return g * (t + x * ops.sigmoid(x) * (1 - t * t))


# ---- gelu

# Half the log-odds of the normal distribution function, divided by x, as a polynomial in x^2: minimax in the
# error of x Phi(x), which is below 1e-7 before rounding (and the leading terms grow, so tanh saturates beyond).
_LOGIT: tuple[float, ...] = (
    0.7978842161102218,
    0.03633428353159538,
    -3.313000675531763e-05,
    -5.524015461505216e-05,
)
_LOGIT += (3.969108936843627e-06, -1.3344637743604603e-07, 1.8056157048007227e-09)
_DENSITY = 1 / math.sqrt(2 * math.pi)


def _cdf(xp: Any, x: Any, out: Any, z: Any) -> None:
    """The normal distribution function of float32 numbers into `out`; z is for work."""
    xp.multiply(x, x, out=z)
    xp.multiply(z, _LOGIT[6], out=out)
    for c in _LOGIT[5:0:-1]:
        out += c
        out *= z
    out += _LOGIT[0]
    out *= x
    xp.tanh(out, out=out)
    out *= 0.5
    out += 0.5


def _gelu(xp: Any, x: Any) -> Any:
    if x.dtype != F32:
        cdf = erf.op.forward(xp, x * math.sqrt(0.5)) * 0.5 + 0.5  # type: ignore[attr-defined]
        return x * cdf, cdf
    fast = faster("gelu", xp, x)
    return _gelu_plain(xp, x) if fast is None else (fast, None)


def _gelu_plain(xp: Any, x: Any) -> Any:
    cdf = xp.empty(x.shape, x.dtype)
    flat = cdf.reshape(-1)
    y = xp.empty(x.shape, x.dtype)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for part in blocks(flat.size):
        _cdf(xp, flat_x[part], flat[part], flat_y[part])
        xp.multiply(flat_x[part], flat[part], out=flat_y[part])
    return y, cdf


def _gelu_backward_piece(y: Any, g: Any, x: Any, cdf: Any, xp: Any) -> None:
    """g (Phi(x) + x phi(x)), phi the density."""
    xp.multiply(x, x, out=y)
    y *= -0.5
    xp.exp(y, out=y)
    y *= x
    y *= _DENSITY
    y += cdf
    y *= g


def _gelu_backward(xp: Any, g: Any, needs: Any, x: Any, cdf: Any) -> list[Any]:
    if cdf is None:  # a compiled forward keeps nothing
        fast = faster("gelu_backward", xp, g, x)
        if fast is not None:
            return [fast]
        _, cdf = _gelu_plain(xp, x)
    return [in_pieces(xp, lambda y, g, x, c: _gelu_backward_piece(y, g, x, c, xp), 0, g, x, cdf)]


gelu = Op(
    "gelu",
    _gelu,
    backward=_gelu_backward,
    composite=lambda ops, x: x * (ops.erf(x * math.sqrt(0.5)) + 1) * 0.5,
    extras=("cdf",),
    prepare=_floating_only("gelu"),
)
_C, _K = math.sqrt(2 / math.pi), 0.044715


def _gelu_tanh(xp: Any, x: Any) -> Any:
    t = in_pieces(xp, lambda y, x: _tanh_piece(y, x, xp), 0, x)
    return in_pieces(xp, lambda y, x, t: _half_sum(y, x, t, xp), 0, x, t), t


def _tanh_piece(y: Any, x: Any, xp: Any) -> None:
    xp.multiply(x, x, out=y)
    y *= _C * _K
    y += _C
    y *= x
    xp.tanh(y, out=y)


def _half_sum(y: Any, x: Any, t: Any, xp: Any) -> None:
    xp.multiply(t, 0.5, out=y)
    y += 0.5
    y *= x


def _gelu_tanh_piece(y: Any, g: Any, x: Any, t: Any, s: Any, xp: Any) -> None:
    """g / 2 (1 + t + (1 - t^2) x u'), where t = tanh(u)."""
    xp.multiply(t, t, out=s)
    xp.subtract(1, s, out=s)
    xp.multiply(x, x, out=y)
    y *= 3 * _C * _K
    y += _C
    y *= x
    y *= s
    y += t
    y += 1
    y *= g
    y *= 0.5


gelu_tanh = Op(
    "gelu_tanh",
    _gelu_tanh,
    backward=lambda xp, g, needs, x, t: [
        in_pieces(xp, lambda y, g, x, t, s: _gelu_tanh_piece(y, g, x, t, s, xp), 1, g, x, t)
    ],
    composite=lambda ops, x: x * (ops.tanh((x + x * x * x * _K) * _C) + 1) * 0.5,
    extras=("t",),
    prepare=_floating_only("gelu"),
)

# ---- softmax


def _softmax_prepare(name: str) -> Callable[..., Prepared]:
    def prepare(x: Any, *, dim: int) -> Prepared:
        if isinstance(x, Variable) and category(x.array.dtype) < 2:
            raise RuntimeError(
                f"[{name}] the dtype must be floating, came {describe(x)}: use dtype=, or .float()"
            )
        return (x,), {"dim": axis_of(name, dim, x.ndim)}

    return prepare


def softmax_rows(xp: Any, x: Any, out: Any) -> None:
    """Softmax of the rows of a contiguous matrix; `out` may be the matrix itself."""
    if x.size <= 1024:  # the plain way has fewer calls
        xp.subtract(x, x.max(1, keepdims=True), out=out)
        xp.exp(out, out=out)
        out /= row_sum(xp, out)[:, None]
        return
    if faster("softmax_rows", xp, x, out) is not None:
        return
    for part in blocks(*x.shape):
        y = out[part]
        xp.subtract(x[part], row_max(xp, x[part])[:, None], out=y)
        xp.exp(y, out=y)
        y *= (1 / row_sum(xp, y))[:, None]


def _log_softmax_rows(xp: Any, x: Any, out: Any) -> None:
    if x.size <= 1024:
        xp.subtract(x, x.max(1, keepdims=True), out=out)
        out -= xp.log(row_sum(xp, xp.exp(out)))[:, None]
        return
    for part in blocks(*x.shape):
        y = out[part]
        xp.subtract(x[part], row_max(xp, x[part])[:, None], out=y)
        y -= xp.log(row_sum(xp, xp.exp(y)))[:, None]


def _softmax_columns(xp: Any, x: Any, out: Any) -> None:
    xp.subtract(x, x.max(axis=1, keepdims=True), out=out)
    xp.exp(out, out=out)
    out *= 1 / out.sum(axis=1, keepdims=True)


def _log_softmax_columns(xp: Any, x: Any, out: Any) -> None:
    xp.subtract(x, x.max(axis=1, keepdims=True), out=out)
    out -= xp.log(xp.exp(out).sum(axis=1, keepdims=True))


def _softmax_backward_columns(xp: Any, g: Any, y: Any, out: Any) -> None:
    xp.multiply(g, y, out=out)
    xp.subtract(g, out.sum(axis=1, keepdims=True), out=out)
    out *= y


def _log_softmax_backward_columns(xp: Any, g: Any, y: Any, out: Any) -> None:
    xp.exp(y, out=out)
    out *= g.sum(axis=1, keepdims=True)
    xp.subtract(g, out, out=out)


def _by_columns(xp: Any, columns: Callable[..., None], arrays: tuple[Any, ...], dim: int) -> Any:
    """Along a dimension before the last without moving it: columns(xp, *arrays of (a, n, b), out) on small pieces."""
    shape = arrays[0].shape
    n, b = shape[dim], math.prod(shape[dim + 1 :])
    y = xp.empty(shape, arrays[0].dtype)
    all_ = [*(xp.ascontiguousarray(a).reshape(-1, n, b) for a in arrays), y.reshape(-1, n, b)]
    step = max(256, BLOCK // n)
    for rows in blocks(len(all_[0]), n * b):
        for start in range(0, b, step):
            columns(xp, *[a[rows, :, start : start + step] for a in all_])
    return y


def _along(body: Callable[..., None], columns: Callable[..., None]) -> Callable[..., Any]:
    """An array function along `dim` from two: on the rows of matrices, body(xp, *matrices, out), and on columns."""

    def forward(xp: Any, *arrays: Any, dim: int) -> Any:
        if not arrays[0].size:
            return xp.empty(arrays[0].shape, arrays[0].dtype)
        if not arrays[0].ndim:
            return forward(xp, *[a.reshape(1) for a in arrays], dim=0).reshape(())
        if len(arrays) == 1 and arrays[0].ndim == 2 and dim == 1 and arrays[0].flags.c_contiguous:
            y = xp.empty(arrays[0].shape, arrays[0].dtype)
            body(xp, arrays[0], y)
            return y
        if dim < arrays[0].ndim - 1 and math.prod(arrays[0].shape[dim + 1 :]) >= 32:
            return _by_columns(xp, columns, arrays, dim)
        moved = [last(xp, a, dim) for a in arrays]
        y = xp.empty(moved[0].shape, moved[0].dtype)
        width = y.shape[-1]
        body(xp, *[a.reshape(-1, width) for a in moved], y.reshape(-1, width))
        return back(xp, y, dim)

    return forward


def _softmax_backward_rows(xp: Any, g: Any, y: Any, out: Any) -> None:
    for part in blocks(*y.shape):
        t = out[part]
        xp.multiply(g[part], y[part], out=t)
        s = row_sum(xp, t)
        xp.subtract(g[part], s[:, None], out=t)
        t *= y[part]


def _log_softmax_backward_rows(xp: Any, g: Any, y: Any, out: Any) -> None:
    for part in blocks(*y.shape):
        t = out[part]
        xp.exp(y[part], out=t)
        t *= row_sum(xp, g[part])[:, None]
        xp.subtract(g[part], t, out=t)


_softmax = _along(softmax_rows, _softmax_columns)
_log_softmax = _along(_log_softmax_rows, _log_softmax_columns)
_softmax_backward = _along(_softmax_backward_rows, _softmax_backward_columns)
_log_softmax_backward = _along(_log_softmax_backward_rows, _log_softmax_backward_columns)


def _total(ops: Any, x: Any, dim: int) -> Any:
    return ops.sum(x, dim=dim if x.ndim else (), keepdim=True)


def _softmax_backward_p(ops: Any, g: Any, gy: Any, p: Any, dim: int) -> Any:
    inner = gy - _total(ops, gy * p, dim)
    return g * inner - gy * _total(ops, g * p, dim)


softmax_backward = Op(
    "softmax_backward",
    lambda xp, gy, p, *, dim: _softmax_backward(xp, gy, p, dim=dim),
    [lambda ops, g, p, dim: ops.softmax_backward(g, p, dim=dim), _softmax_backward_p],
)
softmax = single(
    Op(
        "softmax",
        lambda xp, x, *, dim: _softmax(xp, x, dim=dim),
        [lambda ops, g, y, dim: ops.softmax_backward(g, y, dim=dim)],
        prepare=_softmax_prepare("softmax"),
    )
)
log_softmax_backward = Op(
    "log_softmax_backward",
    lambda xp, gy, logs, *, dim: _log_softmax_backward(xp, gy, logs, dim=dim),
    [
        lambda ops, g, logs, dim: g - _total(ops, g * ops.exp(logs), dim),
        lambda ops, g, gy, logs, dim: -g * ops.exp(logs) * _total(ops, gy, dim),
    ],
)
log_softmax = single(
    Op(
        "log_softmax",
        lambda xp, x, *, dim: _log_softmax(xp, x, dim=dim),
        [lambda ops, g, y, dim: ops.log_softmax_backward(g, y, dim=dim)],
        prepare=_softmax_prepare("log_softmax"),
    )
)
