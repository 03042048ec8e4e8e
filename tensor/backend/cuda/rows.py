"""Row kernels as bodies of ops: softmax, cross entropy, layer and RMS norm."""

from __future__ import annotations

import math
from typing import Any

from ....autograd.engine import mode
from ....autograd.op import Variant, registry
from .flags import pointer
from .kernel import aligned, contiguous, launch, row_grid, suffix

WIDEST_NORM = 16 * 512  # elements of a row that norm.cu keeps in registers


def attach(cp: Any) -> None:
    """Attaches them."""
    for name in ("softmax", "log_softmax"):
        log = name == "log_softmax"
        Variant(registry[name], cp, _last_dim, _softmax(log), _softmax_gradient(log))
    Variant(registry["cross_entropy"], cp, _entropy_fits, _entropy, _entropy_gradient, extras=("dx", "count"))
    Variant(registry["layer_norm"], cp, _norm_fits, _layer_norm, _layer_norm_gradient, extras=("stats",))
    Variant(registry["rms_norm"], cp, _rms_fits, _rms_norm, _rms_norm_gradient, extras=("stats",))


# ---- softmax


def _last_dim(x: Any, *, dim: int) -> bool:
    return suffix(x) is not None and x.ndim > 0 and dim in (-1, x.ndim - 1) and x.size > 0 and contiguous(x)


def _softmax(log: bool) -> Any:
    def forward(xp: Any, x: Any, *, dim: int) -> Any:
        width, y = x.shape[-1], xp.empty(x.shape, x.dtype)
        rows = x.size // width
        args = (x, y, rows, width, aligned(width, x, y), log)
        launch("softmax.cu", f"softmax_{suffix(x)}", row_grid(rows), _threads(width, x.itemsize), *args)
        return y

    return forward


def _softmax_gradient(log: bool) -> Any:
    def backward(xp: Any, g: Any, needs: Any, y: Any) -> list[Any]:
        g, width, dx = xp.ascontiguousarray(g), y.shape[-1], xp.empty(y.shape, y.dtype)
        g = g.astype(y.dtype, copy=False)
        rows = y.size // width
        args = (g, y, dx, rows, width, aligned(width, g, y, dx), log)
        launch(
            "softmax.cu", f"softmax_gradient_{suffix(y)}", row_grid(rows), _threads(width, y.itemsize), *args
        )
        return [dx]

    return backward


def softmax_rows(xp: Any, x: Any) -> Any:
    """softmax of a contiguous array over its last dimension."""
    return _softmax(False)(xp, x, dim=-1)


def softmax_gradient_rows(xp: Any, g: Any, y: Any) -> Any:
    """The gradient of its input."""
    return _softmax_gradient(False)(xp, g, None, y)[0]


