"""`torch.nn.parallel`: names that PyTorch users know, for what the distributed folder holds.

That folder stands above this one, so it is loaded by name when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from ..tensor import Tensor
from .layers.parallel import DataParallel


def scatter(inputs: Any, target_gpus: Sequence[Any], dim: int = 0) -> list[Any]:
    """Tensors in nested containers cut along `dim` into one part a device, each moved there; other values repeated."""
    n = len(target_gpus)
    if isinstance(inputs, Tensor):
        return [part.to(device) for part, device in zip(inputs.chunk(n, dim), target_gpus)]
    if isinstance(inputs, tuple | list) and inputs:
        parts = [scatter(item, target_gpus, dim) for item in inputs]
        return [type(inputs)(group) for group in zip(*parts)]
    if isinstance(inputs, dict) and inputs:
        parts = [scatter(item, target_gpus, dim) for item in inputs.values()]
        return [type(inputs)(zip(inputs, group)) for group in zip(*parts)]
    return [inputs] * n


ABOVE = {"DistributedDataParallel": "distributed", "SyncBatchNorm": "distributed"}


def __getattr__(name: str) -> Any:
    if name in ABOVE:
        return getattr(importlib.import_module(f"{__package__.rpartition('.')[0]}.{ABOVE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["DataParallel", "scatter"]
