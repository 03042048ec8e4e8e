"""`torch.cuda.amp`: the older place of mixed precision. Without a GPU it warns once and passes everything through."""

from ..amp import CudaAutocast as autocast
from ..amp import CudaGradScaler as GradScaler
from ..amp import custom_bwd, custom_fwd

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]
