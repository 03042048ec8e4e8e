"""Compiled functions: when a call may be repeated from a recording, and what happens when not.

A function is traced until two calls in a row did the same; from then on calls with like arguments run the program
made of the recording. Traced calls run eagerly, so their results are right in any case. A call that cannot be
repeated runs eagerly for good, with one warning that says why and where.
"""

from __future__ import annotations

import random
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

import numpy as np

from ..autograd import engine
from ..autograd.engine import Variable
from ..autograd.mode import mode as modes
from ..autograd.op import doors, registry
from ..tensor.dtypes import default_float
from ..tensor.memory import give_back
from .compare import difference
from .guards import SCALARS, Reach
from .passes import optimize
from .program import Program
from .trace import Tracer, owner

MOST_RECORDINGS = 8  # of one function, over all shapes, flags and Python values
MOST_ATTEMPTS = 4  # traces of one key until two in a row agree

_tracing = threading.Lock()  # a trace looks through doors that all threads share: one at a time
_prepare = registry["linear"].prepare  # another one stands there within autocast


class Recording:
    """One way the function can go: what must hold, and the program."""

    def __init__(self, tracer: Tracer, reach: Reach, exact: bool = False) -> None:
        start = time.perf_counter()
        self.graph, self.cleared = tracer.graph, tracer.cleared
        self.reach, self.check = reach, reach.compiled()
        self.gradients = [(leaf, kind) for leaf, kind in tracer.gradients.items() if kind != "any"]
        self.outside = list(tracer.outside.values())  # keeps their arrays' ids from being used again
        self.owners = {id(owner(t.array)) for t in self.outside}
        self.halves = tracer.halves
        self.needs = {v.id: v.tensor._needs for v in self.graph.values.values() if v.kind == "external"}
        self.report: list[Any] = []
        self.exact = exact
        self.optimized = optimize(self.graph, self.report, exact)
        if self.halves is not None:
            self.halves.bind(self.optimized)
        self.bind()
        self.seconds = time.perf_counter() - start

    def bind(self) -> None:
        """Makes the program over today's arrays."""
        self.program = Program(self.optimized, self.cleared, self.exact)
        self.run = self.program.run
        if self.halves is not None:
            self.run = partial(self.halves.run, self.program.run)
        self.entry = self._entry()

    def _entry(self) -> Callable[..., bool]:
        """Whether tensors outside are as they were: their arrays, flags and gradients."""
        space: dict[str, Any] = {}
        lines = ["def entry(inputs):"]
        for i, value in enumerate(v for v in self.graph.values.values() if v.kind == "external"):
            t = space[f"t{i}"] = value.tensor
            space[f"a{i}"] = t.array
            lines.append(
                f" if t{i}.array is not a{i} or t{i}._needs is not {self.needs[value.id]}: return False"
            )
        for i, (leaf, kind) in enumerate(self.gradients):
            space[f"g{i}"] = leaf
            hooks = f"g{i}._hooks or g{i}._whole_hooks or g{i}._grad_home is not None"
            lines.append(
                f" if g{i}._grad is {'' if kind == 'present' else 'not '}None or {hooks}: return False"
            )
        for i, value in enumerate(v for v in self.graph.values.values() if v.kind == "grad"):
            leaf = f"inputs[{value.tensor}]" if isinstance(value.tensor, int) else f"l{i}"
            space[f"l{i}"] = value.tensor
            lines.append(
                f" if {leaf}._grad is None or {leaf}._grad.array.shape != {value.shape}: return False"
            )
        exec("\n".join([*lines, " return True"]), space)
        return space["entry"]

    def fits(self, inputs: list[Any]) -> bool:
        """Whether the program may run now; it is bound anew where tensors outside have got other arrays."""
        if not self.check():
            return False
        for t in inputs:
            if id(owner(t.array)) in self.owners:
                return False
        if not self.entry(inputs):
            for value in self.graph.values.values():
                if value.kind == "external":
                    t = value.tensor.array
                    same = (t.shape, t.dtype, t.strides) == (value.shape, value.dtype, value.strides)
                    if not same or value.tensor._needs is not self.needs[value.id]:
                        return False
            self.bind()
            return self.entry(inputs)
        if self.program.stale():
            self.bind()
        return True


class Entry:
    """What is known of calls with one kind of arguments."""

    def __init__(self) -> None:
        self.recordings: list[Recording] = []
        self.before: Any = None
        self.attempts = 0
        self.eager: str | None = None
        self.why: str | None = None  # the last trace was of no use
        self.held: Any = None


