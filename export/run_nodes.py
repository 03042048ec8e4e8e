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
like: dict[str, str] = {}  # node types that take the attributes of another one


def attributes_of(kind: str) -> set[str]:
    """The attributes that a node type is run with, and `outputs` and `opset` where it asks for them."""
    return set(nodes[like.get(kind, kind)].__kwdefaults__ or {})


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
    Floor Ceil Round Sign Add Mul Sub"""
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


def ints_of(x: Any) -> list[int]:
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


@runs("Pow")
def _pow(a: Any, b: Any) -> Any:
    y = ops["pow"](a, b)
    return y if y.array.dtype == a.array.dtype else ops["cast"](y, dtype=a.array.dtype)


@runs("Mod")
def _mod(a: Any, b: Any, *, fmod: int = 0) -> Any:
    return ops["fmod" if fmod else "remainder"](a, b)


@runs("BitShift")
def _bit_shift(a: Any, b: Any, *, direction: str = "") -> Any:
    shift = np.left_shift if direction == "LEFT" else np.right_shift
    return wrap(shift(a.array, b.array))


def _folded(op: str) -> Callable[..., Any]:
    def run(*x: Any) -> Any:
        total = x[0]
        for other in x[1:]:
            total = ops[op](total, other)
        return total

    return run


nodes["Max"], nodes["Min"], nodes["Sum"] = _folded("maximum"), _folded("minimum"), _folded("add")


@runs("Mean")
def _mean(*x: Any) -> Any:
    return nodes["Sum"](*x) / len(x)


NUMBERS = {"bool", "bfloat16", "float16", "float32", "float64"} | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}


def dtype_of(kind: str, number: int) -> Any:
    """The NumPy dtype of a type number of ONNX; ExportError for texts, complex numbers and types below 8 bits."""
    import onnx

    name = onnx.TensorProto.DataType.Name(number)
    if number == onnx.TensorProto.STRING:
        raise ExportError(f"[onnx] {kind} to {name} cannot be run")
    return _number(kind, onnx.helper.tensor_dtype_to_np_dtype(number))


def _number(kind: str, dtype: Any) -> Any:
    if dtype.name not in NUMBERS:
        raise ExportError(f"[onnx] {kind} to {dtype.name} cannot be run")
    return dtype


@runs("Cast")
def _cast(x: Any, *, to: int = 0, saturate: int = 1, round_mode: str = "up") -> Any:
    return ops["cast"](x, dtype=dtype_of("Cast", to))


@runs("CastLike")
def _cast_like(x: Any, like: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    return ops["cast"](x, dtype=_number("CastLike", like.array.dtype))


@runs("IsInf")
def _isinf(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    y = ops["isinf"](x)
    if detect_negative and detect_positive:
        return y
    return ops["logical_and"](y, ops["gt" if detect_positive else "lt"](x, 0.0))


@runs("Clip")
def _clip(x: Any, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = (given if bound is None else bound for given, bound in ((low, min), (high, max)))
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


@runs("Selu")
def _selu(x: Any, *, alpha: float = 1.67326319, gamma: float = 1.05070102) -> Any:
    return ops["elu"](x, alpha=alpha, scale=gamma, input_scale=1.0)


@runs("Celu")
def _celu(x: Any, *, alpha: float = 1.0) -> Any:
    return ops["elu"](x, alpha=alpha, scale=1.0, input_scale=1 / alpha)


@runs("Softsign")
def _softsign(x: Any) -> Any:
    return x / (ops["abs"](x) + 1)


@runs("PRelu")
def _prelu(x: Any, slope: Any) -> Any:
    return ops["where"](ops["lt"](x, 0), x * slope, x)


@runs("ThresholdedRelu")
def _thresholded(x: Any, *, alpha: float = 1.0) -> Any:
    return ops["threshold"](x, threshold=alpha, value=0.0)


# ---- along a dimension; before opset 13 all dimensions from `axis` on, 1 if none is given


def _flattened(x: Any, axis: int | None, opset: int, call: Callable[[Any, int], Any]) -> Any:
    if opset >= 13:
        return call(x, -1 if axis is None else axis)
    shape = x.array.shape
    first = int(np.prod(shape[: 1 if axis is None else axis]))
    return call(x.reshape(first, -1), 1).reshape(*shape)


@runs("Softmax")
def _softmax(x: Any, *, axis: int | None = None, opset: int = 13) -> Any:
    return _flattened(x, axis, opset, lambda y, dim: ops["softmax"](y, dim=dim))


@runs("LogSoftmax")
def _log_softmax(x: Any, *, axis: int | None = None, opset: int = 13) -> Any:
    return _flattened(x, axis, opset, lambda y, dim: ops["log_softmax"](y, dim=dim))


@runs("Hardmax")
def _hardmax(x: Any, *, axis: int | None = None, opset: int = 13) -> Any:
    def call(y: Any, dim: int) -> Any:
        first = ops["argmax"](y, dim=dim, keepdim=True)
        return ops["scatter_value"](y * 0, dim=dim, index=first.array, value=1)

    return _flattened(x, axis, opset, call)


# ---- reductions


def _extreme_of_nothing(kind: str) -> Callable[..., Any]:
    """The reduction of an array that may be empty: no largest element is the least number there is."""

    def reduce(array: Any, axis: Any, keepdims: bool) -> Any:
        if array.dtype.kind == "f":
            none = -np.inf if kind == "Max" else np.inf
        elif array.dtype.kind == "b":
            none = kind == "Min"
        else:
            none = np.iinfo(array.dtype).min if kind == "Max" else np.iinfo(array.dtype).max
        find = np.max if kind == "Max" else np.min
        return np.asarray(find(array, axis=axis, keepdims=keepdims, initial=none), array.dtype)

    return reduce


def _reduction(reduce: Callable[..., Any], least: Callable[..., Any] | None = None) -> Callable[..., Any]:
    def run(
        x: Any, given: Any = None, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Any:
        dims = tuple(ints_of(given)) if given is not None else tuple(axes or ())
        if not dims and noop_with_empty_axes:
            return reduce(x.unsqueeze(0), (0,), False)
        if not x.array.size and least is not None:
            return wrap(least(x.array, dims or None, bool(keepdims)))
        y = reduce(x, dims or None, bool(keepdims))
        return y if y.array.dtype == x.array.dtype else ops["cast"](y, dtype=x.array.dtype)

    return run


def _by(op: str, first: str = "clone", last: str = "clone") -> Callable[..., Any]:
    return lambda x, dim, keepdim: ops[last](ops[op](ops[first](x), dim=dim, keepdim=keepdim))


KINDS = {"Sum": "sum", "Mean": "mean", "Prod": "prod", "Max": "amax", "Min": "amin", "LogSumExp": "logsumexp"}
for _kind, _op in KINDS.items():
    nodes[f"Reduce{_kind}"] = _reduction(
        _by(_op), _extreme_of_nothing(_kind) if _kind in ("Max", "Min") else None
    )
nodes["ReduceL1"] = _reduction(_by("sum", first="abs"))
nodes["ReduceSumSquare"] = _reduction(_by("sum", first="square"))
nodes["ReduceLogSum"] = _reduction(_by("sum", last="log"))
nodes["ReduceL2"] = _reduction(_by("sum", first="square", last="sqrt"))


def _extreme(op: str) -> Callable[..., Any]:
    def run(x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
        if not select_last_index:
            return ops[op](x, dim=axis, keepdim=bool(keepdims))
        place = ops[op](ops["flip"](x, dims=(axis,)), dim=axis, keepdim=bool(keepdims))
        return ops["sub"](x.array.shape[axis] - 1, place)

    return run


nodes["ArgMax"], nodes["ArgMin"] = _extreme("argmax"), _extreme("argmin")


def _scan(op: str) -> Callable[..., Any]:
    def run(x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
        dim = int(axis.array.reshape(-1)[0])
        y = ops["flip"](x, dims=(dim,)) if reverse else x
        if exclusive:
            n = x.array.shape[dim]
            first = ops["narrow"](y, dim=dim, start=0, length=min(n, 1)) * 0 + int(op == "cumprod")
            y = ops["cat"](first, ops["narrow"](y, dim=dim, start=0, length=max(n - 1, 0)), dim=dim)
        y = ops["cast"](ops[op](y, dim=dim), dtype=x.array.dtype)
        return ops["flip"](y, dims=(dim,)) if reverse else y

    return run


nodes["CumSum"], nodes["CumProd"] = _scan("cumsum"), _scan("cumprod")

__all__ = ["attributes_of", "dtype_of", "ints_of", "like", "nodes", "pairs_of", "runs"]
