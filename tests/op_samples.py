"""Sample inputs of every op: what the registry-driven tests run on.

A new op needs one line here. A sample is the op's positional arguments and keywords; its arrays are `A`s, made in
the dtype that a test wants, with the memory layout that the sample names.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class A(NamedTuple):
    """An array to be made: its shape, values in [low, high], memory layout, and kind.

    layout  plain, transposed (last two dimensions in the other order), strided (every second element of a
            larger array), expanded (along the first dimension)
    kind    float: cast to the dtype under test; index: int64 in [0, high); bool; nonzero: away from zero
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
SAMPLES |= {name: one() for name in "neg abs sign square exp expm1 exp2 sin cos atan sinh cosh tanh".split()}
SAMPLES |= {name: one() for name in "floor ceil trunc sigmoid erf clone contiguous alias".split()}
SAMPLES |= {name: one() for name in "logical_not isnan isinf isfinite".split()}
SAMPLES |= {name: one(0.1, 4.0) for name in "log log2 log10 log1p sqrt rsqrt".split()}
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
SAMPLES |= {name: two() for name in "add sub mul maximum minimum eq ne lt le gt ge".split()}
SAMPLES |= {name: two() for name in "logical_and logical_or logical_xor".split()}
SAMPLES |= {name: two(number=3) for name in "bitwise_and bitwise_or bitwise_xor".split()}
SAMPLES |= {name: two(0, 4, number=2) for name in ("bitwise_left_shift", "bitwise_right_shift")}
SAMPLES |= {name: two(kind="nonzero") for name in "div floor_divide remainder fmod atan2".split()}
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
SAMPLES |= {name: reduction + empty for name in "sum mean prod".split()}
SAMPLES |= {name: [S(a) for a in (M, A(()), A((0, 3)), R, *layouts)] for name in ("sum_all", "mean_all")}
SAMPLES |= {name: reduction for name in "amax amin logsumexp".split()}
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
