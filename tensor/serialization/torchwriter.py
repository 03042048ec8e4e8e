"""Writes PyTorch's zip format, so that torch.load(weights_only=True) reads what ringgrad saved."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from .container import stored
from .files import Checksums, byte_view, replacing
from .leaves import Leaf
from .memory import View, share
from .pickles import Writer
from .torchnames import STORAGES, UNTYPED
from .tree import decode
from .zipwriter import ZipWriter


def write_zip(file: Any, tree: Any, leaves: list[Leaf]) -> None:
    """Write to a path, whole or not at all, or to an open binary file."""
    tensors = [i for i, leaf in enumerate(leaves) if leaf.kind != "array"]
    blocks, found = share([leaves[i].array for i in tensors])
    write_records(file, PickledTree(leaves, dict(zip(tensors, found)), blocks).dump(tree), blocks)


def write_records(file: Any, pickle: bytes, blocks: list[np.ndarray]) -> None:
    """The archive of a pickle and of the storages that it names."""
    if hasattr(file, "write"):
        return _write(file, pickle, blocks)
    with replacing(file, len(pickle) + sum(b.nbytes + 300 for b in blocks) + 1000) as opened:
        _write(opened, pickle, blocks)


def _write(file: BinaryIO, pickle: bytes, blocks: list[np.ndarray]) -> None:
    with Checksums() as checksums:
        archive = ZipWriter(file, checksums)
        archive.record("data.pkl", memoryview(pickle))
        archive.record("byteorder", memoryview(b"little"))
        for i, block in enumerate(blocks):
            archive.record(f"data/{i}", byte_view(stored(block)))
        archive.record("version", memoryview(b"3\n"))
        archive.close()


class PickledTree:
    """The structure as the pickle that torch.save would write for it."""

    def __init__(self, leaves: list[Leaf], views: dict[int, View], blocks: list[np.ndarray]) -> None:
        self.leaves, self.views, self.blocks = leaves, views, blocks
        self.pickle = Writer()

    def dump(self, tree: Any) -> bytes:
        self.node(tree)
        return bytes(self.pickle.out + b".")

    def node(self, node: Any) -> None:
        if type(node) is list:
            self.pickle.out += b"]("
            self.nodes(node)
            self.pickle.out += b"e"
        elif type(node) is not dict:
            self.pickle.value(node)
        else:
            (tag, value), *more = node.items()
            getattr(self, "_" + tag.replace(".", "_"))(value)
            if more:
                self.pickle.out += b"}"
                self.pickle.value("_metadata")
                self.node(node["_metadata"])
                self.pickle.out += b"sb"

    def nodes(self, nodes: list[Any]) -> None:
        for node in nodes:
            self.node(node)

    def call(self, module: str, name: str, *arguments: Callable[[], None]) -> None:
        self.pickle.name(module, name)
        self.pickle.sequence(list(arguments))
        self.pickle.out += b"R"

    def _dict(self, pairs: list) -> None:
        self.pickle.out += b"}"
        self._items(pairs)

    def _items(self, pairs: list) -> None:
        self.pickle.out += b"("
        for pair in pairs:
            self.nodes(pair)
        self.pickle.out += b"u"

    def _OrderedDict(self, pairs: list) -> None:
        self.call("collections", "OrderedDict")
        self._items(pairs)

    def _Counter(self, pairs: list) -> None:
        self.call("collections", "Counter", lambda: self._dict(pairs))

    def _tuple(self, values: list) -> None:
        self.pickle.sequence([lambda v=v: self.node(v) for v in values])  # type: ignore[misc]

    def _Size(self, values: list) -> None:
        self.call("torch", "Size", lambda: self._tuple(values))

    def _device(self, text: str) -> None:
        kind, _, index = text.partition(":")
        parts = [kind, int(index)] if index else [kind]
        self.call("torch", "device", *(lambda v=v: self.pickle.value(v) for v in parts))

    def _set(self, values: list) -> None:
        self.call("__builtin__", "set", lambda: self.node(values))

    def _frozenset(self, values: list) -> None:
        self.call("__builtin__", "frozenset", lambda: self.node(values))

    def _int(self, text: str) -> None:
        self.pickle.number(int(text, 16))

    def _float(self, text: str) -> None:
        self.pickle.value(float(text))

    def _complex(self, value: list) -> None:
        number = decode({"complex": value}, [])
        self.call(
            "__builtin__",
            "complex",
            lambda: self.pickle.value(number.real),
            lambda: self.pickle.value(number.imag),
        )

    def _bytes(self, text: str) -> None:
        self._encoded(b64decode(text))

    def _encoded(self, raw: bytes) -> None:
        text = raw.decode("latin1")
        self.call("_codecs", "encode", lambda: self.pickle.value(text), lambda: self.pickle.value("latin1"))

    def _bytearray(self, text: str) -> None:
        raw = b64decode(text).decode("latin1")
        self.call(
            "__builtin__", "bytearray", lambda: self.pickle.value(raw), lambda: self.pickle.value("latin1")
        )

    def _dtype(self, name: str) -> None:
        self.pickle.name("torch", name)

    def _numpy_dtype(self, name: str) -> None:
        code = np.dtype(name).str[1:]
        flags = [
            lambda: self.pickle.value(code),
            lambda: self.pickle.value(False),
            lambda: self.pickle.value(True),
        ]
        self.call("numpy", "dtype", *flags)
        numbers: list[Any] = [3, "|" if code.endswith("1") else "<", None, None, None, -1, -1, 0]
        self.pickle.sequence([lambda v=v: self.pickle.value(v) for v in numbers])  # type: ignore[misc]
        self.pickle.out += b"b"

    def _scalar(self, value: list) -> None:
        name, text = value
        self.call(
            "numpy._core.multiarray",
            "scalar",
            lambda: self._numpy_dtype(name),
            lambda: self._encoded(b64decode(text)),
        )

    def _leaf(self, index: int) -> None:
        if self.pickle.recall(index):
            return
        leaf, view = self.leaves[index], self.views.get(index)
        if view is None:
            self._array(leaf.array)
        elif leaf.kind == "parameter":
            parts = (
                lambda: self._tensor(view, False),
                lambda: self.pickle.value(leaf.requires_grad),
                self._hooks,
            )
            self.call("torch._utils", "_rebuild_parameter", *parts)
        else:
            self._tensor(view, leaf.requires_grad)
        self.pickle.remember(index)

    def _hooks(self) -> None:
        self.call("collections", "OrderedDict")

    def _tensor(self, view: View, requires_grad: bool) -> None:
        pickle, block = self.pickle, self.blocks[view.block]
        name = block.dtype.newbyteorder("=").name
        parts = [
            lambda: self._storage(view.block, name, block),
            lambda: pickle.number(view.offset),
            lambda: pickle.numbers(view.shape),
            lambda: pickle.numbers(view.strides),
            lambda: pickle.value(requires_grad),
            self._hooks,
        ]
        if name in STORAGES:
            self.call("torch._utils", "_rebuild_tensor_v2", *parts)
        else:  # newer dtypes have no storage class
            self.call("torch._utils", "_rebuild_tensor_v3", *parts, lambda: self._dtype(name))

    def _storage(self, key: int, dtype: str, block: np.ndarray) -> None:
        pickle = self.pickle
        module, _, name = (
            f"torch.{STORAGES[dtype]}".rpartition(".") if dtype in STORAGES else UNTYPED.rpartition(".")
        )
        count = block.size if dtype in STORAGES else block.nbytes
        head, tail = [lambda: pickle.value("storage"), lambda: pickle.name(module, name)], ["cpu", count]
        pickle.sequence(head + [lambda v=v: pickle.value(v) for v in (str(key), *tail)])  # type: ignore[misc]
        pickle.out += b"Q"

    def _array(self, array: np.ndarray) -> None:
        """NumPy's own arrays stay in the pickle, as with torch.save. PyTorch reads them with
        weights_only=False only."""
        if array.dtype.kind == "V":
            raise TypeError(
                f"[save] NumPy's pickles cannot hold {array.dtype.name} arrays: save a tensor of it"
            )
        pickle, data = self.pickle, np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
        self.call(
            "numpy._core.multiarray",
            "_reconstruct",
            lambda: pickle.name("numpy", "ndarray"),
            lambda: pickle.numbers((0,)),
            lambda: self._encoded(b"b"),
        )
        pickle.sequence(
            [
                lambda: pickle.number(1),
                lambda: pickle.numbers(array.shape),
                lambda: self._numpy_dtype(data.dtype.name),
                lambda: pickle.value(False),
                lambda: self._encoded(data.tobytes()),
            ]
        )
        pickle.out += b"b"
