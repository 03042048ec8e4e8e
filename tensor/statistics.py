"""Statistics, distances and differences under PyTorch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.engine import Variable, wrap
from . import functions as f
from .checks import one_dtype, refuse
from .dtypes import category, default_float
from .ops import pointwise as _p
from .ops import scan as _v
from .ops import shape as _s
from .ops.declare import axis_of
from .ops.pointwise import _zero

if TYPE_CHECKING:
    from .tensor import Tensor


def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum of the elements that are not NaN."""
    refuse("nansum", "c", input)
    total = f.sum(input, dim, keepdim, dtype=dtype)
    if not np.isnan(total.array).any():
        return total
    return f.sum(_p.where(_p.isnan(input), _zero(input), input), dim, keepdim, dtype=dtype)


def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean of the elements that are not NaN."""
    refuse("nanmean", "biu", input)
    present = f.sum(_p.logical_not(_p.isnan(input)), dim, keepdim)
    return _p.div(nansum(input, dim, keepdim, dtype=dtype), present)


def std_mean(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: float = 1
) -> tuple[Tensor, Tensor]:
    """(standard deviation, mean) over `dim`."""
    over = None if isinstance(dim, bool) else dim
    return f.std(input, dim, unbiased, keepdim, correction=correction), f.mean(input, over, keepdim)


def var_mean(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: float = 1
) -> tuple[Tensor, Tensor]:
    """(variance, mean) over `dim`."""
    over = None if isinstance(dim, bool) else dim
    return f.var(input, dim, unbiased, keepdim, correction=correction), f.mean(input, over, keepdim)


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """Covariances of variables (rows) over observations (columns), which may have frequencies and weights."""
    refuse("cov", "b", input)
    if category(input.array.dtype) < 2:
        input = f.cast(input, default_float())
    if input.ndim > 2:
        raise RuntimeError(f"[cov] must have at most 2 dimensions, came shape {list(input.shape)}")
    scalar = input.ndim < 2
    x = _s.reshape(input, shape=(1, -1)) if scalar else input
    weights = None
    if fweights is not None:
        weights = _p.cast(fweights, dtype=x.array.dtype)
    if aweights is not None:
        weights = aweights if weights is None else _p.mul(weights, aweights)
    if weights is None:
        total: Any = x.shape[1]
        mean = f.mean(x, 1, True)
        norm: Any = total - correction
    else:
        total = weights.sum()
        mean = _p.div(f.sum(_p.mul(x, weights), 1, True), total)
        norm = total - correction
        if aweights is not None and correction:
            norm = total - _p.div(f.sum(_p.mul(weights, aweights)), total) * correction
    centred = _p.sub(x, mean)
    weighted = centred if weights is None else _p.mul(centred, weights)
    scale = norm.clamp(min=0) if isinstance(norm, Variable) else max(norm, 0)
    product = f.matmul(weighted, _s.transpose(centred, dim0=0, dim1=1))
    y = _p.div(product, scale if isinstance(scale, Variable) else float(scale))
    return _s.reshape(y, shape=()) if scalar or x.shape[0] == 1 else y


def corrcoef(input: Tensor) -> Tensor:
    """Correlations of variables (rows) over observations (columns)."""
    c = cov(input)
    if not c.ndim:
        return _p.div(c, c)
    deviation = _p.sqrt(f.diagonal(c))
    scaled = _p.div(_p.div(c, _s.unsqueeze(deviation, dim=1)), deviation)
    return scaled if scaled.is_complex() else f.clamp(scaled, -1.0, 1.0)


# ---- distances


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of the difference."""
    return f.norm(_p.sub(input, other), p)


def _by_products(x1: Tensor, x2: Tensor) -> Tensor:
    """|a|^2 - 2ab + |b|^2 as one matrix product: faster, less precise for near points."""
    a, b = f.sum(_p.square(x1), -1, True), f.sum(_p.square(x2), -1, True)
    cross = f.matmul(x1, _s.transpose(x2, dim0=-2, dim1=-1))
    square = _p.add(_p.add(_p.mul(cross, -2), a), _s.transpose(b, dim0=-2, dim1=-1))
    zero = square.array <= 0
    safe = _p.where(wrap(zero), _p.add(_p.mul(square, 0), 1), square)
    return _p.where(wrap(zero), _zero(square), _p.sqrt(safe))


