"""Devices: `cpu`, and `cuda:N`, whose backend (tensor/backend/cuda) is loaded when one is first asked for.

This file is the only way from the tensors to that backend: where an array stands (`of`), how it gets elsewhere (`move`)
and how one is made there (`make`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ..autograd.engine import Variable, array_namespace


class device:
    """`device("cuda:1")`, `device("cuda", 1)`, `device(1)`; compares equal by type and index."""

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: Any, index: int | None = None) -> None:
        if isinstance(type, device):
            type, index = type.type, type.index if index is None else index
        elif isinstance(type, int):
            type, index = "cuda", type
        name, _, number = str(type).partition(":")
        if name not in ("cpu", "cuda", "meta", "mps", "xpu"):
            raise RuntimeError(f"[device] must be 'cpu' or 'cuda', with ':N' if wanted, came {type!r}")
        if number:
            if index is not None or not number.isdigit():
                raise RuntimeError(f"[device] must be of the form 'cuda:N', came {type!r} with index {index}")
            index = int(number)
        self.type, self.index = name, index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        return (
            f"device(type={self.type!r})"
            if self.index is None
            else f"device(type={self.type!r}, index={self.index})"
        )

    def __enter__(self) -> device:
        _default.append(check(self))
        return self

    def __exit__(self, *_: Any) -> None:
        _default.pop()

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


cpu = device("cpu")
_cuda: dict[int, device] = {}
_default = [cpu]  # the last one is where tensors are made; `with device(...)` puts another on top


def check(d: Any) -> device:
    """The device asked for, if this process can use it; None is the default one."""
    if d is None:
        return _default[-1]
    found = d if isinstance(d, device) else device(d)
    if found.type == "cpu":
        return cpu
    if found.type == "cuda":
        from .backend.cuda.runtime import check_index

        return cuda(check_index(found.index))
    raise RuntimeError(f"[device] this build computes on 'cpu' and 'cuda', came {str(found)!r}")


def cuda(index: int) -> device:
    """The device cuda:index."""
    return _cuda.get(index) or _cuda.setdefault(index, device("cuda", index))


def set_default(d: Any) -> None:
    """Sets where tensors are made; None: on the CPU."""
    _default[:] = [cpu if d is None else check(d)]


def default() -> device:
    """Where tensors are made."""
    return _default[-1]


def of(array: Any) -> device:
    """Where an array stands."""
    return cpu if isinstance(array, np.ndarray) else cuda(int(array.device.id))


def move(array: Any, to: device, non_blocking: bool = False) -> Any:
    """A copy of an array on a device; the array itself where it stands there."""
    if of(array) == to:
        return array
    from .backend.cuda import transfer

    if to.type == "cpu":
        return transfer.to_host(array, non_blocking)
    assert to.index is not None
    return transfer.to_device(array, to.index, non_blocking)


def make(name: str, d: Any, *args: Any) -> Any:
    """An array made on a device by the array module's function `name`, such as "zeros"."""
    found = _default[-1] if d is None else check(d)
    if found is cpu:
        return getattr(np, name)(*args)
    from .backend.cuda.runtime import load

    cp = load()
    with cp.cuda.Device(found.index):
        return getattr(cp, name)(*args)


def by_the_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that NumPy computes: tensors on a GPU are copied to the CPU, results back. Recorded."""

    @wraps(function)
    def call(*args: Any, **kw: Any) -> Any:
        if len(array_namespace) == 1:
            return function(*args, **kw)
        given = (*args, *kw.values())
        home = next((of(a.array) for a in given if isinstance(a, Variable) and of(a.array) is not cpu), None)
        if home is None:
            return function(*args, **kw)
        there = {k: _placed(v, cpu) for k, v in kw.items()}
        return _placed(function(*(_placed(a, cpu) for a in args), **there), home)

    return call


def _placed(value: Any, place: device) -> Any:
    if isinstance(value, Variable):
        return value.to(device=place)
    if isinstance(value, tuple):
        parts = [_placed(v, place) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def seed_gpus(seed: int) -> None:
    """Seeds the generators of the GPUs in use; nothing where there are none."""
    if len(array_namespace) > 1:
        from .backend.cuda import random

        random.seed_all(seed)
