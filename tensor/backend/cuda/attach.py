"""Which ops have bodies of their own on CUDA; each file named here attaches its own."""

from __future__ import annotations

from typing import Any

from . import attention, channels, convolution, elementwise, embedding, gemm, random, rows


def everything(cp: Any) -> None:
    """Attaches all kernels to their ops; called once, when the backend is loaded."""
    for part in (rows, elementwise, embedding, random, gemm, convolution, attention, channels):
        part.attach(cp)
