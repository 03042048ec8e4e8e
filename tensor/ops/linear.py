"""Matrix products."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.engine import Variable
from ...autograd.op import Op, array_ops, describe
from ..dtypes import BOOL
from .faster import faster
from .rows import column_sum

Prepared = tuple[tuple[Any, ...], dict[str, Any]]


def same_dtype(name: str, *args: Any) -> None:
    found = {a.array.dtype for a in args if isinstance(a, Variable)}
    if len(found) > 1:
        raise RuntimeError(f"[{name}] dtypes must be equal, came {', '.join(describe(a) for a in args)}")


def _matmul_prepare(a: Any, b: Any) -> Prepared:
    if isinstance(a, Variable):
        if not isinstance(b, Variable):
            raise TypeError(f"[matmul] must be called with two Tensors, came {type(b).__name__}")
        x, y = a.array, b.array
        if x.dtype is not y.dtype:
            same_dtype("matmul", a, b)
        if not x.ndim or not y.ndim:
            raise RuntimeError(f"[matmul] both must have dimensions, came {describe(a)} and {describe(b)}")
        if a.array.dtype == BOOL:
            raise RuntimeError("[matmul] the dtype must be numeric, came bool")
    return (a, b), {}


def _rows(t: Any) -> Any:
    """All leading dimensions as one; spelled out, as -1 is not defined for empty arrays."""
    return t if t.ndim == 2 else t.reshape(math.prod(t.shape[:-1]), t.shape[-1])


LARGE = 1 << 20  # multiplications from which a compiled product is looked for


def product(xp: Any, a: Any, b: Any) -> Any:
    """Of two matrices."""
    if a.size * b.shape[1] >= LARGE and (y := faster("product", xp, a, b)) is not None:
        return y
    return a.dot(b)  # starts sooner than @


def _matmul(xp: Any, a: Any, b: Any) -> Any:
    """Batches times one matrix are one large product, not a loop of small ones."""
    if a.ndim == 2 == b.ndim:
        return product(xp, a, b)
    if a.ndim > 2 and b.ndim == 2:
        return product(xp, _rows(a), b).reshape(*a.shape[:-1], b.shape[-1])
    return a @ b


def _matmul_a(ops: Any, g: Any, b: Any, a_shape: tuple[int, ...]) -> Any:
    if b.ndim == 1:
        g = ops.unsqueeze(g, dim=-1) if len(a_shape) > 1 else g
        return g * b
    if len(a_shape) == 1:
        g = ops.unsqueeze(g, dim=-2)
        full = ops.matmul(g, ops.transpose(b, dim0=-1, dim1=-2))
        return ops.sum_to_shape(ops.squeeze(full, dim=-2), shape=a_shape)
    return ops.sum_to_shape(ops.matmul(g, ops.transpose(b, dim0=-1, dim1=-2)), shape=a_shape)


def _matmul_b(ops: Any, g: Any, a: Any, b_shape: tuple[int, ...]) -> Any:
    if a.ndim == 1:
        if len(b_shape) == 1:
            return g * a
        column = ops.unsqueeze(a, dim=-1)
        return ops.sum_to_shape(column * ops.unsqueeze(g, dim=-2), shape=b_shape)
    if len(b_shape) == 1:
        flat = _rows(a)
        return ops.matmul(g.reshape((-1,)), flat)
    if len(b_shape) == 2 and a.ndim > 2:
        left = ops.transpose(_rows(a), dim0=0, dim1=1)
        return ops.matmul(left, _rows(g))
    return ops.sum_to_shape(ops.matmul(ops.transpose(a, dim0=-1, dim1=-2), g), shape=b_shape)


def _matmul_backward(
    xp: Any, g: Any, needs: list[bool], a: Any, b: Any, a_shape: Any, b_shape: Any
) -> list[Any]:
    """Both gradients on arrays, the usual shapes first."""
    if len(b_shape) == 2 and len(a_shape) >= 2:
        rows = _rows(g)
        ga = product(xp, rows, b.T).reshape(a_shape) if needs[0] else None
        gb = product(xp, _rows(a).T, rows) if needs[1] else None
    elif len(a_shape) > 2 and a_shape[:-2] == b_shape[:-2]:
        ga = g @ b.swapaxes(-1, -2) if needs[0] else None
        gb = a.swapaxes(-1, -2) @ g if needs[1] else None
    else:
        ga = _matmul_a(array_ops, g, b, a_shape) if needs[0] else None
        gb = _matmul_b(array_ops, g, a, b_shape) if needs[1] else None
    return [ga, gb]


matmul = Op(
    "matmul",
    _matmul,
    [_matmul_a, _matmul_b],
    backward=_matmul_backward,
    analytic=True,
    prepare=_matmul_prepare,
    hint="the last dimension of the first must equal the last but one of the second, batches must broadcast",
)


def _linear(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    y = product(xp, _rows(x), weight.T)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0]) if x.ndim != 2 else y


def _linear_prepare(x: Any, weight: Any, bias: Any = None) -> Prepared:
    if isinstance(x, Variable):
        dtype = weight.array.dtype
        if x.array.dtype != dtype or (bias is not None and bias.array.dtype != dtype):
            same_dtype("linear", x, weight, bias)
        x_shape, w_shape = x.array.shape, weight.array.shape
        if len(w_shape) != 2 or not x_shape or x_shape[-1] != w_shape[1]:
            raise RuntimeError(
                f"[linear] the input's last dimension must equal the weight's second, came input {describe(x)} and"
                f" weight {describe(weight)}"
            )
        if bias is not None and bias.array.shape != w_shape[:1]:
            raise RuntimeError(
                f"[linear] the bias must have the weight's first size {w_shape[0]}, came {describe(bias)}"
            )
    return ((x, weight) if bias is None else (x, weight, bias)), NO_KEYWORDS


NO_KEYWORDS: dict[str, Any] = {}


def _linear_backward(xp: Any, g: Any, needs: list[bool], x: Any, weight: Any, x_shape: Any) -> list[Any]:
    rows = _rows(g)
    grads: list[Any] = [None, None]
    if needs[0]:
        gx = product(xp, rows, weight)
        grads[0] = gx if gx.shape == x_shape else gx.reshape(x_shape)
    if needs[1]:
        grads[1] = product(xp, rows.T, _rows(x))
    if len(needs) > 2:
        grads.append(column_sum(xp, rows) if needs[2] else None)
    return grads


linear = Op(
    "linear",
    _linear,
    [
        lambda ops, g, weight: ops.matmul(g, weight),
        lambda ops, g, x: ops.matmul(ops.transpose(_rows(g), dim0=0, dim1=1), _rows(x)),
        lambda ops, g: ops.sum(_rows(g), dim=0),
    ],
    backward=_linear_backward,
    analytic=True,
    prepare=_linear_prepare,
)
