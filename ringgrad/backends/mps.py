"""`torch.backends.mps`."""


def is_available() -> bool:
    """Whether Apple's GPUs can be used: no."""
    return False


def is_built() -> bool:
    """Whether Apple's GPUs are supported: no."""
    return False
