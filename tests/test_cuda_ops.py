"""Every op of the registry on the fake CUDA device: the CPU's results, forward and backward, in three dtypes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ringgrad as rg
from ringgrad.autograd.engine import Variable, wrap
from ringgrad.autograd.op import registry, tensor_ops

sys.path.insert(0, str(Path(__file__).parent))
import fakecuda
from op_samples import COMPLEX_OPS, INTEGER_ONLY, SAMPLES, A, settled

OPS = sorted(set(registry) & set(SAMPLES))
# the host computes these: CuPy has no such function (docs/gpu.md lists them)
ON_THE_CPU: set[str] = set()


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    with fakecuda.installed() as cp:
        yield cp


def call(name: str, i: int, dtype: Any, place: Any, grad: bool) -> tuple[list[Any], list[Any]]:
    """Outputs and gradients of one sample as NumPy arrays; `place` moves arrays to the device under test."""

    def tensor(a: A) -> Any:
        t = wrap(place(a.make(dtype)))
        if grad and a.kind not in ("fixed", "complex") and t.is_floating_point():
            t.requires_grad_()
        return t

    args, kw = SAMPLES[name][i].build(tensor)
    for key in ("index", "mask"):
        if key in kw:
            kw[key] = plain(kw[key])
    if name == "copy_to":
        kw["device"] = args[0].device
    args, kw = settle(args, kw, place)
    out = tensor_ops[name](*args, **kw)
    outs = list(out) if isinstance(out, tuple) else [out]
    leaves = [a for a in args if isinstance(a, Variable) and a._needs]
    ends = [t for t in outs if t.requires_grad]
    if ends and leaves:
        seeds = [
            wrap(place(np.linspace(0.5, 1.5, t.numel()).reshape(t.shape).astype(t.array.dtype))) for t in ends
        ]
        rg.autograd.backward(ends, seeds)
    return [host(t.array) for t in outs], [None if t.grad is None else host(t.grad.array) for t in leaves]


def settle(args: list[Any], kw: dict[str, Any], place: Any) -> Any:
    """`Derived` arguments, which are functions of host arrays."""
    hosts = [wrap(host(a.array)) if isinstance(a, Variable) else a for a in args]
    made, options = settled(hosts, kw, wrap)
    out = [a if h is m else wrap(place(m.array)) for a, h, m in zip(args, hosts, made)]
    return out, {k: place(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


def plain(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(plain(i) for i in index)
    return index.array if isinstance(index, Variable) else index


def host(array: Any) -> np.ndarray[Any, Any]:
    return array if isinstance(array, np.ndarray) else array.get()


def on_device(cp: Any) -> Any:
    def place(array: np.ndarray[Any, Any]) -> Any:
        made = cp.asarray(np.ascontiguousarray(array).reshape(array.shape))
        if 0 in array.strides and array.size:
            return cp.broadcast_to(cp.asarray(np.ascontiguousarray(array[:1])), array.shape)
        if array.ndim >= 2 and not array.flags.c_contiguous:  # transposed, or every second element
            return cp.ascontiguousarray(made.swapaxes(-1, -2)).swapaxes(-1, -2)
        return made

    return place


CASES = [pytest.param(name, i, id=f"{name}-{i}") for name in OPS for i in range(len(SAMPLES[name]))]


@pytest.mark.parametrize(("name", "i"), CASES)
def test_every_op_gives_the_cpus_results(cupy: Any, name: str, i: int) -> None:
    dtype = "int64" if name in INTEGER_ONLY else "float32"
    want, want_grads = call(name, i, dtype, np.array, name not in COMPLEX_OPS)
    got, grads = call(name, i, dtype, on_device(cupy), name not in COMPLEX_OPS)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(grads, want_grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == b.shape and a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in OPS if n not in {"cast"} | INTEGER_ONLY | COMPLEX_OPS])
@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_half_types_give_the_cpus_results(cupy: Any, name: str, low: str) -> None:
    dtype = np.dtype(ml_dtypes.bfloat16) if low == "bfloat16" else np.dtype(low)
    step = 2**-8 if low == "bfloat16" else 2**-11
    want, want_grads = call(name, 0, dtype, np.array, True)
    got, grads = call(name, 0, dtype, on_device(cupy), True)
    for a, b in zip([*got, *grads], [*want, *want_grads], strict=True):
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(
                a.astype(np.float64), b.astype(np.float64), rtol=4 * step, atol=4 * step
            )
