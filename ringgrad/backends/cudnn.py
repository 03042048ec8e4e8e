"""`torch.backends.cudnn`."""

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def flags(
    enabled: bool = False,
    benchmark: bool = False,
    benchmark_limit: int = 10,
    deterministic: bool = False,
    allow_tf32: bool = True,
    fp32_precision: str = "none",
) -> Iterator[None]:
    """The settings within the context; they change nothing here."""
    own = globals()
    names = ("enabled", "benchmark", "deterministic", "allow_tf32")
    before = {name: own[name] for name in names}
    own.update(zip(names, (enabled, benchmark, deterministic, allow_tf32)))
    try:
        yield
    finally:
        own.update(before)
