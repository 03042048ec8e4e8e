"""Tensors on their way to a file and back: the only place here that knows the Tensor class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...autograd.engine import wrap
from ..tensor import Parameter, Tensor


class Leaf(NamedTuple):
    """An array inside a saved structure. `kind`: array (NumPy's own), tensor or parameter."""

    kind: str
    array: np.ndarray
    requires_grad: bool
    path: str


def to_array(obj: Any) -> tuple[str, np.ndarray, bool] | None:
    """Kind, array and requires_grad of a tensor or array; None for anything else."""
    if isinstance(obj, Tensor):
        kind = "parameter" if isinstance(obj, Parameter) else "tensor"
        return kind, np.asarray(obj.cpu().array if obj.is_cuda else obj.array), obj.requires_grad
    return ("array", obj, False) if type(obj) is np.ndarray else None


def from_array(kind: str, array: np.ndarray, requires_grad: bool) -> Any:
    """What `to_array` took apart. ValueError for an unknown kind, or gradients of integers."""
    if kind == "array":
        return array
    if kind not in ("tensor", "parameter"):
        raise ValueError(f"kind must be array, tensor or parameter, not {kind!r}")
    if requires_grad and array.dtype.kind in "biu":
        raise ValueError(f"a tensor of {array.dtype.name} cannot require grad")
    tensor = wrap(array)
    if kind == "parameter":
        return Parameter(tensor, requires_grad)
    return tensor.requires_grad_() if requires_grad else tensor
