"""`torch.fx`: the names that model files use when they are imported. There is no symbolic tracing."""

from __future__ import annotations

from typing import Any


def wrap(fn_or_name: Any) -> Any:
    """Marks a function for tracing: the function, or its name, itself."""
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError(f"[fx.wrap] must be a function or its name, came {type(fn_or_name).__name__}")
    return fn_or_name


class Proxy:
    """The class of traced values, of which there are none: for isinstance checks."""


class Node:
    """The class of a graph's nodes, of which there are none: for isinstance checks."""


def symbolic_trace(root: Any, concrete_args: Any = None) -> Any:
    """There is no symbolic tracing."""
    raise NotImplementedError("[fx.symbolic_trace] modules are not traced: call the module itself")


__all__ = ["Node", "Proxy", "symbolic_trace", "wrap"]
