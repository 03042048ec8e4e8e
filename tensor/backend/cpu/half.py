"""Products of bfloat16 matrices by oneDNN, on processors that multiply them natively: twice as fast as float32.

Sums are kept in float32 and rounded once, as where the ops' own bodies compute in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ....autograd.op import Variant
from ...ops import linear as ops
from ...ops.faster import faster
from ...ops.rows import column_sum
from . import library as onednn
from .gemm import LEAST, Form, kernel
from .library import BF16, Primitive

F32 = np.dtype("float32")
NATIVE = ("bf16", "amx")  # in the names of the library's kernels


def _form(x: Any) -> Form:
    return x.shape, tuple(s // 2 for s in x.strides)


def _kernel(a: Form, b: Form, y: Form, bias: bool, threads: int) -> Primitive | None:
    """As `gemm.kernel`; None also where the processor has no such numbers of its own."""
    found = kernel(a, b, y, bias, BF16, threads)
    return found if found is not None and any(part in found.name for part in NATIVE) else None


def _plain(x: Any) -> Any:
    """x, or a copy of it where rows and columns both have gaps or elements are seen twice."""
    return x if min(x.strides) > 0 and 2 in x.strides[-2:] else np.ascontiguousarray(x)


def product(a: Any, b: Any, bias: Any = None) -> Any:
    """a (..., m, k) @ b (..., k, n) + bias (n), all bfloat16, with equal leading dimensions."""
    lib = onednn.load()
    assert lib is not None
    a, b = _plain(a), _plain(b)
    y = np.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    found = _kernel(_form(a), _form(b), _form(y), bias is not None, lib.threads)
    if found is None:
        wide = a.astype(F32) @ b.astype(F32)
        return (wide if bias is None else wide + bias.astype(F32)).astype(a.dtype)
    given = (a, b) if bias is None else (a, b, np.ascontiguousarray(bias))
    return found.run(*given, y)


@lru_cache(maxsize=1)
def native() -> bool:
    square = ((64, 64), (64, 1))
    return _kernel(square, square, square, False, 1) is not None


def fits(a: Any, b: Any, *others: Any) -> Any:
    """True for bfloat16 arrays whose product is worth a call, on such a processor; else None."""
    if any(x is not None and x.dtype.name != "bfloat16" for x in (a, b, *others)) or min(a.ndim, b.ndim) < 2:
        return None
    return True if math.prod(a.shape) * b.shape[-1] >= LEAST and b.size and native() else None


def _linear(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    return product(ops._rows(x), weight.T, bias).reshape(*x.shape[:-1], weight.shape[0])


def _linear_backward(xp: Any, g: Any, needs: list[bool], x: Any, weight: Any, x_shape: Any) -> list[Any]:
    rows = ops._rows(g)
    grads = [
        product(rows, weight).reshape(x_shape) if needs[0] else None,
        product(rows.T, ops._rows(x)) if needs[1] else None,
    ]
    if len(needs) > 2:
        grads.append(column_sum(np, rows.astype(F32)).astype(g.dtype) if needs[2] else None)
    return grads


def _matmul(xp: Any, a: Any, b: Any) -> Any:
    return product(ops._rows(a), b).reshape(*a.shape[:-1], b.shape[-1]) if b.ndim == 2 else product(a, b)


def _matmul_backward(
    xp: Any, g: Any, needs: list[bool], a: Any, b: Any, a_shape: Any, b_shape: Any
) -> list[Any]:
    if len(b_shape) == 2:
        rows = ops._rows(g)
        ga = product(rows, b.T).reshape(a_shape) if needs[0] else None
        return [ga, product(ops._rows(a).T, rows) if needs[1] else None]
    ga = product(g, b.swapaxes(-1, -2)) if needs[0] else None
    return [ga, product(a.swapaxes(-1, -2), g) if needs[1] else None]


def _takes_linear(x: Any, weight: Any, bias: Any = None) -> bool:
    return faster("half_fits", np, x, weight.T, bias) is True


def _takes_matmul(a: Any, b: Any) -> bool:
    alike = b.ndim == 2 or a.shape[:-2] == b.shape[:-2]
    return alike and faster("half_fits", np, a, b) is True


@lru_cache(maxsize=1)
def attach() -> None:
    """Gives `linear` and `matmul` these bodies."""
    Variant(ops.linear, np, _takes_linear, _linear, _linear_backward)
    Variant(ops.matmul, np, _takes_matmul, _matmul, _matmul_backward)


BODIES: dict[str, Callable[..., Any]] = {"half_fits": fits}
