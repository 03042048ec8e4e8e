"""Loops of Winograd's convolution F(4x4, 3x3), compiled by numba: between images of pixels and products of tiles.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015: y = A^T ((G w G^T) * (B^T d B)) A for
a tile d of 6 x 6 pixels, its 4 x 4 results y, and the points 0, 1, -1, 2, -2 and infinity. Channels lie last, so that
each loop runs over many of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .loops import F, inner, rounded

QUARTER, SIXTH, TWELFTH, TWENTYFOURTH = F(1 / 4), F(1 / 6), F(1 / 12), F(1 / 24)
TWO, FOUR, FIVE, EIGHT = F(2), F(4), F(5), F(8)
BLOCK = 1024  # numbers


@inner
def _g(a: Any, b: Any, c: Any, y: Any, at: Any, step: Any) -> None:
    """Rows at, at + step ... of y become G (a, b, c)."""
    for i in range(a.size):
        y[at, i] = QUARTER * a[i]
        ends, middle = -SIXTH * (a[i] + c[i]), SIXTH * b[i]
        y[at + step, i] = ends - middle
        y[at + 2 * step, i] = ends + middle
        ends, middle = TWENTYFOURTH * a[i] + SIXTH * c[i], TWELFTH * b[i]
        y[at + 3 * step, i] = ends + middle
        y[at + 4 * step, i] = ends - middle
        y[at + 5 * step, i] = c[i]


@rounded
def weights(w: Any, u: Any) -> None:
    """w (9, n) to u (36, n)."""
    part = np.empty((18, BLOCK), F)
    for start in range(0, w.shape[1], BLOCK):
        n = min(BLOCK, w.shape[1] - start)
        span = slice(start, start + n)
        for j in range(3):
            _g(w[j, span], w[3 + j, span], w[6 + j, span], part, j, 3)
        for i in range(6):
            _g(part[3 * i, :n], part[3 * i + 1, :n], part[3 * i + 2, :n], u[:, span], 6 * i, 1)


@rounded
def _b(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, y: Any) -> None:
    """y, six rows, becomes B^T (a, ..., f); a loop each, as they vectorise with one array written."""
    n = a.size
    y0, y1, y2, y3, y4, y5 = y
    for i in range(n):
        y0[i] = FOUR * a[i] - FIVE * c[i] + e[i]
    for i in range(n):
        y1[i] = d[i] + e[i] - FOUR * (b[i] + c[i])
    for i in range(n):
        y2[i] = e[i] - d[i] + FOUR * (b[i] - c[i])
    for i in range(n):
        y3[i] = TWO * (d[i] - b[i]) + e[i] - c[i]
    for i in range(n):
        y4[i] = TWO * (b[i] - d[i]) + e[i] - c[i]
    for i in range(n):
        y5[i] = FOUR * b[i] - FIVE * d[i] + f[i]


@rounded
def spread(x: Any, v: Any) -> None:
    """Images x (n, 4 th + 2, 4 tw + 2, c), with their padding, to tiles v (36, n th tw, c)."""
    images, height, width, c = x.shape
    tw = (width - 2) // 4
    rows = np.empty((6, width * c), F)
    t = 0
    for image in range(images):
        for top in range(0, height - 2, 4):
            d = x[image, top : top + 6].reshape(6, width * c)
            _b(d[0], d[1], d[2], d[3], d[4], d[5], (rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]))
            for left in range(0, 4 * tw * c, 4 * c):
                for i in range(6):
                    r = rows[i, left : left + 6 * c].reshape(6, c)
                    j = 6 * i
                    made = (v[j, t], v[j + 1, t], v[j + 2, t], v[j + 3, t], v[j + 4, t], v[j + 5, t])
                    _b(r[0], r[1], r[2], r[3], r[4], r[5], made)
                t += 1


@rounded
def _a(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, y: Any) -> None:
    """y, four rows, becomes A^T (a, ..., f)."""
    n = a.size
    y0, y1, y2, y3 = y
    for i in range(n):
        y0[i] = a[i] + (b[i] + c[i]) + (d[i] + e[i])
    for i in range(n):
        y1[i] = (b[i] - c[i]) + TWO * (d[i] - e[i])
    for i in range(n):
        y2[i] = (b[i] + c[i]) + FOUR * (d[i] + e[i])
    for i in range(n):
        y3[i] = (b[i] - c[i]) + EIGHT * (d[i] - e[i]) + f[i]


@rounded
def gather(m: Any, bias: Any, y: Any) -> None:
    """Products m (36, n th tw k) to images y (n, 4 th, 4 tw, k), plus bias (k)."""
    images, height, width, k = y.shape
    span = width // 4 * k
    rows = np.empty((4, 6, span), F)
    t = 0
    for image in range(images):
        for top in range(0, height, 4):
            here = slice(t, t + span)
            for j in range(6):
                made = (rows[0, j], rows[1, j], rows[2, j], rows[3, j])
                _a(
                    m[j, here],
                    m[6 + j, here],
                    m[12 + j, here],
                    m[18 + j, here],
                    m[24 + j, here],
                    m[30 + j, here],
                    made,
                )
            for i in range(4):
                line, r = y[image, top + i], rows[i]
                for left in range(width // 4):
                    x, at = 4 * left, slice(left * k, (left + 1) * k)
                    made = (line[x], line[x + 1], line[x + 2], line[x + 3])
                    _a(r[0, at], r[1, at], r[2, at], r[3, at], r[4, at], r[5, at], made)
                for x in range(width):
                    pixel = line[x]
                    for o in range(k):
                        pixel[o] += bias[o]
            t += span
