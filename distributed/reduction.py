"""Reduction operators over arrays. NaN spreads whichever rank holds it; halves are summed in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

CACHE_BYTES = 512 * 1024  # of all rows of a reduction together: no more than a core's own cache holds
Combine = Callable[[np.ndarray, np.ndarray], object]  # combine(total, part) works in place on total


class ReduceOp:
    """Names of the reductions, as in torch.distributed. Each is a plain string."""

    SUM = "sum"
    AVG = "avg"
    PRODUCT = "product"
    MIN = "min"
    MAX = "max"
    BAND = "band"
    BOR = "bor"
    BXOR = "bxor"


_UFUNCS = {
    "sum": np.add,
    "avg": np.add,
    "product": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "band": np.bitwise_and,
    "bor": np.bitwise_or,
    "bxor": np.bitwise_xor,
}


@functools.cache
def combiner(op: str, dtype: np.dtype) -> Combine:
    """The in-place function for `op`. Raises ValueError for an unknown op, TypeError if dtype does not have
    it.
    """
    if op not in _UFUNCS:
        raise ValueError(f"[distributed] op must be one of {', '.join(_UFUNCS)}, got {op!r}")
    kind = "f" if dtype.name == "bfloat16" else dtype.kind
    if op == "avg" and kind not in "fc":
        raise TypeError(
            f"[distributed] avg needs a floating point dtype, got {dtype.name}; use sum and divide"
        )
    if op in ("band", "bor", "bxor") and kind not in "iub":
        raise TypeError(f"[distributed] {op} needs an integer or bool dtype, got {dtype.name}")
    if kind not in "iubfc":
        raise TypeError(f"[distributed] {op} needs a numeric dtype, got {dtype.name}")
    ufunc = _UFUNCS[op]
    return lambda total, part: ufunc(total, part, out=total)


@functools.cache
def accumulator(op: str, dtype: np.dtype) -> np.dtype:
    """The dtype in which to add up: float32 for float16 and bfloat16, otherwise dtype itself."""
    half = dtype.name in ("float16", "bfloat16") and op in ("sum", "avg", "product")
    return np.dtype(np.float32) if half else dtype


def finish(op: str, total: np.ndarray, world: int) -> None:
    """What is left to do on the whole sum: avg divides by the number of ranks."""
    if op == "avg":
        np.divide(total, world, out=total)


def reduce_rows(rows: Sequence[np.ndarray], op: str, out: np.ndarray) -> None:
    """out = reduction of rows, at least two, in their order: the same bits on every rank. `out` may be row 0 or 1."""
    dtype = accumulator(op, out.dtype)
    combine = combiner(op, out.dtype)
    if dtype == out.dtype:
        total = _UFUNCS[op](rows[0], rows[1], out=out)
        rest = rows[2:]
    else:
        total, rest = rows[0].astype(dtype), rows[1:]
    for row in rest:
        combine(total, row)
    finish(op, total, len(rows))
    if total is not out:
        out[...] = total


def reduce_everywhere(rows: Sequence[np.ndarray], own: int, op: str) -> None:
    """Every row = reduction of all, `own` first and then the others in their order.

    In pieces that stay in the cache, so that memory is read once and written once.
    """
    rows = [rows[own], *rows[:own], *rows[own + 1 :]]
    combine, dtype = combiner(op, rows[0].dtype), accumulator(op, rows[0].dtype)
    n = max(CACHE_BYTES // len(rows) // rows[0].itemsize, 1024)
    for at in range(0, rows[0].size, n):
        first, *others = [row[at : at + n] for row in rows]
        total = first if dtype == first.dtype else first.astype(dtype)
        for part in others:
            combine(total, part)
        finish(op, total, len(rows))
        for part in others if total is first else (first, *others):
            part[...] = total
