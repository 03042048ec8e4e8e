"""`torch.backends.cuda`."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

matmul = SimpleNamespace(
    allow_tf32=False, allow_fp16_reduced_precision_reduction=True, allow_bf16_reduced_precision_reduction=True
)


def is_built() -> bool:
    """Whether a CUDA backend is part of this installation."""
    return False


def sdp_kernel(*args: Any, **kwargs: Any) -> nullcontext[None]:
    """Chooses among attention kernels; there is one."""
    return nullcontext()


def enable_flash_sdp(enabled: bool) -> None:
    """Chooses among attention kernels; there is one."""


enable_mem_efficient_sdp = enable_math_sdp = enable_cudnn_sdp = enable_flash_sdp
