"""Matrix products by cuBLASLt, against a stand-in library with its ABI: plans, layouts, epilogues, gradients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import fakecuda
import fakecuda_kernels as kernels
from test_cuda_kernels import against_float64, drawn, numpy_dtype

pytestmark = pytest.mark.skipif(kernels.compiler() is None, reason="no C++ compiler")
TYPES = ["float32", "float16", "bfloat16"]


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    with fakecuda.installed() as cp:
        yield cp


@pytest.fixture(autouse=True)
def only_cublaslt(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's own product is an error: it cannot be captured, and batches of bfloat16 fail in it."""

    def refuse(*args: Any, **kw: Any) -> Any:
        raise AssertionError("cupy.matmul was used")

    monkeypatch.setattr(cupy, "matmul", refuse)
    monkeypatch.setattr(fakecuda.ndarray, "__matmul__", refuse)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 5), (5, 4)),
        ((2, 3, 5), (5, 4)),
        ((2, 3, 5), (2, 5, 4)),
        ((2, 3, 4, 5), (2, 3, 5, 2)),
        ((1, 7), (7, 1)),
    ],
)
def test_matmul(cupy: Any, dtype: str, shapes: Any) -> None:
    a, b = (drawn(s, dtype, i) for i, s in enumerate(shapes))
    against_float64(lambda a, b: a @ b, [a, b], dtype, [])


@pytest.mark.parametrize("dtype", TYPES)
def test_transposed_and_cut_operands_are_taken_as_they_are(cupy: Any, dtype: str) -> None:
    from ringgrad.tensor.backend.cuda import gemm

    a, b = drawn((6, 8), dtype), drawn((6, 7), dtype, 1)
    against_float64(lambda a, b: a.t() @ b, [a, b], dtype, [])
    against_float64(lambda a, b: a[:, :4].t() @ b[:, 2:5], [a, b], dtype, [])
    against_float64(lambda a: a[:, ::2] @ a[:, ::2].t(), [a], dtype, [])  # copied first
    x = cupy.asarray(a)
    assert gemm.operand(cupy, x.T)[0] is not None and gemm.operand(cupy, x.T)[0].data.ptr == x.data.ptr
    heads = drawn((2, 5, 3, 4), dtype)  # as attention has them: (batch, time, heads, width)
    against_float64(lambda q: q.transpose(1, 2) @ q.transpose(1, 2).transpose(-1, -2), [heads], dtype, [])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(cupy: Any, dtype: str, bias: bool) -> None:
    x, w, b = drawn((2, 3, 8), dtype), drawn((5, 8), dtype, 1), drawn((5,), dtype, 2) if bias else None
    against_float64(lambda x, w, *b: F.linear(x, w, *b), [x, w] + ([b] if bias else []), dtype, [])


def test_float64_too(cupy: Any) -> None:
    a, b = (rg.from_numpy(np.random.default_rng(i).standard_normal((4, 4))) for i in (0, 1))
    np.testing.assert_allclose((a.cuda() @ b.cuda()).cpu().numpy(), (a @ b).numpy(), rtol=1e-14)


@pytest.mark.parametrize("epilogue", ["bias", "relu_bias", "gelu_bias", "gelu_aux_bias"])
def test_epilogues(cupy: Any, epilogue: str) -> None:
    from ringgrad.tensor.backend.cuda import gemm

    x, w, b = (drawn(s, "float32", i) for i, s in enumerate([(3, 6), (6, 5), (5,)]))
    aux = cupy.empty((3, 5), "float32") if "aux" in epilogue else None
    got = gemm.product(cupy, cupy.asarray(x), cupy.asarray(w), epilogue, cupy.asarray(b), aux).get()
    before = x.astype(np.float64) @ w + b
    tanh_form = 0.5 * before * (1 + np.tanh(np.sqrt(2 / np.pi) * (before + 0.044715 * before**3)))
    want = before if epilogue == "bias" else np.maximum(before, 0) if "relu" in epilogue else tanh_form
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
    if aux is not None:
        np.testing.assert_allclose(aux.get(), before, rtol=2e-5, atol=1e-6)


def test_the_bias_gradient_comes_with_the_weights(cupy: Any) -> None:
    """In 16 bits from one product; where the library has no such algorithm (here float32), by a sum."""
    from ringgrad.tensor.backend.cuda import kernel

    for dtype, products in (("bfloat16", 2), ("float32", 2)):
        x, w, b = (rg.from_numpy(drawn(s, dtype, i)).cuda() for i, s in enumerate([(8, 6), (4, 6), (4,)]))
        w.requires_grad_()
        b.requires_grad_()
        kernel.launches.clear()
        F.linear(x, w, b).backward(rg.ones(8, 4, dtype=x.dtype, device="cuda"))
        assert kernel.launches["gemm"] == products
        assert b.grad.tolist() == [8.0] * 4


def test_plans_are_made_once_for_a_shape(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.tensor.backend.cuda import cublaslt

    made: list[Any] = []
    planned = cublaslt._planned
    monkeypatch.setattr(cublaslt, "_planned", lambda *args: made.append(args) or planned(*args))
    a = rg.randn(3, 11, device="cuda")
    for _ in range(3):
        a @ a.t()
    assert len(made) == 1
    rg.backends.cuda.matmul.allow_tf32 = True
    try:
        a @ a.t()
    finally:
        rg.backends.cuda.matmul.allow_tf32 = False
    assert len(made) == 2 and made[1][-1] is True


def test_tuning_takes_one_of_the_candidates(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.tensor.backend.cuda import cublaslt

    monkeypatch.setitem(cublaslt.settings, "tune", True)
    times = iter([5.0, 1.0])
    monkeypatch.setattr(cupy.cuda, "get_elapsed_time", lambda a, b: next(times))
    x = rg.randn(9, 13, device="cuda")
    x @ x.t()
    assert [p for p in cublaslt._plans.values() if p and p.algorithm.algo[0] == 78]


def test_without_cublas_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.tensor.backend.cuda import cublaslt

    monkeypatch.setattr(cublaslt, "_library", [])
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(RuntimeError, match=r'cannot be loaded.*pip install "ringgrad\[cuda\]"'):
        cublaslt.library()
    assert not cublaslt.available()


def test_16_bit_inputs_stay_16_bit(cupy: Any) -> None:
    assert (
        rg.ones(2, 3, dtype=rg.bfloat16).cuda() @ rg.ones(3, 2, dtype=rg.bfloat16).cuda()
    ).dtype is rg.bfloat16
    assert numpy_dtype("bfloat16").itemsize == 2


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("causal", [True, False])
def test_attention_by_products(cupy: Any, dtype: str, causal: bool) -> None:
    """Where cuDNN is not, or does not take it: any width, float32, dropout."""
    q, k, v = (drawn((2, 3, 5, 7), dtype, i) for i in range(3))
    against_float64(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
        [q, k, v],
        dtype,
        ["softmax", "softmax_gradient"],
        roundings=4,
    )


def test_dropout_of_attention_is_drawn_on_the_gpu(cupy: Any) -> None:
    q = rg.randn(2, 2, 16, 8, device="cuda", requires_grad=True)
    rg.cuda.manual_seed(1)
    a = F.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
    rg.cuda.manual_seed(1)
    b = F.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
    assert a.tolist() == b.tolist() != F.scaled_dot_product_attention(q, q, q).tolist()
    a.sum().backward()
    assert q.grad.isfinite().all().item()
