"""Convolutions with windows of 3 x 3 by Winograd's algorithm: 36 products for 16 results in place of 144.

Between the loops (tiles.py) lie 36 matrix products over the channels. Images are taken a few at a time, so that their
tiles stay in the cache. Results differ from direct sums by some 1e-5 of the largest; one pixel that is not finite
makes the whole tiles of 4 x 4 results around it so.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from . import gemm, looped
from . import library as onednn
from .library import DST, SRC, Step

F32 = np.dtype("float32")
Ints = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[Pair, ...]  # before and after, of both dimensions
PLACES = 36
TILES = 64  # at a time, at least: thin products are slow
WEIGHTS_AT_ONCE = 1 << 20  # transformed ones, which stay in the cache
APART = 16  # numbers between one place and the next, so that the 36 do not push each other out of the cache
GAIN = 1.2  # that the costs must promise
# Costs in multiplications and additions of a direct convolution: of those within products, and for each number that
# is moved between pixels and tiles, or between weights and theirs. Measured on a processor with AVX-512.
PRODUCT, TILE, WEIGHT = 1.1, 50, 100

_lock = threading.Lock()  # held while the buffers are in use
_buffers: dict[str, Any] = {}


@lru_cache(maxsize=1024)
def worth(n: int, c: int, k: int, size: Pair, threads: int) -> bool:
    """Whether this is faster than a direct convolution to n images of k channels and this size, from c channels."""
    tiles = n * -(-size[0] // 4) * -(-size[1] // 4)
    direct = 18 * n * size[0] * size[1] * c * k / threads
    products = PRODUCT * 72 * tiles * c * k / threads
    return direct > GAIN * (products + PLACES * (TILE * tiles * (c + k) + WEIGHT * c * k))


@lru_cache(maxsize=256)
def _copy(shape: Ints, source: Ints, target: Ints) -> Any:
    """A copy between arrays of 4 dimensions with these strides in elements: (library, step, the two memories)."""
    library = onednn.load()
    assert library is not None
    layouts = [library.layout(shape, strides=strides) for strides in (source, target)]
    memories = [library.memory(layout) for layout in layouts]
    engines = (layouts[0], library.engine, layouts[1], library.engine, None)
    description = library.made(library.dnnl.dnnl_reorder_primitive_desc_create, *engines)
    primitive = library.made(library.dnnl.dnnl_primitive_create, description)
    return library, Step(library, primitive, {SRC: memories[0], DST: memories[1]}), memories


def _elements(x: Any) -> Ints:
    return tuple(s // 4 for s in x.strides)


def _assign(target: Any, source: Any) -> None:
    """target[...] = source."""
    library, step, memories = _copy(source.shape, _elements(source), _elements(target))
    dnnl = library.dnnl
    with library.lock:
        library.set_threads(library.threads)
        for memory, array in zip(memories, (source, target)):
            dnnl.dnnl_memory_set_data_handle(memory, array.__array_interface__["data"][0])
        if status := dnnl.dnnl_primitive_execute(*step.call):
            raise RuntimeError(f"[oneDNN] the copy must run, came status {status}")


def _step(rows: int, columns: int) -> int:
    """Numbers from one place to the next."""
    return rows * columns + APART


@lru_cache(maxsize=256)
def _products(rows: int, inner: int, columns: int, turned: bool, threads: int) -> Callable[..., Any]:
    """run(a, b, out): 36 products of (rows, inner) and (inner, columns); turned: the first lies as (inner, rows)."""
    forms = (
        ((PLACES, rows, inner), (_step(rows, inner), *((1, rows) if turned else (inner, 1)))),
        ((PLACES, inner, columns), (_step(inner, columns), columns, 1)),
        ((PLACES, rows, columns), (_step(rows, columns), columns, 1)),
    )
    found = gemm.kernel(*forms, False, onednn.F32, threads)
    if found is not None:
        return found.run

    def run(*flat: Any) -> None:
        a, b, out = (
            np.lib.stride_tricks.as_strided(x, shape, tuple(4 * s for s in strides))
            for x, (shape, strides) in zip(flat, forms)
        )
        np.matmul(a, b, out=out)

    return run


def _buffer(name: str, *shape: int) -> Any:
    """Memory that stays from call to call, with whatever was in it."""
    size = math.prod(shape)
    found = _buffers.get(name)
    if found is None or found.size < size:
        found = _buffers[name] = np.empty(size, F32)
    return found[:size].reshape(shape)


class Winograd:
    """A convolution of n images, by `pads` (above, to the left) wider, to ones of a size."""

    def __init__(self, n: int, size: Pair, pads: Pair, threads: int) -> None:
        self.n, self.size, self.pads, self.threads = n, size, pads, threads
        self.down, self.across = -(-size[0] // 4), -(-size[1] // 4)

    def convolve(self, turned: bool, x: Any, w: Any, *bias_out: Any) -> Any:
        """out (n, k, height, width) from x (n, c, h, w) and w (k, c, 3, 3), or for turned ones (c, k, 3, 3)."""
        from . import tiles

        *bias, out = bias_out
        weights, (c, k) = w.reshape(*w.shape[:2], 9), (x.shape[1], out.shape[1])
        add = bias[0] if bias else np.zeros(k, F32)
        with _lock:
            for first, width in self._outputs(c, k):
                u, step = _buffer("weights", PLACES * _step(c, width)), _step(c, width)
                tiles.kernel_places(weights, turned, first, width, u, step)
                for start, count, rows in self._images():
                    v, m = (
                        self._spread(tiles, x, start, count, first),
                        _buffer("products", PLACES * _step(rows, width)),
                    )
                    _products(rows, c, width, False, self.threads)(v, u, m)
                    made = _buffer("results", count, 4 * self.down, 4 * self.across, width)
                    shift = add[first : first + width]
                    tiles.output_images(m, _step(rows, width), shift, self.down, self.across, made)
                    part = made[:, : self.size[0], : self.size[1]].transpose(0, 3, 1, 2)
                    _assign(out[start : start + count, first : first + width], part)
        return out

    def weight(self, gy: Any, x: Any, out: Any) -> Any:
        """The gradient for the weight, (k, c, 3, 3)."""
        from . import tiles

        c, k = x.shape[1], gy.shape[1]
        with _lock:
            for first, width in self._outputs(c, k):
                step = _step(c, width)
                u = _buffer("weights", PLACES * step)
                for start, count, rows in self._images():
                    v, z = (
                        self._spread(tiles, x, start, count, first),
                        _buffer("products", PLACES * _step(rows, width)),
                    )
                    slopes = _buffer("results", count, 4 * self.down, 4 * self.across, width)
                    _framed(slopes, gy[start : start + count, first : first + width], 0, 0)
                    tiles.gradient_tiles(slopes, self.down, self.across, z, _step(rows, width))
                    part = _buffer("part", PLACES * step) if start else u
                    _products(c, rows, width, True, self.threads)(v, z, part)
                    if start:
                        np.add(u, part, out=u)
                tiles.kernel_gradient(u, step, first, width, out.reshape(k, c, 9))
        return out

    def _outputs(self, c: int, k: int) -> list[Pair]:
        """(first, count) of the output channels whose transformed weights are made at once."""
        block = max(16, WEIGHTS_AT_ONCE // (PLACES * c) // 16 * 16)
        return [(first, min(block, k - first)) for first in range(0, k, block)]

    def _images(self) -> list[tuple[int, int, int]]:
        """(first, count, tiles) of the images that are taken at once."""
        tiles = self.down * self.across
        many = -(-TILES // tiles)
        counts = [(start, min(many, self.n - start)) for start in range(0, self.n, many)]
        return [(start, count, count * tiles) for start, count in counts]

    def _spread(self, tiles: Any, x: Any, start: int, count: int, first: int) -> Any:
        """The input's tiles, which for later channels of the output are still there if there are no other images."""
        c, rows = x.shape[1], count * self.down * self.across
        v = _buffer("tiles", PLACES * _step(rows, c))
        if first and count == self.n:
            return v
        images = _buffer("images", count, 4 * self.down + 2, 4 * self.across + 2, c)
        _framed(images, x[start : start + count], *self.pads)
        tiles.input_tiles(images, self.down, self.across, v, _step(rows, c))
        return v


