"""PyTorch's `torch.utils.data`: the data folder under the name that PyTorch users know."""

from ...data import *  # noqa: F403
from ...data import __all__ as __all__
