"""Exported models against eager, with other batch sizes than the example's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import ringgrad as torch  # noqa: E402
from ringgrad import nn  # noqa: E402
from ringgrad.nn import functional as F  # noqa: E402
from ringgrad.onnx import OnnxModule, export  # noqa: E402


def session(proto: Any) -> Any:
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Residual(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.two = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Sequential() if stride == 1 else nn.Conv2d(inside, out, 1, stride)

    def forward(self, x: Any) -> Any:
        y = self.norm2(self.two(self.relu(self.norm1(self.one(x)))))
        y += self.short(x)
        return self.relu(y)


def resnet() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), Residual(8, 8, 1),
        Residual(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 10),
    )  # fmt: skip


def lenet() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.last = nn.Conv2d(12, 1, 3, padding=1)

    def forward(self, x: Any) -> Any:
        a = F.relu(self.down1(x))
        b = F.silu(self.norm(self.down2(F.max_pool2d(a, 2))))
        c = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        n = F.interpolate(self.up(b), size=a.shape[-2:], mode="nearest")
        assert c.shape[1] == 8
        return self.last(torch.cat([a, n, c[:, 4:]], 1))


class Tagger(nn.Module):
    def __init__(self, layer: Callable[..., Any]) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.layer = layer(6, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(10, 3)

    def forward(self, tokens: Any) -> Any:
        y, _ = self.layer(self.embed(tokens))
        return F.log_softmax(self.out(y), dim=-1)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Any) -> Any:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(c, dim=2)
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(b, t, c))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(13, 8), nn.Embedding(16, 8)
        self.blocks = nn.ModuleList([Block(8, 2) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 13, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, idx: Any) -> Any:
        x = self.tokens(idx) + self.places(torch.arange(idx.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], dim=1) + self.places
        return self.head(self.encoder(y)[:, 0])


def mlp() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def encoder() -> Any:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)


def floats(*shape: int) -> Any:
    return torch.randn(*shape)


def tokens(*shape: int) -> Any:
    return torch.randint(0, 11, shape)


B, BT = {0: "batch"}, {0: "batch", 1: "time"}
MODELS: dict[str, tuple[Callable[[], Any], Any, tuple[int, ...], dict[int, str], tuple[int, ...]]] = {
    "mlp": (mlp, floats, (3, 4), B, (7, 4)),
    "lenet": (lenet, floats, (2, 1, 28, 28), B, (3, 1, 28, 28)),
    "resnet": (resnet, floats, (2, 3, 16, 16), B, (1, 3, 16, 16)),
    "resnet, any image size": (resnet, floats, (1, 3, 16, 16), {0: "n", 2: "h", 3: "w"}, (2, 3, 32, 24)),
    "unet": (UNet, floats, (1, 1, 8, 8), B, (3, 1, 8, 8)),
    "lstm": (lambda: Tagger(nn.LSTM), tokens, (2, 5), BT, (4, 7)),
    "gru": (lambda: Tagger(nn.GRU), tokens, (2, 5), BT, (4, 7)),
    "rnn": (lambda: Tagger(nn.RNN), tokens, (2, 5), BT, (1, 3)),
    "encoder": (encoder, floats, (5, 2, 8), {0: "time", 1: "batch"}, (4, 3, 8)),
    "gpt": (GPT, tokens, (2, 5), B, (3, 5)),
    "gpt, any length": (GPT, tokens, (2, 5), BT, (3, 9)),
    "gpt at its greatest length": (GPT, tokens, (7, 16), BT, (1, 4)),
    "vit": (ViT, floats, (2, 3, 8, 8), B, (5, 3, 8, 8)),
}


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_runs_with_other_sizes(name: str, opset: int) -> None:
    build, inputs, shape, axes, other = MODELS[name]
    torch.manual_seed(0)
    model = build()
    proto = export(model, inputs(*shape), dynamic_axes={"input": axes}, opset_version=opset)
    assert model.training and all(m.training for m in model.modules())
    runner = session(proto)
    model.eval()
    for size in (shape, other):
        x = inputs(*size)
        (y,) = runner.run(None, {"input": x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(y, model(x).numpy(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(y, OnnxModule(proto)(x).numpy(), rtol=1e-4, atol=1e-5)


class Cached(nn.Module):
    """One layer of a decoder that is given the keys and values of the tokens before."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("rates", 1 / 10 ** torch.arange(2.0), persistent=False)

    def turned(self, x: Any, places: Any) -> Any:
        angles = torch.cat([places[:, None].float() * self.rates] * 2, -1)
        return x * angles.cos() + torch.cat([-x[..., 2:], x[..., :2]], -1) * angles.sin()

    def forward(self, x: Any, keys: Any, values: Any, mask: Any) -> Any:
        b, t, _ = x.shape
        q, k, v = (z.view(b, t, 2, 4).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        places = torch.arange(keys.shape[2], keys.shape[2] + t)
        q, k = self.turned(q, places), self.turned(k, places)
        keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        later = torch.full((t, keys.shape[2]), float("-inf")).triu(keys.shape[2] - t + 1)
        hidden = torch.where(mask[:, None, None] > 0, 0.0, float("-inf"))
        weights = (q @ keys.transpose(-1, -2) / 2 + later + hidden).softmax(-1)
        return self.out((weights @ values).transpose(1, 2).reshape(b, t, 8)), keys, values


def test_a_decoder_with_a_cache_runs_with_any_lengths() -> None:
    torch.manual_seed(0)
    model = Cached()

    def inputs(b: int, past: int, t: int) -> tuple[Any, ...]:
        cache = (torch.randn(b, 2, past, 4), torch.randn(b, 2, past, 4))
        mask = torch.ones(b, past + t, dtype=torch.int64)
        mask[0, 0] = 0
        return (torch.randn(b, t, 8), *cache, mask)

    names = ["x", "keys", "values", "mask"]
    axes = {"x": {0: "b", 1: "t"}, "keys": {0: "b", 2: "past"}, "values": {0: "b", 2: "past"}}
    axes["mask"] = {0: "b", 1: "past + t"}
    proto = export(model, inputs(2, 3, 2), input_names=names, dynamic_axes=axes)
    runner = session(proto)
    for sizes in ((2, 3, 2), (1, 9, 1), (3, 1, 4)):
        given = inputs(*sizes)
        found = runner.run(None, {n: t.numpy() for n, t in zip(names, given)})
        for y, z, w in zip(found, OnnxModule(proto)(*given), model(*given)):
            np.testing.assert_allclose(y, w.detach().numpy(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(z.numpy(), w.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_size_that_is_a_sum_is_not_taken_for_a_multiple() -> None:
    proto = export(
        lambda a, b: torch.cat([a, b]).reshape(-1, 1).expand(-1, 2), (torch.randn(3), torch.randn(2)),
        input_names=["a", "b"], dynamic_axes={"a": {0: "p"}, "b": {0: "t"}},
    )  # fmt: skip
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "(p+t)"
    (y,) = session(proto).run(None, {"a": np.ones(7, np.float32), "b": np.zeros(1, np.float32)})
    assert y.shape == (8, 2)


def test_sizes_that_are_rounded_hold_for_all_sizes() -> None:
    conv = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.MaxPool2d(3, stride=2))

    def model(x: Any) -> Any:
        y = conv(x)
        n, c, h, w = y.shape
        return y.reshape(n, c * h, w).transpose(1, 2).reshape(n * w, -1), x[:, :, ::2].flatten(1)

    proto = export(model, torch.randn(1, 1, 16, 12), dynamic_axes={"input": {2: "h", 3: "w"}})
    for h, w in ((16, 12), (17, 13), (22, 21), (31, 15)):
        x = torch.randn(1, 1, h, w)
        for y, want in zip(session(proto).run(None, {"input": x.numpy()}), model(x)):
            np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-4, atol=1e-5)
