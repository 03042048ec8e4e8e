"""Real text that is on every machine: the source of Python's own standard library, and characters as tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .dataset import Dataset

# Tests, tools and tables that are not written text, and what other packages install beside it.
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "turtledemo", "lib2to3", "encodings", "__pycache__"}


def standard_library_text(limit_bytes: int | None = None) -> str:
    """The running interpreter's library modules, joined in the order of their names; ASCII files only.

    limit_bytes: stop after this many characters. The same interpreter always gives the same text.
    """
    import sysconfig
    from pathlib import Path

    root = Path(sysconfig.get_paths()["stdlib"])
    parts, size = [], 0
    for path in sorted(root.rglob("*.py")):
        folders = set(path.relative_to(root).parts[:-1])
        if folders & LEFT_OUT or any(name.startswith("config-") for name in folders):
            continue
        source = path.read_bytes()
        if not source.isascii():
            continue
        parts.append(source.decode("ascii"))
        size += len(source)
        if limit_bytes is not None and size >= limit_bytes:
            break
    if not parts:
        raise FileNotFoundError(
            f"[standard_library_text] Python's library must be installed as source files, came none in {root}"
        )
    return "".join(parts)[:limit_bytes]


class CharTokenizer:
    """Characters as integers: the distinct characters of a text in order, or those given by `vocabulary`."""

    def __init__(self, text: str = "", vocabulary: Iterable[str] | None = None) -> None:
        self.vocabulary = sorted(set(text)) if vocabulary is None else list(vocabulary)
        codes = [ord(c) for c in self.vocabulary]
        self._ids = np.full(max(codes, default=0) + 1, -1, np.int64)
        self._ids[codes] = np.arange(len(codes))

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

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a sequence of numbers."""
        return "".join([self.vocabulary[int(i)] for i in ids])


class CharDataset(Dataset):
    """Windows of `block_size` tokens with the same moved on by one: (x, y), each int64 [block_size].

    stride: how far apart windows start; 1 gives every window, block_size those that do not overlap.
    """

    def __init__(self, tokens: Any, block_size: int, stride: int = 1) -> None:
        if len(tokens) <= block_size:
            raise ValueError(
                f"[CharDataset] there must be more tokens than block_size, came {len(tokens)} and {block_size}"
            )
        self.tokens, self.block_size, self.stride = tokens, block_size, stride

    def __len__(self) -> int:
        return (len(self.tokens) - 1 - self.block_size) // self.stride + 1

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"[CharDataset] the index must be in [{-len(self)}, {len(self) - 1}], came {i}")
        start = (i % len(self)) * self.stride
        return self.tokens[start : start + self.block_size], self.tokens[
            start + 1 : start + 1 + self.block_size
        ]
