"""What distributions share: broadcasting of parameters, probabilities and logits, values computed when first asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import enable_grad
from ..autograd.engine import Variable, wrap
from ..autograd.op import tensor_namespace as ops
from ..tensor import Tensor, creation, random
from ..tensor.generator import default_generator
from ..tensor.ops import special as _special  # noqa: F401  (declares lgamma, digamma, erfinv)

EULER = 0.57721566490153286060  # the Euler-Mascheroni constant
LOG_2PI = math.log(2 * math.pi)


def broadcast_all(*values: Any) -> tuple[Any, ...]:
    """Numbers and tensors as tensors of one shape; numbers take the dtype of the tensors among them."""
    for v in values:
        if not isinstance(v, Variable | bool | int | float):
            raise ValueError(
                f"[broadcast_all] parameters must be Tensors or numbers, came {type(v).__name__}"
            )
    like = next((v for v in values if isinstance(v, Variable)), None)
    dtype = None if like is None else like.dtype
    tensors = [v if isinstance(v, Variable) else creation.full((), float(v), dtype=dtype) for v in values]
    shape = np.broadcast_shapes(*[t.array.shape for t in tensors])
    return tuple(t.expand(shape) for t in tensors)


def standard_normal(shape: Sequence[int], like: Any) -> Any:
    """Normal numbers of mean 0 and variance 1 in the dtype of a tensor."""
    return random.randn(tuple(shape), dtype=like.dtype, device=like.device)


def standard_uniform(shape: Sequence[int], like: Any) -> Any:
    """Uniform numbers in [0, 1) in the dtype of a tensor."""
    return random.rand(tuple(shape), dtype=like.dtype, device=like.device)


def finfo(t: Any) -> Any:
    """The limits of a tensor's floating type."""
    import ml_dtypes

    return ml_dtypes.finfo(t.array.dtype)


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities moved into [eps, 1 - eps], so that their logarithms are finite."""
    eps = float(finfo(probs).eps)
    return probs.clamp(min=eps, max=1 - eps)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities from log-odds (binary), or from unnormalised log-probabilities of the last dimension."""
    return logits.sigmoid() if is_binary else logits.softmax(dim=-1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Log-odds (binary) or log-probabilities from probabilities."""
    probs = clamp_probs(probs)
    return probs.log() - (-probs).log1p() if is_binary else probs.log()


def one_of(name: str, **given: Any) -> str:
    """Which of two parameters was given; ValueError unless it is exactly one."""
    found = [key for key, value in given.items() if value is not None]
    if len(found) != 1:
        raise ValueError(
            f"[{name}] exactly one of {' and '.join(given)} must be given, came {found or 'neither'}"
        )
    return found[0]


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """The sum over the last `dims` dimensions."""
    return value if dims == 0 else value.reshape(*value.shape[: value.ndim - dims], -1).sum(-1)


def xlogy(x: Any, y: Any) -> Any:
    """x log(y), and 0 where x is 0 and the logarithm is not finite."""
    zero = (x == 0) & (y <= 0)
    return ops.where(zero, x * 0, x * ops.where(zero, y * 0 + 1, y).log())


def from_doubles(draw: Callable[..., float], *parameters: Any) -> Any:
    """A tensor whose elements are drawn one after another, `draw(generator, parameter, ...)` each."""
    arrays = np.broadcast_arrays(*[p.array for p in parameters])
    rows = zip(*[a.ravel().astype(np.float64).tolist() for a in arrays])
    drawn = np.array([draw(default_generator, *row) for row in rows], np.float64)
    return wrap(drawn.reshape(arrays[0].shape))


class lazy_property:
    """A value computed when it is first asked for, always recorded, and kept."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = instance.__dict__[self.name] = self.compute(instance)
        return value
