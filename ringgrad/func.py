"""`torch.func`: functions of functions, composable with each other and with autograd.

`vmap` calls the function once for each example and stacks the results: right for every function, as fast as a loop.
Derivatives are those of the engine, which goes backward only: `jvp` and `jacfwd` give forward-mode's values by
two backwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import numpy as np

from .autograd import enable_grad, engine
from .autograd import grad as _grad
from .autograd.engine import Variable, ones_beside, wrap
from .autograd.mode import mode
from .autograd.op import tensor_ops
from .tensor import functions
from .tensor.generator import default_generator
from .utils._pytree import tree_flatten, tree_map, tree_unflatten

Fn = Callable[..., Any]


# ---- vmap


def vmap(
    func: Fn,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Fn:
    """A function that maps `func` over a dimension of its arguments and stacks the results along `out_dims`.

    in_dims: the mapped dimension of each argument, None for those that all calls share; may be nested as the
    arguments are; keyword arguments are shared. randomness: "error" forbids random numbers, "different" draws anew
    in each call, "same" draws the same numbers in all. chunk_size: accepted; the calls come one by one.
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"[vmap] randomness must be 'error', 'different' or 'same', came {randomness!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"[vmap] chunk_size must be positive, came {chunk_size}")

    @wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten(args)
        dims = _dims_of("in_dims", in_dims, args)
        size = _size(leaves, dims)
        columns = [_slices(x, d, size) for x, d in zip(leaves, dims)]
        results: list[Any] = []
        state: Any = default_generator.get_state() if randomness != "different" else None
        for row in zip(*columns):
            if randomness == "same" and results:
                default_generator.set_state(state)
            results.append(func(*tree_unflatten(row, spec), **kwargs))
            if randomness == "error" and not np.array_equal(state, default_generator.get_state()):
                raise RuntimeError(
                    "[vmap] func must not draw random numbers, came one that does: pass randomness='different' or"
                    " 'same'"
                )
        return _stacked(results, out_dims)

    return mapped


def _dims_of(name: str, dims: Any, tree: Any) -> list[Any]:
    """One entry of `dims` for each leaf of a tree; an entry may stand for a whole subtree."""
    if dims is None or isinstance(dims, int):
        return [dims] * len(tree_flatten(tree)[0])
    children = tree.values() if isinstance(tree, dict) else tree
    if not isinstance(tree, dict | list | tuple) or not isinstance(dims, dict | list | tuple):
        raise ValueError(f"[vmap] {name} must be ints or None, nested as what it describes, came {dims!r}")
    parts = [dims.get(k) for k in tree] if isinstance(dims, dict) else list(dims)
    if len(parts) != len(tree):
        raise ValueError(
            f"[vmap] {name} must have an entry for each of {len(tree)} values, came {len(parts)}"
        )
    return [d for part, child in zip(parts, children) for d in _dims_of(name, part, child)]


def _size(leaves: list[Any], dims: list[Any]) -> int:
    sizes = set()
    for x, d in zip(leaves, dims):
        if d is None:
            continue
        if not isinstance(x, Variable):
            raise ValueError(
                f"[vmap] only Tensors can be mapped over, came {type(x).__name__}: pass in_dims=None"
            )
        if not -x.array.ndim <= d < x.array.ndim:
            raise ValueError(f"[vmap] in_dims must name a dimension of shape {list(x.array.shape)}, came {d}")
        sizes.add(x.array.shape[d])
    if not sizes:
        raise ValueError("[vmap] at least one argument must be mapped over, came in_dims of None alone")
    if len(sizes) > 1:
        raise ValueError(f"[vmap] mapped dimensions must have one size, came {sorted(sizes)}")
    (size,) = sizes
    if size == 0:
        raise ValueError("[vmap] the mapped dimension must not be empty")
    return size


def _slices(x: Any, dim: Any, size: int) -> list[Any]:
    return [x] * size if dim is None else [functions.select(x, dim, i) for i in range(size)]


