"""Sequences of different lengths in one batch: padded, or packed without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...autograd.engine import Variable
from ...tensor import creation, functions


class _Packed(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Packed):
    """Steps of all sequences one after the other: `data` (sum of lengths, *), time first, longest sequence first.

    batch_sizes: how many sequences have each step (int64). sorted_indices: where each sequence of the sorted
    batch stood before, unsorted_indices: the way back; None if they came sorted.
    """

    __slots__ = ()

    def __new__(
        cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None, unsorted_indices: Any = None
    ) -> PackedSequence:
        if batch_sizes is None:
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The data in another dtype or on another device."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else PackedSequence(data, *self[1:])

    def cpu(self) -> PackedSequence:
        return self.to(device="cpu")

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        return self.to(*args, **({"device": "cuda"} | kwargs))

    def float(self) -> PackedSequence:
        return PackedSequence(self.data.float(), *self[1:])

    def double(self) -> PackedSequence:
        return PackedSequence(self.data.double(), *self[1:])

    @property
    def is_cuda(self) -> bool:
        return self.data.is_cuda

    def is_pinned(self) -> bool:
        return self.data.is_pinned()

    def pin_memory(self) -> PackedSequence:
        return self


def invert_permutation(permutation: Any) -> Any:
    """The permutation that undoes one; None of None."""
    return None if permutation is None else creation.from_numpy(np.argsort(permutation.array))


def _lengths(who: str, lengths: Any, batch: int) -> np.ndarray[Any, Any]:
    found = np.asarray(lengths.array if isinstance(lengths, Variable) else lengths, dtype=np.int64)
    if found.shape != (batch,):
        raise RuntimeError(
            f"[{who}] there must be one length for each of {batch} sequences, came {list(found.shape)}"
        )
    if (found <= 0).any():
        raise RuntimeError(f"[{who}] lengths must be greater than 0, came {found.min()}")
    return found


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs (T, N, *), or (N, T, *) with batch_first; without enforce_sorted lengths may come in any order."""
    x = input.transpose(0, 1) if batch_first else input
    found = _lengths("pack_padded_sequence", lengths, x.array.shape[1])
    order = None
    if not enforce_sorted:
        order = creation.from_numpy(np.argsort(-found, kind="stable"))
        found = found[order.array]
        x = functions.index_select(x, 1, order)
    if (np.diff(found) > 0).any():
        raise RuntimeError(
            "[pack_padded_sequence] lengths must descend when enforce_sorted=True, came"
            f" {found.tolist()}: sort them, or pass enforce_sorted=False"
        )
    if found[0] > len(x.array):
        raise RuntimeError(
            f"[pack_padded_sequence] lengths must be at most the input's {len(x.array)} steps, came {found[0]}"
        )
    sizes = (found[None, :] > np.arange(found[0])[:, None]).sum(1)
    rows = np.concatenate([t * x.array.shape[1] + np.arange(n) for t, n in enumerate(sizes)])
    flat = x.reshape(-1, *x.array.shape[2:])
    data = functions.index_select(flat, 0, creation.from_numpy(rows.astype(np.int64)))
    return PackedSequence(data, creation.from_numpy(sizes.astype(np.int64)), order)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Any, Any]:
    """The padded batch (T, N, *), or (N, T, *) with batch_first, in the order before packing, and the lengths."""
    sizes = sequence.batch_sizes.array
    steps, batch = len(sizes), int(sizes[0])
    if total_length is not None:
        if total_length < steps:
            raise ValueError(
                "[pad_packed_sequence] total_length must be at least the length of the longest sequence,"
                f" came {total_length} for {steps}"
            )
        steps = total_length
    lengths = (sizes[:, None] > np.arange(batch)[None, :]).sum(0)
    columns = np.arange(batch) if sequence.unsorted_indices is None else sequence.unsorted_indices.array
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    there = np.arange(steps)[:, None] < lengths[columns][None, :]
    rows = np.zeros((steps, batch), np.int64)
    rows[: len(sizes)] = starts[:, None] + columns[None, :]
    rows[~there] = 0
    y = functions.index_select(sequence.data, 0, creation.from_numpy(rows.reshape(-1)))
    y = y.reshape(steps, batch, *sequence.data.array.shape[1:])
    if not there.all():
        missing = ~there.reshape(steps, batch, *[1] * (y.ndim - 2))
        y = functions.masked_fill(y, creation.from_numpy(missing), padding_value)
    return y.transpose(0, 1) if batch_first else y, creation.from_numpy(lengths[columns].astype(np.int64))


def pad_sequence(
    sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Any:
    """Tensors (L_i, *) as one, (T, N, *) or with batch_first (N, T, *), filled up to the longest."""
    if padding_side not in ("left", "right"):
        raise ValueError(f"[pad_sequence] padding_side must be 'left' or 'right', came {padding_side!r}")
    parts = list(sequences)
    if not parts:
        raise ValueError("[pad_sequence] there must be at least one sequence, came none")
    longest = max(len(s.array) for s in parts)
    filled = []
    for s in parts:
        if s.array.shape[1:] != parts[0].array.shape[1:]:
            raise RuntimeError(
                "[pad_sequence] sequences must agree in all dimensions but the first,"
                f" came {list(parts[0].shape)} and {list(s.shape)}"
            )
        short = longest - len(s.array)
        if short:
            shape = (short, *s.array.shape[1:])
            border = creation.full(shape, padding_value, dtype=s.dtype, device=s.device)
            s = functions.cat([border, s] if padding_side == "left" else [s, border])
        filled.append(s)
    return functions.stack(filled, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Any, lengths: Any, batch_first: bool = False) -> list[Any]:
    """The sequences of a padded batch, each in its own length."""
    batch = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    found = _lengths("unpad_sequence", lengths, len(batch.array))
    return [batch[i, :n] for i, n in enumerate(found.tolist())]


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Packs a list of tensors (L_i, *)."""
    lengths = creation.tensor([len(s.array) for s in sequences])
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Any]:
    """The tensors that were packed."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
