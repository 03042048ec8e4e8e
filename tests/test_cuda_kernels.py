"""CUDA kernels: they compile for sm_80 and sm_90 without warnings or spills, and give float64's results on the host."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ringgrad as rg
from ringgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import fakecuda
import fakecuda_kernels as kernels

SOURCES = sorted(kernels.SOURCES.glob("*.cu"))
needs_compiler = pytest.mark.skipif(kernels.compiler() is None, reason="no C++ compiler")
TYPES = ["float32", "float16", "bfloat16"]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.timeout(300)
@pytest.mark.slow
def test_every_kernel_compiles_without_warnings_or_spills() -> None:
    seen = set()
    for command, text in kernels.device_builds():
        assert not re.search("warning", text), text
        for name, about in re.findall(r"Function properties for (\w+)\n(.*)", text):
            stack, stores, loads = map(int, re.findall(r"(\d+) bytes", about))
            assert (stack, stores, loads) == (0, 0, 0), f"{name} in {command}: {about}"
            seen.add(name)
    seen &= set(kernels.signatures())  # the C library has functions of its own
    assert seen == set(kernels.signatures())


@pytest.mark.slow
def test_nvrtc_compiles_them_too() -> None:
    """With the options and the headers that the backend gives, and no include path."""
    pytest.importorskip("cupy")
    code = "import cupy; from ringgrad.tensor.backend.cuda import kernel, runtime\n"
    code += "nvrtc = cupy.cuda.nvrtc; nvrtc.getVersion()\n"
    code += "for p in sorted(kernel.FOLDER.glob('*.cu')):\n"
    code += "  assert kernel.compiled(nvrtc, p.name, p.read_text(), 'sm_90')[:4] == b'\\x7fELF'\nprint('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "libnvrtc" in done.stderr or "ImportError" in done.stderr:
        pytest.skip("no NVRTC")
    assert done.stdout.strip() == "ok", done.stderr


# ---- on the host's compiler


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    with fakecuda.installed() as cp:
        yield cp


@pytest.fixture(params=[1, -1], ids=["forwards", "backwards"])
def order(request: pytest.FixtureRequest) -> Iterator[int]:
    """Warps and blocks in both orders: a missing barrier gives wrong numbers in one of them."""
    kernels.Function.order = request.param
    yield request.param
    kernels.Function.order = 1


def numpy_dtype(name: str) -> Any:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def rounding(name: str) -> float:
    return {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}[name]


def drawn(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    """Values that the dtype holds exactly, so that only the result is rounded."""
    return np.random.default_rng(seed).standard_normal(shape).astype(numpy_dtype(dtype))


def used(name: str) -> bool:
    from ringgrad.tensor.backend.cuda import kernel

    return kernel.launches[name] > 0


def against_float64(act: Any, arrays: list[Any], dtype: str, expected: list[str], roundings: int = 1) -> None:
    """act(tensors) on the device, forward and backward, compared with the CPU's in float64."""
    from ringgrad.tensor.backend.cuda import kernel

    kernel.launches.clear()
    found = []
    for place, kind in (("cuda", numpy_dtype(dtype)), ("cpu", np.dtype("float64"))):
        xs = [
            rg.from_numpy(a.astype(kind) if a.dtype.kind != "i" else a)
            .to(place)
            .requires_grad_(a.dtype.kind != "i")
            if a is not None
            else None
            for a in arrays
        ]
        y = act(*xs)
        weights = rg.from_numpy(drawn(tuple(y.shape), dtype, 9).astype(kind)).to(place)
        y.backward(weights)
        grads = [x.grad for x in xs if x is not None and x.requires_grad]
        found.append([y.detach().cpu().double().numpy(), *(g.cpu().double().numpy() for g in grads)])
    for got, want in zip(*found, strict=True):
        scale = max(1.0, float(np.abs(want).max()))
        error = roundings * rounding(dtype)
        np.testing.assert_allclose(got / scale, want / scale, atol=error, rtol=error)
    for name in expected:
        assert used(f"{name}_{kernel.SUFFIX[dtype]}"), f"{name} was not launched: {dict(kernel.launches)}"


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [5, 64, 200])
def test_softmax(cupy: Any, order: int, dtype: str, width: int) -> None:
    x = drawn((3, width), dtype)
    names = ["softmax", "softmax_gradient"]
    against_float64(lambda x: F.softmax(x, -1), [x], dtype, names)
    against_float64(lambda x: F.log_softmax(x, -1), [x], dtype, names)


