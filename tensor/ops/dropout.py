"""What dropout multiplies with, drawn as PyTorch draws it; on GPUs an op that draws by counting instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...autograd.engine import ArrayFunction
from ...autograd.op import Op
from .. import generator, philox


@ArrayFunction
def dropout_noise(shape: tuple[int, ...], p: float, dtype: Any) -> Any:
    """1 / (1 - p) with probability 1 - p, else 0. Nothing is drawn where p is 0 or 1."""
    noise = generator.default_generator.bernoulli(1.0 - p, shape, dtype)
    noise /= dtype.type(1.0 - p)
    return noise


def as_drawn(numbers: Any) -> Any:
    return numbers


def in_memory_order(array: Any) -> tuple[tuple[int, ...], Callable[[Any], Any]]:
    """The array's shape as its elements lie in memory, and what gives a drawn array of that shape the array's own.

    PyTorch draws for a transposed tensor in the order of its memory (empty_like keeps the strides). `as_drawn` where
    that is the order of the indices.
    """
    if array.flags.c_contiguous or 0 in array.strides:
        return array.shape, as_drawn
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    if order == list(range(array.ndim)):
        return array.shape, as_drawn
    back = sorted(range(array.ndim), key=order.__getitem__)
    return tuple(array.shape[axis] for axis in order), lambda drawn: drawn.transpose(back)


def channel_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one number for each channel of each sample."""
    return (*shape[:2], *(1 for _ in shape[2:]))


def _counted_dropout(xp: Any, x: Any, *, p: float, draw: philox.Draw) -> Any:
    keep = xp.asarray(philox.kept(x.size, p, draw).reshape(x.shape))
    return x * keep * x.dtype.type(1 / (1 - p))


counted_dropout = Op(
    "counted_dropout",
    _counted_dropout,
    [lambda ops, g, p, draw: ops.counted_dropout(g, p=p, draw=draw)],
)
