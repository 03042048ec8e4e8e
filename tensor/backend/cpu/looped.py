"""Bodies by compiled loops (loops.py). numba is imported when the work to be done is worth that.

Where the results are the same bits as the plain body's, "worth" is what has been asked for so far, so that a short
script never waits for a compiler; where they are rounded differently, it is the size of the array alone, so that the
same call always gives the same bits.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops.rows import ones, zeros

F32 = np.dtype("float32")
I64 = np.dtype("int64")
WIDE = {F32, np.dtype("float64"), I64}  # dtypes that the loops take
WORTH = 0.1  # seconds of plain work
LARGE = 1 << 15  # elements
BLOCK = 1 << 12  # of those whose arrays come in blocks of the cache's size

_spent = 0.0
_loops: Any = None
_missing = importlib.util.find_spec("numba") is None


def loops() -> Any:
    """The module of compiled loops; None where numba is missing or cannot keep its files."""
    global _loops, _missing
    if _loops is None and not _missing:
        try:
            from . import loops as found

            _loops = found
        except (ImportError, RuntimeError) as error:
            _missing = True
            warnings.warn(f"[fast] numba must load for compiled loops, came: {error}", stacklevel=2)
    return _loops


def _worth(seconds: float) -> Any:
    """The loops, once the plain bodies have taken long enough."""
    global _spent
    _spent += seconds
    return loops() if _loops is not None or _spent > WORTH else None


def shuffle(order: Any, start: int, words: Any) -> Any:
    """The swaps of a random permutation, in place."""
    found = _worth(words.size * 1e-7)
    if found is None or order.dtype != I64:
        return None
    found.shuffle(order, start, words)
    return order


def _lines(x: Any, dim: int) -> Any:
    """x as (a, n, b) with n the size of `dim`."""
    above, below = math.prod(x.shape[:dim]), math.prod(x.shape[dim + 1 :])
    return np.ascontiguousarray(x).reshape(above, x.shape[dim], below)


def _running(name: str) -> Callable[..., Any]:
    def body(x: Any, *, dim: int) -> Any:
        if x.dtype not in WIDE or not x.size or (found := _worth(x.size * 2e-8)) is None:
            return None
        lines, out = _lines(x, dim), np.empty(x.shape, I64)
        getattr(found, name)(lines, np.empty(lines.shape[2], x.dtype), out.reshape(lines.shape))
        return out

    return body


def _scan(name: str) -> Callable[..., Any]:
    def body(x: Any, *, dim: int) -> Any:
        if x.dtype not in WIDE or not x.size or (found := _worth(x.size * 3e-9)) is None:
            return None
        lines, out = _lines(x, dim), np.empty(x.shape, x.dtype)
        getattr(found, name)(lines, out.reshape(lines.shape))
        return out

    return body


def take_along(x: Any, index: Any, dim: int) -> Any:
    """The elements at positions along `dim`, which must be in range."""
    if x.dtype not in WIDE or index.dtype != I64 or index.size < LARGE:
        return None
    if x.shape[:dim] != index.shape[:dim] or x.shape[dim + 1 :] != index.shape[dim + 1 :]:
        return None
    if (found := _worth(index.size * 1.5e-9)) is None:
        return None
    out = np.empty(index.shape, x.dtype)
    places = _lines(index, dim)
    found.take_along(_lines(x, dim), places, out.reshape(places.shape))
    return out


def select(mask: Any, a: Any, b: Any, out: Any) -> Any:
    """Into `out`: elements of `a` where the mask is not 0, else of `b`; all are rows, or single numbers."""
    if out.size < LARGE or (found := _worth(out.size * 6e-10)) is None:
        return None
    rows = [np.full(found.PIECE, v) if v.size == 1 else v for v in (a, b)]
    found.select(mask, *rows, out, *(int(v.size > 1) for v in (a, b)))
    return out


def bounded(x: Any, low: float, high: float, out: Any) -> Any:
    """Into `out`: x in [low, high]."""
    if x.dtype != F32 or x.size < LARGE or not (x.flags.c_contiguous and out.flags.c_contiguous):
        return None
    if (found := _worth(x.size * 4e-10)) is None:
        return None
    found.bounded(x.reshape(-1), np.float32(low), np.float32(high), out.reshape(-1))
    return out


def _mapped(name: str, seconds: float) -> Callable[..., Any]:
    """Of each float32 and one number: a new array. seconds: what the plain body takes for an element."""

    def body(x: Any, number: float) -> Any:
        if x.dtype != F32 or x.size < LARGE or not x.flags.c_contiguous:
            return None
        if (found := _worth(x.size * seconds)) is None:
            return None
        out = np.empty(x.shape, F32)
        getattr(found, name)(x.reshape(-1), np.float32(number), out.reshape(-1))
        return out

    return body


def rows_add(out: Any, rows: Any, values: Any) -> Any:
    """out[rows[i]] += values[i] in place, the rows being in range; both arrays are matrices."""
    if out.dtype not in WIDE or values.dtype != out.dtype or rows.dtype != I64 or not out.flags.c_contiguous:
        return None
    if values.size < LARGE or (found := _worth(values.size * 4e-9)) is None:
        return None
    found.rows_add(out, np.ascontiguousarray(rows), np.ascontiguousarray(values))
    return out


def narrowed(x: Any, dtype: Any) -> Any:
    """float32 as float16 or bfloat16."""
    if x.dtype != F32 or x.size < LARGE or dtype.name not in ("float16", "bfloat16"):
        return None
    if (found := _worth(x.size * 2e-9)) is None:
        return None
    out = np.empty(x.shape, np.uint16)
    loop = found.to_float16 if dtype.name == "float16" else found.to_bfloat16
    loop(np.ascontiguousarray(x).reshape(-1).view(np.uint32), out.reshape(-1))
    return out.view(dtype)


def gamma_loop(count: int) -> Any:
    """The compiled loop for this many gamma numbers."""
    found = _worth(count * 5e-6)
    return None if found is None else found.gammas


def poisson_loop(count: int) -> Any:
    """The compiled loop for this many Poisson counts."""
    found = _worth(count * 4e-6)
    return None if found is None else found.poissons


def layer_norm(rows: Any, weight: Any, bias: Any, eps: float) -> Any:
    """(y, normal, scale) of the rows of a matrix."""
    if rows.size < LARGE or rows.dtype != F32 or (found := loops()) is None:
        return None
    y, normal = np.empty(rows.shape, F32), np.empty(rows.shape, F32)
    scale = np.empty((rows.shape[0], 1), F32)
    weight, bias = affine(rows.shape[1], weight, bias)
    found.layer_norm(np.ascontiguousarray(rows), weight, bias, np.float32(eps), y, normal, scale)
    return y, normal, scale


def affine(width: int, weight: Any, bias: Any) -> tuple[Any, Any]:
    """Both as the loops take them, where they are missing."""
    return (
        ones(np, width, F32) if weight is None else np.ascontiguousarray(weight),
        zeros(np, width, F32) if bias is None else np.ascontiguousarray(bias),
    )


def layer_norm_backward(g: Any, weight: Any, normal: Any, scale: Any) -> Any:
    """Gradients of (x, weight, bias)."""
    if g.size < LARGE or g.dtype != F32 or normal.dtype != F32 or (found := loops()) is None:
        return None
    dx, dw, db = np.empty(g.shape, F32), np.empty(g.shape[1], F32), np.empty(g.shape[1], F32)
    weight, _ = affine(g.shape[1], weight, None)
    found.layer_norm_backward(np.ascontiguousarray(g), weight, normal, scale, dx, dw, db)
    return dx, dw, db


def attention(q: Any, k: Any, v: Any, *, causal: bool, scale: float) -> Any:
    """(y, exponentials, their sums) without a mask: one pass over the scores between the two products."""
    shape = (*q.shape[:-1], k.shape[-2])
    if q.dtype != F32 or scale <= 0 or math.prod(shape) < LARGE or (found := loops()) is None:
        return None
    scores, total = np.matmul(q, k.swapaxes(-1, -2)), np.empty((*q.shape[:-1], 1), F32)
    found.attention_weights(scores.reshape(-1, *shape[-2:]), np.float32(scale), causal, total.reshape(-1))
    y = np.matmul(scores, v)
    y /= total
    return y, scores, total


def attention_slopes(ds: Any, e: Any, g: Any, y: Any, scale: float) -> Any:
    """The gradient of q k^T, made of that of the probabilities in place."""
    if ds.dtype != F32 or ds.size < LARGE or (found := loops()) is None:
        return None
    found.attention_slopes(
        *(np.ascontiguousarray(x).reshape(-1, x.shape[-1]) for x in (ds, e, g, y)), np.float32(scale)
    )
    return ds


def _update(name: str) -> Callable[..., Any]:
    """The update of an optimizer in one pass: body(parameters, gradients, states..., numbers...), in place."""

    def body(p: Any, *rest: Any) -> Any:
        if p.dtype != F32 or p.size < BLOCK or (found := loops()) is None:
            return None
        getattr(found, name)(p, *(np.float32(x) if isinstance(x, float) else x for x in rest))
        return p

    return body


BODIES: dict[str, Callable[..., Any]] = {
    "shuffle": shuffle,
    "argcummax": _running("argcummax"),
    "argcummin": _running("argcummin"),
    "cumsum": _scan("cumsum"),
    "cumprod": _scan("cumprod"),
    "take_along": take_along,
    "select": select,
    "bounded": bounded,
    "leaky_relu": _mapped("leaky_relu", 3e-10),
    "huber": _mapped("huber", 1e-9),
    "hardswish": _mapped("hardswish", 7e-10),
    "rows_add": rows_add,
    "narrowed": narrowed,
    "gamma_loop": gamma_loop,
    "poisson_loop": poisson_loop,
    **{name: _update(name) for name in ("sgd", "momentum", "adam")},
    "layer_norm": layer_norm,
    "attention": attention,
    "attention_slopes": attention_slopes,
    "layer_norm_backward": layer_norm_backward,
}
