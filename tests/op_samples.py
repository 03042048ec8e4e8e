"""Sample inputs of every op: what the registry-driven tests run on.

A new op needs one line here. A sample is the op's positional arguments and keywords; its arrays are `A`s, made in
the dtype that a test wants, with the memory layout that the sample names.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ringgrad.tensor.philox import Draw


class A(NamedTuple):
    """An array to be made: its shape, values in [low, high], memory layout, and kind.

    layout  plain, transposed (last two dimensions in the other order), strided (every second element of a
            larger array), expanded (along the first dimension)
    kind    float: cast to the dtype under test; fixed: the same, without a gradient; nonzero: away from zero;
            index: int64 in [0, high); bool; complex: complex128
    """

    shape: tuple[int, ...] = (3, 4)
    low: float = -2.0
    high: float = 2.0
    layout: str = "plain"
    kind: str = "float"
    seed: int = 0

    def make(self, dtype: Any) -> np.ndarray[Any, Any]:
        if self.layout == "transposed":
            flipped = self._replace(shape=(*self.shape[:-2], self.shape[-1], self.shape[-2]), layout="plain")
            return flipped.make(dtype).swapaxes(-1, -2)
        if self.layout == "strided":
            wide = self._replace(shape=(*self.shape[:-1], self.shape[-1] * 2), layout="plain")
            return wide.make(dtype)[..., ::2]
        if self.layout == "expanded":
            return np.broadcast_to(
                self._replace(shape=(1, *self.shape[1:]), layout="plain").make(dtype), self.shape
            )
        size = int(np.prod(self.shape))
        random = np.random.default_rng(zlib.crc32(repr((self.shape, self.seed, self.kind)).encode()))
        if self.kind == "index":
            return np.asarray(random.integers(0, int(self.high), self.shape))
        if self.kind == "complex":
            return random.standard_normal(self.shape) + 1j * random.standard_normal(self.shape)
        if self.kind == "bool":
            return np.asarray(random.integers(0, 2, self.shape), bool)
        # distinct values, evenly spread and then moved a little off any grid
        spread = (random.permutation(size) + random.uniform(0.2, 0.8, size)) / max(size, 1)
        values = self.low + (self.high - self.low) * spread
        if self.kind == "nonzero":
            values = np.where(values < 0, values - 1, values + 1)
        values = values.reshape(self.shape)
        dtype = np.dtype(dtype)
        if dtype.kind == "b":
            return np.asarray(values > (self.low + self.high) / 2)
        if dtype.kind == "u":
            return np.asarray(np.abs(np.round(values)), dtype)
        return np.asarray(np.round(values) if dtype.kind == "i" else values, dtype)


class Derived(NamedTuple):
    """An argument that is a function of the arrays before it: what another op of the same layer would have given."""

    of: Callable[..., Any]


def settled(
    args: list[Any], kw: dict[str, Any], wrap: Callable[[Any], Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments with `Derived` ones computed; to be called at each call, as differences move the others."""
    if not any(isinstance(v, Derived) for v in (*args, *kw.values())):
        return args, kw
    arrays = [a.array for a in args if hasattr(a, "array")]
    arrays = [a.astype(np.float32) if a.dtype.itemsize == 2 else a for a in arrays]
    out = [wrap(np.asarray(a.of(*arrays))) if isinstance(a, Derived) else a for a in args]
    return out, {k: np.asarray(v.of(*arrays)) if isinstance(v, Derived) else v for k, v in kw.items()}


class Sample(NamedTuple):
    """One call of an op."""

    args: tuple[Any, ...]
    kw: dict[str, Any]

    def build(self, make: Callable[[A], Any]) -> tuple[list[Any], dict[str, Any]]:
        """The call's arguments with each `A` made, also those in nested tuples."""
        return [_built(a, make) for a in self.args], {k: _built(v, make) for k, v in self.kw.items()}

    def __repr__(self) -> str:
        return f"{', '.join(map(repr, self.args))} {self.kw or ''}"


def _built(value: Any, make: Callable[[A], Any]) -> Any:
    if isinstance(value, A):
        return make(value)
    if type(value) in (tuple, list):
        return type(value)(_built(v, make) for v in value)
    return value


def S(*args: Any, **kw: Any) -> Sample:
    return Sample(args, kw)


def one(low: float = -2.0, high: float = 2.0, kind: str = "float") -> list[Sample]:
    """For elementwise ops of one tensor: all layouts, 0-d, empty."""
    shapes: list[tuple[tuple[int, ...], str]] = [((3, 4), "plain"), ((), "plain"), ((0, 3), "plain")]
    shapes += [((3, 4), "transposed"), ((2, 5), "strided"), ((3, 2), "expanded"), ((1,), "plain")]
    return [S(A(shape, low, high, layout, kind)) for shape, layout in shapes]


