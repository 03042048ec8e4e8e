"""A nested Python structure as JSON, and back.

Strings, true, false, null, lists, 64-bit integers and finite floats stand for themselves. All else is an
object with one key that names the type: {"dict": [[key, value], ...]}, {"tuple": [...]}, {"bytes": base64},
{"leaf": 3} for the third tensor, and so on. Reading builds these types only; nothing in a file can name a
function or class to call.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes
from ..device import device
from ..tensor import Size
from .leaves import Leaf, to_array
from .memory import NAMES, device_named, dtype_named

MAX_DEPTH = 100
MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
SEQUENCES = {"tuple": tuple, "Size": Size, "set": set, "frozenset": frozenset}


class Encoder:
    """Collects the leaves of a structure, each object once, and returns the structure as JSON values."""

    def __init__(self) -> None:
        self.leaves: list[Leaf] = []
        self._index: dict[int, int] = {}
        self._alive: list[Any] = []  # an id is only good while its object lives

    def encode(self, obj: Any, path: str = "state", depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(
                f"[save] a structure must nest at most {MAX_DEPTH} levels deep; {path[:60]}... goes on or "
                "contains itself"
            )
        kind = type(obj)
        if obj is None or kind in (bool, str):
            return obj
        if kind in _SCALARS:
            return _SCALARS[kind](obj)
        if kind is list:
            return [self.encode(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(obj)]
        if kind in SEQUENCES.values():
            return {kind.__name__: [self.encode(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(obj)]}
        if kind in MAPPINGS.values():
            return self._mapping(obj, path, depth)
        return self._leaf(obj, path)

    def _mapping(self, obj: dict, path: str, depth: int) -> Any:
        def encode(key: Any, value: Any) -> list:
            inner = f"{path}[{key!r}]"
            return [self.encode(key, f"{inner} (the key)", depth + 1), self.encode(value, inner, depth + 1)]

        node: dict[str, Any] = {type(obj).__name__: [encode(k, v) for k, v in obj.items()]}
        if hasattr(obj, "_metadata"):  # module versions that a state_dict carries
            node["_metadata"] = self.encode(obj._metadata, f"{path}._metadata", depth + 1)
        return node

    def _leaf(self, obj: Any, path: str) -> Any:
        found = to_array(obj)
        if found is None or found[1].dtype.newbyteorder("=").name not in NAMES:
            return _other(obj, path)
        if id(obj) not in self._index:
            self._index[id(obj)] = len(self.leaves)
            self.leaves.append(Leaf(*found, path))
            self._alive.append(obj)
        return {"leaf": self._index[id(obj)]}


def _other(obj: Any, path: str) -> Any:
    if isinstance(obj, np.generic) and obj.dtype.name in NAMES:
        return {"scalar": [obj.dtype.name, _text(obj.tobytes())]}
    if isinstance(obj, dtypes.dtype | np.dtype) and obj.name in NAMES:
        return {"dtype" if isinstance(obj, dtypes.dtype) else "numpy.dtype": obj.name}
    dtype = f" of dtype {obj.dtype}" if hasattr(obj, "dtype") else ""
    raise TypeError(
        f"[save] {path} is a {type(obj).__module__}.{type(obj).__qualname__}{dtype}, which cannot be saved. "
        "What can: tensors, parameters, NumPy arrays and scalars, dict, OrderedDict, Counter, list, tuple, "
        "set, frozenset, str, bytes, bool, int, float, complex, None, dtypes and devices. For a module or an "
        "optimizer save its state_dict(), for a namespace vars() of it"
    )


def _float(x: float) -> Any:
    return x if math.isfinite(x) else {"float": repr(x)}


_SCALARS: dict[type, Callable[[Any], Any]] = {
    int: lambda x: x if -(1 << 63) <= x < 1 << 63 else {"int": hex(x)},
    float: _float,
    complex: lambda x: {"complex": [_float(x.real), _float(x.imag)]},
    bytes: lambda x: {"bytes": _text(x)},
    bytearray: lambda x: {"bytearray": _text(x)},
    device: lambda x: {"device": str(x)},
}


def _text(raw: bytes | bytearray) -> str:
    return b64encode(raw).decode()


def decode(node: Any, leaves: list[Any]) -> Any:
    """The structure again, with `leaves` in their places. Raises ValueError, TypeError, KeyError or
    IndexError where the node is none that `Encoder` makes."""
    if type(node) is list:
        return [decode(v, leaves) for v in node]
    if type(node) is not dict:
        return node
    (tag, value), *more = node.items()
    if tag in MAPPINGS:
        made = MAPPINGS[tag]({decode(k, leaves): decode(v, leaves) for k, v in value})
        if more:
            made._metadata = decode(node["_metadata"], leaves)
        return made
    if tag in SEQUENCES:
        return SEQUENCES[tag]([decode(v, leaves) for v in value])
    if tag == "leaf" and type(value) is int and value >= 0:
        return leaves[value]
    return DECODERS[tag](value)


def _scalar(value: Any) -> Any:
    name, raw = value
    return np.frombuffer(b64decode(raw, validate=True), dtype_named(name).numpy)[0]


def _complex(value: Any) -> complex:
    real, imag = (decode(v, []) for v in value)
    return complex(real, imag)


DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda v: int(v, 16),
    "float": float,
    "complex": _complex,
    "bytes": lambda v: b64decode(v, validate=True),
    "bytearray": lambda v: bytearray(b64decode(v, validate=True)),
    "scalar": _scalar,
    "dtype": dtype_named,
    "device": device_named,
    "numpy.dtype": lambda v: dtype_named(v).numpy,
}
