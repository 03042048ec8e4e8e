"""Tensors: arrays under autograd, and every op on them."""

from .tensor import Parameter, Size, Tensor

__all__ = ["Parameter", "Size", "Tensor"]
