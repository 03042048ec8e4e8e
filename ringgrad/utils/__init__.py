"""PyTorch's `torch.utils`; its modules are loaded when they are first asked for."""

from __future__ import annotations

from typing import Any

MODULES = ("_pytree", "benchmark", "checkpoint", "data", "model_zoo", "tensorboard")


def __getattr__(name: str) -> Any:
    if name in MODULES:
        import importlib

        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def swap_tensors(t1: Any, t2: Any) -> None:
    """The two tensors exchange everything: elements, place in the graph, attributes and class."""
    for t in (t1, t2):
        if t._node is not None:
            raise RuntimeError("[swap_tensors] tensors must be leaves: others hold on to what a graph computed")
    t1.__class__, t2.__class__ = t2.__class__, t1.__class__
    first, second = dict(t1.__dict__), dict(t2.__dict__)
    for t, state in ((t1, second), (t2, first)):
        t.__dict__.clear()
        t.__dict__.update(state)
