"""ModelSummary: a table of the module's parts before training."""

from __future__ import annotations

from typing import Any

from ...autograd import no_grad
from ..flops import Counter, counting
from ..tables import Row, summary_table
from .callback import Callback


class ModelSummary(Callback):
    """Prints names, types and numbers of parameters of submodules down to `max_depth` (-1: all).

    Where the module has an `example_input_array` (a tensor, a tuple or a dict for `forward`), shapes of inputs and
    outputs and the floating-point operations of each part's forward are shown too.
    """

    def __init__(self, max_depth: int = 1) -> None:
        self.max_depth = max_depth

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero and self.max_depth:
            rows = summary(pl_module, self.max_depth)
            parameters = list(pl_module.parameters())
            trainable = sum(p.numel() for p in parameters if p.requires_grad)
            n_bytes = sum(p.array.nbytes for p in parameters)
            summary_table(rows, sum(p.numel() for p in parameters), trainable, n_bytes)


def summary(module: Any, max_depth: int = 1) -> list[Row]:
    """A row for each submodule down to `max_depth` (-1: all)."""
    parts = [
        (name, part)
        for name, part in module.named_modules()
        if name and (max_depth == -1 or name.count(".") < max_depth)
    ]
    seen = _seen(module, [part for _, part in parts]) if module.example_input_array is not None else {}
    return [
        Row(
            name,
            type(part).__name__,
            sum(p.numel() for p in part.parameters()),
            part.training,
            *seen.get(part, ()),
        )
        for name, part in parts
    ]


def _seen(module: Any, parts: list[Any]) -> dict[Any, tuple[str, str, int]]:
    """(input's shape, output's shape, operations) of parts in a forward of the example."""
    found: dict[Any, tuple[str, str, int]] = {}
    began: dict[Any, int] = {}

    def watch(part: Any, counter: Counter) -> list[Any]:
        def before(part: Any, inputs: Any) -> None:
            began[part] = counter.total

        def after(part: Any, inputs: Any, output: Any) -> None:
            count = counter.total - began[part] + (found[part][2] if part in found else 0)
            found[part] = _shape(inputs[0] if len(inputs) == 1 else inputs), _shape(output), count

        return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]

    example, training = module.example_input_array, module.training
    module.eval()
    with counting() as counter, no_grad():
        handles = [handle for part in parts for handle in watch(part, counter)]
        try:
            if isinstance(example, dict):
                module(**example)
            else:
                module(*example) if isinstance(example, tuple) else module(example)
        finally:
            for handle in handles:
                handle.remove()
            module.train(training)
    return found


def _shape(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(_shape(v) for v in value)
    return str(list(value.shape)) if hasattr(value, "shape") else type(value).__name__
