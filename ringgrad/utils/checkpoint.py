"""Activation checkpointing: what a part of the model computed is not kept, but computed again in backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import autograd
from ..autograd import Function, enable_grad, no_grad
from ..autograd.mode import mode
from ..tensor import Tensor
from ..tensor import random as _random
from ._pytree import tree_flatten, tree_map, tree_unflatten

__all__ = ["checkpoint", "checkpoint_sequential", "tree_map"]


class _Recompute(Function):
    """Holds the inputs alone; backward runs the part again, recorded this time, and walks that back."""

    @staticmethod
    def forward(ctx: Any, run: Any, keep_rng: bool, spec: Any, *leaves: Any) -> Any:
        ctx.run, ctx.spec = run, spec
        ctx.rng = _random.get_rng_state() if keep_rng else None
        ctx.tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        ctx.others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.save_for_backward(*(leaves[i] for i in ctx.tensors))
        with no_grad():
            args, kwargs = tree_unflatten(leaves, spec)
            return run(*args, **kwargs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if mode.grad:
            raise RuntimeError("[checkpoint] gradients of gradients must not go through a checkpoint: leave it out there")
        leaves = list(ctx.others)
        for i, saved in zip(ctx.tensors, ctx.saved_tensors):
            leaves[i] = saved.detach().requires_grad_(ctx.needs_input_grad[3 + i])
        with _random.fork_rng(enabled=ctx.rng is not None), enable_grad():
            if ctx.rng is not None:
                _random.set_rng_state(ctx.rng)
            args, kwargs = tree_unflatten(leaves, ctx.spec)
            outputs = ctx.run(*args, **kwargs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [(out, g) for out, g in zip(outputs, grads) if isinstance(out, Tensor) and out.requires_grad]
        autograd.backward([out for out, _ in pairs], [g for _, g in pairs])
        return (None, None, None, *(leaf.grad if isinstance(leaf, Tensor) else None for leaf in leaves))


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Any = None,
    determinism_check: str = "default",
    debug: bool = False,
    **kwargs: Any,
) -> Any:
    """function(*args, **kwargs), whose inner results are computed again in backward instead of being kept.

    preserve_rng_state: random numbers (dropout) are the same the second time. Tensors may stand anywhere in nested
    lists, tuples and dicts of the arguments. Parameters that `function` uses get their gradients as usual.
    """
    leaves, spec = tree_flatten((args, kwargs))
    if not any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves) and autograd.is_grad_enabled():
        # Only parameters inside want gradients: a stand-in input makes the node that leads to them.
        stand_in = Tensor().requires_grad_()
        return _Recompute.apply(_ignoring_last(function), preserve_rng_state, *_with(leaves, spec, stand_in))
    return _Recompute.apply(function, preserve_rng_state, spec, *leaves)


def _with(leaves: list[Any], spec: Any, extra: Any) -> list[Any]:
    args, kwargs = tree_unflatten(leaves, spec)
    found, spec = tree_flatten(((*args, extra), kwargs))
    return [spec, *found]


def _ignoring_last(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: function(*args[:-1], **kwargs)


def checkpoint_sequential(functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kw: Any) -> Any:
    """A sequence of modules run in `segments` checkpointed parts (the last one is kept as it is)."""
    steps: Sequence[Any] = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = max(1, len(steps) // segments)

    def part(start: int, end: int) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            for step in steps[start:end]:
                x = step(x)
            return x

        return run

    cuts = [i * size for i in range(segments)]
    for start, end in zip(cuts[:-1], cuts[1:]):
        input = checkpoint(part(start, end), input, use_reentrant=use_reentrant, **kw)
    return part(cuts[-1], len(steps))(input)
