"""Clipping gradients by their norm or their size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from types import GeneratorType
from typing import Any

import numpy as np

from ...autograd.engine import ArrayFunction, Variable, array_namespace, wrap


def _tensors(who: str, parameters: Any) -> list[Any]:
    if isinstance(parameters, Variable):
        return [parameters]
    found = list(parameters)
    if not found and isinstance(parameters, GeneratorType):
        warnings.warn(
            f"[{who}] the generator of parameters must not be used up before, came an empty one:"
            " no gradient clipping will occur",
            stacklevel=3,
        )
    return found


def _gradients(who: str, parameters: Any) -> list[Any]:
    return [p._grad for p in _tensors(who, parameters) if p._grad is not None]


def _flat(array: Any) -> Any:
    """All elements in a row, of a type to be computed in; a view wherever that is possible."""
    flat = array.ravel(order="K") if isinstance(array, np.ndarray) else array.reshape(-1)
    return flat.astype(np.float32) if flat.dtype.itemsize == 2 else flat


def _total_norm(arrays: list[Any], p: float) -> float:
    if p == 2:
        return math.sqrt(sum(float(array_namespace[type(a)].vdot(f := _flat(a), f).real) for a in arrays))
    flats = [abs(_flat(a)) for a in arrays if a.size]
    if p == math.inf:
        return float(np.max([float(f.max()) for f in flats], initial=0.0))  # NaN wins
    return sum(float((f**p).sum(dtype=np.float64)) for f in flats) ** (1.0 / p)


def get_total_norm(
    tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Any:
    """The norm of all elements of all tensors together, as a tensor with one element.

    norm_type: the order, "inf" for the largest size. foreach: PyTorch's choice of implementation, without effect.
    """
    held = _tensors("get_total_norm", tensors)
    if held and float(norm_type) == 2 and held[0].is_cuda and not error_if_nonfinite and _one_kind(held):
        return _on_gpu(held, math.inf)
    return wrap(_checked_norm([t.array for t in held], float(norm_type), error_if_nonfinite))


@ArrayFunction
def _checked_norm(arrays: list[Any], p: float, error_if_nonfinite: bool) -> Any:
    total = _total_norm(arrays, p)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(
            f"[clip_grad_norm_] the total norm of order {p} of the gradients must be finite, came {total}: it is"
            " non-finite, so it cannot be clipped. To disable this error and scale the gradients by the non-finite"
            " norm anyway, set `error_if_nonfinite=False`"
        )
    return np.asarray(total, arrays[0].dtype if arrays else np.float32)


def clip_grad_norm_(
    parameters: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:
    """Scales all gradients in place so that their norm together is at most `max_norm`; returns the norm before.

    error_if_nonfinite: raises RuntimeError where the norm is NaN or infinite.
    """
    gradients = _gradients("clip_grad_norm_", parameters)
    if (
        gradients
        and norm_type == 2
        and gradients[0].is_cuda
        and not error_if_nonfinite
        and _one_kind(gradients)
    ):
        return _on_gpu(gradients, max_norm)
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    _scale(gradients, max_norm, total)
    return total


def _one_kind(tensors: list[Any]) -> bool:
    """Whether the norm's kernel takes these tensors."""
    from ...tensor.backend.cuda import kernel

    arrays = [t.array for t in tensors]
    return kernel.suffix(*arrays) is not None and kernel.contiguous(*arrays) and all(a.size for a in arrays)


def _on_gpu(tensors: list[Any], most: float) -> Any:
    """The norm, and the clipping, without the host waiting for it."""
    from ...tensor.backend.cuda import pieces

    norm = pieces.clip([t.array for t in tensors], most)
    for t in tensors if most != math.inf else ():
        t._version[0] += 1
    return wrap(norm.astype(tensors[0].array.dtype, copy=False))


def clip_grads_with_norm_(
    parameters: Any, max_norm: float, total_norm: Any, foreach: bool | None = None
) -> None:
    """Scales all gradients in place by max_norm / total_norm where that is below 1."""
    _scale(_gradients("clip_grads_with_norm_", parameters), max_norm, total_norm)


def _scale(gradients: list[Any], max_norm: float, total_norm: Any) -> None:
    total = total_norm.array if isinstance(total_norm, Variable) else np.float32(total_norm)
    if gradients and gradients[0].is_cuda and isinstance(total_norm, Variable):
        total = total_norm.cpu().array
    _shrink([g.array for g in gradients], float(max_norm), total)
    for g in gradients:
        g._version[0] += 1


def _shrink_by_norm(arrays: list[Any], max_norm: float, total: Any) -> None:
    factor = max_norm / (total + total.dtype.type(1e-6))
    if not factor >= 1:  # NaN too
        for array in arrays:
            array *= array.dtype.type(factor)


def _clip_values(arrays: list[Any], bound: float) -> None:
    for array in arrays:
        array_namespace[type(array)].clip(array, -bound, bound, out=array)


_shrink = ArrayFunction(_shrink_by_norm, writes=(0,))
_clip = ArrayFunction(_clip_values, writes=(0,))


def clip_grad_value_(parameters: Any, clip_value: float, foreach: bool | None = None) -> None:
    """Moves every element of the gradients into [-clip_value, clip_value], in place."""
    gradients = _gradients("clip_grad_value_", parameters)
    _clip([g.array for g in gradients], float(clip_value))
    for g in gradients:
        g._version[0] += 1


def clip_grad_norm(
    parameters: Iterable[Any], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Any:
    """The older name of clip_grad_norm_."""
    warnings.warn("[clip_grad_norm] is deprecated: use clip_grad_norm_", FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite)
