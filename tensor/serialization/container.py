"""Our checkpoint file: a safetensors container, which every safetensors reader opens, plus checksums and
structure.

    8 bytes   length of the header, little-endian
    header    JSON: dtype, shape and place of each tensor; "__metadata__" holds strings, ours start with
    "ringgrad." data      the tensors' bytes one after another, without gaps, little-endian

ringgrad.tensors   CRC-32 of each tensor's bytes
ringgrad.tree      the saved structure (tree.py); absent in plain safetensors files
ringgrad.crc32     CRC-32 of length and header, computed with these eight digits as zeros

The format is safetensors' own: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import re
import sys
from math import prod
from typing import Any

import numpy as np

from ..crc import crc32
from .files import Checksums, Source, byte_view, replacing, write_all
from .leaves import Leaf, from_array
from .memory import View, contiguous_strides, dtype_named, share, window
from .tree import decode

FORMAT = 1
MAX_HEADER = 100_000_000  # bytes, as in safetensors
MARK = b'"ringgrad.crc32":"'
BLANK = "00000000"
CODES = {
    **{
        "bool": "BOOL",
        "uint8": "U8",
        "int8": "I8",
        "int16": "I16",
        "uint16": "U16",
        "int32": "I32",
        "uint32": "U32",
    },
    **{
        "int64": "I64",
        "uint64": "U64",
        "float16": "F16",
        "float32": "F32",
        "float64": "F64",
        "bfloat16": "BF16",
    },
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64"},
}
DTYPES = {code: name for name, code in CODES.items()}
REAL = {"complex64": "<f4", "complex128": "<f8"}


def write_tree(path: str, tree: Any, leaves: list[Leaf]) -> None:
    """A structure and its leaves. Arrays that share memory are stored once."""
    blocks, views = share([leaf.array for leaf in leaves])
    names = _names(leaves, views, len(blocks))
    described = [
        _describe(leaf, view, names[view.block], blocks[view.block]) for leaf, view in zip(leaves, views)
    ]
    text = json.dumps({"tree": tree, "leaves": described}, separators=(",", ":"), allow_nan=False)
    write(path, dict(zip(names, map(_pairs, blocks))), {"ringgrad.tree": text})


def _names(leaves: list[Leaf], views: list[View], count: int) -> list[str]:
    """Each block is called after the first leaf in it: state['model']['0.weight'] is model.0.weight."""
    names: dict[int, str] = {}
    taken = {"__metadata__"}
    for leaf, view in zip(leaves, views):
        if view.block not in names:
            inside = re.sub(r"\['?(.*?)'?\](?=\[|$)", r".\1", leaf.path.removeprefix("state")).lstrip(".")
            name = base = inside.encode("utf-8", "replace").decode() or "tensor"
            while name in taken:
                name = f"{base}~{len(taken)}"
            taken.add(name)
            names[view.block] = name
    return [names[i] for i in range(count)]


def _pairs(block: np.ndarray) -> np.ndarray:
    """Complex numbers as a last axis of (real, imag): older safetensors readers have no complex dtype."""
    if block.dtype.kind != "c":
        return block
    real = REAL[block.dtype.newbyteorder("=").name]
    return stored(block).reshape(-1).view(real).reshape(*block.shape, 2)


def _describe(leaf: Leaf, view: View, name: str, block: np.ndarray) -> dict[str, Any]:
    node: dict[str, Any] = {"kind": leaf.kind, "tensor": name}
    if leaf.requires_grad:
        node["requires_grad"] = True
    if block.dtype.kind == "c":
        node["dtype"] = block.dtype.newbyteorder("=").name
    if view.shape != block.shape or view.strides != contiguous_strides(block.shape):
        node["view"] = [view.offset, list(view.shape), list(view.strides)]
    return node


def read_tree(blocks: dict[str, np.ndarray], text: str) -> Any:
    """The structure that `write_tree` wrote, from the stored blocks."""
    index = _parse(text)
    return decode(index["tree"], [_leaf(node, blocks) for node in index["leaves"]])


def _leaf(node: dict[str, Any], blocks: dict[str, np.ndarray]) -> Any:
    array = blocks[node["tensor"]]
    if "dtype" in node:
        array = array.view(dtype_named(node["dtype"]).numpy).reshape(array.shape[:-1])
    if "view" in node:
        offset, shape, strides = node["view"]
        array = window(array, offset, tuple(shape), tuple(strides))
    return from_array(node["kind"], array, node.get("requires_grad", False) is True)


def write(path: str, blocks: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Tensors by name, and strings, with checksums over every byte of the file."""
    order = sorted(blocks, key=lambda name: -blocks[name].itemsize)  # largest first: every tensor is aligned
    infos, end = {}, 0
    for name in order:
        block = blocks[name]
        code = CODES[block.dtype.newbyteorder("=").name]
        infos[name] = {"dtype": code, "shape": list(block.shape), "data_offsets": [end, end + block.nbytes]}
        end += block.nbytes
    sums = dict.fromkeys(order, 0)
    size = len(_header(infos, metadata, sums)) + end
    with replacing(path, size) as file, Checksums() as checksums:
        write_all(file, _header(infos, metadata, sums))  # room for it: the sums are known after the data
        for name in order:
            sums[name] = checksums.write(file, byte_view(stored(blocks[name])))
        file.seek(0)
        write_all(file, _header(infos, metadata, sums))


def stored(array: np.ndarray) -> np.ndarray:
    """Contiguous and little-endian: safetensors' own writer stores the wrong numbers for a transposed
    array."""
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array)


