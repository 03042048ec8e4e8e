"""Pruning: a parameter becomes `name_orig` times the buffer `name_mask`, computed anew before every forward.

Methods stack: each works on what the ones before it left (Han et al. 2015; the interface is PyTorch's).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from numbers import Real
from typing import Any

from ...tensor import Tensor, random
from ...tensor.creation import ones_like, zeros_like
from ..module import Module
from .vectors import parameters_to_vector


class BasePruningMethod(ABC):
    """A pruning method; a subclass writes `compute_mask` and says which entries it chooses from.

    PRUNING_TYPE: "unstructured" (the entries that are left), "structured" (the channels along `dim` that are left) or
    "global" (all entries).
    """

    PRUNING_TYPE = "unstructured"
    _tensor_name: str

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The new mask of a tensor, in which what `default_mask` has cut stays cut."""

    def apply_mask(self, module: Module) -> Any:
        """The pruned tensor."""
        name = self._tensor_name
        mask, orig = getattr(module, name + "_mask"), getattr(module, name + "_orig")
        return mask.to(orig.dtype) * orig

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Any = None, **kwargs: Any
    ) -> BasePruningMethod:
        """Prunes the parameter `name` now and before every forward; `importance_scores` stand in for its values."""
        method: BasePruningMethod = cls(*args, **kwargs)
        method._tensor_name = name
        old = _hook_of(module, name)
        if old is None:
            orig = default = getattr(module, name)
            mask = ones_like(default)
        else:
            container = old if isinstance(old, PruningContainer) else PruningContainer(old)
            container.add_pruning_method(method)
            method, default = container, getattr(module, name)
            mask = getattr(module, name + "_mask").detach().clone()
        scores = default if importance_scores is None else importance_scores
        if scores.shape != default.shape:
            raise AssertionError(
                f"[prune] importance_scores must have the shape {list(default.shape)} of {name!r}, came"
                f" {list(scores.shape)}"
            )
        mask = method.compute_mask(scores.detach(), default_mask=mask)
        if old is None:
            del module._parameters[name]
            module.register_parameter(name + "_orig", orig)
        else:
            _remove_hook(module, old)
        module.register_buffer(name + "_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: Any, default_mask: Any = None, importance_scores: Any = None) -> Any:
        """A pruned copy of a tensor."""
        scores = t if importance_scores is None else importance_scores
        return t * self.compute_mask(scores, ones_like(t) if default_mask is None else default_mask)

    def remove(self, module: Module) -> None:
        """Makes the parameter an ordinary one again, with the zeros in it."""
        name = self._tensor_name
        pruned = self.apply_mask(module)
        if name in module.__dict__:
            delattr(module, name)
        orig: Any = module._parameters[name + "_orig"]
        orig.data = pruned.data
        del module._parameters[name + "_orig"], module._buffers[name + "_mask"]
        setattr(module, name, orig)


def _hook_of(module: Module, name: str) -> BasePruningMethod | None:
    found = [
        hook
        for hook, _ in (module._hooks.forward_pre.values() if module._hooks else ())
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name
    ]
    return found[0] if found else None


def _remove_hook(module: Module, method: BasePruningMethod) -> None:
    assert module._hooks is not None
    hooks = module._hooks.forward_pre
    for key in [key for key, (hook, _) in hooks.items() if hook is method]:
        del hooks[key]


class PruningContainer(BasePruningMethod):
    """Several methods on one tensor, in the order in which they came."""

    def __init__(self, *args: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        if args:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Adds a method for the same tensor."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"[prune] a method must be a BasePruningMethod, came {type(method).__name__}")
        if self._tensor_name != method._tensor_name:
            raise ValueError(
                f"[prune] all methods of a container must prune {self._tensor_name!r}, came {method._tensor_name!r}"
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, index: Any) -> Any:
        return self._pruning_methods[index]

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        method = self._pruning_methods[-1]
        mask = default_mask.to(t.dtype).clone()
        where: Any
        if method.PRUNING_TYPE == "unstructured":
            where = mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = _dim(t, method.dim)  # type: ignore[attr-defined]
            kept = mask.sum(dim=[d for d in range(t.ndim) if d != dim]) != 0
            where = (slice(None),) * dim + (kept,)
        elif method.PRUNING_TYPE == "global":
            where = (slice(None),) * t.ndim
        else:
            raise ValueError(f"[prune] unknown PRUNING_TYPE {method.PRUNING_TYPE!r}")
        mask[where] = method.compute_mask(t[where], default_mask=mask[where]).to(mask.dtype)
        return mask


def _dim(t: Any, dim: int) -> int:
    if not -t.ndim <= dim < t.ndim:
        raise IndexError(f"[prune] dim must be one of the {t.ndim} dimensions, came {dim}")
    return dim % t.ndim


def _amount(amount: Any) -> Any:
    if not isinstance(amount, Real):
        raise TypeError(f"[prune] amount must be a number, came {amount!r}")
    if (isinstance(amount, int) and amount < 0) or (
        not isinstance(amount, int) and not 0 <= float(amount) <= 1
    ):
        raise ValueError(
            f"[prune] amount must be a fraction in [0, 1] or a count of at least 0, came {amount}"
        )
    return amount


def _count(amount: Any, size: int) -> int:
    count = amount if isinstance(amount, int) else round(amount * size)
    if count > size:
        raise ValueError(f"[prune] amount={amount} must be at most the number of entries to prune, {size}")
    return count


class Identity(BasePruningMethod):
    """Prunes nothing: the mask is all ones."""

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        return default_mask


class _Unstructured(BasePruningMethod):
    """Cuts the entries with the lowest score."""

    def __init__(self, amount: Any) -> None:
        self.amount = _amount(amount)

    def score(self, t: Any) -> Any:
        raise NotImplementedError

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        count = _count(self.amount, t.numel())
        mask = default_mask.clone()
        if count:
            mask.view(-1)[self.score(t).reshape(-1).topk(count, largest=False).indices] = 0
        return mask


class RandomUnstructured(_Unstructured):
    """Cuts entries at random. amount: a fraction or a count."""

    def score(self, t: Any) -> Any:
        return -random.rand_like(t)  # PyTorch takes the largest


class L1Unstructured(_Unstructured):
    """Cuts the entries of least absolute value. amount: a fraction or a count."""

    def score(self, t: Any) -> Any:
        return t.abs()


class _Structured(BasePruningMethod):
    """Cuts whole channels along `dim`."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Any, dim: int = -1) -> None:
        self.amount, self.dim = _amount(amount), dim

    def kept(self, t: Any, count: int) -> Any:
        """Which channels stay, as booleans."""
        raise NotImplementedError

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        if t.ndim < 2:
            raise ValueError(
                f"[prune] structured pruning takes tensors of 2 dimensions and more, came {t.ndim}"
            )
        dim = _dim(t, self.dim)
        count = _count(self.amount, t.shape[dim])
        if not count:
            return default_mask
        shape = [1] * t.ndim
        shape[dim] = -1
        return default_mask * self.kept(t, count).to(default_mask.dtype).reshape(shape)


class RandomStructured(_Structured):
    """Cuts channels at random. amount: a fraction or a count of channels."""

    def kept(self, t: Any, count: int) -> Any:
        drawn = random.rand(t.shape[self.dim])
        return drawn > drawn.kthvalue(count).values


class LnStructured(_Structured):
    """Cuts the channels of the least norm. n: which norm."""

    def __init__(self, amount: Any, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def kept(self, t: Any, count: int) -> Any:
        dim = _dim(t, self.dim)
        norms = t.norm(p=self.n, dim=[d for d in range(t.ndim) if d != dim])
        kept = zeros_like(norms)
        kept[norms.topk(t.shape[dim] - count).indices] = 1
        return kept


class CustomFromMask(BasePruningMethod):
    """Cuts where a mask of the tensor's shape is 0."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        return default_mask * self.mask.to(default_mask.dtype)


def identity(module: Module, name: str) -> Module:
    """Sets up pruning of `name` without cutting anything."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: Any) -> Module:
    """Cuts a fraction or count of entries at random."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: Any, importance_scores: Any = None) -> Module:
    """Cuts a fraction or count of entries, those of least absolute value (or score)."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: Any, dim: int) -> Module:
    """Cuts a fraction or count of the channels along `dim` at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Module, name: str, amount: Any, n: Any, dim: int, importance_scores: Any = None
) -> Module:
    """Cuts a fraction or count of the channels along `dim`, those of the least n-norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Any) -> Module:
    """Cuts where `mask` is 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Any, pruning_method: Any, importance_scores: Any = None, **kwargs: Any
) -> None:
    """Cuts entries of several parameters, pairs (module, name), compared with each other as one long vector."""
    if not isinstance(parameters, Iterable):
        raise TypeError("[global_unstructured] parameters must be pairs of a module and a name")
    pairs = list(parameters)
    scores = {} if importance_scores is None else importance_scores
    values = parameters_to_vector([scores.get((m, n), getattr(m, n)) for m, n in pairs])
    masks = parameters_to_vector([getattr(m, n + "_mask", ones_like(getattr(m, n))) for m, n in pairs])
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            f"[global_unstructured] only unstructured methods work over several tensors, came {pruning_method}"
        )
    container = PruningContainer()
    container._tensor_name = method._tensor_name = "temp"
    container.add_pruning_method(method)
    final, start = container.compute_mask(values.detach(), masks), 0
    for module, name in pairs:
        t: Tensor = getattr(module, name)
        custom_from_mask(module, name, final[start : start + t.numel()].view_as(t))
        start += t.numel()


def remove(module: Module, name: str) -> Module:
    """Makes `name` an ordinary parameter again, with the zeros in it."""
    method = _hook_of(module, name)
    if method is None:
        raise ValueError(f"[remove] parameter {name!r} of {type(module).__name__} must be pruned, it is not")
    method.remove(module)
    _remove_hook(module, method)
    return module


def is_pruned(module: Module) -> bool:
    """Whether anything in the module is being pruned."""
    return any(
        isinstance(hook, BasePruningMethod)
        for part in module.modules()
        for hook, _ in (part._hooks.forward_pre.values() if part._hooks else ())
    )
