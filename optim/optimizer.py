"""Optimizer: parameter groups, state, hooks and PyTorch's state_dict, without any rule of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import numpy as np

from ..autograd import enable_grad
from ..autograd.engine import ArrayFunction, Variable, wrap
from ..autograd.mode import mode
from ..tensor.dtypes import F32, F64, default_float
from ..tensor.tensor import Handle

Params = Iterable[Any]
Hooks = dict[int, Callable[..., Any]]

_global_pre_hooks: Hooks = {}
_global_post_hooks: Hooks = {}


def _filled_with_zeros(array: Any) -> None:
    array.fill(0)


_clear = ArrayFunction(_filled_with_zeros, writes=(0,))


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def number(value: Any) -> Any:
    """A hyper-parameter as a Python number; scripts may hold it in a tensor of one element."""
    if not isinstance(value, Variable):
        return value
    if value.array.size != 1:
        raise ValueError(
            f"[optim] a hyper-parameter must be one number, came a tensor of {list(value.array.shape)}"
        )
    return value.item()


def not_negative(who: str, **values: Any) -> None:
    for name, value in values.items():
        if not number(value) >= 0.0:  # so that NaN is refused too
            raise ValueError(f"[{who}] {name} must be at least 0, came {number(value)}")


def below_one(who: str, name: str, values: Any) -> None:
    for i, value in enumerate(values):
        if not 0.0 <= number(value) < 1.0:
            raise ValueError(f"[{who}] {name}[{i}] must be at least 0 and below 1, came {number(value)}")


def scalar(value: float) -> Any:
    """A number that belongs to a parameter's state (its step count): a 0-d tensor, as PyTorch keeps it."""
    return wrap(np.array(value, F64 if default_float() == F64 else F32))


