"""Functions that run on rank 0 alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

from ...launch.environment import detect


def rank_zero_only(fn: Callable[..., Any], default: Any = None) -> Callable[..., Any]:
    """A decorator: elsewhere than on rank 0 a call does nothing and returns `default`."""

    @wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs) if detect().rank == 0 else default

    return wrapped


@rank_zero_only
def rank_zero_info(*args: Any, **kwargs: Any) -> None:
    """Logs at level INFO."""
    logging.getLogger("ringgrad.lightning").info(*args, **kwargs)


@rank_zero_only
def rank_zero_warn(message: Any, stacklevel: int = 4, **kwargs: Any) -> None:
    """Warns as `warnings.warn`."""
    warnings.warn(message, stacklevel=stacklevel, **kwargs)
