"""Real text that is on every machine: the source of Python's own standard library, and characters as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..autograd.engine import Variable, wrap
from .dataset import Dataset

# Tests, tools and tables that are not written text, and what other packages install beside it.
LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "turtledemo",
    "lib2to3",
    "encodings",
}


def standard_library_text(limit_bytes: int | None = None) -> str:
    """The running interpreter's library modules, joined in the order of their names; ASCII files only.

    limit_bytes: stop after this many characters. The same interpreter always gives the same text.
    """
    import sysconfig

    root = sysconfig.get_paths()["stdlib"]
    parts, size = [], 0
    for path in _sources(root):
        with open(path, "rb") as file:
            source = file.read(None if limit_bytes is None else limit_bytes - size)
        if not source.isascii():
            continue
        parts.append(source.decode("ascii"))
        size += len(source)
        if size == limit_bytes:
            break
    if not parts:
        raise FileNotFoundError(
            f"[standard_library_text] Python's library must be installed as source files, came none in {root}"
        )
    return "".join(parts)


def _sources(root: str) -> list[str]:
    """Modules under the folder, in an order that depends on their names alone."""
    import os

    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [
            name for name in subfolders if name not in LEFT_OUT and not name.startswith("config-")
        ]
        # _sysconfigdata tells how and where this interpreter was built
        found += [
            os.path.join(folder, name)
            for name in files
            if name.endswith(".py") and not name.startswith("_sysconfigdata")
        ]
    return sorted(found, key=lambda path: path.split(os.sep))


class CharTokenizer:
    """Characters as integers: the distinct characters of a text in order, or those given by `vocabulary`."""

    def __init__(self, text: str = "", vocabulary: Iterable[str] | None = None) -> None:
        self.vocabulary = sorted(set(text)) if vocabulary is None else list(vocabulary)
        self._codes = np.array([ord(c) for c in self.vocabulary], "<u4")
        self._ids = np.full(int(self._codes.max(initial=0)) + 1, -1, np.int64)
        self._ids[self._codes] = np.arange(len(self._codes))

    @property
    def size(self) -> int:
        """How many characters there are."""
        return len(self.vocabulary)

    def encode(self, text: str) -> np.ndarray[Any, Any]:
        """int64 array with one number a character; ValueError names a character that is not in the vocabulary."""
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        known = codes < len(self._ids)
        ids = np.where(known, self._ids[np.where(known, codes, 0)], -1)
        if ids.size and ids.min() < 0:
            raise ValueError(
                f"[CharTokenizer] characters must be in the vocabulary, came {text[int(ids.argmin())]!r}"
            )
        return ids

    def decode(self, ids: Any) -> str:
        """The text of a sequence, an array or a tensor of numbers."""
        numbers = ids.array if isinstance(ids, Variable) else np.asarray(ids, np.int64)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < self.size):
            raise ValueError(
                f"[CharTokenizer] numbers must be from 0 to {self.size - 1}, came {numbers.min()} to {numbers.max()}"
            )
        return self._codes[numbers].tobytes().decode("utf-32-le")


class CharDataset(Dataset[Any]):
    """Windows of `block_size` tokens with the same moved on by one: (x, y), each an int64 tensor [block_size].

    tokens: integers [n], an array (a memory-mapped one too) or a tensor. stride: how far apart windows start; 1 gives
    every window, block_size those that do not overlap. ValueError where there is not one window.
    """

    def __init__(self, tokens: Any, block_size: int, stride: int = 1) -> None:
        self.tokens = tokens.array if isinstance(tokens, Variable) else np.asarray(tokens)
        if self.tokens.ndim != 1 or self.tokens.dtype.kind not in "iu":
            raise ValueError(
                "[CharDataset] tokens must be integers in one dimension, came "
                f"{self.tokens.dtype}{list(self.tokens.shape)}"
            )
        if block_size < 1 or stride < 1 or len(tokens) <= block_size:
            raise ValueError(
                "[CharDataset] block_size and stride must be positive, and there must be more tokens than block_size, "
                f"came block_size={block_size}, stride={stride} and {len(tokens)} tokens"
            )
        self.block_size, self.stride = block_size, stride

    def __len__(self) -> int:
        return (len(self.tokens) - 1 - self.block_size) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        x, y = self.collated([index])
        return x[0], y[0]

    def collated(self, indices: Sequence[int]) -> list[Any]:
        """The batch of these windows: [x, y], each int64 [len(indices), block_size]."""
        which = np.asarray(indices)
        count = len(self)
        if which.size and not (which.min() >= -count and which.max() < count):
            raise IndexError(f"[CharDataset] indices must be in [{-count}, {count - 1}], came {indices}")
        places = (which % count * self.stride)[:, None] + np.arange(self.block_size)
        return [wrap(self.tokens[places + moved].astype(np.int64, copy=False)) for moved in (0, 1)]