class Compiled:
    """A function that is traced, and then replayed where that gives the same result."""

    def __init__(self, fn: Callable[..., Any], fullgraph: bool = False, exact: bool = False) -> None:
        self.fn, self.fullgraph, self.exact = fn, fullgraph, exact
        self.table: dict[Any, Entry] = {}
        self.recordings = 0
        self.full: str | None = None
        self.calls = {"traced": 0, "replayed": 0, "eager": 0}
        self.lock = threading.Lock()
        update_wrapper(self, fn, updated=())

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        from types import MethodType

        return MethodType(self, obj)

    def __call__(self, *args: Any, **kw: Any) -> Any:
        traced = engine.watch is not None or bool(engine.wholes)
        if traced or modes.anomaly or registry["linear"].prepare is not _prepare:
            return self.fn(*args, **kw)
        if not self.lock.acquire(blocking=False):  # another thread, or the function calls itself
            return self.fn(*args, **kw)
        try:
            inputs: list[Any] = []
            key = (modes.grad, modes.inference, default_float(), signature((args, kw), inputs))
            entry = self.table.get(key)
            if entry is not None:
                if entry.eager is None:
                    for recording in entry.recordings:
                        if recording.halves is not None and recording.halves.busy:
                            self.calls["eager"] += 1
                            return self.fn(*args, **kw)
                        if recording.fits(inputs):
                            self.calls["replayed"] += 1
                            return recording.run(*inputs)
                else:
                    self.calls["eager"] += 1
                    return self.fn(*args, **kw)
            if self.recordings >= MOST_RECORDINGS:
                return self._full(*args, **kw)
            if not _tracing.acquire(blocking=False):
                return self.fn(*args, **kw)
            try:
                return self._traced(key, entry, inputs, args, kw)
            finally:
                _tracing.release()
        finally:
            self.lock.release()

    def _full(self, *args: Any, **kw: Any) -> Any:
        """A call of yet another kind, when there are recordings enough."""
        if self.full is None:
            often = "arguments' shapes or Python's values change too often"
            self.full = f"there are {MOST_RECORDINGS} recordings already: {often}"
            self._tell(self.full)
        self.calls["eager"] += 1
        return self.fn(*args, **kw)

    def _traced(self, key: Any, entry: Entry | None, inputs: list[Any], args: Any, kw: Any) -> Any:
        if entry is None:
            entry = self.table[key] = Entry()
            entry.held = args, kw  # objects in the key are known by their ids
            self._forget_tensors(entry)
        reach = Reach(self.fn, (args, kw))
        tracer = Tracer(getattr(self.fn, "__name__", type(self.fn).__name__), inputs, reach.tensors)
        if reach.too_large:
            tracer.stop(reach.too_large, "")
        chance = random.getstate(), _numpys_chance()
        self.calls["traced"] += 1
        result = tracer.run(lambda: self.fn(*args, **kw))
        now = random.getstate(), _numpys_chance()
        if now[0] != chance[0] or now[1][1] != chance[1][1] or (now[1][0] != chance[1][0]).any():
            tracer.stop("random numbers are drawn from Python's or NumPy's generator", "")
        broken = reach.broken()
        if tracer.stopped is None and broken is not None:
            self._again(entry, f"the call changes Python's state: {broken.describe()}", None)
        elif tracer.stopped is not None:
            self._give_up(entry, tracer.stopped)
        else:
            different = "" if entry.before is None else difference(entry.before, tracer.graph)
            if different is None:
                self._keep(entry, tracer, reach)
            else:
                self._again(entry, different, tracer.graph)
        return result

    def _keep(self, entry: Entry, tracer: Tracer, reach: Reach) -> None:
        self.recordings += 1
        entry.recordings.append(Recording(tracer, reach, self.exact))
        entry.before, entry.attempts = None, 0
        give_back()  # what eager calls took: programs have memory of their own

    def _again(self, entry: Entry, why: str, graph: Any) -> None:
        entry.before, entry.why = graph, why
        entry.attempts += 1
        if entry.attempts >= MOST_ATTEMPTS:
            self._give_up(entry, why)

    def _give_up(self, entry: Entry, why: str) -> None:
        entry.eager, entry.before = why, None
        self._tell(why)

    def _tell(self, why: str) -> None:
        name = getattr(self.fn, "__qualname__", type(self.fn).__name__)
        text = f"[jit] {name} runs eagerly: {why}"
        if self.fullgraph:
            raise RuntimeError(text + ". fullgraph=True does not allow that")
        warnings.warn(text, stacklevel=6)

    def _forget_tensors(self, entry: Entry) -> None:
        def strip(value: Any) -> Any:
            if isinstance(value, Variable):
                return None
            if isinstance(value, tuple | list):
                return [strip(v) for v in value]
            return {k: strip(v) for k, v in value.items()} if isinstance(value, dict) else value

        entry.held = strip(entry.held)


def _numpys_chance() -> Any:
    """Where NumPy's global generator stands."""
    state: Any = np.random.get_state(legacy=True)
    return state[1], state[2]


def _address(array: Any) -> int:
    return array.__array_interface__["data"][0]


def signature(value: Any, inputs: list[Any]) -> Any:
    """What must be equal for two calls to be alike; the Tensors among the arguments are put into `inputs`."""
    if isinstance(value, Variable):
        a = value.array
        for i, t in enumerate(inputs):
            if t is value or owner(t.array) is owner(a):
                inputs.append(value)
                apart = _address(a) - _address(t.array)
                return ("same memory as", i, t.array is a, apart, a.shape, a.strides, a.dtype, value._needs)
        inputs.append(value)
        return (a.shape, a.dtype, a.strides, value._needs, value._node is None, value._grad is None)
    if isinstance(value, SCALARS):
        return (type(value), value if value == value else "nan")
    if isinstance(value, tuple | list):
        return (type(value), *[signature(v, inputs) for v in value])
    if type(value) is dict:
        return (dict, *[(k, signature(v, inputs)) for k, v in value.items()])
    return (type(value), id(value))


def _watched(note: Callable[[str, str, int, int], None]) -> Callable[[], None]:
    """The door for profiles: calls of compiled functions are noted, while what is inside of a replay is not."""
    call: Any = Compiled.__call__

    def noted(self: Compiled, *args: Any, **kw: Any) -> Any:
        start = time.perf_counter_ns()
        try:
            return call(self, *args, **kw)
        finally:
            name = getattr(self.fn, "__name__", type(self.fn).__name__)
            note("op", f"compiled {name}", start, time.perf_counter_ns() - start)

    Compiled.__call__ = noted  # type: ignore[method-assign]

    def undo() -> None:
        Compiled.__call__ = call  # type: ignore[method-assign]

    return undo


doors.append(_watched)

__all__ = ["Compiled", "Recording"]
