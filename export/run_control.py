"""What the ONNX nodes If, Loop and Scan compute. Their graphs come as functions from Tensors to a list of them."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.op import tensor_ops as ops
from .run_nodes import runs
from .trace import ExportError


@runs("If")
def _if(condition: Any, *, then_branch: Any = None, else_branch: Any = None) -> list[Any]:
    return (then_branch if condition.array.item() else else_branch)()


@runs("Loop")
def _loop(most: Any, condition: Any, *state: Any, body: Any = None) -> list[Any]:
    carried, rows = list(state), list[list[Any]]()
    go = condition is None or bool(condition.array.item())
    for i in count() if most is None else range(int(most.array.item())):
        if not go:
            break
        again, *made = body(wrap(np.array(i, np.int64)), wrap(np.array(go)), *carried)
        carried, go = made[: len(state)], bool(again.array.item())
        rows.append(made[len(state) :])
    if not rows:
        return carried  # what the iterations give is then unknown in shape: an error where it is wanted
    return [*carried, *(ops["stack"](*column, dim=0) for column in zip(*rows))]


@runs("Scan")
def _scan(
    *x: Any, body: Any = None, num_scan_inputs: int = 0, scan_input_axes: Any = None, scan_input_directions: Any = None,
    scan_output_axes: Any = None, scan_output_directions: Any = None, opset: int = 13,
) -> list[Any]:  # fmt: skip
    if opset < 9:
        raise ExportError(f"[onnx] Scan of opset 8 cannot be run, came opset {opset}")
    state, rows = list(x[: len(x) - num_scan_inputs]), x[len(x) - num_scan_inputs :]
    axes = scan_input_axes or [0] * num_scan_inputs
    steps = [row.unbind(axis) for row, axis in zip(rows, axes)]
    for i, back in enumerate(scan_input_directions or ()):
        steps[i] = steps[i][::-1] if back else steps[i]
    made: list[list[Any]] = []
    for parts in zip(*steps):
        new = body(*state, *parts)
        state, extra = new[: len(state)], new[len(state) :]
        made.append(extra)
    columns = [list(column) for column in zip(*made)]
    for i, back in enumerate(scan_output_directions or ()):
        columns[i] = columns[i][::-1] if back else columns[i]
    places = scan_output_axes or [0] * len(columns)
    return [*state, *(ops["stack"](*column, dim=axis) for column, axis in zip(columns, places))]
