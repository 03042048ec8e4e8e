"""What a machine with a GPU must show: `python -m pytest -m gpu`. In CI the checks run small on the fake device."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
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
import test_cuda_graph as graphs
import test_cuda_ops as every
from op_samples import COMPLEX_OPS, INTEGER_ONLY
from test_cuda_kernels import against_float64, drawn

TYPES = ["float32", "float16", "bfloat16"]
REAL = pytest.param("real", marks=[pytest.mark.gpu])
FAKE = pytest.param("fake", marks=[pytest.mark.skipif(kernels.compiler() is None, reason="no C++ compiler")])


@pytest.fixture(scope="module", params=[REAL, FAKE])
def gpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """The GPU of this machine, or the fake one."""
    if request.param == "fake":
        with fakecuda.installed():
            yield "fake"
    elif rg.cuda.is_available():
        yield "real"
    else:
        pytest.skip("no GPU")


def large(gpu: str, real: int, fake: int) -> int:
    """A size for the GPU, and one for the host's fibers."""
    return real if gpu == "real" else fake


# ---- ops


@pytest.mark.gpu
@pytest.mark.skipif(not rg.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("name", "i"), every.CASES if rg.cuda.is_available() else [])
def test_every_op_gives_the_cpus_results(name: str, i: int) -> None:
    import cupy

    rg.zeros(1, device="cuda")
    dtype = "int64" if name in INTEGER_ONLY else "float32"
    grad = name not in COMPLEX_OPS
    want, want_grads = every.call(name, i, dtype, np.array, grad)
    got, grads = every.call(name, i, dtype, every.on_device(cupy), grad)
    for a, b in zip([*got, *grads], [*want, *want_grads], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == b.shape and a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


# ---- kernels against float64, at sizes that fill a GPU


@pytest.mark.parametrize("dtype", TYPES)
def test_row_kernels(gpu: str, dtype: str) -> None:
    rows = large(gpu, 999, 3)
    for width in (large(gpu, 768, 24), large(gpu, 4096, 40), 77):
        x, w, b = drawn((rows, width), dtype), drawn((width,), dtype, 1), drawn((width,), dtype, 2)
        against_float64(lambda x: F.softmax(x, -1), [x], dtype, ["softmax", "softmax_gradient"], roundings=2)
        against_float64(
            lambda x, w, b: F.layer_norm(x, w.shape, w, b),
            [x, w, b],
            dtype,
            ["norm", "norm_columns"],
            roundings=4,
        )
        against_float64(
            lambda x, w: F.rms_norm(x, w.shape, w), [x, w], dtype, ["rms_norm_gradient"], roundings=4
        )
    classes = large(gpu, 50304, 48)
    x = drawn((large(gpu, 64, 3), classes), dtype)
    target = np.random.default_rng(0).integers(0, classes, x.shape[0])
    against_float64(lambda x, t: F.cross_entropy(x, t), [x, target], dtype, ["cross_entropy"], roundings=2)


@pytest.mark.parametrize("dtype", TYPES)
def test_elementwise_and_embedding(gpu: str, dtype: str) -> None:
    x = drawn((large(gpu, 1025, 5), large(gpu, 777, 9)), dtype)
    for act in (F.gelu, F.silu, F.relu):
        against_float64(act, [x], dtype, [act.__name__], roundings=2)
    rows, count = large(gpu, 5000, 7), large(gpu, 20000, 40)
    index = np.random.default_rng(0).zipf(1.5, count) % rows
    names = ["embedding", "embedding_gradient"]
    table = drawn((rows, large(gpu, 768, 8)), dtype)
    # a row that comes a thousand times sums a thousand roundings of the weights, not of the result
    against_float64(
        lambda i, w: F.embedding(i, w), [index.astype(np.int64), table], dtype, names, roundings=4
    )


@pytest.mark.parametrize("dtype", TYPES)
def test_products(gpu: str, dtype: str) -> None:
    n = large(gpu, 256, 8)
    a, b = drawn((n, n * 2), dtype) / np.sqrt(n), drawn((n * 2, n), dtype, 1) / np.sqrt(n)
    a, b = a.astype(drawn((1,), dtype).dtype), b.astype(drawn((1,), dtype).dtype)
    from ringgrad.tensor.backend.cuda import kernel

    against_float64(lambda a, b: a @ b, [a, b], dtype, [], roundings=8)
    assert kernel.launches["gemm"] == 3
    batch = np.stack([a, a])
    against_float64(lambda a: a @ a.transpose(-1, -2), [batch], dtype, [], roundings=8)
    bias = drawn((n,), dtype, 2)
    against_float64(lambda x, w, c: F.linear(x, w, c), [a, b.T.copy(), bias], dtype, [], roundings=8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_convolution_and_attention(gpu: str, dtype: str) -> None:
    n = large(gpu, 32, 4)
    x, w = drawn((2, n, 14, 14), dtype), drawn((n, n, 3, 3), dtype, 1)
    w = (w / (3 * np.sqrt(n))).astype(w.dtype)
    against_float64(lambda x, w: F.conv2d(x, w, padding=1), [x, w], dtype, [], roundings=16)
    q, k, v = (drawn((2, 2, large(gpu, 256, 8), large(gpu, 64, 8)), dtype, i) for i in range(3))
    for causal in (True, False):
        against_float64(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),  # noqa: B023
            [q, k, v],
            dtype,
            [],
            roundings=8,
        )


# ---- random numbers


def test_random_numbers_are_the_references(gpu: str) -> None:
    """The same bits as NumPy's Philox, whatever the launch shape; dropout and its gradient agree on what is kept."""
    from ringgrad.tensor import philox

    rg.cuda.manual_seed(2**63 + 11)
    n = large(gpu, 100003, 203)
    for draw in range(3):
        got = rg.rand(n, device="cuda").cpu().numpy()
        np.testing.assert_array_equal(got, philox.unit(n, philox.Draw(2**63 + 11, draw)))
    x = rg.ones(n, device="cuda", requires_grad=True)
    y = F.dropout(x, 0.3)
    y.sum().backward()
    kept = philox.kept(n, 0.3, philox.Draw(2**63 + 11, 3))
    np.testing.assert_array_equal(y.detach().cpu().numpy() != 0, kept)
    np.testing.assert_array_equal(x.grad.cpu().numpy(), y.detach().cpu().numpy())
    normal = rg.randn(n, device="cuda").double()
    assert abs(normal.mean().item()) < 5 / np.sqrt(n) and abs(normal.std().item() - 1) < 5 / np.sqrt(n)
    whole = rg.randint(3, 8, (n,), device="cuda").cpu().numpy()
    assert set(whole.tolist()) == {3, 4, 5, 6, 7}
    assert sorted(rg.randperm(50, device="cuda").tolist()) == list(range(50))
    state = rg.cuda.get_rng_state()
    first = rg.rand(5, device="cuda").tolist()
    rg.cuda.set_rng_state(state)
    assert rg.rand(5, device="cuda").tolist() == first


def test_the_cpus_seed_seeds_the_gpu(gpu: str) -> None:
    rg.manual_seed(7)
    a = rg.rand(4, device="cuda").tolist()
    rg.manual_seed(7)
    assert rg.rand(4, device="cuda").tolist() == a


# ---- optimizers, graphs


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adagrad"])
def test_optimizers_step_as_on_the_cpu(gpu: str, name: str) -> None:
    results = []
    for place in ("cpu", "cuda"):
        rg.manual_seed(1)
        params = [rg.randn(n).to(place).requires_grad_() for n in (3, large(gpu, 100000, 70), 17)]
        kw: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(rg.optim, name)(params, lr=0.01, weight_decay=0.1, **kw)
        for step in range(4):
            for i, p in enumerate(params):
                p.grad = (p.detach() * (i + 1) + step).clone()
            rg.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
        results.append([p.detach().cpu().numpy() for p in params])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "kw"), [("AdamW", {"lr": 0.05}), ("SGD", {"lr": 0.1, "momentum": 0.9})])
