"""`torch.backends.mkl`."""


def is_available() -> bool:
    """Whether this library is in use: no."""
    return False
