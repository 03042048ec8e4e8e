"""Floating-point operations of a forward, counted as it runs: a multiplication and an addition are two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..autograd.op import Op, listeners
from ..autograd.profiler.flops import COUNTS


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