@needs_compiler
def test_a_row_longer_than_the_registers(cupy: Any) -> None:
    against_float64(lambda x: F.softmax(x, -1), [drawn((1, 5000), "float32")], "float32", ["softmax"])


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [7, 256])
def test_norms(cupy: Any, order: int, dtype: str, width: int) -> None:
    x, w, b = drawn((5, width), dtype), drawn((width,), dtype, 1), drawn((width,), dtype, 2)
    names = ["norm", "layer_norm_gradient", "norm_columns"]
    against_float64(lambda x, w, b: F.layer_norm(x, (width,), w, b), [x, w, b], dtype, names)
    against_float64(lambda x: F.layer_norm(x, (width,)), [x], dtype, names[:2])
    against_float64(lambda x, w: F.rms_norm(x, (width,), w), [x, w], dtype, ["norm", "rms_norm_gradient"])


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(cupy: Any, order: int, dtype: str, reduction: str, smoothing: float) -> None:
    target = np.array([0, 9, -100, 4, 2])
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing}
    for width in (10, 72):
        x = drawn((5, width), dtype)
        against_float64(lambda x, t: F.cross_entropy(x, t, **options), [x, target], dtype, ["cross_entropy"])


@needs_compiler
def test_classes_that_are_ruled_out(cupy: Any) -> None:
    """Logits of -inf, a whole thread's share of them first."""
    x = drawn((2, 600), "float32")
    x[:, :520] = -np.inf
    found = []
    for place in ("cuda", "cpu"):
        t = rg.from_numpy(x.copy()).to(place).requires_grad_()
        loss = F.cross_entropy(t, rg.tensor([530, 599]).to(place))
        loss.backward()
        found.append((loss.item(), t.grad.cpu().numpy()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-8)


def test_a_kept_graph_gives_the_gradient_again(cupy: Any) -> None:
    x = rg.randn(4, 8).cuda().requires_grad_()
    loss = F.cross_entropy(x, rg.tensor([1, 2, 3, 4]).cuda()) * 3
    loss.backward(retain_graph=True)
    first = x.grad.cpu()
    x.grad = None
    loss.backward()
    np.testing.assert_array_equal(x.grad.cpu().numpy(), first.numpy())


def test_an_index_out_of_range_is_reported_when_the_host_waits(cupy: Any) -> None:
    F.cross_entropy(rg.randn(2, 4).cuda(), rg.tensor([1, 4]).cuda())
    with pytest.raises(IndexError, match=r"\[cross_entropy\] indices must be in \[0, 3\], came 4"):
        rg.cuda.synchronize()
    rg.cuda.synchronize()
    F.embedding(rg.tensor([7]).cuda(), rg.randn(3, 8).cuda())
    with pytest.raises(IndexError, match=r"\[embedding\] indices must be in \[0, 2\], came 7"):
        rg.cuda.synchronize()


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["gelu", "silu", "relu", "gelu_tanh"])
def test_activations(cupy: Any, dtype: str, name: str) -> None:
    act = (lambda x: F.gelu(x, approximate="tanh")) if name == "gelu_tanh" else getattr(F, name)
    for shape in ((3, 37), (4, 64)):
        against_float64(act, [drawn(shape, dtype) * 3], dtype, [name, f"{name}_gradient"])


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES[1:])
def test_arithmetic_of_16_bit_floats(cupy: Any, dtype: str) -> None:
    a, b, row = drawn((6, 40), dtype), drawn((6, 40), dtype, 1), drawn((40,), dtype, 2)
    for act in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / (b * b + 1)):
        against_float64(act, [a, b], dtype, ["combine"])
        against_float64(act, [a, row], dtype, ["combine"])
    for number in (lambda a: a * 3, lambda a: 2 - a, lambda a: a / 4, lambda a: 0.5 + a):
        against_float64(number, [a], dtype, ["combine"])


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [6, 64])
def test_embedding(cupy: Any, order: int, dtype: str, width: int) -> None:
    index = np.random.default_rng(0).integers(0, 11, (300,))
    names = ["embedding", "embedding_gradient"]
    table = drawn((11, width), dtype)
    against_float64(lambda i, w: F.embedding(i, w, padding_idx=3), [index, table], dtype, names)


