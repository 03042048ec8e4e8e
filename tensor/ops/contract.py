"""Contraction of two tensors over named dimensions: what einsum, tensordot and bilinear forms come down to."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.engine import Variable
from ...autograd.op import Op
from ..dtypes import category
from . import linear

Array = Any


def _aligned(x: Array, labels: str, order: str) -> Array:
    return x if labels == order else x.transpose([labels.index(c) for c in order])


def _blas(xp: Any, x: Array) -> Array:
    """Matrices as BLAS takes them: one of the last two dimensions without gaps."""
    step = x.itemsize
    return x if step in (x.strides[-1], x.strides[-2]) else xp.ascontiguousarray(x)


def _contract(xp: Any, a: Array, b: Array, *, left: str, right: str, out: str) -> Array:
    """Every label of `left` and `right` is in `out` or in the other one; `out` has those of either."""
    summed = [c for c in left if c not in out]
    if not summed:
        return _product(a, b, left, right, out)
    size = dict(zip(left + right, a.shape + b.shape))
    batch = [c for c in out if c in left and c in right]
    rows, columns = [c for c in left if c in out and c not in right], [c for c in out if c not in left]
    rows = [c for c in out if c in rows]

    def count(labels: list[str]) -> int:
        return math.prod(size[c] for c in labels)

    n, i, k, j = count(batch), count(rows), count(summed), count(columns)
    x = _aligned(a, left, "".join([*batch, *rows, *summed])).reshape(n, i, k)
    if i == 1 == j and n > 1:
        y = _aligned(b, right, "".join([*batch, *summed])).reshape(n, k) if not columns else None
        if y is not None:
            flat = xp.einsum("nk,nk->n", x[:, 0], y)
            return _aligned(flat.reshape([size[c] for c in batch + rows]), "".join(batch + rows), out)
    z = _aligned(b, right, "".join([*batch, *summed, *columns])).reshape(n, k, j)
    product = xp.matmul(_blas(xp, x), _blas(xp, z)) if n != 1 else linear.product(xp, x[0], z[0])[None]
    found = "".join([*batch, *rows, *columns])
    return _aligned(product.reshape([size[c] for c in found]), found, out)


def _product(a: Array, b: Array, left: str, right: str, out: str) -> Array:
    """Nothing is summed: both are spread over the output's dimensions and multiplied."""

    def spread(x: Array, labels: str) -> Array:
        x = _aligned(x, labels, "".join(c for c in out if c in labels))
        shape = iter(x.shape)
        return x.reshape([next(shape) if c in labels else 1 for c in out])

    return spread(a, left) * spread(b, right)


contract = Op(
    "contract",
    _contract,
    [
        lambda ops, g, b, left, right, out: _toward(ops, g, b, out, right, left),
        lambda ops, g, a, left, right, out: _toward(ops, g, a, out, left, right),
    ],
)


def _toward(ops: Any, g: Any, other: Any, out: str, labels: str, target: str) -> Any:
    """The gradient of the operand with labels `target`."""
    other = (
        ops.conj(other)
        if category(other.array.dtype if isinstance(other, Variable) else other.dtype) == 3
        else other
    )
    return ops.contract(g, other, left=out, right=labels, out=target)


def _cross(xp: Any, a: Array, b: Array, *, dim: int) -> Array:
    y = xp.empty(a.shape, a.dtype)
    p, q, out = (xp.moveaxis(t, dim, 0) for t in (a, b, y))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        xp.multiply(p[j], q[k], out=out[i, ...])  # the dots keep an array where a and b have one dimension
        out[i] -= p[k] * q[j]
    return y


cross = Op(
    "cross",
    _cross,
    [lambda ops, g, b, dim: ops.cross(b, g, dim=dim), lambda ops, g, a, dim: ops.cross(g, a, dim=dim)],
)
