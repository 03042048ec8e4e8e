"""How tensors print: as PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import dtypes

options: dict[str, Any] = {
    "precision": 4,
    "threshold": 1000,
    "edgeitems": 3,
    "linewidth": 80,
    "sci_mode": None,
}


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits, number of elements before they are summarised, elements at each end, and width of a line."""
    if profile is not None:
        profiles = {"default": (4, 1000, 3, 80), "short": (2, 1000, 2, 80), "full": (4, float("inf"), 3, 80)}
        options.update(zip(("precision", "threshold", "edgeitems", "linewidth"), profiles[profile]))
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    options.update({k: v for k, v in given.items() if v is not None})
    options["sci_mode"] = sci_mode


def text(t: Any) -> str:
    """The whole representation, with dtype, requires_grad or grad_fn where they are not the usual ones."""
    array = t.array if t.array.dtype.kind != "V" else t.array.astype(np.float32)
    suffix = []
    usual = t.dtype in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_, dtypes.complex64)
    if not array.size:
        if array.ndim != 1:
            suffix.append(f"size={tuple(array.shape)}")
        usual = t.dtype is dtypes.get_default_dtype()
    if not usual:
        suffix.append(f"dtype={t.dtype!r}")
    if t.grad_fn is not None:
        suffix.append(f"grad_fn=<{t.grad_fn.name()}>")
    elif t.requires_grad:
        suffix.append("requires_grad=True")
    prefix = "tensor("
    body = _array_text(array, len(prefix)) if array.size else "[]"
    return prefix + ", ".join([body, *suffix]) + ")"


def _array_text(array: np.ndarray[Any, Any], indent: int) -> str:
    return np.array2string(
        array,
        separator=", ",
        prefix=" " * indent,
        threshold=int(min(options["threshold"], 2**62)),
        edgeitems=options["edgeitems"],
        max_line_width=options["linewidth"],
        formatter=_formatter(array),
    )


def _formatter(array: np.ndarray[Any, Any]) -> Any:
    kind = array.dtype.kind
    if kind == "b":
        width = 5 if array.ndim else 0
        return {"bool": lambda v: f"{v!s:>{width}}"}
    if kind in "iu":
        width = max(len(str(v)) for v in (array.min(), array.max())) if array.ndim else 0
        return {"int": lambda v: f"{v:>{width}d}"}
    if kind == "c":
        return None
    shown = array[np.isfinite(array) & (array != 0)].astype(np.float64)
    magnitude = np.abs(shown)
    whole = bool(np.all(shown == np.round(shown))) if shown.size else True
    low, high = (magnitude.min(), magnitude.max()) if shown.size else (1.0, 1.0)
    if whole:
        sci = high > 1e8
    else:
        sci = high / low > 1000.0 or high > 1e8 or low < 1e-4
    if options["sci_mode"] is not None:
        sci = options["sci_mode"]
    digits = options["precision"]
    form = f".{digits}e" if sci else ".0f" if whole else f".{digits}f"

    def plain(v: Any) -> str:
        s = format(float(v), form)
        return s + "." if whole and not sci and np.isfinite(v) else s

    width = max(
        (
            len(plain(v))
            for v in (array.ravel() if array.size <= options["threshold"] else array.ravel()[:1000])
        ),
        default=0,
    )
    width = width if array.ndim else 0
    return {"float": lambda v: plain(v).rjust(width)}
