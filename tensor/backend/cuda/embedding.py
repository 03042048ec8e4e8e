"""Embedding kernels: the gradient is summed in ascending order of position, whatever the GPU schedules."""

from __future__ import annotations

from typing import Any

from ....autograd.op import Variant, registry
from .flags import pointer
from .kernel import aligned, contiguous, launch, row_grid, suffix

MOST = 1 << 17  # indices whose ranks are counted by comparison; beyond, CuPy sorts them


def attach(cp: Any) -> None:
    """Attaches them."""
    Variant(registry["embedding"], cp, _fits, _forward, _backward)
    Variant(registry["embedding_adjoint"], cp, _adjoint_fits, _adjoint)


def _fits(index: Any, weight: Any, *, padding_idx: int | None = None) -> bool:
    fits = index.dtype.name == "int64" and contiguous(index, weight) and suffix(weight) is not None
    return fits and index.size > 0 and weight.size > 0


def _forward(xp: Any, index: Any, weight: Any, *, padding_idx: int | None) -> Any:
    rows, width = weight.shape
    y = xp.empty((*index.shape, width), weight.dtype)
    args = (index, weight, y, index.size, rows, width, pointer(), aligned(width, weight, y))
    launch("embedding.cu", f"embedding_{suffix(weight)}", row_grid(index.size), 128, *args)
    return y


def _backward(
    xp: Any, g: Any, needs: Any, index: Any, weight_shape: Any, padding_idx: int | None
) -> list[Any]:
    return [None, _adjoint(xp, g, index, rows=weight_shape[0], padding_idx=padding_idx)]


def _adjoint_fits(g: Any, index: Any, *, rows: int, padding_idx: int | None) -> bool:
    return (
        index.dtype.name == "int64"
        and contiguous(index)
        and suffix(g) is not None
        and g.size > 0
        and rows > 0
    )


def _adjoint(xp: Any, g: Any, index: Any, *, rows: int, padding_idx: int | None) -> Any:
    g = xp.ascontiguousarray(g)
    n, width = index.size, g.shape[-1]
    count, start = xp.zeros(rows, "uint32"), xp.empty(rows, "uint32")
    out = xp.empty((rows, width), g.dtype)
    order = _positions(xp, index.reshape(-1), n, rows, count, start)
    args = (g, order, start, count, out, rows, width, -1 if padding_idx is None else padding_idx)
    name = f"embedding_gradient_{suffix(g)}"
    launch("embedding.cu", name, row_grid(rows), 128, *args, aligned(width, g, out))
    return out


def _positions(xp: Any, index: Any, n: int, rows: int, count: Any, start: Any) -> Any:
    """The positions of 0 in `index`, then those of 1 and so on; fills count and start."""
    if n > MOST:
        count += xp.bincount(index, minlength=rows).astype("uint32")
        launch("embedding.cu", "embedding_starts", 1, 1024, count, start, rows)
        return xp.argsort(index, kind="stable").astype("uint32")
    rank, order = xp.empty(n, "uint32"), xp.empty(n, "uint32")
    grid = -(-n // 256)
    launch("embedding.cu", "embedding_rank", grid, 256, index, n, rows, rank, count)
    launch("embedding.cu", "embedding_starts", 1, 1024, count, start, rows)
    launch("embedding.cu", "embedding_order", grid, 256, index, n, rows, rank, start, order)
    return order
