"""Random numbers on GPUs: Philox by counting, so that a seed gives the same numbers on every GPU and in every graph.

A generator counts draws on the host; each call takes the next one, and its kernel is told which. While a graph is
captured the seed and a base for the draws are read from device memory instead, and the graph's last kernel moves the
base on by the draws that it holds: every replay draws fresh numbers.
"""

from __future__ import annotations

import math
import operator
import os
from typing import Any

import numpy as np

from ....autograd.op import Variant, registry
from ... import philox
from ...generator_engine import DEFAULT_SEED
from ...philox import Draw
from .kernel import THREADS, aligned, contiguous, flat_grid, launch, suffix
from .runtime import check_index, load
from .streams import device_index

_generators: dict[int, Generator] = {}
MACHINE = ("_generators",)


class Generator:
    """torch.Generator for one GPU: seed, and the number of draws so far."""

    def __init__(self, index: int) -> None:
        from ...device import cuda

        self.device = cuda(index)
        self._seed, self.draws = DEFAULT_SEED, 0
        self._state: Any = None  # (seed, base) in device memory, for captured graphs
        self._from: int | None = None  # the draw that a capture under way began with

    def manual_seed(self, seed: int) -> Generator:
        """Starts again at a seed, -2**63 to 2**64 - 1."""
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"[manual_seed] seed must lie in [-2**63, 2**64), got {seed}")
        self._seed, self.draws = seed % 2**64, 0
        return self

    def seed(self) -> int:
        """Seeds from the system and returns that seed."""
        return self.manual_seed(int.from_bytes(os.urandom(8), "little")).initial_seed()

    def initial_seed(self) -> int:
        """The seed that the stream started from."""
        return self._seed

    def get_state(self) -> Any:
        """Seed and draws: a uint8 tensor of 16 bytes."""
        from ....autograd.engine import wrap

        return wrap(np.array([self._seed, self.draws], np.uint64).view(np.uint8))

    def set_state(self, state: Any) -> Generator:
        """Goes on from what get_state gave."""
        array = np.asarray(state.array if hasattr(state, "array") else state)
        if array.dtype != np.uint8 or array.size != 16:
            raise RuntimeError(f"[set_state] state must have 16 bytes, came {array.dtype}{list(array.shape)}")
        self._seed, self.draws = (int(v) for v in np.frombuffer(array.tobytes(), np.uint64))
        return self

    def next_draw(self) -> Draw:
        """The place of the next call's numbers."""
        self.draws += 1
        if self._from is None:
            return Draw(self._seed, self.draws - 1)
        return Draw(0, self.draws - 1 - self._from, self._state)

    # ---- graphs

    def begin_capture(self) -> None:
        """From now on draws count from the state in device memory."""
        if self._state is None:
            self._state = load().zeros(2, np.int64)
        self._from = self.draws

    def end_capture(self) -> int:
        """Queues the kernel that moves the state on: how many draws the graph holds. To be called while capturing."""
        assert self._from is not None
        held, self.draws, self._from = self.draws - self._from, self._from, None
        if held:
            launch("random.cu", "random_advance", 1, 32, self._state, held)
        return held

    def end_capture_failed(self) -> None:
        """Goes back to counting on the host."""
        if self._from is not None:
            self.draws, self._from = self._from, None

    def before_replay(self, held: int, last: tuple[int, int] | None) -> tuple[int, int]:
        """Sees that the device's state is the host's, as it is after replays alone; counts a replay's draws."""
        if last != (self._seed, self.draws):
            self._state.set(np.array([self._seed, self.draws], np.uint64).view(np.int64))
        self.draws += held
        return self._seed, self.draws

    # ---- arrays

    def _fill(self, name: str, shape: Any, kind: Any, *numbers: Any) -> Any:
        cp = load()
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        with cp.cuda.Device(self.device.index):
            out, draw = cp.empty(shape, kind), self.next_draw()
            if out.size:
                args = (out, out.size, draw.seed - (draw.seed >> 63 << 64), draw.draw, draw.state, *numbers)
                launch("random.cu", name, flat_grid(out.size, 4), THREADS, *args)
            return out

    def uniform(
        self, shape: Any, low: float = 0.0, high: float = 1.0, dtype: Any = np.float32, **_: Any
    ) -> Any:
        """Uniform numbers in [low, high), from 24 bits each."""
        return self._fill("random_uniform", shape, np.float32, float(low), float(high)).astype(
            dtype, copy=False
        )

    def normal(
        self, shape: Any, mean: float = 0.0, std: float = 1.0, dtype: Any = np.float32, **_: Any
    ) -> Any:
        """Normal numbers by Box and Muller's transform."""
        if not std >= 0:
            raise RuntimeError(f"[normal] std must be >= 0, got {std}")
        return self._fill("random_normal", shape, np.float32, float(mean), float(std)).astype(
            dtype, copy=False
        )

    def randint(self, low: int, high: int, shape: Any, dtype: Any = np.int64, **_: Any) -> Any:
        """Whole numbers in [low, high), at most 2**32 different ones."""
        if not 0 < high - low <= 2**32:
            raise RuntimeError(f"[randint] low < high <= low + 2**32 must hold on a GPU, came {low}, {high}")
        return self._fill("random_integers", shape, np.int64, low, high - low).astype(dtype, copy=False)

    def randperm(self, n: int, dtype: Any = np.int64, **_: Any) -> Any:
        """A random order of 0 ... n-1: the order of random keys."""
        keys = self._fill("random_integers", n, np.int64, 0, 2**32) * n + load().arange(n)
        return keys.argsort().astype(dtype, copy=False)

    def bernoulli(self, p: Any, shape: Any = None, dtype: Any = None, **_: Any) -> Any:
        """1 with probability p, a number or an array, else 0."""
        if isinstance(p, int | float):
            return (self.uniform(() if shape is None else shape) < p).astype(dtype or np.float32)
        return (self.uniform(p.shape if shape is None else shape) < p).astype(dtype or p.dtype)

    def log_normal(
        self, shape: Any, mean: float = 1.0, std: float = 2.0, dtype: Any = np.float32, **_: Any
    ) -> Any:
        """exp of normal numbers."""
        return load().exp(self.normal(shape, mean, std)).astype(dtype, copy=False)

    def exponential(self, shape: Any, rate: float = 1.0, dtype: Any = np.float32, **_: Any) -> Any:
        """Exponential numbers with mean 1 / rate."""
        return (load().log1p(-self.uniform(shape)) * (-1.0 / rate)).astype(dtype, copy=False)

    def cauchy(
        self, shape: Any, median: float = 0.0, sigma: float = 1.0, dtype: Any = np.float32, **_: Any
    ) -> Any:
        """Cauchy numbers."""
        return (load().tan((self.uniform(shape) - 0.5) * math.pi) * sigma + median).astype(dtype, copy=False)

    def geometric(self, shape: Any, p: float, dtype: Any = np.float32, **_: Any) -> Any:
        """Trials up to the first success."""
        cp = load()
        return cp.ceil(cp.log(1.0 - self.uniform(shape)) * (1.0 / math.log1p(-p))).astype(dtype, copy=False)

    def random(self, shape: Any, dtype: Any = np.int64, **_: Any) -> Any:
        """Whole numbers up to 2**32, the type's last, or the largest that the type holds exactly."""
        dtype = np.dtype(dtype)
        digits = {"float32": 24, "float16": 11, "bfloat16": 8, "bool": 1}.get(dtype.name)
        bits = digits or min(32, 8 * dtype.itemsize - (dtype.kind == "i"))
        return self.randint(0, 2**bits, shape, dtype)


