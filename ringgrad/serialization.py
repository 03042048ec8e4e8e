"""`torch.serialization`: saving and loading, and PyTorch's list of classes that a file may name."""

from __future__ import annotations

from typing import Any

from .tensor.serialization import load, save
from .tensor.serialization.objects import allowed as _allowed


def add_safe_globals(safe_globals: list[Any]) -> None:
    """Lets `load` build these classes, and call these functions, where a file names them: list what you trust."""
    _allowed.extend(safe_globals)


def get_safe_globals() -> list[Any]:
    """The classes that were added."""
    return list(_allowed)


def clear_safe_globals() -> None:
    """Empties the list."""
    _allowed.clear()


class safe_globals:
    """Context manager: the classes are in the list within it (see add_safe_globals)."""

    def __init__(self, safe_globals: list[Any]) -> None:
        self.classes = list(safe_globals)

    def __enter__(self) -> None:
        self.before = get_safe_globals()
        add_safe_globals(self.classes)

    def __exit__(self, *_: Any) -> None:
        _allowed[:] = self.before


__all__ = ["add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "safe_globals", "save"]
