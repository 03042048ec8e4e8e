"""Optimizer steps as one compiled pass over each parameter. State, counters and options stay the optimizer's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..optim.adam import Adam, AdamW
from ..optim.elementwise import Elementwise
from ..optim.optimizer import number
from ..optim.sgd import SGD
from .kernel_table import available, compiled

F = np.float32
F32 = np.dtype("float32")


def step(optimizer: Any) -> None:
    """optimizer.step(), with the update of a compiled kernel where it is one of those known here."""
    if type(optimizer) in UPDATES and available() and "_run" not in optimizer.__dict__:
        optimizer._run = lambda *args: _run(optimizer, *args)
        try:
            optimizer.step()
        finally:
            del optimizer._run
    else:
        optimizer.step()


def _run(
    optimizer: Any, group: Any, flat: Any, some: Any, grads: Any, slots: Any, c: Any, *rest: Any
) -> None:
    """As Elementwise._run, a parameter at a time."""
    if flat.dtype != F32 or group.get("maximize") or len(slots) > 2:
        return Elementwise._run(optimizer, group, flat, some, grads, slots, c, *rest)
    coupled = optimizer.couples and not group.get("decoupled_weight_decay")
    decay = F(number(group.get("weight_decay", 0)) if coupled else 0)
    update = UPDATES[type(optimizer)]
    states = [flat.buffers[name] for name in slots]
    starts = flat.starts
    for i in some:
        part = slice(starts[i], starts[i + 1])
        update(c, flat.views[i], grads[i], decay, *[s[part] for s in states])
    return None


def _sgd(c: Any, p: Any, g: Any, decay: Any, *states: Any) -> None:
    lr, keep, add, nesterov = c
    if states:
        compiled().momentum(p, g, states[0], F(lr), decay, F(keep), F(add), bool(nesterov))
    else:
        compiled().sgd(p, g, F(lr), decay)


def _adam(c: Any, p: Any, g: Any, decay: Any, m: Any, v: Any) -> None:
    beta1, beta2, rate, eps, shrink = c
    compiled().adam(p, g, m, v, decay, F(1 - beta1), F(beta2), F(1 - beta2), F(rate), F(eps), F(shrink))


UPDATES: dict[type, Any] = {SGD: _sgd, Adam: _adam, AdamW: _adam}
__all__ = ["step"]
