"""Compiling: a function, a module or a whole training step is traced, optimized and replayed without Python.

    @ringgrad.jit                        # or ringgrad.compile(fn_or_module)
    def step(x, y): ...                  # forward, loss.backward(), optimizer.step()
    print(ringgrad.jit.explain(step))    # what was done, and why something runs eagerly

The names of `torch.jit` (script, trace ...) stand here too, and change nothing.
"""

import sys
from types import ModuleType
from typing import Any

from . import annotations
from .compiled import Compiled
from .door import OptimizedModule, compile
from .explain import explain
from .files import SavedProgram, load, save
from .graph import Graph
from .torchscript import *  # noqa: F403
from .torchscript import __all__ as _torchscript
from .torchscript import _overload as _overload  # torchvision's and timm's files use these at import
from .torchscript import _overload_method as _overload_method


class _Callable(ModuleType):
    """The module itself is the decorator: `@ringgrad.jit`."""

    def __call__(self, fn: Any = None, **options: Any) -> Any:
        return compile(fn, **options)


sys.modules[__name__].__class__ = _Callable

__all__ = [
    "Compiled",
    "Graph",
    "OptimizedModule",
    "SavedProgram",
    "annotations",
    "compile",
    "explain",
    "load",
    "save",
    *_torchscript,
]
