"""Reductions and scans."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...autograd.engine import Variable
from ...autograd.op import Op
from ..dtypes import F32, F64, I64, category, default_float
from .declare import axes_of, axis_of, single, unary
from .faster import faster
from .pointwise import cast
from .rows import row_max, row_min, row_sum


def _dims(name: str, x: Any, dim: Any) -> tuple[int, ...]:
    if isinstance(dim, tuple | list) and not dim:
        dim = None
    ndim = x.array.ndim if isinstance(x, Variable) else x.ndim
    axes = axes_of(name, dim, ndim)
    return axes if ndim else ()  # a 0-d tensor takes dim 0 and -1, and has nothing to reduce


def _restore(ops: Any, g: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """Puts back the dimensions that a reduction took away, with size 1."""
    if keepdim or not dim:
        return g
    shape = list(g.shape)
    for d in sorted(dim):
        shape.insert(d, 1)
    return g.reshape(tuple(shape))


def _sum_prepare(
    x: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> tuple[Any, dict[str, Any]]:
    if isinstance(x, Variable):
        if dtype is not None:
            x = cast(x, dtype=dtype)
        elif category(x.array.dtype) < 2:
            x = cast(x, dtype=I64)
    return (x,), {"dim": _dims("sum", x, dim), "keepdim": keepdim}


def total(xp: Any, x: Any) -> Any:
    """The sum of all elements: runs of 1024 by a product with ones, which uses all lanes, then their sums in pairs."""
    if x.size < 4096 or x.dtype not in (F32, F64) or not x.flags.c_contiguous:
        return x.sum()
    flat = x.reshape(-1)
    whole = flat.size // 1024 * 1024
    return row_sum(xp, flat[:whole].reshape(-1, 1024)).sum() + flat[whole:].sum()


def _sum(xp: Any, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    if x.size >= 512 and x.dtype in (F32, F64) and x.flags.c_contiguous:
        width = x.shape[-1]
        if len(dim) == x.ndim:
            y = total(xp, x)
            return y.reshape((1,) * x.ndim) if keepdim else y
        if dim == (x.ndim - 1,) and 1 < width <= 4096:
            y = row_sum(xp, x.reshape(-1, width))
            return y.reshape((*x.shape[:-1], 1) if keepdim else x.shape[:-1])
        inner = _trailing(x.ndim, dim)
        width = math.prod(x.shape[x.ndim - inner :])
        if inner > 1 and 16 <= width <= 65536:
            y = row_sum(xp, x.reshape(-1, width)).reshape(x.shape[:-inner])
            y = y.sum(axis=dim[:-inner]) if len(dim) > inner else y
            return y.reshape(_reduced(x.shape, dim, keepdim))
    return x.sum(axis=dim, keepdims=keepdim)


def _trailing(ndim: int, dim: tuple[int, ...]) -> int:
    """How many of the last dimensions end `dim`, in order."""
    count = 0
    while count < len(dim) and dim[-1 - count] == ndim - 1 - count:
        count += 1
    return count


def _reduced(shape: tuple[int, ...], dim: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    return tuple(1 if i in dim else n for i, n in enumerate(shape) if keepdim or i not in dim)


sum = single(
    Op(
        "sum",
        _sum,
        [lambda ops, g, x_shape, dim, keepdim: ops.expand(_restore(ops, g, dim, keepdim), shape=x_shape)],
        prepare=_sum_prepare,
    )
)


def _size(shape: tuple[int, ...], dim: tuple[int, ...]) -> int:
    n = 1
    for d in dim:
        n *= shape[d] if shape else 1
    return n


def _mean_prepare(
    x: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> tuple[Any, dict[str, Any]]:
    if isinstance(x, Variable):
        if dtype is not None:
            x = cast(x, dtype=dtype)
        if category(x.array.dtype) < 2:
            raise RuntimeError(
                f"[mean] the dtype must be floating or complex, came {x.array.dtype.name}: use .float()"
            )
    return (x,), {"dim": _dims("mean", x, dim), "keepdim": keepdim}


def _mean(xp: Any, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    n = _size(x.shape, dim)
    y = _sum(xp, x, dim=dim, keepdim=keepdim)
    return y / x.dtype.type(n) if n else y * x.dtype.type("nan")


# The sum and mean of all elements, as losses end: the same as above by a shorter way.
sum_all = unary(
    "sum_all",
    total,
    lambda ops, g, x_shape: ops.expand(g, shape=x_shape),
)


def _count(shape: tuple[int, ...]) -> int:
    return math.prod(shape) or 1


mean_all = unary(
    "mean_all",
    lambda xp, x: total(xp, x) / x.dtype.type(x.size),
    lambda ops, g, x_shape: ops.expand(g / _count(x_shape), shape=x_shape),
)


mean = single(
    Op(
        "mean",
        _mean,
        [
            lambda ops, g, x_shape, dim, keepdim: ops.expand(
                _restore(ops, g, dim, keepdim) / _size(x_shape, dim), shape=x_shape
            )
        ],
        prepare=_mean_prepare,
    )
)


def _extreme_rule(ops: Any, g: Any, x: Any, y: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """The gradient is shared evenly among equal extremes, as PyTorch's amax and amin do."""
    hit = x == _restore(ops, y, dim, keepdim)
    share = ops.cast(hit, dtype=g.dtype)
    return share * _restore(ops, g, dim, keepdim) / ops.sum(share, dim=dim, keepdim=True)


