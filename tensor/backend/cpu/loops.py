"""Loops in which a number depends on the one before, or that would be many passes over memory: compiled by numba.

Kept on disk by numba's cache: compiled once a machine. They run on one thread and without the interpreter's lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

F = np.float32
PIECE = 16384  # elements
ONE, HALF, ZERO = F(1), F(0.5), F(0)
LOG2E, LN2_HIGH, LN2_LOW = F(1.44269504), F(0.693359375), F(-2.12194440e-4)
E0, E1, E2 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3)
E3, E4, E5 = F(4.1665795894e-2), F(1.6666665459e-1), F(5.0000001201e-1)
FAST = {"reassoc", "nsz", "contract", "arcp"}  # NaN and infinity stay what they are

exact = njit(cache=True, nogil=True, error_model="numpy")
rounded = njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
inner = njit(inline="always", fastmath=FAST, error_model="numpy")


@inner
def _exp(x: Any) -> Any:
    """Cephes' expf."""
    z = min(max(x, F(-104)), F(89))
    n = np.floor(z * LOG2E + HALF)
    r = z - n * LN2_HIGH - n * LN2_LOW
    p = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    p = p * r * r + r + ONE
    whole = np.int32(n)
    part = whole >> np.int32(1)  # 2^n in two steps, as n may lie outside of the exponents that there are
    y = p * _power(part) * _power(whole - part)
    return y if x == x else x


@inner
def _power(n: Any) -> Any:
    return np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@exact
def shuffle(order: Any, start: int, words: Any) -> None:
    """Fisher and Yates's swaps from `start` on, one for each random word."""
    n = order.size
    for k in range(words.size):
        here = start + k
        there = here + np.int64(words[k] % np.uint32(n - here))
        kept = order[here]
        order[here] = order[there]
        order[there] = kept


def _running(largest: bool) -> Callable[..., None]:
    """Of (a, n, b) along n: the last position of the best so far, or of the last NaN. best: room for b numbers."""

    @exact
    def loop(x: Any, best: Any, out: Any) -> None:
        for i in range(x.shape[0]):
            for k in range(x.shape[2]):
                best[k] = x[i, 0, k]
                out[i, 0, k] = 0
            if (
                x.shape[2] == 1
            ):  # what is carried on stays in registers, and a new best is rare enough for a branch
                top, at = best[0], 0
                for j in range(1, x.shape[1]):
                    v = x[i, j, 0]
                    if v < top if largest else v > top:
                        pass
                    elif (v >= top if largest else v <= top) or v != v:
                        top, at = v, j
                    out[i, j, 0] = at
                continue
            for j in range(1, x.shape[1]):
                for k in range(x.shape[2]):
                    v = x[i, j, k]
                    wins = (v >= best[k] if largest else v <= best[k]) or v != v
                    best[k] = v if wins else best[k]
                    out[i, j, k] = j if wins else out[i, j - 1, k]

    return loop


argcummax, argcummin = _running(True), _running(False)


@exact
def take_along(x: Any, index: Any, out: Any) -> None:
    """out[i, j, k] = x[i, index[i, j, k], k]."""
    for i in range(index.shape[0]):
        if index.shape[2] == 1:
            for j in range(index.shape[1]):
                out[i, j, 0] = x[i, index[i, j, 0], 0]
            continue
        for j in range(index.shape[1]):
            for k in range(index.shape[2]):
                out[i, j, k] = x[i, index[i, j, k], k]


@exact
def select(mask: Any, a: Any, b: Any, out: Any, step_a: int, step_b: int) -> None:
    """Of a where the mask is not 0 and of b elsewhere; with step 0 a row is used again for each piece of its length."""
    for start in range(0, out.size, PIECE):
        n = min(PIECE, out.size - start)
        here = mask[start : start + n]
        first, second = a[step_a * start : step_a * start + n], b[step_b * start : step_b * start + n]
        y = out[start : start + n]
        for i in range(n):
            u, v = first[i], second[i]
            y[i] = u if here[i] != 0 else v


@exact
def bounded(x: Any, low: Any, high: Any, out: Any) -> None:
    """Each number in [low, high]; NaN stays."""
    for i in range(x.size):
        v = x[i]
        v = low if v < low else v
        out[i] = high if v > high else v