def two(low: float = -2.0, high: float = 2.0, kind: str = "float", number: Any = 1.5) -> list[Sample]:
    """For elementwise ops of two tensors: broadcasting both ways, layouts, 0-d, empty, a number."""
    pairs: list[tuple[A, Any]] = [
        (A((3, 4)), A((3, 4))),
        (A((3, 4)), A((4,))),
        (A((3, 1)), A((1, 4))),
        (A((4,)), A((2, 3, 4))),
        (A(()), A(())),
        (A((2, 3)), A(())),
        (A(()), A((2, 3))),
        (A((0, 3)), A((1, 3))),
        (A((3, 4), layout="transposed"), A((3, 4), layout="strided")),
        (A((3, 4), layout="expanded"), A((3, 1))),
    ]
    found = [
        S(a._replace(low=low, high=high, kind=kind), b._replace(low=low, high=high, kind=kind, seed=1))
        for a, b in pairs
    ]
    return [*found, S(A((2, 3), low, high, kind=kind), number)]


def pairs(low: float = -2.0, high: float = 2.0) -> list[Sample]:
    """As `two`, of tensors alone."""
    return two(low, high)[:-1]


COMPLEX = A((3,), kind="complex")
M, R = A((3, 4)), A((2, 3, 4))
INDEX = A((5,), high=3, kind="index")
reduction = [
    S(R, dim=1),
    S(R, dim=-1, keepdim=True),
    S(R, dim=(0, 2)),
    S(R, dim=None),
    S(A((3, 4), layout="transposed"), dim=0),
    S(A((2, 5), layout="strided"), dim=-1),
    S(A(()), dim=None),
    S(A((0, 3)), dim=1),
]
empty = [S(A((0, 3)), dim=0), S(A((2, 0)), dim=None, keepdim=True)]
scan = [
    S(R, dim=1),
    S(R, dim=-1),
    S(A(()), dim=0),
    S(A((0, 3)), dim=1),
    S(A((3, 4), layout="transposed"), dim=0),
]
layouts = [A((3, 4), layout="transposed"), A((3, 4), layout="strided"), A((3, 4), layout="expanded")]

_MASK = A((3, 4), kind="bool")
_ROWS, _COLUMNS = A((2, 1), high=3, kind="index"), A((4,), high=4, kind="index", seed=1)
_BASIC: list[tuple[Any, ...]] = [
    (1, Ellipsis),
    (slice(None), slice(1, 4, 2), Ellipsis),
    (None, -1, Ellipsis, None),
    (Ellipsis, slice(0, 0)),
    (Ellipsis,),
]
_ADVANCED: list[tuple[Any, ...]] = [
    (_ROWS, _COLUMNS),
    (INDEX,),
    (slice(None), INDEX),
    (_MASK,),
    (None, INDEX, slice(1, 3)),
]

