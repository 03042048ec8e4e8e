"""Operations of ops from their shapes (a multiplication and an addition are two), and the machine's measured rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

Shapes = Sequence[tuple[int, ...]]


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
PAIRS = (
    "linear",
    "matmul",
    "conv",
    "conv_input",
)  # each wanted gradient of the two factors is one more product


def forward(name: str, inputs: Shapes, output: tuple[int, ...]) -> int:
    """Operations of a call; 0 for ops that are not counted."""
    count = COUNTS.get(name)
    return 0 if count is None else count(inputs, output)


def backward(name: str, operations: int, needs: Sequence[bool]) -> int:
    """Operations of the gradients of a call that took `operations`."""
    return operations * (sum(needs[:2]) if name in PAIRS else 2)


class Rates(NamedTuple):
    """What this machine does at best: operations a second in a float32 GEMM, bytes a second in a copy."""

    gemm: float
    copy: float

    def least(self, flops: float, moved: float) -> float:
        """Seconds that so many operations and bytes take at least (the roofline)."""
        return max(flops / self.gemm, moved / self.copy)


@cache
def rates() -> Rates:
    """Measured once in a process; a tenth of a second."""
    a = np.ones((768, 768), np.float32)
    out, big = np.empty_like(a), np.ones(1 << 23, np.float32)
    target = np.empty_like(big)
    gemm, copy = _best(lambda: np.matmul(a, a, out=out)), _best(lambda: np.copyto(target, big))
    return Rates(2 * 768**3 / gemm, 2 * big.nbytes / copy)


def _best(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])