def _stacked(results: list[Any], out_dims: Any) -> Any:
    first, spec = tree_flatten(results[0])
    dims = _dims_of("out_dims", out_dims, results[0])
    columns = zip(*[tree_flatten(r)[0] for r in results])
    found = []
    for column, d, example in zip(columns, dims, first):
        if not isinstance(example, Variable):
            raise ValueError(f"[vmap] func must return Tensors, came {type(example).__name__}")
        found.append(example if d is None else functions.stack(column, d))
    return tree_unflatten(found, spec)


# ---- derivatives


class _Depth(threading.local):
    """How many derivatives are being taken around the current call."""

    now = 0


_depth = _Depth()


@contextmanager
def _differentiating() -> Iterator[None]:
    _depth.now += 1
    try:
        with enable_grad():
            yield
    finally:
        _depth.now -= 1


def _fresh(tree: Any) -> tuple[Any, list[Any]]:
    """The tree with its tensors as places to differentiate by, and those tensors."""
    leaves, spec = tree_flatten(tree)
    own, places = [], []
    for x in leaves:
        if isinstance(x, Variable):
            if engine.edge_of(x) is not None:
                x = tensor_ops["alias"](x)
            else:
                x = wrap(x.array).requires_grad_()
                x._depth = _depth.now
            places.append(x)
        own.append(x)
    return tree_unflatten(own, spec), places


def _joined(outputs: Sequence[Any]) -> bool:
    """Whether outputs depend on tensors from outside that want gradients too: then derivatives are recorded.

    Leaves that this derivative made, or one inside of it, are not such.
    """
    starts = [engine.edge_of(y) for y in outputs if isinstance(y, Variable)]
    nodes = [e.node if e.kind == engine.OUTPUT else e for e in starts if e is not None]
    _, found = engine.schedule([e for e in nodes if e.kind == engine.NODE])
    leaves = [e for e in nodes if e.kind == engine.LEAF] + list(found)
    return any(leaf.__dict__.get("_depth", 0) < _depth.now for leaf in leaves)


