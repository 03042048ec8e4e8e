"""Layers that add a border: constant, mirrored, repeated or from the other side."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..module import Module
from .sizes import Size, per_dimension


class _Pad(Module):
    """padding: one number, or (left, right, top, bottom, front, back), as many as there are sides."""

    sides = 0
    mode = "constant"

    def __init__(self, padding: Size) -> None:
        super().__init__()
        self.padding = per_dimension(padding, self.sides)

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """A border of one value."""

    def __init__(self, padding: Size, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    sides = 2


class ConstantPad2d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    sides = 4


class ConstantPad3d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    sides = 6


class _ZeroPad(_ConstantPad):
    """A border of zeros."""

    def __init__(self, padding: Size) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    __doc__ = _ZeroPad.__doc__


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    __doc__ = _ZeroPad.__doc__


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    __doc__ = _ZeroPad.__doc__


class _ReflectionPad(_Pad):
    """A border that mirrors the inside, without the edge itself."""

    mode = "reflect"


class ReflectionPad1d(_ReflectionPad):
    __doc__ = _ReflectionPad.__doc__
    sides = 2


class ReflectionPad2d(_ReflectionPad):
    __doc__ = _ReflectionPad.__doc__
    sides = 4


class ReflectionPad3d(_ReflectionPad):
    __doc__ = _ReflectionPad.__doc__
    sides = 6


class _ReplicationPad(_Pad):
    """A border that repeats the edge."""

    mode = "replicate"


class ReplicationPad1d(_ReplicationPad):
    __doc__ = _ReplicationPad.__doc__
    sides = 2


class ReplicationPad2d(_ReplicationPad):
    __doc__ = _ReplicationPad.__doc__
    sides = 4


class ReplicationPad3d(_ReplicationPad):
    __doc__ = _ReplicationPad.__doc__
    sides = 6


class _CircularPad(_Pad):
    """A border that continues from the other side."""

    mode = "circular"


class CircularPad1d(_CircularPad):
    __doc__ = _CircularPad.__doc__
    sides = 2


class CircularPad2d(_CircularPad):
    __doc__ = _CircularPad.__doc__
    sides = 4


class CircularPad3d(_CircularPad):
    __doc__ = _CircularPad.__doc__
    sides = 6
