"""Convolutions and their gradients by oneDNN, on float32 in one to three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from . import library as onednn
from . import winograd
from .library import BIAS, DIFF_DST, DIFF_SRC, DIFF_WEIGHTS, DST, FORWARD, SRC, WEIGHTS, Dims, Primitive

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
F32 = np.dtype("float32")
DIRECT = 1


@lru_cache(maxsize=512)
def primitive(
    kind: str,
    x: Ints,
    w: Ints,
    y: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
    bias: bool,
    threads: int,
) -> Primitive | None:
    """kind: forward (x, w[, bias], y), input (gy, w, gx) or weight (gy, x, gw); None where the library refuses it."""
    lib = onednn.load()
    assert lib is not None
    weights = (groups, w[0] // groups, *w[1:]) if groups > 1 else w
    step, spread = Dims(*stride), Dims(*[d - 1 for d in dilation])
    low, high = Dims(*[a for a, _ in padding]), Dims(*[b for _, b in padding])
    geometry = (step, spread, low, high)
    lib.set_threads(threads)
    src, wei, dst = (lib.layout(shape, free=True) for shape in (x, weights, y))
    ours, kernel, theirs = map(lib.layout, (x, weights, y))
    add = lib.layout(w[:1]) if bias else None
    try:
        made = forward = lib.description(
            "convolution_forward", FORWARD, DIRECT, src, wei, add, dst, *geometry
        )
        extra = {BIAS: add} if add else {}
        layouts, out = {SRC: ours, WEIGHTS: kernel, **extra, DST: theirs}, DST
        if kind == "input":
            made = lib.description("convolution_backward_data", DIRECT, src, wei, dst, *geometry, forward)
            layouts, out = {DIFF_DST: theirs, WEIGHTS: kernel, DIFF_SRC: ours}, DIFF_SRC
        elif kind == "weight":
            given = (DIRECT, src, wei, None, dst, *geometry, forward)
            made = lib.description("convolution_backward_weights", *given)
            layouts, out = {DIFF_DST: theirs, SRC: ours, DIFF_WEIGHTS: kernel}, DIFF_WEIGHTS
        return None if lib.by_sgemm(made) else Primitive(lib, made, layouts, out)
    except RuntimeError:
        return None


def runner(kind: str, *numbers: Any) -> Callable[..., Any] | None:
    """run(arrays..., out) of the fastest way to compute what `primitive` does with these arguments."""
    if (tiled := winograd.runner(kind, *numbers)) is not None:
        return tiled
    found = primitive(kind, *numbers)
    return None if found is None else found.run


def _fits(a: Any, b: Any, padding: Pairs) -> bool:
    return (
        a.dtype == F32 == b.dtype
        and 3 <= a.ndim <= 5
        and bool(a.size and b.size)
        and min(map(min, padding)) >= 0
    )


def sizes(size: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Ints:
    """Windows that fit, in each dimension."""
    return tuple(
        (n + a + b - d * (k - 1) - 1) // s + 1
        for n, k, s, (a, b), d in zip(size, kernel, stride, padding, dilation)
    )


def _run(kind: str, x: Ints, w: Ints, y: Ints, geometry: dict[str, Any], given: list[Any], out: Ints) -> Any:
    lib = onednn.load()
    assert lib is not None
    numbers = [geometry[k] for k in ("stride", "padding", "dilation", "groups")]
    run = runner(kind, x, w, y, *numbers, len(given) > 2, lib.threads)
    if run is None:
        return None
    return run(*map(np.ascontiguousarray, given), np.empty(out, F32))


def conv(x: Any, weight: Any, bias: Any = None, **geometry: Any) -> Any:
    """Convolution; None where another body must compute it."""
    stride, padding, dilation = (geometry[k] for k in ("stride", "padding", "dilation"))
    if not _fits(x, weight, padding) or (bias is not None and bias.dtype != F32):
        return None
    out = (x.shape[0], weight.shape[0], *sizes(x.shape[2:], weight.shape[2:], stride, padding, dilation))
    if min(out) < 1:
        return None
    given = [x, weight] if bias is None else [x, weight, bias]
    return _run("forward", x.shape, weight.shape, out, geometry, given, out)


def conv_weight(gy: Any, x: Any, *, kernel: Ints, **geometry: Any) -> Any:
    """The gradient for the weight; None where another body must compute it."""
    stride, padding, dilation = (geometry[k] for k in ("stride", "padding", "dilation"))
    shape = (gy.shape[1], x.shape[1] // geometry["groups"], *kernel)
    if not _fits(gy, x, padding) or gy.shape[2:] != sizes(x.shape[2:], kernel, stride, padding, dilation):
        return None
    return _run("weight", x.shape, shape, gy.shape, geometry, [gy, x], shape)


def conv_input(gy: Any, weight: Any, bias: Any = None, *, size: Ints, **geometry: Any) -> Any:
    """The gradient for the input, or transposed convolution; None where another body must compute it."""
    stride, padding, dilation = (geometry[k] for k in ("stride", "padding", "dilation"))
    shape = (gy.shape[0], weight.shape[1] * geometry["groups"], *size)
    if not _fits(gy, weight, padding) or gy.shape[2:] != sizes(
        size, weight.shape[2:], stride, padding, dilation
    ):
        return None
    dx = _run("input", shape, weight.shape, gy.shape, geometry, [gy, weight], shape)
    if bias is not None and dx is not None:
        dx += bias.reshape(-1, *[1] * len(size))
    return dx


BODIES: dict[str, Callable[..., Any]] = {"conv": conv, "conv_weight": conv_weight, "conv_input": conv_input}