def _gradients(ys: Sequence[Any], xs: Sequence[Any], gs: Sequence[Any], create: bool) -> list[Any]:
    """The gradients of `ys` weighted by `gs`; zeros where there is no influence."""
    pairs = [(y, g) for y, g in zip(ys, gs) if engine.edge_of(y) is not None]
    if not pairs or not xs:
        return [wrap(np.zeros_like(x.array)) for x in xs]
    outputs, weights = zip(*pairs)
    return list(
        _grad(
            outputs,
            xs,
            weights,
            retain_graph=True,
            create_graph=create,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def _plain(tree: Any, keep: bool) -> Any:
    return tree if keep else tree_map(lambda t: t.detach() if isinstance(t, Variable) else t, tree)


def _chosen(who: str, args: tuple[Any, ...], argnums: Any) -> Any:
    """The arguments to differentiate by: one, or a tuple of them."""
    for n in (argnums,) if isinstance(argnums, int) else argnums:
        if not -len(args) <= n < len(args):
            raise RuntimeError(f"[{who}] argnums must name one of {len(args)} arguments, came {n}")
    return args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in argnums)


def _with(args: tuple[Any, ...], argnums: Any, values: Any) -> list[Any]:
    out = list(args)
    for n, value in [(argnums, values)] if isinstance(argnums, int) else zip(argnums, values):
        out[n] = value
    return out


def _output(who: str, result: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise RuntimeError(
            f"[{who}] with has_aux func must return (output, aux), came {type(result).__name__}"
        )
    return result


def grad_and_value(func: Fn, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Fn:
    """A function that returns (gradients, value) of a scalar `func` by its arguments `argnums`.

    With `has_aux` func returns (output, aux), and the result is (gradients, (value, aux)).
    """

    @wraps(func)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        recording = mode.grad
        with _differentiating():
            inner, xs = _fresh(_chosen("grad", args, argnums))
            y, aux = _output("grad", func(*_with(args, argnums, inner), **kwargs), has_aux)
            if not isinstance(y, Variable) or y.array.ndim:
                came = list(y.array.shape) if isinstance(y, Variable) else type(y).__name__
                raise RuntimeError(f"[grad] func must return a 0-d Tensor, came {came}")
            create = recording and _joined([y])
            found = iter(_gradients([y], xs, [wrap(ones_beside(y.array))], create))
        grads = tree_map(lambda t: next(found) if isinstance(t, Variable) else t, inner)
        value = _plain(y, create)
        return _plain(grads, create), (value, _plain(aux, create)) if has_aux else value

    return differentiated


def grad(func: Fn, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Fn:
    """A function that returns the gradients of a scalar `func` by its arguments `argnums`, and aux where it has one."""
    both = grad_and_value(func, argnums, has_aux)

    @wraps(func)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        grads, value = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return differentiated


def vjp(func: Fn, *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """(output, pull): `pull(cotangents)` gives the tuple of gradients of `primals`; with `has_aux` also aux."""
    recording = mode.grad
    with _differentiating():
        inner, xs = _fresh(primals)
        y, aux = _output("vjp", func(*inner), has_aux)
        ys, spec = tree_flatten(y)
        create = recording and _joined(ys)

    def pull(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        gs, given = tree_flatten(cotangents)
        if given != spec or [g.shape for g in gs] != [t.shape for t in ys]:
            raise RuntimeError(
                f"[vjp] cotangents must be nested and shaped as the output {[list(t.shape) for t in ys]},"
                f" came {[list(g.shape) for g in gs]}"
            )
        record = create or (mode.grad and any(engine.edge_of(g) is not None for g in gs))
        found = iter(_plain(_gradients(ys, xs, gs, record), record))
        return tree_map(lambda t: next(found) if isinstance(t, Variable) else t, inner)

    out = _plain(y, create)
    return (out, pull, _plain(aux, create)) if has_aux else (out, pull)


def jvp(
    func: Fn, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> tuple[Any, ...]:
    """(output, tangent of the output) when `primals` move along `tangents`; with `has_aux` also aux."""
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple) or len(primals) != len(tangents):
        raise RuntimeError("[jvp] primals and tangents must be tuples of one length")
    recording = mode.grad
    with _differentiating():
        inner, xs = _fresh(primals)
        vs = [v for v in tree_flatten(tangents)[0] if isinstance(v, Variable)]
        if [v.shape for v in vs] != [x.shape for x in xs]:
            raise RuntimeError(
                f"[jvp] tangents must have the shapes of primals {[list(x.shape) for x in xs]},"
                f" came {[list(v.shape) for v in vs]}"
            )
        y, aux = _output("jvp", func(*inner), has_aux)
        ys, spec = tree_flatten(y)
        create = recording and (_joined(ys) or any(engine.edge_of(v) is not None for v in vs))
        us = [wrap(np.zeros_like(t.array)).requires_grad_() for t in ys]
        rows = _gradients(ys, xs, us, True)
        moved = _gradients(rows, us, vs, create)
    out = _plain(y, create), _plain(tree_unflatten(moved, spec), create)
    return (*out, _plain(aux, create)) if has_aux else out


def jacrev(
    func: Fn,
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Fn:
    """A function that returns the Jacobian of `func`: [*output shape, *input shape] for each output and input."""

    @wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        recording = mode.grad
        with _differentiating():
            inner, xs = _fresh(_chosen("jacrev", args, argnums))
            y, aux = _output("jacrev", func(*_with(args, argnums, inner), **kwargs), has_aux)
            ys, spec = tree_flatten(y)
            create = recording and _joined(ys)
            blocks = []
            for t in ys:
                rows = [_gradients([t], xs, [one], create) for one in _units(t)]
                parts = iter(_block(t, x, [row[i] for row in rows]) for i, x in enumerate(xs))
                blocks.append(tree_map(lambda leaf, parts=parts: next(parts), inner))
        found = _plain(tree_unflatten(blocks, spec), create)
        return (found, _plain(aux, create)) if has_aux else found

    return jacobian


def _units(t: Any) -> Any:
    """Each of the tensors of t's shape with a single 1."""
    for k in range(t.array.size):
        one = np.zeros(t.array.size, t.array.dtype)
        one[k] = 1
        yield wrap(one.reshape(t.array.shape))


def _block(y: Any, x: Any, rows: list[Any]) -> Any:
    shape = y.array.shape + x.array.shape
    return functions.stack(rows, 0).reshape(shape) if rows else wrap(np.zeros(shape, x.array.dtype))


def jacfwd(
    func: Fn, argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Fn:
    """`jacrev` under the name of forward mode: the same values, at a backward for each element of the output."""
    return jacrev(func, argnums, has_aux=has_aux)


def hessian(func: Fn, argnums: int | tuple[int, ...] = 0) -> Fn:
    """A function that returns the second derivatives of a scalar `func`: the Jacobian of its Jacobian."""
    return jacrev(jacrev(func, argnums), argnums)


# ---- modules as functions


@contextmanager
def _swapped(module: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """A module with other tensors under the given names, for as long as the context lasts."""
    with ExitStack() as back:
        for name, value in values.items():
            path, _, attribute = name.rpartition(".")
            owner = module.get_submodule(path)
            held = owner._parameters if attribute in owner._parameters else owner._buffers
            back.callback(held.__setitem__, attribute, held[attribute])
            held[attribute] = value
        yield


def functional_call(
    module: Any,
    parameter_and_buffer_dicts: Any,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Calls a module with other parameters and buffers: a dict of names, or several dicts.

    tie_weights: names that share a tensor are replaced together. strict: every name must be given.
    """
    dicts = (
        [parameter_and_buffer_dicts]
        if isinstance(parameter_and_buffer_dicts, Mapping)
        else parameter_and_buffer_dicts
    )
    values: dict[str, Any] = {}
    for given in dicts:
        if shared := values.keys() & given.keys():
            raise ValueError(f"[functional_call] a name must come once, came {sorted(shared)} several times")
        values.update(given)
    mine = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    if unknown := sorted(values.keys() - mine.keys()):
        raise RuntimeError(f"[functional_call] names must be those of parameters or buffers, came {unknown}")
    if tie_weights:
        by_tensor = {id(mine[name]): value for name, value in values.items()}
        values = {name: by_tensor[id(t)] for name, t in mine.items() if id(t) in by_tensor}
    if strict and (missing := sorted(mine.keys() - values.keys())):
        raise RuntimeError(f"[functional_call] with strict every name must be given, missing {missing}")
    inputs = () if args is None else args if isinstance(args, tuple) else (args,)
    with _swapped(module, values):
        return module(*inputs, **(kwargs or {}))


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters, buffers) of models of one kind, each stacked along a new first dimension."""
    models = list(models)
    if not models:
        raise RuntimeError("[stack_module_state] at least one model is needed, came none")
    if any(type(m) is not type(models[0]) for m in models):
        raise RuntimeError("[stack_module_state] models must be of one class")
    if any(m.training != models[0].training for m in models):
        raise RuntimeError("[stack_module_state] models must all be in training or all in eval mode")
    params: dict[str, Any] = {}
    for name, first in models[0].named_parameters():
        stacked = functions.stack([m.get_parameter(name).detach() for m in models])
        params[name] = stacked.requires_grad_(first.requires_grad)
    names = [name for name, _ in models[0].named_buffers()]
    return params, {n: functions.stack([m.get_buffer(n) for m in models]) for n in names}


__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "vjp",
    "vmap",
]
