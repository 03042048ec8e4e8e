"""Compiled bodies of CPU ops against the plain NumPy ones."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import signal_storm

import ringgrad as rg
from ringgrad.tensor.backend.cpu import gemm, half, library, winograd
from ringgrad.tensor.ops import faster as door

fast = pytest.mark.skipif(library.load() is None, reason="needs the extra `fast`")


def both(monkeypatch: Any, compute: Callable[[], list[Any]]) -> tuple[list[Any], list[Any]]:
    """Results with compiled bodies and with plain ones."""
    compiled = compute()
    monkeypatch.setattr(door, "_bodies", {})
    plain = compute()
    monkeypatch.undo()
    return compiled, plain


def assert_close(a: list[Any], b: list[Any], rtol: float = 1e-5) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * max(1.0, float(np.abs(y).max(initial=0))))


def random(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


CONVOLUTIONS = [
    # input, weight, options
    ((2, 3, 9, 7), (5, 3, 3, 3), {}),
    ((2, 8, 9, 9), (16, 8, 3, 3), {"padding": 1}),
    ((3, 8, 11, 10), (8, 8, 3, 2), {"stride": 2, "padding": 1}),
    ((1, 6, 12, 12), (9, 2, 3, 3), {"groups": 3, "padding": 2, "dilation": 2}),
    ((2, 8, 7, 7), (8, 1, 3, 3), {"groups": 8, "padding": 1}),
    ((4, 16, 5, 5), (7, 16, 1, 1), {}),
    ((2, 3, 20), (4, 3, 5), {"stride": 3}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"padding": (1, 0, 1)}),
]


@fast
@pytest.mark.parametrize("shape,weight,options", CONVOLUTIONS)
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_and_their_gradients_agree(
    monkeypatch: Any, shape: Any, weight: Any, options: Any, transposed: bool
) -> None:
    F = rg.nn.functional
    dims = len(shape) - 2
    body = getattr(F, f"conv{'_transpose' * transposed}{dims}d")

    def compute() -> list[Any]:
        channels = weight[0] if transposed else shape[1]
        x = rg.tensor(random(shape[0], channels, *shape[2:]), requires_grad=True)
        w = rg.tensor(random(*weight), requires_grad=True)
        outs = weight[1] * options.get("groups", 1) if transposed else weight[0]
        b = rg.tensor(random(outs), requires_grad=True)
        y = body(x, w, b, **options)
        (y * y).sum().backward()
        return [t.numpy() for t in (y.detach(), x.grad, w.grad, b.grad)]

    assert_close(*both(monkeypatch, compute))


@fast
def test_strided_input_agrees_and_other_dtypes_are_left_to_the_plain_body(monkeypatch: Any) -> None:
    from ringgrad.tensor.backend.cpu import convolution

    geometry = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    x, w = random(9, 2, 7, 8), random(8, 5, 3, 3)
    assert convolution.conv(x.astype("float64"), w.astype("float64"), **geometry) is None
    strided = x.transpose(1, 3, 2, 0)[:, :5]

    def compute() -> list[Any]:
        return [rg.nn.functional.conv2d(rg.from_numpy(strided), rg.from_numpy(w[:, :5])).numpy()]

    assert_close(*both(monkeypatch, compute))
    assert convolution.conv(strided, w, **geometry) is not None


@fast
@pytest.mark.parametrize("shape", [(4096,), (37, 129), (5, 7, 211), (3, 2, 64, 64), (8, 8)])
@pytest.mark.parametrize("name", ["gelu", "softmax"])
def test_activations_and_their_gradients_agree(monkeypatch: Any, name: str, shape: Any) -> None:
    options = {} if name == "gelu" else {"dim": -1}
    data, slope = random(*shape) * 3, random(*shape[::-1]).T

    def compute() -> list[Any]:
        x = rg.tensor(data, requires_grad=True)
        y = getattr(rg.nn.functional, name)(x, **options)
        y.backward(rg.from_numpy(slope))
        (z,) = rg.autograd.grad(
            getattr(rg.nn.functional, name)(x, **options).square().sum(), x, create_graph=True
        )
        (second,) = rg.autograd.grad(z.sum(), x)
        return [t.detach().numpy() for t in (y, x.grad, second)]

    compiled, plain = both(monkeypatch, compute)
    assert_close(compiled[:2], plain[:2], 3e-6)
    assert_close(compiled[2:], plain[2:], 2e-5)


@fast
@pytest.mark.parametrize("name", ["gelu", "softmax"])
def test_infinite_and_missing_numbers_come_out_as_they_do_in_the_plain_body(
    monkeypatch: Any, name: str
) -> None:
    options = {} if name == "gelu" else {"dim": -1}
    x = random(64, 128)
    x[0, 3], x[1, 4], x[2, 5], x[3] = np.nan, np.inf, -np.inf, -np.inf

    def compute() -> list[Any]:
        return [getattr(rg.nn.functional, name)(rg.from_numpy(x), **options).numpy()]

    with np.errstate(all="ignore"):
        (compiled,), (plain,) = both(monkeypatch, compute)
    np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=3e-6)


@fast
def test_threads_are_shared_with_matrix_products() -> None:
    before = rg.get_num_threads()
    rg.nn.functional.conv2d(rg.ones(1, 1, 4, 4), rg.ones(1, 1, 2, 2))
    try:
        rg.set_num_threads(1)
        assert library.load().threads == 1  # type: ignore[union-attr]
    finally:
        rg.set_num_threads(before)


@fast
def test_a_forked_process_goes_the_plain_way() -> None:
    rg.nn.functional.conv2d(rg.ones(1, 1, 4, 4), rg.ones(1, 1, 2, 2))
    pid = os.fork()
    if not pid:
        y = rg.nn.functional.conv2d(rg.ones(1, 1, 4, 4), rg.ones(1, 1, 2, 2))
        os._exit(0 if door._bodies == {} and float(y.sum()) == 36 else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_setting_switches_compiled_bodies_off() -> None:
    code = (
        "import ringgrad as rg; from ringgrad.tensor.ops import faster\n"
        "rg.nn.functional.conv2d(rg.ones(1, 1, 4, 4), rg.ones(1, 1, 2, 2)); assert faster._bodies == {}"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "RINGGRAD_FAST": "0"}, check=True)


@fast
def test_products_are_numpys_in_any_layout() -> None:
    """By rows, by columns, into a part of a larger array; strided elements and narrow ones are left to NumPy."""
    rng = np.random.default_rng(0)

    def laid(shape: tuple[int, int], turned: bool) -> np.ndarray:
        x = rng.standard_normal(shape[::-1] if turned else shape, np.float32)
        return x.T if turned else x

    for ta, tb in itertools.product((False, True), repeat=2):
        a, b = laid((300, 77), ta), laid((77, 200), tb)
        found = gemm.product(a, b)
        np.testing.assert_allclose(found, a.astype(np.float64) @ b, rtol=0, atol=1e-4)
        wide = np.full((300, 210), 7, np.float32)
        gemm.into(a, b, wide[:, :200])
        np.testing.assert_allclose(wide[:, :200], found, rtol=0, atol=1e-4)
        assert (wide[:, 200:] == 7).all()
        assert np.isnan(gemm.product(np.full_like(a, np.nan), b)).all()
    every_second = rng.standard_normal((300, 200), np.float32)[:, ::2]
    for a, b in [(every_second, laid((100, 200), False)), (laid((7, 512), False), laid((512, 512), False))]:
        assert gemm.product(a, b) is None
        out = np.empty((len(a), b.shape[1]), np.float32)
        gemm.into(a, b, out)
        assert (out == a @ b).all()


@fast
@pytest.mark.parametrize("rows", [(40,) * 9, (40, 30)])
def test_a_matrix_packed_once_multiplies_many(rows: tuple[int, ...]) -> None:
    for b in (random(300, 200), random(200, 300).T):
        multiply = gemm.times(rows, b)
        for i, n in enumerate(rows):
            a, out = random(n, 300) + i, np.empty((n, 200), np.float32)
            multiply(a, out)
            assert_close([out], [a.astype(np.float64) @ b])


@fast
def test_winograds_products_by_numpy_agree(monkeypatch: Any) -> None:
    """As on processors for which oneDNN has no kernels of its own."""
    winograd._products.cache_clear()
    monkeypatch.setattr(library.Library, "body", lambda *_: "gemm:jit")
    flat = [random(36 * (n + winograd.APART)) for n in (6 * 5, 5 * 4, 6 * 4)]
    a, b, out = (x.reshape(36, -1)[:, : -winograd.APART] for x in flat)
    for turned in (False, True):
        winograd._products(6, 5, 4, turned, 1)(*flat)
        left = a.reshape(36, 5, 6).swapaxes(1, 2) if turned else a.reshape(36, 6, 5)
        assert_close([out.reshape(36, 6, 4)], [left @ b.reshape(36, 5, 4)])
    winograd._products.cache_clear()


@fast
@pytest.mark.parametrize(
    "x,k,padding", [((3, 16, 13, 10), 48, (1, 1)), ((2, 16, 8, 8), 16, (0, 2)), ((1, 32, 6, 40), 16, (2, 1))]
)
def test_winograd_convolves_as_direct_sums_do(monkeypatch: Any, x: Any, k: int, padding: Any) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(winograd, "GAIN", 0.0)  # for any size
    monkeypatch.setattr(winograd, "TILES", 24)  # two images at a time, the last time fewer
    monkeypatch.setattr(winograd, "WEIGHTS_AT_ONCE", 36 * 16 * 32)  # and 16 or 32 channels
    for cached in (winograd.worth, winograd.runner):
        cached.cache_clear()
    a, w, b = random(*x), random(k, x[1], 3, 3), random(k)

    def compute(dtype: Any) -> list[Any]:
        given = [rg.tensor(t.astype(dtype)).requires_grad_() for t in (a, w, b)]
        y = rg.nn.functional.conv2d(*given, padding=padding)
        y.backward(rg.tensor(random(*y.shape).astype(dtype)))
        return [y.detach().numpy(), *(t.grad.numpy() for t in given)]

    calls: list[str] = []
    for name in ("convolve", "weight"):
        plain = getattr(winograd.Winograd, name)
        monkeypatch.setattr(
            winograd.Winograd, name, lambda self, *args, f=plain, n=name: calls.append(n) or f(self, *args)
        )
    assert_close(compute("float32"), compute("float64"), 2e-5)
    assert sorted(calls) == ["convolve", "convolve", "weight"]
    a[0, 0, 0, 0] = np.nan
    broken, direct = compute("float32")[0], compute("float64")[0]
    assert np.isnan(broken[np.isnan(direct)]).all() and np.isfinite(broken[0, :, :, 9:]).all()
    assert np.isfinite(broken[1:]).all()
    for cached in (winograd.worth, winograd.runner):
        cached.cache_clear()


@pytest.mark.parametrize(
    "make", [lambda p: rg.optim.SGD(p, 0.1, weight_decay=0.01), lambda p: rg.optim.SGD(p, 0.1, 0.9, nesterov=True),
             lambda p: rg.optim.SGD(p, 0.1, 0.9, 0.5, maximize=True), lambda p: rg.optim.AdamW(p, 0.01),
             lambda p: rg.optim.Adam(p, 0.01, weight_decay=0.1)]
)  # fmt: skip
def test_optimizers_step_in_one_pass_as_in_many(monkeypatch: Any, make: Callable[..., Any]) -> None:
    pytest.importorskip("numba")

    def compute() -> list[Any]:
        params = [rg.tensor(random(n)).requires_grad_() for n in (40, 70_000, 5_000)]
        optimizer = make(params)
        for _ in range(3):
            for p in params:
                p.grad = rg.tensor(random(p.numel() + 1)[1:])
            optimizer.step()
        return [p.detach().numpy() for p in params]

    assert_close(*both(monkeypatch, compute), rtol=1e-6)


@fast
@pytest.mark.skipif(library.load() is not None and not half.native(), reason="no bfloat16 in this processor")
@pytest.mark.parametrize("kind", ["linear", "rows", "batches", "leading"])
def test_bfloat16_products_are_those_of_float32_rounded_once(monkeypatch: Any, kind: str) -> None:
    shapes = {
        "linear": [(4, 70, 64), (96, 64), (96,)],
        "rows": [(130, 96), (96, 128)],
        "batches": [(2, 3, 64, 80), (2, 3, 80, 64)],
        "leading": [(4, 70, 64), (64, 96)],
    }[kind]
    calls: list[str] = []
    plain = half.product
    monkeypatch.setattr(half, "product", lambda *args: calls.append("") or plain(*args))

    def compute() -> list[Any]:
        given = [rg.tensor(random(*shape)).bfloat16().requires_grad_() for shape in shapes]
        if kind == "batches":  # as attention has it: the dimensions are turned around in memory
            given[1] = given[1].detach().transpose(-1, -2).contiguous().transpose(-1, -2).requires_grad_()
        y = rg.nn.functional.linear(*given) if kind == "linear" else rg.matmul(*given)
        y.backward(rg.tensor(random(*y.shape)).bfloat16())
        return [t.float().detach().numpy() for t in (y, *(t.grad for t in given))]

    door.faster("half_fits", np, np.ones((1, 1)), np.ones((1, 1)))  # the bodies are looked up
    found = compute()
    assert len(calls) == 3
    monkeypatch.setattr(door, "_bodies", {})
    assert_close(found, compute(), rtol=2**-8)


@fast
def test_signals_do_not_change_results() -> None:
    """oneDNN's sgemm keeps numbers where the kernel lays a signal's frame: results, or the heap, were damaged."""
    done = subprocess.run(
        [sys.executable, signal_storm.__file__, "2"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONFAULTHANDLER": ""},  # which would give signals a stack of their own
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"heard: (\d+), wrong: \[\]", done.stdout.strip())
    assert found and int(found[1]) > 100, done.stdout
