"""What each ONNX node type computes, on Tensors. Keyword-only parameters are the attributes that are understood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.op import tensor_ops as ops
from ..tensor.ops import elementwise as _elementwise  # noqa: F401  (declares its ops)
from .trace import ExportError

nodes: dict[str, Callable[..., Any]] = {}


def runs(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            nodes[name] = function
        return function

    return enter


def _plain(op: str) -> Callable[..., Any]:
    """A node type that is one of our ops, without attributes."""
    return lambda *x: ops[op](*x)


SAME = """Abs Neg Exp Log Sqrt Reciprocal Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh Sigmoid Erf Relu
    Floor Ceil Round Sign Add Mul Pow Sub"""
for _kind in SAME.split():
    nodes[_kind] = _plain(_kind.lower())
OTHER = {
    "Identity": "clone", "IsNaN": "isnan", "HardSwish": "hardswish", "Equal": "eq", "Less": "lt", "Greater": "gt",
    "LessOrEqual": "le", "GreaterOrEqual": "ge", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
    "Not": "logical_not", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
    "BitwiseNot": "bitwise_not", "Where": "where", "MatMul": "matmul",
}  # fmt: skip
for _kind, _op in OTHER.items():
    nodes[_kind] = _plain(_op)


def _ints(x: Any) -> list[int]:
    return [int(v) for v in x.array.reshape(-1)]


def pairs_of(pads: Any, dims: int) -> tuple[tuple[int, int], ...]:
    pads = pads or [0] * (2 * dims)
    return tuple(zip(pads[:dims], pads[dims:]))


@runs("Div")
def _div(a: Any, b: Any) -> Any:
    if a.array.dtype.kind == "f":
        return ops["div"](a, b)
    return wrap(
        (np.sign(a.array) * np.sign(b.array) * (np.abs(a.array) // np.abs(b.array))).astype(a.array.dtype)
    )


@runs("Mod")
def _mod(a: Any, b: Any, *, fmod: int = 0) -> Any:
    return ops["fmod" if fmod else "remainder"](a, b)


def _folded(op: str) -> Callable[..., Any]:
    def run(*x: Any) -> Any:
        total = x[0]
        for other in x[1:]:
            total = ops[op](total, other)
        return total

    return run


nodes["Max"], nodes["Min"] = _folded("maximum"), _folded("minimum")


@runs("Cast")
def _cast(x: Any, *, to: int = 0) -> Any:
    import onnx

    return ops["cast"](x, dtype=onnx.helper.tensor_dtype_to_np_dtype(to))


@runs("IsInf")
def _isinf(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    y = ops["isinf"](x)
    if detect_negative and detect_positive:
        return y
    return ops["logical_and"](y, ops["gt" if detect_positive else "lt"](x, 0.0))


@runs("Clip")
def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    return x if low is None and high is None else ops["clamp"](x, low, high)


@runs("Softplus")
def _softplus(x: Any) -> Any:
    return ops["softplus"](x, beta=1.0, threshold=30.0)


@runs("Elu")
def _elu(x: Any, *, alpha: float = 1.0) -> Any:
    return ops["elu"](x, alpha=alpha, scale=1.0, input_scale=1.0)


@runs("LeakyRelu")
def _leaky(x: Any, *, alpha: float = 0.01) -> Any:
    return ops["leaky_relu"](x, negative_slope=alpha)


@runs("HardSigmoid")
def _hardsigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return ops["hardtanh"](x * alpha + beta, low=0.0, high=1.0)


@runs("Shrink")
def _shrink(x: Any, *, lambd: float = 0.5, bias: float = 0.0) -> Any:
    inner = ops["where"](ops["lt"](x, -lambd), x + bias, x * 0)
    return ops["where"](ops["gt"](x, lambd), x - bias, inner)


@runs("Gelu")
def _gelu(x: Any, *, approximate: str = "none") -> Any:
    return ops["gelu_tanh" if approximate == "tanh" else "gelu"](x)


@runs("Softmax")
def _softmax(x: Any, *, axis: int = -1) -> Any:
    return ops["softmax"](x, dim=axis)


@runs("LogSoftmax")
def _log_softmax(x: Any, *, axis: int = -1) -> Any:
    return ops["log_softmax"](x, dim=axis)


# ---- shapes


@runs("Shape")
def _shape(x: Any) -> Any:
    return wrap(np.array(x.array.shape, np.int64))


@runs("Reshape")
def _reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
    sizes = _ints(shape)
    return x.reshape(*[x.array.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(sizes)])


@runs("Transpose")
def _transpose(x: Any, *, perm: Any = None) -> Any:
    return ops["permute"](x, dims=tuple(perm or reversed(range(x.ndim))))


@runs("Expand")
def _expand(x: Any, shape: Any) -> Any:
    return ops["expand"](x, shape=np.broadcast_shapes(x.array.shape, tuple(_ints(shape))))


@runs("Unsqueeze")
def _unsqueeze(x: Any, axes: Any) -> Any:
    rank = x.ndim + len(_ints(axes))
    for axis in sorted(a % rank for a in _ints(axes)):
        x = ops["unsqueeze"](x, dim=axis)
    return x


@runs("Squeeze")
def _squeeze(x: Any, axes: Any = None) -> Any:
    return ops["squeeze"](x, dim=None if axes is None else tuple(_ints(axes)))


@runs("Concat")
def _concat(*x: Any, axis: int = 0) -> Any:
    return ops["cat"](*x, dim=axis)


@runs("Split")
def _split(x: Any, sizes: Any = None, *, axis: int = 0, num_outputs: int = 0, outputs: int = 1) -> Any:
    parts = -(-x.array.shape[axis] // outputs) if sizes is None else tuple(_ints(sizes))
    return ops["split"](x, sizes=parts, dim=axis)


@runs("Slice")
def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    begin, end = _ints(starts), _ints(ends)
    dims = range(len(begin)) if axes is None else _ints(axes)
    for a, b, d, s in zip(begin, end, dims, [1] * len(begin) if steps is None else _ints(steps)):
        n = x.array.shape[d]
        if s > 0:
            x = ops["getitem"](
                x, index=(*[slice(None)] * (d % x.ndim), slice(*slice(a, b, s).indices(n)), ...)
            )
        else:
            places = np.arange(n)[slice(a, b if b >= -n else None, s)]
            x = ops["index_select"](x, dim=d, index=places)
    return x


@runs("Pad")
def _pad(x: Any, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    if mode != "constant":
        raise ExportError(f"[onnx] Pad with mode {mode!r} cannot be run")
    number = 0.0 if value is None else value.array.item()
    dims = list(range(x.ndim)) if axes is None else [a % x.ndim for a in _ints(axes)]
    widths = dict(zip(dims, pairs_of(_ints(pads), len(dims))))
    return ops["pad"](x, widths=tuple(widths.get(d, (0, 0)) for d in range(x.ndim)), value=number)


@runs("Trilu")
def _trilu(x: Any, k: Any = None, *, upper: int = 1) -> Any:
    return ops["triu" if upper else "tril"](x, diagonal=0 if k is None else int(k.array.item()))


@runs("Range")
def _range(start: Any, limit: Any, delta: Any) -> Any:
    return wrap(
        np.arange(start.array.item(), limit.array.item(), delta.array.item(), dtype=start.array.dtype)
    )


# ---- indexing


@runs("Gather")
def _gather(x: Any, index: Any, *, axis: int = 0) -> Any:
    d = axis % x.ndim
    flat = ops["index_select"](x, dim=d, index=index.array.reshape(-1) % max(x.array.shape[d], 1))
    return flat.reshape(*x.array.shape[:d], *index.array.shape, *x.array.shape[d + 1 :])


@runs("GatherElements")
def _gather_elements(x: Any, index: Any, *, axis: int = 0) -> Any:
    return ops["gather"](x, dim=axis, index=index.array % max(x.array.shape[axis], 1))


@runs("GatherND")
def _gather_nd(x: Any, index: Any) -> Any:
    return ops["index"](x, index=tuple(np.moveaxis(index.array, -1, 0)))


@runs("ScatterElements")
def _scatter(x: Any, index: Any, source: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    places = index.array % max(x.array.shape[axis], 1)
    if reduction == "none":
        return ops["scatter"](x, source, dim=axis, index=places)
    kind = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[reduction]
    return ops["scatter_reduce"](x, source, dim=axis, index=places, reduce=kind, include_self=True)


@runs("TopK")
def _topk(x: Any, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    places = ops["argtopk"](x, k=_ints(k)[0], dim=axis, largest=bool(largest))
    return ops["gather"](x, dim=axis, index=places), places


# ---- reductions


def _reduction(op: str) -> Callable[..., Any]:
    def run(x: Any, given: Any = None, *, axes: Any = None, keepdims: int = 1) -> Any:
        dims = tuple(_ints(given)) if given is not None else tuple(axes) if axes else None
        y = ops[op](x, dim=dims, keepdim=bool(keepdims))
        return y if y.array.dtype == x.array.dtype else ops["cast"](y, dtype=x.array.dtype)

    return run


KINDS = {"Sum": "sum", "Mean": "mean", "Prod": "prod", "Max": "amax", "Min": "amin", "L2": "norm2"}
for _kind, _op in {**KINDS, "LogSumExp": "logsumexp"}.items():
    nodes[f"Reduce{_kind}"] = _reduction(_op)


def _extreme(op: str) -> Callable[..., Any]:
    def run(x: Any, *, axis: int = 0, keepdims: int = 1) -> Any:
        return ops[op](x, dim=axis, keepdim=bool(keepdims))

    return run


nodes["ArgMax"], nodes["ArgMin"] = _extreme("argmax"), _extreme("argmin")


@runs("CumSum")
def _cumsum(x: Any, axis: Any) -> Any:
    return ops["cumsum"](x, dim=int(axis.array.item()))


__all__ = ["nodes", "pairs_of", "runs"]