def _threads(width: int, itemsize: int, most: int = 256, per_thread: int = 0) -> int:
    """Threads for a row: as many warps as its 16-byte pieces fill."""
    pieces = -(-width * itemsize // (per_thread or 16))
    return max(32, min(most, -(-pieces // 32) * 32))


# ---- cross entropy


def _entropy_fits(x: Any, target: Any, weight: Any = None, **kw: Any) -> bool:
    fits = x.ndim == 2 and x.size > 0 and weight is None and suffix(x) is not None
    return fits and target.dtype.name == "int64" and contiguous(x, target)


def _entropy(
    xp: Any,
    x: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    """The losses, and the gradient for a gradient of 1 in the same pass where one may be wanted."""
    rows, width = x.shape
    losses = xp.empty(rows, "float32")
    count = None
    if reduction == "mean":
        count = xp.empty((), "float32")
        launch("cross_entropy.cu", "cross_entropy_count", 1, 1024, target, rows, ignore_index, count)
    dx = xp.empty(x.shape, x.dtype) if mode.grad else None
    whole = aligned(width, x, dx)
    args = (x, target, count, dx, losses, pointer(), rows, width, ignore_index, float(label_smoothing), whole)
    name = f"cross_entropy_{suffix(x)}"
    launch("cross_entropy.cu", name, row_grid(rows), _threads(width, x.itemsize, 512), *args)
    if reduction == "none":
        return losses.astype(x.dtype, copy=False), dx, count
    y = xp.empty((), "float32")
    launch("cross_entropy.cu", "cross_entropy_sum", 1, 1024, losses, rows, count, y)
    return y.astype(x.dtype, copy=False), dx, count


def _entropy_gradient(
    xp: Any, g: Any, needs: Any, x_shape: Any, dx: Any, count: Any, reduction: str
) -> list[Any]:
    """The kept gradient times g; in place, and without a pass where g is 1, unless the graph is kept."""
    rows, width = x_shape
    out = xp.empty(x_shape, dx.dtype) if mode.keep else dx
    g = xp.ascontiguousarray(g).astype("float32", copy=False)
    args = (dx, g, out, rows, width, reduction == "none", aligned(width, dx, out))
    name = f"cross_entropy_scale_{suffix(dx)}"
    launch("cross_entropy.cu", name, row_grid(rows), _threads(width, dx.itemsize), *args)
    return [out, None, None]


# ---- norms


def _norm_fits(x: Any, weight: Any, bias: Any, *, shape: Any, eps: float) -> bool:
    width = math.prod(shape)
    return 0 < width <= WIDEST_NORM and x.size > 0 and suffix(x, weight, bias) is not None and contiguous(x)


def _rms_fits(x: Any, weight: Any, *, shape: Any, eps: float) -> bool:
    return _norm_fits(x, weight, None, shape=shape, eps=eps)


def _norm(xp: Any, x: Any, weight: Any, bias: Any, width: int, eps: float, centred: bool) -> Any:
    weight, bias = (None if p is None else xp.ascontiguousarray(p) for p in (weight, bias))
    rows = x.size // width
    y, stats = xp.empty(x.shape, x.dtype), xp.empty((rows, 2), "float32")
    args = (x, weight, bias, y, stats, rows, width, float(eps), aligned(width, x, weight, bias, y), centred)
    launch("norm.cu", f"norm_{suffix(x)}", row_grid(rows), _norm_threads(width), *args)
    return y, stats


def _norm_threads(width: int) -> int:
    """A thread keeps 16 elements."""
    return _threads(width, 1, 512, 16)


def _layer_norm(xp: Any, x: Any, weight: Any, bias: Any, *, shape: Any, eps: float) -> Any:
    return _norm(xp, x, weight, bias, math.prod(shape), eps, True)


def _rms_norm(xp: Any, x: Any, weight: Any, *, shape: Any, eps: float) -> Any:
    return _norm(xp, x, weight, None, math.prod(shape), eps, False)


def _layer_norm_gradient(
    xp: Any, g: Any, needs: Any, x: Any, weight: Any, stats: Any, shape: Any
) -> list[Any]:
    return _norm_gradient("layer_norm_gradient", xp, g, needs, x, weight, stats, shape)


def _rms_norm_gradient(xp: Any, g: Any, needs: Any, x: Any, weight: Any, stats: Any, shape: Any) -> list[Any]:
    return _norm_gradient("rms_norm_gradient", xp, g, [*needs, False], x, weight, stats, shape)[:2]


def _norm_gradient(
    name: str, xp: Any, g: Any, needs: Any, x: Any, weight: Any, stats: Any, shape: Any
) -> list[Any]:
    width, kind = math.prod(shape), suffix(x)
    rows = x.size // width
    g = xp.ascontiguousarray(g).astype(x.dtype, copy=False)
    weight = None if weight is None else xp.ascontiguousarray(weight)
    dx = xp.empty(x.shape, x.dtype) if needs[0] else None
    parameters = needs[1] or needs[2]
    grid = min(rows, _blocks()) if parameters else row_grid(rows)
    partial = xp.empty((grid, 2, width), "float32") if parameters else None
    args = (g, x, weight, stats, dx, partial, rows, width, aligned(width, g, x, weight, dx))
    launch("norm.cu", f"{name}_{kind}", grid, _norm_threads(width), *args)
    if not parameters:
        return [dx, None, None]
    dw, db = (xp.empty(shape, x.dtype) if wanted else None for wanted in needs[1:3])
    launch("norm.cu", f"norm_columns_{kind}", -(-2 * width // 256), 256, partial, dw, db, grid, width)
    return [dx, dw, db]


def _blocks() -> int:
    """Blocks that add up columns: two a multiprocessor, for few partial sums."""
    from . import properties

    return 2 * properties.of().multi_processor_count
