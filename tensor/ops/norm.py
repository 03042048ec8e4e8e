"""Normalisation: of rows (layer norm, RMS norm) and of channels (batch, group and instance norm)."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.engine import Variable
from ...autograd.op import Op, describe
from .faster import faster
from .linear import same_dtype
from .rows import blocks, column_sum, row_sum

Prepared = tuple[tuple[Any, ...], dict[str, Any]]


SMALL = 4096  # elements that are not worth cutting up


def _matrix(x: Any, shape: tuple[int, ...]) -> Any:
    return x.reshape(-1, math.prod(shape))


def _check(name: str, x: Any, weight: Any, bias: Any, shape: tuple[int, ...]) -> None:
    if not shape:
        raise RuntimeError(f"[{name}] normalized_shape must have at least one dimension, came {list(shape)}")
    if x.array.shape[-len(shape) :] != shape:
        raise RuntimeError(
            f"[{name}] the input's last dimensions must be normalized_shape {list(shape)}, came {describe(x)}"
        )
    for what, p in (("weight", weight), ("bias", bias)):
        if p is not None and tuple(p.shape) != shape:
            raise RuntimeError(
                f"[{name}] {what} must have normalized_shape {list(shape)}, came {describe(p)}"
            )
    same_dtype(name, x, weight, bias)


def _layer_norm_prepare(x: Any, weight: Any, bias: Any, *, shape: Any, eps: float) -> Prepared:
    shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if isinstance(x, Variable):
        _check("layer_norm", x, weight, bias, shape)
    return (x, weight, bias), {"shape": shape, "eps": eps}


def _layer_norm(xp: Any, x: Any, weight: Any, bias: Any, *, shape: tuple[int, ...], eps: float) -> Any:
    rows = _matrix(x, shape)
    w, b = (None if p is None else p.reshape(-1) for p in (weight, bias))
    width = rows.shape[1]
    if rows.size <= SMALL:
        mean = row_sum(xp, rows)
        mean *= 1 / width
        c = rows - mean[:, None]
        y = c * c
        scale = row_sum(xp, y)
        scale *= 1 / width
        scale += eps
        xp.sqrt(scale, out=scale)
        scale = xp.reciprocal(scale, out=scale)[:, None]
        c *= scale
        _affine(xp, c, w, b, y)
        return y.reshape(x.shape), c, scale
    if (made := faster("layer_norm", xp, rows, w, b, eps)) is not None:
        y, normal, scale = made
        return y.reshape(x.shape), normal, scale
    y = xp.empty(rows.shape, x.dtype)
    normal, scale = xp.empty(rows.shape, x.dtype), xp.empty((rows.shape[0], 1), x.dtype)
    for part in blocks(*rows.shape):
        c, t = normal[part], y[part]
        xp.subtract(rows[part], (row_sum(xp, rows[part]) * (1 / width))[:, None], out=c)
        xp.multiply(c, c, out=t)
        r = scale[part]
        r[:, 0] = row_sum(xp, t)
        r *= 1 / width
        r += eps
        xp.sqrt(r, out=r)
        xp.reciprocal(r, out=r)
        c *= r
        _affine(xp, c, w, b, t)
    return y.reshape(x.shape), normal, scale


def _affine(xp: Any, x: Any, weight: Any, bias: Any, out: Any) -> None:
    if weight is not None:
        xp.multiply(x, weight, out=out)
    elif bias is None:
        out[...] = x
    if bias is not None:
        xp.add(out if weight is not None else x, bias, out=out)


def _layer_norm_backward(
    xp: Any, g: Any, needs: Any, weight: Any, normal: Any, scale: Any, x_shape: Any, shape: Any
) -> list[Any]:
    """With n the normalised rows, r the scales and h = g weight: r (h - mean h - n mean(h n))."""
    g = xp.ascontiguousarray(g).reshape(normal.shape)
    w = None if weight is None else weight.reshape(-1)
    if (made := faster("layer_norm_backward", xp, g, w, normal, scale)) is not None:
        return _shaped(needs, made, x_shape, shape)
    dx = xp.empty(normal.shape, g.dtype) if needs[0] else None
    dw = xp.zeros(normal.shape[1], g.dtype) if needs[1] else None
    db = xp.zeros(normal.shape[1], g.dtype) if needs[2] else None
    width = normal.shape[1]
    for part in blocks(*normal.shape):
        gp, n = g[part], normal[part]
        if db is not None:
            db += column_sum(xp, gp)
        product = gp * n
        if dw is not None:
            dw += column_sum(xp, product)
        if dx is None:
            continue
        r = scale[part] * (-1 / width)
        inner = row_sum(xp, product) if w is None else product @ w
        mean = row_sum(xp, gp) if w is None else gp @ w
        d = dx[part]
        h = xp.multiply(gp, scale[part], out=d)
        if w is not None:
            h *= w
        xp.multiply(n, inner[:, None] * r, out=product)
        product += mean[:, None] * r
        d += product
    return _shaped(needs, (dx, dw, db), x_shape, shape)


def _shaped(needs: Any, grads: tuple[Any, ...], *shapes: tuple[int, ...]) -> list[Any]:
    """Those gradients that are wanted, each in the shape of its input; parameters have the last of the shapes."""
    shapes = (*shapes, shapes[-1])
    return [g.reshape(shape) if need else None for need, g, shape in zip(needs, grads, shapes)]


def _layer_norm_composite(ops: Any, x: Any, weight: Any, bias: Any, *, shape: Any, eps: float) -> Any:
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    centred = x - ops.mean(x, dim=dims, keepdim=True)
    y = centred * ops.rsqrt(ops.mean(centred * centred, dim=dims, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


layer_norm = Op(
    "layer_norm",
    _layer_norm,
    backward=_layer_norm_backward,
    composite=_layer_norm_composite,
    extras=("normal", "scale"),
    prepare=_layer_norm_prepare,
)


def _rms_norm_prepare(x: Any, weight: Any, *, shape: Any, eps: float) -> Prepared:
    shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if isinstance(x, Variable):
        _check("rms_norm", x, weight, None, shape)
    return (x, weight), {"shape": shape, "eps": eps}


def _rms_norm(xp: Any, x: Any, weight: Any, *, shape: tuple[int, ...], eps: float) -> Any:
    rows = _matrix(x, shape)
    y = xp.empty(rows.shape, x.dtype)
    scale = xp.empty((rows.shape[0], 1), x.dtype)
    w = None if weight is None else weight.reshape(-1)
    for part in blocks(*rows.shape):
        t = xp.multiply(rows[part], rows[part], out=y[part])
        r = scale[part]
        r[:, 0] = row_sum(xp, t)
        r *= 1 / rows.shape[1]
        r += eps
        xp.sqrt(r, out=r)
        xp.reciprocal(r, out=r)
        xp.multiply(rows[part], r, out=t)
        if w is not None:
            t *= w
    return y.reshape(x.shape), scale


def _rms_norm_backward(
    xp: Any, g: Any, needs: Any, x: Any, weight: Any, scale: Any, x_shape: Any, shape: Any
) -> list[Any]:
    """With r the scales, n = r x and h = g weight: r (h - n mean(h n))."""
    rows = _matrix(x, shape)
    g = xp.ascontiguousarray(g).reshape(rows.shape)
    dx = xp.empty(rows.shape, g.dtype)
    dw = xp.zeros(rows.shape[1], g.dtype) if needs[1] else None
    w = None if weight is None else weight.reshape(-1)
    for part in blocks(*rows.shape):
        r = scale[part]
        product = g[part] * rows[part]
        inner = row_sum(xp, product) if w is None else product @ w
        d = xp.multiply(g[part], r, out=dx[part])
        if w is not None:
            d *= w
        if dw is not None:
            product *= r
            dw += column_sum(xp, product)
        xp.multiply(rows[part], inner[:, None] * (r * r * r * (1 / rows.shape[1])), out=product)
        d -= product
    return [dx.reshape(x_shape), None if dw is None else dw.reshape(shape)]


rms_norm = Op(
    "rms_norm",
    _rms_norm,
    backward=_rms_norm_backward,
    composite=lambda ops, x, weight, *, shape, eps: _rms_norm_composite(ops, x, weight, shape, eps),
    extras=("scale",),
    prepare=_rms_norm_prepare,
)


def _rms_norm_composite(ops: Any, x: Any, weight: Any, shape: Any, eps: float) -> Any:
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    y = x * ops.rsqrt(ops.mean(x * x, dim=dims, keepdim=True) + eps)
    return y if weight is None else y * weight


# ---- channels


# A backend's own way to the moments of (N, C, ...), by its array module; it may decline with None.
faster_moments: dict[Any, Any] = {}


def channel_moments(xp: Any, x: Any) -> tuple[Any, Any]:
    """Mean and variance (divided by n) of each channel of (N, C, L), in two passes."""
    if (found := faster("moments", xp, x)) is not None:
        return found
    n, c, length = x.shape
    count = n * length
    mean = row_sum(xp, x.reshape(n * c, length)).reshape(n, c).sum(axis=0) / x.dtype.type(count)
    total = xp.zeros(c, x.dtype)
    for i in range(n):
        t = x[i] - mean[:, None]
        t *= t
        total += row_sum(xp, t)
    return mean, total / x.dtype.type(count)


def by_channel(xp: Any, x: Any) -> Any:
    """(N, C, ...) as (N, C, L); (N, C) as one long sample (1, C, N)."""
    if x.ndim == 2:
        return xp.ascontiguousarray(x.T)[None]
    return xp.ascontiguousarray(x).reshape(*x.shape[:2], -1)


def _from_channels(xp: Any, y: Any, shape: tuple[int, ...]) -> Any:
    return xp.ascontiguousarray(y[0].T) if len(shape) == 2 else y.reshape(shape)


def _batch_norm(xp: Any, x: Any, weight: Any, bias: Any, *, mean: Any, variance: Any, eps: float) -> Any:
    """mean and variance are those of x (see channel_moments): the gradient takes them as functions of it."""
    rows = by_channel(xp, x)
    if (found := faster("batch_norm", xp, rows, weight, bias, mean, variance, eps)) is not None:
        return _from_channels(xp, found[0], x.shape), found[1]
    scale = 1 / xp.sqrt(variance + x.dtype.type(eps))
    factor = scale if weight is None else scale * weight
    shift = -mean * factor if bias is None else bias - mean * factor
    y = xp.empty(rows.shape, x.dtype)
    for i in range(rows.shape[0]):
        xp.multiply(rows[i], factor[:, None], out=y[i])
        y[i] += shift[:, None]
    return _from_channels(xp, y, x.shape), scale


def _batch_norm_backward(
    xp: Any, g: Any, needs: Any, x: Any, weight: Any, mean: Any, scale: Any, x_shape: Any
) -> list[Any]:
    """With n the normalised input, r its scale and h = g weight: r (h - mean h - n mean(h n))."""
    rows, grows = by_channel(xp, x), by_channel(xp, g)
    if (
        needs[0]
        and (found := faster("batch_norm_backward", xp, grows, rows, weight, mean, scale)) is not None
    ):
        dx, dw, db = found
        return [_from_channels(xp, dx, x_shape), dw if needs[1] else None, db if needs[2] else None]
    n, c, length = rows.shape
    total = row_sum(xp, grows.reshape(n * c, length)).reshape(n, c).sum(axis=0)
    product = xp.zeros(c, g.dtype)
    for i in range(n):
        t = rows[i] - mean[:, None]
        t *= grows[i]
        product += row_sum(xp, t)
    product *= scale
    dx = None
    if needs[0]:
        factor = scale if weight is None else scale * weight
        slope = -factor * scale * product / g.dtype.type(n * length)
        shift = -factor * total / g.dtype.type(n * length) - slope * mean
        dx = xp.empty(rows.shape, g.dtype)
        for i in range(n):
            d = xp.multiply(rows[i], slope[:, None], out=dx[i])
            d += shift[:, None]
            d += grows[i] * factor[:, None]
        dx = _from_channels(xp, dx, x_shape)
    return [dx, product if needs[1] else None, total if needs[2] else None]


def _batch_norm_composite(ops: Any, x: Any, weight: Any, bias: Any, *, eps: float, **_: Any) -> Any:
    dims = (0, *range(2, x.ndim))
    sizes = (1, -1, *[1] * (x.ndim - 2))
    centred = x - ops.mean(x, dim=dims, keepdim=True)
    y = centred * ops.rsqrt(ops.mean(centred * centred, dim=dims, keepdim=True) + eps)
    y = y if weight is None else y * weight.reshape(sizes)
    return y if bias is None else y + bias.reshape(sizes)


batch_norm = Op(
    "batch_norm",
    _batch_norm,
    backward=_batch_norm_backward,
    composite=_batch_norm_composite,
    extras=("scale",),
)
