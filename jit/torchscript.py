"""`torch.jit`'s names: accepted, so that scripts and libraries start. Functions and modules stay as they are."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..nn.module import Module

_told: set[str] = set()


def runs_eagerly(what: str) -> None:
    """Warns once a process that `what` changes nothing."""
    if what not in _told:
        import warnings

        _told.add(what)
        warnings.warn(f"[{what}] is accepted and ignored: the function or module runs eagerly", stacklevel=3)


class ScriptModule(Module):
    """A Module; nothing is compiled."""


RecursiveScriptModule = TracedModule = TopLevelTracedModule = ScriptModule


class ScriptFunction:
    """The class of compiled functions, of which there are none: for isinstance checks."""


class Attribute(NamedTuple):
    """A value with the type that a compiler would give it."""

    value: Any
    type: Any


def script(
    obj: Any, optimize: Any = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None
) -> Any:
    """The function, class or module itself."""
    runs_eagerly("jit.script")
    return obj


def trace(func: Any, example_inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
    """The function or module itself; it is not run on the example inputs."""
    runs_eagerly("jit.trace")
    return func


def trace_module(mod: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """The module itself."""
    runs_eagerly("jit.trace")
    return mod


def _as_it_is(fn: Any) -> Any:
    """The function itself."""
    return fn


script_method = export = interface = unused = _script_if_tracing = script_if_tracing = _as_it_is
_overload = _overload_method = freeze = optimize_for_inference = _as_it_is


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """Decorator, with or without arguments: the function itself."""
    return drop if callable(drop) else _as_it_is


def annotate(the_type: Any, the_value: Any) -> Any:
    """The value."""
    return the_value


def is_scripting() -> bool:
    """Whether the code is being compiled now: never."""
    return False


is_tracing = is_scripting


def isinstance(obj: Any, target_type: Any) -> bool:
    """Python's isinstance, for classes."""
    import builtins

    return builtins.isinstance(obj, target_type)


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls the function at once; `wait` gives its result."""
    return _Done(func(*args, **kwargs))


def wait(future: Any) -> Any:
    """The result of a `fork`."""
    return future.value


class _Done(NamedTuple):
    value: Any


class _Unchanged:
    """A context without effect."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass


optimized_execution = fuser = strict_fusion = _Unchanged


__all__ = [
    "Attribute",
    "Final",
    "ScriptFunction",
    "ScriptModule",
    "annotate",
    "export",
    "fork",
    "freeze",
    "ignore",
    "interface",
    "is_scripting",
    "is_tracing",
    "isinstance",
    "optimize_for_inference",
    "optimized_execution",
    "script",
    "script_if_tracing",
    "script_method",
    "trace",
    "trace_module",
    "unused",
    "wait",
]
