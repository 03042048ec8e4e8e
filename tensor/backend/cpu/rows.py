"""Activations and softmax by oneDNN, on float32 arrays large enough that its call pays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from . import library as onednn
from .library import DIFF_DST, DIFF_SRC, DST, FORWARD, SRC, Primitive

F32 = np.dtype("float32")
GELU, SOFTMAX = 0x31, 0x30000
LEAST = 4096  # elements: below, NumPy's own calls are as fast
KEPT = 256  # primitives


def _fits(x: Any) -> bool:
    """Of float32, large enough and finite: the library loses NaN. A product with itself is the cheapest such test."""
    if x.dtype != F32 or x.size < LEAST:
        return False
    flat = x.reshape(-1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)))


@lru_cache(maxsize=KEPT)
def _gelu_primitive(size: int, backward: bool, threads: int) -> Primitive:
    lib = onednn.load()
    assert lib is not None
    lib.set_threads(threads)
    shape, none = (size,), ctypes.c_float(0)
    plain = lib.layout(shape)
    forward = lib.description("eltwise_forward", FORWARD, GELU, plain, plain, none, none)
    if not backward:
        return Primitive(lib, forward, {SRC: plain, DST: plain}, DST)
    description = lib.description("eltwise_backward", GELU, plain, plain, plain, none, none, forward)
    return Primitive(lib, description, {DIFF_DST: plain, SRC: plain, DIFF_SRC: plain}, DIFF_SRC)


def _gelu_run(backward: bool, *arrays: Any) -> Any:
    lib = onednn.load()
    assert lib is not None
    x = arrays[-1]
    primitive = _gelu_primitive(x.size, backward, lib.threads)
    return primitive.run(*[np.ascontiguousarray(a) for a in arrays], np.empty(x.shape, F32))


def gelu(x: Any) -> Any:
    """x Phi(x); None where another body must compute it."""
    return _gelu_run(False, x) if _fits(x) else None


def gelu_backward(g: Any, x: Any) -> Any:
    """g (Phi(x) + x phi(x)); None where another body must compute it."""
    return _gelu_run(True, g, x) if _fits(x) and g.dtype == F32 else None


@lru_cache(maxsize=KEPT)
def _softmax_primitive(shape: tuple[int, ...], threads: int) -> Primitive:
    lib = onednn.load()
    assert lib is not None
    lib.set_threads(threads)
    plain = lib.layout(shape)
    description = lib.description("softmax_forward", FORWARD, SOFTMAX, plain, plain, 1)
    return Primitive(lib, description, {SRC: plain, DST: plain}, DST)


def softmax_rows(x: Any, out: Any) -> Any:
    """Of the rows of a contiguous matrix, into `out`; None where another body must compute it."""
    if not x.flags.c_contiguous or not out.flags.c_contiguous or not _fits(x):
        return None
    lib = onednn.load()
    assert lib is not None
    return _softmax_primitive(x.shape, lib.threads).run(x, out)


BODIES: dict[str, Callable[..., Any]] = {
    "gelu": gelu,
    "gelu_backward": gelu_backward,
    "softmax_rows": softmax_rows,
}
