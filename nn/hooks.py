"""Hooks of modules: what is called around forward and backward, registered and run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import numpy as np

from ..autograd.engine import Node, Output, Variable, edge_of, mode, wrap

_tokens = count()
Hook = Callable[..., Any]


class RemovableHandle:
    """Takes a hook away again: `handle.remove()`, or as a context manager."""

    def __init__(self, hooks: dict[int, Any], hook: Any, prepend: bool = False) -> None:
        self.id, self._hooks = next(_tokens), hooks
        if prepend:
            later = dict(hooks)
            hooks.clear()
            hooks[self.id] = hook
            hooks.update(later)
        else:
            hooks[self.id] = hook

    def remove(self) -> None:
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


class ModuleHooks:
    """All hooks of one module (or of all modules). Each kind maps a token to a hook.

    forward_pre and forward hold pairs (hook, with_kwargs) and triples (hook, with_kwargs, always_call).
    """

    def __init__(self) -> None:
        self.forward_pre: dict[int, tuple[Hook, bool]] = {}
        self.forward: dict[int, tuple[Hook, bool, bool]] = {}
        self.backward_pre: dict[int, Hook] = {}
        self.backward: dict[int, Hook] = {}
        self.state_dict_pre: dict[int, Hook] = {}
        self.state_dict: dict[int, Hook] = {}
        self.load_state_dict_pre: dict[int, Hook] = {}
        self.load_state_dict_post: dict[int, Hook] = {}


class Hooked:
    """Registration of hooks on one module; `_hooks` is None as long as there are none."""

    _hooks: ModuleHooks | None = None

    @property
    def _forward_pre_hooks(self) -> OrderedDict[int, Hook]:
        """PyTorch's view of the hooks, to be read."""
        return OrderedDict((k, v[0]) for k, v in (self._hooks.forward_pre if self._hooks else {}).items())

    @property
    def _forward_hooks(self) -> OrderedDict[int, Hook]:
        return OrderedDict((k, v[0]) for k, v in (self._hooks.forward if self._hooks else {}).items())

    @property
    def _backward_hooks(self) -> OrderedDict[int, Hook]:
        return OrderedDict(self._hooks.backward if self._hooks else {})

    def _own_hooks(self) -> ModuleHooks:
        if self._hooks is None:
            self.__dict__["_hooks"] = ModuleHooks()
        return self.__dict__["_hooks"]

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls `hook(module, args)` before forward (`hook(module, args, kwargs)` if `with_kwargs`).

        What it returns replaces the arguments: args, or the pair (args, kwargs).
        """
        return RemovableHandle(self._own_hooks().forward_pre, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Calls `hook(module, args, output)` after forward (`hook(module, args, kwargs, output)` if `with_kwargs`).

        What it returns replaces the output. always_call: also when forward raises.
        """
        return RemovableHandle(self._own_hooks().forward, (hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(module, grad_output)` in backward; what it returns replaces grad_output."""
        return RemovableHandle(self._own_hooks().backward_pre, hook, prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(module, grad_input, grad_output)` in backward, both tuples; a result replaces grad_input."""
        return RemovableHandle(self._own_hooks().backward, hook, prepend)

    register_backward_hook = register_full_backward_hook

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(module, prefix, keep_vars)` before state_dict."""
        return RemovableHandle(self._own_hooks().state_dict_pre, hook)

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(module, state_dict, prefix, local_metadata)` after state_dict; it changes state_dict in place."""

        def checked(*args: Any) -> None:
            if hook(*args) is not None:
                raise RuntimeError(
                    "[state_dict_post_hook] must change state_dict in place and return None, came a value"
                )

        return RemovableHandle(self._own_hooks().state_dict, checked)

    def _register_state_dict_hook(self, hook: Hook) -> RemovableHandle:
        """As the post hook; what it returns replaces state_dict."""
        return RemovableHandle(self._own_hooks().state_dict, hook)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors)` before."""
        return RemovableHandle(self._own_hooks().load_state_dict_pre, hook)

    def _register_load_state_dict_pre_hook(self, hook: Hook, with_module: bool = False) -> RemovableHandle:
        """The same without the module as first argument, unless `with_module`."""
        return RemovableHandle(
            self._own_hooks().load_state_dict_pre, hook if with_module else lambda _, *args: hook(*args)
        )

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(module, incompatible_keys)` after load_state_dict; it may change the two lists in place."""
        return RemovableHandle(self._own_hooks().load_state_dict_post, hook)


class GlobalHooks(ModuleHooks):
    """Hooks of every module, those on registration among them."""

    def __init__(self) -> None:
        super().__init__()
        self.parameter_registration: dict[int, Hook] = {}
        self.buffer_registration: dict[int, Hook] = {}
        self.module_registration: dict[int, Hook] = {}


everywhere = GlobalHooks()


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, args)` before the forward of every module; what it returns replaces args."""
    return RemovableHandle(everywhere.forward_pre, (hook, False))


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Calls `hook(module, args, output)` after the forward of every module; what it returns replaces output."""
    return RemovableHandle(everywhere.forward, (hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, grad_output)` before the backward of every module."""
    return RemovableHandle(everywhere.backward_pre, hook)


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, grad_input, grad_output)` when the gradients of a module's inputs are known."""
    return RemovableHandle(everywhere.backward, hook)


def register_module_parameter_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, name, parameter)` when a parameter is registered; what it returns replaces it."""
    return RemovableHandle(everywhere.parameter_registration, hook)


def register_module_buffer_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, name, buffer)` when a buffer is registered; what it returns replaces it."""
    return RemovableHandle(everywhere.buffer_registration, hook)


def register_module_module_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, name, submodule)` when a submodule is registered; what it returns replaces it."""
    return RemovableHandle(everywhere.module_registration, hook)


