"""Arithmetic on arrays of random words and uniform numbers, rounded as PyTorch's CPU kernels round it."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

BLOCK = 1 << 16  # numbers made at a time: few enough to stay in the second-level cache

DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}


@cache
def digits(dtype: np.dtype) -> int:
    """Bits of precision of a floating type, 0 for any other."""
    return DIGITS.get(dtype.name, 0)  # by name: bfloat16 is no type of NumPy's own


def parts(flat: np.ndarray) -> Iterator[np.ndarray]:
    """`flat` in views of at most BLOCK entries."""
    for start in range(0, flat.size, BLOCK):
        yield flat[start : start + BLOCK]


def fill(y: np.ndarray, body: Callable[[np.ndarray], None]) -> np.ndarray:
    """Run `body` on y as a flat array in C order, whatever y's strides are; return y."""
    if y.flags.c_contiguous:
        body(y.reshape(-1))
    else:
        flat = np.empty(y.size, y.dtype)
        body(flat)
        y[...] = flat.reshape(y.shape)
    return y


def store(part: np.ndarray, values: np.ndarray) -> None:
    """part[:] = values, where float64 becomes float16 by way of float32, rounded twice."""
    part[:] = values.astype(np.float32) if part.dtype == np.float16 else values


@cache
def limits(dtype: np.dtype) -> tuple[float, float]:
    """The least and the greatest finite value: exact ints for whole numbers."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if dtype.name == "bfloat16":
        return -(2.0**128 - 2.0**120), 2.0**128 - 2.0**120
    return -float(np.finfo(dtype).max), float(np.finfo(dtype).max)


def fma(x: np.ndarray, a: Any, b: Any) -> np.ndarray:
    """x * a + b for numbers a and b, rounded once, as the compilers of PyTorch's kernels fuse it."""
    if a == 1 and b == 0:
        return x
    if x.dtype == np.float32:
        return (x * np.float64(a) + np.float64(b)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        product = x * a
        total = product + b
        rest = total - product
        lost = (
            (product - (total - rest)) + (b - rest) + _product_error(x, a, product)
        )  # by sum (Knuth) and product
        return total + np.where(np.isfinite(lost), lost, 0.0)


def _product_error(x: np.ndarray, a: float, product: np.ndarray) -> np.ndarray:
    """x * a - product, exact (Dekker 1971, doi:10.1007/BF01397083)."""
    x_high, a_high = x * 134217729.0, a * 134217729.0
    x_high, a_high = x_high - (x_high - x), a_high - (a_high - a)
    x_low, a_low = x - x_high, a - a_high
    return ((x_high * a_high - product) + x_high * a_low + x_low * a_high) + x_low * a_low


def box_muller(u: np.ndarray, y: np.ndarray, mean: float, std: float) -> None:
    """Normal numbers into y from uniform u: of each 16, the first 8 give the radii, the last 8 the angles."""
    u, y = u.reshape(-1, 2, 8), y.reshape(-1, 2, 8)
    radius = np.subtract(1, u[:, 0])
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    angle = u[:, 1] * u.dtype.type(2 * math.pi)
    for half, wave in enumerate((np.cos, np.sin)):
        z = wave(angle)
        z *= radius
        if std != 1:
            z *= u.dtype.type(std)
        if mean != 0:
            z += u.dtype.type(mean)
        y[:, half] = z


def remainder(words: np.ndarray, span: int) -> np.ndarray:
    """words % span, in place. NumPy vectorizes division by one number, but not the remainder."""
    if span < 1 << (8 * words.itemsize):
        divisor = words.dtype.type(span)
        words -= words // divisor * divisor
    return words


def inward(low: int, high: int, dtype: np.dtype) -> tuple[int, int]:
    """[low, high) with ends moved inward to values of a floating type, so that no result rounds out of it."""

    def rounded(value: int) -> int:
        return int(np.array(value).astype(dtype))

    def step(value: int) -> int:
        return 1 << max(abs(value).bit_length() - digits(dtype), 0)

    if rounded(low + 1) < low:
        low = rounded(low + 1) + step(low + 1)
    if rounded(high - 1) >= high:
        high = rounded(high - 1) - step(high - 1)
    return low, high


def swap_in_turn(order: np.ndarray, start: int, targets: np.ndarray) -> None:
    """Swap order[start + k] with order[targets[k]], k = 0, 1 ..., many at once where no two swaps meet."""
    if order.size < 1 << 14:
        items = order.tolist()
        for here, there in enumerate(targets.tolist(), start):
            items[here], items[there] = items[there], items[here]
        order[:] = items
        return
    block = math.isqrt(order.size) // 4
    view = order.data
    for first in range(0, targets.size, block):
        goal = targets[first : first + block]
        begin, end = start + first, start + first + goal.size
        if _apart(goal, begin, end):
            order[begin:end], order[goal] = order[goal], order[begin:end].copy()
        else:
            for here, there in enumerate(goal.tolist(), begin):
                view[here], view[there] = view[there], view[here]


def _apart(goal: np.ndarray, begin: int, end: int) -> bool:
    """Whether all targets differ and lie on one side of [begin, end)."""
    ranked = np.sort(goal)
    return bool((ranked[0] >= end or ranked[-1] < begin) and (ranked[1:] != ranked[:-1]).all())
