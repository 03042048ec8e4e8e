"""Weights computed from others before each forward: weight norm and spectral norm, as hooks."""

from __future__ import annotations

from typing import Any

from ...autograd import no_grad
from ...tensor import functions
from .. import functional as F
from ..module import Module
from ..parameter import Parameter


def norm_except_dim(v: Any, dim: int | None) -> Any:
    """The 2-norm over all dimensions but one (all of them if None), kept for broadcasting."""
    if dim is None:
        return functions.norm(v)
    others = tuple(d for d in range(v.ndim) if d != dim % v.ndim)
    return functions.norm(v, 2, others, keepdim=True) if others else abs(v)


class WeightNorm:
    """The forward pre-hook of `weight_norm`."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name, self.dim = name, dim

    def compute_weight(self, module: Any) -> Any:
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        return v * (g / norm_except_dim(v, self.dim))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Lets a weight be g * v / |v| with parameters `<name>_g` and `<name>_v` (Salimans and Kingma 2016).

    dim: the dimension each of whose slices has a length of its own; None: one length.
    """
    if _find(module, WeightNorm, name) is not None:
        raise RuntimeError(
            f"[weight_norm] cannot register two weight_norm hooks on the same parameter {name}"
        )
    weight = getattr(module, name)
    del module._parameters[name]
    module.register_parameter(name + "_g", Parameter(norm_except_dim(weight, dim).detach()))
    module.register_parameter(name + "_v", Parameter(weight.detach()))
    hook = WeightNorm(name, dim)
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Makes the weight a parameter again, with its present value."""
    hook = _take(module, WeightNorm, name, "remove_weight_norm")
    with no_grad():
        weight = hook.compute_weight(module)
    delattr(module, name)
    del module._parameters[name + "_g"], module._parameters[name + "_v"]
    setattr(module, name, Parameter(weight))
    return module


class SpectralNorm:
    """The forward pre-hook of `spectral_norm`."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(
                f"[spectral_norm] n_power_iterations must be positive, came {n_power_iterations}"
            )
        self.name, self.n_power_iterations, self.dim, self.eps = name, n_power_iterations, dim, eps

    def as_matrix(self, weight: Any) -> Any:
        if self.dim != 0:
            weight = weight.permute(self.dim, *[d for d in range(weight.ndim) if d != self.dim])
        return weight.reshape(weight.shape[0], -1)

    def compute_weight(self, module: Any, iterate: bool) -> Any:
        weight = getattr(module, self.name + "_orig")
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        matrix = self.as_matrix(weight)
        if iterate:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(functions.mv(matrix.t(), u), dim=0, eps=self.eps))
                    u.copy_(F.normalize(functions.mv(matrix, v), dim=0, eps=self.eps))
                u, v = u.clone(), v.clone()  # the next iteration must not write what backward needs
        return weight / functions.dot(u, functions.mv(matrix, v))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, module.training))


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Any:
    """Divides a weight by its largest singular value, which power iteration follows (Miyato et al. 2018).

    The parameter becomes `<name>_orig`, the singular vectors are buffers `<name>_u` and `<name>_v`.
    """
    if _find(module, SpectralNorm, name) is not None:
        raise RuntimeError(
            f"[spectral_norm] cannot register two spectral_norm hooks on the same parameter {name}"
        )
    if dim is None:
        dim = 1 if getattr(module, "transposed", False) else 0
    hook = SpectralNorm(name, n_power_iterations, dim, eps)
    weight = module._parameters[name]
    if weight is None:
        raise ValueError(f"[spectral_norm] the parameter {name!r} must not be None")
    with no_grad():
        rows, columns = hook.as_matrix(weight).array.shape
        u = F.normalize(weight.new_empty(rows).normal_(0, 1), dim=0, eps=eps)
        v = F.normalize(weight.new_empty(columns).normal_(0, 1), dim=0, eps=eps)
    del module._parameters[name]
    module.register_parameter(name + "_orig", weight)
    setattr(module, name, weight.data)
    module.register_buffer(name + "_u", u)
    module.register_buffer(name + "_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Makes the weight a parameter again, with its present value."""
    hook = _take(module, SpectralNorm, name, "remove_spectral_norm")
    with no_grad():
        weight = hook.compute_weight(module, iterate=False)
    delattr(module, name)
    for part in ("_u", "_v", "_orig"):
        delattr(module, name + part)
    module.register_parameter(name, Parameter(weight.detach()))
    return module


def _find(module: Any, kind: type, name: str) -> int | None:
    """The token of the hook of a kind for a parameter."""
    for token, (hook, _) in (module._hooks.forward_pre if module._hooks else {}).items():
        if isinstance(hook, kind) and hook.name == name:  # type: ignore[attr-defined]
            return token
    return None


def _take(module: Any, kind: type, name: str, who: str) -> Any:
    token = _find(module, kind, name)
    if token is None:
        raise ValueError(f"[{who}] there must be such a norm on {name!r}, came {module}")
    return module._hooks.forward_pre.pop(token)[0]