SAMPLES: dict[str, list[Sample]] = {}
SAMPLES |= {
    name: one()
    for name in [
        "neg",
        "abs",
        "sign",
        "square",
        "exp",
        "expm1",
        "exp2",
        "sin",
        "cos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
    ]
}
SAMPLES |= {
    name: one() for name in ["floor", "ceil", "trunc", "sigmoid", "erf", "clone", "contiguous", "alias"]
}
SAMPLES |= {name: one() for name in ["logical_not", "isnan", "isinf", "isfinite"]}
SAMPLES |= {name: one(0.1, 4.0) for name in ["log", "log2", "log10", "log1p", "sqrt", "rsqrt"]}
SAMPLES |= {
    "reciprocal": one(kind="nonzero"),
    "tan": one(-1.2, 1.2),
    "asin": one(-0.9, 0.9),
    "acos": one(-0.9, 0.9),
}
SAMPLES |= {
    "bitwise_not": one(),
    "round": [*one(-20, 20), S(M, decimals=2), S(A((4,), -2000, 2000), decimals=-2)],
}
SAMPLES |= {
    name: two() for name in ["add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"]
}
SAMPLES |= {name: two() for name in ["logical_and", "logical_or", "logical_xor"]}
SAMPLES |= {name: two(number=3) for name in ["bitwise_and", "bitwise_or", "bitwise_xor"]}
SAMPLES |= {name: two(0, 4, number=2) for name in ("bitwise_left_shift", "bitwise_right_shift")}
SAMPLES |= {name: two(kind="nonzero") for name in ["div", "floor_divide", "remainder", "fmod", "atan2"]}
SAMPLES["pow"] = [
    *two(0.2, 2.5),
    S(M, 2),
    S(M, 3),
    S(A((3,), 0.5, 2.0), 0.5),
    S(A((3,), 0.5, 2.0), -1.0),
    S(M, 0),
]
SAMPLES["cast"] = [
    S(s.args[0], dtype=np.dtype(d)) for s in one() for d in ("float64", "float32", "int32", "bool")
]
SAMPLES["where"] = [
    S(_MASK, M, A((3, 4), seed=1)),
    S(_MASK, M, A((4,), seed=1)),
    S(A((3, 1), kind="bool"), A((4,)), A(())),
    S(A((), kind="bool"), A(()), A((2, 2))),
    S(_MASK._replace(layout="strided"), M._replace(layout="transposed"), 2),
    S(A((0, 4), kind="bool"), A((4,)), A((1, 4))),
]
SAMPLES["clamp"] = [
    S(M, -0.5, 0.5),
    S(M, None, 0.5),
    S(M, -0.5, None),
    S(M, A((4,), -1, -0.5), A((3, 1), 0.5, 1, seed=1)),
    S(M, A((3, 4), seed=1), None),
    S(A(()), -1.0, 1.0),
    S(A((0, 2)), -1, 1),
    *[S(a, -1.0, 1.0) for a in layouts],
]
SAMPLES["masked_fill"] = [
    S(M, _MASK, 2),
    S(M, A((4,), kind="bool"), A(())),
    S(A((4,)), _MASK, 1.0),
    S(A(()), A((), kind="bool"), 3.0),
    S(A((0, 4)), A((4,), kind="bool"), 1.0),
    S(layouts[0], _MASK._replace(layout="strided"), -1.0),
]
SAMPLES["copy"] = [
    S(M, A((3, 4), seed=1)),
    S(M, A((4,), seed=1)),
    S(A(()), A((), seed=1)),
    S(A((0, 4)), A((4,))),
]
SAMPLES |= {name: reduction + empty for name in ["sum", "mean", "prod"]}
SAMPLES |= {name: [S(a) for a in (M, A(()), A((0, 3)), R, *layouts)] for name in ("sum_all", "mean_all")}
SAMPLES |= {name: reduction for name in ["amax", "amin", "logsumexp"]}
SAMPLES["norm2"] = reduction + empty
SAMPLES |= {name: reduction + empty for name in ("all", "any")}
SAMPLES |= {
    name: [
        S(R, dim=1),
        S(R, dim=-1, keepdim=True),
        S(R, dim=None),
        S(A(()), dim=None),
        S(A((3, 4), layout="transposed"), dim=0),
    ]
    for name in ("argmax", "argmin")
}
SAMPLES |= {
    name: [S(s.args[0], **s.kw, correction=c) for s, c in zip(reduction[:6], (1, 0, 1, 1, 0, 2))]
    + [S(A((0, 3)), dim=1)]
    for name in ("var", "std")
}
SAMPLES |= {"cumsum": scan, "cumprod": scan}

