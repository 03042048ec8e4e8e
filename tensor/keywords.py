"""NumPy's spelling of keywords (`axis`, `keepdims`) and PyTorch's `out`, for the functions where scripts use them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from types import FunctionType
from typing import Any

import numpy as np

from ..autograd.engine import Variable
from ..autograd.op import describe

SPELLED = (
    "all any amax amin argmax argmin argsort cat chunk concat concatenate count_nonzero cummax cummin"
    " cumprod cumsum diff flip log_softmax logsumexp max mean median min mode nanmean nansum nonzero"
    " norm prod quantile roll softmax sort split squeeze stack std std_mean sum topk unbind unsqueeze"
    " var var_mean"
)
WITH_OUT = (
    "abs acos add addcdiv addcmul addmm all amax amin any arange argmax argmin asin atan baddbmm"
    " bitwise_and bitwise_not bitwise_or bmm cat ceil clamp clip concat cos cosh cross cumprod cumsum"
    " diag div dot eq exp expm1 flatten floor floor_divide fmod full gather ge gt hstack index_select"
    " inner isclose kron le lerp log log10 log1p log2 logical_and logical_not logical_or logsumexp lt"
    " masked_select matmul max maximum mean min minimum mm mul multiply mv ne neg norm ones outer pow"
    " prod rand randn reciprocal remainder round rsqrt sigmoid sign sin sinh sort sqrt square stack std"
    " sub subtract sum take tan tanh topk tril triu trunc unsqueeze var vstack where xlogy zeros"
)
# A None among these functions' arguments by position is refused, as PyTorch does: it is only their default.
GIVEN = (
    "cumulative_trapezoid logsumexp matrix_rank max median min nanmedian pinv prod repeat_interleave squeeze"
    " trapezoid trapz"
)
NAMES = {"axis": "dim", "keepdims": "keepdim"}


# What NumPy and Python raise where PyTorch has an error of its own.
FOREIGN = (AttributeError, ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError)


def public(function: Callable[..., Any], axis: bool = False, out: bool = False) -> Callable[..., Any]:
    """The function as scripts call it: errors in its name, of PyTorch's types.

    axis: it also takes `axis` for `dim` and `keepdims` for `keepdim`. out: it also takes `out`, a tensor (or several)
    that the result is written into.
    """

    if getattr(function, "__name__", "") in GIVEN.split():
        function = _without_none(function)

    @wraps(function)
    def call(*args: Any, **kw: Any) -> Any:
        try:
            if not kw:
                return function(*args)
            if axis and ("axis" in kw or "keepdims" in kw):
                kw = {NAMES.get(name, name): value for name, value in kw.items()}
            target = kw.pop("out", None) if out else None
            found = function(*args, **kw)
            return found if target is None else _written(target, found)
        except (RuntimeError, *FOREIGN) as error:
            wrong = misfit(call.__name__, function, args, kw)
            if wrong is not None and not isinstance(error, TypeError | NotImplementedError):
                raise wrong from error
            if str(error)[:1] == "[" or isinstance(error, RuntimeError):
                raise
            raise explained(call.__name__, args, kw, error) from error

    call.__name__ = getattr(function, "__name__", None) or function.name  # type: ignore[attr-defined]
    return call


def _without_none(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kw: Any) -> Any:
        if any(value is None for value in args):
            raise TypeError(
                f"[{function.__name__}] no argument by position may be None, came"
                f" {', '.join(map(_described, args))}: leave it away"
            )
        return function(*args, **kw)

    return call


def face(own: dict[str, Any], leave: str = "") -> None:
    """Makes every function of a namespace, given as its globals, a `public` one, but for those named in `leave`."""
    left = leave.split()
    for name, function in list(own.items()):
        if (
            name[0] != "_"
            and isinstance(function, FunctionType)
            and function is not face
            and name not in left
        ):
            made = own[name] = public(function)
            made.__module__ = own["__name__"]  # where pickle finds it


VAR_POSITIONAL = Parameter.VAR_POSITIONAL

# What a parameter takes, by the words of its annotation. Others are not looked at.
TAKEN: dict[str, tuple[Any, ...]] = {
    "int": (int, np.integer, Variable),
    "float": (bool, int, float, np.number, Variable),
    "Number": (bool, int, float, complex, np.number, Variable),
    "bool": (bool, int, np.bool_, Variable),
    "Tensor": (Variable,),
    "str": (str,),
    "None": (type(None),),
}


def misfit(name: str, function: Callable[..., Any], args: Any, kw: Any) -> TypeError | None:
    """The error of a call that failed because an argument is of no type that its parameter takes, if that is so."""
    try:
        given = signature(function).bind(*args, **kw)
    except (TypeError, ValueError):
        return None
    for parameter, value in given.arguments.items():
        hint = given.signature.parameters[parameter].annotation
        if given.signature.parameters[parameter].kind is VAR_POSITIONAL:
            continue
        words = hint.split(" | ") if isinstance(hint, str) else ()
        known = words and all(word in TAKEN for word in words)
        if known and not any(isinstance(value, TAKEN[word]) for word in words):
            return TypeError(f"[{name}] argument {parameter} must be {hint}, came {_described(value)}")
    return None


def explained(name: str, args: Any, kw: Any, error: Exception) -> Exception:
    """An error of NumPy's or Python's in the words of the function: what it was called with, PyTorch's type."""
    text, given = str(error), [*args, *kw.values()]
    given += [x for value in given if isinstance(value, list | tuple) for x in value]
    if isinstance(error, AttributeError) and not any(error.obj is value for value in given):
        return error
    kind: type[Exception] = RuntimeError
    if isinstance(error, AttributeError):
        kind, text = TypeError, "must be called with Tensors"
    elif isinstance(error, TypeError) and (
        "ufunc" in text or "numpy boolean" in text
    ):  # a dtype without a kernel
        kind = NotImplementedError
    elif isinstance(error, TypeError) or "invalid literal" in text or "could not convert" in text:
        kind = TypeError
    elif text in ("tuple index out of range", "list index out of range"):
        text = "needs tensors of more dimensions"
    elif isinstance(error, IndexError):
        kind = IndexError
    came = ", ".join([_described(a) for a in args] + [f"{k}={_described(v)}" for k, v in kw.items()])
    return kind(f"[{name}] {text}, came {came}")


def _described(value: Any) -> str:
    if isinstance(value, Variable):
        return describe(value.array)
    return f"{type(value).__name__} {value!r}"[:60]


def _written(out: Any, found: Any) -> Any:
    if isinstance(found, tuple):
        for target, part in zip(out, found):
            _written(target, part)
        return out
    if found.requires_grad or out.requires_grad:
        raise RuntimeError(
            "[out] results with out= have no gradient: leave out= away, or call under no_grad()"
        )
    if out.shape != found.shape:
        out.resize_(found.shape)
    return out.copy_(found)