def registered(hooks: dict[int, Hook], module: Any, name: str, value: Any) -> Any:
    """The value that is registered once the global registration hooks have seen it."""
    for hook in list(hooks.values()):
        found = hook(module, name, value)
        value = value if found is None else found
    return value


def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Forward with everything that is hooked around it."""
    own = module._hooks or _NONE
    for hook, with_kwargs in [*everywhere.forward_pre.values(), *own.forward_pre.values()]:
        args, kwargs = _run_forward_pre(module, hook, with_kwargs, args, kwargs)
    backward_pre = [*own.backward_pre.values(), *everywhere.backward_pre.values()]
    backward = [*everywhere.backward.values(), *own.backward.values()]
    gates = Gates(module, backward_pre, backward) if mode.grad and (backward or backward_pre) else None
    after = [*everywhere.forward.values(), *own.forward.values()]
    called: list[Any] = []
    result = None
    try:
        if gates is not None:
            args = gates.enter(args)
        result = module.forward(*args, **kwargs)
        for entry in after:
            called.append(entry)
            result = _run_forward(module, entry, args, kwargs, result)
        return result if gates is None else gates.leave(result)
    except Exception:
        for entry in after:
            if entry[2] and not any(entry is c for c in called):
                _after_failure(module, entry, args, kwargs, result)
        raise


_NONE = ModuleHooks()


def _run_forward_pre(
    module: Any, hook: Hook, with_kwargs: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not with_kwargs:
        result = hook(module, args)
        return (args if result is None else result if isinstance(result, tuple) else (result,)), kwargs
    result = hook(module, args, kwargs)
    if result is None:
        return args, kwargs
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(
            f"[forward_pre_hook] a hook with kwargs must return None or a pair (args, kwargs), came {result!r}"
        )
    return result


def _run_forward(module: Any, entry: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    hook, with_kwargs, _ = entry
    found = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
    return result if found is None else found


def _after_failure(module: Any, entry: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
    """Runs a hook that is always called, after forward raised: its own failure must not hide that one."""
    try:
        _run_forward(module, entry, args, kwargs, result)
    except Exception as error:
        import warnings

        warnings.warn(
            f"[forward_hook] a hook with always_call=True failed while another error was raised: {error!r}",
            stacklevel=3,
        )


class Gate(Node):
    """Tensors passing unchanged; their gradients go through a function on the way back."""

    __slots__ = ("fire",)

    def __init__(self, tensors: list[Any], fire: Callable[[list[Any]], list[Any]]) -> None:
        super().__init__([edge_of(t) for t in tensors], len(tensors))
        self.fire = fire

    def vjp(self, g: Any, create: bool) -> list[Any]:
        grads = [g] if self.outputs == 1 else list(g)
        if not create:
            grads = [None if part is None else wrap(part) for part in grads]
        grads = self.fire(grads)
        return grads if create else [None if part is None else part.array for part in grads]

    def name(self) -> str:
        return "BackwardHookFunctionBackward"


class Gates:
    """The gate before and the gate after one call of a module with backward hooks."""

    def __init__(self, module: Any, before: list[Hook], after: list[Hook]) -> None:
        self.module, self.before, self.after = module, before, after
        self.places: list[int] | None = None  # positions of the inputs that need a gradient
        self.inputs: list[Any] = []  # what a gradient of each input would be like
        self.grad_output: tuple[Any, ...] | None = None

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.inputs = [_like(a) for a in args]
        places = [i for i, a in enumerate(args) if isinstance(a, Variable) and edge_of(a) is not None]
        if not places:
            return args
        self.places = places
        return _pass(args, places, self.input_gradients)

    def leave(self, result: Any) -> Any:
        several = isinstance(result, tuple)
        outputs = result if several else (result,)
        places = [i for i, t in enumerate(outputs) if isinstance(t, Variable) and edge_of(t) is not None]
        if not places:
            return result
        likes = [None] * len(outputs)

        def fire(grads: list[Any]) -> list[Any]:
            return self.output_gradients(grads, places, likes)

        outputs = _pass(outputs, places, fire)
        return outputs if several else outputs[0]

    def output_gradients(self, grads: list[Any], places: list[int], likes: list[Any]) -> list[Any]:
        full = _spread(grads, places, likes)
        for hook in self.before:
            found = hook(self.module, full)
            if found is not None:
                full = _checked(found, len(likes), "grad_output")
        self.grad_output = full
        if self.places is None:  # no input gets a gradient: nothing to wait for
            for hook in self.after:
                found = hook(self.module, (None,) * len(self.inputs), full)
                if found is not None and any(g is not None for g in found if not isinstance(found, Variable)):
                    raise RuntimeError(
                        "[backward_hook] must return None where no input requires a gradient,"
                        f" came {type(found).__name__}"
                    )
        return [full[i] for i in places]

    def input_gradients(self, grads: list[Any]) -> list[Any]:
        places = self.places
        assert places is not None
        full = _spread(grads, places, self.inputs)
        if self.grad_output is not None:
            for hook in self.after:
                found = hook(self.module, full, self.grad_output)
                if found is not None:
                    full = _checked(found, len(self.inputs), "grad_input")
        self.grad_output = None
        return [full[i] for i in places]


def _like(value: Any) -> Any:
    """Shape and dtype of a tensor, for the zeros that stand for the gradient of an input that got none."""
    return (value.array.shape, value.array.dtype) if isinstance(value, Variable) else None


def _spread(grads: list[Any], places: list[int], likes: list[Any]) -> tuple[Any, ...]:
    """The gradients at their positions, zeros in the likeness of others, None where there is none."""
    given = dict(zip(places, grads))
    full: list[Any] = []
    for i, like in enumerate(likes):
        g = given.get(i)
        full.append(wrap(np.zeros(*like)) if g is None and like is not None else g)
    return tuple(full)


def _checked(found: Any, width: int, what: str) -> tuple[Any, ...]:
    found = found if isinstance(found, tuple | list) else (found,)
    if len(found) != width:
        raise RuntimeError(
            f"[backward_hook] must return as many as there are in {what}: {width}, came {len(found)}"
        )
    return tuple(found)


def _pass(
    values: Iterable[Any], places: list[int], fire: Callable[[list[Any]], list[Any]]
) -> tuple[Any, ...]:
    out = list(values)
    gate = Gate([out[i] for i in places], fire)
    for k, i in enumerate(places):
        source = out[i]
        t = wrap(source.array)
        t._version, t._view_version = source._version, source._version[0]
        t._base = (
            source if source._base is None else source._base
        )  # shares memory: not to be written in place
        t._node, t._needs = (gate if gate.outputs == 1 else Output(gate, k)), True
        out[i] = t
    return tuple(out)
