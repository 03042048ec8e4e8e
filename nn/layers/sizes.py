"""Kernel sizes, strides and paddings: one number for all dimensions, or one each."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

Size = int | tuple[int, ...]


def per_dimension(value: Any, n: int) -> tuple[Any, ...]:
    """`value` for each of n dimensions; a sequence is taken as it is."""
    return (
        tuple(value)
        if isinstance(value, Iterable) and not isinstance(value, str)
        else tuple(repeat(value, n))
    )


def _single(value: Any) -> tuple[Any, ...]:
    return per_dimension(value, 1)


def _pair(value: Any) -> tuple[Any, ...]:
    return per_dimension(value, 2)


def _triple(value: Any) -> tuple[Any, ...]:
    return per_dimension(value, 3)


def _quadruple(value: Any) -> tuple[Any, ...]:
    return per_dimension(value, 4)


def _ntuple(n: int, name: str = "parse") -> Any:
    def parse(value: Any) -> tuple[Any, ...]:
        return per_dimension(value, n)

    parse.__name__ = name
    return parse
