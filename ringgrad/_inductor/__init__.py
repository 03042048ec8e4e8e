"""`torch._inductor`: settings of PyTorch's compiler, which scripts write; nothing reads them here."""

from . import config

__all__ = ["config"]
