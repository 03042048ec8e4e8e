"""The optimizers that have kernels on a GPU: one launch for all parameters of a group."""

from __future__ import annotations

from typing import Any

import numpy as np

from .optimizer import number


def run(
    optimizer: Any,
    group: dict[str, Any],
    flat: Any,
    some: tuple[int, ...],
    grads: list[Any],
    slots: list[str],
    c: Any,
    step: float | None,
) -> bool:
    """Updates the parameters `some`; False where the optimizer or the arrays have no kernel.

    step: that of this update, for optimizers that count.
    """
    from .adam import Adam
    from .sgd import SGD

    kind = type(optimizer).update
    if kind not in (Adam.update, SGD.update) or flat.loose:
        return False
    from ..tensor.backend.cuda import kernel, pieces

    chosen = [grads[i] for i in some]
    fits = kernel.suffix(flat.views[some[0]], *chosen)
    if fits is None or not kernel.contiguous(*chosen):
        return False
    key = (some, tuple(slots))
    table = flat.tables.get(key)
    if table is None:
        table = pieces.Table(
            [flat.sizes[i] for i in some], [flat.starts[i] for i in some], flat.real.itemsize
        )
        flat.tables[key] = table
    if not table.count:
        return True
    where = pieces.addresses([flat.views[i] for i in some]), pieces.addresses(chosen)
    states = [flat.buffers[name] for name in slots]
    if kind is Adam.update:
        assert step is not None
        _adam(pieces, group, flat, key, fits, step, states, table, where)
    else:
        _sgd(pieces, group, flat, key, fits, c, states, table, where)
    return True


def _adam(
    pieces: Any,
    group: dict[str, Any],
    flat: Any,
    key: Any,
    kind: str,
    step: float,
    states: list[Any],
    table: Any,
    where: Any,
) -> None:
    held = flat.coefficients.get(key)
    if held is None or any(a is not b for a, b in zip(held.buffers, states, strict=True)):
        held = flat.coefficients[key] = pieces.Adam(states, kind)
    held.settle(_hyper(group), step - 1)
    held.run(table, *where)
    pieces.graph.on_replay(lambda: _replayed(group, flat, key, held), lambda: _count(flat, key, held, -1))


def _hyper(group: dict[str, Any]) -> list[float]:
    beta1, beta2 = (number(b) for b in group["betas"])
    rest = [number(group["eps"]), number(group["weight_decay"])]
    switches = [float(bool(group.get(name))) for name in ("decoupled_weight_decay", "maximize")]
    return [number(group["lr"]), beta1, beta2, *rest, *switches, 0.0]


def _replayed(group: dict[str, Any], flat: Any, key: Any, held: Any) -> None:
    """Before a captured step runs again: today's learning rate goes to the device, the host's count goes on."""
    steps, members = flat.buffers["step"], key[0]
    held.settle(_hyper(group), float(steps[members[0]]))
    _count(flat, key, held, 1)


def _count(flat: Any, key: Any, held: Any, by: int) -> None:
    """Adds to the host's and the kernel's count of steps."""
    held._step += by
    flat.buffers["step"][list(key[0])] += by


def _sgd(
    pieces: Any,
    group: dict[str, Any],
    flat: Any,
    key: Any,
    kind: str,
    c: Any,
    states: list[Any],
    table: Any,
    where: Any,
) -> None:
    def numbers(keep: float) -> list[float]:
        decay, sign = number(group["weight_decay"]), -1.0 if group.get("maximize") else 1.0
        rest = [number(group["momentum"]), keep, decay, float(group["nesterov"]), sign]
        return [number(group["lr"]), *rest]

    keep = c[2]
    held = flat.coefficients.get(key)
    if held is None:
        held = flat.coefficients[key] = [None, pieces.load().zeros(6, "float32")]

    def settle(values: list[float]) -> None:
        if held[0] != values:
            held[1][...] = pieces.upload(np.array(values, np.float32))
            held[0] = values

    settle(numbers(keep))
    pieces.sgd(table, kind, *where, states[0] if states else None, held[1])
    pieces.graph.on_replay(lambda: settle(numbers(1 - group["dampening"])))
