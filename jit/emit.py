"""How single ops are written as code, where there is a better way than to call their forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# (kind of node, op) -> emitter(program, node), which writes lines; False: it does not apply here
emitters: dict[tuple[str, str], Callable[[Any, Any], Any]] = {}


def emits(kind: str, *ops: str) -> Callable[[Callable[[Any, Any], Any]], Callable[[Any, Any], Any]]:
    """Enters an emitter for ops."""

    def enter(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        for op in ops:
            emitters[kind, op] = function
        return function

    return enter
