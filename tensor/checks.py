"""What the arguments of a function must be: tensors, of one dtype, of a kind that PyTorch computes."""

from __future__ import annotations

from typing import Any

from ..autograd.engine import Variable
from ..autograd.op import describe


def tensors(name: str, *values: Any) -> None:
    """TypeError unless all are Tensors."""
    for value in values:
        if not isinstance(value, Variable):
            raise TypeError(
                f"[{name}] must be called with Tensors, came {type(value).__name__} {value!r}"[:200]
            )


def one_dtype(name: str, *values: Any) -> None:
    """RuntimeError where tensors among the values have different dtypes, which PyTorch does not promote there."""
    dtype = None
    for value in values:
        if isinstance(value, Variable):
            if dtype is None:
                dtype = value.array.dtype
            elif value.array.dtype is not dtype and value.array.dtype != dtype:
                came = ", ".join(describe(v) for v in values if isinstance(v, Variable))
                raise RuntimeError(f"[{name}] all tensors must have one dtype, came {came}: cast with .to()")


def refuse(name: str, kinds: str, *values: Any) -> None:
    """NotImplementedError for tensors of these kinds: b bool, i and u integers, c complex."""
    for value in values:
        if isinstance(value, Variable) and value.array.dtype.kind in kinds:
            raise NotImplementedError(
                f"[{name}] is not implemented for {value.array.dtype.name}, came {describe(value)}: cast it first"
            )


__all__ = ["one_dtype", "refuse", "tensors"]
