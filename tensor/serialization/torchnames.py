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
    if array.nbytes > storage.raw.size:
        raise ValueError("a lazily conjugated tensor larger than its storage")
    array = array.conj() if metadata.get("conj") is True else array
    return from_array("tensor", np.negative(array) if metadata.get("neg") is True else array, grad is True)


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
    if type(function) is not Call or type(arguments) is not tuple:
        raise TypeError("a tensor of a subclass must name the function that makes it")
    tensor = function(*arguments)
    return _parameter(tensor, to_array(tensor)[2]) if kind.name == "parameter" else tensor  # type: ignore[index]


def _pairs(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    """OrderedDict and Counter, from nothing, from a dict or from a list of pairs."""

    def make(values: Any = ()) -> Any:
        pairs = values.items() if isinstance(values, dict) else values
        return kind({plain_key(k): v for k, v in pairs})

    return make


def _set_metadata(made: Any, state: Any) -> None:
    if type(state) is not dict:
        raise TypeError("attributes must come as a dict")
    if "_metadata" in state:  # versions of a state_dict's modules; other attributes mean nothing here
        made._metadata = state["_metadata"]


def _encode(text: str, codec: str) -> bytes:
    if type(text) is not str or codec != "latin1":
        raise ValueError("bytes must come as text in latin1")
    return text.encode("latin1")


NUMPY_CODES = {np.dtype(name).str[1:] for name in NAMES if hasattr(np, name)}


def _numpy_dtype(code: str, align: bool = False, copy: bool = True) -> np.dtype:
    if code not in NUMPY_CODES:
        raise ValueError(f"a NumPy dtype must be one of {', '.join(sorted(NUMPY_CODES))}, not {code!r}")
    return np.dtype(code, copy=True)


def _order(dtype: np.dtype, state: Any) -> None:
    if type(state) is not tuple or type(state[1]) is not str or state[1] not in "<|=":
        raise ValueError("NumPy arrays must be little-endian")


def _new_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    return np.empty(0, np.uint8)


def _fill_array(array: np.ndarray, state: Any) -> None:
    if type(state) is not tuple:
        raise TypeError("a NumPy array must come as a tuple")
    _, shape, dtype, fortran, raw = state
    raw = _as_bytes(raw)
    if not isinstance(dtype, np.dtype) or type(shape) is not tuple or any(type(n) is not int for n in shape):
        raise TypeError("a NumPy array must have a shape and a dtype")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"a NumPy array of shape {shape} and {dtype} does not have {len(raw)} bytes")
    array.__setstate__((1, shape, dtype, fortran is True, raw))  # type: ignore[arg-type]


def _scalar(dtype: np.dtype, raw: bytes | str) -> Any:
    if not isinstance(dtype, np.dtype):
        raise TypeError("a NumPy scalar must have a dtype")
    return np.frombuffer(_as_bytes(raw), dtype, 1)[0]


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
        Call("builtins.bytearray", lambda *text: bytearray(_as_bytes(*text))),
        Call("builtins.bytes", _as_bytes),
        Call("torch.serialization._get_layout", str),
        Call("torch._utils._rebuild_tensor", _rebuild_v1),
        Call("torch._utils._rebuild_tensor_v2", _rebuild_v2),
        Call("torch._utils._rebuild_tensor_v3", _rebuild_v3),
        Call("torch._utils._rebuild_parameter", _parameter, tensors=True),
        Call("torch._utils._rebuild_parameter_with_state", _parameter, tensors=True),
        Call("torch._tensor._rebuild_from_type_v2", _from_type, tensors=True),
        Call("numpy.dtype", _numpy_dtype, _order),
        Call("numpy._core.multiarray._reconstruct", _new_array, _fill_array),
        Call("numpy._core.multiarray.scalar", _scalar),
        Call("numpy.core.multiarray._reconstruct", _new_array, _fill_array),
        Call("numpy.core.multiarray.scalar", _scalar),
    ]
    return {call.name: call for call in calls}


def _as_bytes(text: Any = "", codec: str = "latin1") -> bytes:
    """bytes and bytearray of text or bytes; of a number they would take that much memory."""
    return bytes(text) if type(text) in (bytes, bytearray) else _encode(text, codec)


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
        "is ever run. Save a state_dict() instead of a whole object, or allow its classes with "
        "serialization.add_safe_globals, or, for a file that you trust, pass weights_only=False"
    )