SAMPLES["reshape"] = [S(a, shape=(2, -1)) for a in (M, R, *layouts)] + [
    S(A(()), shape=(1, 1)),
    S(A((0, 3)), shape=(3, 0)),
]
SAMPLES["view"] = [S(M, shape=(2, 6)), S(R, shape=(-1, 4)), S(A(()), shape=(1,)), S(A((0, 3)), shape=(0,))]
SAMPLES["permute"] = [
    S(R, dims=(2, 0, 1)),
    S(R, dims=(-1, 1, 0)),
    S(A(()), dims=()),
    S(A((0, 3)), dims=(1, 0)),
]
SAMPLES["permute"] += [S(a, dims=(1, 0)) for a in layouts]
SAMPLES["transpose"] = [S(R, dim0=0, dim1=-1), S(A(()), dim0=0, dim1=0), S(A((0, 3)), dim0=0, dim1=1)]
SAMPLES["transpose"] += [S(a, dim0=1, dim1=0) for a in layouts]
SAMPLES["expand"] = [
    S(A((3, 1)), shape=(2, -1, 4)),
    S(A(()), shape=(2, 2)),
    S(A((1, 3)), shape=(0, 3)),
    S(layouts[0], shape=(2, 3, 4)),
]
SAMPLES["sum_to_shape"] = [
    S(R, shape=(3, 1)),
    S(R, shape=(2, 3, 4)),
    S(R, shape=()),
    S(A((0, 3)), shape=(1, 3)),
    S(layouts[0], shape=(4,)),
]
SAMPLES["unsqueeze"] = [S(M, dim=0), S(M, dim=-1), S(A(()), dim=0), S(A((0, 3)), dim=1), S(layouts[1], dim=1)]
SAMPLES["squeeze"] = [
    S(A((1, 3, 1))),
    S(A((1, 3, 1)), dim=0),
    S(A((1, 3, 1)), dim=-2),
    S(A(())),
    S(A((1, 0)), dim=(0,)),
]
SAMPLES["narrow"] = [S(a, dim=-1, start=1, length=2) for a in (R, *layouts)]
SAMPLES["narrow"] += [
    S(M, dim=0, start=-2, length=1),
    S(M, dim=0, start=3, length=0),
    S(A((0, 3)), dim=1, start=0, length=3),
]
SAMPLES["narrow_adjoint"] = [
    S(A((3, 2)), shape=(3, 5), dim=1, start=2),
    S(A((0, 2)), shape=(4, 2), dim=0, start=1),
]
SAMPLES["split"] = [
    S(R, sizes=2, dim=-1),
    S(R, sizes=(1, 0, 2), dim=1),
    S(A((5,)), sizes=2, dim=0),
    S(A((0, 3)), sizes=2, dim=1),
]
SAMPLES["split"] += [S(a, sizes=3, dim=1) for a in layouts]
SAMPLES["unbind"] = [S(R, dim=0), S(R, dim=-1), S(A((0, 3)), dim=1), *[S(a, dim=1) for a in layouts]]
SAMPLES["cat"] = [
    S(M, A((2, 4), seed=1), dim=0),
    S(M, A((3, 2), seed=1), M, dim=-1),
    S(A((0,)), A((2, 3)), dim=1),
    S(*layouts, dim=0),
    S(M, dim=0),
]
SAMPLES["stack"] = [
    S(M, A((3, 4), seed=1), dim=0),
    S(M, A((3, 4), seed=1), dim=-1),
    S(A(()), A((), seed=1), dim=0),
]
SAMPLES["stack"] += [S(*layouts, dim=1), S(A((0, 2)), dim=0)]
SAMPLES["flip"] = [
    S(R, dims=(0, 2)),
    S(R, dims=(-1,)),
    S(A((0, 3)), dims=(1,)),
    *[S(a, dims=(0,)) for a in layouts],
]
SAMPLES["roll"] = [
    S(R, shifts=2, dims=1),
    S(R, shifts=(1, -1), dims=(0, -1)),
    S(M, shifts=5),
    S(layouts[0], shifts=-1, dims=0),
]
SAMPLES["roll"] += [S(A((0, 3)), shifts=1, dims=1)]
SAMPLES["diagonal"] = [
    S(R, offset=1, dim1=1, dim2=-1),
    S(A((3, 3))),
    S(M, offset=-1),
    S(M, offset=9),
    *[S(a) for a in layouts],
]
SAMPLES["diagonal_adjoint"] = [
    S(A((2, 3)), shape=(2, 3, 4), offset=1, dim1=1, dim2=2),
    S(A((2,)), shape=(3, 4), offset=-1, dim1=0, dim2=1),
]
SAMPLES |= {
    name: [S(R, diagonal=1), S(M), S(M, diagonal=-1), S(A((0, 3))), *[S(a) for a in layouts]]
    for name in ("tril", "triu")
}

SAMPLES["getitem"] = [S(R, index=i) for i in _BASIC] + [
    S(A(()), index=(None, Ellipsis)),
    S(layouts[0], index=(1, Ellipsis)),
]
SAMPLES["index"] = [S(M, index=i) for i in _ADVANCED] + [
    S(layouts[0], index=(INDEX,)),
    S(layouts[1], index=(_MASK,)),
]
SAMPLES["getitem_adjoint"] = [
    S(A((3, 4)), shape=(2, 3, 4), index=(1, Ellipsis), basic=True),
    S(A((5, 4)), shape=(3, 4), index=(INDEX,), basic=False),
    S(A((2, 4)), shape=(3, 4), index=(_ROWS, _COLUMNS), basic=False),
    S(A((64, 4)), shape=(3, 4), index=(A((64,), high=3, kind="index"),), basic=False),
]
SAMPLES["erase"] = [S(M, index=i) for i in [(1, Ellipsis), *_ADVANCED[:4]]]
SAMPLES["setitem"] = [
    S(M, A((4,), seed=1), index=(1, Ellipsis)),
    S(M, A((), seed=1), index=(slice(0, 2), Ellipsis)),
    S(M, A((1, 4), seed=1), index=(np.array([2, 0]),)),
    S(M, A((), seed=1), index=(_MASK,)),
]
SAMPLES["gather"] = [
    S(M, dim=0, index=A((2, 4), high=3, kind="index")),
    S(R, dim=-1, index=A((2, 2, 6), high=4, kind="index")),
    S(A(()), dim=0, index=A((), high=1, kind="index")),
    S(M, dim=1, index=A((0, 4), high=4, kind="index")),
    *[S(a, dim=1, index=A((3, 2), high=4, kind="index")) for a in layouts],
]
SAMPLES["pick"] = [
    S(M, dim=0, index=A((4,), high=3, kind="index")),
    S(R, dim=2, index=A((2, 3), high=4, kind="index")),
    S(A((3,)), dim=0, index=A((), high=3, kind="index")),
]
SAMPLES["scatter_into_zeros"] = [
    S(A((2, 4)), shape=(3, 4), dim=0, index=A((2, 4), high=3, kind="index")),
    S(A(()), shape=(), dim=0, index=A((), high=1, kind="index")),
]
SAMPLES["index_select"] = [S(a, dim=0, index=INDEX) for a in (M, *layouts)]
SAMPLES["index_select"] += [
    S(R, dim=-1, index=A((2,), high=4, kind="index")),
    S(A((2, 3)), dim=1, index=A((0,), high=3, kind="index")),
]
SAMPLES["index_add_zeros"] = [
    S(A((5, 4)), shape=(3, 4), dim=0, index=INDEX),
    S(A((2, 5)), shape=(2, 3), dim=1, index=INDEX),
]

