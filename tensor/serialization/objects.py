"""Whole objects in PyTorch's files: written by Python's pickle, read by it only where the caller trusts the file.

A pickled object names its class, and loading calls into it, so whoever writes a file decides which code runs where it
is loaded. `load` therefore comes here only with `weights_only=False`, and only for files that hold more than data. The
classes in `allowed` (torch.serialization.add_safe_globals) may be built by the restricted reader too.
"""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..device import device
from ..dtypes import dtype
from ..tensor import Parameter, Size, Tensor
from .leaves import to_array
from .memory import NAMES, View, contiguous_strides, share
from .pickles import Call
from .torchnames import STORAGES, UNTYPED, VALUES, lookup

ROOT = __name__.partition(".")[0]
allowed: list[Any] = []


# ---- names


def of_torch(module: str, name: str) -> Any:
    """What a global of PyTorch's is here: ringgrad's of the same name."""
    full = f"{module}.{name}"
    if module in ("torch._utils", "torch._tensor") or full in VALUES or full[len("torch.") :] in NAMES:
        return lookup(full)
    if module.startswith("torch.nn.modules."):
        importlib.import_module(f"{ROOT}.nn.modules")
    found = importlib.import_module(ROOT + module[len("torch") :])
    for part in name.split("."):
        found = getattr(found, part)
    return found


def permitted(name: str) -> Any:
    """The object of that name among those allowed, else what the list of data types holds. ValueError for neither."""
    for one in allowed:
        own = f"{getattr(one, '__module__', '')}.{getattr(one, '__qualname__', '')}"
        if name == own:
            return one
        ours, theirs = own.startswith(f"{ROOT}."), name.startswith("torch.")
        if ours and theirs and own.rpartition(".")[2] == name.rpartition(".")[2]:
            return one
    return lookup(name)


def permitted_call(function: Any, new: bool) -> Call:
    """How the restricted reader calls an allowed class or function: `new` leaves __init__ out."""
    if not any(function is one for one in allowed):
        raise TypeError("only functions from the list of allowed ones can be called")
    run = function.__new__ if new else function
    made = (lambda *a: run(function, *a)) if new else run
    return Call(function.__qualname__, made, _set_state, tensors=True)


def _set_state(made: Any, state: Any) -> None:
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
    else:
        made.__dict__.update(state)


# ---- writing


class Global(NamedTuple):
    """A name in the file that need not exist here."""

    module: str
    name: str

    def __call__(self) -> None:
        """pickle asks for functions that can be called."""


class Kept(NamedTuple):
    """A storage outside of the pickle."""

    key: int
    block: np.ndarray


PlainPickler: Any = pickle._Pickler  # in Python, so that names can be written that are not here


class Pickler(PlainPickler):
    """Protocol 2, as torch.save writes it. The first pass, without views, only collects the tensors."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, 2)
        self.tensors: list[Any] = []
        self.views: dict[int, View] | None = None
        self.blocks: list[np.ndarray] = []

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Kept):
            name = obj.block.dtype.newbyteorder("=").name
            module, _, kind = (f"torch.{STORAGES[name]}" if name in STORAGES else UNTYPED).rpartition(".")
            count = obj.block.size if name in STORAGES else obj.block.nbytes
            return "storage", Global(module, kind), str(obj.key), "cpu", count
        return None

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) in (Global, dtype):
            return obj.name
        if type(obj) in (Tensor, Parameter):
            return self.tensor(obj)
        if type(obj) is device:
            return Global("torch", "device"), (obj.type, *(() if obj.index is None else (obj.index,)))
        if type(obj) is Size:
            return Global("torch", "Size"), (tuple(obj),)
        return NotImplemented

    def save_global(self, obj: Any, name: Any = None) -> None:
        if type(obj) not in (Global, dtype):
            return super().save_global(obj, name)
        self.write(f"c{getattr(obj, 'module', 'torch')}\n{name}\n".encode())
        self.memoize(obj)

    def tensor(self, obj: Any) -> Any:
        if self.views is None:
            self.tensors.append(obj)
            return Global("torch", "Tensor"), ()
        view, parameter = self.views.get(id(obj)) or self.late(obj), type(obj) is Parameter
        block = self.blocks[view.block]
        name = block.dtype.newbyteorder("=").name
        needs = obj.requires_grad and not parameter
        parts: tuple[Any, ...] = (
            Kept(view.block, block),
            view.offset,
            view.shape,
            view.strides,
            needs,
            OrderedDict(),
        )
        made: Any = Global("torch._utils", "_rebuild_tensor_v2"), parts
        if name not in STORAGES:
            made = Global("torch._utils", "_rebuild_tensor_v3"), (*parts, Global("torch", name))
        if not parameter:
            return made
        return Global("torch._utils", "_rebuild_parameter"), (
            Reduced(*made),
            obj.requires_grad,
            OrderedDict(),
        )

    def late(self, obj: Any) -> View:
        """Of a tensor that a class makes anew whenever it is pickled."""
        array = to_array(obj)[1]  # type: ignore[index]
        self.blocks.append(array)
        return View(len(self.blocks) - 1, 0, array.shape, contiguous_strides(array.shape))


class Reduced:
    """An object that is pickled as this call."""

    def __init__(self, function: Any, arguments: Any) -> None:
        self.call = function, arguments

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.call


def dump(obj: Any) -> tuple[bytes, list[np.ndarray]]:
    """The pickle of any object, and the arrays of the tensors in it. Raises what pickle raises."""
    first = Pickler(BytesIO())
    first.dump(obj)
    arrays = [to_array(t)[1] for t in first.tensors]  # type: ignore[index]
    blocks, views = share(arrays)
    out = BytesIO()
    second = Pickler(out)
    second.views, second.blocks = {id(t): v for t, v in zip(first.tensors, views)}, blocks
    second.dump(obj)
    return out.getvalue(), blocks


# ---- reading


class Unpickler(pickle.Unpickler):
    """Python's own, with PyTorch's names and storages."""

    def __init__(self, stream: BinaryIO, storage: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(stream, **options)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "torch":
            return of_torch(module, name)
        return super().find_class(module, name)

    def persistent_load(self, reference: Any) -> Any:
        return reference[1] if reference[0] == "module" else self.storage(reference)


def load_whole(stream: BinaryIO, storage: Callable[[Any], Any], name: str) -> Any:
    """The object, by running what the file says."""
    warnings.warn(
        f"[load] {name} holds more than data and weights_only=False was asked for: it is unpickled, which can run any "
        "code its author put into it. Do this only with files you trust; a state_dict() needs no weights_only=False",
        stacklevel=6,  # the line that called load
    )
    return Unpickler(stream, storage, encoding="utf-8").load()