def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary"
) -> Tensor:
    """p-norm distances of each pair of rows: [..., P, M] and [..., R, M] give [..., P, R]."""
    refuse("cdist", "biuc", x1, x2)
    one_dtype("cdist", x1, x2)
    if x1.ndim < 2 or x2.ndim < 2:
        raise RuntimeError(
            f"[cdist] must have at least 2 dimensions, came {list(x1.shape)} and {list(x2.shape)}"
        )
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(
            f"[cdist] must have equally many columns, came {list(x1.shape)} and {list(x2.shape)}"
        )
    if p < 0:
        raise RuntimeError(f"[cdist] p must not be negative, came {p}")
    large = x1.shape[-2] > 25 or x2.shape[-2] > 25
    if p == 2 and (
        compute_mode == "use_mm_for_euclid_dist" or (large and compute_mode.endswith("necessary"))
    ):
        return _by_products(x1, x2)
    return f.norm(_p.sub(_s.unsqueeze(x1, dim=-2), _s.unsqueeze(x2, dim=-3)), p, -1)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """p-norm distances of each pair of distinct rows, in the order of the upper triangle."""
    refuse("pdist", "biuc", input)
    if input.ndim != 2 or p < 0:
        raise RuntimeError(f"[pdist] the input must be a matrix and p >= 0, came {list(input.shape)} and {p}")
    rows, columns = np.triu_indices(input.shape[0], 1)
    return f.norm(_p.sub(input[wrap(rows)], input[wrap(columns)]), p, -1)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices along `dim` scaled down to the p-norm `maxnorm` where theirs is larger."""
    d = axis_of("renorm", dim, input.ndim)
    norm = f.norm(input, p, tuple(k for k in range(input.ndim) if k != d), True)
    factor = _p.where(_p.gt(norm, maxnorm), _p.div(maxnorm, _p.add(norm, 1e-7)), _p.add(_zero(norm), 1))
    return _p.mul(input, factor)


# ---- differences and integrals


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along `dim`, taken n times."""
    if n < 0:
        raise RuntimeError(f"[diff] n must not be negative, came {n}")
    if not input.ndim:
        raise RuntimeError("[diff] must have at least 1 dimension, came a 0-d tensor")
    if n == 0 and prepend is None and append is None:
        return input.clone()
    d = axis_of("diff", dim, input.ndim)
    parts = [t for t in (prepend, input, append) if t is not None]
    x = f.cat(parts, d) if len(parts) > 1 else input
    for _ in range(min(n, x.shape[d])):
        length = max(x.shape[d] - 1, 0)
        after = _s.narrow(x, dim=d, start=min(1, x.shape[d]), length=length)
        before = _s.narrow(x, dim=d, start=0, length=length)
        x = _p.ne(after, before) if x.array.dtype == bool else _p.sub(after, before)
    return x


def _panels(name: str, y: Tensor, x: Any, dx: Any, dim: int) -> tuple[Tensor, int]:
    d = _axis(name, dim, y.ndim)
    n = y.shape[d]
    mean = _p.add(
        _s.narrow(y, dim=d, start=min(1, n), length=max(n - 1, 0)),
        _s.narrow(y, dim=d, start=0, length=max(n - 1, 0)),
    )
    if x is None:
        return _p.mul(mean, (1 if dx is None else dx) * 0.5), d
    if 1 < x.ndim < y.ndim:
        x = _s.reshape(x, shape=(1,) * (y.ndim - x.ndim) + x.array.shape)
    width = diff(x, 1, d if x.ndim > 1 else -1)
    if x.ndim == 1 and d != y.ndim - 1:
        width = _s.reshape(width, shape=(-1,) + (1,) * (y.ndim - d - 1))
    return _p.mul(_p.mul(mean, width), 0.5), d


def _axis(name: str, dim: int, ndim: int) -> int:
    if not ndim:
        raise IndexError(f"[{name}] y must have at least 1 dimension, came a 0-d tensor")
    return axis_of(name, dim, ndim)


def trapezoid(y: Tensor, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral by the trapezoid rule over points `x`, or points `dx` apart."""
    refuse("trapezoid", "b", y, x)
    d = _axis("trapezoid", dim, y.ndim)
    if not y.shape[d]:
        return f.sum(y, d)
    if x is None and y.shape[d] > 1:
        ends = _p.add(f.select(y, d, 0), f.select(y, d, -1))
        return _p.mul(_p.sub(f.sum(y, d), _p.mul(ends, 0.5)), 1 if dx is None else dx)
    panels, d = _panels("trapezoid", y, x, dx, dim)
    return f.sum(panels, d)


trapz = trapezoid


def cumulative_trapezoid(y: Tensor, x: Any = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral by the trapezoid rule up to each point but the first."""
    refuse("cumulative_trapezoid", "b", y, x)
    panels, d = _panels("cumulative_trapezoid", y, x, dx, dim)
    return f.cumsum(panels, d)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the running sum of exponentials along `dim`."""
    return _v.logcumsumexp(input, dim=dim)
