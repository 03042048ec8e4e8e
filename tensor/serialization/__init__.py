"""Saving and loading: checkpoints that are checked byte by byte, safetensors, and PyTorch's own files without
PyTorch."""

from __future__ import annotations

import os
from typing import Any

from .files import CheckpointError, Source, describe

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".tar", ".ckpt")

__all__ = ["CheckpointError", "load", "load_safetensors", "save", "save_safetensors", "save_torch"]


def save(
    obj: Any,
    f: Any,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
) -> None:
    """Save tensors and plain data in nested dicts, lists and tuples to a path or an open binary file.

    The path's suffix picks the format: .pt, .pth, .bin, .tar and .ckpt PyTorch's, which torch.load reads;
    .safetensors plain safetensors where `obj` is a dict of names to tensors; any other, safetensors with the
    structure beside it. Open files get PyTorch's. `load` knows all of them by content, and finds every
    flipped bit (docs/checkpoints.md).

    PyTorch's format also takes whole objects, such as a module (under any suffix but .rg and .safetensors): their
    classes are named in the file, which `load` reads with weights_only=False only. The three arguments at the end are
    accepted for PyTorch scripts and change nothing.

    A path is replaced whole or not at all: on any error the old file is as before. Tensors that share memory
    are stored once and come back shared.

    Raises:
        TypeError: something in `obj` cannot be saved; the message says where it is.
        ValueError: nesting deeper than 100, or the path is no regular file.
        RuntimeError: the folder does not exist.
        OSError: the disk is full (with bytes needed and free), or another error of the system.
    """
    path = _path(f)
    if path is not None and path.endswith(".safetensors") and _is_flat(obj):
        return save_safetensors(obj, path)
    if path is None or path.endswith(TORCH_SUFFIXES):
        return save_torch(obj, f)
    from .container import write_tree
    from .tree import Encoder

    encoder = Encoder()
    try:
        tree = encoder.encode(obj)
    except TypeError as error:
        if path.endswith((".rg", ".safetensors")):
            raise
        return _save_whole(obj, path, error)
    write_tree(path, tree, encoder.leaves)


def save_torch(obj: Any, f: Any) -> None:
    """Save in PyTorch's zip format, whatever the path is called. Errors as in `save`."""
    from .torchwriter import write_zip
    from .tree import Encoder

    encoder = Encoder()
    path = _path(f)
    target = f if path is None else path
    try:
        tree = encoder.encode(obj)
    except TypeError as error:
        return _save_whole(obj, target, error)
    write_zip(target, tree, encoder.leaves)


def _save_whole(obj: Any, target: Any, error: TypeError) -> None:
    """Pickled; where that is not possible either, `error` says what stands in the way."""
    from pickle import PicklingError

    from .objects import dump
    from .torchwriter import write_records

    try:
        pickled, blocks = dump(obj)
    except (PicklingError, AttributeError, TypeError) as reason:
        raise error from reason
    write_records(target, pickled, blocks)


