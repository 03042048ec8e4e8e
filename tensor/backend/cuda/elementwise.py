"""Elementwise kernels as bodies of ops: activations with their gradients, arithmetic of 16-bit floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....autograd.op import Variant, registry
from .kernel import THREADS, aligned, contiguous, flat_grid, launch, suffix

ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "relu")
ARITHMETIC = {"add": 0, "sub": 1, "mul": 2, "div": 3}
NUMBER_FIRST = {"add": 0, "sub": 4, "mul": 2}
# one CuPy function each, which computes 16-bit floats in float32 and rounds once
ONE_FUNCTION = [
    "neg",
    "abs",
    "sign",
    "sqrt",
    "exp",
    "log",
    "tanh",
    "sin",
    "cos",
    "floor",
    "ceil",
    "trunc",
    "maximum",
    "minimum",
]


def attach(cp: Any) -> None:
    """Attaches them."""
    for name in ACTIVATIONS:
        Variant(registry[name], cp, _floats, _activation(name), _slope(name))
    Variant(registry["sigmoid"], cp, _floats, _activation("sigmoid"))
    for name, code in ARITHMETIC.items():
        Variant(registry[name], cp, _arithmetic_fits(name), _arithmetic(name, code), half="weak")
    for name in ONE_FUNCTION:
        Variant(registry[name], cp, _sixteen_bits, registry[name].forward, half="weak")


def _floats(x: Any) -> bool:
    return suffix(x) is not None and contiguous(x) and x.size > 0


def _activation(name: str) -> Any:
    def forward(xp: Any, x: Any) -> Any:
        y = xp.empty(x.shape, x.dtype)
        grid = flat_grid(x.size, 16 // x.itemsize)
        args = (x, y, x.size, aligned(16, x, y))
        launch("elementwise.cu", f"{name}_{suffix(x)}", grid, THREADS, *args)
        return y

    return forward


def _slope(name: str) -> Any:
    def backward(xp: Any, g: Any, needs: Any, x: Any) -> list[Any]:
        g = xp.ascontiguousarray(g).astype(x.dtype, copy=False)
        dx = xp.empty(x.shape, x.dtype)
        grid = flat_grid(x.size, 16 // x.itemsize)
        args = (g, x, dx, x.size, aligned(16, g, x, dx))
        launch("elementwise.cu", f"{name}_gradient_{suffix(x)}", grid, THREADS, *args)
        return [dx]

    return backward


def _sixteen_bits(*arrays: Any) -> bool:
    """Whether there is a 16-bit array, and every other one is of its dtype or a number."""
    found = {a.dtype for a in arrays if not _number(a)}
    return (
        len(found) == 1
        and found.pop().itemsize == 2
        and suffix(next(a for a in arrays if not _number(a))) is not None
    )


def _number(a: Any) -> bool:
    return isinstance(a, np.ndarray | np.generic | int | float)


def _arithmetic_fits(name: str) -> Any:
    def fits(a: Any, b: Any) -> bool:
        if _number(a):
            return name in NUMBER_FIRST and not _number(b) and _plain(b)
        if _number(b):
            return _plain(a)
        return _plain(a) and a.dtype == b.dtype and contiguous(b) and _repeats(a.shape, b.shape)

    return fits


def _plain(a: Any) -> bool:
    """16-bit and in row-major order; float32 is as fast by CuPy's functions, which take 4 bytes an access."""
    return a.dtype.itemsize == 2 and suffix(a) is not None and contiguous(a) and a.size > 0


def _repeats(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether an array of shape `other` is repeated as a whole to fill `shape`."""
    return len(other) <= len(shape) and shape[len(shape) - len(other) :] == other


def _arithmetic(name: str, code: int) -> Any:
    def forward(xp: Any, a: Any, b: Any) -> Any:
        number, which, operation = 0.0, b, code
        if _number(a):
            a, number, which, operation = b, float(a), None, NUMBER_FIRST[name]
        elif _number(b):
            number, which = float(b), None
        y = xp.empty(a.shape, a.dtype)
        period = a.size if which is None else which.size
        whole = aligned(16, a, y) and (which is None or aligned(period, which))
        args = (a, which, y, a.size, period, number, np.int32(operation), whole)
        grid = flat_grid(a.size, 16 // a.itemsize)
        launch("elementwise.cu", f"combine_{suffix(a)}", grid, THREADS, *args)
        return y

    return forward
