"""Which ops have bodies of their own on CUDA; each file named here attaches its own."""

from __future__ import annotations

from typing import Any


def everything(cp: Any) -> None:
    """Attaches all kernels to their ops; called once, when the backend is loaded."""
