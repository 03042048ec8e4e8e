"""The chi-squared distribution, under PyTorch's path."""

from .gamma import Chi2

__all__ = ["Chi2"]
