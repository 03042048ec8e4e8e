"""`torch.backends.cudnn`."""

enabled = True
benchmark = False
deterministic = False
allow_tf32 = True


def is_available() -> bool:
    """Whether cuDNN can be used: never, convolutions are our own."""
    return False


def version() -> int | None:
    """cuDNN's version: none."""
    return None