SAMPLES["matmul"] = [
    S(A((3, 4)), A((4, 2), seed=1)),
    S(A((4,)), A((4,), seed=1)),
    S(A((3, 4)), A((4,), seed=1)),
    S(A((4,)), A((4, 3), seed=1)),
    S(A((2, 3, 4)), A((4, 2), seed=1)),
    S(A((2, 3, 4)), A((4,), seed=1)),
    S(A((4,)), A((2, 4, 3), seed=1)),
    S(A((2, 1, 3, 4)), A((3, 4, 2), seed=1)),
    S(A((3, 4)), A((2, 4, 2), seed=1)),
    S(A((0, 4)), A((4, 2), seed=1)),
    S(A((3, 0)), A((0, 2), seed=1)),
    S(A((2, 3, 4), layout="transposed"), A((4, 2), layout="strided", seed=1)),
    S(A((2, 3, 4), layout="expanded"), A((2, 4, 2), layout="transposed", seed=1)),
]
SAMPLES["linear"] = [
    S(A((3, 4)), A((2, 4), seed=1), A((2,), seed=2)),
    S(A((3, 4)), A((2, 4), seed=1)),
    S(A((4,)), A((2, 4), seed=1), A((2,), seed=2)),
    S(A((2, 3, 4)), A((5, 4), seed=1), A((5,), seed=2)),
    S(A((0, 4)), A((2, 4), seed=1), A((2,), seed=2)),
    S(
        A((3, 4), layout="transposed"),
        A((2, 4), layout="transposed", seed=1),
        A((2,), layout="strided", seed=2),
    ),
]

# ---- neural network ops

_D2 = {"stride": (1, 1), "padding": ((1, 1), (0, 1)), "dilation": (1, 1)}
_D2S = {"stride": (2, 1), "padding": ((0, 1), (1, 1)), "dilation": (1, 2)}
_IMAGE = A((2, 2, 4, 5))
_POSITIVE = A((3, 4), 0.1, 0.9)
_CLASSES = A((3,), high=4, kind="index")

SAMPLES |= {name: one() for name in ["relu", "silu", "gelu", "gelu_tanh", "mish", "logsigmoid"]}
SAMPLES |= {"hardsigmoid": one(-4, 4), "hardswish": one(-4, 4), "x_log_x": one(0.1, 2)}
SAMPLES["elu"] = [S(*s.args, alpha=1.5, scale=1.0, input_scale=1.0) for s in one()]
SAMPLES |= {name: [S(*s.args, lambd=0.4) for s in one()] for name in ("hardshrink", "softshrink")}
SAMPLES["hardtanh"] = [S(*s.args, low=-1.0, high=0.7) for s in one()]
SAMPLES["leaky_relu"] = [S(*s.args, negative_slope=0.1) for s in one()]
SAMPLES["softplus"] = [S(*s.args, beta=2.0, threshold=20.0) for s in one()]
SAMPLES["threshold"] = [S(*s.args, threshold=0.3, value=-2.0) for s in one()]
SAMPLES |= {
    name: [S(a, dim=d) for a in (M, R, *layouts) for d in (0, -1)] + [S(A((0, 3)), dim=1)]
    for name in ("softmax", "log_softmax")
}
SAMPLES["softmax_backward"] = [S(M, A((3, 4), 0.1, 0.5, seed=1), dim=1)]
SAMPLES["log_softmax_backward"] = [S(M, A((3, 4), -2, -0.5, seed=1), dim=-1)]
SAMPLES["between_backward"] = [S(M, A((3, 4), seed=1), low=-1.0, high=0.7)]
SAMPLES["leaky_relu_backward"] = [S(M, A((3, 4), seed=1), negative_slope=0.1)]
SAMPLES["shrink_backward"] = [S(M, A((3, 4), seed=1), lambd=0.4)]
SAMPLES["threshold_backward"] = [S(M, A((3, 4), seed=1), threshold=0.3)]

