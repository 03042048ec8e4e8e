"""NumPy's spelling of keywords (`axis`, `keepdims`) and PyTorch's `out`, for the functions where scripts use them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

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
NAMES = {"axis": "dim", "keepdims": "keepdim"}


def spelled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that also takes `axis` for `dim` and `keepdims` for `keepdim`."""

    @wraps(function)
    def call(*args: Any, **kw: Any) -> Any:
        if kw and ("axis" in kw or "keepdims" in kw):
            kw = {NAMES.get(name, name): value for name, value in kw.items()}
        return function(*args, **kw)

    return call


def with_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that also takes `out`: a tensor (or several) that the result is written into."""

    @wraps(function)
    def call(*args: Any, out: Any = None, **kw: Any) -> Any:
        found = function(*args, **kw)
        return found if out is None else _written(out, found)

    return call


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
