"""Parameters computed from others whenever they are read."""

from __future__ import annotations

from typing import Any

from ...autograd import no_grad
from ...autograd.engine import Variable
from ..containers import ModuleDict, ModuleList
from ..module import Module
from ..parameter import Parameter


class _Cache:
    """While entered, each parametrized tensor is computed once: {(id of module, name): tensor}."""

    depth = 0
    held: dict[tuple[int, str], Any] = {}


class cached:
    """Within this context a parametrized tensor is computed at its first use only."""

    def __enter__(self) -> None:
        _Cache.depth += 1

    def __exit__(self, *_: Any) -> None:
        _Cache.depth -= 1
        if not _Cache.depth:
            _Cache.held = {}


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, in order, and what they start from: `original`, or `original0`, ..."""

    def __init__(self, modules: list[Module], original: Any, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        value = original
        with no_grad():
            for module in reversed(modules):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
        self.is_tensor = isinstance(value, Variable)
        self.ntensors = 1 if self.is_tensor else len(value)
        if self.is_tensor:
            if isinstance(original, Parameter):
                self.original = _keep(original, value)
            else:
                self.register_buffer("original", value)
        else:
            for i, part in enumerate(value):
                if isinstance(original, Parameter):
                    setattr(self, f"original{i}", Parameter(part.detach(), original.requires_grad))
                else:
                    self.register_buffer(f"original{i}", part)

    def _originals(self) -> list[Any]:
        return (
            [self.original]
            if self.is_tensor
            else [getattr(self, f"original{i}") for i in range(self.ntensors)]
        )

    def right_inverse(self, value: Any) -> None:
        """Sets the originals so that the parametrized tensor becomes `value`."""
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"[parametrize] {type(module).__name__} must define right_inverse to be assigned to"
                    )
                value = module.right_inverse(value)
            for original, part in zip(self._originals(), [value] if self.is_tensor else value):
                if original.shape != part.shape:
                    raise RuntimeError(
                        f"[parametrize] right_inverse must give shape {list(original.shape)}, came {list(part.shape)}"
                    )
                original.data = part.detach().clone() if part is original else part.detach()

    def forward(self) -> Any:
        first, *others = list(self)
        x = first(*self._originals())
        for module in others:
            x = module(x)
        return x


def _keep(original: Parameter, value: Any) -> Parameter:
    """The same Parameter (an optimizer may hold it) with another content."""
    if value is not original:
        original.data = value.detach()
    return original


def register_parametrization(
    module: Any, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Any:
    """Lets `module.<tensor_name>` be computed by `parametrization` from what stood there before.

    The original is at `module.parametrizations.<tensor_name>.original`. unsafe: shape and dtype may change.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        held = module.parametrizations[tensor_name]
        if hasattr(parametrization, "right_inverse"):
            with no_grad():
                value = parametrization.right_inverse(held.original)
                held.original.data = value.detach()
        held.append(parametrization)
    else:
        if tensor_name not in module._parameters and tensor_name not in module._buffers:
            raise ValueError(
                f"[register_parametrization] Module '{module}' does not have a parameter, a buffer, or a"
                f" parametrized element with name '{tensor_name}'"
            )
        original = getattr(module, tensor_name)
        before = original.array.shape, original.array.dtype
        held = ParametrizationList([parametrization], original, unsafe)
        if not unsafe:
            _check(held, tensor_name, before)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _become_parametrized(module)
        module.parametrizations[tensor_name] = held
        _add_property(type(module), tensor_name)
    return module


def _check(held: ParametrizationList, name: str, before: Any) -> None:
    with no_grad():
        y = held()
    if not isinstance(y, Variable) or (y.array.shape, y.array.dtype) != before:
        came = f"{y.array.dtype.name}{list(y.array.shape)}" if isinstance(y, Variable) else type(y).__name__
        raise ValueError(
            f"[register_parametrization] {name!r} must keep its shape and dtype {before[1].name}{list(before[0])},"
            f" came {came}: pass unsafe=True if that is wanted"
        )


def _become_parametrized(module: Any) -> None:
    """Gives the instance a class of its own, for the properties."""
    cls = type(module)
    module.__class__ = type("Parametrized" + cls.__name__, (cls,), {"__module__": cls.__module__})
    module.parametrizations = ModuleDict()


def _add_property(cls: type, name: str) -> None:
    def get(self: Any) -> Any:
        held = self._modules["parametrizations"][name]
        if not _Cache.depth:
            return held()
        key = (id(self), name)
        if key not in _Cache.held:
            _Cache.held[key] = held()
        return _Cache.held[key]

    def put(self: Any, value: Any) -> None:
        self._modules["parametrizations"][name].right_inverse(value)

    setattr(cls, name, property(get, put))


def is_parametrized(module: Any, tensor_name: str | None = None) -> bool:
    """Whether a module, or one tensor of it, is parametrized."""
    held = module._modules.get("parametrizations")
    if not isinstance(held, ModuleDict) or not len(held):
        return (
            isinstance(held, ModuleDict)
            and tensor_name is None
            and type(module).__name__.startswith("Parametrized")
        )
    return True if tensor_name is None else tensor_name in held


def type_before_parametrizations(module: Any) -> type:
    """The class that the module had."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def remove_parametrizations(module: Any, tensor_name: str, leave_parametrized: bool = True) -> Any:
    """Makes the tensor an ordinary one again: with its computed value, or with the original."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(
            f"[remove_parametrizations] {type(module).__name__} does not have a parametrization on {tensor_name}"
        )
    held = module.parametrizations[tensor_name]
    originals = held._originals()
    if not leave_parametrized and not held.is_tensor:
        raise ValueError(
            "[remove_parametrizations] leave_parametrized=False needs one original, came several"
        )
    original = originals[0]
    if leave_parametrized:
        with no_grad():
            value = held()
        trained = isinstance(original, Parameter)
        original = (
            _keep(original, value) if held.is_tensor and trained else Parameter(value) if trained else value
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if isinstance(original, Parameter):
        module.register_parameter(tensor_name, original)
    else:
        module.register_buffer(tensor_name, original)
    if not len(module.parametrizations):
        before = type(module).__bases__[0]
        delattr(module, "parametrizations")
        module.__class__ = before
    return module
