"""Philox4x32-10: random words as a function of (seed, draw, element), the same on every device.

Salmon, Moraes, Dror and Shaw 2011, doi:10.1145/2063384.2063405. CUDA devices draw from it (backend/cuda/random.py);
this is the reference in NumPy, bit for bit the same words. The key is the seed; the counter is (element / 4, draw),
and each call of a generator takes the next draw.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)


class Draw(NamedTuple):
    """The place of one call's numbers: seed and draw; while a graph is captured, also its state in device memory."""

    seed: int
    draw: int
    state: Any = None


def words(n: int, draw: Draw) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The first n words of a draw."""
    block = np.arange(-(-n // 4), dtype=np.uint64)
    c0, c1 = block & _LOW, block >> np.uint64(32)
    c2 = np.full_like(block, draw.draw & 0xFFFFFFFF)
    c3 = np.full_like(block, draw.draw >> 32 & 0xFFFFFFFF)
    k0, k1 = draw.seed & 0xFFFFFFFF, draw.seed >> 32 & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c2 = p1 >> np.uint64(32) ^ c1 ^ np.uint64(k0), p0 >> np.uint64(32) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & _LOW, p0 & _LOW
        k0, k1 = k0 + _W0 & 0xFFFFFFFF, k1 + _W1 & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], 1).astype(np.uint32).reshape(-1)[:n]


def unit(n: int, draw: Draw) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Multiples of 2**-24 in [0, 1)."""
    return (words(n, draw) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def kept(n: int, p: float, draw: Draw) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which elements dropout with probability p keeps."""
    return words(n, draw) >= np.uint32(threshold(p))


def threshold(p: float) -> int:
    """p in units of 2**-32: a word below it is dropped."""
    return min(int(p * 2**32), 2**32 - 1)
