"""Products of float32 matrices by oneDNN, whose kernels beat those of NumPy's OpenBLAS once its call pays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from . import library as onednn
from .library import BIAS, DST, SRC, WEIGHTS, Primitive

F32 = np.dtype("float32")
Form = tuple[tuple[int, ...], tuple[int, ...]]  # shape, and strides in elements
LEAST = 1 << 20  # multiplications; below, OpenBLAS starts sooner
NARROW = 8  # rows or columns; a vector's product is bound by memory


@lru_cache(maxsize=1024)
def kernel(a: Form, b: Form, y: Form, bias: bool, kind: int, threads: int) -> Primitive | None:
    """run(a, b[, bias], out) of y = a b + bias, all of one kind of number, with leading dimensions alike; None without
    the library, or where it has no kernel made for the very shape.
    """
    if (lib := onednn.load()) is None:
        return None
    lib.set_threads(threads)
    layouts = {
        i: lib.layout(shape, strides=strides, kind=kind) for i, (shape, strides) in ((SRC, a), (WEIGHTS, b))
    }
    shape, strides = y
    add = lib.layout((*[1] * (len(shape) - 1), shape[-1]), kind=kind) if bias else None
    if add:
        layouts[BIAS] = add
    layouts[DST] = lib.layout(shape, strides=strides, kind=kind)
    try:
        description = lib.description("matmul", layouts[SRC], layouts[WEIGHTS], add, layouts[DST])
    except RuntimeError:
        return None
    return Primitive(lib, description, layouts, DST) if lib.body(description).startswith("brg") else None


def _form(x: Any) -> Form | None:
    """Shape and strides in elements; None where neither rows nor columns have their elements side by side."""
    (rows, columns), (down, right) = x.shape, x.strides
    by_rows = right == 4 and down >= 4 * columns and down % 4 == 0
    by_columns = down == 4 and right >= 4 * rows and right % 4 == 0
    return (x.shape, (down >> 2, right >> 2)) if by_rows or by_columns else None


def product(a: Any, b: Any, out: Any = None) -> Any:
    """a @ b for a of (m, k) and b of (k, n), in `out` if given; None where another body must compute it."""
    (m, k), n = a.shape, b.shape[1]
    if m * k * n < LEAST or min(m, n, k) < NARROW or a.dtype != F32 or b.dtype != F32 or k != b.shape[0]:
        return None
    y = np.empty((m, n), F32) if out is None else out
    left, right, made = _form(a), _form(b), _form(y)
    if left is None or right is None or made is None or made[1][1] != 1:
        return None
    library = onednn.load()
    found = None if library is None else kernel(left, right, made, False, onednn.F32, library.threads)
    return None if found is None else found.run(a, b, y)


class Packed:
    """b of (k, n), packed once in the order in which oneDNN multiplies by it: run(a, out) for many a of (m, k).

    For a few rows packing is most of a product's work: 32 x 256 by 256 x 1024 runs a third faster.
    """

    def __init__(self, library: onednn.Library, m: int, b: Any) -> None:
        self.memories: list[Any] = []
        self.primitives: list[Any] = []
        (k, n), self.library, dnnl = b.shape, library, library.dnnl
        library.set_threads(library.threads)
        x, y, plain = (
            library.layout((m, k)),
            library.layout((m, n)),
            library.layout(b.shape, strides=[s // 4 for s in b.strides]),
        )
        free = library.layout(b.shape, free=True)
        product = library.description("matmul", x, free, None, y)
        if library.by_sgemm(product):
            raise RuntimeError("[oneDNN] there must be a kernel made for the shape")
        wanted = onednn.Handle(dnnl.dnnl_primitive_desc_query_md(product, onednn.QUERY[onednn.WEIGHTS], 0))
        self.buffer = np.empty(dnnl.dnnl_memory_desc_get_size(wanted) + onednn.ALIGNED, np.uint8)
        start = self.buffer.__array_interface__["data"][0]
        self.memories = [library.memory(layout) for layout in (plain, wanted, x, y)]
        given, packed, self.a, self.out = self.memories
        dnnl.dnnl_memory_set_data_handle(given, b.__array_interface__["data"][0])
        dnnl.dnnl_memory_set_data_handle(packed, start + -start % onednn.ALIGNED)
        engines = (plain, library.engine, wanted, library.engine, None)
        reorder = library.made(dnnl.dnnl_reorder_primitive_desc_create, *engines)
        self.primitives = [library.made(dnnl.dnnl_primitive_create, d) for d in (reorder, product)]
        pack = onednn.Step(library, self.primitives[0], {onednn.SRC: given, onednn.DST: packed})
        self.step = onednn.Step(
            library, self.primitives[1], {onednn.SRC: self.a, onednn.WEIGHTS: packed, onednn.DST: self.out}
        )
        self._execute(pack.call)
        for layout in (x, y, plain, free):
            dnnl.dnnl_memory_desc_destroy(layout)
        for description in (reorder, product):
            dnnl.dnnl_primitive_desc_destroy(description)

    def _execute(self, call: Any) -> None:
        if status := self.library.dnnl.dnnl_primitive_execute(*call):
            raise RuntimeError(f"[oneDNN] the product must run, came status {status}")

    def run(self, a: Any, out: Any) -> None:
        """out = a b, all contiguous."""
        library = self.library
        bind = library.dnnl.dnnl_memory_set_data_handle
        bind(self.a, a.__array_interface__["data"][0])
        bind(self.out, out.__array_interface__["data"][0])
        with library.lock:
            library.set_threads(library.threads)
            self._execute(self.step.call)

    def __del__(self) -> None:
        for memory in self.memories:
            self.library.dnnl.dnnl_memory_destroy(memory)
        for primitive in self.primitives:
            self.library.dnnl.dnnl_primitive_destroy(primitive)


def times(rows: Sequence[int], b: Any) -> Callable[[Any, Any], None]:
    """What multiplies matrices of so many rows by b: called with (a, out), contiguous ones of b's dtype."""
    same = len(rows) >= 8 and len(set(rows)) == 1
    large = same and min(rows[0], *b.shape) >= NARROW and rows[0] * b.size >= LEAST
    if large and b.dtype == F32 and _form(b) is not None and (found := onednn.load()) is not None:
        with contextlib.suppress(RuntimeError):
            return Packed(found, rows[0], b).run
    return lambda a, out: into(a, b, out)


def into(a: Any, b: Any, out: Any) -> None:
    """`product`, or NumPy's where that is faster or alone can. Shapes as for numpy.matmul."""
    if a.ndim != 2 or b.ndim != 2 or product(a, b, out) is None:
        np.matmul(a, b, out)


BODIES: dict[str, Callable[..., Any]] = {"product": product}