def test_replay_is_eager(gpu: str, name: str, kw: Any) -> None:
    if gpu == "fake":
        pytest.skip("tests/test_cuda_graph.py does this")
    data = graphs.batches(6)
    eager, graphed = graphs.Trainer(name, **kw), graphs.Trainer(name, **kw)
    assert graphed.run(data, True) == eager.run(data, False)


# ---- several ranks


def test_nccl_with_one_rank(gpu: str) -> None:
    """Initialisation, streams and events; between GPUs it is the same calls."""
    from ringgrad.distributed.transport import nccl

    if nccl.library() is None:
        pytest.skip("no NCCL")

    class Alone:
        rank, size = 0, 1

        def broadcast_object(self, value: Any, root: int) -> Any:
            return value

    comm = nccl.Nccl(Alone())
    side = rg.cuda.Stream()
    x = rg.arange(1000.0).cuda()
    side.wait_stream(rg.cuda.current_stream())
    comm.all_reduce(x.array, "avg", side._stream)
    rg.cuda.current_stream().wait_stream(side)
    assert x.cpu().tolist() == list(map(float, range(1000)))
    half = rg.ones(64, dtype=rg.bfloat16, device="cuda")
    comm.all_reduce(half.array, "sum", rg.cuda.current_stream()._stream)
    assert half.float().sum().item() == 64
    comm.close()


