"""Fused kernels of the compiled programs: numba, one thread, contiguous float32. Loaded when numba is there.

Kept on disk by numba's cache: compiled once a machine. Exponentials are polynomials that vectorise, with relative
errors below 2e-7; sums run in several lanes. Results differ from the NumPy bodies by rounding alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ..tensor.backend.cpu.loops import (  # noqa: F401  (kernels by name)
    _exp,
    adam,
    attention_slopes,
    attention_weights,
    layer_norm,
    layer_norm_backward,
    momentum,
    sgd,
)

FAST = {"reassoc", "nsz", "contract", "arcp"}  # NaN and infinity stay what they are
kernel = njit(cache=True, fastmath=FAST, error_model="numpy")
inner = njit(inline="always", fastmath=FAST, error_model="numpy")
F = np.float32
ONE, TWO, HALF, ZERO = F(1), F(2), F(0.5), F(0)
DENSITY = F(1 / math.sqrt(2 * math.pi))
# the normal distribution's logit over x, as a polynomial in x^2: see tensor/ops/pointwise.py, erf
_LOGIT: tuple[float, ...] = (
    5.688856804952405e-09,
    2.217219800385625e-08,
    -4.754765153692429e-06,
    8.446236383136089e-05,
)
_LOGIT += (-0.000614626096000715, -0.0001954326397664376, 0.10276989707810846, 1.1283792461177768)
L0, L1, L2, L3, L4, L5, L6, L7 = (F(c * 0.5 ** (7 - i) * math.sqrt(0.5)) for i, c in enumerate(_LOGIT))


@inner
def _tanh(x: Any) -> Any:
    """By the exponential away from 0, by a polynomial near it."""
    z = x * x
    small = x + x * z * ((((F(-5.70498872745e-3) * z + F(2.06390887954e-2)) * z + F(-5.37397155531e-2)) * z
            + F(1.33314422036e-1)) * z + F(-3.33332819422e-1))  # fmt: skip
    a = min(abs(x), F(9.1))
    big = ONE - TWO / (_exp(a + a) + ONE)
    big = big if x > ZERO else -big
    return small if abs(x) < F(0.625) else big


@inner
def _normal(x: Any) -> Any:
    """The normal distribution function."""
    z = x * x
    u = ((((((L0 * z + L1) * z + L2) * z + L3) * z + L4) * z + L5) * z + L6) * z + L7
    return HALF + HALF * _tanh(u * x)


@kernel
def gelu(x: Any, y: Any, cdf: Any) -> None:
    for i in range(x.size):
        c = _normal(x[i])
        cdf[i] = c
        y[i] = x[i] * c


@kernel
def gelu_backward(g: Any, x: Any, cdf: Any, out: Any) -> None:
    for i in range(x.size):
        v = x[i]
        out[i] = g[i] * (cdf[i] + v * DENSITY * _exp(-HALF * v * v))


@kernel
def cross_entropy(x: Any, target: Any, ignore: int, e: Any, total: Any) -> Any:
    """The sum of the losses and how many count (row i has a bad class: -1 - i); writes exponentials and their sums."""
    rows, width = x.shape
    loss = 0.0
    count = 0
    for i in range(rows):
        top = x[i, 0]
        nan = False
        for k in range(width):
            v = x[i, k]
            top = v if v > top else top
            nan = nan or v != v
        s = ZERO
        for k in range(width):
            v = _exp(x[i, k] - top)
            e[i, k] = v
            s += v
        total[i] = s
        t = target[i]
        if t == ignore:
            continue
        if t < 0 or t >= width:
            return loss, -1 - i
        count += 1
        loss += math.log(s) - (x[i, t] - top)
        if nan:
            loss = np.nan
    return loss, count


@kernel
def cross_entropy_backward(g: Any, target: Any, ignore: int, e: Any, total: Any, out: Any) -> None:
    rows, width = e.shape
    for i in range(rows):
        t = target[i]
        if t == ignore:
            for k in range(width):
                out[i, k] = ZERO
            continue
        r = g / total[i]
        for k in range(width):
            out[i, k] = e[i, k] * r
        out[i, t] -= g


@kernel
def masked(g: Any, x: Any, threshold: Any, out: Any) -> None:
    for i in range(g.size):
        out[i] = g[i] if x[i] > threshold else g[i] * ZERO


@kernel
def bias_relu(y: Any, bias: Any) -> None:
    rows, width = y.shape
    for i in range(rows):
        for k in range(width):
            v = y[i, k] + bias[k]
            y[i, k] = ZERO if v < ZERO else v


@kernel
def add_rows(out: Any, index: Any, g: Any) -> None:
    """out[index[i]] += g[i], from zeros."""
    out[:] = ZERO
    for i in range(index.size):
        row = index[i]
        for k in range(g.shape[1]):
            out[row, k] += g[i, k]