def _header(infos: dict[str, Any], metadata: dict[str, str], sums: dict[str, int]) -> bytes:
    version = sys.modules[__name__.partition(".")[0]].__version__
    ours = {"ringgrad.format": str(FORMAT), "ringgrad.version": version}
    tensors = json.dumps({name: f"{value:08x}" for name, value in sums.items()}, separators=(",", ":"))
    last = {"ringgrad.tensors": tensors, "ringgrad.crc32": BLANK}
    text = json.dumps({"__metadata__": metadata | ours | last, **infos}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"[save] the structure must fit into {MAX_HEADER} bytes beside its tensors, it takes {len(text)}"
        )
    blank = len(text).to_bytes(8, "little") + text
    return blank.replace(MARK + BLANK.encode(), MARK + b"%08x" % crc32(blank))


def read(source: Source) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a safetensors file, ours or another's. CheckpointError where anything is
    wrong."""
    header, start = _read_header(source)
    metadata = header.pop("__metadata__", {})
    if any(type(v) is not str for v in metadata.values()):
        raise source.error("is damaged: __metadata__ must hold strings only")
    places = _places(source, header, start)
    sums = _sums(source, metadata, header)
    blocks = {name: _allocate(source, name, info) for name, info in header.items()}
    with Checksums() as checksums:
        for begin, _, name in places:
            checksums.read(source, start + begin, byte_view(blocks[name]), sums.get(name), f"tensor {name!r}")
    for name, block in blocks.items():
        if block.dtype == bool and (block.view(np.uint8) > 1).any():
            raise source.error(f"is damaged: bool tensor {name!r} must hold 0 and 1 only")
    return blocks, metadata


def _read_header(source: Source) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(source.read(0, min(8, source.size)), "little")
    if source.size < 8 or length > min(source.size - 8, MAX_HEADER):
        raise source.error(
            f"is cut off or damaged: a header of {length} bytes is announced in a file of {source.size}"
        )
    raw = source.read(0, 8 + length)
    at = raw.find(MARK)
    if at >= 0:
        expected = raw[at + len(MARK) : at + len(MARK) + 8]
        found = b"%08x" % crc32(raw.replace(MARK + expected, MARK + BLANK.encode(), 1))
        if expected != found:
            raise source.error(
                f"is damaged: header: checksum {expected.decode('latin1')} expected, {found.decode()} found"
            )
    try:
        header = _parse(raw[8:].decode())
        if type(header) is not dict or type(header.get("__metadata__", {})) is not dict:
            raise ValueError("an object was expected")
    except (ValueError, RecursionError) as error:
        raise source.error(f"is damaged: its header is no safetensors header: {error}") from None
    ours = [key for key in header.get("__metadata__", {}) if key.startswith("ringgrad.")]
    if bool(ours) != (at >= 0):
        raise source.error(f"is damaged: it has {', '.join(ours)} but no checksum of its header")
    return header, 8 + length


def _parse(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("a name stands twice")
        return made

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def _places(source: Source, header: dict[str, Any], start: int) -> list[tuple[int, int, str]]:
    """First and last byte of each tensor, in order. No gaps, no overlaps: every byte of the file belongs to
    something."""
    try:
        places = sorted((*_range(info["data_offsets"]), name) for name, info in header.items())
        end = 0
        for begin, stop, name in places:
            if begin != end or stop < begin:
                raise ValueError(f"tensor {name!r} must start at byte {end} of the data, not {begin}")
            end = stop
    except (KeyError, ValueError, TypeError) as error:
        raise source.error(f"is damaged: its data_offsets are wrong: {error}") from None
    if start + end != source.size:
        what = "cut off" if start + end > source.size else "longer than it was written"
        raise source.error(f"is {what}: {start + end} bytes expected, {source.size} found")
    return places


def _range(offsets: Any) -> tuple[int, int]:
    begin, end = offsets
    return _whole(begin), _whole(end)


def _whole(n: Any) -> int:
    if type(n) is not int or n < 0:
        raise ValueError(f"{n!r} must be a whole number")
    return n


def _allocate(source: Source, name: str, info: dict[str, Any]) -> np.ndarray:
    """Memory for one tensor: never more than its share of the file."""
    begin, end = info["data_offsets"]
    try:
        dtype, shape = dtype_named(DTYPES[info["dtype"]]).numpy, tuple(map(_whole, info["shape"]))
        if prod(shape) * dtype.itemsize != end - begin:
            raise ValueError(
                f"{prod(shape) * dtype.itemsize} bytes of shape {shape}, but {end - begin} in the file"
            )
        return np.empty(shape, dtype)
    except KeyError as error:
        raise source.error(f"cannot be read: tensor {name!r} has no known {error}") from None
    except (ValueError, TypeError) as error:
        raise source.error(f"is damaged: tensor {name!r}: {error}") from None


def _sums(source: Source, metadata: dict[str, str], header: dict[str, Any]) -> dict[str, int]:
    if "ringgrad.crc32" not in metadata:
        return {}
    if metadata.get("ringgrad.format") != str(FORMAT):
        found = metadata.get("ringgrad.format")
        raise source.error(f"has format {found}, this version of ringgrad reads {FORMAT}: update ringgrad")
    try:
        sums = {name: int(value, 16) for name, value in _parse(metadata["ringgrad.tensors"]).items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise source.error(f"is damaged: its list of checksums cannot be read: {error}") from None
    if sums.keys() != header.keys():
        raise source.error("is damaged: the checksums are not those of its tensors")
    return sums
