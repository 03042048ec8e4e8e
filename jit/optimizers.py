"""Optimizer steps as one compiled pass over each parameter. State, counters and options stay the optimizer's own."""

from __future__ import annotations

from operator import is_
from typing import Any

import numpy as np

from ..optim import optimizer as base
from ..optim.adam import Adam, AdamW
from ..optim.elementwise import Elementwise
from ..optim.optimizer import number
from ..optim.sgd import SGD
from .kernel_table import available, compiled

F = np.float32
F32 = np.dtype("float32")


def step(optimizer: Any) -> Any:
    """optimizer.step(), with the update of a compiled kernel where it is one of those known here.

    Returns a Short for the steps that follow, or None.
    """
    if type(optimizer) not in UPDATES or not available() or "_run" in optimizer.__dict__:
        optimizer.step()
        return None
    optimizer._run = lambda *args: _run(optimizer, *args)
    try:
        optimizer.step()
    finally:
        del optimizer._run
    return Short.of(optimizer)


def _run(
    optimizer: Any, group: Any, flat: Any, some: Any, grads: Any, slots: Any, c: Any, *rest: Any
) -> None:
    """As Elementwise._run, a parameter at a time."""
    if flat.dtype != F32 or group.get("maximize") or len(slots) > 2:
        return Elementwise._run(optimizer, group, flat, some, grads, slots, c, *rest)
    decay = _decay(optimizer, group)
    update = UPDATES[type(optimizer)]
    states = [flat.buffers[name] for name in slots]
    starts = flat.starts
    for i in some:
        part = slice(starts[i], starts[i + 1])
        update(c, flat.views[i], grads[i], decay, *[s[part] for s in states])
    return None


def _decay(optimizer: Any, group: Any) -> Any:
    coupled = optimizer.couples and not group.get("decoupled_weight_decay")
    return F(number(group.get("weight_decay", 0)) if coupled else 0)


class Short:
    """A step whose arrays were found in the step before, as long as all of them are the same."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.flats = [optimizer._flats[i] for i in range(len(optimizer.param_groups))]
        self.held: list[
            tuple[Any, ...]
        ] = []  # parameter, its array, its gradient's, its state, [name, array ...]
        self.groups: list[tuple[Any, ...]] = []

    @classmethod
    def of(cls, optimizer: Any) -> Any:
        """None where some parameter has no gradient, another dtype, or counters of its own."""
        made = cls(optimizer)
        for group, (params, flats) in zip(optimizer.param_groups, made.flats):
            if group.get("maximize") or len(optimizer.slots(group)) > 2 or len(flats) != 1:
                return None
            (flat,) = flats
            slots, counters = list(optimizer.slots(group)), list(optimizer.counters(group))
            plain = flat.dtype == F32 and not flat.loose and len(flat.params) == len(params)
            if not plain or any(p._grad is None or p._grad.array.dtype != F32 for p in flat.params):
                return None
            jobs = []
            for i, p in enumerate(flat.params):
                state = optimizer.state[p] if slots or counters else {}
                kept = [(name, state[name].array) for name in (*slots, *counters)]
                made.held.append((p, p.array, p._grad.array, state, kept))
                part = slice(flat.starts[i], flat.starts[i + 1])
                grad = p._grad.array
                if not grad.flags.c_contiguous:
                    return None
                jobs.append((flat.views[i], grad.reshape(-1), *[flat.buffers[name][part] for name in slots]))
            made.groups.append(
                (group, list(group["params"]), slots, {n: flat.buffers[n] for n in counters}, jobs)
            )
        return made

    def fits(self) -> bool:
        optimizer = self.optimizer
        hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
        if hooks or base._global_pre_hooks or base._global_post_hooks or "step" in optimizer.__dict__:
            return False
        if len(optimizer.param_groups) != len(self.groups):
            return False
        for i, (group, params, slots, counters, _) in enumerate(self.groups):
            now = optimizer.param_groups[i]
            if now is not group or optimizer._flats.get(i) is not self.flats[i] or now.get("maximize"):
                return False
            if len(now["params"]) != len(params) or not all(map(is_, now["params"], params)):
                return False
            if list(optimizer.slots(now)) != slots:
                return False
            for values in counters.values():
                if (values != values[0]).any():
                    return False
        states = optimizer.state
        for p, array, grad, state, kept in self.held:
            g = p._grad
            if p.array is not array or g is None or g.array is not grad:
                return False
            if kept:
                if states.get(p) is not state:
                    return False
                for name, home in kept:
                    found = state.get(name)
                    if found is None or found.array is not home:
                        return False
        return True

    def run(self) -> None:
        optimizer = self.optimizer
        optimizer._opt_called = True
        update = UPDATES[type(optimizer)]
        for group, _, _, counters, jobs in self.groups:
            now = {name: values[0] for name, values in counters.items()}
            if "step" in now:
                now["step"] = float(now["step"]) + 1
            c = optimizer.advance(group, now, False)
            for name, value in now.items():
                counters[name][:] = value
            decay = _decay(optimizer, group)
            for p, g, *states in jobs:
                update(c, p, g, decay, *states)
        for p, *_ in self.held:
            p._version[0] += 1


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