def _framed(images: Any, x: Any, top: int, left: int) -> None:
    """images (n, rows, columns, c) become x (n, c, height, width), `top` and `left` inside, and zeros around."""
    below, right = top + x.shape[2], left + x.shape[3]
    for edge in (images[:, :top], images[:, below:], images[:, :, :left], images[:, :, right:]):
        edge[...] = 0
    _assign(images[:, top:below, left:right].transpose(0, 3, 1, 2), x)


@lru_cache(maxsize=512)
def runner(
    kind: str,
    x: Ints,
    w: Ints,
    y: Ints,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
    bias: bool,
    threads: int,
) -> Callable[..., Any] | None:
    """run(x, w[, bias], out) for kind forward, (gy, w, out) for input, (gy, x, out) for weight, on contiguous arrays of
    float32; None where this does not apply or not pay."""
    plain = w[2:] == (3, 3) and stride == dilation == (1, 1) and groups == 1 and max(map(max, padding)) <= 2
    if not plain or (w[0] | w[1]) % 16 or looped.loops() is None:
        return None
    (top, _), (left, _) = padding
    ins, outs, (height, width), pads = w[1], w[0], y[2:], (top, left)
    if kind == "input":  # the convolution of that for the output with the weight turned around
        ins, outs, (height, width), pads = outs, ins, x[2:], (2 - top, 2 - left)
    if not worth(x[0], ins, outs, (height, width), threads):
        return None
    made = Winograd(x[0], (height, width), pads, threads)
    if kind == "weight":
        return made.weight
    turned = kind == "input"
    return lambda *arrays: made.convolve(turned, *arrays)
