"""Metric: a state that batches add to, that workers' states merge into, and that a value is computed from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...nn import Module
from ...tensor import Tensor
from ...tensor.creation import tensor


class Metric(Module):
    """Subclass it: `add_state` in `__init__`, `update(...)` and `compute()`.

        accuracy = Accuracy("multiclass", num_classes=10)
        accuracy(logits, target)   # adds a batch, and returns its own value
        accuracy.compute()         # of all batches since reset, on all workers: a collective, call it on each

    States are NumPy arrays that are summed, or lists of arrays that are joined, over batches and workers, so that the
    value is that of all samples together, however they were shared out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._defaults: dict[str, Any] = {}
        self.batch_value: Any = None  # the value of the last batch given to `forward`

    def add_state(self, name: str, default: Any) -> None:
        """A state: an array (or number) to be summed, or [] for a list of arrays to be joined."""
        self._defaults[name] = [] if isinstance(default, list) else np.array(default)
        setattr(self, name, self._fresh(name))

    def _fresh(self, name: str) -> Any:
        default = self._defaults[name]
        return [] if isinstance(default, list) else default.copy()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Adds a batch to the state."""
        raise NotImplementedError(f"[{type(self).__name__}] a metric must define update(...)")

    def _compute(self) -> Any:
        """The value of the state as it is."""
        raise NotImplementedError(f"[{type(self).__name__}] a metric must define _compute()")

    def compute(self) -> Tensor:
        """The value over all batches of all workers. Raises RuntimeError before the first batch."""
        own = self._states()
        merged = self._merged(own)
        self._set_states(merged)
        try:
            return _as_tensor(self._compute())
        finally:
            self._set_states(own)

    def reset(self) -> None:
        """Forgets all batches."""
        self._set_states({name: self._fresh(name) for name in self._defaults})
        self.batch_value = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Adds a batch and returns this batch's own value, on this worker."""
        before = self._states()
        self.reset()
        self.update(*args, **kwargs)
        value = _as_tensor(self._compute())
        batch = self._states()
        self._set_states({name: _join(before[name], batch[name]) for name in before})
        self.batch_value = value
        return value

    # ---- states

    def _states(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._defaults}

    def _set_states(self, states: dict[str, Any]) -> None:
        for name, value in states.items():
            object.__setattr__(self, name, value)

    def _merged(self, own: dict[str, Any]) -> dict[str, Any]:
        from ...distributed import get_world_size, is_initialized

        if not is_initialized() or get_world_size() == 1:
            return own
        from ...distributed.process_group import world_group

        return merge([_unpack(part) for part in world_group().all_gather_object(_pack(own))])


def merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of all batches from the states of several workers."""
    merged = parts[0]
    for part in parts[1:]:
        merged = {name: _join(merged[name], part[name]) for name in merged}
    return merged


def _join(a: Any, b: Any) -> Any:
    return a + b  # lists are joined, arrays summed


def _pack(states: dict[str, Any]) -> dict[str, Any]:
    def one(array: Any) -> list[Any]:
        array = np.asarray(array)
        return [array.dtype.str, list(array.shape), array.tobytes()]

    return {
        name: {"joined": [one(a) for a in value]} if isinstance(value, list) else one(value)
        for name, value in states.items()
    }


def _unpack(packed: dict[str, Any]) -> dict[str, Any]:
    def one(item: Any) -> np.ndarray:
        dtype, shape, data = item
        return np.frombuffer(data, dtype).reshape(shape)

    return {
        name: [one(a) for a in value["joined"]] if isinstance(value, dict) else one(value)
        for name, value in packed.items()
    }


def _as_tensor(value: Any) -> Tensor:
    return (
        value
        if isinstance(value, Tensor)
        else tensor(np.asarray(value, np.float32) if _floats(value) else value)
    )


def _floats(value: Any) -> bool:
    return np.asarray(value).dtype.kind == "f"


def array_of(value: Any) -> np.ndarray:
    """A NumPy array of a tensor, array or number; 16-bit floats as float32."""
    array = value.detach().array if isinstance(value, Tensor) else np.asarray(value)
    known = array.dtype.kind in "iub" or (array.dtype.kind == "f" and array.dtype.itemsize > 2)
    return array if known else array.astype(np.float32)  # bfloat16's kind is not "f"
