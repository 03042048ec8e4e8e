"""Chains of views, and writes through them, beside PyTorch's: values, strides, whether memory is shared, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringgrad

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

# name -> a view, from the tensor and whole numbers that are brought into range
VIEWS: dict[str, Any] = {
    "transpose": lambda t, a, b: t.transpose(a % t.ndim, b % t.ndim),
    "narrow": lambda t, a, b: t.narrow(
        a % t.ndim, b % t.shape[a % t.ndim], 1 + (t.shape[a % t.ndim] - b) % 1
    ),
    "slice": lambda t, a, b: t[:, b % 2 :: 1 + a % 2] if t.ndim > 1 else t[b % 2 :: 1 + a % 2],
    "select": lambda t, a, b: t.select(a % t.ndim, b % t.shape[a % t.ndim]) if t.ndim > 1 else t,
    "unsqueeze": lambda t, a, b: t.unsqueeze(a % (t.ndim + 1)) if t.ndim < 4 else t.squeeze(),
    "diagonal": lambda t, a, b: t.diagonal(0, 0, 1) if t.ndim > 1 else t,
    "permute": lambda t, a, b: t.permute(*np.roll(range(t.ndim), a).tolist()),
    "flatten": lambda t, a, b: t.view(-1) if t.is_contiguous() else t.t() if t.ndim == 2 else t,
    "unfold": lambda t, a, b: t.unfold(0, 1 + a % t.shape[0], 1 + b % 2) if t.ndim < 4 else t,
    "as_strided": lambda t, a, b: (
        t.as_strided((1 + a % 2, 2), (2, 1), b % 3) if t.is_contiguous() and t.numel() > 6 else t
    ),
}
WRITES: dict[str, Any] = {
    "add_": lambda t: t.add_(1.5),
    "mul_": lambda t: t.mul_(t.detach() * 0.5),
    "zero first": lambda t: t[0].zero_() if t.ndim else t.zero_(),
    "masked": lambda t: t.masked_fill_(t > 4, -1.0),
    "copy": lambda t: t.copy_(t.detach().flip(0) if t.ndim else t.detach()),
}
steps = st.lists(st.tuples(st.sampled_from(sorted(VIEWS)), st.integers(0, 5), st.integers(0, 5)), max_size=4)


def overlaps(t: Any) -> bool:
    """Whether elements share memory: writing there is refused or undefined."""
    at = np.zeros(t.shape, int)
    for k, (n, s) in enumerate(zip(t.shape, t.stride())):
        at += (np.arange(n) * s).reshape(-1, *[1] * (t.ndim - k - 1))
    return np.unique(at).size != at.size


def run(t: Any, shape: tuple[int, ...], chain: Any, write: str | None) -> list[Any]:
    """The view's values, shape, strides and offset; what the base holds after the write; the base's gradient."""
    leaf = t.arange(float(np.prod(shape))).reshape(shape).requires_grad_()
    base = leaf * 1
    view = base
    for name, a, b in chain:
        view = VIEWS[name](view, a, b)
    strides = tuple(s for s, n in zip(view.stride(), view.shape) if n > 1)  # of others they say nothing
    found: list[Any] = [tuple(view.shape), view.detach().tolist(), view._base is not None]
    if view.numel():
        found += [strides, view.storage_offset(), view.data_ptr() - base.data_ptr(), view.is_contiguous()]
    if write is not None and not overlaps(view):
        WRITES[write](view)
    (base * base + view.sum()).sum().backward()
    return [*found, base.detach().tolist(), leaf.grad.tolist()]


@settings(max_examples=100)
@given(st.sampled_from([(3, 4), (2, 3, 4), (7,), (4, 4)]), steps, st.sampled_from([None, *sorted(WRITES)]))
def test_views_and_writes_through_them_are_pytorchs(shape: Any, chain: Any, write: Any) -> None:
    try:
        want = run(torch, shape, chain, write)
    except (RuntimeError, IndexError) as error:
        with pytest.raises(type(error)):
            run(ringgrad, shape, chain, write)
        return
    assert run(ringgrad, shape, chain, write) == want
