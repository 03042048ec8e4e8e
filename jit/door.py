"""The ways in: `compile` for functions and modules, with PyTorch's signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..nn.module import Module
from .compiled import Compiled


class OptimizedModule(Module):
    """A module whose forward is compiled. `_orig_mod` is the module itself; parameters and attributes are its own.

    Of a module that talks to other ranks in its forward (DistributedDataParallel) the module inside is compiled.
    """

    def __init__(self, module: Module, fullgraph: bool, exact: bool) -> None:
        super().__init__()
        self._orig_mod = module
        wrapper = hasattr(module, "_compiled")
        call = Compiled(module.module if wrapper else module, fullgraph, exact)
        object.__setattr__(self, "_call", call)
        if wrapper:
            object.__setattr__(module, "_compiled", call)
        self.training = module.training

    def forward(self, *args: Any, **kw: Any) -> Any:
        """The module's result, replayed where that is possible."""
        if hasattr(self._orig_mod, "_compiled"):
            return self._orig_mod(*args, **kw)
        return self._call(*args, **kw)

    def __getattr__(self, name: str) -> Any:
        if name in ("_orig_mod", "_parameters", "_modules", "_buffers"):
            return super().__getattr__(name)
        return getattr(super().__getattr__("_orig_mod"), name)

    def __deepcopy__(self, memo: dict[int, Any]) -> OptimizedModule:
        from copy import deepcopy

        return OptimizedModule(deepcopy(self._orig_mod, memo), self._call.fullgraph, self._call.exact)


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
    exact: bool = False,
) -> Any:
    """The function or module, compiled: calls alike are replayed from a recording. Also a decorator.

    fullgraph: an error instead of a warning where a call has to run eagerly. dynamic, backend, mode and options are
    PyTorch's and change nothing: each shape gets a recording of its own. disable: gives back what came.
    exact: no kernels that round in another way than eager: the very same bits, somewhat slower.
    """
    if mode is not None and options is not None:
        raise RuntimeError("[compile] mode and options must not both be given")
    if model is None:
        return lambda fn: compile(fn, fullgraph=fullgraph, disable=disable, exact=exact)
    if not callable(model):
        raise RuntimeError(f"[compile] a function or module must come, came {type(model).__name__}")
    if disable or isinstance(model, Compiled | OptimizedModule):
        return model
    kind: Any = OptimizedModule if isinstance(model, Module) else Compiled
    return kind(model, fullgraph, exact)


__all__ = ["OptimizedModule", "compile"]
