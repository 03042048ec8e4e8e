"""Loops compiled by numba against PyTorch and against the plain bodies."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.tensor.backend.cpu import imaged, looped, recurrent
from ringgrad.tensor.ops import faster as door
from ringgrad.tensor.ops import index as _index

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops from the first element on."""
    monkeypatch.setattr(looped, "WORTH", -1.0)
    monkeypatch.setattr(looped, "LARGE", 0)
    monkeypatch.setattr(door, "_bodies", {**looped.BODIES, **recurrent.BODIES, **imaged.BODIES})


def seeded(module: Any) -> None:
    module.manual_seed(11)
    module.randn(1)  # leaves a normal number over


def assert_same_place(torch: Any) -> None:
    """Both generators are at the same word, with the same normal number left over."""
    np.testing.assert_allclose(rg.randn(1).item(), torch.randn(1).item(), rtol=1e-6)
    assert rg.rand(1).item() == torch.rand(1).item()


@pytest.mark.parametrize("n", [0, 1, 2, 1023, 70000])
def test_permutations_are_pytorchs(n: int) -> None:
    torch = pytest.importorskip("torch")
    seeded(torch), seeded(rg)
    assert rg.randperm(n).tolist() == torch.randperm(n).tolist()
    assert_same_place(torch)


@pytest.mark.parametrize("alpha", [0.03, 0.9, 40.0])
@pytest.mark.parametrize("shape", [(0,), (7,), (130, 150)])
def test_gamma_numbers_are_pytorchs(alpha: float, shape: Any) -> None:
    torch = pytest.importorskip("torch")
    seeded(torch), seeded(rg)
    shapes = np.random.default_rng(1).uniform(alpha, 2 * alpha, shape).astype(np.float32)
    want = torch.distributions.Gamma(torch.tensor(shapes), torch.ones(shape)).sample().numpy()
    got = rg.distributions.Gamma(rg.tensor(shapes), rg.ones(shape)).sample().numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert_same_place(torch)


@pytest.mark.parametrize("rate", [0.0, 0.2, 9.0, 11.0, 3e4])
def test_poisson_counts_are_pytorchs(rate: float) -> None:
    torch = pytest.importorskip("torch")
    seeded(torch), seeded(rg)
    rates = np.random.default_rng(2).uniform(rate, 2 * rate, (150, 150)).astype(np.float32)
    assert (rg.poisson(rg.tensor(rates)).numpy() == torch.poisson(torch.tensor(rates)).numpy()).all()
    assert_same_place(torch)