SAMPLES["huber"] = [S(*s.args, delta=0.8) for s in one()]
SAMPLES["smooth_l1"] = [S(*s.args, beta=0.8) for s in one()]
SAMPLES["mse_loss"] = [S(M, A((3, 4), seed=1), reduction=r) for r in ("mean", "sum", "none")] + [
    S(layouts[0], M, reduction="mean")
]
SAMPLES["bce_with_logits"] = [
    S(M, _POSITIVE),
    S(layouts[0], _POSITIVE),
    S(A(()), A((), 0.2, 0.8)),
    S(A((0, 4)), A((0, 4))),
]
SAMPLES["binary_cross_entropy"] = [
    S(_POSITIVE, _POSITIVE._replace(seed=1)),
    S(A((), 0.1, 0.9), A((), 0.1, 0.9)),
]
_INDEXED: dict[str, Any] = {"ignore_index": -100}
SAMPLES["nll_loss"] = [S(M, _CLASSES, None, reduction=r, **_INDEXED) for r in ("mean", "sum", "none")]
SAMPLES["nll_loss"] += [S(M, _CLASSES, A((4,), 0.5, 1.5, kind="fixed"), reduction="mean", ignore_index=1)]
SAMPLES["nll_loss"] += [S(A((2, 3, 4)), A((2, 4), high=3, kind="index"), None, reduction="mean", **_INDEXED)]
SAMPLES["cross_entropy"] = [
    S(*s.args, label_smoothing=e, **s.kw) for s in SAMPLES["nll_loss"] for e in (0.0, 0.1)
]
SAMPLES["nll_adjoint"] = [S(A(()), _CLASSES, None, shape=(3, 4), reduction="mean", **_INDEXED)]

