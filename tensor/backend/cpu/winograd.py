"""Convolutions with windows of 3 x 3 by Winograd's algorithm: 36 products for 16 results in place of 144.

Between the loops (tiles.py) lie 36 matrix products over the channels. Images are taken a few at a time, so that their
tiles stay in the cache. Results differ from direct sums by some 1e-5 of the largest; one pixel that is not finite
makes the whole tiles of 4 x 4 results around it so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from . import gemm, looped
from . import library as onednn
from .library import DST, SRC, Step

F32 = np.dtype("float32")
Ints = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[Pair, ...]  # before and after, of both dimensions
CACHE = 3 << 19  # bytes
GAIN = 1.2  # that the costs must promise
# Costs in multiplications and additions of a direct convolution: of those within products, and for each number that
# is moved between pixels and tiles, or between weights and theirs. Measured on a processor with AVX-512.
PRODUCT, TILE, WEIGHT = 1.25, 100, 150


@lru_cache(maxsize=1024)
def worth(n: int, c: int, k: int, size: Pair, threads: int) -> bool:
    """Whether this is faster than a direct convolution to n images of k channels and this size, from c channels."""
    tiles = n * -(-size[0] // 4) * -(-size[1] // 4)
    direct = 18 * n * size[0] * size[1] * c * k / threads
    products = PRODUCT * 72 * tiles * c * k / threads
    return direct > GAIN * (products + 36 * (TILE * tiles * (c + k) + WEIGHT * c * k))


@lru_cache(maxsize=256)
def _copy(shape: Ints, source: Ints, target: Ints) -> Any:
    """A copy between arrays of 4 dimensions with these strides in elements: (library, step, the two memories)."""
    library = onednn.load()
    assert library is not None
    dnnl, dims = library.dnnl, onednn.Dims
    make = dnnl.dnnl_memory_desc_create_with_strides
    layouts = [
        library.made(make, 4, dims(*shape), onednn.F32, dims(*strides)) for strides in (source, target)
    ]
    memories = [library.memory(layout) for layout in layouts]
    engines = (layouts[0], library.engine, layouts[1], library.engine, None)
    description = library.made(dnnl.dnnl_reorder_primitive_desc_create, *engines)
    return library, Step(library, description, {SRC: memories[0], DST: memories[1]}), memories


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
    """run(x, w[, bias], out) for kind forward, (gy, w, out) for input; None where this does not apply or not pay."""
    plain = w[2:] == (3, 3) and stride == dilation == (1, 1) and groups == 1 and max(map(max, padding)) <= 2
    if kind == "weight" or not plain or looped.loops() is None:
        return None
    if kind == "forward":
        return partial(_forward, padding) if worth(x[0], w[1], w[0], y[2:], threads) else None
    rest = tuple((2 - before, 2 - after) for before, after in padding)
    return partial(_input, rest) if worth(x[0], w[0], w[1], x[2:], threads) else None


def _forward(padding: Padding, x: Any, w: Any, *bias_out: Any) -> Any:
    *bias, out = bias_out
    return convolve(x, w.transpose(2, 3, 1, 0), bias[0] if bias else None, padding, out)


def _input(padding: Padding, gy: Any, w: Any, out: Any) -> Any:
    """The gradient for the input is the convolution of that for the output with the weight turned around."""
    return convolve(gy, w[..., ::-1, ::-1].transpose(2, 3, 0, 1), None, padding, out)


def convolve(x: Any, weight: Any, bias: Any, padding: Padding, y: Any) -> Any:
    """y (n, k, height, width) becomes x (n, c, h, w) with weight (3, 3, c, k), bias (k) or None; float32, x and y
    in row-major order.
    """
    from . import tiles

    n, c, *size = x.shape
    _, k, height, width = y.shape
    (top, _), (left, _) = padding
    th, tw = -(-height // 4), -(-width // 4)
    many = max(1, min(n, CACHE // (4 * 36 * th * tw * (c + k))))
    u = np.empty((36, c, k), F32)
    tiles.weights(np.ascontiguousarray(weight).reshape(9, c * k), u.reshape(36, c * k))
    bias = np.zeros(k, F32) if bias is None else np.ascontiguousarray(bias)
    padded = np.zeros((many, 4 * th + 2, 4 * tw + 2, c), F32)
    results = np.empty((many, 4 * th, 4 * tw, k), F32)
    v, m = np.empty((36, many * th * tw, c), F32), np.empty((36, many * th * tw, k), F32)
    for start in range(0, n, many):
        part = x[start : start + many]
        count = len(part)
        rows = count * th * tw
        _assign(padded[:count, top : top + size[0], left : left + size[1]].transpose(0, 3, 1, 2), part)
        tiles.spread(padded[:count], v)
        for a, b, product in zip(v, u, m):
            gemm.into(a[:rows], b, product[:rows])
        tiles.gather(m.reshape(36, -1), bias, results[:count])
        _assign(y[start : start + count], results[:count, :height, :width].transpose(0, 3, 1, 2))
    return y
