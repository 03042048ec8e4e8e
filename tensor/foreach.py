"""Operations on lists of tensors: `_foreach_add_` and its kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.engine import Variable

ONE = (
    "abs acos asin atan ceil cos cosh erf erfc exp expm1 floor frac lgamma log log10 log1p log2 neg reciprocal round"
    " rsqrt sigmoid sign sin sinh sqrt tan tanh trunc"
)
TWO, THREE = "add sub mul div pow maximum minimum clamp_min clamp_max", "addcmul addcdiv"

Tensors = Sequence[Any]


def _spread(other: Any, n: int) -> Sequence[Any]:
    """One value for all, or one for each."""
    if isinstance(other, tuple | list):
        if len(other) != n:
            raise RuntimeError(f"[foreach] lists must be of one length, came {n} and {len(other)}")
        return other
    return [other] * n


def _one(name: str) -> Callable[[Tensors], Any]:
    def call(self: Tensors) -> Any:
        found = [getattr(t, name)() for t in self]
        return None if name.endswith("_") else found

    return _named(call, name)


def _two(name: str) -> Callable[..., Any]:
    def call(self: Tensors, other: Any, **kw: Any) -> Any:
        found = [getattr(t, name)(o, **kw) for t, o in zip(self, _spread(other, len(self)))]
        return None if name.endswith("_") else found

    return _named(call, name)


def _three(name: str) -> Callable[..., Any]:
    def call(self: Tensors, tensors1: Tensors, tensors2: Tensors, value: Any = 1) -> Any:
        values = _spread(value if not isinstance(value, Variable) else value.tolist(), len(self))
        found = [getattr(t, name)(a, b, value=v) for t, a, b, v in zip(self, tensors1, tensors2, values)]
        return None if name.endswith("_") else found

    return _named(call, name)


def _lerp(name: str) -> Callable[..., Any]:
    def call(self: Tensors, tensors1: Tensors, weight: Any) -> Any:
        found = [getattr(t, name)(a, w) for t, a, w in zip(self, tensors1, _spread(weight, len(self)))]
        return None if name.endswith("_") else found

    return _named(call, name)


def _named(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    call.__name__ = call.__qualname__ = f"_foreach_{name}"
    call.__doc__ = f"Tensor.{name} of each tensor of a list."
    return call


def _norm(self: Tensors, ord: float = 2, dtype: Any = None) -> list[Any]:
    """The vector norm of each tensor of a list."""
    return [t.norm(ord, dtype=dtype) for t in self]


def _copy(self: Tensors, src: Tensors, non_blocking: bool = False) -> None:
    """Each tensor of a list overwritten by that of another."""
    for t, s in zip(self, src):
        t.copy_(s)


contents: dict[str, Any] = {"_foreach_norm": _norm, "_foreach_copy_": _copy, "_foreach_zero_": _one("zero_")}
for _names, _make in ((ONE, _one), (TWO, _two), (THREE, _three), ("lerp", _lerp)):
    for _name in _names.split():
        contents[f"_foreach_{_name}"] = _make(_name)
        contents[f"_foreach_{_name}_"] = _make(_name + "_")
globals().update(contents)