@pytest.mark.gpu
@pytest.mark.skipif(not rg.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("way", ["ipc", "staged"])
def test_two_ranks_on_one_gpu(way: str, tmp_path: Path) -> None:
    """Mapped memory between processes, and page-locked buffers: collectives and DistributedDataParallel."""
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            import ringgrad as rg
            from ringgrad import distributed as dist
            from ringgrad.nn.parallel import DistributedDataParallel
            dist.init_process_group()
            rank, size = dist.get_rank(), dist.get_world_size()
            x = rg.full((100003,), 2.0**rank, device="cuda")
            dist.all_reduce(x)
            assert (x.cpu().numpy() == 3).all()
            rg.manual_seed(0)
            model = DistributedDataParallel(rg.nn.Linear(64, 64).cuda())
            rg.manual_seed(rank)
            optimizer = rg.optim.AdamW(model.parameters(), lr=0.01)
            for _ in range(5):
                optimizer.zero_grad()
                model(rg.randn(32, 64, device="cuda")).square().mean().backward()
                optimizer.step()
            w = model.module.weight.detach().clone()
            other = w.clone()
            dist.broadcast(other, 0)
            assert (w == other).all(), "ranks drifted apart"
            print("way", dist.process_group._world.on_device.way.name, flush=True)
            dist.destroy_process_group()
            """
        )
    )
    command = [sys.executable, "-m", "ringgrad.launch", "-n", "2", str(script)]
    env = {**os.environ, "RINGGRAD_GPU_TRANSPORT": way}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=110)
    if "OperatingSystem" in done.stderr or "NotSupported" in done.stderr:
        pytest.skip(f"CUDA IPC is not allowed here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"way {way}") == 2


def test_the_gpus_path_was_taken(gpu: str) -> None:
    """No silent way round: a step of a small transformer block launches own kernels and library products."""
    from ringgrad.tensor.backend.cuda import kernel

    kernel.launches.clear()
    block = rg.nn.Sequential(
        rg.nn.LayerNorm(32), rg.nn.Linear(32, 64), rg.nn.GELU(), rg.nn.Linear(64, 32)
    ).cuda()
    x = rg.randn(8, 32, device="cuda")
    F.cross_entropy(block(x), rg.randint(0, 32, (8,), device="cuda")).backward()
    rg.optim.AdamW(block.parameters()).step()
    for name in ("norm_f32", "gelu_f32", "gelu_gradient_f32", "cross_entropy_f32", "adam_f32", "gemm"):
        assert kernel.launches[name], f"{name} was not launched: {dict(kernel.launches)}"
