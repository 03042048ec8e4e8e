"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...autograd.engine import Variable
from ...tensor import functions


def parameters_to_vector(parameters: Iterable[Any]) -> Any:
    """The elements of all parameters in a row (recorded)."""
    return functions.cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Any, parameters: Iterable[Any]) -> None:
    """Lets the parameters be parts of the vector, in order."""
    if not isinstance(vec, Variable):
        raise TypeError(f"[vector_to_parameters] expected a Tensor, but got {type(vec).__name__}")
    held = list(parameters)
    wanted = sum(p.array.size for p in held)
    if wanted > vec.array.size:
        raise RuntimeError(
            f"[vector_to_parameters] the vector must have the parameters' {wanted} elements, came {vec.array.size}"
        )
    start = 0
    for p in held:
        part = vec.array[start : start + p.array.size].reshape(p.array.shape)
        p.array, p._version = part, [0, None]
        start += part.size
