"""Filling tensors with initial values. With the same seed the numbers are PyTorch's.

All functions write in place, unrecorded, and return the tensor.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..tensor.generator import Generator, default_generator

_LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks its input's spread; `param` is the slope of leaky_relu."""
    if nonlinearity in _LINEAR or nonlinearity == "sigmoid":
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, int | float)):
            raise ValueError(f"[calculate_gain] the slope of leaky_relu must be a number, came {param!r}")
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(
        f"[calculate_gain] must be one of {', '.join(_LINEAR)}, sigmoid, tanh, relu, leaky_relu, selu,"
        f" came {nonlinearity!r}"
    )


def uniform_(tensor: Any, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Any:
    """Uniform numbers in [a, b)."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Any, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Any:
    """Normal numbers."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def trunc_normal_(
    tensor: Any,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Any:
    """Normal numbers drawn again until they lie in [a, b], which are values, not multiples of std."""
    from ..tensor.generator_sampling import trunc_normal

    source = default_generator if generator is None else generator
    with no_grad():
        drawn = trunc_normal(source, tensor.array.shape, mean, std, a, b, tensor.array.dtype)
        return tensor.set_content("trunc_normal_", drawn)


def constant_(tensor: Any, val: float) -> Any:
    """One value everywhere."""
    with no_grad():
        return tensor.fill_(val)


def ones_(tensor: Any) -> Any:
    """Ones."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Any) -> Any:
    """Zeros."""
    return constant_(tensor, 0.0)


def eye_(tensor: Any) -> Any:
    """The identity matrix."""
    if tensor.ndim != 2:
        raise ValueError(f"[eye_] the tensor must have 2 dimensions, came shape {list(tensor.shape)}")
    return _content("eye_", tensor, np.eye(*tensor.array.shape, dtype=tensor.array.dtype))


def dirac_(tensor: Any, groups: int = 1) -> Any:
    """A convolution's weight that lets as many channels as possible pass unchanged; for each of `groups`."""
    shape = tensor.array.shape
    if len(shape) not in (3, 4, 5):
        raise ValueError(f"[dirac_] the tensor must have 3, 4 or 5 dimensions, came shape {list(shape)}")
    if shape[0] % groups:
        raise ValueError(
            f"[dirac_] groups must divide the first dimension, came {groups} and shape {list(shape)}"
        )
    array = np.zeros(shape, tensor.array.dtype)
    per_group = shape[0] // groups
    centre = tuple(n // 2 for n in shape[2:])
    for group in range(groups):
        for i in range(min(per_group, shape[1])):
            array[(group * per_group + i, i, *centre)] = 1
    return _content("dirac_", tensor, array)


def _content(name: str, tensor: Any, array: Any) -> Any:
    with no_grad():
        return tensor.set_content(name, array)


def _calculate_fan_in_and_fan_out(tensor: Any) -> tuple[int, int]:
    shape = tensor.array.shape
    if len(shape) < 2:
        raise ValueError(
            f"[fan] fan in and fan out are defined from 2 dimensions on, came shape {list(shape)}"
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _calculate_correct_fan(tensor: Any, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"[kaiming] mode must be 'fan_in' or 'fan_out', came {mode!r}")
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return fan_in if mode == "fan_in" else fan_out


def xavier_uniform_(tensor: Any, gain: float = 1.0, generator: Generator | None = None) -> Any:
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    std = gain * math.sqrt(2.0 / float(sum(_calculate_fan_in_and_fan_out(tensor))))
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Any, gain: float = 1.0, generator: Generator | None = None) -> Any:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    std = gain * math.sqrt(2.0 / float(sum(_calculate_fan_in_and_fan_out(tensor))))
    return normal_(tensor, 0.0, std, generator)


def kaiming_uniform_(
    tensor: Any,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Any:
    """Uniform in +-gain * sqrt(3 / fan) (He et al. 2015); `a` is the slope of leaky_relu."""
    if 0 in tensor.array.shape:
        warnings.warn("[kaiming_uniform_] a tensor without elements stays as it is", stacklevel=2)
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Any,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Any:
    """Normal with std gain / sqrt(fan) (He et al. 2015); `a` is the slope of leaky_relu."""
    if 0 in tensor.array.shape:
        warnings.warn("[kaiming_normal_] a tensor without elements stays as it is", stacklevel=2)
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))
    return normal_(tensor, 0.0, std, generator)


def orthogonal_(tensor: Any, gain: float = 1, generator: Generator | None = None) -> Any:
    """`gain` times a (semi-)orthogonal matrix (Saxe et al. 2013); dimensions after the first are flattened."""
    shape = tensor.array.shape
    if len(shape) < 2:
        raise ValueError(
            f"[orthogonal_] the tensor must have at least 2 dimensions, came shape {list(shape)}"
        )
    if 0 in shape:
        return tensor
    source = default_generator if generator is None else generator
    drawn = source.normal((shape[0], math.prod(shape[1:])), dtype=tensor.array.dtype)
    wide = drawn.shape[0] < drawn.shape[1]
    q, r = np.linalg.qr(drawn.T if wide else drawn)
    q *= np.sign(np.diagonal(r))  # makes the distribution uniform (Mezzadri 2006, arXiv:math-ph/0609050)
    return _content(
        "orthogonal_", tensor, ((q.T if wide else q) * gain).reshape(shape).astype(tensor.array.dtype)
    )


def sparse_(tensor: Any, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Any:
    """A matrix of normal numbers with a fraction `sparsity` of each column set to zero (Martens 2010)."""
    shape = tensor.array.shape
    if len(shape) != 2:
        raise ValueError(f"[sparse_] the tensor must have 2 dimensions, came shape {list(shape)}")
    source = default_generator if generator is None else generator
    array = source.normal(shape, 0.0, std, dtype=tensor.array.dtype)
    zeros = math.ceil(sparsity * shape[0])
    for column in range(shape[1]):
        array[default_generator.randperm(shape[0])[:zeros], column] = 0
    return _content("sparse_", tensor, array)


def _legacy(new: Callable[..., Any]) -> Callable[..., Any]:
    """The name from before PyTorch 0.4, without the underscore."""

    def old(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"[init] {new.__name__[:-1]} is deprecated: use {new.__name__}", FutureWarning, stacklevel=2
        )
        return new(*args, **kwargs)

    old.__name__, old.__doc__ = new.__name__[:-1], f"The older name of {new.__name__}."
    return old


uniform, normal, constant, eye, dirac, sparse, orthogonal = (
    _legacy(new) for new in (uniform_, normal_, constant_, eye_, dirac_, sparse_, orthogonal_)
)
xavier_uniform, xavier_normal = _legacy(xavier_uniform_), _legacy(xavier_normal_)
kaiming_uniform, kaiming_normal = _legacy(kaiming_uniform_), _legacy(kaiming_normal_)