def test_a_number_that_wants_more_words_than_were_guessed_gets_them() -> None:
    from ringgrad.tensor.generator import Generator
    from ringgrad.tensor.generator_sampling import by_loop

    def greedy(parameters: Any, words: Any, spare: float, out: Any) -> tuple[int, int, float]:
        if words.size < 1000:
            return 0, 0, spare
        out[0] = words[999]
        return 1, 1000, spare

    drawn = by_loop(Generator().manual_seed(3), greedy, np.ones(2), words=1)
    assert drawn.tolist() == Generator().manual_seed(3).words(2000)[[999, 1999]].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_running_extremes_are_pytorchs(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = (np.random.default_rng(0).standard_normal((5, 40, 9)) * 9).round()  # with ties
    if dtype[0] == "f":
        x[2, 11], x[3, 4, 5:], x[0, 0, 0] = np.nan, np.nan, -np.inf
    x = x.astype(dtype)
    for dim in range(3):
        for view in (x, x[:, ::2], x.transpose(2, 1, 0)):
            values, places = getattr(torch, name)(torch.tensor(view), dim)
            ours = getattr(rg, name)(rg.from_numpy(view), dim)
            assert (ours.indices.numpy() == places.numpy()).all()
            np.testing.assert_array_equal(ours.values.numpy(), values.numpy())


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_scans_have_the_plain_bodys_bits(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((16, 40, 9))
    for dtype in ("float32", "float64"):
        t = x.astype(dtype)
        for view in (t, t[:, ::2], t.transpose(2, 1, 0)):
            for dim in range(3):
                got = getattr(rg, name)(rg.from_numpy(view), dim).numpy()
                assert (got == getattr(np, name)(view, axis=dim)).all()
    assert rg.arange(5000).cumsum(0)[-1].item() == 4999 * 2500


@pytest.mark.parametrize("affine", [(), ("weight",), ("weight", "bias")])
def test_layer_norm_agrees_with_the_plain_body(affine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((40, 65)).astype(np.float32) + 1 for _ in range(2))
    x[3, 4] = np.nan

    def compute() -> list[Any]:
        given = {name: rg.tensor(x[k], requires_grad=True) for k, name in enumerate(affine)}
        t = rg.tensor(x, requires_grad=True)
        y = rg.nn.functional.layer_norm(t, (65,), **given)
        y.backward(rg.tensor(g))
        return [y.detach(), t.grad, *(p.grad for p in given.values())]

    compiled = compute()
    monkeypatch.setattr(door, "_bodies", {})
    for a, b in zip(compiled, compute(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-4)


F = rg.nn.functional
IMAGES: dict[str, Any] = {
    "batch_norm": lambda x, w: F.batch_norm(x, None, None, w[0], w[1], training=True),
    "batch_norm without affine": lambda x, w: F.batch_norm(x, None, None, training=True) + 0 * w.sum(),
    "batch_norm of rows": lambda x, w: F.batch_norm(x[:, :, 0, 0], None, None, w[0], training=True),
    "max_pool 2": lambda x, w: F.max_pool2d(x, 2),
    "max_pool overlapping": lambda x, w: F.max_pool2d(x, 3, 2, 1),
    "max_pool of rectangles": lambda x, w: F.max_pool2d(x, (2, 3), (1, 2), (1, 0)),
    "max_pool of a view": lambda x, w: F.max_pool2d(x.transpose(2, 3), 2, ceil_mode=True),
}


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("bad", [None, np.nan, -np.inf])
def test_loops_over_images_agree_with_the_plain_bodies(
    case: str, bad: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((3, 5, 7, 8)).astype(np.float32).round(1)  # with ties
    if bad is not None:
        data[1, 2, 3, 3:5] = bad
    weights = rng.standard_normal((2, 5)).astype(np.float32)

    def compute() -> list[Any]:
        x, w = rg.tensor(data, requires_grad=True), rg.tensor(weights, requires_grad=True)
        y = IMAGES[case](x, w)
        y.backward(rg.sin(rg.arange(y.numel())).reshape(y.shape))
        return [y.detach(), x.grad, *([w.grad] if w.grad is not None else [])]

    compiled = compute()
    monkeypatch.setattr(door, "_bodies", {})
    for a, b in zip(compiled, compute(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 4, 1]])
def test_the_lstm_agrees_with_the_plain_body(
    bias: bool, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rg.manual_seed(0)
    layer = rg.nn.LSTM(5, 7, num_layers=2, bidirectional=True, bias=bias)
    data = np.random.default_rng(0).standard_normal((6, 3, 5)).astype(np.float32)

    def compute() -> list[Any]:
        layer.zero_grad()
        x = rg.tensor(data, requires_grad=True)
        y, (h, c) = layer(rg.nn.utils.rnn.pack_padded_sequence(x, lengths))
        ((y.data**2).sum() + (h * c).sum()).backward()
        return [
            y.data.detach(),
            h.detach(),
            c.detach(),
            x.grad,
            *(p.grad.clone() for p in layer.parameters()),
        ]

    compiled = compute()
    monkeypatch.setattr(door, "_bodies", {})
    for a, b in zip(compiled, compute(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=2e-6)


def test_a_short_script_does_not_wait_for_a_compiler() -> None:
    code = (
        "import sys, ringgrad as rg; rg.randperm(1000); rg.randn(9, 9).cummax(1); rg.poisson(rg.ones(99));"
        "rg.nn.functional.layer_norm(rg.ones(4, 8), (8,)); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "complex64", "int16"])
def test_choosing_by_a_mask_is_numpys_where(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, dtype: str
) -> None:
    from ringgrad.tensor.ops import choose

    if not compiled:
        monkeypatch.setattr(door, "_bodies", {})
    r = np.random.default_rng(4)
    square, batch = (50, 50), (8, 50, 50)
    for shapes in [(square,) * 3, (square, batch, ()), (square, (), batch), (batch, (50, 1), square)]:
        mask = r.random(shapes[0]) > 0.5
        a, b = (np.asarray(r.standard_normal(s) * 9).astype(dtype) for s in shapes[1:])
        want, got = np.where(mask, a, b), choose.where(np, mask, a, b)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
        if a.shape == b.shape:
            np.testing.assert_array_equal(choose.where(np, mask.T, a.T, b.T), want.T)


def test_the_gradient_of_a_choice_is_0_even_beside_infinity() -> None:
    torch = pytest.importorskip("torch")
    for n in (4, 5000):
        x = np.array([1, -1, np.nan, 2] * n, np.float32)
        g = np.array([1, np.inf, np.nan, -np.inf] * n, np.float32)
        for name in ("relu", "relu6", "leaky_relu", "elu", "hardshrink"):
            ours, theirs = rg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            getattr(rg.nn.functional, name)(ours).backward(rg.tensor(g))
            getattr(torch.nn.functional, name)(theirs).backward(torch.tensor(g))
            np.testing.assert_allclose(ours.grad.numpy()[:2], theirs.grad.numpy()[:2], err_msg=name)


def test_activations_have_the_plain_bodies_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(9).standard_normal(70_000).astype(np.float32) * 4
    x[:5] = [0, -0.0, np.inf, -np.inf, np.nan]
    ops = rg.nn.functional
    calls: list[Any] = [ops.leaky_relu, ops.hardswish, ops.relu6, ops.relu]
    calls += [lambda t: ops.smooth_l1_loss(t, rg.zeros_like(t), reduction="none", beta=0.7)]
    fast = [call(rg.tensor(x)).numpy() for call in calls]
    monkeypatch.setattr(door, "_bodies", {})
    for got, call in zip(fast, calls):
        np.testing.assert_array_equal(got, call(rg.tensor(x)).numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_casts_to_16_bits_are_pytorchs(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(6).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    ties = np.arange(1 << 16, dtype=np.uint32) << 13  # numbers half way between two of float16
    x = np.concatenate(
        [bits, ties, bits >> 4 << 4, np.uint32([0, 1 << 31, 0x7F800000, 0xFF800000, 0x477FEFFF, 0x477FF000])]
    )
    x = x.view(np.float32)
    ours, theirs = rg.tensor(x).to(getattr(rg, dtype)), torch.tensor(x).to(getattr(torch, dtype))
    known = ~np.isnan(x)
    same = ours.view(rg.int16).numpy() == theirs.view(torch.int16).numpy()
    assert same[known].all()
    back = ours.float().numpy()
    np.testing.assert_array_equal(back, theirs.float().numpy())


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_rows_are_added_as_pytorch_adds_them(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(_index, "LARGE", 0)
    r = np.random.default_rng(7)
    x, index = r.standard_normal((9, 20, 30)), r.integers(0, 9, 50)
    source = np.moveaxis(r.standard_normal((50, *np.delete(x.shape, dim))), 0, dim)
    for name in ("index_add", "index_select", "getitem"):
        grads = []
        for m in (rg, torch):
            t = m.tensor(x, requires_grad=True)
            s = m.tensor(source, requires_grad=True)
            y = (
                t.index_add(dim, m.tensor(index), s)
                if name == "index_add"
                else t.index_select(dim, m.tensor(index))
            )
            (y * y).sum().backward()
            grads.append([y.detach().numpy(), t.grad.numpy(), None if s.grad is None else s.grad.numpy()])
        for ours, theirs in zip(*grads):
            if theirs is not None:
                np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    table, tokens = r.standard_normal((9, 40)), np.array([[1, 3, 3], [-1, 0, 8]])
    for m in (rg, torch):
        t = m.tensor(table, requires_grad=True)
        (t[m.tensor(tokens)] ** 2).sum().backward()
        grads.append(t.grad.numpy())
    np.testing.assert_allclose(grads[-2], grads[-1], rtol=1e-12)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gathered_elements_are_pytorchs(dim: int) -> None:
    torch = pytest.importorskip("torch")
    r = np.random.default_rng(5)
    for shape in [(9, 20, 30), (9, 11, 30), (9, 20, 4), (3, 20, 30)]:
        x, index = r.standard_normal((9, 20, 30)), r.integers(0, 9, shape)
        want = torch.gather(torch.tensor(x), dim, torch.tensor(index)).numpy()
        np.testing.assert_array_equal(rg.gather(rg.tensor(x), dim, rg.tensor(index)).numpy(), want)
