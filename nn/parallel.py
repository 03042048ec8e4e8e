"""`torch.nn.parallel`: names that PyTorch users know, for what the distributed folder holds.

That folder stands above this one, so it is loaded by name when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from .layers.parallel import DataParallel

ABOVE = {"DistributedDataParallel": "distributed"}


def __getattr__(name: str) -> Any:
    if name in ABOVE:
        return getattr(importlib.import_module(f"{__package__.rpartition('.')[0]}.{ABOVE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["DataParallel"]
