"""`torch.types`: names for the types of arguments."""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from typing import Any

from .tensor import Size, Tensor
from .tensor.device import device
from .tensor.dtypes import dtype

Number = builtins.int | builtins.float | builtins.bool
Device = device | str | builtins.int | None
FileLike = str | os.PathLike[str] | Any
Storage = Any
_int, _float, _bool, _complex, _dtype, _device = (
    builtins.int,
    builtins.float,
    builtins.bool,
    builtins.complex,
    dtype,
    device,
)
_size = Size | list[builtins.int] | tuple[builtins.int, ...]
_TensorOrTensors = Tensor | Sequence[Tensor]

__all__ = ["Device", "FileLike", "Number", "Storage"]
