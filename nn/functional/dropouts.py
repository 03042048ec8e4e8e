"""Dropout, with the numbers that PyTorch draws."""

from __future__ import annotations

import math
import warnings

from ...autograd.engine import wrap
from ...autograd.inplace import apply_inplace
from ...tensor import Tensor
from ...tensor.ops import dropout as draws
from ...tensor.ops import pointwise
from ...tensor.random import default_generator


def _probability(name: str, p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"[{name}] the probability p must be in [0, 1], came {p}")


def _scaled(input: Tensor, p: float, shape: tuple[int, ...] | None, inplace: bool) -> Tensor:
    """Noise of the given shape; by default of the input's, in the order of its memory."""
    if p == 1:
        return apply_inplace(pointwise.mul, input, 0) if inplace else input * 0
    if input.is_cuda:
        return _on_gpu(input, p, shape, inplace)
    drawn, placed = draws.in_memory_order(input.array) if shape is None else (shape, draws.as_drawn)
    noise = wrap(placed(draws.dropout_noise(drawn, p, input.array.dtype)))
    return apply_inplace(pointwise.mul, input, noise) if inplace else input * noise


def _on_gpu(input: Tensor, p: float, shape: tuple[int, ...] | None, inplace: bool) -> Tensor:
    """Drawn on the GPU, by counting (tensor/philox.py): no noise is stored, the gradient draws it again."""
    draw = default_generator(input).next_draw()
    if shape is None:
        act = draws.counted_dropout
        return apply_inplace(act, input, p=p, draw=draw) if inplace else act(input, p=p, draw=draw)
    noise = draws.counted_dropout(input.new_ones(shape), p=p, draw=draw)
    return apply_inplace(pointwise.mul, input, noise) if inplace else input * noise


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeros elements with probability p and scales the others by 1 / (1 - p)."""
    _probability("dropout", p)
    if not training or p == 0 or not input.array.size:
        return input
    return _scaled(input, p, None, inplace)


def _channels(name: str, input: Tensor, p: float, training: bool, inplace: bool, ndim: int) -> Tensor:
    """Whole channels of (N, C, ...), or of (C, ...) where the batch is missing."""
    _probability(name, p)
    batched = input.ndim == ndim
    if not training or p == 0 or not input.array.size:
        return input
    shape = input.array.shape if batched else (1, *input.array.shape)
    shape = draws.channel_shape(shape)
    return _scaled(input, p, shape if batched else shape[1:], inplace)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeros whole channels of (N, C, L) or (C, L)."""
    if input.ndim not in (2, 3):
        raise RuntimeError(f"[dropout1d] the input must have 2 or 3 dimensions, came {list(input.shape)}")
    return _channels("dropout1d", input, p, training, inplace, 3)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeros whole channels of (N, C, H, W); of (N, C, L) too, as PyTorch does, with its warning."""
    if input.ndim not in (3, 4):
        warnings.warn(
            f"[dropout2d] the input should have 3 or 4 dimensions, came {list(input.shape)}", stacklevel=2
        )
    return _channels("dropout2d", input, p, training, inplace, input.ndim)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeros whole channels of (N, C, D, H, W)."""
    if input.ndim not in (4, 5):
        warnings.warn(
            f"[dropout3d] the input should have 4 or 5 dimensions, came {list(input.shape)}", stacklevel=2
        )
    return _channels("dropout3d", input, p, training, inplace, 5)


_ALPHA = 1.7580993408473766  # selu's limit at minus infinity, without the sign


def _alpha(input: Tensor, p: float, shape: tuple[int, ...] | None, inplace: bool) -> Tensor:
    """Dropped elements go to selu's negative limit, then mean and variance are restored (arXiv:1706.02515)."""
    if p == 1:
        return apply_inplace(pointwise.mul, input, 0) if inplace else input * 0
    if input.is_cuda:
        return _on_gpu(input, p, shape, inplace)
    dtype = input.array.dtype
    drawn, placed = draws.in_memory_order(input.array) if shape is None else (shape, draws.as_drawn)
    kept = placed(draws.generator.default_generator.bernoulli(1.0 - p, drawn, dtype))
    a = 1.0 / math.sqrt((_ALPHA * _ALPHA * p + 1) * (1 - p))
    shift = (kept - 1) * dtype.type(_ALPHA * a)
    shift += dtype.type(_ALPHA * a * p)
    noise = wrap(kept * dtype.type(a))
    if inplace:
        return apply_inplace(pointwise.add, apply_inplace(pointwise.mul, input, noise), wrap(shift))
    return input * noise + wrap(shift)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout for selu: keeps mean 0 and variance 1."""
    _probability("alpha_dropout", p)
    if not training or p == 0 or not input.array.size:
        return input
    return _alpha(input, p, None, inplace)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """alpha_dropout of whole channels."""
    _probability("feature_alpha_dropout", p)
    if not training or p == 0 or not input.array.size:
        return input
    return _alpha(input, p, draws.channel_shape(input.array.shape), inplace)
