"""Which array functions have compiled bodies on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import convolution, library, looped, rows


def bodies() -> dict[str, Callable[..., Any]]:
    """The bodies by the name of the function; each returns None for what it does not compute."""
    found = library.load()
    if found is None:
        return looped.BODIES
    from ...settings import get_num_threads

    found.threads = get_num_threads()
    return {**looped.BODIES, **convolution.BODIES, **rows.BODIES}