@exact
def leaky_relu(x: Any, slope: Any, out: Any) -> None:
    for i in range(x.size):
        v = x[i]
        w = v * slope
        out[i] = w if v < w else v


@exact
def huber(x: Any, delta: Any, out: Any) -> None:
    """m (|x| - m / 2) with m = min(|x|, delta)."""
    for i in range(x.size):
        a = abs(x[i])
        m = delta if a > delta else a
        out[i] = m * (a - HALF * m)


@exact
def hardswish(x: Any, sixth: Any, out: Any) -> None:
    for i in range(x.size):
        v = x[i]
        w = v * sixth + HALF
        w = ZERO if w < ZERO else w
        out[i] = v * (ONE if w > ONE else w)


@exact
def rows_add(out: Any, rows: Any, values: Any) -> None:
    """out[rows[i]] += values[i], one after the other."""
    for i in range(rows.size):
        r = rows[i]
        for k in range(out.shape[1]):
            out[r, k] += values[i, k]


@exact
def to_float16(x: Any, out: Any) -> None:
    """The bits of float32 numbers rounded to the nearest, the even one of two, in float16's bits."""
    for i in range(x.size):
        u: Any = np.int64(x[i])
        sign, u = (u >> 16) & 0x8000, u & 0x7FFFFFFF
        shift: Any = min(
            max(126 - (u >> 23), 0), 25
        )  # below float16's normal numbers: where its last bit stands
        whole = (u & 0x7FFFFF) | 0x800000
        small = (whole + (1 << shift >> 1) - 1 + ((whole >> shift) & 1)) >> shift
        normal = (u - (112 << 23) + 0xFFF + ((u >> 13) & 1)) >> 13
        y = small if u < 113 << 23 else normal
        y = y if u < 143 << 23 else (0x7C00 if u <= 0x7F800000 else 0x7E00)
        out[i] = y | sign


@exact
def to_bfloat16(x: Any, out: Any) -> None:
    """The same in bfloat16's bits."""
    for i in range(x.size):
        u: Any = np.int64(x[i])
        y = (u + 0x7FFF + ((u >> 16) & 1)) >> 16
        out[i] = y if (u & 0x7FFFFFFF) <= 0x7F800000 else (u >> 16) | 0x40


@exact
def cumsum(x: Any, out: Any) -> None:
    """Of (a, n, b) along n."""
    for i in range(x.shape[0]):
        if x.shape[2] == 1:  # what is carried on stays in a register
            total = x[i, 0, 0]
            out[i, 0, 0] = total
            for j in range(1, x.shape[1]):
                total = total + x[i, j, 0]
                out[i, j, 0] = total
            continue
        for k in range(x.shape[2]):
            out[i, 0, k] = x[i, 0, k]
        for j in range(1, x.shape[1]):
            for k in range(x.shape[2]):
                out[i, j, k] = out[i, j - 1, k] + x[i, j, k]


@exact
def cumprod(x: Any, out: Any) -> None:
    """Of (a, n, b) along n."""
    for i in range(x.shape[0]):
        if x.shape[2] == 1:  # what is carried on stays in a register
            total = x[i, 0, 0]
            out[i, 0, 0] = total
            for j in range(1, x.shape[1]):
                total = total * x[i, j, 0]
                out[i, j, 0] = total
            continue
        for k in range(x.shape[2]):
            out[i, 0, k] = x[i, 0, k]
        for j in range(1, x.shape[1]):
            for k in range(x.shape[2]):
                out[i, j, k] = out[i, j - 1, k] * x[i, j, k]


@njit(inline="always")
def _double(high: Any, low: Any) -> Any:
    """A number in [0, 1) of 53 bits, from two words."""
    return np.float64(high & np.uint32(0x1FFFFF)) * 2.0**-21 + np.float64(low) * 2.0**-53


