"""Ops that move elements, as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compare import Dim, explained
from .graph import Graph, Val
from .table import emits
from .trace import ExportError

LAST = 2**63 - 1


def fixed(*sizes: Any) -> Any:
    """Sizes that must not depend on a dynamic axis."""
    if any(isinstance(n, Dim) for n in sizes):
        raise ExportError(f"[onnx] a size must not depend on a dynamic axis here, came {list(sizes)}")
    return sizes if len(sizes) != 1 else sizes[0]


def plus(g: Graph, a: Any, b: Any, sign: int = 1) -> Any:
    """a + sign * b, of ints and Dims."""
    if not isinstance(a, Dim) and not isinstance(b, Dim):
        return a + sign * b
    runs = range(len(g.merged.sizes))
    first, second = ([v.values[i] if isinstance(v, Dim) else v for i in runs] for v in (a, b))
    values = [x + sign * y for x, y in zip(first, second)]
    found = values[0] if len(set(values)) == 1 else explained(values, g.merged.sizes)
    if found is None:
        raise ExportError(f"[onnx] a size must follow from the dynamic axes simply, came {a} and {b}")
    return found


@emits("reshape", "view", sizes=("shape",))
def _reshape(g: Graph, x: Val, shape: Any) -> str:
    return g.reshape(x, g.out[0].shape)


@emits("permute")
def _permute(g: Graph, x: Val, dims: Any) -> str:
    return g.node("Transpose", x, perm=list(dims)) if dims else g.node("Identity", x)


def swapped(g: Graph, x: Any, ndim: int, a: int, b: int) -> str:
    if a == b:
        return g.node("Identity", x)
    order = list(range(ndim))
    order[a], order[b] = order[b], order[a]
    return g.node("Transpose", x, perm=order)


@emits("transpose")
def _transpose(g: Graph, x: Val, dim0: int, dim1: int) -> str:
    return swapped(g, x, x.ndim, dim0, dim1)


@emits("expand", sizes=("shape",))
def _expand(g: Graph, x: Val, shape: Any) -> str:
    return g.node("Expand", x, g.ints(g.out[0].shape))


@emits("unsqueeze")
def _unsqueeze(g: Graph, x: Val, dim: int) -> str:
    return g.node("Unsqueeze", x, g.ints([dim]))


@emits("squeeze")
def _squeeze(g: Graph, x: Val, dim: Any) -> str:
    dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    axes = [d % x.ndim for d in dims if x.ndim and x.shape[d] == 1]
    return g.node("Squeeze", x, g.ints(axes)) if axes else g.node("Identity", x)


@emits("narrow", sizes=("start", "length"))
def _narrow(g: Graph, x: Val, dim: int, start: Any, length: Any) -> str:
    return g.slice(x, dim, start, plus(g, start, length))


@emits("split", sizes=("sizes",))
def _split(g: Graph, x: Val, sizes: Any, dim: int) -> list[str]:
    return g.nodes_out("Split", len(sizes), x, g.ints(sizes), axis=dim)


@emits("unbind")
def _unbind(g: Graph, x: Val, dim: int) -> list[str]:
    return [g.node("Gather", x, g.constant(i, np.int64), axis=dim) for i in range(len(g.out))]


@emits("cat")
def _cat(g: Graph, *parts: Val, dim: int) -> str:
    return g.node("Concat", *parts, axis=dim)


@emits("stack")
def _stack(g: Graph, *parts: Val, dim: int) -> str:
    return g.node("Concat", *(g.node("Unsqueeze", p, g.ints([dim])) for p in parts), axis=dim)


@emits("flip")
def _flip(g: Graph, x: Val, dims: Any) -> str:
    if not dims:
        return g.node("Identity", x)
    n = len(dims)
    return g.node("Slice", x, g.ints([-1] * n), g.ints([-LAST] * n), g.ints(dims), g.ints([-1] * n))


@emits("roll")
def _roll(g: Graph, x: Val, shifts: Any, dims: Any) -> str:
    if dims is None:
        flat = Val(g.node("Reshape", x, g.ints([-1])), (int(np.prod(fixed(0, *x.shape)[1:])),), x.dtype)
        return g.reshape(_roll(g, flat, (shifts,), (0,)), x.shape)
    y = x.name
    for shift, dim in zip(shifts, dims):
        n = x.shape[dim]
        shift = shift if isinstance(n, Dim) else shift % max(n, 1)
        if shift:
            y = g.node("Concat", g.slice(y, dim, -shift, LAST), g.slice(y, dim, 0, -shift), axis=dim)
    return y if y != x.name else g.node("Identity", x)


@emits("tril", "triu", sizes=("diagonal",))
def _tri(g: Graph, x: Val, diagonal: Any) -> str:
    upper = int(g.label == "triu")
    return g.node("Trilu", x, g.content(diagonal, np.dtype(np.int64)), upper=upper)


@emits("diagonal")
def _diagonal(g: Graph, x: Val, offset: int, dim1: int, dim2: int) -> str:
    rows, columns = fixed(x.shape[dim1], x.shape[dim2])
    others = [d for d in range(x.ndim) if d not in (dim1, dim2)]
    y = g.node("Transpose", x, perm=[*others, dim1, dim2])
    y = g.reshape(y, [*(x.shape[d] for d in others), rows * columns])
    places = np.arange(rows * columns).reshape(rows, columns).diagonal(offset)
    return g.node("Gather", y, g.constant(places, np.int64), axis=len(others))


@emits("unfold")
def _unfold(g: Graph, x: Val, dimension: int, size: int, step: int) -> str:
    if not x.ndim:
        raise ExportError("[onnx] a 0-d tensor is not unfolded")
    n = fixed(x.shape[dimension])
    places = np.arange((n - size) // step + 1)[:, None] * step + np.arange(size)
    y = g.node("Gather", x, g.constant(places, np.int64), axis=dimension)
    order = [d for d in range(x.ndim + 1) if d != dimension + 1]
    return g.node("Transpose", y, perm=[*order, dimension + 1])


@emits("pad")
def _pad(g: Graph, x: Val, widths: Any, value: float) -> str:
    pads = [a for a, _ in widths] + [b for _, b in widths]
    return g.node("Pad", x, g.ints(pads), g.like(value, x))


@emits("sum_to_shape", sizes=("shape",))
def _sum_to_shape(g: Graph, x: Val, shape: Any) -> str:
    lead = x.ndim - len(shape)
    axes = list(range(lead)) + [i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1]
    return g.reshape(g.reduce("ReduceSum", x, axes, True), shape)
