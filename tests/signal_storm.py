"""Compiled bodies while signals arrive: each result must be the same to the bit. `signal_storm.py SECONDS`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import ringgrad as rg

F = rg.nn.functional
PERIOD = 2e-4  # s
rng = np.random.default_rng(0)


def drawn(*shape: int) -> Any:
    return rg.tensor(rng.standard_normal(shape, np.float32)).requires_grad_()


def step(f: Callable[..., Any], *inputs: Any, leaves: Any = None) -> Callable[[], list[Any]]:
    """f's result and the gradients of its inputs."""
    leaves = inputs if leaves is None else leaves

    def run() -> list[Any]:
        for leaf in leaves:
            leaf.grad = None
        y = f(*inputs)
        y.backward(rg.ones_like(y))
        return [t.float().detach().numpy().copy() for t in (y, *(leaf.grad for leaf in leaves))]

    return run


lstm = rg.nn.LSTM(64, 128)
STEPS = {
    "linear": step(F.linear, drawn(512, 128), drawn(192, 128), drawn(192)),
    "wide": step(lambda x, w: x @ w.T, drawn(1024, 64), drawn(192, 64)),
    "bfloat16": step(F.linear, *(drawn(n, 128).detach().bfloat16().requires_grad_() for n in (256, 192))),
    "winograd": step(lambda x, w: F.conv2d(x, w, padding=1), drawn(8, 32, 32, 32), drawn(32, 32, 3, 3)),
    "odd channels": step(F.conv2d, drawn(4, 20, 32, 32), drawn(7, 20, 3, 3)),
    "strides": step(lambda *a: F.conv2d(*a, stride=2), drawn(8, 16, 24, 24), drawn(24, 16, 5, 5), drawn(24)),
    "gelu": step(F.gelu, drawn(200, 200)),
    "softmax": step(lambda x: F.softmax(x, -1) ** 2, drawn(200, 200)),
    "attention": step(F.scaled_dot_product_attention, *(drawn(4, 4, 64, 32) for _ in range(3))),
    "layer norm": step(lambda x: F.layer_norm(x, (256,)), drawn(200, 256)),
    "lstm": step(lambda x: lstm(x)[0], drawn(12, 32, 64), leaves=list(lstm.parameters())),
}


def main(seconds: float) -> None:
    rg.set_num_threads(1)
    wanted = {name: run() for name, run in STEPS.items()}
    heard: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, PERIOD, PERIOD)
    end, wrong = time.monotonic() + seconds, set()
    while time.monotonic() < end:
        for name, run in STEPS.items():
            if not all(map(np.array_equal, run(), wanted[name])):
                wrong.add(name)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"heard: {len(heard)}, wrong: {sorted(wrong)}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
