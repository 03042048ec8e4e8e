"""`torch._dynamo`: settings of PyTorch's tracer, which scripts write; nothing reads them here."""

from ..compiler import disable, is_compiling, reset
from . import config

__all__ = ["config", "disable", "is_compiling", "reset"]
