"""Products of float32 matrices by oneDNN, whose kernels beat those of NumPy's OpenBLAS once its call pays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from . import library as onednn

F32 = np.dtype("float32")
LEAST = 1 << 20  # multiplications; below, OpenBLAS starts sooner
_MATRIX: tuple[Any, ...] = (ctypes.c_void_p, ctypes.c_int64)
_LAYOUT: tuple[Any, ...] = (*[ctypes.c_char] * 2, *[ctypes.c_int64] * 3)
NARROW = 8  # rows or columns; a vector's product is bound by memory


@lru_cache(maxsize=1)
def _library() -> tuple[onednn.Library, Callable[..., int]] | None:
    if (found := onednn.load()) is None:
        return None
    sgemm = found.dnnl.dnnl_sgemm
    sgemm.argtypes = [*_LAYOUT, ctypes.c_float, *_MATRIX, *_MATRIX, ctypes.c_float, *_MATRIX]
    return found, sgemm


def _layout(x: Any) -> tuple[bytes, int] | None:
    """How the library is told where a matrix lies: b"N" by rows or b"T" by columns, and elements from one to the next;
    None where neither has its elements side by side.
    """
    (rows, columns), (down, right) = x.shape, x.strides
    if right == 4 and down >= 4 * columns and down % 4 == 0:
        return b"N", down >> 2
    if down == 4 and right >= 4 * rows and right % 4 == 0:
        return b"T", right >> 2
    return None


def product(a: Any, b: Any, out: Any = None) -> Any:
    """a @ b for a of (m, k) and b of (k, n), in `out` if given; None where another body must compute it."""
    (m, k), n = a.shape, b.shape[1]
    if m * k * n < LEAST or min(m, n, k) < NARROW or a.dtype != F32 or b.dtype != F32:
        return None
    left, right = _layout(a), _layout(b)
    y = np.empty((m, n), F32) if out is None else out
    made = _layout(y)
    if left is None or right is None or made is None or made[0] != b"N" or k != b.shape[0]:
        return None
    if (found := _library()) is None:
        return None
    library, sgemm = found
    library.set_threads(library.threads)  # OpenMP keeps the number for each calling thread
    x, z, target = (array.__array_interface__["data"][0] for array in (a, b, y))
    status = sgemm(left[0], right[0], m, n, k, 1.0, x, left[1], z, right[1], 0.0, target, made[1])
    if status:
        raise RuntimeError(
            f"[oneDNN] the product of {a.shape} and {b.shape} must succeed, came status {status}"
        )
    return y


def into(a: Any, b: Any, out: Any) -> None:
    """`product`, or NumPy's where that is faster or alone can. Shapes as for numpy.matmul."""
    if a.ndim != 2 or b.ndim != 2 or product(a, b, out) is None:
        np.matmul(a, b, out)


BODIES: dict[str, Callable[..., Any]] = {"product": product}