def test_many_indices_are_sorted(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.tensor.backend.cuda import embedding

    monkeypatch.setattr(embedding, "MOST", 8)
    index = np.random.default_rng(0).integers(0, 5, (40,))
    against_float64(
        lambda i, w: F.embedding(i, w), [index, drawn((5, 4), "float32")], "float32", ["embedding_gradient"]
    )
    assert not used("embedding_rank")


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("last", [False, True])
def test_batch_norm(cupy: Any, order: int, dtype: str, last: bool) -> None:
    x, w, b = drawn((3, 35, 4, 5), dtype), drawn((35,), dtype, 1), drawn((35,), dtype, 2)

    def act(x: Any, w: Any, b: Any) -> Any:
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if last else x
        return F.batch_norm(x, None, None, w, b, True)

    against_float64(act, [x, w, b], dtype, ["channel_partial", "channel_line"], roundings=3)
    mean, variance = rg.zeros(35).cuda(), rg.ones(35).cuda()
    F.batch_norm(rg.from_numpy(x).cuda(), mean, variance, training=True)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean.cpu().numpy(), 0.1 * wide.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    unbiased = wide.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(variance.cpu().numpy(), 0.9 + 0.1 * unbiased, rtol=1e-3)


# ---- the cache


def test_compiled_kernels_are_kept_on_disk(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ringgrad.tensor.backend.cuda import kernel

    monkeypatch.setenv("RINGGRAD_CACHE", str(tmp_path / "cache"))
    made = kernel.cubin("softmax.cu", "sm_90")
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.name.startswith("softmax-sm_90-") and kept.suffix == ".cubin" and kept.read_bytes() == made
    kept.write_bytes(b"from the disk")
    assert kernel.cubin("softmax.cu", "sm_90") == b"from the disk"
    kernel.cubin("softmax.cu", "sm_80")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    monkeypatch.setenv("RINGGRAD_CACHE", "/proc/nowhere")
    assert kernel.cubin("softmax.cu", "sm_90") == made


def test_a_kernel_that_does_not_compile_says_why(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.tensor.backend.cuda import kernel

    class Broken(kernels.Nvrtc):
        def compileProgram(self, program: int, options: Any) -> None:
            raise RuntimeError("NVRTC_ERROR_INVALID_OPTION")

        def getProgramLog(self, program: int) -> str:
            return "invalid value for --gpu-architecture"

    with pytest.raises(
        RuntimeError, match=r"softmax.cu must compile for sm_120.*invalid value.*ringgrad\[cuda\]"
    ):
        kernel.compiled(Broken(), "softmax.cu", "", "sm_120")


def test_wrong_calls_of_kernels_are_found(cupy: Any) -> None:
    from ringgrad.tensor.backend.cuda import kernel

    x = cupy.empty(64, "float32")
    with pytest.raises(AssertionError, match="takes 4 arguments, came 3"):
        kernel.launch("elementwise.cu", "gelu_f32", 1, 32, x, x, 64)
    with pytest.raises(AssertionError, match="n is int64, came float32"):
        kernel.launch("elementwise.cu", "gelu_f32", 1, 32, x, x, 64.0, True)
    with pytest.raises(AssertionError, match="not aligned"):
        kernel.launch("elementwise.cu", "gelu_f32", 1, 32, x[1:], x, 32, True)
    with pytest.raises(AssertionError, match="no address in device memory"):
        kernel.function("elementwise.cu", "gelu_f32")((1, 1, 1), (32, 1, 1), (64, 128, 8, np.int32(0)))
