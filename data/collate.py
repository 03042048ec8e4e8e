"""Samples into batches: equal things of many samples become one tensor with a dimension more."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from ..autograd.engine import Variable, wrap
from ..tensor import creation, functions


def default_collate(batch: Sequence[Any]) -> Any:
    """One batch of a list of samples.

    Tensors, arrays and NumPy scalars of equal shape are stacked along a new first dimension; Python numbers become
    a tensor (floats float64, integers int64); strings and bytes stay a list; mappings, namedtuples and sequences
    keep their form around the batches of their members, except that tuples come back as lists, as in PyTorch.
    RuntimeError for unequal shapes or lengths, TypeError for other types: both name the member and the sample.
    """
    return _collate(batch, "")


def default_convert(data: Any) -> Any:
    """One sample with its arrays as tensors over the same memory; what is not an array stays as it is."""
    if isinstance(data, np.ndarray | np.generic):
        return data if data.dtype.kind in "SaUO" else creation.as_tensor(np.asarray(data))
    return data if isinstance(data, Variable) else _rebuilt(data, default_convert, otherwise=data)


def pinned(data: Any) -> Any:
    """The batch with everything that has `pin_memory()` moved to page-locked memory."""
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    return _rebuilt(data, pinned, otherwise=data)


def _rebuilt(data: Any, change: Callable[[Any], Any], otherwise: Any) -> Any:
    if isinstance(data, Mapping):
        return _mapping(data, {key: change(value) for key, value in data.items()})
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return _sequence(data, [change(value) for value in data])
    return otherwise


def _collate(batch: Sequence[Any], member: str) -> Any:
    first = batch[0]
    if isinstance(first, Variable):
        return _stack(batch, member)
    if isinstance(first, np.ndarray):
        if first.dtype.kind in "SaUO":
            raise _unsupported(member, f"an array of {first.dtype}")
        return _collate([creation.as_tensor(a) for a in batch], member)
    if isinstance(first, np.bool_ | np.number):
        return creation.as_tensor(np.asarray(batch))
    if isinstance(first, float):
        return creation.tensor(batch, dtype="float64")
    if isinstance(first, int):
        return creation.tensor(batch)
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping):
        columns = {key: _collate(_column(batch, key, member), f"{member}[{key!r}]") for key in first}
        return _mapping(first, columns)
    if isinstance(first, Sequence):
        for i, sample in enumerate(batch):
            if len(sample) != len(first):
                raise RuntimeError(
                    f"[default_collate] each element in list of batch should be of equal size: sample{member} has "
                    f"length {len(first)} in sample 0 and {len(sample)} in sample {i}; pass a collate_fn that pads"
                )
        return _sequence(first, [_collate(part, f"{member}[{i}]") for i, part in enumerate(zip(*batch))])
    raise _unsupported(member, f"{type(first).__name__}")


def _stack(batch: Sequence[Any], member: str) -> Any:
    arrays = [t.array for t in batch]
    first = arrays[0]
    if len({a.shape for a in arrays}) > 1:
        i = next(i for i, a in enumerate(arrays) if a.shape != first.shape)
        raise RuntimeError(
            "[default_collate] stack expects each tensor to be equal size, but got "
            f"{list(first.shape)} at entry 0 and {list(arrays[i].shape)} at entry {i} for sample{member}: "
            "pass a collate_fn that pads or packs"
        )
    # A view can need a gradient that it does not know of yet, but only if its base does.
    recorded = any([t._needs or (t._base is not None and t._base._needs) for t in batch])
    if recorded or type(first) is not np.ndarray or len({a.dtype for a in arrays}) > 1:
        return functions.stack(list(batch))
    if not first.ndim:
        return wrap(np.array(arrays, first.dtype))
    return wrap(
        np.concatenate(arrays).reshape(len(arrays), *first.shape)
    )  # as np.stack, with less done for each


def _column(batch: Sequence[Any], key: Any, member: str) -> list[Any]:
    try:
        return [sample[key] for sample in batch]
    except KeyError:
        i = next(i for i, sample in enumerate(batch) if key not in sample)
        raise KeyError(
            f"[default_collate] all samples must have the keys of the first: sample{member} of sample {i} has "
            f"{list(batch[i])}, without {key!r}"
        ) from None


def _mapping(like: Any, content: dict[Any, Any]) -> Any:
    """The content in a mapping of the same type, with what else an instance of it carries."""
    if type(like) is dict:
        return content
    try:
        if not isinstance(like, MutableMapping):
            return type(like)(content)
        clone = copy.copy(like)
        clone.update(content)
        return clone
    except TypeError:  # a type with a constructor of its own
        return content


def _sequence(like: Any, content: list[Any]) -> Any:
    if isinstance(like, tuple):
        return type(like)(*content) if hasattr(like, "_fields") else content
    if type(like) is list:
        return content
    try:
        if not isinstance(like, MutableSequence):
            return type(like)(content)
        clone = copy.copy(like)
        for i, value in enumerate(content):
            clone[i] = value
        return clone
    except TypeError:
        return content


def _unsupported(member: str, came: str) -> TypeError:
    return TypeError(
        "[default_collate] batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {came} as sample{member}: pass a collate_fn"
    )
