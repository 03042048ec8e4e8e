"""Choosing between two arrays by a mask, without branches.

The processor guesses what NumPy's `where` does with each element; on a mixed mask half the guesses are wrong, which
costs twenty times what the memory does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .faster import faster

Array = Any
LEAST = 2048  # elements: below, NumPy's one call is as fast
BLOCK = 16384  # elements, whose pieces stay in the cache
BOOL = np.dtype("bool")
BITS: dict[int, Any] = {4: np.dtype("int32"), 8: np.dtype("int64")}  # by the size of an element


def where(xp: Any, mask: Array, a: Array, b: Array) -> Array:
    """Elements of `a` where the mask holds and of `b` elsewhere; all three broadcast."""
    if xp is not np or mask.size < 2 or (mask.size < LEAST and a.size < LEAST and b.size < LEAST):
        return xp.where(mask, a, b)
    dtype = a.dtype
    if mask.dtype != BOOL or b.dtype is not dtype or dtype.kind not in "fiuc" or dtype.itemsize not in BITS:
        return np.where(mask, a, b)
    shape = np.broadcast_shapes(mask.shape, a.shape, b.shape)
    kind, out = BITS[dtype.itemsize], np.empty(shape, dtype)
    rows = (
        _flat(mask, shape, np.dtype("int8")),
        _flat(a, shape, kind),
        _flat(b, shape, kind),
        out.reshape(-1).view(kind),
    )
    if faster("select", np, *rows) is None:
        _blend(*rows)
    return out


def _flat(v: Array, shape: tuple[int, ...], bits: Any) -> Array:
    """The bits of the elements in a row; a number stays one."""
    if v.size == 1:
        return v.reshape(-1).view(bits)
    if v.shape != shape:
        v = np.broadcast_to(v, shape)
    return np.ascontiguousarray(v).reshape(-1).view(bits)


def _blend(mask: Array, a: Array, b: Array, out: Array) -> None:
    """out = b ^ ((a ^ b) & -mask), in pieces."""
    held = np.empty(min(BLOCK, out.size), out.dtype)
    for start in range(0, out.size, BLOCK):
        part = slice(start, start + BLOCK)
        y, other = out[part], b if b.size == 1 else b[part]
        signs = np.negative(mask[part], out=held[: y.size])
        np.bitwise_xor(a if a.size == 1 else a[part], other, out=y)
        y &= signs
        y ^= other


def kept(xp: Any, mask: Array, g: Array) -> Array:
    """`g` where the mask, of its shape, holds, and 0 elsewhere, even for infinity: the gradient of a choice."""
    if xp is np and g.dtype.itemsize == 4 and type(g) is np.ndarray and g.size < LEAST:
        return (g.view(BITS[4]) & np.negative(mask.view(np.int8), dtype=BITS[4])).view(g.dtype)
    return where(xp, mask, g, xp.zeros((), g.dtype))
