"""Scaled dot product attention, fused with its gradient."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from ...autograd.engine import Variable, array_namespace, wrap
from ...autograd.op import Op, describe
from .faster import faster
from .linear import same_dtype
from .rows import blocks, row_max, row_sum
from .shape import sum_to_shape

Prepared = tuple[tuple[Any, ...], dict[str, Any]]


@lru_cache(maxsize=16)
def causal_mask(xp: Any, queries: int, keys: int, dtype: Any) -> Any:
    """0 where query i may see key j <= i, else -inf; not to be written."""
    return xp.triu(xp.full((queries, keys), float("-inf"), dtype), 1)


def _prepare(q: Any, k: Any, v: Any, mask: Any, keep: Any, *, causal: bool, scale: float) -> Prepared:
    if isinstance(q, Variable):
        same_dtype("scaled_dot_product_attention", q, k, v)
        fits = q.ndim >= 2 and q.ndim == k.ndim == v.ndim and q.shape[-1] == k.shape[-1]
        if not fits or k.shape[:-1] != v.shape[:-1] or q.shape[:-2] != k.shape[:-2]:
            raise RuntimeError(
                "[scaled_dot_product_attention] query (..., L, E), key (..., S, E) and value (..., S, Ev) must have"
                f" equal leading dimensions, came {describe(q)}, {describe(k)} and {describe(v)}"
            )
    return (q, k, v, mask, keep), {"causal": causal, "scale": scale}


def _attention(xp: Any, q: Any, k: Any, v: Any, mask: Any, keep: Any, *, causal: bool, scale: float) -> Any:
    """softmax(scale q k^T + mask) v. Kept: the exponentials before they are divided by their sums, and the sums.

    keep: what dropout multiplies the probabilities with.
    """
    made = faster("attention", xp, q, k, v, causal=causal, scale=scale) if mask is keep is None else None
    if made is not None:
        return made
    queries, keys = q.shape[-2], k.shape[-2]
    scores = xp.matmul(q * q.dtype.type(scale), k.swapaxes(-1, -2))
    if mask is not None:
        scores += mask
    rows = scores.reshape(math.prod(scores.shape[:-1]), keys)
    total = xp.empty((rows.shape[0], 1), q.dtype)
    batches = scores.reshape(math.prod(scores.shape[:-2]), queries, keys)
    block = causal_mask(xp, queries, keys, q.dtype) if causal else None
    for part in blocks(batches.shape[0], queries * keys):
        if block is not None:
            batches[part] += block
        inside = slice(part.start * queries, part.stop * queries)
        e = rows[inside]
        if not e.size:
            continue
        top = row_max(xp, e)
        if mask is not None:
            top[top == float("-inf")] = 0  # a query that sees nothing
        e -= top[:, None]
        xp.exp(e, out=e)
        total[inside, 0] = row_sum(xp, e)
    if mask is not None:
        total[total == 0] = 1
    total = total.reshape(*scores.shape[:-1], 1)
    y = xp.matmul(scores if keep is None else scores * keep, v)
    y /= total
    return y, scores, total


def _backward(
    xp: Any,
    g: Any,
    needs: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    keep: Any,
    y: Any,
    e: Any,
    total: Any,
    scale: float,
) -> list[Any]:
    """With P = e / total and D_i = g_i . y_i: dS = P (g v^T - D), by which the sums are divided out of g first."""
    g = g / total
    dv = xp.matmul((e if keep is None else e * keep).swapaxes(-1, -2), g) if needs[2] else None
    if not (needs[0] or needs[1] or needs[3]):
        return [None, None, dv, None, None]
    ds = xp.matmul(g, v.swapaxes(-1, -2))
    dmask = None
    if keep is not None or needs[3] or faster("attention_slopes", xp, ds, e, g, y, scale) is None:
        inner = (g.reshape(-1, g.shape[-1]) * y.reshape(-1, g.shape[-1])) @ xp.ones((g.shape[-1], 1), g.dtype)
        if keep is not None:
            ds *= keep
        flat, flat_e = ds.reshape(-1, ds.shape[-1]), e.reshape(-1, ds.shape[-1])
        for part in blocks(*flat.shape):
            flat[part] -= inner[part]
            flat[part] *= flat_e[part]
        if needs[3]:
            dmask = sum_to_shape.forward(xp, ds, shape=mask.shape)
        ds *= q.dtype.type(scale)
    dq = xp.matmul(ds, k) if needs[0] else None
    dk = xp.matmul(ds.swapaxes(-1, -2), q) if needs[1] else None
    return [dq, dk, dv, dmask, None]


def _composite(ops: Any, q: Any, k: Any, v: Any, mask: Any, keep: Any, *, causal: bool, scale: float) -> Any:
    scores = ops.matmul(q, ops.transpose(k, dim0=-1, dim1=-2)) * scale
    if causal:
        xp = array_namespace[type(q.array)]
        scores = scores + wrap(causal_mask(xp, q.array.shape[-2], k.array.shape[-2], q.array.dtype))
    if mask is None:
        p = ops.softmax(scores, dim=-1)
    else:
        scores = scores + mask
        blind = wrap((scores.array == float("-inf")).all(axis=-1, keepdims=True))  # queries that see nothing
        p = ops.masked_fill(ops.softmax(ops.masked_fill(scores, blind, 0.0), dim=-1), blind, 0.0)
    return ops.matmul(p if keep is None else p * keep, v)


attention = Op(
    "scaled_dot_product_attention",
    _attention,
    backward=_backward,
    composite=_composite,
    extras=("e", "total"),
    prepare=_prepare,
)
