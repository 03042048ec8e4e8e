"""Draws that choose: multinomial, Poisson and truncated normal, PyTorch's numbers with the same generator."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .generator import Generator, Shape
from .generator_transforms import digits
from .ops.faster import faster

MOST_CATEGORIES = 1 << 24
BLOCK = 1 << 14  # numbers that a compiled loop draws at a time


def multinomial(
    generator: Generator, weights: np.ndarray, num_samples: int, replacement: bool = False
) -> np.ndarray:
    """Indices drawn in proportion to `weights`: (n,) or (rows, n) floats, which need not sum to 1.

    Returns int64 (num_samples,) or (rows, num_samples). Without replacement, or for one sample, the largest
    of weight / Exp(1) are taken (Efraimidis and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003). When fewer
    weights are positive than samples wanted, indices of weight zero follow in order.
    """
    _check_multinomial(weights, num_samples, replacement)
    if not replacement or num_samples == 1:
        with np.errstate(divide="ignore"):
            score = weights / generator.exponential(weights.shape, dtype=weights.dtype)
        if num_samples == 1:
            return score.argmax(axis=-1)[..., None]
        return np.argsort(-score, axis=-1, kind="stable")[..., :num_samples]
    work = np.float64 if weights.dtype == np.float64 else np.float32
    picks = np.empty((*weights.shape[:-1], num_samples), np.int64)
    drawn = np.empty(num_samples)
    rows = weights.astype(work).reshape(-1, weights.shape[-1])
    for row, pick in zip(rows, picks.reshape(-1, num_samples), strict=True):
        total = row.cumsum()  # one by one from the left, rounded at each step
        total /= total[-1]
        total[-1] = 1
        generator.unit(drawn)
        order = drawn.argsort()  # sorted keys are found with fewer wrong guesses, and side by side in memory
        pick[order] = total.searchsorted(drawn[order])
    return picks


def _check_multinomial(weights: np.ndarray, num_samples: int, replacement: bool) -> None:
    def need(holds: Any, rule: str, came: Callable[[], object]) -> None:
        if not holds:
            raise RuntimeError(f"[multinomial] {rule}, got {came()}")

    dtype, n = weights.dtype, weights.shape[-1] if weights.ndim else 0
    need(digits(dtype), "weights must be of a floating type", lambda: dtype)
    need(weights.ndim in (1, 2), "weights must have 1 or 2 dimensions", lambda: f"shape {weights.shape}")
    need(num_samples > 0, "num_samples must be > 0", lambda: num_samples)
    need(n <= MOST_CATEGORIES, f"there must be at most {MOST_CATEGORIES} weights a row", lambda: n)
    need(
        replacement or num_samples <= n,
        "without replacement num_samples must be at most the number of weights",
        lambda: f"num_samples={num_samples} of {n}: pass replacement=True or draw fewer",
    )
    positive = 0 in weights.shape[:-1]
    if weights.size:
        wide = weights if dtype.itemsize > 2 else weights.astype(np.float32)
        most = wide.max()
        fine = wide.min() >= 0 and most < np.inf  # false for NaN, which both return
        need(fine, "weights must be finite and >= 0", lambda: wide[~(np.isfinite(wide) & (wide >= 0))][0])
        positive = most > 0 if wide.ndim == 1 else (wide.max(-1) > 0).all()
    need(positive, "weights of a row must have a sum > 0", lambda: 0)


def poisson(generator: Generator, rate: np.ndarray) -> np.ndarray:
    """Poisson counts for an array of rates (float, >= 0), in its type and shape.

    Products of uniform numbers below rate 10 (Knuth), from there transformed rejection: PTRS of Hörmann 1993,
    doi:10.1016/0167-6687(93)90997-4.
    """
    if not digits(rate.dtype):
        raise NotImplementedError(f"[poisson] rate must be of a floating type, got {rate.dtype}")
    if not (rate >= 0).all():
        raise RuntimeError(f"[poisson] rate must be >= 0, got {rate[~(rate >= 0)][0]}")
    y = np.empty(rate.shape, rate.dtype)
    if rate.size and (loop := faster("poisson_loop", np, rate.size)) is not None:
        flat = rate.ravel().astype(np.float64)
        words = 8 if flat.mean() > 10 else 2 * int(flat.mean()) + 4
        y[...] = by_loop(generator, loop, flat, words).reshape(rate.shape)
        return y
    y[...] = np.array([_poisson(generator, r) for r in rate.ravel().tolist()], np.float64).reshape(rate.shape)
    return y


def by_loop(generator: Generator, loop: Any, parameters: np.ndarray, words: int) -> np.ndarray:
    """A float64 number for each parameter, drawn one after another by a compiled loop (tensor/backend/cpu/loops.py).

    words: how many random words a number takes, about.
    """
    drawn = np.empty(parameters.size)
    done, room = 0, 0

    def take(given: np.ndarray) -> int:
        nonlocal done, room
        part = slice(done, done + BLOCK)
        made, used = generator.with_spare(lambda spare: loop(parameters[part], given, spare, drawn[part]))
        done, room = done + made, 0 if made else 2 * given.size
        return used

    while done < parameters.size:
        generator.some_words(room or words * min(BLOCK, parameters.size - done) + 64, take)
    return drawn


def _poisson(generator: Generator, rate: float) -> int:
    if rate >= 10:
        return _poisson_rejection(generator, rate)
    if rate == 0:
        return 0
    count, product, least = 0, generator.double(), math.exp(-rate)
    while product > least:
        count, product = count + 1, product * generator.double()
    return count


def _poisson_rejection(generator: Generator, rate: float) -> int:
    b = 0.931 + 2.53 * math.sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    accept_at_once = 0.9277 - 3.6224 / (b - 2)
    while True:
        u, v = generator.double() - 0.5, generator.double()
        distance = 0.5 - abs(u)
        if distance == 0:
            continue
        k = math.floor((2 * a / distance + b) * u + rate + 0.43)
        if distance >= 0.07 and v <= accept_at_once:
            return k
        if k < 0 or (distance < 0.013 and v > distance):
            continue
        density = k * math.log(rate) - rate - math.lgamma(k + 1)
        if v == 0 or math.log(v * inverse_alpha / (a / distance**2 + b)) <= density:
            return k


def trunc_normal(
    generator: Generator,
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    dtype: Any = np.float32,
) -> np.ndarray:
    """Normal numbers drawn again until they lie in [a, b], which are values, not multiples of std.

    Where at most 30% of the normal distribution lies in [a, b], uniform candidates are accepted by density.
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            f"[trunc_normal] mean should lie within 2 std of [a, b], got mean={mean}, std={std}, "
            f"a={a}, b={b}: the distribution may be wrong",
            stacklevel=2,
        )
    mass = (math.erf((b - mean) / std / math.sqrt(2)) - math.erf((a - mean) / std / math.sqrt(2))) / 2
    if mass <= 0.3:
        return _trunc_by_density(generator, shape, mean, std, a, b, dtype)
    y = generator.normal(shape, mean, std, dtype)
    low, high = np.asarray(a, y.dtype), np.asarray(b, y.dtype)
    while (outside := (y < low) | (y > high)).any():
        y = np.where(outside, generator.normal(shape, mean, std, dtype), y)
    return y


def _trunc_by_density(
    generator: Generator, shape: Shape, mean: float, std: float, a: float, b: float, dtype: Any
) -> np.ndarray:
    peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2

    def candidates() -> tuple[np.ndarray, np.ndarray]:
        x = generator.uniform(shape, a, b, dtype)
        kind = x.dtype.type
        density = ((x - kind(mean)) / kind(std)) ** 2 * kind(-0.5) - kind(peak)
        with np.errstate(divide="ignore"):
            return x, np.log(generator.uniform(shape, dtype=dtype)) > density

    y, pending = candidates()
    while pending.any():
        x, rejected = candidates()
        y, pending = np.where(pending, x, y), pending & rejected
    return y