@exact
def gammas(alphas: Any, words: Any, spare: float, out: Any) -> Any:
    """Gamma numbers of these shapes by Marsaglia and Tsang's method, as far as the random words last.

    spare: the normal number that is left over, or NaN. Returns (how many were made, words used, spare).
    """
    used = 0
    for i in range(alphas.size):
        at, left = used, spare
        alpha, scale = alphas[i], 1.0
        if alpha == 0:
            out[i] = 0.0
            continue
        if alpha < 1:
            if at + 2 > words.size:
                return i, used, spare
            scale = (1 - _double(words[at], words[at + 1])) ** (1 / alpha)
            at += 2
            alpha += 1
        d = alpha - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            if at + 6 > words.size:
                return i, used, spare
            if left == left:
                x, left = left, np.nan
            else:
                angle = 2.0 * math.pi * _double(words[at], words[at + 1])
                radius = math.sqrt(-2.0 * math.log1p(-_double(words[at + 2], words[at + 3])))
                x, left = radius * math.cos(angle), radius * math.sin(angle)
                at += 4
            y = 1 + c * x
            if y <= 0:
                continue
            v, u = y * y * y, 1 - _double(words[at], words[at + 1])
            at += 2
            if u < 1 - 0.0331 * x**4 or math.log(u) < 0.5 * x * x + d * (1 - v + math.log(v)):
                break
        out[i] = scale * d * v
        used, spare = at, left
    return alphas.size, used, spare


@exact
def poissons(rates: Any, words: Any, spare: float, out: Any) -> Any:
    """Poisson counts of these rates, by the methods of tensor/generator_sampling.py. As `gammas` otherwise."""
    used = 0
    for i in range(rates.size):
        at, rate = used, rates[i]
        if rate >= 10:
            b = 0.931 + 2.53 * math.sqrt(rate)
            a = -0.059 + 0.02483 * b
            inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
            accept_at_once = 0.9277 - 3.6224 / (b - 2)
            while True:
                if at + 4 > words.size:
                    return i, used, spare
                u, v = _double(words[at], words[at + 1]) - 0.5, _double(words[at + 2], words[at + 3])
                at += 4
                distance = 0.5 - abs(u)
                if distance == 0:
                    continue
                k = math.floor((2 * a / distance + b) * u + rate + 0.43)
                if distance >= 0.07 and v <= accept_at_once:
                    break
                if k < 0 or (distance < 0.013 and v > distance):
                    continue
                density = k * math.log(rate) - rate - math.lgamma(k + 1)
                if v == 0 or math.log(v * inverse_alpha / (a / distance**2 + b)) <= density:
                    break
            out[i] = k
        elif rate == 0:
            out[i] = 0.0
        else:
            count, product, least = -1, 1.0, math.exp(-rate)
            while product > least:
                if at + 2 > words.size:
                    return i, used, spare
                product *= _double(words[at], words[at + 1])
                at += 2
                count += 1
            out[i] = count
        used = at
    return rates.size, used, spare


@rounded
def layer_norm(x: Any, weight: Any, bias: Any, eps: Any, y: Any, normal: Any, scale: Any) -> None:
    rows, width = x.shape
    share = ONE / F(width)
    for i in range(rows):
        total = ZERO
        for k in range(width):
            total += x[i, k]
        mean = total * share
        square = ZERO
        for k in range(width):
            d = x[i, k] - mean
            square += d * d
        r = ONE / np.sqrt(square * share + eps)
        scale[i, 0] = r
        for k in range(width):
            n = (x[i, k] - mean) * r
            normal[i, k] = n
            y[i, k] = n * weight[k] + bias[k]


@rounded
def layer_norm_backward(g: Any, weight: Any, normal: Any, scale: Any, dx: Any, dw: Any, db: Any) -> None:
    rows, width = g.shape
    share = ONE / F(width)
    dw[:] = ZERO
    db[:] = ZERO
    for i in range(rows):
        first = ZERO
        second = ZERO
        for k in range(width):
            n = normal[i, k]
            d = g[i, k]
            dw[k] += d * n
            db[k] += d
            h = d * weight[k]
            first += h
            second += h * n
        first *= share
        second *= share
        r = scale[i, 0]
        for k in range(width):
            dx[i, k] = r * (g[i, k] * weight[k] - first - normal[i, k] * second)


