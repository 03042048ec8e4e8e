"""`torch.backends.cudnn`.

Plans that give the same bits every time: `use_deterministic_algorithms(True)`; `deterministic` here is taken and unused.
"""

from __future__ import annotations

from typing import Any

from collections.abc import Iterator
from contextlib import contextmanager

enabled = True
benchmark = False
deterministic = False
allow_tf32 = True


def _frontend() -> Any:
    from .. import cuda

    if not cuda.is_available():
        return None
    cuda.init()
    from ..tensor.backend.cuda import cudnn

    return cudnn.module()


def is_available() -> bool:
    """Whether convolutions and attention on GPUs are computed by cuDNN."""
    return _frontend() is not None


def version() -> int | None:
    """cuDNN's version, such as 91900; None where it is not used."""
    frontend = _frontend()
    return None if frontend is None else int(frontend.backend_version())


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
