"""`torch.nn.parallel`: a name that PyTorch users know for what the distributed folder holds.

That folder stands above this one, so it is loaded by name when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["DistributedDataParallel"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(__package__.rpartition(".")[0] + ".distributed"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
