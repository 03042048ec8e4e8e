"""PyTorch's older names of tensor types: FloatTensor and its kin, `t.type("torch.LongTensor")`."""

from __future__ import annotations

from typing import Any

from . import creation, dtypes

NAMES = {
    "FloatTensor": dtypes.float32,
    "DoubleTensor": dtypes.float64,
    "HalfTensor": dtypes.float16,
    "BFloat16Tensor": dtypes.bfloat16,
    "LongTensor": dtypes.int64,
    "IntTensor": dtypes.int32,
    "ShortTensor": dtypes.int16,
    "CharTensor": dtypes.int8,
    "ByteTensor": dtypes.uint8,
    "BoolTensor": dtypes.bool_,
}


class TensorType:
    """Makes tensors of one dtype: sizes or a Size leave it uninitialised, `FloatTensor([1, 2])` holds data."""

    def __init__(self, name: str) -> None:
        self.name, self.dtype = name, NAMES[name]

    def __call__(self, *data: Any) -> Any:
        from .tensor import Size

        if len(data) == 1 and isinstance(data[0], Size):
            return creation.empty(tuple(data[0]), dtype=self.dtype)
        if data and all(isinstance(d, int) for d in data):
            return creation.empty(*data, dtype=self.dtype)
        return creation.tensor(data[0] if data else [], dtype=self.dtype)

    def __instancecheck__(self, t: Any) -> bool:
        return getattr(t, "dtype", None) is self.dtype

    def __repr__(self) -> str:
        return f"<class 'ringgrad.{self.name}'>"


TYPES = {name: TensorType(name) for name in NAMES}


def dtype_of(kind: Any) -> Any:
    """The dtype meant by a dtype, a legacy type, or its name (`"torch.FloatTensor"`)."""
    if isinstance(kind, TensorType):
        return kind.dtype
    if isinstance(kind, str):
        name = kind.rsplit(".", 1)[-1]
        if name not in NAMES:
            raise ValueError(f"[type] must be a dtype or one of {', '.join(NAMES)}, came {kind!r}")
        return NAMES[name]
    return kind


def name_of(t: Any) -> str:
    for name, d in NAMES.items():
        if d is t.dtype:
            return f"torch.{name}"
    raise TypeError(f"[type] {t.dtype} has no legacy name")