def _extreme_prepare(name: str) -> Any:
    def prepare(x: Any, *, dim: Any = None, keepdim: bool = False) -> tuple[Any, dict[str, Any]]:
        dims = _dims(name, x, dim)
        shape = x.array.shape if isinstance(x, Variable) else x.shape
        for d in dims:
            if shape[d] == 0:
                raise RuntimeError(
                    f"[{name}] the reduced dimensions must not be empty, came shape {list(shape)}"
                )
        return (x,), {"dim": dims, "keepdim": keepdim}

    return prepare


def _extreme(xp: Any, x: Any, dim: tuple[int, ...], keepdim: bool, of_rows: Any, name: str) -> Any:
    if dim == (x.ndim - 1,) and x.size >= 4096 and x.dtype in (F32, F64) and x.flags.c_contiguous:
        return of_rows(xp, x.reshape(-1, x.shape[-1])).reshape(_reduced(x.shape, dim, keepdim))
    return getattr(x, name)(axis=dim, keepdims=keepdim)


amax = single(
    Op(
        "amax",
        lambda xp, x, *, dim, keepdim: _extreme(xp, x, dim, keepdim, row_max, "max"),
        [_extreme_rule],
        prepare=_extreme_prepare("amax"),
    )
)
amin = single(
    Op(
        "amin",
        lambda xp, x, *, dim, keepdim: _extreme(xp, x, dim, keepdim, row_min, "min"),
        [_extreme_rule],
        prepare=_extreme_prepare("amin"),
    )
)


def _arg_prepare(name: str) -> Any:
    def prepare(x: Any, *, dim: Any = None, keepdim: bool = False) -> tuple[Any, dict[str, Any]]:
        shape = x.array.shape if isinstance(x, Variable) else x.shape
        d = None if dim is None else axis_of(name, dim, len(shape))
        if 0 in shape and (d is None or shape[d] == 0):
            raise IndexError(f"[{name}] the reduced dimensions must not be empty, came shape {list(shape)}")
        return (x,), {"dim": d if shape else None, "keepdim": keepdim}

    return prepare


argmax = single(
    Op(
        "argmax",
        lambda xp, x, *, dim, keepdim: x.argmax(axis=dim, keepdims=keepdim),
        prepare=_arg_prepare("argmax"),
    )
)
argmin = single(
    Op(
        "argmin",
        lambda xp, x, *, dim, keepdim: x.argmin(axis=dim, keepdims=keepdim),
        prepare=_arg_prepare("argmin"),
    )
)


def _bool_prepare(name: str) -> Any:
    def prepare(x: Any, *, dim: Any = None, keepdim: bool = False) -> tuple[Any, dict[str, Any]]:
        return (x,), {"dim": _dims(name, x, dim), "keepdim": keepdim}

    return prepare


def _truth(x: Any, y: Any) -> Any:
    """PyTorch keeps uint8 here, which was its bool once."""
    return y.astype(x.dtype) if x.dtype.name == "uint8" else y


all = single(
    Op(
        "all",
        lambda xp, x, *, dim, keepdim: _truth(x, x.astype(bool).all(axis=dim, keepdims=keepdim)),
        prepare=_bool_prepare("all"),
    )
)
any = single(
    Op(
        "any",
        lambda xp, x, *, dim, keepdim: _truth(x, x.astype(bool).any(axis=dim, keepdims=keepdim)),
        prepare=_bool_prepare("any"),
    )
)