def default(index: int | None = None) -> Generator:
    """The generator of a GPU; None is the current one."""
    index = check_index(index)
    if index not in _generators:  # manual_seed may have been called before
        from ...generator import default_generator

        _generators[index] = Generator(index).manual_seed(default_generator.initial_seed())
    return _generators[index]


def seed_all(seed: int) -> None:
    """Seeds the generators that are in use; others begin with the CPU's seed when they are."""
    for generator in _generators.values():
        generator.manual_seed(seed)


def default_of(device: Any) -> Generator:
    """The same by "cuda:1", 1 or a device."""
    return default(device_index(device))


# ---- dropout


def attach(cp: Any) -> None:
    """Attaches the dropout kernel."""
    Variant(registry["counted_dropout"], cp, _fits, _dropout, _dropout_gradient)


def _fits(x: Any, *, p: float, draw: Draw) -> bool:
    return suffix(x) is not None and contiguous(x) and x.size > 0


def _dropout(xp: Any, x: Any, *, p: float, draw: Draw) -> Any:
    y = xp.empty(x.shape, x.dtype)
    seed = draw.seed - (draw.seed >> 63 << 64)
    args = (x, y, x.size, seed, draw.draw, draw.state, philox.threshold(p), 1 / (1 - p), aligned(16, x, y))
    launch("random.cu", f"dropout_{suffix(x)}", flat_grid(x.size, 16 // x.itemsize), THREADS, *args)
    return y


def _dropout_gradient(xp: Any, g: Any, needs: Any, p: float, draw: Draw) -> list[Any]:
    return [_dropout(xp, xp.ascontiguousarray(g), p=p, draw=draw)]
