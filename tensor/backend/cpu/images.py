"""Compiled loops over images: batch normalisation and pooling, made as those of loops.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .loops import ONE, ZERO, F, rounded


@rounded
def moments(x: Any, mean: Any, variance: Any) -> None:
    """Mean and variance (divided by n) of each channel of (N, C, L), in two passes."""
    n, channels, length = x.shape
    share = ONE / F(n * length)
    for c in range(channels):
        total: Any = 0.0
        for i in range(n):
            part = ZERO
            for k in range(length):
                part += x[i, c, k]
            total += part
        m = F(total) * share
        square: Any = 0.0
        for i in range(n):
            part = ZERO
            for k in range(length):
                d = x[i, c, k] - m
                part += d * d
            square += part
        mean[c] = m
        variance[c] = F(square) * share


@rounded
def batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, eps: Any, relu: Any, y: Any, scale: Any
) -> None:
    n, channels, length = x.shape
    for c in range(channels):
        scale[c] = ONE / np.sqrt(variance[c] + eps)
    for i in range(n):
        for c in range(channels):
            factor = scale[c] * weight[c]
            shift = bias[c] - mean[c] * factor
            if relu:
                for k in range(length):
                    v = x[i, c, k] * factor + shift
                    y[i, c, k] = ZERO if v < ZERO else v
            else:
                for k in range(length):
                    y[i, c, k] = x[i, c, k] * factor + shift


@rounded
def batch_norm_backward(
    g: Any, x: Any, weight: Any, mean: Any, scale: Any, dx: Any, dw: Any, db: Any
) -> None:
    n, channels, length = x.shape
    share = ONE / F(n * length)
    for c in range(channels):
        m = mean[c]
        total: Any = 0.0
        product: Any = 0.0
        for i in range(n):
            a = ZERO
            b = ZERO
            for k in range(length):
                a += g[i, c, k]
                b += g[i, c, k] * (x[i, c, k] - m)
            total += a
            product += b
        p = F(product) * scale[c]
        dw[c] = p
        db[c] = F(total)
        factor = scale[c] * weight[c]
        slope = -factor * scale[c] * p * share
        shift = -factor * F(total) * share - slope * m
        for i in range(n):
            for k in range(length):
                dx[i, c, k] = g[i, c, k] * factor + x[i, c, k] * slope + shift


@njit(inline="always")
def _quarters(x: Any, y: Any, height: Any, width: Any, down: Any, right: Any, top: Any, left: Any) -> Any:
    """Windows of 2 x 2 that lie side by side, all of them inside."""
    inside = 2 * y.shape[1] <= x.shape[1] and 2 * y.shape[2] <= x.shape[2]
    return height == width == down == right == 2 and top == left == 0 and inside


@rounded
def max_pool(x: Any, height: Any, width: Any, down: Any, right: Any, top: Any, left: Any, y: Any) -> None:
    """x (planes, H, W), y (planes, h, w); windows height x width at steps down, right, begun top, left outside."""
    planes, rows, columns = x.shape
    if _quarters(x, y, height, width, down, right, top, left):
        for p in range(planes):
            for i in range(y.shape[1]):
                for j in range(y.shape[2]):
                    a, b = x[p, 2 * i, 2 * j], x[p, 2 * i, 2 * j + 1]
                    c, d = x[p, 2 * i + 1, 2 * j], x[p, 2 * i + 1, 2 * j + 1]
                    top_one = a if a > b or a != a else b
                    low_one = c if c > d or c != c else d
                    y[p, i, j] = top_one if top_one > low_one or top_one != top_one else low_one
        return
    for p in range(planes):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                best = F(-np.inf)
                for a in range(max(0, i * down - top), min(rows, i * down - top + height)):
                    for b in range(max(0, j * right - left), min(columns, j * right - left + width)):
                        v = x[p, a, b]
                        if v > best or v != v:
                            best = v
                y[p, i, j] = best


@rounded
def max_pool_backward(
    g: Any, x: Any, y: Any, height: Any, width: Any, down: Any, right: Any, top: Any, left: Any, dx: Any
) -> None:
    """The gradient goes to the first largest element of each window; to none where that is NaN."""
    planes, rows, columns = x.shape
    for p in range(planes):
        for a in range(rows):
            for b in range(columns):
                dx[p, a, b] = ZERO
        if _quarters(x, y, height, width, down, right, top, left):
            for i in range(y.shape[1]):
                for j in range(y.shape[2]):
                    best, d = y[p, i, j], g[p, i, j]
                    first = x[p, 2 * i, 2 * j] == best
                    second = (x[p, 2 * i, 2 * j + 1] == best) & (not first)
                    third = (x[p, 2 * i + 1, 2 * j] == best) & (not first) & (not second)
                    fourth = (x[p, 2 * i + 1, 2 * j + 1] == best) & (not first) & (not second) & (not third)
                    dx[p, 2 * i, 2 * j] = d if first else ZERO
                    dx[p, 2 * i, 2 * j + 1] = d if second else ZERO
                    dx[p, 2 * i + 1, 2 * j] = d if third else ZERO
                    dx[p, 2 * i + 1, 2 * j + 1] = d if fourth else ZERO
            continue
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                best = y[p, i, j]
                found = False
                for a in range(max(0, i * down - top), min(rows, i * down - top + height)):
                    for b in range(max(0, j * right - left), min(columns, j * right - left + width)):
                        if not found and x[p, a, b] == best:
                            dx[p, a, b] += g[p, i, j]
                            found = True
