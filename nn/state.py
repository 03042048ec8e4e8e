"""state_dict and load_state_dict: the content of modules under dotted names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..autograd import no_grad
from ..autograd.engine import Variable
from ..tensor import Parameter
from .parameter import is_lazy

EXTRA_STATE = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What did not match: names the module has and the state lacks, and the other way round."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def state_dict(
    self: Any, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
) -> Any:
    """All parameters and persistent buffers by dotted name, sharing memory with the module.

    destination: a mapping to write into; prefix: put before each name; keep_vars: the Parameters themselves
    instead of detached tensors. The result carries the modules' versions in `_metadata`.
    """
    for name, value in zip(("destination", "prefix", "keep_vars"), args):  # the older positional form
        if name == "destination":
            destination = value
        elif name == "prefix":
            prefix = value
        else:
            keep_vars = value
    if destination is None:
        destination = OrderedDict()
        destination._metadata = OrderedDict()
    metadata = {"version": self._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = metadata
    hooks = self._hooks
    if hooks is not None:
        for hook in list(hooks.state_dict_pre.values()):
            hook(self, prefix, keep_vars)
    self._save_to_state_dict(destination, prefix, keep_vars)
    for name, module in self._modules.items():
        if module is not None:
            module.state_dict(destination=destination, prefix=prefix + name + ".", keep_vars=keep_vars)
    if hooks is not None:
        for hook in list(hooks.state_dict.values()):
            found = hook(self, destination, prefix, metadata)
            destination = destination if found is None else found
    return destination


def save_to_state_dict(self: Any, destination: Any, prefix: str, keep_vars: bool) -> None:
    """Writes what this module itself holds, without its children, into `destination`."""
    for name, value in _own_state(self).items():
        destination[prefix + name] = value if keep_vars else value.detach() if not is_lazy(value) else value
    if _has_extra_state(self, "get_extra_state"):
        destination[prefix + EXTRA_STATE] = self.get_extra_state()


def _own_state(module: Any) -> dict[str, Any]:
    state = {name: p for name, p in module._parameters.items() if p is not None}
    left_out = module._non_persistent_buffers_set
    state.update((name, b) for name, b in module._buffers.items() if b is not None and name not in left_out)
    return state


def _has_extra_state(module: Any, method: str) -> bool:
    from .module import Module

    return getattr(type(module), method) is not getattr(Module, method)


def load_state_dict(
    self: Any, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
) -> IncompatibleKeys:
    """Copies values into the parameters and buffers of the same names.

    strict: a missing or unexpected name is an error; otherwise both are returned. assign: puts the given
    tensors in place of the module's own instead of copying their values.
    Raises RuntimeError listing all names and shapes that do not match.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"[load_state_dict] state_dict must be a mapping, came {type(state_dict).__name__}")
    metadata = getattr(state_dict, "_metadata", None)
    state = OrderedDict(state_dict)
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    with no_grad():
        _load(self, state, "", metadata, assign, missing, unexpected, errors)
    result = IncompatibleKeys(missing, unexpected)
    _after_load(self, result)
    if strict:
        listed = [("Missing key(s)", missing), ("Unexpected key(s)", unexpected)]
        problems = [f"{what} in state_dict: {_quoted(names)}. " for what, names in listed if names]
        errors = problems + errors
    if errors:
        text = "".join("\n\t" + error for error in errors)
        raise RuntimeError(
            f"[load_state_dict] Error(s) in loading state_dict for {type(self).__name__}:{text}"
        )
    return result


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _load(
    module: Any,
    state: Any,
    prefix: str,
    metadata: Any,
    assign: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    local = {} if metadata is None else metadata.get(prefix[:-1], {})
    if assign:
        local = {**local, "assign_to_params_buffers": True}
    module._load_from_state_dict(state, prefix, local, True, missing, unexpected, errors)
    if not module._modules:
        return
    parts: dict[str, Any] = {}
    for key, value in state.items():
        parts.setdefault(key[len(prefix) :].partition(".")[0], OrderedDict())[key] = value
    for name, child in module._modules.items():
        if child is not None:
            part = parts.get(name, OrderedDict())
            _load(child, part, prefix + name + ".", metadata, assign, missing, unexpected, errors)


def _after_load(module: Any, result: IncompatibleKeys) -> None:
    for child in module._modules.values():
        if child is not None:
            _after_load(child, result)
    if module._hooks is not None:
        for hook in list(module._hooks.load_state_dict_post.values()):
            if hook(module, result) is not None:
                raise RuntimeError(
                    "[load_state_dict_post_hook] must change the lists in place and return None, came a value"
                )


def load_from_state_dict(
    self: Any,
    state_dict: Any,
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Loads what this module itself holds, without its children; appends what does not match to the lists."""
    if self._hooks is not None:
        for hook in list(self._hooks.load_state_dict_pre.values()):
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
    own = _own_state(self)
    for name, value in own.items():
        key = prefix + name
        if key not in state_dict:
            missing_keys.append(key)
            continue
        problem = _take(self, name, value, state_dict[key], key, local_metadata)
        if problem:
            error_msgs.append(problem)
    extra = prefix + EXTRA_STATE
    if _has_extra_state(self, "set_extra_state"):
        if extra in state_dict:
            self.set_extra_state(state_dict[extra])
        else:
            missing_keys.append(extra)
    elif extra in state_dict:
        unexpected_keys.append(extra)
    for key in state_dict:
        if key.startswith(prefix) and key != extra:
            name, dot, _ = key[len(prefix) :].partition(".")
            if name not in (self._modules if dot else own):
                unexpected_keys.append(key)


def _take(module: Any, name: str, own: Any, given: Any, key: str, local: dict[str, Any]) -> str:
    """Puts one value in place; says what is wrong with it, if anything."""
    if not issubclass(type(given), Variable):
        return f'While copying the parameter named "{key}", expected a Tensor but received {type(given).__name__}'
    if not is_lazy(own):
        if own.ndim == 0 and given.ndim == 1 and len(given.array) == 1:
            given = given[0]  # scalars were saved as one element before PyTorch 0.4
        if own.shape != given.shape:
            return (
                f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint,"
                f" the shape in current model is {own.shape}."
            )
    elif not is_lazy(given):
        own.materialize(given.array.shape)
    if local.get("assign_to_params_buffers", False):
        if isinstance(own, Parameter):
            keeps = isinstance(given, Parameter)
            given = given.requires_grad_(own.requires_grad) if keeps else Parameter(given, own.requires_grad)
        setattr(module, name, given)
    elif not is_lazy(own):
        own.copy_(given)
    return ""
