"""PyTorch's `torch.utils`; its modules are loaded when they are first asked for."""

from __future__ import annotations

from typing import Any

MODULES = ("_pytree", "checkpoint", "data", "model_zoo", "tensorboard")


def __getattr__(name: str) -> Any:
    if name in MODULES:
        import importlib

        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
