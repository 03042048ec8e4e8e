"""What a Module counts as its own: parameters, buffers, and both before their shape is known."""

from __future__ import annotations

from typing import Any

from ..autograd.engine import Variable
from ..tensor import Parameter, Tensor, creation
from ..tensor.dtypes import of_numpy


class _BufferType(type(Tensor)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: Any) -> bool:
        if cls is Buffer:
            return isinstance(instance, Tensor) and instance.__dict__.get("_is_buffer", False)
        return super().__instancecheck__(instance)


class Buffer(Tensor, metaclass=_BufferType):
    """A tensor that a Module counts among its buffers when it is assigned; `persistent`: kept in state_dict."""

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Any:
        t = (
            (creation.empty(0) if data is None else data)
            .detach()
            .requires_grad_(data is not None and data.requires_grad)
        )
        t._is_buffer, t.persistent = True, persistent
        return t


class _Uninitialized:
    """The part that parameters and buffers without a shape share."""

    array: Any
    _becomes: type

    @property
    def shape(self) -> Any:
        raise RuntimeError(
            f"[{type(self).__name__}] the shape must be known, came a tensor before its module's first forward:"
            " run the module once on an input, or call materialize(shape)"
        )

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Takes memory of the given shape (undefined content) and becomes an ordinary tensor of its kind."""
        made = creation.empty(
            shape, dtype=of_numpy(self.array.dtype) if dtype is None else dtype, device=device
        )
        self.array = made.array
        self.__class__ = self._becomes

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A Parameter whose shape the first input decides."""

    _becomes = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Any:
        return super().__new__(cls, creation.empty(0, dtype=dtype, device=device), requires_grad)

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        pass


class UninitializedBuffer(_Uninitialized, Tensor):
    """A buffer whose shape the first input decides."""

    _becomes = Tensor

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> Any:
        self = object.__new__(cls)
        self.array, self._version = creation.empty(0, dtype=dtype, device=device).array, [0, None]
        self.__dict__.update(_is_buffer=True, persistent=persistent)
        return self.requires_grad_(requires_grad)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


def is_lazy(t: Any) -> bool:
    """Whether a parameter or buffer still waits for its shape."""
    return isinstance(t, _Uninitialized)


__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "Variable", "is_lazy"]
