"""ringgrad: distributed data-parallel training with PyTorch's API.

This page is the table of contents. Tensors and autograd are loaded with it; the rest when first used.
"""

from __future__ import annotations

import importlib
import os as _os
from typing import Any

# OpenBLAS's idle threads spin and take the cores from what runs next; NumPy reads this when it is loaded.
_os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

from .autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .tensor import Parameter, Size, Tensor, creation, dtypes, functions, names, random
from .tensor.device import device
from .tensor.dtypes import dtype, get_default_dtype, set_default_dtype
from .tensor.generator import Generator, default_generator, initial_seed, manual_seed, seed
from .version import __version__

_DTYPES = {"bool": "bool_", "float": "float_", "int": "int_"}
_LATE = {
    "save": "tensor.serialization",
    "load": "tensor.serialization",
    "set_printoptions": "tensor.printing",
    "compile": "compiler",
    "vmap": "func",
    **dict.fromkeys(("autocast", "is_autocast_enabled", "get_autocast_dtype", "set_autocast_dtype"), "amp"),
    **dict.fromkeys(
        ("is_autocast_cache_enabled", "set_autocast_cache_enabled", "clear_autocast_cache"), "amp"
    ),
}


def _contents() -> dict[str, Any]:
    """Public functions of the tensor folder: written there, listed here by where they stand."""
    found: dict[str, Any] = {}
    for module in (creation, random, functions):
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "").startswith(__name__) and callable(value)
            if own and not name.startswith("_") and not isinstance(value, type):
                found[name] = value
    for name in ("finish", "size_of", "wrap", "to_numpy", "category", "default_float", "of_numpy"):
        found.pop(name, None)
    for name in [name for name in found if name.endswith("_") and hasattr(Tensor, name)]:
        del found[name]
    for name in names.late():
        found.pop(name, None)
    return {**names.with_keywords({**found, **names.contents()}), **names.in_place(Tensor)}


globals().update(_contents())
del random  # `ringgrad.random` is the module of that name
_LATE_NAMES = names.late()


def __getattr__(name: str) -> Any:
    if name in _LATE:
        value = getattr(importlib.import_module(f".{_LATE[name]}", __name__), name)
    elif name in _LATE_NAMES:
        where, own = _LATE_NAMES[name]
        value = getattr(importlib.import_module(f".{where}", __name__), own)
    elif isinstance(found := getattr(dtypes, _DTYPES.get(name, name), None), dtype):
        value = found
    elif name.endswith("Tensor"):
        from .tensor.legacy import TYPES

        if name not in TYPES:
            raise AttributeError(f"module 'ringgrad' has no attribute {name!r}")
        value = TYPES[name]
    elif name in ("pi", "inf", "nan", "e"):
        import math

        value = getattr(math, name)
    else:
        return _submodule(name)
    globals()[name] = value
    return value


def _submodule(name: str) -> Any:
    """A folder or module of this package, loaded when it is first asked for."""
    try:
        return importlib.import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
    near = ""
    if not name.startswith("_"):
        import difflib

        close = difflib.get_close_matches(name, [n for n in globals() if not n.startswith("_")], 1)
        near = f"; the nearest name is {close[0]!r}" if close else ""
    raise AttributeError(f"module 'ringgrad' has no attribute {name!r}{near} (docs/torch_coverage.md lists all)")


__all__ = [
    "Generator",
    "Parameter",
    "Size",
    "Tensor",
    "__version__",
    "default_generator",
    "device",
    "dtype",
    "enable_grad",
    "get_default_dtype",
    "inference_mode",
    "initial_seed",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "manual_seed",
    "no_grad",
    "seed",
    "set_default_dtype",
    "set_grad_enabled",
]
