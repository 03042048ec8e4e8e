"""Convolutions and attention by cuDNN: against a stand-in of the frontend, and planned by cuDNN itself where it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringgrad as rg
from ringgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import fakecuda
import fakecuda_cudnn
from test_cuda_kernels import against_float64, drawn

TYPES = ["float32", "float16", "bfloat16"]


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    sys.modules["cudnn"] = fakecuda_cudnn
    try:
        with fakecuda.installed() as cp:
            yield cp
    finally:
        del sys.modules["cudnn"]


def launched() -> int:
    from ringgrad.tensor.backend.cuda import kernel

    return kernel.launches["cudnn"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "kw",
    [
        {"padding": 1},
        {"stride": 2, "padding": 2, "dilation": 2},
        {"groups": 2, "padding": (1, 0)},
    ],
)
def test_convolution(cupy: Any, dtype: str, kw: Any) -> None:
    x, w, b = (
        drawn((2, 4, 9, 8), dtype),
        drawn((6, 4 // kw.get("groups", 1), 3, 3), dtype, 1),
        drawn((6,), dtype, 2),
    )
    against_float64(lambda x, w, b: F.conv2d(x, w, b, **kw), [x, w, b], dtype, [], roundings=2)
    assert launched() == 3  # forward, and two gradients
    assert rg.backends.cudnn.is_available() and rg.backends.cudnn.version() == 91900
    against_float64(
        lambda x: F.conv2d(
            F.conv2d(x, rg.ones(4, 4, 1, 1, dtype=x.dtype, device=x.device)) * 0.1,
            rg.ones(2, 4, 1, 1, dtype=x.dtype, device=x.device),
        ),
        [x],
        dtype,
        [],
    )


def test_convolutions_of_one_and_three_dimensions_and_transposed(cupy: Any) -> None:
    for f, shape, kernel in ((F.conv1d, (2, 3, 9), (4, 3, 3)), (F.conv3d, (1, 2, 4, 5, 6), (2, 2, 3, 3, 3))):
        against_float64(f, [drawn(shape, "float32"), drawn(kernel, "float32", 1)], "float32", [])
        assert launched() == 3
    x, w = drawn((2, 3, 5, 5), "float32"), drawn((3, 4, 3, 3), "float32", 1)
    against_float64(lambda x, w: F.conv_transpose2d(x, w, stride=2), [x, w], "float32", [])


def test_16_bit_images_stay_channels_last_between_convolutions(cupy: Any) -> None:
    from ringgrad.tensor.backend.cuda import convolution

    x = rg.from_numpy(drawn((2, 8, 6, 6), "bfloat16")).cuda()
    w = rg.from_numpy(drawn((8, 8, 3, 3), "bfloat16", 1)).cuda()
    y = F.conv2d(x, w)
    assert (
        convolution.laid_out(cupy, y.array) is y.array and convolution.laid_out(cupy, x.array) is not x.array
    )
    assert F.relu(y).shape == y.shape


@pytest.mark.parametrize("dtype", TYPES[1:])
@pytest.mark.parametrize("causal", [True, False])
def test_attention(cupy: Any, dtype: str, causal: bool) -> None:
    q, k, v = (drawn((2, 3, 5, 8), dtype, i) for i in range(3))
    against_float64(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal), [q, k, v], dtype, []
    )
    assert launched() == 2
    packed = drawn((2, 5, 3 * 3 * 8), dtype)  # as a transformer has them: views of one projection

    def heads(x: Any) -> Any:
        q, k, v = (t.reshape(2, 5, 3, 8).transpose(1, 2) for t in x.split(24, dim=-1))
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).reshape(2, 5, 24)

    against_float64(heads, [packed], dtype, [])
    assert launched() == 2


def test_what_cudnn_cannot_do_the_ops_do(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.tensor.backend.cuda import cudnn

    monkeypatch.setattr(fakecuda_cudnn.pygraph, "unsupported", True)
    cudnn._graphs.clear()
    x, w = drawn((1, 2, 5, 5), "float32"), drawn((3, 2, 3, 3), "float32", 1)
    against_float64(F.conv2d, [x, w], "float32", [])
    assert launched() == 0
    cudnn._graphs.clear()
    q = drawn((1, 2, 4, 8), "bfloat16")
    against_float64(lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.0), [q], "bfloat16", [])
    assert launched() == 0


def test_plans_are_made_once_and_apart_where_bits_must_repeat(cupy: Any) -> None:
    from ringgrad.tensor.backend.cuda import cudnn

    x, w = rg.randn(1, 2, 5, 5, device="cuda"), rg.randn(2, 2, 3, 3, device="cuda")
    cudnn._graphs.clear()
    F.conv2d(x, w)
    F.conv2d(x, w)
    assert len(cudnn._graphs) == 1
    rg.use_deterministic_algorithms(True)
    try:
        F.conv2d(x, w)
    finally:
        rg.use_deterministic_algorithms(False)
    assert len(cudnn._graphs) == 2


def test_a_cudnn_that_does_not_load_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.tensor.backend.cuda import cudnn

    monkeypatch.setattr(cudnn, "_module", [])
    monkeypatch.setitem(sys.modules, "cudnn", type(sys)("cudnn"))
    with pytest.warns(UserWarning, match=r'does not load.*pip install "ringgrad\[cudnn\]"'):
        assert cudnn.module() is None


RESNET = ((32, 64, 56, 64, 3, 1, 1), (32, 3, 224, 64, 7, 2, 3), (32, 256, 56, 128, 1, 2, 0))


@pytest.mark.parametrize("dtype", TYPES)
def test_cudnn_itself_plans_resnets_convolutions(dtype: str) -> None:
    """Without a GPU, from a description of one; needs cudnn-frontend 1.18 and cuDNN, which CI does not install."""
    frontend = pytest.importorskip("cudnn")
    if frontend is fakecuda_cudnn:
        pytest.skip("no cudnn-frontend")
    described = Path(__file__).parent / "host" / "h200.json"
    try:
        frontend.backend_version()
        properties = frontend.create_device_properties(json.dumps(json.loads(described.read_text())))
    except RuntimeError as error:
        pytest.skip(f"no cuDNN: {error}")

    class Planner:
        def __getattr__(self, name: str) -> Any:
            return getattr(frontend, name)

        @staticmethod
        def pygraph(handle: Any, **kw: Any) -> Any:
            return frontend.pygraph(device_property=properties, **kw)

    from ringgrad.tensor.backend.cuda import convolution, cudnn

    with fakecuda.installed() as cp:
        cudnn._module[:] = [Planner()]
        cudnn._handles[0] = None
        cudnn._streams[0] = 0
        kind = drawn((1,), dtype).dtype
        for n, c, h, k, r, s, p in (
            (32, 64, 56, 64, 3, 1, 1),
            (32, 3, 224, 64, 7, 2, 3),
            (32, 256, 56, 128, 1, 2, 0),
        ):
            kw = {"stride": (s, s), "padding": ((p, p), (p, p)), "dilation": (1, 1), "groups": 1}
            x, w = cp.empty((n, c, h, h), kind), cp.empty((k, c, r, r), kind)
            g = cp.empty(convolution._out_shape(x, w, kw), kind)
            plans = (
                convolution._forward_plan(x, w, kw),
                convolution._input_plan(g, w, x.shape, kw),
                convolution._weight_plan(g, x, w.shape, kw),
            )
            for plan in plans:
                assert plan is not None and plan.workspace <= cudnn.MOST_WORKSPACE