@rounded
def lstm_add(gates: Any, add: Any) -> None:
    """gates (n, 4 size: input, forget, candidate, output) += add; halved where a sigmoid follows, made of a tanh."""
    n, size = gates.shape[0], gates.shape[1] // 4
    for r in range(n):
        for k in range(2 * size):
            gates[r, k] = HALF * (gates[r, k] + add[r, k])
        for k in range(2 * size, 3 * size):
            gates[r, k] += add[r, k]
        for k in range(3 * size, 4 * size):
            gates[r, k] = HALF * (gates[r, k] + add[r, k])


@rounded
def lstm_cell(gates: Any, c: Any, c_before: Any) -> None:
    """Hyperbolic tangents become gates; c moves on."""
    n, size = c_before.shape
    for r in range(n):
        for k in range(2 * size):
            gates[r, k] = HALF + HALF * gates[r, k]
        for k in range(3 * size, 4 * size):
            gates[r, k] = HALF + HALF * gates[r, k]
        for k in range(size):
            c_before[r, k] = c[r, k]
        for k in range(size):
            c[r, k] = gates[r, size + k] * c_before[r, k] + gates[r, k] * gates[r, 2 * size + k]


@rounded
def lstm_cell_backward(
    gates: Any, c_before: Any, tanh_c: Any, dy: Any, dh: Any, dc: Any, dgates: Any
) -> None:
    """The gradients of the gates before their nonlinearities; dc moves back in time, dh is left to the product."""
    n, size = c_before.shape
    for r in range(n):
        for k in range(size):
            i, f = gates[r, k], gates[r, size + k]
            z, o = gates[r, 2 * size + k], gates[r, 3 * size + k]
            t = tanh_c[r, k]
            d = dh[r, k] + dy[r, k]
            s = dc[r, k] + d * o * (ONE - t * t)
            dgates[r, k] = s * z * i * (ONE - i)
            dgates[r, size + k] = s * c_before[r, k] * f * (ONE - f)
            dgates[r, 2 * size + k] = s * i * (ONE - z * z)
            dgates[r, 3 * size + k] = d * t * o * (ONE - o)
            dc[r, k] = s * f


@rounded
def attention_weights(scores: Any, factor: Any, causal: Any, total: Any) -> None:
    """Exponentials of factor * scores, less the row's largest, in place; 0 where query i may not see key k > i."""
    batches, queries, keys = scores.shape
    for b in range(batches):
        for i in range(queries):
            seen = min(keys, i + 1) if causal else keys
            row = scores[b, i]
            top = row[0]
            for k in range(seen):
                top = row[k] if row[k] > top else top
            s = ZERO
            for k in range(seen):
                v = _exp((row[k] - top) * factor)
                row[k] = v
                s += v
            for k in range(seen, keys):
                row[k] = ZERO
            total[b * queries + i] = s


@rounded
def attention_slopes(ds: Any, e: Any, g: Any, y: Any, factor: Any) -> None:
    """ds = factor * e * (ds - g . y of the row), in place; all (rows, width)."""
    for i in range(ds.shape[0]):
        inner = ZERO
        for k in range(g.shape[1]):
            inner += g[i, k] * y[i, k]
        for k in range(ds.shape[1]):
            ds[i, k] = (ds[i, k] - inner) * e[i, k] * factor


@rounded
def sgd(p: Any, g: Any, lr: Any, decay: Any) -> None:
    for i in range(p.size):
        p[i] -= lr * (g[i] + decay * p[i])


@rounded
def momentum(p: Any, g: Any, v: Any, lr: Any, decay: Any, keep: Any, add: Any, nesterov: Any) -> None:
    for i in range(p.size):
        d = g[i] + decay * p[i]
        w = keep * v[i] + add * d
        v[i] = w
        p[i] -= lr * (d + keep * w if nesterov else w)


@rounded
def adam(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    decay: Any,
    rest1: Any,
    beta2: Any,
    rest2: Any,
    rate: Any,
    eps: Any,
    shrink: Any,
) -> None:
    for i in range(p.size):
        q = p[i]
        d = g[i] + decay * q
        a = m[i] + rest1 * (d - m[i])
        b = v[i] * beta2 + rest2 * d * d
        m[i] = a
        v[i] = b
        p[i] = q * shrink - rate * a / (np.sqrt(b) + eps)
