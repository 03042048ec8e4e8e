"""Checks of gradients against central differences: first order, and the gradient of the gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import engine
from .engine import Variable, wrap


def _grad(*args: Any, **kw: Any) -> tuple[Any, ...]:
    from . import grad  # the package imports this module while it is made

    return grad(*args, **kw)


class GradcheckError(RuntimeError):
    """Gradients do not agree with finite differences."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the gradients of `func` at `inputs` agree with (f(x + eps) - f(x - eps)) / 2 eps.

    inputs: a tensor or a tuple; those that require grad are checked, and should be float64.
    An entry is right when |analytical - numerical| <= atol + rtol * |numerical|; a second backward may
    differ from the first by `nondet_tol` at most.
    fast_mode: compares one random projection of the Jacobian instead of all its entries.
    Raises GradcheckError (a RuntimeError), or returns False with `raise_exception` off.
    """
    _unsupported(
        check_batched_grad=check_batched_grad,
        check_batched_forward_grad=check_batched_forward_grad,
        check_forward_ad=check_forward_ad,
    )
    if not check_backward_ad:
        raise ValueError(
            "[gradcheck] check_backward_ad must be True: backward is what is checked, came False"
        )
    inputs = _tuple(inputs)
    wanted = _checked_inputs(inputs)
    try:
        outputs = _differentiable(func(*inputs))
        if not outputs:
            _no_outputs(func, inputs, wanted, eps, atol)
            return True
        compare = _compare_fast if fast_mode else _compare
        compare(func, inputs, wanted, outputs, eps, atol, rtol, nondet_tol, check_grad_dtypes)
        if check_undefined_grad:
            _check_undefined(func, inputs, wanted)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """The same for the gradients of `func` themselves, as functions of `inputs` and `grad_outputs`.

    grad_outputs: weights of the outputs, drawn at random where left out.
    """
    _unsupported(check_fwd_over_rev=check_fwd_over_rev, check_batched_grad=check_batched_grad)
    if not check_rev_over_rev:
        raise ValueError("[gradgradcheck] check_rev_over_rev must be True: it is what is checked, came False")
    inputs = _tuple(inputs)
    wanted = _checked_inputs(inputs)
    if grad_outputs is None:
        outputs = _differentiable(func(*inputs))
        grad_outputs = tuple(_random_like(t, i, gen_non_contig_grad_outputs) for i, t in enumerate(outputs))
    else:
        grad_outputs = _tuple(grad_outputs)
    count = len(inputs)

    def gradients(*args: Any) -> tuple[Any, ...]:
        xs = tuple(x.view_as(x) if i in wanted else x for i, x in enumerate(args[:count]))
        outs = _differentiable(func(*xs))
        targets = [xs[i] for i in wanted]
        found = _grad(outs, targets, args[count:], create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None and g.requires_grad)

    return gradcheck(
        gradients,
        (*inputs, *grad_outputs),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        fast_mode=fast_mode,
    )


def _unsupported(**settings: bool) -> None:
    for name, value in settings.items():
        if value:
            raise ValueError(
                f"[gradcheck] {name} must be False: neither forward mode nor batched gradients exist here"
            )


def _tuple(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, Sequence) and not isinstance(x, Variable) else (x,)


def _differentiable(outputs: Any) -> tuple[Any, ...]:
    return tuple(t for t in _tuple(outputs) if isinstance(t, Variable) and engine.edge_of(t) is not None)


def _checked_inputs(inputs: tuple[Any, ...]) -> list[int]:
    """Positions of the inputs that require grad."""
    wanted = [i for i, x in enumerate(inputs) if isinstance(x, Variable) and engine.edge_of(x) is not None]
    if not wanted:
        raise ValueError("[gradcheck] at least one input must require grad, came none")
    for i in wanted:
        array = inputs[i].array
        if array.dtype.kind == "c":
            raise ValueError(f"[gradcheck] inputs must be real, came {array.dtype.name} for input {i}")
        if array.size and any(step == 0 and n > 1 for step, n in zip(array.strides, array.shape)):
            raise RuntimeError(
                f"[gradcheck] elements of an input must not share memory, came input {i} with strides"
                f" {list(array.strides)}: use clone() after expand()"
            )
        if array.dtype != np.float64:
            warnings.warn(
                f"[gradcheck] inputs should be float64, came {array.dtype.name} for input {i}: differences of"
                " so few digits will hardly agree",
                stacklevel=3,
            )
    return wanted


def _random_like(t: Any, seed: int, gap: bool) -> Any:
    random = np.random.default_rng(seed)
    shape = t.array.shape
    if gap and shape:  # every second element of an array twice as long
        drawn = random.standard_normal((*shape[:-1], 2 * shape[-1])).astype(t.array.dtype)[..., ::2]
    else:
        drawn = np.asarray(random.standard_normal(shape), t.array.dtype)
    g = wrap(drawn)
    g.requires_grad_()
    return g


def _values(func: Callable[..., Any], inputs: tuple[Any, ...], like: int) -> list[np.ndarray[Any, Any]]:
    """The differentiable outputs, flat, as copies."""
    found = [t.array.astype(np.float64).reshape(-1) for t in _differentiable(func(*inputs))]
    if len(found) != like:
        raise GradcheckError(f"[gradcheck] the number of outputs must stay {like}, came {len(found)}")
    return found


def numerical_jacobian(
    func: Callable[..., Any], inputs: tuple[Any, ...], i: int, outputs: Sequence[Any], eps: float
) -> list[np.ndarray[Any, Any]]:
    """Central differences with respect to input `i`: for each output a matrix [elements of input, of output]."""
    array = inputs[i].array
    jacobians = [np.zeros((array.size, t.array.size)) for t in outputs]
    for k, place in enumerate(np.ndindex(array.shape)):
        before = array[place]
        try:
            array[place] = before + eps
            high = _values(func, inputs, len(outputs))
            array[place] = before - eps
            low = _values(func, inputs, len(outputs))
        finally:
            array[place] = before
        for jacobian, a, b in zip(jacobians, high, low):
            jacobian[k] = (a - b) / (2 * eps)
    return jacobians


def _backward_rows(output: Any, targets: list[Any]) -> list[np.ndarray[Any, Any]]:
    """The Jacobians of one output, one backward for each of its elements."""
    size = output.array.size
    jacobians = [np.zeros((x.array.size, size)) for x in targets]
    for k in range(size):
        v = np.zeros(size, output.array.dtype)
        v[k] = 1
        found = _grad(
            output, targets, wrap(v.reshape(output.array.shape)), retain_graph=True, allow_unused=True
        )
        for jacobian, g, x in zip(jacobians, found, targets):
            if g is None:
                continue
            if g.array.shape != x.array.shape:
                raise GradcheckError(
                    f"[gradcheck] a gradient must have its input's shape {list(x.array.shape)},"
                    f" came {list(g.array.shape)}"
                )
            jacobian[:, k] = g.array.reshape(-1)
    return jacobians


def _compare(
    func: Callable[..., Any],
    inputs: tuple[Any, ...],
    wanted: list[int],
    outputs: tuple[Any, ...],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    dtypes: bool,
) -> None:
    numerical = [numerical_jacobian(func, inputs, i, outputs, eps) for i in wanted]
    targets = [inputs[i] for i in wanted]
    for o, output in enumerate(outputs):
        if dtypes:
            _check_dtypes(output, targets)
        analytical, again = _backward_rows(output, targets), _backward_rows(output, targets)
        for w, i in enumerate(wanted):
            if np.max(np.abs(analytical[w] - again[w]), initial=0) > nondet_tol:
                raise GradcheckError(
                    f"[gradcheck] a second backward must give the same gradient to {nondet_tol}, came another one for"
                    f" input {i}, output {o}"
                )
            _check_close(analytical[w], numerical[w][o], i, o, inputs[i].array.shape, atol, rtol)


def _check_close(a: Any, n: Any, i: int, o: int, shape: tuple[int, ...], atol: float, rtol: float) -> None:
    wrong = ~np.isclose(a, n, rtol, atol, equal_nan=True)
    if not wrong.any():
        return
    row, column = np.argwhere(wrong)[0]
    place = [int(k) for k in np.unravel_index(row, shape)]
    raise GradcheckError(
        f"[gradcheck] the Jacobians of input {i} for output {o} must agree to atol={atol:g}, rtol={rtol:g}; they"
        f" differ in {int(wrong.sum())} of {wrong.size} entries, first at input element {place}, output element"
        f" {int(column)} (flat): numerical {n[row, column]:g}, analytical {a[row, column]:g}\n"
        f"numerical:\n{n}\nanalytical:\n{a}"
    )


def _compare_fast(
    func: Callable[..., Any],
    inputs: tuple[Any, ...],
    wanted: list[int],
    outputs: tuple[Any, ...],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    dtypes: bool,
) -> None:
    """v J u for random directions u of the inputs and weights v of the outputs, both ways."""
    random = np.random.default_rng(0)
    targets = [inputs[i] for i in wanted]
    weights = [random.uniform(0.5, 1.5, t.array.size) for t in outputs]
    for o, (output, v) in enumerate(zip(outputs, weights)):
        if dtypes:
            _check_dtypes(output, targets)
        g = wrap(v.reshape(output.array.shape).astype(output.array.dtype))
        found = _grad(output, targets, g, retain_graph=True, allow_unused=True)
        again = _grad(output, targets, g, retain_graph=True, allow_unused=True)
        for i, x, first, second in zip(wanted, targets, found, again):
            if first is not None and np.max(np.abs(first.array - second.array), initial=0) > nondet_tol:
                raise GradcheckError(
                    f"[gradcheck] a second backward must give the same gradient to {nondet_tol}, came another one for"
                    f" input {i}, output {o}"
                )
            u = random.uniform(0.5, 1.5, x.array.shape)
            analytical = 0.0 if first is None else float((first.array * u).sum())
            numerical = _along(func, inputs, i, u, o, len(outputs), eps) @ v
            bound = atol * u.size * v.size + rtol * abs(numerical)
            if not (abs(analytical - numerical) <= bound or (np.isnan(analytical) and np.isnan(numerical))):
                raise GradcheckError(
                    f"[gradcheck] projected Jacobians of input {i} for output {o} must agree to {bound:g}: numerical"
                    f" {numerical:g}, analytical {analytical:g}. fast_mode=False names the entries"
                )


def _along(func: Any, inputs: tuple[Any, ...], i: int, u: Any, o: int, count: int, eps: float) -> Any:
    """The derivative of output `o` when input `i` moves along `u`."""
    array = inputs[i].array
    before = array.copy()
    try:
        array[...] = before + eps * u
        high = _values(func, inputs, count)[o]
        array[...] = before - eps * u
        low = _values(func, inputs, count)[o]
    finally:
        array[...] = before
    return (high - low) / (2 * eps)


def _check_dtypes(output: Any, targets: list[Any]) -> None:
    g = wrap(np.ones_like(output.array))
    for x, found in zip(targets, _grad(output, targets, g, retain_graph=True, allow_unused=True)):
        if found is not None and found.array.dtype != x.array.dtype:
            raise GradcheckError(
                f"[gradcheck] a gradient must have the dtype of its input, {x.array.dtype.name}, came"
                f" {found.array.dtype.name}"
            )


def _check_undefined(func: Callable[..., Any], inputs: tuple[Any, ...], wanted: list[int]) -> None:
    """Outputs that nobody uses send no gradient: backward from each output alone must not fail, nor give NaN."""
    outputs = _differentiable(func(*inputs))
    if len(outputs) < 2:
        return
    targets = [inputs[i] for i in wanted]
    for o, output in enumerate(outputs):
        try:
            _grad(output, targets, wrap(np.zeros_like(output.array)), retain_graph=True, allow_unused=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise GradcheckError(
                f"[gradcheck] backward must work when output {o} alone has a gradient, came {error!r}"
            ) from error


def _no_outputs(
    func: Callable[..., Any], inputs: tuple[Any, ...], wanted: list[int], eps: float, atol: float
) -> None:
    """No output requires grad: then none may depend on the inputs."""
    for i in wanted:
        array = inputs[i].array
        before = array.copy()
        try:
            array[...] = before + eps
            high = [t.array.copy() for t in _tuple(func(*inputs)) if isinstance(t, Variable)]
            array[...] = before - eps
            low = [t.array.copy() for t in _tuple(func(*inputs)) if isinstance(t, Variable)]
        finally:
            array[...] = before
        for o, (a, b) in enumerate(zip(high, low)):
            if a.dtype.kind == "f" and np.max(np.abs(a - b), initial=0) / (2 * eps) > atol:
                raise GradcheckError(
                    f"[gradcheck] output {o} depends on input {i} and must require grad, came one that does not"
                )


__all__ = ["GradcheckError", "gradcheck", "gradgradcheck", "numerical_jacobian"]
