"""`torch.nn.attention`: the choice of a kernel for scaled_dot_product_attention, of which there is one here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any


class SDPBackend(IntEnum):
    """PyTorch's kernels; all names mean the one kernel here."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextmanager
def sdpa_kernel(backends: Any, set_priority: bool = False) -> Iterator[None]:
    """Accepts one kernel or a list of them, and computes attention as always."""
    chosen = [backends] if isinstance(backends, SDPBackend) else list(backends)
    if not chosen or not all(isinstance(b, SDPBackend) for b in chosen):
        raise TypeError(f"[sdpa_kernel] backends must be SDPBackends, came {backends!r}")
    yield


__all__ = ["SDPBackend", "sdpa_kernel"]
