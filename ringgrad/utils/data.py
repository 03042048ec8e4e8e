"""PyTorch's `torch.utils.data`: the data folder under the name that PyTorch users know."""

from ..data import *  # noqa: F403
