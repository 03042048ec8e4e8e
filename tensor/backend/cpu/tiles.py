"""Loops of Winograd's convolution F(4x4, 3x3), compiled by numba: between images of pixels and products of tiles.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015: y = A^T ((G w G^T) * (B^T d B)) A for
a tile d of 6 x 6 pixels, its 4 x 4 results y, and the points 0, 1, -1, 2, -2 and infinity. Images (n, rows, columns, C)
have their channels last, in sixteens, and zeros around them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from .lanes import WIDTH, load, store, times

F = np.float32
compiled = njit(cache=True, fastmath={"contract"}, error_model="numpy", nogil=True)
part = njit(forceinline=True, fastmath={"contract"}, error_model="numpy")


@part
def _of_input(line: Any) -> Any:
    a, b, c, d, e, f = line
    p, q = e - times(c, F(4)), d - times(b, F(4))
    r, s = e - c, times(d - b, F(2))
    return (
        times(a, F(4)) - times(c, F(5)) + e,
        p + q,
        p - q,
        r + s,
        r - s,
        times(b, F(4)) - times(d, F(5)) + f,
    )


@part
def _to_output(line: Any) -> Any:
    a, b, c, d, e, f = line
    p, q, r, s = b + c, b - c, d + e, d - e
    return a + p + r, q + times(s, F(2)), p + times(r, F(4)), q + times(s, F(8)) + f


@part
def _of_output(line: Any) -> Any:
    a, b, c, d = line
    p, q, r, s = a + c, b + d, a + times(c, F(4)), times(b, F(2)) + times(d, F(8))
    return a, p + q, p - q, r + s, r - s, d


@part
def _of_kernel(line: Any) -> Any:
    a, b, c = line
    p, q, r = times(a + c, F(-1 / 6)), times(b, F(-1 / 6)), times(a, F(1 / 24)) + times(c, F(1 / 6))
    s = times(b, F(1 / 12))
    return times(a, F(1 / 4)), p + q, p - q, r + s, r - s, c


@part
def _to_kernel(line: Any) -> Any:
    a, b, c, d, e, f = line
    p, q = times(b + c, F(-1 / 6)), d + e
    return (
        times(a, F(1 / 4)) + p + times(q, F(1 / 24)),
        times(c - b, F(1 / 6)) + times(d - e, F(1 / 12)),
        p + times(q, F(1 / 6)) + f,
    )


@part
def _six(x: Any, at: Any, step: Any) -> Any:
    return (
        load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step), load(x, at + 4 * step),
        load(x, at + 5 * step),
    )  # fmt: skip


@part
def _put_six(x: Any, at: Any, step: Any, v: Any) -> None:
    store(x, at, v[0])
    store(x, at + step, v[1])
    store(x, at + 2 * step, v[2])
    store(x, at + 3 * step, v[3])
    store(x, at + 4 * step, v[4])
    store(x, at + 5 * step, v[5])


@compiled
def input_tiles(images: Any, down: int, across: int, v: Any, step: int) -> None:
    """B^T d B of each tile, into (36, n * down * across, C) with places `step` apart."""
    count, rows, columns, channels = images.shape
    x = images.reshape(-1)
    line = columns * channels
    for n in range(count):
        for i in range(down):
            for j in range(across):
                start = ((n * rows + 4 * i) * columns + 4 * j) * channels
                to = ((n * down + i) * across + j) * channels
                for c in range(0, channels, WIDTH):
                    at = start + c
                    r0 = _of_input(_six(x, at, channels))
                    r1 = _of_input(_six(x, at + line, channels))
                    r2 = _of_input(_six(x, at + 2 * line, channels))
                    r3 = _of_input(_six(x, at + 3 * line, channels))
                    r4 = _of_input(_six(x, at + 4 * line, channels))
                    r5 = _of_input(_six(x, at + 5 * line, channels))
                    six = 6 * step
                    _put_six(v, to + c, six, _of_input((r0[0], r1[0], r2[0], r3[0], r4[0], r5[0])))
                    _put_six(v, to + c + step, six, _of_input((r0[1], r1[1], r2[1], r3[1], r4[1], r5[1])))
                    _put_six(v, to + c + 2 * step, six, _of_input((r0[2], r1[2], r2[2], r3[2], r4[2], r5[2])))
                    _put_six(v, to + c + 3 * step, six, _of_input((r0[3], r1[3], r2[3], r3[3], r4[3], r5[3])))
                    _put_six(v, to + c + 4 * step, six, _of_input((r0[4], r1[4], r2[4], r3[4], r4[4], r5[4])))
                    _put_six(v, to + c + 5 * step, six, _of_input((r0[5], r1[5], r2[5], r3[5], r4[5], r5[5])))


@part
def _put_four(x: Any, at: Any, step: Any, v: Any, add: Any) -> None:
    store(x, at, v[0] + add)
    store(x, at + step, v[1] + add)
    store(x, at + 2 * step, v[2] + add)
    store(x, at + 3 * step, v[3] + add)


@compiled
def output_images(m: Any, step: int, bias: Any, down: int, across: int, images: Any) -> None:
    """A^T m A of each tile of (36, n * down * across, C), plus bias (C), into (n, 4 down, 4 across, C)."""
    count, rows, columns, channels = images.shape
    y = images.reshape(-1)
    line = columns * channels
    for n in range(count):
        for i in range(down):
            for j in range(across):
                start = ((n * rows + 4 * i) * columns + 4 * j) * channels
                of = ((n * down + i) * across + j) * channels
                for c in range(0, channels, WIDTH):
                    at, to, add = of + c, start + c, load(bias, c)
                    r0 = _to_output(_six(m, at, step))
                    r1 = _to_output(_six(m, at + 6 * step, step))
                    r2 = _to_output(_six(m, at + 12 * step, step))
                    r3 = _to_output(_six(m, at + 18 * step, step))
                    r4 = _to_output(_six(m, at + 24 * step, step))
                    r5 = _to_output(_six(m, at + 30 * step, step))
                    _put_four(y, to, line, _to_output((r0[0], r1[0], r2[0], r3[0], r4[0], r5[0])), add)
                    _put_four(
                        y, to + channels, line, _to_output((r0[1], r1[1], r2[1], r3[1], r4[1], r5[1])), add
                    )
                    _put_four(
                        y,
                        to + 2 * channels,
                        line,
                        _to_output((r0[2], r1[2], r2[2], r3[2], r4[2], r5[2])),
                        add,
                    )
                    _put_four(
                        y,
                        to + 3 * channels,
                        line,
                        _to_output((r0[3], r1[3], r2[3], r3[3], r4[3], r5[3])),
                        add,
                    )


@part
def _four(x: Any, at: Any, step: Any) -> Any:
    return load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step)


@compiled
def gradient_tiles(images: Any, down: int, across: int, v: Any, step: int) -> None:
    """A d A^T of each 4 x 4, into (36, n * down * across, C) with places `step` apart."""
    count, rows, columns, channels = images.shape
    x = images.reshape(-1)
    line = columns * channels
    for n in range(count):
        for i in range(down):
            for j in range(across):
                start = ((n * rows + 4 * i) * columns + 4 * j) * channels
                to = ((n * down + i) * across + j) * channels
                for c in range(0, channels, WIDTH):
                    at, six = start + c, 6 * step
                    r0 = _of_output(_four(x, at, channels))
                    r1 = _of_output(_four(x, at + line, channels))
                    r2 = _of_output(_four(x, at + 2 * line, channels))
                    r3 = _of_output(_four(x, at + 3 * line, channels))
                    _put_six(v, to + c, six, _of_output((r0[0], r1[0], r2[0], r3[0])))
                    _put_six(v, to + c + step, six, _of_output((r0[1], r1[1], r2[1], r3[1])))
                    _put_six(v, to + c + 2 * step, six, _of_output((r0[2], r1[2], r2[2], r3[2])))
                    _put_six(v, to + c + 3 * step, six, _of_output((r0[3], r1[3], r2[3], r3[3])))
                    _put_six(v, to + c + 4 * step, six, _of_output((r0[4], r1[4], r2[4], r3[4])))
                    _put_six(v, to + c + 5 * step, six, _of_output((r0[5], r1[5], r2[5], r3[5])))


@compiled
def kernel_places(w: Any, turned: bool, first: int, outs: int, u: Any, step: int) -> None:
    """G g G^T of kernels (O, C, 9), for `outs` of their outputs, into (36, C, outs) with places `step` apart.

    turned: of the kernels for the gradient of the input, whose outputs are C.
    """
    ins = w.shape[0] if turned else w.shape[1]
    nine = np.empty(9 * WIDTH, np.float32)
    for b in range(0, outs, WIDTH):
        for a in range(ins):
            for k in range(WIDTH):
                for p in range(9):
                    nine[p * WIDTH + k] = w[a, first + b + k, 8 - p] if turned else w[first + b + k, a, p]
            r0 = _of_kernel(_three(nine, 0))
            r1 = _of_kernel(_three(nine, 3 * WIDTH))
            r2 = _of_kernel(_three(nine, 6 * WIDTH))
            to, six = a * outs + b, 6 * step
            _put_six(u, to, six, _of_kernel((r0[0], r1[0], r2[0])))
            _put_six(u, to + step, six, _of_kernel((r0[1], r1[1], r2[1])))
            _put_six(u, to + 2 * step, six, _of_kernel((r0[2], r1[2], r2[2])))
            _put_six(u, to + 3 * step, six, _of_kernel((r0[3], r1[3], r2[3])))
            _put_six(u, to + 4 * step, six, _of_kernel((r0[4], r1[4], r2[4])))
            _put_six(u, to + 5 * step, six, _of_kernel((r0[5], r1[5], r2[5])))


@part
def _three(x: Any, at: Any) -> Any:
    return load(x, at), load(x, at + WIDTH), load(x, at + 2 * WIDTH)


@part
def _put_three(x: Any, at: Any, v: Any) -> None:
    store(x, at, v[0])
    store(x, at + 3 * WIDTH, v[1])
    store(x, at + 6 * WIDTH, v[2])


@compiled
def kernel_gradient(u: Any, step: int, first: int, outs: int, w: Any) -> None:
    """G^T u G of (36, C, outs), places `step` apart, into that many outputs of (O, C, 9)."""
    ins = w.shape[1]
    nine = np.empty(9 * WIDTH, np.float32)
    for b in range(0, outs, WIDTH):
        for a in range(ins):
            at = a * outs + b
            r0 = _to_kernel(_six(u, at, step))
            r1 = _to_kernel(_six(u, at + 6 * step, step))
            r2 = _to_kernel(_six(u, at + 12 * step, step))
            r3 = _to_kernel(_six(u, at + 18 * step, step))
            r4 = _to_kernel(_six(u, at + 24 * step, step))
            r5 = _to_kernel(_six(u, at + 30 * step, step))
            _put_three(nine, 0, _to_kernel((r0[0], r1[0], r2[0], r3[0], r4[0], r5[0])))
            _put_three(nine, WIDTH, _to_kernel((r0[1], r1[1], r2[1], r3[1], r4[1], r5[1])))
            _put_three(nine, 2 * WIDTH, _to_kernel((r0[2], r1[2], r2[2], r3[2], r4[2], r5[2])))
            for k in range(WIDTH):
                for p in range(9):
                    w[first + b + k, a, p] = nine[p * WIDTH + k]
