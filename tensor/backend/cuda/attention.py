"""Scaled dot product attention as bodies of its op.

By cuDNN for 16-bit floats without dropout or a mask other than the causal one; else by two products around the softmax
kernel, which keeps the probabilities in memory.
"""

from __future__ import annotations

from typing import Any

from ....autograd.op import Variant, registry
from ...ops.attention import causal_mask
from . import cublaslt, cudnn
from .gemm import times
from .kernel import suffix
from .rows import softmax_gradient_rows, softmax_rows


def attach(cp: Any) -> None:
    """Attaches what can be loaded; cuDNN's comes first."""
    op = registry["scaled_dot_product_attention"]
    if cudnn.module() is not None:
        Variant(op, cp, _fits, _forward, _backward, extras=("stats",))
    if cublaslt.available():
        Variant(op, cp, _plain_fits, _plain, _plain_backward, extras=("p",))


def _fits(q: Any, k: Any, v: Any, mask: Any, keep: Any, *, causal: bool, scale: float) -> bool:
    if q.ndim != 4 or mask is not None or keep is not None or suffix(q, k, v) not in ("f16", "bf16"):
        return False
    if not (q.size and k.size) or (causal and q.shape[2] != k.shape[2]):
        return False
    widths = (q.shape[3], v.shape[3])
    if any(n % 8 or n > 128 for n in widths) or any(a.strides[3] != a.itemsize for a in (q, k, v)):
        return False
    return _plan(q, k, v, causal, scale) is not None and _gradient_plan(q, k, v, causal, scale) is not None


def _shapes(*arrays: Any) -> Any:
    return tuple((a.shape, tuple(cudnn.elements(a))) for a in arrays)


def _dense(shape: tuple[int, ...]) -> list[int]:
    """(B, H, T, D) as it leaves and enters the projections: (B, T, H, D) in memory."""
    _, h, t, d = shape
    return [t * h * d, d, h * d, 1]


def _empty(xp: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    b, h, t, d = shape
    return xp.empty((b, t, h, d), dtype).swapaxes(1, 2)


def _plan(q: Any, k: Any, v: Any, causal: bool, scale: float) -> Any:
    shape, stats = (*q.shape[:3], v.shape[3]), (*q.shape[:3], 1)

    def describe(made: Any) -> Any:
        from_q, from_k, from_v = (made.tensor(dim=list(a.shape), stride=cudnn.elements(a)) for a in (q, k, v))
        y, s = made.sdpa(
            q=from_q, k=from_k, v=from_v, is_inference=False, attn_scale=scale, use_causal_mask=causal
        )
        y.set_output(True).set_dim(list(shape)).set_stride(_dense(shape))
        s.set_output(True).set_data_type(cudnn.module().data_type.FLOAT)
        s.set_dim(list(stats)).set_stride([stats[1] * stats[2], stats[2], 1, 1])
        return from_q, from_k, from_v, y, s

    return cudnn.build(("sdpa", q.dtype.name, causal, scale, *_shapes(q, k, v)), q.dtype.name, describe)


def _gradient_plan(q: Any, k: Any, v: Any, causal: bool, scale: float) -> Any:
    shape, stats = (*q.shape[:3], v.shape[3]), (*q.shape[:3], 1)

    def describe(made: Any) -> Any:
        ins = [made.tensor(dim=list(a.shape), stride=cudnn.elements(a)) for a in (q, k, v)]
        y, g = (made.tensor(dim=list(shape), stride=_dense(shape)) for _ in range(2))
        s = made.tensor(
            dim=list(stats),
            stride=[stats[1] * stats[2], stats[2], 1, 1],
            data_type=cudnn.module().data_type.FLOAT,
        )
        outs = made.sdpa_backward(
            q=ins[0],
            k=ins[1],
            v=ins[2],
            o=y,
            dO=g,
            stats=s,
            attn_scale=scale,
            use_causal_mask=causal,
            use_deterministic_algorithm=cudnn.deterministic(),
        )
        for t, a in zip(outs, (q, k, v)):
            t.set_output(True).set_dim(list(a.shape)).set_stride(_dense(a.shape))
        return (*ins, y, g, s, *outs)

    key = ("sdpa gradient", q.dtype.name, causal, scale, cudnn.deterministic(), *_shapes(q, k, v))
    return cudnn.build(key, q.dtype.name, describe)


def _forward(xp: Any, q: Any, k: Any, v: Any, mask: Any, keep: Any, *, causal: bool, scale: float) -> Any:
    y = _empty(xp, (*q.shape[:3], v.shape[3]), q.dtype)
    stats = xp.empty((*q.shape[:3], 1), "float32")
    cudnn.run(_plan(q, k, v, causal, scale), q, k, v, y, stats)
    return y, stats


def _backward(
    xp: Any, g: Any, needs: Any, q: Any, k: Any, v: Any, y: Any, stats: Any, causal: bool, scale: float
) -> list[Any]:
    at = _empty(xp, g.shape, q.dtype)
    if cudnn.elements(g) != _dense(g.shape) or g.dtype != q.dtype:
        at[...] = g
        g = at
    grads = [_empty(xp, a.shape, a.dtype) for a in (q, k, v)]
    cudnn.run(_gradient_plan(q, k, v, causal, scale), q, k, v, y, g, stats, *grads)
    return [grad if wanted else None for grad, wanted in zip(grads, needs)] + [None, None]


# ---- by products


def _plain_fits(q: Any, k: Any, v: Any, mask: Any, keep: Any, *, causal: bool, scale: float) -> bool:
    if mask is not None or suffix(q, k, v, keep) is None or not (q.size and k.size and v.size):
        return False
    return q.ndim > 2 and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]


def _plain(xp: Any, q: Any, k: Any, v: Any, mask: Any, keep: Any, *, causal: bool, scale: float) -> Any:
    scores = times(xp, q, k.swapaxes(-1, -2))
    scores *= float(scale)
    if causal:
        scores += causal_mask(xp, q.shape[-2], k.shape[-2], q.dtype)
    p = softmax_rows(xp, scores)
    return times(xp, p if keep is None else p * keep, v), p


def _plain_backward(
    xp: Any, g: Any, needs: Any, q: Any, k: Any, v: Any, keep: Any, p: Any, scale: float
) -> list[Any]:
    g = g.astype(p.dtype, copy=False)
    dv = times(xp, (p if keep is None else p * keep).swapaxes(-1, -2), g) if needs[2] else None
    dp = times(xp, g, v.swapaxes(-1, -2))
    if keep is not None:
        dp *= keep
    ds = softmax_gradient_rows(xp, dp, p)
    ds *= float(scale)
    dq = times(xp, ds, k) if needs[0] else None
    dk = times(xp, ds.swapaxes(-1, -2), q) if needs[1] else None
    return [dq, dk, dv, None, None]
