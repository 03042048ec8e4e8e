"""How calls are caught: the ops' functions are exchanged for timed ones while a profile is active."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any

from ..engine import Output, Variable, array_namespace
from ..op import Op, OpNode, array_ops, doors, listeners, registry
from . import flops
from .events import Event, shapes_of
from .memory import owner

if TYPE_CHECKING:
    from .session import profile

now = time.perf_counter_ns
active: list[profile] = []
_PACKAGE = __name__.partition(".")[0] + "."


class _Thread(threading.local):
    last: Event | None = None  # op that ended last, for the listener that comes right after it
    backward = 0  # gradients under way


_thread = _Thread()


def start(session: profile) -> None:
    """Begins to note calls in `session`."""
    if not active:
        _Hooks.install()
    active.append(session)


def stop(session: profile) -> None:
    if session in active:
        active.remove(session)
        if not active:
            _Hooks.remove()


class _Hooks:
    """Puts the timed functions in, and takes them out again."""

    forwards: list[tuple[Op, Any]] = []
    vjp: Any = None
    made: dict[int, Event] = {}  # number of a node in the graph -> the call that made it
    undo: list[Callable[[], None]] = []

    @classmethod
    def install(cls) -> None:
        bodies = [op.variants[xp] for op in registry.values() for xp in op.variants]
        cls.forwards = [
            (op, op.forward) for op in [*registry.values(), *(body for some in bodies for body in some)]
        ]
        for op, forward in cls.forwards:
            op.forward = _timed(op, forward)
        cls.vjp = OpNode.vjp
        OpNode.vjp = _timed_vjp(cls.vjp)  # type: ignore[method-assign]
        array_ops.__dict__.clear()  # it keeps the functions that it has called before
        listeners.append(_listen)
        cls.undo = [door(note) for door in doors]

    @classmethod
    def remove(cls) -> None:
        for op, forward in cls.forwards:
            op.forward = forward
        OpNode.vjp = cls.vjp  # type: ignore[method-assign]
        array_ops.__dict__.clear()
        listeners.remove(_listen)
        for undo in cls.undo:
            undo()
        cls.made, cls.undo = {}, []


def _timed(op: Op, forward: Callable[..., Any]) -> Callable[..., Any]:
    name = op.name

    def timed(*args: Any, **kw: Any) -> Any:
        if not active:  # a trace kept this function beyond the profile
            return forward(*args, **kw)
        begin, y = now(), None
        try:
            y = forward(*args, **kw)
            return y
        finally:
            length = now() - begin
            _thread.last = _note(Event(name, begin, length, threading.get_ident()), args[1:], y)

    return timed


def _timed_vjp(vjp: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def timed(node: OpNode, g: Any, create: bool) -> list[Any]:
        values = _saved(node) if any(p.sized for p in active) else []
        begin, grads = now(), None
        _thread.backward += 1
        try:
            grads = vjp(node, g, create)
            return grads
        finally:
            length = now() - begin
            _thread.backward -= 1
            origin = _Hooks.made.get(node.seq)
            event = Event(node.op.title, begin, length, threading.get_ident(), "backward", origin=origin)
            if origin is not None and origin.flops:
                event = event._replace(flops=flops.backward(node.op.name, origin.flops, node.needs()))
            _note(event, [*(g if isinstance(g, list) else [g]), *values], grads)

    return timed


def _saved(node: OpNode) -> list[Any]:
    return [value for value in (node.saved or {}).values() if type(value) in array_namespace]


def _listen(op: Op, inputs: Iterable[Any], kwargs: Any, output: Any) -> None:
    """After each op; that it is there lets all ops take the general way, where their function is looked up."""
    parts = output if isinstance(output, tuple | list) else (output,)
    node = getattr(parts[0], "_node", None) if parts else None
    node = node.node if isinstance(node, Output) else node
    last = _thread.last
    if node is not None and last is not None and last.name == op.name:
        _Hooks.made[node.seq] = last
    if any(p.memory is not None for p in active):
        for leaf in inputs:
            if isinstance(leaf, Variable) and leaf._node is None:
                for session in active:
                    session._note_memory([leaf.array], "parameter" if leaf._needs else "input", session.began)


def _note(event: Event, inputs: Any, output: Any) -> Event:
    if any(p.sized for p in active):
        event = _sized(event, inputs, output)
    if any(p.with_stack for p in active):
        event = event._replace(stack=_frames())
    for session in active:
        session._events.append(event)
    return event


def _sized(event: Event, inputs: Any, output: Any) -> Event:
    """With shapes, operations, bytes and memory, from the arrays that came and were made."""
    outputs = [
        y for y in (output if isinstance(output, list | tuple) else [output]) if type(y) in array_namespace
    ]
    arrays = [a for a in inputs if type(a) in array_namespace]
    roots = {id(owner(a)) for a in arrays}
    made = [y for y in outputs if id(owner(y)) not in roots]
    category = "gradient" if event.kind == "backward" or _thread.backward else "activation"
    memory = max((p._note_memory(made, category, event.end) for p in active), default=0)
    shapes = shapes_of(inputs)
    if event.kind == "op" and outputs:
        event = event._replace(flops=flops.forward(event.name, shapes, outputs[0].shape))
    moved = sum(a.nbytes for a in (*arrays, *made)) if made else 0  # views move nothing
    return event._replace(shapes=shapes, moved=moved, memory=memory)


def _frames() -> tuple[str, ...]:
    """The program's own frames, outermost first."""
    found, frame = [], sys._getframe(2)
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            code = frame.f_code
            found.append(f"{code.co_filename}({frame.f_lineno}): {code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(reversed(found))


def note(kind: str, text: str, begin: int, length: int) -> None:
    """For other folders: collectives ("communication"; their text begins with the verb), compiled functions ("op")."""
    name = text.partition(" ")[0] if kind == "communication" else text
    event = Event(name, begin, length, threading.get_ident(), kind, detail=text)
    for session in active:
        session._events.append(event)


class record_function:
    """Names a range of the program in the profile: context manager and decorator."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name, self.args = name, args

    def __enter__(self) -> record_function:
        self.start = now()
        return self

    def __exit__(self, *_: Any) -> None:
        if active:
            event = Event(self.name, self.start, now() - self.start, threading.get_ident(), "user")
            for session in active:
                session._events.append(event._replace(detail=self.args or ""))

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fn)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):
                return fn(*args, **kwargs)

        return recorded
