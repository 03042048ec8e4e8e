"""Module: the base class of all layers and models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ..autograd import no_grad
from ..autograd.engine import Variable
from ..tensor import Parameter, Tensor, creation
from ..tensor import dtypes as _dtypes
from . import state as _state
from .hooks import Hooked, everywhere, registered
from .hooks import call as _call_with_hooks
from .parameter import Buffer

M = TypeVar("M", bound="Module")


class Module(Hooked):
    """A part of a model: parameters, buffers and submodules are registered by assigning them.

    class Net(Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = Linear(2, 3)

        def forward(self, x):
            return self.linear(x)
    """

    _version = 1
    training: bool = True
    call_super_init = False
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if (args or kwargs) and not self.call_super_init:
            raise TypeError(
                f"[{type(self).__name__}] Module.__init__ must be called without arguments,"
                f" came {args or ''}{kwargs or ''}"
            )
        own = self.__dict__
        own["training"] = True
        own["_parameters"], own["_buffers"], own["_modules"] = {}, {}, {}
        own["_non_persistent_buffers_set"] = set()
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.setdefault("_non_persistent_buffers_set", set())

    # ---- calling

    forward: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hooks = everywhere
        if (
            self._hooks is None
            and not hooks.forward
            and not hooks.forward_pre
            and not hooks.backward
            and not hooks.backward_pre
        ):
            return self.forward(*args, **kwargs)
        return _call_with_hooks(self, args, kwargs)

    def forward(self, *input: Any) -> Any:  # type: ignore[no-redef]
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(
            f'[{type(self).__name__}] is missing the required "forward" function: define it in the class'
        )

    # ---- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        parameters = own.get("_parameters")
        if isinstance(value, Parameter):
            self._require_init(parameters, "parameters")
            self._forget(name, keep="_parameters")
            self.register_parameter(name, value)
        elif parameters is not None and name in parameters:
            if value is not None:
                raise TypeError(_cannot_assign(name, value, "parameter", "a Parameter or None"))
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._require_init(own.get("_modules"), "module")
            self._forget(name, keep="_modules")
            self._modules[name] = registered(everywhere.module_registration, self, name, value)
        elif own.get("_modules") is not None and name in self._modules:
            if value is not None:
                raise TypeError(_cannot_assign(name, value, "child module", "a Module or None"))
            self._modules[name] = None
        elif isinstance(value, Variable) and isinstance(value, Buffer):
            self._require_init(own.get("_buffers"), "buffers")
            self._forget(name, keep="_buffers")
            self.register_buffer(name, value, value.persistent)
        elif own.get("_buffers") is not None and name in self._buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(_cannot_assign(name, value, "buffer", "a Tensor, a Buffer or None"))
            self._buffers[name] = registered(everywhere.buffer_registration, self, name, value)
        else:
            object.__setattr__(self, name, value)

    def _require_init(self, held: Any, what: str) -> None:
        if held is None:
            raise AttributeError(
                f"[{type(self).__name__}] cannot assign {what} before Module.__init__() call:"
                " call super().__init__() first"
            )

    def _forget(self, name: str, keep: str) -> None:
        """A name stands in one place only: what is assigned last."""
        own = self.__dict__
        own.pop(name, None)
        for place in ("_parameters", "_buffers", "_modules"):
            if place != keep:
                own[place].pop(name, None)
        if keep != "_buffers":
            own["_non_persistent_buffers_set"].discard(name)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        if "_parameters" in own:
            held: Any = own["_parameters"]
            if name in held:
                return held[name]
            held = own["_modules"]
            if name in held:
                return held[name]
            held = own["_buffers"]
            if name in held:
                return held[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for place in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(place, ()):
                del self.__dict__[place][name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._buffers, *self._modules}
        return sorted(name for name in names if not name[:1].isdigit())

    # ---- registration

    def _check_name(self, who: str, name: Any, held: dict[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"[{who}] the name must be a string, came {type(name).__name__}")
        if "." in name or name == "":
            raise KeyError(f'[{who}] the name must not be empty or contain ".", came {name!r}')
        if name not in held and hasattr(self, name):
            raise KeyError(f"[{who}] the name must be free, came {name!r}: attribute {name!r} already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter under a name; None holds the place of one that is not there."""
        self._require_init(self.__dict__.get("_parameters"), "parameters")
        self._check_name("register_parameter", name, self._parameters)
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(
                    f"[register_parameter] {name!r} must be a Parameter or None, came {type(param).__name__}"
                )
            if param._node is not None:
                raise ValueError(
                    f"[register_parameter] {name!r} must be a leaf, came the result of {param.grad_fn.name()}:"
                    " keep the original Parameter and compute the other in forward"
                )
        self._parameters[name] = registered(everywhere.parameter_registration, self, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is part of the state but not trained; not `persistent`: left out of state_dict."""
        self._require_init(self.__dict__.get("_buffers"), "buffers")
        self._check_name("register_buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"[register_buffer] {name!r} must be a Tensor or None, came {type(tensor).__name__}"
            )
        self._buffers[name] = registered(everywhere.buffer_registration, self, name, tensor)
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule under a name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"[add_module] {name!r} must be a Module or None, came {type(module).__name__}")
        self._require_init(self.__dict__.get("_modules"), "module")
        self._check_name("add_module", name, self._modules)
        self._modules[name] = registered(everywhere.module_registration, self, name, module)

    add_module = register_module

    # ---- looking inside

    def get_submodule(self, target: str) -> Module:
        """The submodule at a dotted path; the empty path is the module itself."""
        found: Any = self
        for part in target.split(".") if target else ():
            inner = found._modules.get(part, found.__dict__.get(part, _ABSENT))
            if inner is _ABSENT:
                raise AttributeError(
                    f"[get_submodule] {type(found).__name__} has no attribute {part!r} (of {target!r})"
                )
            if not isinstance(inner, Module):
                raise AttributeError(
                    f"[get_submodule] {part!r} (of {target!r}) must be a Module, came {inner!r}"
                )
            found = inner
        return found

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts a module at a dotted path. strict: something must stand there already."""
        if not target:
            raise ValueError("[set_submodule] the path must not be empty")
        parent, _, name = target.rpartition(".")
        holder = self.get_submodule(parent)
        if not isinstance(module, Module):
            raise ValueError(f"[set_submodule] must be given a Module, came {type(module).__name__}")
        if strict and name not in holder._modules:
            raise AttributeError(f"[set_submodule] {type(holder).__name__} has no submodule {name!r}")
        setattr(holder, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        return self._member("get_parameter", "_parameters", target)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path."""
        return self._member("get_buffer", "_buffers", target)

    def _member(self, who: str, place: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        holder = self.get_submodule(path)
        if name not in holder.__dict__[place]:
            raise AttributeError(
                f"[{who}] {type(holder).__name__} has no {place[1:-1]} {name!r} (of {target!r})"
            )
        return holder.__dict__[place][name]

    def _named_members(
        self,
        members: Callable[[Module], Any],
        prefix: str = "",
        recurse: bool = True,
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Any]]:
        seen: set[Any] = set()
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        for path, module in modules:
            for name, value in members(module):
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield (path + "." + name if path else name), value

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once."""
        seen = set()  # without names: this is walked in every training step
        for module in self.modules() if recurse else (self,):
            for p in module._parameters.values():
                if p is not None and id(p) not in seen:
                    seen.add(id(p))
                    yield p

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names, in the order of registration."""
        return self._named_members(lambda m: m._parameters.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        for _, b in self.named_buffers(recurse=recurse):
            yield b

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names, in the order of registration."""
        return self._named_members(lambda m: m._buffers.items(), prefix, recurse, remove_duplicate)

    def children(self) -> Iterator[Module]:
        """The direct submodules, each once."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct submodules with their names."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module (under `prefix`) and all below it with their dotted names."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(
                    memo, prefix + "." + name if prefix else name, remove_duplicate
                )

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Calls `fn` with each submodule and then with this module, as weight initialisation does."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- dtype, device, mode

    def _apply(self: M, fn: Callable[[Any], Any], recurse: bool = True) -> M:
        """Replaces the content of all parameters, their gradients and all buffers by what `fn` makes of them."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        with no_grad():
            for p in self._parameters.values():
                if p is not None:
                    _replace(p, fn(p))
                    if p._grad is not None:
                        _replace(p._grad, fn(p._grad))
            for name, b in self._buffers.items():
                if b is not None:
                    self._buffers[name] = fn(b)
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Another dtype (of floating parameters and buffers) or device: `to(dtype)`, `to(device)`, `to(tensor)`."""
        dtype, device = _destination(*args, **kwargs)

        def convert(t: Any) -> Any:
            return t.to(device=device, dtype=dtype if _is_floating(t) else None)

        return self._apply(convert)

    def to_empty(self: M, *, device: Any, recurse: bool = True) -> M:
        """Moves to a device without copying content, which is undefined afterwards."""
        return self._apply(lambda t: creation.empty_like(t, device=device), recurse)

    def type(self: M, dst_type: Any) -> M:
        """All parameters and buffers, of whatever dtype, cast to `dst_type`."""
        return self._apply(lambda t: t.type(dst_type))

    def float(self: M) -> M:
        """Floating parameters and buffers as float32."""
        return self.to(_dtypes.float32)

    def double(self: M) -> M:
        """Floating parameters and buffers as float64."""
        return self.to(_dtypes.float64)

    def half(self: M) -> M:
        """Floating parameters and buffers as float16."""
        return self.to(_dtypes.float16)

    def bfloat16(self: M) -> M:
        """Floating parameters and buffers as bfloat16."""
        return self.to(_dtypes.bfloat16)

    def cpu(self: M) -> M:
        """Everything on the CPU."""
        return self._apply(lambda t: t.cpu())

    def cuda(self: M, device: Any = None) -> M:
        """Everything on a GPU; an error where there is none."""
        return self._apply(lambda t: t.cuda(device))

    def share_memory(self: M) -> M:
        """Moves all content to memory that child processes share."""
        return self._apply(lambda t: t.share_memory_())

    def train(self: M, mode: bool = True) -> M:
        """Training mode for this module and all below: dropout drops, batch norm uses the batch."""
        if not isinstance(mode, bool):
            raise ValueError(f"[train] training mode is expected to be boolean, came {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: M) -> M:
        """Evaluation mode, the opposite of `train()`."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Whether autograd computes gradients of the parameters."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients, or sets them to zero in place."""
        for p in self.parameters():
            if p._grad is None:
                continue
            if set_to_none:
                p._grad = None
            else:
                p._grad = p._grad.detach()
                p._grad.zero_()

    # ---- state

    state_dict = _state.state_dict
    load_state_dict = _state.load_state_dict
    _save_to_state_dict = _state.save_to_state_dict
    _load_from_state_dict = _state.load_from_state_dict

    def get_extra_state(self) -> Any:
        """What state_dict holds besides parameters and buffers; a subclass with such state defines it."""
        raise RuntimeError(f"[get_extra_state] {type(self).__name__} has no extra state: define both methods")

    def set_extra_state(self, state: Any) -> None:
        """Takes back what `get_extra_state` gave."""
        raise RuntimeError(f"[set_extra_state] {type(self).__name__} has no extra state: define both methods")

    # ---- text

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the brackets of the representation besides the submodules."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr().split("\n") if self.extra_repr() else []
        children = [f"({name}): {indented(repr(module))}" for name, module in self._modules.items()]
        if len(extra) == 1 and not children:
            return f"{self._get_name()}({extra[0]})"
        return bracketed(self._get_name(), [*extra, *children])


def bracketed(name: str, lines: list[str]) -> str:
    """`name(` and the lines below, indented."""
    return f"{name}(\n  " + "\n  ".join(lines) + "\n)" if lines else f"{name}()"


def indented(text: str) -> str:
    return text.replace("\n", "\n  ")


_ABSENT = object()


def _cannot_assign(name: str, value: Any, kind: str, wanted: str) -> str:
    return f"[setattr] cannot assign {type(value).__name__!r} as {kind} {name!r} ({wanted} expected)"


def _replace(t: Any, new: Any) -> None:
    if new is not t:
        t.data = new


def _is_floating(t: Any) -> bool:
    return _dtypes.category(t.array.dtype) > 1


def _destination(*args: Any, dtype: Any = None, device: Any = None, **_: Any) -> tuple[Any, Any]:
    """dtype and device among the arguments of `to`, which may come in any order."""
    for a in args:
        if isinstance(a, Variable):
            dtype, device = a.dtype, a.device
        elif isinstance(a, _dtypes.dtype):
            dtype = a
        elif a is not None and not isinstance(a, bool):
            device = a
    if dtype is not None and _dtypes.category(_dtypes.to_numpy(dtype)) < 2:
        raise TypeError(f"[to] the dtype of a module must be floating or complex, came {dtype}")
    return dtype, device
