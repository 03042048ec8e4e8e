"""Every op sample through the jit: forward and gradients, recorded with some values and replayed with others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from op_samples import COMPLEX_OPS, INTEGER_ONLY, SAMPLES, A, settled

import ringgrad as rg
from ringgrad.autograd.engine import Variable, wrap
from ringgrad.autograd.op import registry, tensor_ops
from ringgrad.jit.compiled import Compiled
from ringgrad.jit.passes.lower import RULES, UFUNCS

DTYPES = ("float32", "float16")
# bodies that look at values: a result's shape, whether exponentials stay in range, an exponent that is one number
LOOKING = {"masked_select", "logcumsumexp", "pow"}


def arguments(sample: Any, dtype: str, turn: int) -> tuple[list[Any], dict[str, Any], list[str]]:
    """Arguments with Tensors for all arrays; in later turns with other values of the same kind in the same layout."""

    def tensor(a: A) -> Any:
        array = a.make(dtype)
        movable = a.kind in ("float", "fixed", "nonzero", "complex") and a.layout != "expanded"
        if turn and array.size > 1 and movable:
            array[...] = array[..., ::-1] * array.dtype.type(1 if array.dtype.kind in "iub" else 0.875)
        t = wrap(array)
        return t.requires_grad_() if a.kind in ("float", "nonzero") and t.is_floating_point() else t

    args, kw = settled(*sample.build(tensor), wrap)
    args, kw = [wrapped(v) for v in args], {k: wrapped(v) for k, v in kw.items()}
    names = [k for k, v in kw.items() if tensors(v)]
    return args, kw, names


def wrapped(v: Any) -> Any:
    """With Tensors for arrays."""
    return tuple(map(wrapped, v)) if type(v) is tuple else wrap(v) if isinstance(v, np.ndarray) else v


def tensors(v: Any) -> bool:
    return isinstance(v, Variable) or (isinstance(v, tuple) and any(map(tensors, v)))


def arrays(v: Any) -> Any:
    return tuple(map(arrays, v)) if isinstance(v, tuple) else v.array if isinstance(v, Variable) else v


def function(name: str, kw: dict[str, Any], names: list[str]) -> Any:
    op = tensor_ops[name]

    def call(args: list[Any], late: list[Any]) -> Any:
        given = {**kw, **{k: arrays(t) for k, t in zip(names, late)}}
        out = op(*args, **given)
        parts = out if isinstance(out, tuple) else (out,)
        loss = None
        for part in parts:
            if part.requires_grad and not part.is_complex():
                term = (part * part).sum() + part.sum()
                loss = term if loss is None else loss + term
        leaves = [a for a in args if isinstance(a, Variable) and a.requires_grad]
        if loss is None or not leaves:
            return [p.detach() for p in parts], []
        grads = rg.autograd.grad(loss, leaves, allow_unused=True)
        return [p.detach() for p in parts], [g for g in grads if g is not None]

    return call


def equal(a: Any, b: Any) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.array.dtype == y.array.dtype and x.array.shape == y.array.shape
        np.testing.assert_array_equal(x.array, y.array)


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize("name", [n for n in sorted(registry) if n in SAMPLES])
def test_op_jit_equals_eager(name: str) -> None:
    replayed = total = 0
    why = set()
    for sample in SAMPLES[name]:
        dtypes = (
            ("int64",)
            if name in INTEGER_ONLY
            else ("float32", "complex64")
            if name in COMPLEX_OPS
            else DTYPES
        )
        for dtype in dtypes:
            try:
                args, kw, names = arguments(sample, dtype, 0)
                late = [kw[k] for k in names]
                call = function(name, {k: v for k, v in kw.items() if k not in names}, names)
                want = call(args, late)
            except (RuntimeError, TypeError, NotImplementedError):
                continue
            compiled = Compiled(call, exact=True)
            for turn in (0, 0, 1):
                args, kw, _ = arguments(sample, dtype, turn)
                late = [kw[k] for k in names]
                got, want = compiled(args, late), call(args, late)
                equal(got[0], want[0])
                equal(got[1], want[1])
            replayed += compiled.calls["replayed"]
            if not compiled.calls["replayed"]:
                why |= {(e.eager or e.why) for e in compiled.table.values()}
            total += 1
    if name in LOOKING:
        why = {w for w in why if "looks at" not in w and "shape" not in w}
    assert not why and (replayed == total or name in LOOKING), (replayed, total, why)


@pytest.mark.parametrize("name", sorted(({op for _, op in RULES} | set(UFUNCS)) - {"moments", "batch_norm"}))
def test_kernels_equal_ops_but_for_rounding(name: str) -> None:
    replayed = 0
    for sample in SAMPLES[name]:
        try:
            args, kw, names = arguments(sample, "float32", 0)
            call = function(name, {k: v for k, v in kw.items() if k not in names}, names)
            call(args, [kw[k] for k in names])
        except (RuntimeError, TypeError, NotImplementedError):
            continue
        compiled = Compiled(call)
        for turn in (0, 0, 1):
            args, kw, _ = arguments(sample, "float32", turn)
            late = [kw[k] for k in names]
            got, want = compiled(args, late), call(args, late)
            for x, y in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
                assert x.array.dtype == y.array.dtype
                np.testing.assert_allclose(x.array, y.array, rtol=2e-5, atol=2e-6)
        replayed += compiled.calls["replayed"]
    assert replayed