SAMPLES["layer_norm"] = [
    S(M, A((4,), seed=1), A((4,), seed=2), shape=(4,), eps=1e-5),
    S(R, None, None, shape=(3, 4), eps=1e-2),
]
SAMPLES["layer_norm"] += [S(a, A((4,), seed=1), None, shape=(4,), eps=1e-5) for a in layouts]
SAMPLES["rms_norm"] = [
    S(M, A((4,), seed=1), shape=(4,), eps=1e-5),
    S(R, None, shape=(3, 4), eps=1e-2),
    S(layouts[0], None, shape=(4,), eps=1e-5),
]
SAMPLES["batch_norm"] = [
    S(
        A(shape),
        w,
        b,
        eps=1e-5,
        mean=Derived(lambda x, *_: by_channel(x).mean(1)),
        variance=Derived(lambda x, *_: by_channel(x).var(1)),
    )
    for shape in ((4, 2), (2, 2, 3))
    for w, b in ((A((2,), seed=1), A((2,), seed=2)), (None, None))
]
SAMPLES["embedding"] = [S(A((2, 3), high=4, kind="index"), A((4, 3)), padding_idx=p) for p in (None, 1)]
SAMPLES["embedding_masked"] = SAMPLES["embedding"]
SAMPLES["embedding_adjoint"] = [
    S(A((2, 3, 3)), A((2, 3), high=4, kind="index"), rows=4, padding_idx=p) for p in (None, 1)
]
SAMPLES["scaled_dot_product_attention"] = [
    S(A((2, 3, 4)), A((2, 3, 4), seed=1), A((2, 3, 2), seed=2), None, None, causal=True, scale=0.5),
    S(A((2, 3)), A((4, 3), seed=1), A((4, 2), seed=2), A((2, 4), seed=3), None, causal=False, scale=1.0),
]
SAMPLES["pad"] = [
    S(M, widths=((1, 0), (0, 2)), value=1.5),
    S(layouts[0], widths=((-1, 1), (0, -1)), value=0.0),
    S(A((0, 2)), widths=((0, 1), (1, 0)), value=0.0),
]
SAMPLES["conv"] = [
    S(_IMAGE, A((3, 2, 2, 3), seed=1), A((3,), seed=2), groups=1, **_D2),
    S(_IMAGE, A((4, 1, 2, 2), seed=1), groups=2, **_D2S),
    S(
        A((1, 2, 6)),
        A((2, 2, 3), seed=1),
        A((2,), seed=2),
        groups=1,
        stride=(2,),
        padding=((1, 1),),
        dilation=(1,),
    ),
]
SAMPLES["conv_input"] = [
    S(A((2, 3, 5, 4)), A((3, 2, 2, 3), seed=1), A((2,), seed=2), size=(4, 5), groups=1, **_D2),
    S(A((1, 2, 3)), A((2, 2, 3), seed=1), size=(6,), groups=1, stride=(2,), padding=((1, 1),), dilation=(1,)),
]
SAMPLES["conv_weight"] = [S(A((2, 3, 5, 4)), A((2, 2, 4, 5), seed=1), kernel=(2, 3), groups=1, **_D2)]
SAMPLES |= {"channel_sum": [S(A((2, 3, 4))), S(A((2, 3)))], "channel_spread": [S(A((3,)), shape=(2, 3, 4))]}
SAMPLES["unfold_patches"] = [S(_IMAGE, kernel=(2, 3), **_D2)]
SAMPLES["fold_patches"] = [S(A((2, 12, 20)), size=(4, 5), kernel=(2, 3), **_D2)]
_POOL: dict[str, Any] = {"kernel": (2, 3), "stride": (2, 1), "padding": ((1, 0), (0, 1))}
_AVERAGE: list[dict[str, Any]] = [
    {**_POOL, "extra": (0, 0), "include": True, "divisor": None},
    {**_POOL, "extra": (0, 0), "include": False, "divisor": None},
    {**_POOL, "extra": (0, 0), "include": True, "divisor": 5},
]
SAMPLES["avg_pool"] = [S(_IMAGE, **kw) for kw in _AVERAGE]
SAMPLES["avg_pool_adjoint"] = [S(A((2, 2, 2, 4)), size=(4, 5), **kw) for kw in _AVERAGE]
SAMPLES["max_pool"] = [
    S(_IMAGE, dilation=(1, 1), **_POOL),
    S(A((1, 1, 6)), kernel=(2,), stride=(2,), padding=((0, 0),), dilation=(2,)),
]
# windows of one element: the largest is the element itself
_ONE: dict[str, Any] = {"kernel": (1, 1), "stride": (2, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
_TOP = Derived(lambda *arrays: arrays[-1][:, :, ::2])
SAMPLES["max_pool_adjoint"] = [S(A((2, 2, 2, 5)), _IMAGE, _TOP, **_ONE)]
SAMPLES["max_pool_select"] = [S(_IMAGE._replace(seed=1), _IMAGE, _TOP, **_ONE)]
SAMPLES["max_pool_indices"] = [S(_IMAGE, _TOP, **_ONE)]
_STEPS: dict[str, Any] = {"sizes": (2, 2, 1)}


def _cell(gates: int) -> list[A]:
    """Weights of a recurrent layer from 3 to 2 numbers."""
    return [
        A((2 * gates, 3), seed=3),
        A((2 * gates, 2), seed=4),
        A((2 * gates,), seed=5),
        A((2 * gates,), seed=6),
    ]


SAMPLES["rnn_sequence"] = [
    S(A((5, 3)), A((2, 2), seed=1), *_cell(1), reverse=r, **_STEPS) for r in (False, True)
]
SAMPLES["gru_sequence"] = [
    S(A((5, 3)), A((2, 2), seed=1), *_cell(3), reverse=r, **_STEPS) for r in (False, True)
]
SAMPLES["lstm_sequence"] = [
    S(A((5, 3)), A((2, 2), seed=1), A((2, 2), seed=2), *_cell(4), reverse=r, **_STEPS) for r in (False, True)
]


# ---- more of PyTorch's functions

SAMPLES |= {
    name: one() for name in ["asinh", "deg2rad", "rad2deg", "frac", "positive", "sgn", "sinc", "signbit"]
}
SAMPLES |= {name: one() for name in ["isneginf", "isposinf", "isreal", "conj", "angle"]}
SAMPLES["real"] = [S(COMPLEX)]
SAMPLES |= {
    "acosh": one(1.2, 4.0),
    "atanh": one(-0.9, 0.9),
    "logit": [S(*s.args, eps=e) for s in one(0.1, 0.9) for e in (None, 0.2)],
}
SAMPLES["nan_to_num"] = [S(*s.args, nan=0.0, posinf=1.0, neginf=-1.0) for s in one()]
SAMPLES |= {name: pairs() for name in ["copysign", "fmax", "fmin", "hypot", "logaddexp", "logaddexp2"]}
SAMPLES |= {name: pairs() for name in ["heaviside", "nextafter"]}
SAMPLES |= {name: pairs(0.1, 3.0) for name in ["xlogy", "xlog1py"]}
SAMPLES |= {name: pairs(1, 9) for name in ["gcd", "lcm"]}
SAMPLES["complex"] = pairs()[:6]
SAMPLES["imag"] = [S(COMPLEX)]
SAMPLES["view_as_real"] = [S(COMPLEX)]
SAMPLES["view_as_complex"] = [S(A((3, 2)))]
SAMPLES |= {
    name: [S(R, dim=1), S(A(()), dim=0), S(layouts[0], dim=0)]
    for name in ["argcummax", "argcummin", "argmode"]
}
SAMPLES["argsort"] = [S(R, dim=d, descending=e) for d in (0, -1) for e in (False, True)]
SAMPLES["argkth"] = [S(R, k=2, dim=1)]
SAMPLES["argmedian"] = [S(R, dim=1, ignore_nan=e) for e in (False, True)]
SAMPLES["median_all"] = [S(R, ignore_nan=e) for e in (False, True)]
SAMPLES["argtopk"] = [S(R, k=2, dim=1, largest=e) for e in (False, True)]
SAMPLES["logcumsumexp"] = scan
SAMPLES["as_strided"] = [
    S(A((12,)), size=(3, 4), stride=(2, 1), storage_offset=1),
    S(M, size=(2, 2), stride=(4, 0), storage_offset=0),
]
SAMPLES["strided_adjoint"] = [S(A((3, 4)), shape=(12,), size=(3, 4), stride=(2, 1), storage_offset=1)]
SAMPLES["unfold"] = [S(R, dimension=-1, size=2, step=1), S(M, dimension=0, size=2, step=2)]
SAMPLES["unfold_adjoint"] = [S(A((2, 3, 3, 2)), shape=(2, 3, 4), dimension=2, size=2, step=1)]
_INTO, _ONCE = A((2, 4), high=3, kind="index"), np.array([[0, 1, 2, 0], [1, 2, 0, 2]])
SAMPLES["scatter"] = [S(M, A((2, 4), seed=1), dim=0, index=_ONCE)]
SAMPLES["scatter_add"] = [
    S(M, A((2, 4), seed=1), dim=0, index=_INTO),
    S(layouts[0], A((3, 2), seed=1), dim=1, index=A((3, 2), high=4, kind="index")),
]
SAMPLES["scatter_value"] = [S(M, dim=0, index=_INTO, value=2.0)]
SAMPLES["scatter_reduce"] = [
    S(M, A((2, 4), seed=1), dim=0, index=_INTO, reduce=r, include_self=e)
    for r in ("sum", "mean", "amax")
    for e in (True, False)
]
SAMPLES["index_add"] = [S(M, A((5, 4), seed=1), dim=0, index=INDEX, alpha=a) for a in (1, 2)]
SAMPLES["index_copy"] = [S(M, A((2, 4), seed=1), dim=0, index=np.array([2, 0]))]
SAMPLES["index_fill"] = [S(M, dim=0, index=np.array([2, 0]), value=1.5)]
SAMPLES["index_accumulate"] = [S(M, A((5, 4), seed=1), index=(INDEX,))]
SAMPLES["contract"] = [
    S(A((2, 3, 4)), A((4, 3), seed=1), left="bij", right="ji", out="b"),
    S(A((2, 3, 4)), A((2, 4, 2), seed=1), left="bij", right="bjk", out="kbi"),
    S(A((3,)), A((4,), seed=1), left="i", right="j", out="ij"),
    S(layouts[0], layouts[1], left="ij", right="ij", out=""),
]
SAMPLES["counted_dropout"] = [S(A(), p=0.3, draw=Draw(7, 2)), S(A((5, 8)), p=0.5, draw=Draw(2**63, 1))]
SAMPLES["copy_to"] = [S(A(), device="cpu"), S(A((2, 5), layout="strided"), device="cpu")]
SAMPLES["masked_scatter"] = [S(M, A((12,), seed=1), mask=_MASK)]


def by_channel(x: Any) -> Any:
    """(N, C, ...) as one row a channel."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


# Ops whose results jump: the gradient is zero by definition, differences say nothing where a value crosses a step.
# Ops with a sharp point are sampled away from it.
INTEGER_ONLY = {
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_not",
    "bitwise_left_shift",
    "bitwise_right_shift",
}
INTEGER_ONLY |= {"gcd", "lcm"}
# Complex inputs or outputs, which differences along the real axis do not check: see the tests of complex numbers.
COMPLEX_OPS = {"complex", "real", "imag", "view_as_real", "view_as_complex"}

# Ops that are loaded when first used have their samples beside them.
from op_samples_more import ELSEWHERE  # noqa: E402
from op_samples_more import SAMPLES as _MORE  # noqa: E402

SAMPLES |= _MORE
COMPLEX_OPS |= ELSEWHERE
