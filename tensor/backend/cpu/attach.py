"""Which array functions have compiled bodies on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import convolution, gemm, half, imaged, library, looped, recurrent, rows


def bodies() -> dict[str, Callable[..., Any]]:
    """The bodies by the name of the function; each returns None for what it does not compute."""
    compiled = {**looped.BODIES, **recurrent.BODIES, **imaged.BODIES}
    found = library.load()
    if found is None:
        return compiled
    from ...settings import get_num_threads

    found.threads = get_num_threads()
    half.attach()
    return {**compiled, **convolution.BODIES, **gemm.BODIES, **half.BODIES, **rows.BODIES}
