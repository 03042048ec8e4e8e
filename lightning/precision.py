"""Precision: the dtype of parameters and batches, and the context that steps run in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ..tensor import Tensor, dtypes

NAMES = {
    "32": "32-true",
    "32-true": "32-true",
    "64": "64-true",
    "64-true": "64-true",
    "bf16": "bf16-mixed",
    "bf16-mixed": "bf16-mixed",
    "16": "16-mixed",
    "16-mixed": "16-mixed",
}


class Precision:
    """ "32-true", "64-true" (parameters, batches and new tensors in float64), "bf16-mixed" (autocast) or "16-mixed"
    (autocast to float16; the loss is scaled, and a step whose gradients overflow is left out).
    """

    def __init__(self, name: str | int | None) -> None:
        found = NAMES.get(str(name or "32"))
        if found is None:
            raise ValueError(f"[Trainer] precision must be one of {sorted(NAMES)}, came {name!r}")
        self.precision = found
        self.is_plain = found == "32-true"  # steps and batches are as they are
        self.scaler: Any = None
        if found == "16-mixed":
            from ..amp import GradScaler

            self.scaler = GradScaler("cpu")

    def scale(self, loss: Any) -> Any:
        """What backward starts from."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def step(self, optimizer: Any, closure: Callable[[], Any]) -> None:
        """An optimizer's step with scaled gradients, which the closure has unscaled."""
        if closure() is not None:
            self.scaler.step(optimizer)
            self.scaler.update()

    def convert_module(self, module: Any) -> None:
        """Gives parameters and buffers their dtype."""
        if self.precision == "64-true":
            module.double()

    def convert_batch(self, batch: Any) -> Any:
        """Gives a batch's floating-point tensors their dtype."""
        if self.precision != "64-true":
            return batch
        return map_tensors(batch, lambda t: t.double() if t.is_floating_point() else t)

    def forward_context(self) -> Any:
        """What steps run in."""
        if self.precision == "bf16-mixed":
            from ..amp import autocast

            return autocast("cpu", dtype=dtypes.bfloat16)
        if self.precision == "16-mixed":
            from ..amp import autocast

            return autocast("cpu", dtype=dtypes.float16)
        if self.precision == "64-true":
            return _default_double()
        return _NOTHING


_NOTHING = contextlib.nullcontext()


@contextlib.contextmanager
def _default_double() -> Any:
    before = dtypes.get_default_dtype()
    dtypes.set_default_dtype(dtypes.float64)
    try:
        yield
    finally:
        dtypes.set_default_dtype(before)


def map_tensors(value: Any, fn: Callable[[Any], Any]) -> Any:
    """The same structure of lists, tuples and dicts with `fn` of its tensors."""
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(v, fn) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(v, fn) for v in value)
    if isinstance(value, dict):
        return {k: map_tensors(v, fn) for k, v in value.items()}
    return value
