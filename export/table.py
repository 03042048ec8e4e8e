"""The table of ops: for each, the function that writes its ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Emitter = Callable[..., Any]

# Called as emitter(graph, *arguments, **keywords): tensors are Vals, sizes that vary are Dims. Returns the names of
# the outputs.
emitters: dict[str, Emitter] = {}
# Ops whose sizes may depend on dynamic dimensions: the keywords that hold them.
sized: dict[str, frozenset[str]] = {}


def emits(*names: str, sizes: tuple[str, ...] = ()) -> Callable[[Emitter], Emitter]:
    """Enters a function for these ops. sizes: keywords that it takes with Dims inside."""

    def enter(function: Emitter) -> Emitter:
        for name in names:
            assert name not in emitters, f"{name} is entered twice"
            emitters[name] = function
            sized[name] = frozenset(sizes)
        return function

    return enter


__all__ = ["emits", "emitters", "sized"]
