"""Matrix products as bodies of ops: matmul and linear, forward and backward, by cuBLASLt.

A row-major product D = A B is asked for as D^T = B^T A^T in columns. Operands that are transposed views are taken as
they are; others without a unit stride are copied first.
"""

from __future__ import annotations

import math
from typing import Any

from ....autograd.op import Variant, array_ops, registry
from . import cublaslt
from .cublaslt import TYPES, Matrix
from .kernel import launches

Operand = tuple[Any, bool, Matrix]


def attach(cp: Any) -> None:
    """Attaches them where cuBLASLt can be loaded; otherwise CuPy's products serve, as far as they go."""
    if not cublaslt.available():
        return
    Variant(registry["matmul"], cp, _matmul_fits, _matmul, _matmul_backward)
    Variant(registry["linear"], cp, _linear_fits, _linear, _linear_backward)


def _same_type(*arrays: Any) -> bool:
    names = {a.dtype.name for a in arrays}
    return len(names) == 1 and names <= set(TYPES) and all(a.size for a in arrays)


def _matmul_fits(a: Any, b: Any) -> bool:
    if a.ndim < 2 or b.ndim < 2 or not _same_type(a, b) or a.shape[-1] != b.shape[-2]:
        return False
    return b.ndim == 2 or a.shape[:-2] == b.shape[:-2]


def _linear_fits(x: Any, weight: Any, bias: Any = None) -> bool:
    return x.ndim > 1 and _same_type(x, weight) and (bias is None or bias.flags.c_contiguous)


# ---- one product


def operand(xp: Any, x: Any) -> Operand:
    """(array, whether it is flipped, x^T as columns) of x (..., r, c) with one batch dimension at most."""
    size = x.itemsize
    rows, cols = x.shape[-2:]
    for attempt in (x, None):
        if attempt is None:
            x = xp.ascontiguousarray(x)
        row, col = x.strides[-2] // size, x.strides[-1] // size
        batch, stride = (x.shape[0], x.strides[0] // size) if x.ndim == 3 else (1, 0)
        if (col == 1 or cols == 1) and (row >= cols or rows == 1) and row > 0:
            return x, False, Matrix(cols, rows, max(row, cols), batch, stride)
        if (row == 1 or rows == 1) and (col >= rows or cols == 1) and col > 0:
            return x, True, Matrix(rows, cols, max(col, rows), batch, stride)
    raise AssertionError("a contiguous array is always an operand")


def product(xp: Any, a: Any, b: Any, epilogue: str | None = None, bias: Any = None, aux: Any = None) -> Any:
    """a (n, r, k) b (n, k, c), or without batches; None where the library has no algorithm.

    epilogue: "bias", "relu_bias", "gelu_bias" add `bias` (c,) and apply the function; "gelu_aux_bias" also keeps
    what GELU (the tanh form) was given in `aux`; "bias_gradient" writes the sums of a's rows, (r,), into `bias`.
    """
    a, flip_a, left = operand(xp, a)
    b, flip_b, right = operand(xp, b)
    shape = (*a.shape[:-1], b.shape[-1])
    out = xp.empty(shape, a.dtype)
    rows, cols = shape[-2:]
    result = Matrix(cols, rows, cols, left.batch, rows * cols)
    alignment = _alignment(a, b, out)
    p = cublaslt.plan(a.dtype.name, (flip_b, flip_a), (right, left, result), epilogue, alignment, _tf32())
    if p is None:
        return None
    launches["gemm"] += 1
    addresses = (b.data.ptr, a.data.ptr, out.data.ptr)
    cublaslt.run(p, *addresses, 0 if bias is None else bias.data.ptr, 0 if aux is None else aux.data.ptr)
    return out


def _alignment(*arrays: Any) -> int:
    together = 256
    for a in arrays:
        together = math.gcd(together, int(a.data.ptr))
    return together


def _tf32() -> bool:
    from ...settings import get_float32_matmul_precision

    return get_float32_matmul_precision() != "highest"


def times(xp: Any, a: Any, b: Any) -> Any:
    """a b for any batches that are equal, or none on the right."""
    if b.ndim == 2 and a.ndim > 2:
        return times(xp, _rows(a), b).reshape(*a.shape[:-1], b.shape[-1])
    batch = a.shape[:-2]
    if len(batch) > 1:
        a, b = (t.reshape(math.prod(batch), *t.shape[-2:]) for t in (a, b))
    y = product(xp, a, b)
    if y is None:
        y = xp.matmul(a, b)
    return y.reshape(*batch, *y.shape[-2:]) if len(batch) > 1 else y


def _rows(t: Any) -> Any:
    return t if t.ndim == 2 else t.reshape(-1, t.shape[-1])


# ---- ops


def _matmul(xp: Any, a: Any, b: Any) -> Any:
    return times(xp, a, b)


def _matmul_backward(
    xp: Any, g: Any, needs: list[bool], a: Any, b: Any, a_shape: Any, b_shape: Any
) -> list[Any]:
    kind = (a if a is not None else b).dtype
    g = g.astype(kind, copy=False)
    if len(b_shape) == 2:
        rows = _rows(g)
        ga = times(xp, rows, b.T).reshape(a_shape) if needs[0] else None
        gb = times(xp, _rows(a).T, rows) if needs[1] else None
        return [ga, gb]
    ga = times(xp, g, b.swapaxes(-1, -2)) if needs[0] else None
    gb = times(xp, a.swapaxes(-1, -2), g) if needs[1] else None
    return [ga, gb]


def _linear(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    rows = _rows(x)
    y = product(xp, rows, weight.T, "bias", bias) if bias is not None else None
    if y is None:
        y = times(xp, rows, weight.T)
        if bias is not None:
            y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def _linear_backward(xp: Any, g: Any, needs: list[bool], x: Any, weight: Any, x_shape: Any) -> list[Any]:
    rows = _rows(g)
    gx = gw = gb = None
    if needs[0]:
        gx = times(xp, rows, weight).reshape(x_shape)
    wants_bias = len(needs) > 2 and needs[2]
    if needs[1]:
        flat = _rows(x)
        if wants_bias:
            gb = xp.empty(rows.shape[1], rows.dtype)
            gw = product(xp, rows.T, flat, "bias_gradient", gb)
        if gw is None:
            gw, gb = times(xp, rows.T, flat), None
    if wants_bias and gb is None:
        gb = array_ops.sum(rows, dim=0)
    return [gx, gw, gb][: len(needs)]
