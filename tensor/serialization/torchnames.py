"""The globals that PyTorch's own pickles use, and what stands for them here. Anything else is refused by
name."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..tensor import Size
from .leaves import from_array, to_array
from .memory import NAMES, device_named, dtype_named, window
from .pickles import Call, plain_key

STORAGES = {
    **{"bool": "BoolStorage", "uint8": "ByteStorage", "int8": "CharStorage", "int16": "ShortStorage"},
    **{
        "int32": "IntStorage",
        "int64": "LongStorage",
        "float16": "HalfStorage",
        "bfloat16": "BFloat16Storage",
    },
    **{"float32": "FloatStorage", "float64": "DoubleStorage"},
    **{"complex64": "ComplexFloatStorage", "complex128": "ComplexDoubleStorage"},
}
UNTYPED = "torch.storage.UntypedStorage"


class StorageType(NamedTuple):
    dtype: str | None  # None: bytes, the tensor names its dtype


class Storage(NamedTuple):
    """A record of the file as bytes in memory, native byte order."""

    raw: np.ndarray
    dtype: str | None


def rebuild(storage: Storage, offset: int, shape: Any, strides: Any, requires_grad: bool, dtype: str) -> Any:
    flat = storage.raw.view(dtype_named(dtype).numpy)
    return from_array("tensor", window(flat, offset, tuple(shape), tuple(strides)), requires_grad is True)


def _rebuild_v1(storage: Storage, offset: int, shape: Any, strides: Any) -> Any:
    return rebuild(storage, offset, shape, strides, False, _typed(storage))


def _rebuild_v2(
    storage: Storage, offset: int, shape: Any, strides: Any, grad: bool, hooks: Any, metadata: Any = None
) -> Any:
    tensor = rebuild(storage, offset, shape, strides, grad, _typed(storage))
    if not metadata:
        return tensor
    array = to_array(tensor)[1]  # type: ignore[index]
    array = array.conj() if metadata.get("conj") else array
    return from_array("tensor", np.negative(array) if metadata.get("neg") else array, grad is True)


def _rebuild_v3(
    storage: Storage,
    offset: int,
    shape: Any,
    strides: Any,
    grad: bool,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Any:
    return rebuild(storage, offset, shape, strides, grad, dtype.name)


def _typed(storage: Storage) -> str:
    if storage.dtype is None:
        raise ValueError("an untyped storage where a typed one is needed")
    return storage.dtype


def _parameter(data: Any, requires_grad: bool = True, hooks: Any = None, state: Any = None) -> Any:
    return from_array("parameter", to_array(data)[1], requires_grad is True)  # type: ignore[index]


def _from_type(function: Call, kind: Any, arguments: tuple, state: Any) -> Any:
    """Tensors with Python attributes: the attributes are left out."""
    tensor = function.run(*arguments)
    return _parameter(tensor, to_array(tensor)[2]) if kind.name == "parameter" else tensor  # type: ignore[index]


def _pairs(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    """OrderedDict and Counter, from nothing, from a dict or from a list of pairs."""

    def make(values: Any = ()) -> Any:
        pairs = values.items() if isinstance(values, dict) else values
        return kind({plain_key(k): v for k, v in pairs})

    return make


def _set_metadata(made: Any, state: Any) -> None:
    if "_metadata" in state:  # versions of a state_dict's modules; other attributes mean nothing here
        made._metadata = state["_metadata"]


def _encode(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise ValueError(f"codec must be latin1, not {codec!r}")
    return text.encode("latin1")


def _numpy_dtype(code: str, align: Any = False, copy: Any = True) -> np.dtype:
    if np.dtype(str(code)).name not in NAMES:
        raise ValueError(f"a NumPy dtype must be a number's, not {code!r}")
    return np.dtype(str(code), copy=True)


def _order(dtype: np.dtype, state: tuple) -> None:
    if state[1] not in ("<", "|", "="):
        raise ValueError(f"NumPy arrays must be little-endian, byte order {state[1]!r} came")


def _new_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    return np.empty(0, np.uint8)


def _fill_array(array: np.ndarray, state: tuple) -> None:
    _, shape, dtype, fortran, raw = state
    raw = raw if isinstance(raw, bytes) else _encode(raw, "latin1")
    if not isinstance(dtype, np.dtype) or dtype.name not in NAMES or prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"a NumPy array of shape {shape} and {dtype} does not have {len(raw)} bytes")
    array.__setstate__((1, tuple(shape), dtype, bool(fortran), bytes(raw)))  # type: ignore[arg-type]


def _scalar(dtype: np.dtype, raw: bytes | str) -> Any:
    raw = raw if isinstance(raw, bytes) else _encode(raw, "latin1")
    return np.frombuffer(raw, dtype, 1)[0]


def _functions() -> dict[str, Call]:
    calls = [
        Call("collections.OrderedDict", _pairs(OrderedDict), _set_metadata),
        Call("collections.Counter", _pairs(Counter)),
        Call("torch.Size", lambda values=(): Size(values)),
        Call("torch.device", device_named),
        Call("_codecs.encode", _encode),
        Call("builtins.set", lambda values=(): set(map(plain_key, values))),
        Call("builtins.frozenset", lambda values=(): frozenset(map(plain_key, values))),
        Call("builtins.complex", lambda real, imag: complex(float(real), float(imag))),
        Call("builtins.bytearray", lambda text="", codec="latin1": bytearray(_as_bytes(text, codec))),
        Call("builtins.bytes", lambda text="", codec="latin1": _as_bytes(text, codec)),
        Call("torch.serialization._get_layout", str),
        Call("torch._utils._rebuild_tensor", _rebuild_v1),
        Call("torch._utils._rebuild_tensor_v2", _rebuild_v2),
        Call("torch._utils._rebuild_tensor_v3", _rebuild_v3),
        Call("torch._utils._rebuild_parameter", _parameter),
        Call("torch._utils._rebuild_parameter_with_state", _parameter),
        Call("torch._tensor._rebuild_from_type_v2", _from_type),
        Call("numpy.dtype", _numpy_dtype, _order),
        Call("numpy._core.multiarray._reconstruct", _new_array, _fill_array),
        Call("numpy._core.multiarray.scalar", _scalar),
        Call("numpy.core.multiarray._reconstruct", _new_array, _fill_array),
        Call("numpy.core.multiarray.scalar", _scalar),
    ]
    return {call.name: call for call in calls}


def _as_bytes(text: Any, codec: str) -> bytes:
    if isinstance(text, bytes | bytearray):
        return bytes(text)
    if not isinstance(text, str):  # bytes(10**12) would take that much memory
        raise TypeError("bytes must come from text or bytes")
    return _encode(text, codec)


class Kind(NamedTuple):
    """A class that is only named, never called."""

    name: str


VALUES: dict[str, Any] = {
    "torch.Tensor": Kind("tensor"),
    "torch._tensor.Tensor": Kind("tensor"),
    "torch.nn.parameter.Parameter": Kind("parameter"),
    "torch.nn.parameter.Buffer": Kind("tensor"),
    "numpy.ndarray": Kind("array"),
    UNTYPED: StorageType(None),
    **{f"torch.{storage}": StorageType(dtype) for dtype, storage in STORAGES.items()},
}
FUNCTIONS = _functions()


def lookup(name: str) -> Any:
    """What stands for a global of a PyTorch file. ValueError names one that is not allowed."""
    name = name.replace("__builtin__.", "builtins.", 1) if name.startswith("__builtin__.") else name
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name in VALUES:
        return VALUES[name]
    if name.removeprefix("torch.") in NAMES and name.startswith("torch."):
        return dtype_named(name.removeprefix("torch."))
    raise ValueError(
        f"it needs {name}, which is not on the list of data types that a checkpoint may hold; nothing else "
        "is ever run. Save a state_dict() instead of a whole object"
    )
