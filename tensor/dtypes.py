"""Dtypes under PyTorch's names, and PyTorch's rules of type promotion."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..autograd.op import low_floats

# The name of the library in what is printed: "torch" for scripts that import it under that name.
library = ["ringgrad"]


class dtype:
    """An element type: `float32.itemsize`, `float32.is_floating_point`. NumPy takes it wherever it takes a dtype."""

    __slots__ = ("_numpy", "is_complex", "is_floating_point", "itemsize", "name")

    def __init__(self, name: str, itemsize: int, kind: str, numpy: np.dtype[Any] | None) -> None:
        self.name, self.itemsize = name, itemsize
        self.is_floating_point, self.is_complex = kind == "f", kind == "c"
        self._numpy = numpy

    @property
    def numpy(self) -> np.dtype[Any]:
        if self._numpy is None:  # bfloat16 and the float8s: ml_dtypes is loaded when first used
            import ml_dtypes

            self._numpy = np.dtype(getattr(ml_dtypes, self.name))
            by_numpy[self._numpy] = self
            if self.itemsize == 2:
                low_floats.add(self._numpy)
        return self._numpy

    @property
    def is_signed(self) -> bool:
        return self.name not in ("uint8", "uint16", "uint32", "uint64", "bool")

    def to_complex(self) -> Any:
        return {"float64": complex128, "complex128": complex128}.get(self.name, complex64)

    def to_real(self) -> Any:
        return {"complex128": float64, "complex64": float32}.get(self.name, self)

    def __repr__(self) -> str:
        return f"{library[0]}.{self.name}"

    def __reduce__(self) -> str:
        return self.name

    dtype = numpy  # NumPy's protocol: np.dtype(ringgrad.float32)


def _native(name: str) -> dtype:
    n = np.dtype(name)
    return dtype(name, n.itemsize, n.kind, n)


float16, float32, float64 = _native("float16"), _native("float32"), _native("float64")
complex64, complex128 = _native("complex64"), _native("complex128")
uint8, uint16, uint32, uint64 = _native("uint8"), _native("uint16"), _native("uint32"), _native("uint64")
int8, int16, int32, int64 = _native("int8"), _native("int16"), _native("int32"), _native("int64")
bool_ = _native("bool")
bfloat16 = dtype("bfloat16", 2, "f", None)
float8_e4m3fn = dtype("float8_e4m3fn", 1, "f", None)
float8_e5m2 = dtype("float8_e5m2", 1, "f", None)

half, float_, double, cfloat, cdouble = float16, float32, float64, complex64, complex128
short, int_, long = int16, int32, int64

by_numpy: dict[np.dtype[Any], dtype] = {
    d.numpy: d
    for d in (float16, float32, float64, complex64, complex128, uint8, uint16, uint32, uint64, int8, int16)
    + (int32, int64, bool_)
}

F32, F64, I64, BOOL = np.dtype("float32"), np.dtype("float64"), np.dtype("int64"), np.dtype("bool")
PYTHON = {bool: BOOL, int: I64, float: F32, complex: np.dtype("complex64")}


def of_numpy(n: np.dtype[Any]) -> dtype:
    """Our dtype for NumPy's."""
    found = by_numpy.get(n)
    if found is None:
        if n.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            found = {"bfloat16": bfloat16, "float8_e4m3fn": float8_e4m3fn, "float8_e5m2": float8_e5m2}[n.name]
            _ = found.numpy
        elif n.newbyteorder("=") in by_numpy:
            found = by_numpy[n.newbyteorder("=")]
        else:
            raise TypeError(
                f"[dtype] must be bool, an integer, float or complex type, came NumPy's {n};"
                " object and string arrays cannot be tensors"
            )
    return found


def to_numpy(d: Any) -> np.dtype[Any]:
    """NumPy's dtype for ours; Python's bool, int, float and NumPy's own are taken too."""
    if type(d) is dtype:
        return d.numpy
    if type(d) is type and d in PYTHON:
        return {bool: BOOL, int: I64, float: F64, complex: np.dtype("complex128")}[d]
    if isinstance(d, str | np.dtype) or (isinstance(d, type) and issubclass(d, np.generic)):
        return of_numpy(np.dtype(d)).numpy
    raise TypeError(f"[dtype] must be a ringgrad dtype such as ringgrad.float32, came {d!r}")


_default = float32


def get_default_dtype() -> dtype:
    """The dtype of tensors made from Python floats."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Sets the dtype of tensors made from Python floats; a floating one."""
    global _default
    if not isinstance(d, dtype) or not d.is_floating_point:
        raise TypeError(f"[set_default_dtype] must be a floating dtype, came {d!r}")
    _default = d


def default_float() -> np.dtype[Any]:
    return _default.numpy


def category(n: np.dtype[Any]) -> int:
    """bool < integer < floating < complex: what decides in promotion."""
    kind = n.kind
    return 0 if kind == "b" else 1 if kind in "iu" else 3 if kind == "c" else 2


@cache
def promote_types(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """PyTorch's table for two tensors of the same standing (NumPy's differs where a float meets an integer)."""
    if a == b:
        return a
    ca, cb = category(a), category(b)
    if ca != cb:
        high, low = (a, b) if ca > cb else (b, a)
        if category(high) == 3 and category(low) == 2 and low.itemsize * 2 > high.itemsize:
            return np.dtype("complex128")
        return high
    if ca == 2 and a.itemsize == 2 and b.itemsize == 2:
        return F32  # float16 with bfloat16
    if ca == 2 and "V" in (a.kind, b.kind):
        return a if a.itemsize >= b.itemsize else b
    if ca == 1 and "uint64" in (a.name, b.name):
        raise TypeError(f"[promotion] {a.name} and {b.name} have no common type: cast one of them first")
    return np.promote_types(a, b)


def result_type(values: Any) -> np.dtype[Any]:
    """The common dtype of arrays and Python numbers.

    PyTorch's rule: tensors with dimensions decide; a 0-d tensor, and below it a Python number, only raises the
    category (integer to floating, say), not the width.
    """
    found: list[np.dtype[Any] | None] = [None, None, None]  # with dimensions, 0-d, Python numbers
    for v in values:
        if type(v) in PYTHON or isinstance(v, bool | int | float | complex):
            kind: Any = bool if isinstance(v, bool) else int if isinstance(v, int) else float
            kind = complex if isinstance(v, complex) else kind
            n, place = (default_float() if kind is float else PYTHON[kind]), 2
        else:
            n, place = v.dtype, (0 if v.ndim else 1)
        held = found[place]
        found[place] = n if held is None else promote_types(held, n)
    best: np.dtype[Any] | None = None
    for n_ in found:
        if n_ is not None and (best is None or category(n_) > category(best)):
            if best is not None and category(n_) == 3:
                n_ = np.dtype("complex128") if best == F64 else n_
            best = n_
    assert best is not None
    return best
