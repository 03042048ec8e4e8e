"""Solvers for matrices of a fixed size: ONNX has none, so the elimination is written out, a few nodes a column.

All compute in float64. A singular matrix gives infinities or NaN, where here it is an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Graph, Val
from .op_write import _common_shape
from .table import emits
from .trace import ExportError


def _size(x: Val) -> int:
    n = x.shape[-1]
    if not isinstance(n, int):
        raise ExportError(f"[onnx] a matrix to be solved must have a fixed size, came {n}")
    return n


def _eliminated(g: Graph, whole: str, n: int, pivots: bool) -> str:
    """[I | A^-1 B] from [A | B]: Gauss and Jordan's elimination, with the largest pivot of each column if asked."""
    rows, last = np.arange(n), np.iinfo(np.int64).max
    for j in range(n):
        here = g.constant((rows == j)[:, None])
        row = g.slice(whole, -2, j, j + 1)
        if pivots:
            column = g.node("Abs", g.node("Squeeze", g.slice(whole, -1, j, j + 1), g.ints([-1])))
            left = g.node("Where", g.constant(rows >= j), column, g.constant(-1.0, np.float64))
            best = g.node("ArgMax", left, axis=-1, keepdims=1)
            chosen = g.node("Equal", g.constant(rows), best)
            once = g.node("Unsqueeze", g.cast(chosen, np.float64), g.ints([-2]))
            pivot = g.node("MatMul", once, whole)
            whole = g.node("Where", g.node("Unsqueeze", chosen, g.ints([-1])), row, whole)
            row = pivot
        row = g.node("Div", row, g.slice(row, -1, j, j + 1))
        others = g.node("Sub", whole, g.node("Mul", g.slice(whole, -1, j, j + 1), row))
        whole = g.node("Where", here, row, others)
    return g.slice(whole, -1, n, last)


def _beside(g: Graph, a: str, a_shape: Any, b: str, b_shape: Any) -> str:
    """[A | B], their batches stretched to one another."""
    batch = _common_shape([a_shape[:-2], b_shape[:-2]])
    parts = [
        name if tuple(shape[:-2]) == tuple(batch) else g.node("Expand", name, g.ints([*batch, *shape[-2:]]))
        for name, shape in ((a, a_shape), (b, b_shape))
    ]
    return g.node("Concat", *parts, axis=-1)


@emits("inv")
def _inv(g: Graph, x: Val) -> str:
    n = _size(x)
    whole = _beside(g, g.cast(x, np.float64), x.shape, g.constant(np.eye(n)), (n, n))
    return g.cast(_eliminated(g, whole, n, True), x.dtype)


@emits("solve")
def _solve(g: Graph, a: Val, b: Val) -> str:
    whole = _beside(g, g.cast(a, np.float64), a.shape, g.cast(b, np.float64), b.shape)
    return g.cast(_eliminated(g, whole, _size(a), True), b.dtype)


@emits("solve_triangular")
def _solve_triangular(g: Graph, a: Val, b: Val, upper: bool, unitriangular: bool) -> str:
    n = _size(a)
    k = (1 if upper else -1) if unitriangular else 0
    part = g.node("Trilu", g.cast(a, np.float64), g.constant(k, np.int64), upper=int(upper))
    part = g.node("Add", part, g.constant(np.eye(n))) if unitriangular else part
    whole = _beside(g, part, a.shape, g.cast(b, np.float64), b.shape)
    return g.cast(_eliminated(g, whole, n, False), b.dtype)


@emits("slogdet")
def _slogdet(g: Graph, x: Val) -> list[str]:
    value = g.node("Det", x)
    return [g.node("Sign", value), g.node("Log", g.node("Abs", value))]


@emits("cholesky")
def _cholesky(g: Graph, x: Val, upper: bool) -> str:
    """Column by column: its part below the diagonal, and what is left once its square is taken off."""
    n, left, columns = _size(x), g.cast(x, np.float64), []
    flip = [*range(x.ndim - 2), x.ndim - 1, x.ndim - 2]
    for j in range(n):
        column = g.slice(left, -1, j, j + 1)
        column = g.node("Div", column, g.node("Sqrt", g.slice(column, -2, j, j + 1)))
        below = g.constant((np.arange(n) >= j)[:, None])
        columns.append(g.node("Where", below, column, g.constant(0.0, np.float64)))
        left = g.node("Sub", left, g.node("MatMul", columns[-1], g.node("Transpose", columns[-1], perm=flip)))
    y = g.node("Concat", *columns, axis=-1)
    return g.cast(g.node("Transpose", y, perm=flip) if upper else y, x.dtype)


SQUARINGS, TERMS = 10, 14  # exact to float64 for matrices of norms up to some hundreds


@emits("matrix_exp")
def _matrix_exp(g: Graph, x: Val) -> str:
    """Taylor's series of x / 2^10, squared ten times."""
    eye = g.constant(np.eye(_size(x)))
    small = g.node("Mul", g.cast(x, np.float64), g.constant(0.5**SQUARINGS, np.float64))
    y = eye
    for k in range(TERMS, 0, -1):
        part = g.node("Div", g.node("MatMul", small, y), g.constant(float(k), np.float64))
        y = g.node("Add", part, eye)
    for _ in range(SQUARINGS):
        y = g.node("MatMul", y, y)
    return g.cast(y, x.dtype)
