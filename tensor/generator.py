"""Random arrays: with the same seed, the numbers that PyTorch's CPU generator gives.

Every method makes an array of `shape` and `dtype`, or fills `out` in C order, and returns it. Numbers made
by whole number arithmetic equal PyTorch's bit for bit, those made with log or cos to the last digits:
docs/parity.md.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .generator_engine import Engine
from .generator_transforms import (
    BLOCK,
    DIGITS,
    box_muller,
    digits,
    fill,
    fma,
    inward,
    limits,
    parts,
    remainder,
    store,
    swap_in_turn,
)
from .ops.faster import faster

SHORT_PERMUTATION = (2**32 - 1) // 20  # from here on the remainder of 32 bits would be skewed

Shape = int | Sequence[int]
Out = np.ndarray | None


class Generator(Engine):
    """torch.Generator for the CPU, with the distributions as methods that give NumPy arrays."""

    def uniform(
        self, shape: Shape, low: float = 0.0, high: float = 1.0, dtype: Any = np.float32, out: Out = None
    ) -> np.ndarray:
        """Uniform numbers in [low, high); of complex ones both parts."""
        if (real := _real(dtype)) is not None:
            return self.uniform(_pairs(shape), low, high, real).view(dtype)[..., 0]
        y = _floating("uniform", shape, dtype, out)
        least, most = limits(y.dtype)
        if not (least <= low <= high <= most and high - low <= most):
            raise RuntimeError(
                f"[uniform] low <= high must hold, with both and high - low within {y.dtype}, "
                f"got low={low}, high={high}"
            )
        return fill(y, lambda flat: self._uniform(flat, low, high))

    def normal(
        self,
        shape: Shape,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: Any = np.float32,
        out: Out = None,
        one_by_one: bool = False,
    ) -> np.ndarray:
        """Normal numbers, by Box and Muller's transform (doi:10.1214/aoms/1177706645).

        one_by_one: as PyTorch fills tensors that are not contiguous, and those of fewer than 16 numbers.
        Of complex numbers each part has the mean and half the variance.
        """
        if (real := _real(dtype)) is not None:
            return self.normal(_pairs(shape), mean, std * 0.5**0.5, real).view(dtype)[..., 0]
        y = _floating("normal", shape, dtype, out)
        if not std >= 0:
            raise RuntimeError(f"[normal] std must be >= 0, got {std}")
        return fill(y, lambda flat: self._normal(flat, mean, std, one_by_one))

    def log_normal(
        self, shape: Shape, mean: float = 1.0, std: float = 2.0, dtype: Any = np.float32, out: Out = None
    ) -> np.ndarray:
        """exp of normal numbers with this mean and std."""
        y = _floating("log_normal", shape, dtype, out)
        if not std > 0:
            raise RuntimeError(f"[log_normal] std must be > 0, got {std}")
        return fill(y, lambda flat: self._log_normal(flat, mean, std))

    def exponential(
        self, shape: Shape, rate: float = 1.0, dtype: Any = np.float32, out: Out = None
    ) -> np.ndarray:
        """Exponential numbers with mean 1 / rate."""
        y = _floating("exponential", shape, dtype, out)
        if not rate > 0:
            raise RuntimeError(f"[exponential] rate must be > 0, got {rate}")
        return self._from_uniform(y, lambda u: -1.0 / rate * np.log1p(-u))

    def cauchy(
        self, shape: Shape, median: float = 0.0, sigma: float = 1.0, dtype: Any = np.float32, out: Out = None
    ) -> np.ndarray:
        """Cauchy numbers with this median and half width at half height."""
        y = _floating("cauchy", shape, dtype, out)
        if not sigma > 0:
            raise RuntimeError(f"[cauchy] sigma must be > 0, got {sigma}")
        return self._from_uniform(y, lambda u: median + sigma * np.tan(np.pi * (u - 0.5)))

    def geometric(self, shape: Shape, p: float, dtype: Any = np.float32, out: Out = None) -> np.ndarray:
        """Trials up to and with the first success, when each succeeds with probability p: 1, 2, 3 ..."""
        y = np.empty(shape, dtype) if out is None else out
        if not digits(y.dtype) and y.dtype.kind not in "iu":
            raise NotImplementedError(f"[geometric] dtype must be that of a number, got {y.dtype}")
        if not 0 < p < 1:
            raise RuntimeError(f"[geometric] p must lie in (0, 1), got {p}")
        return self._from_uniform(y, lambda u: np.ceil(np.log(u) / math.log1p(-p)))

    def bernoulli(
        self, p: float | np.ndarray, shape: Shape | None = None, dtype: Any = None, out: Out = None
    ) -> np.ndarray:
        """1 with probability p, else 0; an array p is broadcast to `shape`.

        shape and dtype: those of p by default (float32 for a number p). Dropout keeps the entries where
        bernoulli(1 - rate) is 1.
        A number p and a float64 array cost two words an entry, an array of a narrower type costs one.
        """
        if isinstance(p, np.ndarray):
            if not digits(p.dtype):
                raise NotImplementedError(f"[bernoulli] p must be of a floating type, got {p.dtype}")
            if not ((p >= 0) & (p <= 1)).all():
                raise RuntimeError(
                    f"[bernoulli] p must lie in [0, 1], got values from {p.min()} to {p.max()}"
                )
            y = np.empty(p.shape if shape is None else shape, dtype or p.dtype) if out is None else out
            u = np.empty(y.shape, np.float64 if p.dtype == np.float64 else np.float32)
            self.unit(u.reshape(-1))
            y[...] = u < p.astype(u.dtype)
            return y
        if not 0 <= p <= 1:
            raise RuntimeError(f"[bernoulli] p must lie in [0, 1], got {p}")
        y = np.empty(() if shape is None else shape, dtype or np.float32) if out is None else out
        return self._from_uniform(y, lambda u: u < p)

    def random(self, shape: Shape, dtype: Any = np.int64, out: Out = None) -> np.ndarray:
        """Whole numbers from 0 to the type's last, to 2**24 (float32) and the like for floating types."""
        y = np.empty(shape, dtype) if out is None else out
        span = int(_last_whole("random", y.dtype)) + 1
        return fill(
            y, lambda flat: self._integers(flat, 0, span, y.dtype.name in ("int64", "uint64", "float64"))
        )

    def randint(
        self, low: int, high: int, shape: Shape, dtype: Any = np.int64, out: Out = None
    ) -> np.ndarray:
        """Whole numbers in [low, high). Ends that a floating type cannot hold move inward."""
        y = np.empty(shape, dtype) if out is None else out
        start, stop = inward(low, high, y.dtype) if digits(y.dtype) and low < high else (low, high)
        if not start < stop:
            raise RuntimeError(f"[randint] low < high must hold in {y.dtype}, got low={low}, high={high}")
        least, most = limits(y.dtype)
        if start < least or stop - 1 > most:
            raise RuntimeError(
                f"[randint] low and high - 1 must lie within {y.dtype}, {least} to {most}, "
                f"got low={low}, high={high}"
            )
        # PyTorch takes 64 bits as soon as the remainder of 32 would be skewed by several percent.
        return fill(y, lambda flat: self._integers(flat, start, stop - start, stop - start >= 1 << 28))

    def randperm(self, n: int, dtype: Any = np.int64, out: Out = None) -> np.ndarray:
        """0 to n - 1 in random order, by Fisher and Yates's shuffle."""
        if n < 0:
            raise RuntimeError(f"[randperm] n must be >= 0, got {n}")
        y = np.empty(n, dtype) if out is None else out
        last = _last_whole("randperm", y.dtype)
        if n > last + bool(digits(y.dtype)):
            raise RuntimeError(f"[randperm] n must be at most {last} for {y.dtype}, got {n}")
        order = np.arange(n)
        short = n < SHORT_PERMUTATION
        swaps = max(n - 1, 0) if short else n
        for start in range(0, swaps, BLOCK):
            here = np.arange(start, min(start + BLOCK, swaps))
            if short:
                words = self.words(here.size)
                if faster("shuffle", np, order, start, words) is not None:
                    continue
                targets = here + words % (n - here)
            else:
                targets = (self.words64(here.size) % (here + 1).astype(np.uint64)).astype(np.int64)
            swap_in_turn(order, start, targets)
        y[...] = order
        return y

    def _from_uniform(self, y: np.ndarray, transform: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Fill y with transform(u), where u is float64, uniform in [0, 1)."""

        def body(flat: np.ndarray) -> None:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                for part in parts(flat):
                    u = np.empty(part.size)
                    self.float64(u)
                    store(part, transform(u))

        return fill(y, body)

    def _uniform(self, flat: np.ndarray, low: float, high: float) -> None:
        work = np.dtype(np.float64 if flat.dtype == np.float64 else np.float32)
        start, stop = np.array(low, work)[()], np.array(high, work)[()]
        for part in parts(flat):
            u = part if part.dtype == work else np.empty(part.size, work)
            self.unit(u)
            if u is not part or (low, high) != (0, 1):
                part[:] = fma(u, stop - start, start)
                part[part == stop.astype(part.dtype)] = start  # rounding up would give `high` itself

    def _normal(self, flat: np.ndarray, mean: float, std: float, one_by_one: bool = False) -> None:
        """Blocks of 16, the last made anew so that it ends with the array; fewer than 16 come one by one."""
        if one_by_one or flat.size < 16:
            for part in parts(flat):
                store(part, fma(self._standard_normals(part.size), std, mean))
            return
        short = flat.size % 16
        for part in parts(flat[: flat.size - short]):
            self._normal_blocks(part, mean, std)
        if short:
            if flat.dtype.itemsize >= 4:  # PyTorch draws numbers here that it overwrites, but not for halves
                self.words(short * flat.dtype.itemsize // 4)
            self._normal_blocks(flat[-16:], mean, std)

    def _normal_blocks(self, flat: np.ndarray, mean: float, std: float) -> None:
        u = np.empty(flat.size, np.float64 if flat.dtype == np.float64 else np.float32)
        self.unit(u)
        box_muller(u, flat, mean, std)

    def _log_normal(self, flat: np.ndarray, mean: float, std: float) -> None:
        for part in parts(flat):
            store(part, np.exp(fma(self._standard_normals(part.size), std, mean)))

    def _standard_normals(self, n: int) -> np.ndarray:
        """The next n of the one-by-one stream: a pair's cosine, then its sine, kept when left over."""
        kept = [] if self._next_normal is None else [self._next_normal]
        pairs = max(n - len(kept) + 1, 0) // 2
        u = np.empty((pairs, 2))
        self.float64(u.reshape(-1))
        # The C library's functions give the kept number PyTorch's very bits, but are slow to call many times.
        many = u[: pairs - 1 if pairs > 8 else 0]
        last = [z for angle, v in u[len(many) :].tolist() for z in _cosine_and_sine(angle, v)]
        radius, angle = np.sqrt(-2.0 * np.log1p(-many[:, 1])), 2.0 * np.pi * many[:, 0]
        many[:, 0], many[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
        y = np.concatenate([kept, many.reshape(-1), last])
        self._next_normal = float(y[n]) if y.size > n else None
        return y[:n]

    def _integers(self, flat: np.ndarray, low: int, span: int, wide: bool) -> None:
        for part in parts(flat):
            values = remainder(self.words64(part.size) if wide else self.words(part.size), span)
            if wide and span < 2**64:  # two's complement wraps to the right sum
                values = (values + np.uint64(low % 2**64)).view(np.int64)
            elif wide:  # every int64: PyTorch takes the bits as they come
                values = values.view(np.int64)
            elif low:
                values = values.astype(np.int64) + low
            part[:] = values


def _cosine_and_sine(u: float, v: float) -> tuple[float, float]:
    radius, angle = math.sqrt(-2.0 * math.log1p(-v)), 2.0 * math.pi * u
    return radius * math.cos(angle), radius * math.sin(angle)


def _real(dtype: Any) -> Any:
    """The type of a complex type's parts; None for other types."""
    kind = np.dtype(dtype)
    return np.empty(0, kind).real.dtype if kind.kind == "c" else None


def _pairs(shape: Shape) -> tuple[int, ...]:
    return (shape, 2) if isinstance(shape, int) else (*shape, 2)


def _floating(who: str, shape: Shape, dtype: Any, out: Out) -> np.ndarray:
    y = np.empty(shape, dtype) if out is None else out
    if not digits(y.dtype):
        raise NotImplementedError(
            f"[{who}] dtype must be a floating type ({', '.join(DIGITS)}), got {y.dtype}"
        )
    return y


def _last_whole(who: str, dtype: np.dtype) -> float:
    """The last whole number up to which the type holds every one."""
    if digits(dtype):
        return 2 ** digits(dtype)
    if dtype.kind not in "biu":
        raise NotImplementedError(f"[{who}] dtype must be that of a number, got {dtype}")
    return limits(dtype)[1]


default_generator = Generator()
default_generator.seed()


def manual_seed(seed: int) -> Generator:
    """Start the default generator again at `seed`, and those of the GPUs in use; return it."""
    from . import device

    device.seed_gpus(int(seed))
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Seed the default generator from the operating system and return that seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the default generator started from."""
    return default_generator.initial_seed()
