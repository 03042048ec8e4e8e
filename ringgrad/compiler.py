"""`torch.compile` and `torch.compiler`."""

from __future__ import annotations

from typing import Any

from .jit.door import compile


def is_compiling() -> bool:
    """Whether the code is being traced now: never, as far as code can see; traced calls run eagerly."""
    return False


is_dynamo_compiling = is_exporting = is_compiling


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """The function itself: what is inside of compiled code is compiled with it, or makes it run eagerly."""
    return fn if fn is not None else lambda f: f


def allow_in_graph(fn: Any) -> Any:
    """The function itself."""
    return fn


assume_constant_result = substitute_in_graph = allow_in_graph


def reset() -> None:
    """Compiled code belongs to its function and goes with it."""


cudagraph_mark_step_begin = reset


def list_backends(exclude_tags: Any = ()) -> list[str]:
    """Backends that compile."""
    return ["ringgrad"]


__all__ = [
    "allow_in_graph",
    "assume_constant_result",
    "compile",
    "cudagraph_mark_step_begin",
    "disable",
    "is_compiling",
    "is_dynamo_compiling",
    "is_exporting",
    "list_backends",
    "reset",
]
