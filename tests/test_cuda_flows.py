"""What scripts do on a GPU, on the fake one: layers, losses, optimizers, mixed precision, checkpoints, functions."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import nn
from ringgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import fakecuda
import fakecuda_kernels as kernels

pytestmark = pytest.mark.skipif(kernels.compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module", autouse=True)
def cupy() -> Iterator[Any]:
    with fakecuda.installed() as cp:
        yield cp


def agree(a: Any, b: Any, rtol: float = 1e-4) -> None:
    np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=rtol, atol=1e-5)


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), (2, 3, 8)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 8, 8)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(3, 4, 3, 2), (2, 3, 5, 5)),
    "batch_norm1d": (lambda: nn.BatchNorm1d(5), (6, 5)),
    "batch_norm2d": (lambda: nn.BatchNorm2d(3), (2, 3, 4, 4)),
    "batch_norm_eval": (lambda: nn.BatchNorm2d(3).eval(), (2, 3, 4, 4)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), (2, 4, 5)),
    "instance_norm": (lambda: nn.InstanceNorm2d(3), (2, 3, 4, 4)),
    "layer_norm": (lambda: nn.LayerNorm(6), (3, 6)),
    "rms_norm": (lambda: nn.RMSNorm(6), (3, 6)),
    "lstm": (lambda: nn.LSTM(4, 5, 2), (3, 2, 4)),
    "lstm_both_ways": (lambda: nn.LSTM(4, 5, bidirectional=True, batch_first=True), (3, 2, 4)),
    "gru": (lambda: nn.GRU(4, 5), (3, 2, 4)),
    "rnn": (lambda: nn.RNN(4, 5), (3, 2, 4)),
    "max_pool": (lambda: nn.MaxPool2d(2), (1, 2, 4, 4)),
    "avg_pool": (lambda: nn.AvgPool2d(2), (1, 2, 4, 4)),
    "adaptive_avg_pool": (lambda: nn.AdaptiveAvgPool2d(2), (1, 2, 5, 5)),
    "adaptive_max_pool": (lambda: nn.AdaptiveMaxPool2d(2), (1, 2, 5, 5)),
    "upsample": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 3, 3)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (2, 3, 8)),
    "prelu": (nn.PReLU, (2, 3)),
    "pixel_shuffle": (lambda: nn.PixelShuffle(2), (1, 4, 3, 3)),
    "reflection_pad": (lambda: nn.ReflectionPad2d(1), (1, 2, 4, 4)),
    "unfold": (lambda: nn.Unfold(2), (1, 2, 4, 4)),
    "local_response_norm": (lambda: nn.LocalResponseNorm(2), (1, 4, 3, 3)),
    "mish": (nn.Mish, (3, 4)),
    "hardswish": (nn.Hardswish, (3, 4)),
    "glu": (nn.GLU, (3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    make, shape = LAYERS[name]
    rg.manual_seed(0)
    host, device = make(), make()
    device.load_state_dict(host.state_dict())
    device.cuda()
    x = rg.randn(*shape)
    ours, theirs = x.cuda().requires_grad_(), x.clone().requires_grad_()
    a, b = device(ours), host(theirs)
    a, b = (a[0], b[0]) if isinstance(a, tuple) else (a, b)
    agree(a, b)
    (a * a).sum().backward()
    (b * b).sum().backward()
    agree(ours.grad, theirs.grad, 1e-3)
    for p, q in zip(device.parameters(), host.parameters()):
        agree(p.grad, q.grad, 1e-3)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings(kind: Any) -> None:
    host, index = kind(7, 4), rg.randint(0, 7, (3, 2))
    device = copy.deepcopy(host).cuda()
    device(index.cuda()).sum().backward()
    host(index).sum().backward()
    agree(device.weight.grad, host.weight.grad)


LOSSES = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
    "bce": lambda a, b: F.binary_cross_entropy(a.sigmoid(), b.sigmoid()),
    "bce_with_logits": lambda a, b: F.binary_cross_entropy_with_logits(a, b.sigmoid()),
    "kl": lambda a, b: F.kl_div(a.log_softmax(-1), b.softmax(-1), reduction="batchmean"),
    "nll": lambda a, b: F.nll_loss(a.log_softmax(-1), b.argmax(-1)),
    "cross entropy of probabilities": lambda a, b: F.cross_entropy(a, b.softmax(-1)),
    "weighted cross entropy": lambda a, b: F.cross_entropy(a, b.argmax(-1), weight=b[0].abs()),
    "cosine": lambda a, b: F.cosine_similarity(a, b).sum(),
    "triplet": lambda a, b: F.triplet_margin_loss(a, b, a * b),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    rg.manual_seed(0)
    a, b = rg.randn(4, 5), rg.randn(4, 5)
    x, y = a.cuda().requires_grad_(), a.clone().requires_grad_()
    ours, theirs = LOSSES[name](x, b.cuda()), LOSSES[name](y, b)
    agree(ours, theirs)
    ours.backward()
    theirs.backward()
    agree(x.grad, y.grad, 1e-3)


OPTIMIZERS = ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop"]
OPTIMIZERS += ["ASGD", "Lion", "Muon", "Adafactor", "LBFGS"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    results = []
    for place in ("cpu", "cuda"):
        rg.manual_seed(0)
        params = [rg.randn(4, 3).to(place).requires_grad_()]
        params += [] if name == "Muon" else [rg.randn(5).to(place).requires_grad_()]
        optimizer = getattr(rg.optim, name)(params)

        def closure() -> Any:
            optimizer.zero_grad()  # noqa: B023
            loss = sum((p * p).sum() for p in params)  # noqa: B023
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        optimizer.load_state_dict(optimizer.state_dict())
        results.append(params)
    for p, q in zip(*results):
        agree(p, q)


@pytest.mark.parametrize("dtype", [rg.float16, rg.bfloat16])
def test_mixed_precision_with_a_scaler(dtype: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 4)).cuda()
    optimizer, scaler = rg.optim.AdamW(model.parameters()), rg.amp.GradScaler("cuda")
    before = model[0].weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        with rg.autocast("cuda", dtype=dtype):
            out = model(rg.randn(2, 4, device="cuda"))
            assert out.dtype is dtype and F.softmax(out, -1).dtype is rg.float32
            loss = out.float().square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert model[0].weight.dtype is rg.float32 and not (model[0].weight == before).all().item()


def test_checkpoints_go_over_the_cpu(tmp_path: Path) -> None:
    model = nn.Linear(4, 4).cuda()
    optimizer = rg.optim.AdamW(model.parameters())
    model(rg.ones(1, 4, device="cuda")).sum().backward()
    optimizer.step()
    rg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
    loaded = rg.load(tmp_path / "x.pt")
    assert not loaded["model"]["weight"].is_cuda
    other = nn.Linear(4, 4).cuda()
    other.load_state_dict(loaded["model"])
    agree(other.weight, model.weight)
    fresh = rg.optim.AdamW(other.parameters())
    fresh.load_state_dict(loaded["optimizer"])
    other(rg.ones(1, 4, device="cuda")).sum().backward()
    fresh.step()
    there = rg.load(tmp_path / "x.pt", map_location="cuda")
    assert (
        there["model"]["weight"].is_cuda
        and rg.load(tmp_path / "x.pt", map_location="cuda:0")["model"]["bias"].is_cuda
    )


def test_derivatives_of_derivatives() -> None:
    x = rg.randn(2, 3)
    found = []
    for place in ("cpu", "cuda"):
        y = x.clone().to(place).requires_grad_()
        loss = F.layer_norm(F.gelu(F.softmax(y, -1)), (3,)).pow(3).sum()
        loss = loss + F.cross_entropy(y, rg.tensor([0, 2]).to(place)) + (y @ y.t()).square().sum()
        (g,) = rg.autograd.grad(loss, y, create_graph=True)
        g.square().sum().backward()
        found.append(y.grad)
    agree(*found, rtol=1e-3)


X = rg.randn(3, 4, generator=rg.Generator().manual_seed(3))
FUNCTIONS: dict[str, Any] = {
    "topk": lambda x: x.topk(2)[0],
    "sort": lambda x: x.sort()[1],
    "unique": lambda x: x.round().unique(),
    "unique_consecutive": lambda x: x.round().unique_consecutive(return_counts=True)[1],
    "median": lambda x: x.median(),
    "quantile": lambda x: x.quantile(0.4, dim=1),
    "histc": lambda x: rg.histc(x, 4),
    "nonzero": lambda x: (x > 0).nonzero(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "searchsorted": lambda x: rg.searchsorted(x[0].sort()[0], x),
    "isin": lambda x: rg.isin(x, x[0]),
    "one_hot": lambda x: F.one_hot(x.abs().long()),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=0),
    "inv": lambda x: rg.linalg.inv(x[:, :3]),
    "solve": lambda x: rg.linalg.solve(x[:, :3], x[:, 3:]),
    "svd": lambda x: rg.linalg.svd(x)[1],
    "fft": lambda x: rg.fft.fft(x).abs(),
    "cdist": lambda x: rg.cdist(x, x + 1),
    "scatter": lambda x: x.clone().scatter_(0, x[:1].abs().long(), 1.0),
    "index_add": lambda x: x.clone().index_add_(0, x[0, :2].abs().long() * 0 + 1, x[:2]),
    "einsum": lambda x: rg.einsum("ij,kj->ik", x, x),
    "logsumexp": lambda x: x.logsumexp(0),
    "cumsum": lambda x: x.cumsum(0),
    "cov": lambda x: rg.cov(x),
    "log_prob": lambda x: rg.distributions.Normal(x, x.abs() + 1).log_prob(x),
    "interpolate": lambda x: F.interpolate(x.reshape(1, 1, 3, 4), scale_factor=2, mode="bicubic"),
    "grid_sample": lambda x: F.grid_sample(
        x.reshape(1, 1, 3, 4), x.reshape(1, 2, 3, 2).tanh(), align_corners=False
    ),
    "attention with a mask": lambda x: F.scaled_dot_product_attention(
        x[None, None], x[None, None], x[None, None], attn_mask=(x[:, :3] > -1)
    ),
    "vmap": lambda x: rg.vmap(lambda row: row * 2)(x),
    "func.grad": lambda x: rg.func.grad(lambda t: (t**3).sum())(x),
    "jacobian": lambda x: rg.autograd.functional.jacobian(lambda t: t**2, x[0]),
    "pad_sequence": lambda x: nn.utils.rnn.pad_sequence([x[0], x[1, :2]]),
    "where": lambda x: x.where(x > 0, 0.0),
    "complex": lambda x: rg.complex(x, x * 2).abs(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    got, want = FUNCTIONS[name](X.cuda()), FUNCTIONS[name](X.clone())
    assert got.is_cuda and got.dtype is want.dtype and got.shape == want.shape
    agree(got, want)


def test_random_tensors_and_initialisation_stay_on_the_gpu() -> None:
    x = rg.zeros(30, 40, device="cuda")
    for t in (
        x.uniform_(),
        x.normal_(),
        x.exponential_(),
        x.bernoulli_(0.5),
        x.random_(0, 5),
        x.geometric_(0.5),
    ):
        assert t.is_cuda and t.isfinite().all().item()
    assert rg.multinomial(x.abs() + 1, 2).is_cuda and rg.rand_like(x).is_cuda and F.gumbel_softmax(x).is_cuda
    for fill in (nn.init.kaiming_normal_, nn.init.orthogonal_, nn.init.trunc_normal_, nn.init.eye_):
        assert fill(rg.empty(3, 4, device="cuda")).is_cuda
    assert nn.Linear(3, 4, device="cuda")(rg.ones(2, 3, device="cuda")).is_cuda


def test_copies_between_devices_in_place() -> None:
    x, y = rg.zeros(3, device="cuda"), rg.arange(3.0)
    assert x.copy_(y).tolist() == [0, 1, 2] and rg.zeros(3).copy_(x).tolist() == [0, 1, 2]
