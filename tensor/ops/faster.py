"""The door for compiled bodies of array functions: looked up when first wanted, plain NumPy where there are none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

_bodies: dict[str, Callable[..., Any]] | None = None


def _find() -> dict[str, Callable[..., Any]]:
    """All compiled bodies; none without the extra `fast`, or with RINGGRAD_FAST=0."""
    if os.environ.get("RINGGRAD_FAST", "1") == "0":
        return {}
    from ..backend.cpu import attach

    return attach.bodies()


def _forget() -> None:
    """OpenMP's threads do not come along into a forked process, and it would wait for them forever."""
    global _bodies
    _bodies = {}


def faster(name: str, xp: Any, *args: Any, **kw: Any) -> Any:
    """What the compiled body of a function gives, or None where the plain one must compute it."""
    global _bodies
    if xp is not np:
        return None
    if _bodies is None:
        _bodies = _find()
        if _bodies:
            os.register_at_fork(after_in_child=_forget)
    body = _bodies.get(name)
    return None if body is None else body(*args, **kw)
