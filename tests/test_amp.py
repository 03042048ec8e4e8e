"""Mixed precision: what autocast casts, and how GradScaler moves its scale."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import amp, optim
from ringgrad.autograd.op import registry, tensor_ops


def parameter(*shape: int, seed: int = 0) -> Any:
    return rg.Parameter(rg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32)))


# ---- autocast


@pytest.mark.parametrize("low", [rg.bfloat16, rg.float16])
def test_products_take_16_bits_and_gradients_come_in_the_parameters_dtype(low: Any) -> None:
    x, w, b = rg.tensor(np.eye(3, dtype=np.float32)), parameter(4, 3), parameter(4, seed=1)
    with amp.autocast("cpu", dtype=low):
        y = tensor_ops["linear"](x, w, b)
        z = x @ w.t()
        outside = x + w[0]
    assert y.dtype == low and z.dtype == low and outside.dtype == rg.float32
    np.testing.assert_array_equal(z.float().array, w.detach().to(low).float().array.T)
    y.float().sum().backward()
    assert w.grad.dtype == rg.float32 and b.grad.tolist() == [3.0] * 4
    assert (x @ w.t()).dtype == rg.float32


def test_what_is_cast_and_what_is_not() -> None:
    x, half = rg.ones(2, 3), rg.ones(3, 2, dtype=rg.float16)
    double, whole = rg.ones(3, 3, dtype=rg.float64), rg.ones(2, 2, dtype=rg.int64)
    with amp.autocast("cpu"):
        assert (x @ half).dtype == rg.bfloat16  # both into one dtype
        assert (double @ double).dtype == rg.float64
        assert (whole @ whole).dtype == rg.int64
        assert half.prod().dtype == rg.float32
        assert half.sum().dtype == rg.float16


@pytest.mark.parity
def test_dtypes_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    found = []
    for lib in (torch, rg):
        F = lib.nn.functional
        x, w, b = lib.ones(4, 8), lib.ones(8, 8, requires_grad=True), lib.ones(8)
        h, target = lib.ones(4, 8, dtype=lib.bfloat16), lib.tensor([0, 1, 2, 3])
        with lib.amp.autocast("cpu") if lib is torch else amp.autocast("cpu"):
            results = {
                "matmul": x @ w,
                "mixed": h @ w,
                "linear": F.linear(x, w, b),
                "softmax": F.softmax(h, -1),
                "log_softmax": F.log_softmax(h, -1),
                "layer_norm": F.layer_norm(h, (8,)),
                "cross_entropy": F.cross_entropy(h, target),
                "mse": F.mse_loss(h, h),
                "exp": h.exp(),
                "prod": h.prod(),
                "pow": h**2,
                "gelu": F.gelu(h),
                "add": h + x,
                "attention": F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
            }
        found.append({name: str(y.dtype).split(".")[1] for name, y in results.items()})
    assert found[1] == found[0]


def test_settings_are_restored_and_may_be_nested() -> None:
    x = rg.ones(2, 2)
    assert not amp.is_autocast_enabled("cpu")
    with amp.autocast("cpu", dtype=rg.float16):
        assert amp.is_autocast_enabled("cpu") and amp.get_autocast_dtype("cpu") == rg.float16
        with amp.autocast("cpu", enabled=False):
            assert (x @ x).dtype == rg.float32
        with amp.autocast("cpu", dtype=rg.bfloat16):
            assert (x @ x).dtype == rg.bfloat16
        assert (x @ x).dtype == rg.float16
    assert amp.get_autocast_dtype("cpu") == rg.bfloat16 and amp.get_autocast_dtype("cuda") == rg.float16
    with pytest.raises(KeyError), amp.autocast("cpu"):
        raise KeyError
    assert not amp.is_autocast_enabled("cpu") and (x @ x).dtype == rg.float32


def test_ops_are_as_before_when_nobody_is_within() -> None:
    before = {name: op.prepare for name, op in registry.items()}
    with amp.autocast("cpu"), amp.autocast("cpu"):
        assert registry["matmul"].prepare is not before["matmul"]
    assert {name: op.prepare for name, op in registry.items()} == before


def test_other_threads_are_not_concerned() -> None:
    x, seen = rg.ones(2, 2), []
    with amp.autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append(((x @ x).dtype, amp.is_autocast_enabled("cpu"))))
        thread.start()
        thread.join()
        assert (x @ x).dtype == rg.bfloat16
    assert seen == [(rg.float32, False)]


def test_as_a_decorator_again_and_within_itself() -> None:
    @amp.autocast("cpu")
    def product(x: Any, depth: int) -> Any:
        return product(x, depth - 1) if depth else x @ x

    for _ in range(2):
        assert product(rg.ones(2, 2), 3).dtype == rg.bfloat16
        assert not amp.is_autocast_enabled("cpu")
    with pytest.raises(TypeError, match="came int"):
        amp.autocast("cpu")(3)


def test_a_parameter_is_cast_once_until_the_end_or_a_write() -> None:
    w, x = parameter(2, 2), rg.ones(2, 2)
    with amp.autocast("cpu"):
        x @ w
        held = amp.state.cache[w][1]
        x @ w
        assert amp.state.cache[w][1] is held
        with rg.no_grad():
            w.add_(1.0)
        np.testing.assert_allclose((x @ w).float().array, x.array @ w.array, rtol=0.02, atol=0.02)
        assert amp.state.cache[w][1] is not held
        with rg.no_grad():
            x @ parameter(2, 2)  # what was cast without a graph must not serve ops that need one
        amp.clear_autocast_cache()
        assert not amp.state.cache
        x @ w
    assert not amp.state.cache
    with amp.autocast("cpu", cache_enabled=False):
        x @ w
        assert not amp.state.cache and not amp.is_autocast_cache_enabled()


def test_the_cached_cast_passes_all_gradients_on() -> None:
    w = parameter(2, 2)
    with amp.autocast("cpu"):
        y = (rg.ones(1, 2) @ w).float().sum() + (rg.ones(3, 2) @ w).float().sum()
    y.backward()
    assert w.grad.tolist() == [[4.0, 4.0]] * 2


def test_autocast_mistakes() -> None:
    with pytest.raises(RuntimeError, match="came 'tpu'"):
        amp.autocast("tpu")
    with pytest.raises(ValueError, match="came int"):
        amp.autocast(0)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="came ringgrad.float64"):
        off = amp.autocast("cpu", dtype=rg.float64)
    with off:
        assert not amp.is_autocast_enabled("cpu")


@pytest.mark.skipif(rg.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_cuda_is_off_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="autocast.* is off"):
        off = amp.autocast("cuda")
    with off:
        assert not amp.is_autocast_enabled()
    with pytest.warns(UserWarning, match="off"):
        amp.CudaAutocast(dtype=rg.bfloat16)
    amp.CudaAutocast(enabled=False)


def test_custom_functions_choose_their_dtype() -> None:
    seen = []

    class Double(rg.autograd.Function):
        @staticmethod
        @amp.custom_fwd(device_type="cpu", cast_inputs=rg.float32)
        def forward(ctx: Any, x: Any) -> Any:
            seen.append((x.dtype, amp.is_autocast_enabled("cpu")))
            return x * 2

        @staticmethod
        @amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, g: Any) -> Any:
            seen.append((g.dtype, amp.is_autocast_enabled("cpu")))
            return g * 2

    x = rg.ones(2, dtype=rg.bfloat16, requires_grad=True)
    with amp.autocast("cpu"):
        y = Double.apply(x)
    y.sum().backward()
    assert seen == [(rg.float32, False), (rg.float32, False)]


# ---- GradScaler


def scaled_step(scaler: Any, optimizer: Any, p: Any, factor: float = 1.0) -> None:
    optimizer.zero_grad()
    scaler.scale((p * factor).sum()).backward()
    scaler.step(optimizer)
    scaler.update()


def test_a_good_step_is_the_step_without_scale() -> None:
    p = parameter(3)
    before = p.array.copy()
    scaler, optimizer = amp.GradScaler("cpu", init_scale=1024.0), optim.SGD([p], lr=1.0)
    loss = p.sum()
    assert scaler.scale(loss).item() == pytest.approx(loss.item() * 1024)
    scaled_step(scaler, optimizer, p)
    np.testing.assert_array_equal(p.array, before - 1)
    assert p.grad.tolist() == [1.0] * 3 and scaler.get_scale() == 1024.0


def test_overflow_skips_the_step_and_shrinks_the_scale() -> None:
    p = parameter(3)
    before = p.array.copy()
    scaler, optimizer = amp.GradScaler("cpu", init_scale=8.0, growth_interval=2), optim.SGD([p], lr=1.0)
    scaled_step(scaler, optimizer, p)
    scaled_step(scaler, optimizer, p, factor=float("inf"))
    np.testing.assert_array_equal(p.array, before - 1)
    assert scaler.get_scale() == 4.0 and scaler._get_growth_tracker() == 0
    scaled_step(scaler, optimizer, p, factor=float("nan"))
    assert scaler.get_scale() == 2.0
    for expected in (2.0, 4.0, 4.0, 8.0):
        scaled_step(scaler, optimizer, p)
        assert scaler.get_scale() == expected


def test_the_scale_does_not_grow_to_infinity() -> None:
    p = parameter(1)
    scaler, optimizer = amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1), optim.SGD([p], lr=1.0)
    scaled_step(scaler, optimizer, p, factor=1e-3)
    assert scaler.get_scale() == 2.0**127


def test_unscale_before_clipping() -> None:
    p = parameter(2)
    scaler, optimizer = amp.GradScaler("cpu", init_scale=4.0), optim.SGD([p], lr=1.0)
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimizer)
    assert p.grad.tolist() == [1.0, 1.0]
    p.grad.mul_(0.5)
    with pytest.raises(RuntimeError, match="already called"):
        scaler.unscale_(optimizer)
    before = p.array.copy()
    scaler.step(optimizer)
    np.testing.assert_array_equal(p.array, before - 0.5)
    with pytest.raises(RuntimeError, match="already called"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="before step"):
        scaler.unscale_(optimizer)
    scaler.update()


def test_two_optimizers_share_a_scale() -> None:
    p, q = parameter(2), parameter(2, seed=1)
    one, other = optim.SGD([p], lr=1.0), optim.SGD([q], lr=1.0)
    scaler = amp.GradScaler("cpu", init_scale=4.0)
    before = p.array.copy(), q.array.copy()
    scaled = scaler.scale([p.sum(), (q * float("inf")).sum()])
    assert isinstance(scaled, list)
    for loss in scaled:
        loss.backward()
    assert scaler.step(one, lambda: 5) == 5
    scaler.step(other)
    scaler.update()
    np.testing.assert_array_equal(p.array, before[0] - 1)
    np.testing.assert_array_equal(q.array, before[1])
    assert scaler.get_scale() == 2.0


@pytest.mark.parity
def test_scales_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    kw = dict(init_scale=2.0**10, growth_factor=3.0, backoff_factor=0.25, growth_interval=3)
    scales = []
    for lib, make in ((torch, torch.amp.GradScaler), (rg, amp.GradScaler)):
        p = lib.ones(2, requires_grad=True)
        scaler, optimizer, seen = make("cpu", **kw), lib.optim.SGD([p], lr=0.1), []
        for i in range(20):
            if i == 15:
                scaler.update(7.0)
            scaled_step(scaler, optimizer, p, factor=float("inf") if i in (4, 5, 13) else 1.0)
            seen.append(scaler.state_dict())
        scales.append((seen, p.tolist()))
    assert scales[0][0] == scales[1][0]
    assert scales[0][1] == pytest.approx(scales[1][1])


def test_states_load() -> None:
    p = parameter(2)
    scaler, optimizer = amp.GradScaler("cpu", init_scale=64.0, growth_interval=5), optim.SGD([p], lr=0.1)
    for _ in range(3):
        scaled_step(scaler, optimizer, p)
    other = amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict() and other.get_scale() == 64.0
    for _ in range(2):
        scaled_step(other, optimizer, p)
    assert other.get_scale() == 128.0
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == 64.0 and other._get_growth_tracker() == 3
    with pytest.raises(RuntimeError, match="empty"):
        other.load_state_dict({})


@pytest.mark.skipif(rg.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_the_scaler_passes_everything_through() -> None:
    with pytest.warns(UserWarning, match="scaler is off"):
        scaler = amp.CudaGradScaler(enabled=True)
    p = parameter(2)
    optimizer, loss = optim.SGD([p], lr=1.0), p.sum()
    assert scaler.scale(loss) is loss and not scaler.is_enabled() and scaler.get_scale() == 1.0
    loss.backward()
    before = p.array.copy()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    np.testing.assert_array_equal(p.array, before - 1)
    assert scaler.state_dict() == {}
    scaler.load_state_dict({})
    amp.GradScaler(enabled=False)  # no warning


@pytest.mark.parametrize(
    "use, error, words",
    [
        (lambda s, o: s.step(o), RuntimeError, r"step\(\) must come after scale"),
        (lambda s, o: s.unscale_(o), RuntimeError, "must come after scale"),
        (lambda s, o: s.update(), RuntimeError, "must come after scale"),
        (lambda s, o: (s.scale(rg.ones(1)), s.update()), RuntimeError, "must come after step"),
        (lambda s, o: (s.scale(rg.ones(1)), s.step(o)), RuntimeError, "parameters with gradients, came none"),
        (lambda s, o: s.step(o, closure=lambda: 1), RuntimeError, "closure"),
        (lambda s, o: s.scale(3), ValueError, "came int"),
        (lambda s, o: amp.GradScaler("cpu", growth_factor=1.0), ValueError, "growth_factor .* came 1.0"),
        (lambda s, o: amp.GradScaler("cpu", backoff_factor=1.0), ValueError, "backoff_factor .* came 1.0"),
    ],
)
def test_scaler_mistakes(use: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        use(amp.GradScaler("cpu"), optim.SGD([parameter(2)], lr=0.1))


def test_float16_gradients_cannot_be_unscaled() -> None:
    p = rg.ones(2, dtype=rg.float16, requires_grad=True)
    scaler, optimizer = amp.GradScaler("cpu", init_scale=2.0), optim.SGD([p], lr=0.1)
    scaler.scale(p.sum()).backward()
    with pytest.raises(ValueError, match="must not be float16"):
        scaler.unscale_(optimizer)