def save_safetensors(
    tensors: dict[str, Any], path: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Save a dict of names to tensors so that every safetensors reader gets the same dict.

    Tensors that share memory are written once each, since the format cannot say so. `metadata`: strings of
    your own. Raises TypeError for other keys and values, otherwise as `save`.
    """
    from .container import CODES, write
    from .leaves import to_array

    metadata = {"format": "pt"} if metadata is None else metadata
    if any(type(s) is not str for pair in metadata.items() for s in pair) or any(
        k.startswith("ringgrad.") for k in metadata
    ):
        raise TypeError(
            "[save_safetensors] metadata must map strings to strings with no key that starts with 'ringgrad.'"
        )
    arrays = {}
    for name, tensor in tensors.items():
        found = to_array(tensor)
        if type(name) is not str or name == "__metadata__":
            raise TypeError(
                f"[save_safetensors] names must be strings other than '__metadata__', {name!r} came"
            )
        if found is None or found[1].dtype.newbyteorder("=").name not in CODES:
            what = f"{type(tensor).__name__} of {getattr(tensor, 'dtype', 'no dtype')}"
            raise TypeError(
                f"[save_safetensors] values must be tensors of {', '.join(CODES)}; {name!r} is a {what}"
            )
        arrays[name] = found[1]
    write(os.fspath(path), arrays, metadata)


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Load what `save`, torch.save or a safetensors writer wrote.

    The format is recognised by content, checksums are verified, and no file makes this take much more memory
    than its own size. `f`: a path or a file opened for binary reading. `map_location`: None, a device, its
    name, a dict of names or a function, as in PyTorch; tensors arrive on the CPU, or on the GPU that it names.

    Nothing in a file is run, unless the caller passes `weights_only=False` (or sets PyTorch's
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1): then a file that holds more than data, such as a whole module, is unpickled,
    with a warning, as that can run code. Classes that `serialization.add_safe_globals` allows are built either way.
    `pickle_module`, `mmap` and further keywords are accepted for PyTorch scripts and change nothing: the result is
    never tied to the file.

    Raises:
        CheckpointError (a RuntimeError): the file is damaged, cut off, foreign, or needs more than data
        types (a pickle.UnpicklingError too where it names a class). FileNotFoundError, OSError: it cannot be opened.
    """
    place = _check_location(map_location)
    with Source(f if _path(f) is None else _path(f)) as source:
        source.trusted = weights_only is False or (weights_only is None and _forced())
        loaded = _read(source)
    if place is not None:
        _move(loaded, place)
    return loaded


def _move(loaded: Any, place: Any) -> None:
    """Moves the tensors in nested dicts, lists and tuples to a GPU; tensors that share memory no longer do."""
    from ..device import move
    from ..tensor import Tensor

    if isinstance(loaded, Tensor):
        loaded.array = move(loaded.array, place)
    elif isinstance(loaded, dict | list | tuple):
        for part in loaded.values() if isinstance(loaded, dict) else loaded:
            _move(part, place)


def _forced() -> bool:
    return os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "").lower() in ("1", "y", "yes", "true")


def _read(source: Source) -> Any:
    head = source.read(0, min(source.size, 64))
    from .torchfile import LEGACY_START, read_legacy, read_zip

    if head.startswith(b"PK\3\4"):
        return read_zip(source)
    if head[:1] == b"\x80" and LEGACY_START in head[:32]:
        return read_legacy(source)
    if head[8:9] != b"{":
        raise source.error(describe(head))
    from .container import read, read_tree
    from .leaves import from_array

    blocks, metadata = read(source)
    if "ringgrad.tree" not in metadata:
        return {name: from_array("tensor", block, False) for name, block in blocks.items()}
    try:
        return read_tree(blocks, metadata["ringgrad.tree"])
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise source.error(
            f"cannot be read: its structure is not one that ringgrad writes: {error!r}"
        ) from None


def load_safetensors(path: Any) -> dict[str, Any]:
    """The tensors of a safetensors file by name; its checksums are verified where ringgrad wrote it.

    Raises CheckpointError (a RuntimeError) where the file is damaged or no safetensors file.
    """
    from .container import read
    from .leaves import from_array

    with Source(path) as source:
        return {name: from_array("tensor", block, False) for name, block in read(source)[0].items()}


def _path(f: Any) -> str | None:
    """The path as a string; None for an open file."""
    return None if hasattr(f, "write") or hasattr(f, "read") else os.fsdecode(f)


def _is_flat(obj: Any) -> bool:
    from .container import CODES
    from .leaves import to_array

    if not isinstance(obj, dict):
        return False
    found = [to_array(value) or ("array",) for value in obj.values()]
    if any(type(name) is not str for name in obj) or any(kind == "array" for kind, *_ in found):
        return False
    return all(array.dtype.name in CODES for _, array, _ in found)  # type: ignore[misc]


def _check_location(map_location: Any) -> Any:
    """The GPU to load to, or None for the CPU."""
    place = map_location.get("cpu") if isinstance(map_location, dict) else map_location
    if place is not None and not callable(place) and str(place).partition(":")[0] != "cpu":
        from ..device import check

        try:
            return check(place)
        except RuntimeError as error:
            raise RuntimeError(
                f"[load] map_location must be the CPU, {place} came: load to 'cpu', move tensors later ({error})"
            ) from None
    return None
