"""Copies from device to device, under autograd: the gradient goes back to where the input stood."""

from __future__ import annotations

from typing import Any

from ...autograd.engine import Variable
from ...autograd.op import Op
from .. import device as devices


def _prepare(x: Any, *, device: Any, non_blocking: bool = False, source: Any = None) -> Any:
    array = x.array if isinstance(x, Variable) else x
    return (x,), {"device": devices.check(device), "non_blocking": non_blocking, "source": devices.of(array)}


def _copy_to(xp: Any, x: Any, *, device: Any, non_blocking: bool, source: Any) -> Any:
    y = devices.move(x, device, non_blocking)
    return x.copy() if y is x else y


copy_to = Op(
    "copy_to",
    _copy_to,
    [lambda ops, g, device, source: ops.copy_to(g, device=source)],
    half="native",
    prepare=_prepare,
)
