"""The models that are timed, written once for both sides: `torch` is the module that builds them.

    model, x, y, optimizer = parts(torch, case)

All are trained by cross entropy of the last dimension of what they give; weights are the same on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """build(torch): the model; shape: of the input, batch first; classes: of the targets; tokens: input of integers."""

    build: Callable[[Any], Any]
    shape: tuple[int, ...]
    classes: int = 10
    tokens: bool = False
    dense: bool = False  # a target for each position of the input


def same_weights(torch: Any, model: Any) -> None:
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in model.parameters():
            scale = 1 / math.sqrt(p.shape[-1]) if p.ndim > 1 else 0.1
            p.copy_(torch.tensor(rng.uniform(-scale, scale, tuple(p.shape)).astype(np.float32)))


def mlp(torch: Any, width: int) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def layer(torch: Any, width: int, heads: int, causal: bool) -> Any:
    """Of a transformer: attention and two linear layers, each behind its layer norm."""
    nn, F = torch.nn, torch.nn.functional

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            b, t, c = x.shape
            q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
            q, k, v = (u.view(b, t, heads, c // heads).transpose(1, 2) for u in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            x = x + self.out(mixed.transpose(1, 2).contiguous().view(b, t, c))
            return x + self.mlp(self.norm2(x))

    return Layer()


def char_gpt(
    torch: Any, vocabulary: int = 96, block: int = 64, width: int = 128, heads: int = 4, layers: int = 4
) -> Any:
    """nanoGPT's settings for a CPU."""
    nn = torch.nn

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(block, width)
            self.layers = nn.Sequential(*[layer(torch, width, heads, True) for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
            return self.head(self.norm(self.layers(x)))

    return GPT()


def vit_tiny(torch: Any, width: int = 192, heads: int = 3, layers: int = 12, patch: int = 4) -> Any:
    """ViT-Ti (Touvron et al., 2021) on images of 32 x 32: 64 patches and a class token."""
    nn = torch.nn

    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, patch, patch)
            self.mark = nn.Parameter(torch.zeros(1, 1, width))
            self.place = nn.Parameter(torch.zeros(1, 1 + (32 // patch) ** 2, width))
            self.layers = nn.Sequential(*[layer(torch, width, heads, False) for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.mark.expand(x.shape[0], -1, -1), x], 1) + self.place
            return self.head(self.norm(self.layers(x))[:, 0])

    return ViT()


def lenet(torch: Any) -> Any:
    nn = torch.nn
    features = (
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    head = (nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    return nn.Sequential(*features, *head)


def double(torch: Any, before: int, after: int) -> Any:
    nn = torch.nn
    layers: list[Any] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def unet(torch: Any, width: int = 32, classes: int = 10) -> Any:
    """A small U-Net: two levels down and up, two convolutions each, classes for each pixel (in the last dimension)."""
    nn = torch.nn

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2 = double(torch, 3, width), double(torch, width, 2 * width)
            self.inner, self.pool = double(torch, 2 * width, 4 * width), nn.MaxPool2d(2)
            self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
            self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
            self.join2, self.join1 = double(torch, 4 * width, 2 * width), double(torch, 2 * width, width)
            self.out = nn.Conv2d(width, classes, 1)

        def forward(self, x: Any) -> Any:
            a = self.down1(x)
            b = self.down2(self.pool(a))
            c = self.join2(torch.cat([b, self.up2(self.inner(self.pool(b)))], 1))
            d = self.join1(torch.cat([a, self.up1(c)], 1))
            return self.out(d).permute(0, 2, 3, 1).contiguous()

    return UNet()


def resnet18(torch: Any) -> Any:
    """ResNet-18 for CIFAR (He et al., 2016): a 3x3 stem without pooling, stages of 64 to 512 channels."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
            self.relu = nn.ReLU(inplace=True)
            short = nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            self.short = nn.Sequential(*(short if stride > 1 or before != after else ()))

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + self.short(x))

    layers: list[Any] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    for before, after, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [Block(before, after, stride), Block(after, after, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def cnn_bn(torch: Any) -> Any:
    """The first stages of a residual network for CIFAR, without the residuals."""
    nn = torch.nn
    layers: list[Any] = []
    for before, after, stride in ((3, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def char_lstm(torch: Any, vocabulary: int = 96, width: int = 256) -> Any:
    nn = torch.nn

    class CharLSTM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)
            self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.lstm(self.embed(tokens))[0])

    return CharLSTM()


CASES = {
    "mlp_small": Case(lambda torch: mlp(torch, 32), (32, 784)),
    "mlp": Case(lambda torch: mlp(torch, 256), (64, 784)),
    "lenet": Case(lenet, (64, 1, 28, 28)),
    "resnet18": Case(resnet18, (32, 3, 32, 32)),
    "unet": Case(unet, (4, 3, 64, 64), dense=True),
    "char_lstm": Case(char_lstm, (32, 64), 96, tokens=True, dense=True),
    "char_gpt": Case(char_gpt, (12, 64), 96, tokens=True, dense=True),
    "vit_tiny": Case(vit_tiny, (16, 3, 32, 32)),
}
MORE = {"cnn_bn": Case(cnn_bn, (32, 3, 32, 32))}  # of other benchmarks


def parts(torch: Any, name: str, batch: int | None = None) -> tuple[Any, Any, Any, Any]:
    """Model, inputs, targets and optimizer of a case; batch: another size than the case's own."""
    case = {**CASES, **MORE}[name]
    rng = np.random.default_rng(1)
    shape = (batch or case.shape[0], *case.shape[1:])
    if case.tokens:
        x = torch.tensor(rng.integers(0, case.classes, shape))
    else:
        x = torch.tensor(rng.standard_normal(shape).astype(np.float32))
    places = (shape if case.tokens else (shape[0], *shape[2:])) if case.dense else shape[:1]
    y = torch.tensor(rng.integers(0, case.classes, places))
    model = case.build(torch)
    same_weights(torch, model)
    make = torch.optim.AdamW if case.tokens or name == "vit_tiny" else torch.optim.SGD
    return model, x, y, make(model.parameters(), lr=1e-3)


def training(torch: Any, name: str, forward: Callable[[Any], Any] = lambda model: model) -> Callable[[], Any]:
    """One step on one batch; forward: what is called in the model's place."""
    F = torch.nn.functional
    model, x, y, optimizer = parts(torch, name)
    model = forward(model)

    def step() -> Any:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    return step


def inference(
    torch: Any, name: str, forward: Callable[[Any], Any] = lambda model: model
) -> Callable[[], Any]:
    """One answer to an input of batch 1, without gradients."""
    model, x, _, _ = parts(torch, name, batch=1)
    model = forward(model.eval())

    def answer() -> Any:
        with torch.no_grad():
            return model(x)

    return answer
