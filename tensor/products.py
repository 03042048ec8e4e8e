"""Products over named or listed dimensions: einsum, tensordot, Kronecker and cross products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.engine import Variable
from . import functions as f
from .checks import one_dtype
from .ops import pointwise as _p
from .ops import shape as _s
from .ops.contract import contract
from .ops.contract import cross as cross_product
from .ops.declare import axis_of, promoted

if TYPE_CHECKING:
    from .tensor import Tensor

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _sublist(operands: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """einsum's other form: operand, list of labels, ..., and the output's list if wanted."""
    tensors, terms = list(operands[0::2]), list(operands[1::2])
    out = tensors.pop() if len(tensors) > len(terms) else None

    def text(labels: Any) -> str:
        for k in labels:
            if k is not Ellipsis and not 0 <= k < len(LETTERS):
                raise ValueError(f"[einsum] labels must be in [0, {len(LETTERS)}), came {k}")
        return "".join("..." if k is Ellipsis else LETTERS[k] for k in labels)

    equation = ",".join(text(labels) for labels in terms)
    return equation if out is None else f"{equation}->{text(out)}", tensors


@lru_cache(maxsize=1024)
def parse_equation(equation: str, ndims: tuple[int, ...]) -> tuple[tuple[str, ...], str]:
    """Labels of each operand and of the output, the dimensions of "..." as labels of their own."""
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ndims):
        raise RuntimeError(f"[einsum] {equation!r} is for {len(terms)} operands, came {len(ndims)}")
    free = [c for c in LETTERS if c not in inputs]
    extra = max((n - len(t.replace("...", "")) for t, n in zip(terms, ndims) if "..." in t), default=0)
    dots = "".join(free[: max(extra, 0)])
    labels = []
    for term, n in zip(terms, ndims):
        named = len(term.replace("...", ""))
        if "..." in term and n >= named:
            term = term.replace("...", dots[len(dots) - (n - named) :])
        if len(term) != n or (not term.isalpha() and term):
            raise RuntimeError(
                f"[einsum] the labels {term!r} in {equation!r} must name each of {n} dimensions"
            )
        labels.append(term)
    every = "".join(labels)
    if not arrow:
        out = dots + "".join(sorted(c for c in set(every) - set(dots) if every.count(c) == 1))
    out = out.replace("...", dots)
    for c in out:
        if c not in every or out.count(c) > 1:
            raise RuntimeError(
                f"[einsum] the output's label {c!r} in {equation!r} must be in an operand, and only once"
            )
    return tuple(labels), out


def _check_sizes(equation: str, labels: Sequence[str], operands: Sequence[Any]) -> dict[str, int]:
    size: dict[str, int] = {}
    for i, (term, x) in enumerate(zip(labels, operands)):
        for c, n in zip(term, x.array.shape):
            if size.setdefault(c, n) != n:
                if n != 1 and size[c] != 1:
                    raise RuntimeError(
                        f"[einsum] label {c!r} in {equation!r} has size {n} in operand {i}, and {size[c]} before"
                    )
                size[c] = max(n, size[c])
    return size


def _reduced(x: Any, labels: str, keep: set[str], size: dict[str, int]) -> tuple[Any, str]:
    """One operand with repeated labels as diagonals, and without those that nobody else needs."""
    for c in dict.fromkeys(labels):
        while labels.count(c) > 1:
            i = labels.index(c)
            j = labels.index(c, i + 1)
            x = _s.diagonal(x, offset=0, dim1=i, dim2=j)
            labels = labels[:i] + labels[i + 1 : j] + labels[j + 1 :] + c
    stretched = [i for i, c in enumerate(labels) if x.array.shape[i] == 1 and size[c] != 1]
    gone = [i for i, c in enumerate(labels) if c not in keep or i in stretched]
    if gone:
        x = (
            f.sum(x, tuple(gone))
            if x.is_floating_point() or x.is_complex()
            else x.sum(tuple(gone)).to(x.dtype)
        )
        labels = "".join(c for i, c in enumerate(labels) if i not in gone)
    return x, labels


def _pair(a: Any, left: str, b: Any, right: str, keep: set[str], size: dict[str, int]) -> tuple[Any, str]:
    """Two operands contracted over the labels that nobody else needs."""
    a, left = _reduced(a, left, keep | set(right), size)
    b, right = _reduced(b, right, keep | set(left), size)
    a, left = _reduced(a, left, keep | set(right), size)  # a label that was 1 in b alone
    out = "".join([c for c in left if c in keep] + [c for c in right if c in keep and c not in left])
    return contract(a, b, left=left, right=right, out=out), out


@lru_cache(maxsize=256)
def _path(labels: tuple[str, ...], out: str, shapes: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    arrays = [np.broadcast_to(np.float32(0), s) for s in shapes]
    return np.einsum_path(",".join(labels) + "->" + out, *arrays, optimize="greedy")[0][1:]


def einsum(*args: Any) -> Tensor:
    """Sums of products by labels of dimensions: `einsum("bij,bjk->bik", a, b)`; several operands pairwise, by size."""
    if isinstance(args[0], str):
        equation, operands = args[0], list(args[1:])
        if len(operands) == 1 and isinstance(operands[0], tuple | list):
            operands = list(operands[0])
    else:
        equation, operands = _sublist(args)
    labels_, out = parse_equation(equation, tuple(t.ndim for t in operands))
    labels = list(labels_)
    size = _check_sizes(equation, labels, operands)
    if len({t.array.dtype for t in operands}) > 1:
        operands = promoted("einsum", tuple(operands))
    if len(operands) > 2:
        full = tuple(tuple(size[c] for c in term) for term in labels)
        steps = _path(tuple(labels), out, full)
    else:
        steps = [(0, 1)] * (len(operands) - 1)
    for step in steps:
        pairs = [(operands.pop(i), labels.pop(i)) for i in sorted(step, reverse=True)][::-1]
        (x, found), *others = pairs
        for other, label in others:
            keep = set(out).union(*labels, *(o[1] for o in others if o[0] is not other))
            x, found = _pair(x, found, other, label, keep, size)
        operands.append(x)
        labels.append(found)
    x, found = _reduced(operands[0], labels[0], set(out), size)
    return x if found == out else _arranged(x, found, out, size)


def _arranged(x: Any, labels: str, out: str, size: dict[str, int]) -> Any:
    """The output's order; a label that was 1 everywhere it stood is put back."""
    for c in out:
        if c not in labels:
            x, labels = _s.unsqueeze(x, dim=0), c + labels
            x = _s.expand(x, shape=(size[c], *x.array.shape[1:]))
    return x if labels == out else _s.permute(x, dims=[labels.index(c) for c in out])


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Any = None) -> Tensor:
    """Sums of products over the last `dims` dimensions of a and the first of b, or over two lists of dimensions."""
    one_dtype("tensordot", a, b)
    if isinstance(dims, Variable):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0 or dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"[tensordot] dims must be in [0, {min(a.ndim, b.ndim)}], came {dims}")
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    da = [axis_of("tensordot", d, a.ndim) for d in dims[0]]
    db = [axis_of("tensordot", d, b.ndim) for d in dims[1]]
    for i, j in zip(da, db):  # a size of 1 stands for as many as the other has
        if a.shape[i] == 1 != b.shape[j]:
            b = b.sum(j, keepdim=True, dtype=b.dtype)
        elif b.shape[j] == 1 != a.shape[i]:
            a = a.sum(i, keepdim=True, dtype=a.dtype)
    if [a.shape[d] for d in da] != [b.shape[d] for d in db]:
        raise RuntimeError(
            f"[tensordot] contracted dimensions must match, came {list(a.shape)} over {da} and"
            f" {list(b.shape)} over {db}"
        )
    left, right = list(LETTERS[: a.ndim]), list(LETTERS[a.ndim : a.ndim + b.ndim])
    for i, j in zip(da, db):
        right[j] = left[i]
    free = [c for c in left + right if not (c in left and c in right)]
    a, b = promoted("tensordot", (a, b))
    return contract(a, b, left="".join(left), right="".join(right), out="".join(free))


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: each element of `input` times all of `other`."""
    if not isinstance(other, Variable):
        raise TypeError(f"[kron] must be two Tensors, came {type(other).__name__}")
    n = max(input.ndim, other.ndim)
    a, b = ((1,) * (n - t.ndim) + t.array.shape for t in (input, other))
    x = _s.reshape(input, shape=tuple(m for k in a for m in (k, 1)))
    y = _s.reshape(other, shape=tuple(m for k in b for m in (1, k)))
    return _s.reshape(_p.mul(x, y), shape=tuple(p * q for p, q in zip(a, b)))


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along a dimension of size 3: the first such one unless named."""
    one_dtype("cross", input, other)
    if input.ndim != other.ndim:
        raise RuntimeError(
            f"[cross] both must have equally many dimensions, came {list(input.shape)} and {list(other.shape)}"
        )
    a, b = input, other
    shape = np.broadcast_shapes(a.array.shape, b.array.shape)
    if dim is None:
        if 3 not in shape:
            raise RuntimeError(f"[cross] needs a dimension of size 3, came shape {list(shape)}")
        dim = shape.index(3)
    d = axis_of("cross", dim, len(shape))
    if shape[d] != 3:
        raise RuntimeError(f"[cross] dimension {d} must have size 3, came shape {list(shape)}")
    a, b = promoted("cross", (a, b))
    a, b = (t if t.array.shape == shape else _s.expand(t, shape=shape) for t in (a, b))
    return cross_product(a, b, dim=d)


