"""Modules that learn their input's size from the first batch."""

from __future__ import annotations

from typing import Any

from .hooks import RemovableHandle
from .module import Module
from .parameter import is_lazy


class LazyModuleMixin(Module):
    """Goes before the layer in the bases; `initialize_parameters(*inputs)` gives the parameters their shapes.

    After the first forward the module is one of `cls_to_become`.
    """

    cls_to_become: type[Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._initialize_hook: RemovableHandle = self.register_forward_pre_hook(_initialize, with_kwargs=True)

    def has_uninitialized_params(self) -> bool:
        """Whether shapes are still unknown."""
        return any(is_lazy(t) for t in [*self._parameters.values(), *self._buffers.values()])

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Gives the parameters their shapes from the first input; each lazy layer defines it."""
        raise NotImplementedError(f"[{type(self).__name__}] initialize_parameters must be defined")


def _initialize(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    module.initialize_parameters(*args, **kwargs)
    if module.has_uninitialized_params():
        raise RuntimeError(
            f"[{type(module).__name__}] initialize_parameters must give all parameters a shape"
        )
    module._initialize_hook.remove()
    del module.__dict__["_initialize_hook"]
    if module.cls_to_become is not None:
        module.__class__ = module.cls_to_become