def _prod_prepare(
    x: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> tuple[Any, dict[str, Any]]:
    if isinstance(x, Variable):
        if dtype is not None:
            x = cast(x, dtype=dtype)
        elif category(x.array.dtype) < 2:
            x = cast(x, dtype=I64)
    return (x,), {"dim": _dims("prod", x, dim), "keepdim": keepdim}


def _prod_rule(ops: Any, g: Any, x: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """Products of all others, from both sides, so that zeros are right: no division."""
    g = _restore(ops, g, dim, keepdim)
    if not dim:
        return g
    if 0 in x.shape:
        return g * x
    front = tuple(d for d in range(x.ndim) if d not in dim)
    order = front + dim
    flat = ops.permute(x, dims=order).reshape((*[x.shape[d] for d in front], -1))
    one = ops.expand(ops.cast(flat[..., :1] == flat[..., :1], dtype=g.dtype), shape=(*flat.shape[:-1], 1))
    left = ops.cumprod(ops.cat(one, flat[..., :-1], dim=-1), dim=-1)
    right = ops.flip(
        ops.cumprod(ops.cat(one, ops.flip(flat, dims=(-1,))[..., :-1], dim=-1), dim=-1), dims=(-1,)
    )
    others = (left * right).reshape(tuple(x.shape[d] for d in order))
    back = tuple(int(i) for i in np.argsort(order))
    return g * ops.permute(others, dims=back)


def _prod(xp: Any, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    """Of long rows by halves: NumPy's product of a row is a chain of single ones."""
    if dim != (x.ndim - 1,) or x.size < 4096 or x.dtype not in (F32, F64) or x.shape[-1] < 8:
        return x.prod(axis=dim, keepdims=keepdim)
    while (n := x.shape[-1]) > 1:
        halves = x[..., : n // 2] * x[..., n // 2 : n // 2 * 2]
        if n % 2:
            halves[..., 0] *= x[..., -1]
        x = halves
    return x if keepdim else x[..., 0]


prod = single(
    Op(
        "prod",
        _prod,
        [_prod_rule],
        prepare=_prod_prepare,
    )
)


def _var_prepare(
    x: Any, *, dim: Any = None, correction: float = 1, keepdim: bool = False
) -> tuple[Any, dict[str, Any]]:
    if isinstance(x, Variable) and category(x.array.dtype) < 2:
        raise RuntimeError(f"[var] the dtype must be floating or complex, came {x.array.dtype.name}")
    return (x,), {"dim": _dims("var", x, dim), "correction": correction, "keepdim": keepdim}


def _var(xp: Any, x: Any, *, dim: tuple[int, ...], correction: float, keepdim: bool) -> Any:
    n = _size(x.shape, dim)
    mean = x.sum(axis=dim, keepdims=True)
    mean /= x.dtype.type(n or 1)
    centred = x - mean
    centred *= centred
    return centred.sum(axis=dim, keepdims=keepdim) / x.dtype.type(max(n - correction, 0))


def _var_rule(ops: Any, g: Any, x: Any, dim: tuple[int, ...], correction: float, keepdim: bool) -> Any:
    n = _size(x.shape, dim)
    centred = x - ops.mean(x, dim=dim, keepdim=True)
    scale = 2 / max(n - correction, 0) if n - correction > 0 else float("nan")
    return _restore(ops, g, dim, keepdim) * centred * scale


var = single(Op("var", _var, [_var_rule], prepare=_var_prepare))


def _std_prepare(
    x: Any, *, dim: Any = None, correction: float = 1, keepdim: bool = False
) -> tuple[Any, dict[str, Any]]:
    if isinstance(x, Variable) and category(x.array.dtype) < 2:
        raise RuntimeError(f"[std] the dtype must be floating or complex, came {x.array.dtype.name}")
    return (x,), {"dim": _dims("std", x, dim), "correction": correction, "keepdim": keepdim}


def _std_rule(
    ops: Any, g: Any, x: Any, y: Any, dim: tuple[int, ...], correction: float, keepdim: bool
) -> Any:
    y = _restore(ops, y, dim, keepdim)
    gv = _restore(ops, g, dim, keepdim) / (y * 2)
    safe = ops.where(y == 0, y * 0, gv)
    return _var_rule(ops, safe, x, dim, correction, True)


std = single(
    Op(
        "std",
        lambda xp, x, *, dim, correction, keepdim: xp.sqrt(
            _var(xp, x, dim=dim, correction=correction, keepdim=keepdim)
        ),
        [_std_rule],
        prepare=_std_prepare,
    )
)


def _logsumexp_prepare(x: Any, *, dim: Any, keepdim: bool = False) -> tuple[Any, dict[str, Any]]:
    if isinstance(x, Variable) and category(x.array.dtype) < 2:
        x = cast(x, dtype=default_float())
    return (x,), {"dim": _dims("logsumexp", x, dim), "keepdim": keepdim}


def _logsumexp(xp: Any, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    top = x.max(axis=dim, keepdims=True, initial=-xp.inf)
    top = xp.where(xp.isfinite(top), top, x.dtype.type(0))
    y = xp.log(xp.exp(x - top).sum(axis=dim, keepdims=True)) + top
    return y if keepdim else y.reshape(tuple(n for i, n in enumerate(x.shape) if i not in dim))


logsumexp = single(
    Op(
        "logsumexp",
        _logsumexp,
        [
            lambda ops, g, x, y, dim, keepdim: (
                _restore(ops, g, dim, keepdim) * ops.exp(x - _restore(ops, y, dim, keepdim))
            )
        ],
        prepare=_logsumexp_prepare,
    )
)


def _scan_prepare(name: str) -> Any:
    def prepare(x: Any, *, dim: int, dtype: Any = None) -> tuple[Any, dict[str, Any]]:
        if isinstance(x, Variable):
            if dtype is not None:
                x = cast(x, dtype=dtype)
            elif category(x.array.dtype) < 2:
                x = cast(x, dtype=I64)
        return (x,), {"dim": axis_of(name, dim, x.ndim)}

    return prepare


def _scan(xp: Any, x: Any, dim: int, name: str) -> Any:
    if not x.ndim:
        return x.copy()
    made = faster(name, xp, x, dim=dim) if x.size >= 4096 else None
    return getattr(xp, name)(x, axis=dim) if made is None else made


cumsum = single(
    Op(
        "cumsum",
        lambda xp, x, *, dim: _scan(xp, x, dim, "cumsum"),
        [
            lambda ops, g, dim: (
                ops.flip(ops.cumsum(ops.flip(g, dims=(dim,)), dim=dim), dims=(dim,)) if g.ndim else g
            )
        ],
        prepare=_scan_prepare("cumsum"),
    )
)


def _cumprod_rule(ops: Any, g: Any, x: Any, y: Any, dim: int) -> Any:
    """dx_i = sum over j >= i of g_j prod_{k <= j, k != i} x_k; where x has zeros the products are taken one by one."""
    if not x.ndim:
        return g
    plain = x.array if isinstance(x, Variable) else x
    if not (plain == 0).any():
        return ops.flip(ops.cumsum(ops.flip(g * y, dims=(dim,)), dim=dim), dims=(dim,)) / x
    parts = []
    one = ops.cast(
        ops.narrow(x, dim=dim, start=0, length=1) == ops.narrow(x, dim=dim, start=0, length=1), dtype=g.dtype
    )
    n = x.shape[dim]
    for i in range(n):
        before = ops.narrow(y, dim=dim, start=i - 1, length=1) if i else one
        after = ops.narrow(x, dim=dim, start=i + 1, length=n - 1 - i)
        chain = ops.cumprod(ops.cat(one, after, dim=dim), dim=dim) * before
        parts.append(ops.sum(ops.narrow(g, dim=dim, start=i, length=n - i) * chain, dim=dim, keepdim=True))
    return ops.cat(*parts, dim=dim)


cumprod = Op(
    "cumprod",
    lambda xp, x, *, dim: _scan(xp, x, dim, "cumprod"),
    [_cumprod_rule],
    prepare=_scan_prepare("cumprod"),
)


def _norm2_rule(ops: Any, g: Any, x: Any, y: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """x / |x|, and 0 at the origin."""
    y, g = _restore(ops, y, dim, keepdim), _restore(ops, g, dim, keepdim)
    return ops.where(y == 0, x * 0, x * (g / y))


def _norm2(xp: Any, x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    inner = _trailing(x.ndim, dim)
    if inner < 1 or inner < len(dim) or x.size < 512 or not x.flags.c_contiguous or xp is not np:
        return xp.sqrt((x * x).sum(axis=dim, keepdims=keepdim))
    rows = x.reshape(-1, math.prod(x.shape[x.ndim - inner :]))
    return np.sqrt(np.vecdot(rows, rows)).reshape(_reduced(x.shape, dim, keepdim))


norm2 = single(
    Op(
        "norm2",
        _norm2,
        [_norm2_rule],
        prepare=lambda x, *, dim=None, keepdim=False: (
            (x,),
            {"dim": _dims("norm", x, dim), "keepdim": keepdim},
        ),
    )
)