def _hooked(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the hooks around a class's `step`, and notes for schedulers that it was called."""

    @wraps(fn)
    def step(self: Optimizer, *args: Any, **kw: Any) -> Any:
        if type(self).step is not step:  # called by the step of a subclass, which runs the hooks
            return fn(self, *args, **kw)
        self._opt_called = True
        for hook in (*_global_pre_hooks.values(), *self._optimizer_step_pre_hooks.values()):
            result = hook(self, args, kw)
            if result is not None:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise RuntimeError(
                        f"[step] a pre-hook must return None or (args, kwargs), came {result!r}"
                    )
                args, kw = result
        out = fn(self, *args, **kw)
        for hook in (*self._optimizer_step_post_hooks.values(), *_global_post_hooks.values()):
            hook(self, args, kw)
        return out

    step.hooked = True  # type: ignore[attr-defined]
    return step


class Optimizer:
    """Base of all optimizers.

    params: tensors, (name, tensor) pairs, or dicts {"params": ..., option: value} that each make a group.
    defaults: options of the groups that do not name them.

    A subclass writes `step`, which reads `self.param_groups` and keeps what it needs in `self.state[p]`.
    """

    _opt_called = False

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if "step" in cls.__dict__:
            cls.step = _hooked(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Variable):
            raise TypeError(
                "[optim] params must be an iterable of tensors or dicts, came one tensor: put it in a list"
            )
        self.defaults = defaults
        self.state: defaultdict[Any, Any] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._make_hooks()
        groups = list(params)
        if not groups:
            raise ValueError("[optim] at least one parameter is needed, came an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def _make_hooks(self) -> None:
        self._optimizer_step_pre_hooks: Hooks = {}
        self._optimizer_step_post_hooks: Hooks = {}
        self._optimizer_state_dict_pre_hooks: Hooks = {}
        self._optimizer_state_dict_post_hooks: Hooks = {}
        self._optimizer_load_state_dict_pre_hooks: Hooks = {}
        self._optimizer_load_state_dict_post_hooks: Hooks = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_optimizer_step_pre_hooks" not in self.__dict__:
            self._make_hooks()
        for group in self.param_groups:  # a state written by an older version lacks the newer options
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join(lines) + "\n)"

    # ---- groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a dict {"params": tensors, option: value}; options left out are the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"[add_param_group] must be a dict, came {type(param_group).__name__}")
        given = param_group["params"]
        if isinstance(given, set):
            raise TypeError("[add_param_group] params must be ordered, came a set: use a list")
        entries = [given] if isinstance(given, Variable) else list(given)
        named = [entry for entry in entries if isinstance(entry, tuple)]
        if named and len(named) != len(entries):
            raise ValueError(
                "[add_param_group] all parameters or none must have names, came"
                f" {len(named)} of {len(entries)} with one"
            )
        if named:
            param_group["param_names"] = [name for name, _ in named]
            entries = [p for _, p in named]
        param_group["params"] = entries
        for name, value in self.defaults.items():
            if value is required and name not in param_group:
                raise ValueError(
                    f"[add_param_group] the group must name the option {name!r}, came without it"
                )
            param_group.setdefault(name, value)
        self._check_params(param_group)
        self.param_groups.append(param_group)

    def _check_params(self, param_group: dict[str, Any]) -> None:
        params = param_group["params"]
        for p in params:
            if not isinstance(p, Variable):
                raise TypeError(f"[optim] can only optimize tensors, came {type(p).__name__}")
            if not (p.is_leaf or p.retains_grad):
                raise ValueError(
                    "[optim] can't optimize a non-leaf tensor, came the result of"
                    f" {p.grad_fn.name()}: optimize the tensor it was made of, or a detach() of it"
                )
        if len(set(params)) != len(params):
            import warnings

            warnings.warn(
                f"[optim] a parameter group must not hold a parameter twice, came {len(params)} parameters of which"
                f" {len(set(params))} are different; each is updated once",
                stacklevel=4,
            )
        for i, group in enumerate(self.param_groups):
            if not set(params).isdisjoint(group["params"]):
                raise ValueError(
                    f"[optim] some parameters appear in more than one parameter group, also in group {i}"
                )
            if ("param_names" in group) != ("param_names" in param_group):
                raise ValueError(
                    "[add_param_group] all groups or none must have names of parameters, came both kinds"
                )

    # ---- one step

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, or fills them with zeros, so that they can be accumulated anew."""
        for group in self.param_groups:
            for p in group["params"]:
                grad = p._grad
                if grad is None:
                    continue
                if set_to_none:
                    p._grad = None
                    continue
                if grad._needs:  # of a backward with create_graph
                    grad = p._grad = grad.detach()
                _clear(grad.array)
                grad._version[0] += 1

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters from their gradients; returns what `closure`, called first if given, returns."""
        raise NotImplementedError(f"[{type(self).__name__}] an optimizer must define step()")

    @staticmethod
    def evaluate(closure: Callable[[], Any] | None) -> Any:
        """The closure's loss, computed with gradients on even under no_grad."""
        if closure is None:
            return None
        if mode.grad:
            return closure()
        with enable_grad():
            return closure()

    # ---- hooks

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Calls `hook(optimizer, args, kwargs)` before each step; it may return new (args, kwargs)."""
        return Handle(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Calls `hook(optimizer, args, kwargs)` after each step."""
        return Handle(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Calls `hook(optimizer)` before state_dict()."""
        return _register(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Calls `hook(optimizer, state_dict)` after state_dict(); it may return another one."""
        return _register(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Calls `hook(optimizer, state_dict)` before load_state_dict(); it may return another one."""
        return _register(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Calls `hook(optimizer)` after load_state_dict()."""
        return _register(self._optimizer_load_state_dict_post_hooks, hook, prepend)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number: {name: tensor}}, "param_groups": [...]}, where parameters are numbered in order.

        The tensors are the optimizer's own, not copies; the layout is PyTorch's.
        """
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        ids: dict[Any, int] = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            packed["params"] = [ids.setdefault(p, len(ids)) for p in group["params"]]
            groups.append(packed)
        state = {ids[k] if isinstance(k, Variable) else k: v for k, v in self.state.items()}
        found: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            found = hook(self, found) or found
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a state_dict() of an optimizer with as many parameters in as many groups.

        Floating state is cast to the dtype of its parameter, but for step counts.
        """
        from copy import deepcopy

        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        groups, saved = self.param_groups, deepcopy(state_dict["param_groups"])
        have, came = [len(g["params"]) for g in groups], [len(g["params"]) for g in saved]
        if have != came:
            raise ValueError(
                f"[load_state_dict] the parameter groups must have {have} parameters, came groups with {came}"
            )
        of_id = {i: p for g, s in zip(groups, saved) for i, p in zip(s["params"], g["params"])}
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in of_id:
                state[of_id[key]] = _cast(of_id[key], value)
            else:
                state[key] = value
        for group, new in zip(groups, saved):
            new["params"] = group["params"]
            if "param_names" in group:
                new.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": state, "param_groups": saved})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)


def _register(hooks: Hooks, hook: Callable[..., Any], prepend: bool) -> Handle:
    before = dict(hooks) if prepend else {}
    if prepend:
        hooks.clear()
    handle = Handle(hooks, hook)
    hooks.update(before)
    return handle


def _cast(param: Any, value: Any, key: Any = None) -> Any:
    """Loaded state in the parameter's dtype; containers are walked."""
    if isinstance(value, Variable):
        if key == "step" or not param.is_floating_point():
            return value
        return value.to(param.dtype)
    if isinstance(value, dict):
        return {k: _cast(param, v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cast(param, v) for v in value)
    return value


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> Handle:
    """Calls `hook(optimizer, args, kwargs)` before each step of every optimizer."""
    return Handle(_global_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> Handle:
    """Calls `hook(optimizer, args, kwargs)` after each step of every optimizer."""
    return Handle(_global_post_hooks, hook)
