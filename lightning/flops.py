"""Floating-point operations of a forward, counted as it runs: a multiplication and an addition are two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from ..autograd.op import Op, listeners

Shapes = list[tuple[int, ...]]


def _attention(x: Shapes, y: tuple[int, ...]) -> int:
    return 2 * prod(x[0][:-1]) * x[1][-2] * (x[0][-1] + x[2][-1])


# From the shapes of the inputs and of the output. What these leave out (sums, activations) is little beside them.
COUNTS: dict[str, Callable[[Shapes, tuple[int, ...]], int]] = {
    "linear": lambda x, y: 2 * prod(y) * x[0][-1],
    "matmul": lambda x, y: 2 * prod(y) * x[0][-1],
    "conv": lambda x, y: 2 * prod(y) * prod(x[1][1:]),
    "conv_input": lambda x, y: 2 * prod(x[0]) * prod(x[1][1:]),
    "scaled_dot_product_attention": _attention,
    "lstm_sequence": lambda x, y: 2 * x[0][0] * (prod(x[3]) + prod(x[4])),
    "gru_sequence": lambda x, y: 2 * x[0][0] * (prod(x[2]) + prod(x[3])),
}


class Counter:
    """`total`: what has been counted so far."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, op: Op, inputs: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        count = COUNTS.get(op.name)
        if count is not None:
            y = output[0] if isinstance(output, tuple | list) else output
            self.total += count([tuple(x.shape) for x in inputs if hasattr(x, "shape")], tuple(y.shape))


@contextmanager
def counting() -> Iterator[Counter]:
    """Within it the operations of every op are counted."""
    counter = Counter()
    listeners.append(counter)
    try:
        yield counter
    finally:
        listeners.remove(counter)
