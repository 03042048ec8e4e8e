"""How tensors print: as PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import dtypes

Format = Callable[[Any], str]
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
    suffixes = []
    if t.is_cuda:
        array = t.cpu().array.astype(array.dtype)
        suffixes.append(f"device='{t.device}'")
    usual = t.dtype in (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_, dtypes.complex64)
    if not array.size:
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        usual = t.dtype is dtypes.get_default_dtype()
    if not usual:
        suffixes.append(f"dtype={t.dtype!r}")
    if t.grad_fn is not None:
        suffixes.append(f"grad_fn=<{t.grad_fn.name()}>")
    elif t.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes("tensor(" + (_body(array) if array.size else "[]"), suffixes) + ")"


INDENT = len("tensor(")


def _with_suffixes(body: str, suffixes: list[str]) -> str:
    """Suffixes on the last line, or on one of their own where it gets too long."""
    length = len(body) - body.rfind("\n") + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > options["linewidth"]:
            body += ",\n" + " " * INDENT + suffix
            length = INDENT + len(suffix)
        else:
            body += ", " + suffix
            length += len(suffix) + 2
    return body


def _body(array: np.ndarray[Any, Any]) -> str:
    summarised = array.size > options["threshold"]
    shown = _edges(array) if summarised else array
    form, width = _complex_format(shown) if array.dtype.kind == "c" else _format(shown)
    return _block(array, INDENT, summarised, form, width)


def _edges(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What is left of an array when its middle is not shown."""
    n = options["edgeitems"]
    for axis, size in enumerate(array.shape):
        if size > 2 * n:
            array = array.take([*range(n), *range(size - n, size)], axis)
    return array


def _block(array: np.ndarray[Any, Any], indent: int, summarised: bool, form: Format, width: int) -> str:
    if not array.ndim:
        return form(array.item())
    n = options["edgeitems"]
    cut = summarised and len(array) > 2 * n
    rows = [*array[:n], *array[len(array) - n :]] if cut else list(array)
    if array.ndim == 1:
        parts = [form(v.item()) for v in rows]
        if cut:
            parts.insert(n, " ...")
        per_line = max(1, (options["linewidth"] - indent) // (width + 2))
        lines = [", ".join(parts[i : i + per_line]) for i in range(0, len(parts), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    blocks = [_block(row, indent + 1, summarised, form, width) for row in rows]
    if cut:
        blocks.insert(n, "...")
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(blocks) + "]"


def _format(shown: np.ndarray[Any, Any]) -> tuple[Format, int]:
    """How one element is written, and how wide; what is infinite, nan or zero does not count in either."""
    if shown.dtype.kind != "f":
        width = max(len(str(v)) for v in shown.ravel().tolist()) if shown.size else 1
        return lambda v: str(v).rjust(width if shown.ndim else 0), width
    finite = shown[np.isfinite(shown) & (shown != 0)].astype(np.float64)
    whole = bool(np.all(finite == np.round(finite)))
    sci = False
    if finite.size:
        magnitude = np.abs(finite)
        low, high = magnitude.min(), magnitude.max()
        sci = high / low > 1000.0 or high > 1e8 or (low < 1e-4 and not whole)
    if options["sci_mode"] is not None:
        sci = options["sci_mode"]
    spec = f".{options['precision']}e" if sci else ".0f" if whole else f".{options['precision']}f"

    def plain(v: float) -> str:
        return format(v, spec) + ("." if whole and not sci and math.isfinite(v) else "")

    width = max((len(plain(v)) for v in finite.ravel().tolist()), default=1)
    return lambda v: plain(v).rjust(width), width


def _complex_format(shown: np.ndarray[Any, Any]) -> tuple[Format, int]:
    (real, wide), (imaginary, wider) = _format(np.asarray(shown.real)), _format(np.asarray(shown.imag))

    def form(v: complex) -> str:
        part = imaginary(v.imag).lstrip()
        return real(v.real) + ("" if part[0] == "-" else "+") + part + "j"

    return form, wide + wider + 1
