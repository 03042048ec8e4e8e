"""Tensors: arrays under autograd, and every op on them."""

from .memory import keep_freed_memory
from .tensor import Parameter, Size, Tensor

keep_freed_memory()

__all__ = ["Parameter", "Size", "Tensor"]
