"""The beta distribution, under PyTorch's path."""

from .dirichlet import Beta

__all__ = ["Beta"]
