"""What is installed."""

from importlib.util import find_spec

_TORCHVISION_AVAILABLE = find_spec("torchvision") is not None
_RICH_AVAILABLE = True
