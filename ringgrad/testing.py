"""`torch.testing`: assertions about tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .tensor import Tensor

# The tolerances PyTorch takes by dtype: (relative, absolute).
TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_dtype: bool = True,
    check_device: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    allow_subclasses: bool = True,
    msg: Any = None,
) -> None:
    """Raises AssertionError unless |actual - expected| <= atol + rtol * |expected| everywhere.

    Takes tensors, arrays, numbers, and sequences and mappings of these. Without tolerances, those of the dtype.
    """
    if (rtol is None) != (atol is None):
        raise ValueError(f"[assert_close] rtol and atol must be given together, came {rtol} and {atol}")
    if isinstance(expected, Mapping):
        if set(actual) != set(expected):
            raise AssertionError(f"[assert_close] keys must be equal, came {sorted(actual)} and {sorted(expected)}")
        pairs = [(actual[k], expected[k]) for k in expected]
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        if len(actual) != len(expected):
            raise AssertionError(f"[assert_close] lengths must be equal, came {len(actual)} and {len(expected)}")
        pairs = list(zip(actual, expected))
    else:
        _compare(actual, expected, rtol, atol, equal_nan, check_dtype, msg)
        return
    for a, b in pairs:
        assert_close(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan, check_dtype=check_dtype, msg=msg)


def _compare(a: Any, b: Any, rtol: Any, atol: Any, equal_nan: bool, check_dtype: bool, msg: Any) -> None:
    x, y = (t.detach().array if isinstance(t, Tensor) else np.asarray(t) for t in (a, b))
    if x.shape != y.shape:
        raise AssertionError(msg or f"[assert_close] shapes must be equal, came {list(x.shape)} and {list(y.shape)}")
    if check_dtype and isinstance(a, Tensor) and isinstance(b, Tensor) and x.dtype != y.dtype:
        raise AssertionError(msg or f"[assert_close] dtypes must be equal, came {x.dtype} and {y.dtype}")
    if rtol is None:
        found = [TOLERANCES.get(t.dtype.name, (0.0, 0.0)) for t in (x, y)]
        rtol, atol = max(f[0] for f in found), max(f[1] for f in found)
    wide: Any = np.complex128 if "c" in (x.dtype.kind, y.dtype.kind) else np.float64
    if x.dtype.kind in "biu" and y.dtype.kind in "biu":
        wide = object if "uint64" in (x.dtype.name, y.dtype.name) else np.int64
    x, y = x.astype(wide), y.astype(wide)
    close = np.isclose(x, y, rtol, atol, equal_nan) if wide is not object else x == y
    if not close.all():
        where = tuple(int(i) for i in np.argwhere(~close)[0])
        raise AssertionError(
            msg
            or f"[assert_close] elements must agree to rtol={rtol}, atol={atol}; {int((~close).sum())} of {close.size}"
            f" do not, the first at {list(where)}: {x[where]} and {y[where]}"
        )


def assert_allclose(actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None) -> None:
    """The older name of assert_close, without the check of dtypes."""
    assert_close(actual, expected, rtol=rtol, atol=atol, check_dtype=False)
