"""Devices: errors where there is no GPU, and tensors, streams and memory on the fake one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg

sys.path.insert(0, str(Path(__file__).parent))
import fakecuda
import fakecuda_device as machine


@pytest.fixture
def cupy() -> Iterator[Any]:
    with fakecuda.installed() as cp:
        yield cp


# ---- without a GPU


def without_gpu(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_without_cupy_the_error_names_the_extra() -> None:
    hide = (
        "import sys; sys.modules['cupy'] = None\nimport ringgrad as rg\nassert not rg.cuda.is_available()\n"
    )
    hide += "try: rg.zeros(2, device='cuda')\nexcept RuntimeError as e: print(e)\n"
    hide += (
        "print((rg.ones(2) * 2).tolist(), rg.cuda.memory_allocated(), rg.ones(2).pin_memory().is_pinned())"
    )
    text = without_gpu(hide)
    assert 'pip install "ringgrad[cuda]"' in text and "[2.0, 2.0] 0 False" in text


def test_a_cupy_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport ringgrad as rg\n"
    code += "try: rg.ones(2).cuda()\nexcept RuntimeError as e: print(e)"
    text = without_gpu(code)
    assert "does not load" in text and "libcudart" in text and "ringgrad[cuda]" in text


class Driver:
    """A CuPy whose driver answers with an error."""

    def __init__(self, error: str) -> None:
        def count() -> int:
            raise RuntimeError(error)

        runtime = type("runtime", (), {"getDeviceCount": staticmethod(count)})
        runtime.runtimeGetVersion = staticmethod(lambda: 13000)  # type: ignore[attr-defined]
        runtime.driverGetVersion = staticmethod(lambda: 12040)  # type: ignore[attr-defined]
        self.cuda = type("cuda", (), {"runtime": runtime})


@pytest.mark.parametrize(
    ("error", "library", "expected"),
    [
        ("cudaErrorInsufficientDriver: ...", False, "no NVIDIA driver is installed"),
        ("cudaErrorInsufficientDriver: ...", True, "supports CUDA 12.4, this CuPy is built for CUDA 13.0"),
        ("cudaErrorNoDevice: no CUDA-capable device", True, "sees no GPU, with CUDA_VISIBLE_DEVICES='7'"),
        ("cudaErrorSystemDriverMismatch", True, "answers cudaErrorSystemDriverMismatch"),
    ],
)
def test_the_error_says_what_is_wrong_with_the_driver(
    monkeypatch: pytest.MonkeyPatch, error: str, library: bool, expected: str
) -> None:
    from ringgrad.tensor.backend.cuda import runtime

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr(runtime, "_found", {"cupy": Driver(error)})
    monkeypatch.setattr(runtime, "_driver_library", lambda: library)
    with pytest.raises(RuntimeError, match=expected):
        rg.zeros(2, device="cuda")
    assert rg.cuda.device_count() == 0 and not rg.cuda.is_available()


# ---- tensors


def test_tensors_move_and_gradients_follow(cupy: Any) -> None:
    x = rg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = x.to("cuda")
    assert y.is_cuda and str(y.device) == "cuda:0" and y.get_device() == 0 and not y.is_cpu
    assert not x.is_cuda and y.cuda() is y and x.cpu() is x and y.to("cuda:0") is y
    (y * y).sum().backward()
    assert not x.grad.is_cuda and x.grad.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    z = x.to("cuda", rg.float64)
    assert z.dtype is rg.float64 and z.is_cuda
    assert x.to(z).dtype is rg.float64 and x.to(z).is_cuda
    assert y.cpu().tolist() == x.tolist() and y.tolist() == x.tolist()


def test_transposed_and_strided_tensors_move(cupy: Any) -> None:
    x = rg.arange(12.0).reshape(3, 4)
    assert x.t().cuda().cpu().tolist() == x.t().tolist()
    assert x[:, ::2].cuda().cpu().tolist() == x[:, ::2].tolist()
    assert x.cuda().t().cpu().tolist() == x.t().tolist()
    assert rg.zeros(0, 3).cuda().cpu().shape == (0, 3)


def test_every_creation_function_takes_a_device(cupy: Any) -> None:
    made = [rg.zeros(2, 3, device="cuda"), rg.ones(3, device="cuda:0"), rg.empty(2, device="cuda")]
    made += [rg.full((2,), 3.0, device="cuda"), rg.arange(3, device="cuda"), rg.eye(2, device="cuda")]
    made += [rg.linspace(0, 1, 3, device="cuda"), rg.logspace(0, 1, 3, device="cuda")]
    made += [rg.tensor([1, 2], device="cuda"), rg.as_tensor([1.0], device="cuda")]
    made += [rg.as_tensor(np.ones(2), device="cuda"), rg.as_tensor(rg.ones(2), device="cuda")]
    made += [rg.zeros_like(rg.ones(2), device="cuda"), rg.tril_indices(2, 2, device="cuda")]
    on_gpu = made[0]
    made += [rg.zeros_like(on_gpu), rg.ones_like(on_gpu), rg.full_like(on_gpu, 2), rg.empty_like(on_gpu)]
    made += [on_gpu.new_zeros(2), on_gpu.new_tensor([1.0]), on_gpu.new_full((2,), 1), rg.tensor(on_gpu)]
    for t in made:
        assert t.is_cuda, t
    assert not rg.zeros_like(on_gpu, device="cpu").is_cuda
    assert rg.full((2,), 3.0, device="cuda").tolist() == [3.0, 3.0]


def test_the_default_device(cupy: Any) -> None:
    with rg.device("cuda"):
        assert rg.zeros(2).is_cuda and rg.tensor([1.0]).is_cuda and rg.nn.Linear(2, 2).weight.is_cuda
    assert not rg.zeros(2).is_cuda
    rg.set_default_device("cuda")
    try:
        assert rg.ones(1).is_cuda and str(rg.get_default_device()) == "cuda:0"
    finally:
        rg.set_default_device(None)
    assert not rg.ones(1).is_cuda


def test_mixed_devices_are_an_error_that_names_both(cupy: Any) -> None:
    a, b = rg.ones(2), rg.ones(2, device="cuda")
    for act in (
        lambda: a + b,
        lambda: b @ a,
        lambda: rg.cat([a, b]),
        lambda: rg.nn.functional.mse_loss(a, b),
    ):
        with pytest.raises(RuntimeError, match=r"one device, came.*float32\[2\].*on cuda:0"):
            act()
    assert (b * rg.tensor(2.0)).tolist() == [2.0, 2.0]  # a 0-d tensor goes with any, as in PyTorch
    scale = rg.tensor(3.0, requires_grad=True)
    (b * scale).sum().backward()
    assert not scale.grad.is_cuda and scale.grad.item() == 2.0


def test_numpy_is_refused_and_pickle_goes_over_the_cpu(cupy: Any) -> None:
    x = rg.ones(2, device="cuda")
    with pytest.raises(TypeError, match=r"came cuda:0: use \.cpu\(\)\.numpy\(\)"):
        x.numpy()
    assert x.numpy(force=True).tolist() == [1.0, 1.0]
    assert pickle.loads(pickle.dumps(x)).tolist() == [1.0, 1.0]
    assert "device='cuda:0'" in repr(x)


def test_a_wrong_index_says_how_many_there_are(cupy: Any) -> None:
    with pytest.raises(RuntimeError, match=r"\[0, 0\], as this process sees 1 GPU, came 'cuda:3'"):
        rg.zeros(1, device="cuda:3")


def test_out_of_memory_says_what_is_held(cupy: Any) -> None:
    held = rg.zeros(1 << 18, device="cuda")
    machine.state.limit = 2 << 20
    with pytest.raises(rg.cuda.OutOfMemoryError, match=r"4\.0 MiB more.*1\.0 MiB are taken by tensors"):
        rg.zeros(1 << 20, device="cuda")
    assert held.is_cuda and (rg.ones(2) * 2).tolist() == [2.0, 2.0]


def test_in_place_writes_and_indexing(cupy: Any) -> None:
    x = rg.zeros(3, 4, device="cuda")
    x[0] = 1
    x[1, 2] = 5.0
    x[:, 3] = rg.tensor([7.0, 8.0, 9.0], device="cuda")
    x[2, :2] = [1.0, 2.0]
    x.add_(1).mul_(2)
    assert x.tolist() == [[4, 4, 4, 16], [2, 2, 12, 18], [4, 6, 2, 20]]
    assert x[x > 15].tolist() == [16, 18, 20] and x[rg.tensor([0, 2])].shape == (2, 4)
    with pytest.raises(RuntimeError, match="expand"):
        rg.ones(1, device="cuda").expand(3).add_(1)


def test_gradients_own_their_memory_on_the_gpu(cupy: Any) -> None:
    a, b = (rg.ones(3, device="cuda", requires_grad=True) for _ in range(2))
    (a + b).sum().backward()
    a.grad.mul_(5)
    assert b.grad.tolist() == [1.0, 1.0, 1.0]


def test_a_training_loop_is_the_cpus(cupy: Any) -> None:
    losses = []
    for place in ("cpu", "cuda"):
        rg.manual_seed(0)
        model = rg.nn.Sequential(rg.nn.Linear(6, 16), rg.nn.GELU(), rg.nn.LayerNorm(16), rg.nn.Linear(16, 3))
        x, target = rg.randn(20, 6).to(place), rg.randint(0, 3, (20,)).to(place)
        model.to(place)
        optimizer = rg.optim.AdamW(model.parameters(), lr=0.02)
        run = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = rg.nn.functional.cross_entropy(model(x), target)
            loss.backward()
            rg.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            run.append(loss.item())
        losses.append(run)
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)


# ---- several GPUs


def test_ops_run_where_their_arrays_are() -> None:
    with fakecuda.installed(devices=2):
        x = rg.ones(4, device="cuda:1", requires_grad=True)
        y = ((x * 2).exp() + 1).mean()
        y.backward()
        assert str(y.device) == str(x.grad.device) == "cuda:1" and rg.cuda.current_device() == 0
        with pytest.raises(RuntimeError, match=r"cuda:0.*cuda:1"):
            rg.ones(4, device="cuda:0") + x
        moved = x.to("cuda:0")
        moved.sum().backward()
        assert str(moved.device) == "cuda:0" and str(x.grad.device) == "cuda:1"
        with rg.cuda.device(1):
            assert str(rg.zeros(1, device="cuda").device) == "cuda:1"
        rg.cuda.set_device("cuda:1")
        assert rg.cuda.current_device() == 1 and rg.cuda.device_count() == 2


# ---- streams, events, memory, pinned memory


def test_another_stream_must_wait(cupy: Any) -> None:
    side = rg.cuda.Stream()
    x = rg.ones(4, device="cuda")
    with rg.cuda.stream(side), pytest.raises(machine.RaceError):
        x + 1
    side.wait_stream(rg.cuda.current_stream())
    with rg.cuda.stream(side):
        y = x + 1
        done = side.record_event()
    with pytest.raises(machine.RaceError):
        y * 2
    done.wait()
    assert (y * 2).tolist() == [4.0] * 4 and done.query() and side.query()
    assert rg.cuda.current_stream() == rg.cuda.default_stream() != side
    y.record_stream(side)


def test_events_measure_only_when_asked(cupy: Any) -> None:
    a, b = rg.cuda.Event(enable_timing=True), rg.cuda.Event(enable_timing=True)
    a.record()
    b.record()
    rg.cuda.synchronize()
    assert a.elapsed_time(b) >= 0
    with pytest.raises(RuntimeError, match="enable_timing"):
        rg.cuda.Event().elapsed_time(b)


def test_memory_is_counted(cupy: Any) -> None:
    rg.cuda.reset_peak_memory_stats()
    before = rg.cuda.memory_allocated()
    x = rg.zeros(1024, device="cuda")
    assert rg.cuda.memory_allocated() - before == 4096 == rg.cuda.max_memory_allocated() - before
    del x
    assert rg.cuda.memory_allocated() == before and rg.cuda.max_memory_allocated() == before + 4096
    assert "MiB" in rg.cuda.memory_summary() and rg.cuda.mem_get_info()[1] == 1 << 34
    rg.cuda.empty_cache()
    assert rg.cuda.get_device_name() == "Fake GPU" and rg.cuda.get_device_capability() == (9, 0)
    assert rg.cuda.is_bf16_supported() and rg.cuda.get_arch_list() == ["sm_90"]


def test_pinned_memory_and_copies_that_do_not_wait(cupy: Any) -> None:
    x = rg.arange(6.0).reshape(2, 3)
    pinned = x.pin_memory()
    assert (
        pinned.is_pinned() and not x.is_pinned() and pinned[0].is_pinned() and pinned.pin_memory().is_pinned()
    )
    y = pinned.to("cuda", non_blocking=True)
    back = y.to("cpu", non_blocking=True)
    rg.cuda.synchronize()
    assert back.is_pinned() and back.tolist() == x.tolist()
    with pytest.raises(RuntimeError, match="must be on the CPU"):
        y.pin_memory()


def test_the_loader_pins_its_batches(cupy: Any) -> None:
    data = rg.utils.data.TensorDataset(rg.arange(8.0), rg.arange(8))
    for workers in (0, 1):
        loader = rg.utils.data.DataLoader(data, batch_size=4, pin_memory=True, num_workers=workers)
        for x, i in loader:
            assert x.is_pinned() and i.is_pinned() and x.cuda(non_blocking=True).is_cuda