def _chain_order(sizes: Sequence[int]) -> Any:
    """The cheapest order of multiplying matrices of sizes[i] x sizes[i + 1], as nested pairs of positions."""
    n = len(sizes) - 1
    best: dict[tuple[int, int], tuple[int, Any]] = {(i, i): (0, i) for i in range(n)}
    for span in range(1, n):
        for i in range(n - span):
            j = i + span
            options = [
                (best[i, k][0] + best[k + 1, j][0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j)
            ]
            cost, k = min(options)
            best[i, j] = cost, (best[i, k][1], best[k + 1, j][1])
    return best[0, n - 1][1]


def multi_dot(tensors: Sequence[Tensor], *, out: Any = None) -> Tensor:
    """The product of matrices in the cheapest order; the first and the last may be vectors."""
    if len(tensors) < 2:
        raise RuntimeError(f"[linalg.multi_dot] needs at least 2 tensors, came {len(tensors)}")
    parts = list(tensors)
    row, column = parts[0].ndim == 1, parts[-1].ndim == 1
    parts[0] = _s.unsqueeze(parts[0], dim=0) if row else parts[0]
    parts[-1] = _s.unsqueeze(parts[-1], dim=1) if column else parts[-1]

    def product(order: Any) -> Any:
        return parts[order] if isinstance(order, int) else f.mm(product(order[0]), product(order[1]))

    y = product(_chain_order([parts[0].shape[0], *(t.shape[1] for t in parts)]))
    shape = y.array.shape[int(row) : 2 - int(column)]
    return _s.reshape(y, shape=shape) if row or column else y


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of matrices in the cheapest order."""
    parts = matrices[0] if len(matrices) == 1 and isinstance(matrices[0], tuple | list) else matrices
    for m in parts:
        if not isinstance(m, Variable):
            raise TypeError(f"[chain_matmul] must be called with matrices, came {type(m).__name__}")
        if m.ndim != 2:
            raise RuntimeError(f"[chain_matmul] must be called with matrices, came shape {list(m.shape)}")
    return multi_dot(parts) if len(parts) > 1 else parts[0]
