"""Rows of a table by their numbers."""

from __future__ import annotations

from typing import Any

from ...autograd.engine import Variable
from ...autograd.op import Op, describe
from ..dtypes import category
from .faster import faster
from .rows import blocks

Prepared = tuple[tuple[Any, ...], dict[str, Any]]


def _embedding_prepare(index: Any, weight: Any, *, padding_idx: int | None = None) -> Prepared:
    if isinstance(index, Variable):
        if category(index.array.dtype) != 1:
            raise RuntimeError(
                f"[embedding] the index must be an integer tensor, came {describe(index)}: use .long()"
            )
        if weight.ndim != 2:
            raise RuntimeError(f"[embedding] the weight must be a matrix, came {describe(weight)}")
    return (index, weight), {"padding_idx": padding_idx}


def _embedding(xp: Any, index: Any, weight: Any, *, padding_idx: int | None) -> Any:
    rows = weight.shape[0]
    flat = index.reshape(-1)
    if flat.size:
        least, most = flat.min(), flat.max()
        if least < 0 or most >= rows:
            bad = least if least < 0 else most
            raise (IndexError if rows else RuntimeError)(
                f"[embedding] indices must be in [0, {rows - 1}] for a weight of {rows} rows, came {int(bad)}"
            )
    return weight.take(flat, axis=0).reshape(*index.shape, weight.shape[1])


def _embedding_adjoint(xp: Any, g: Any, index: Any, *, rows: int, padding_idx: int | None) -> Any:
    """Sums of the gradients of equal indices. add.at is fast for flat arrays only, so the index is spread out."""
    g = g.reshape(-1, g.shape[-1])
    flat, width = index.reshape(-1, 1), g.shape[1]
    out = xp.zeros((rows, width), g.dtype)
    made = faster("rows_add", xp, out, index.reshape(-1), g) if g.size else None
    for part in blocks(flat.shape[0], width) if made is None else ():
        xp.add.at(out.reshape(-1), (flat[part] * width + xp.arange(width)).reshape(-1), g[part].reshape(-1))
    if padding_idx is not None:
        out[padding_idx] = 0
    return out


embedding_adjoint = Op(
    "embedding_adjoint",
    _embedding_adjoint,
    [lambda ops, g, index, padding_idx: ops.embedding_masked(index, g, padding_idx=padding_idx), None],
)


def _masked(xp: Any, index: Any, weight: Any, *, padding_idx: int | None) -> Any:
    y = weight.take(index.reshape(-1), axis=0).reshape(*index.shape, weight.shape[1])
    if padding_idx is not None:
        y[index == padding_idx] = 0
    return y


def _rule(ops: Any, g: Any, index: Any, weight_shape: tuple[int, ...], padding_idx: int | None) -> Any:
    return ops.embedding_adjoint(g, index, rows=weight_shape[0], padding_idx=padding_idx)


embedding_masked = Op("embedding_masked", _masked, [None, _rule])
embedding = Op("embedding", _embedding, [None, _rule], prepare=_embedding_prepare)
