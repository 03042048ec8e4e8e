"""ringgrad: distributed data-parallel training with PyTorch's API."""
__version__ = "0.1.0"
