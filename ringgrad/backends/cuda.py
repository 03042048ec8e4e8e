"""`torch.backends.cuda`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from ..tensor import settings


class _Matmul:
    """Settings of matrix products on GPUs; sums are always taken in float32."""

    allow_fp16_reduced_precision_reduction = allow_bf16_reduced_precision_reduction = False

    @property
    def allow_tf32(self) -> bool:
        """Whether float32 products may round their inputs to 10 bits, as set_float32_matmul_precision("high") lets."""
        return settings.get_float32_matmul_precision() != "highest"

    @allow_tf32.setter
    def allow_tf32(self, allow: bool) -> None:
        settings.set_float32_matmul_precision("high" if allow else "highest")


matmul = _Matmul()


def is_built() -> bool:
    """Whether a CUDA backend is part of this installation."""
    return True


def sdp_kernel(*args: Any, **kwargs: Any) -> nullcontext[None]:
    """Chooses among attention kernels; there is one."""
    return nullcontext()


def enable_flash_sdp(enabled: bool) -> None:
    """Chooses among attention kernels; there is one."""


enable_mem_efficient_sdp = enable_math_sdp = enable_cudnn_sdp = enable_flash_sdp
