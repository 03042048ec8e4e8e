"""`torch.compile` and `torch.compiler`: accepted, so that scripts start. Everything runs eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_told: set[str] = set()


def runs_eagerly(what: str) -> None:
    """Warns once a process that `what` changes nothing."""
    if what not in _told:
        import warnings

        _told.add(what)
        warnings.warn(f"[{what}] is accepted and ignored: the function or module runs eagerly", stacklevel=3)


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """The function or module itself; as a decorator with or without arguments. Nothing is compiled."""
    if mode is not None and options is not None:
        raise RuntimeError("[compile] mode and options must not both be given")
    if not disable:
        runs_eagerly("compile")
    if model is None:
        return lambda fn: fn
    if not callable(model):
        raise RuntimeError(f"[compile] a function or module must come, came {type(model).__name__}")
    return model


def is_compiling() -> bool:
    """Whether the code is being compiled now: never."""
    return False


is_dynamo_compiling = is_exporting = is_compiling


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Decorator that keeps a function from being compiled, as all are."""
    return fn if fn is not None else lambda f: f


def allow_in_graph(fn: Any) -> Any:
    """The function itself."""
    return fn


assume_constant_result = substitute_in_graph = allow_in_graph


def reset() -> None:
    """Forgets compiled code: there is none."""


cudagraph_mark_step_begin = reset


def list_backends(exclude_tags: Any = ()) -> list[str]:
    """Backends that compile: none."""
    return []


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
