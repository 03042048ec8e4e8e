"""Small models with data, loss and optimizer, on which compiled and eager training are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ringgrad as rg
from ringgrad import nn
from ringgrad.nn import functional as F

Case = tuple[Any, Callable[[int], Any], Callable[[Any, Any], Any], Callable[[Any], Any]]


def _classes(shape: tuple[int, ...], classes: int = 10) -> Callable[[int], Any]:
    def data(i: int) -> Any:
        r = np.random.default_rng(i)
        x = r.standard_normal(shape).astype(np.float32)
        return rg.tensor(x), rg.tensor(r.integers(0, classes, shape[0]))

    return data


def _tokens(shape: tuple[int, ...], vocabulary: int = 30) -> Callable[[int], Any]:
    def data(i: int) -> Any:
        r = np.random.default_rng(i)
        return rg.tensor(r.integers(0, vocabulary, shape)), rg.tensor(r.integers(0, vocabulary, shape))

    return data


def _over_tokens(logits: Any, y: Any) -> Any:
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))


def mlp() -> Case:
    """The GELU is large enough for the compiled body that eager has."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 10)
    )
    return (
        model,
        _classes((160, 8, 8)),
        F.cross_entropy,
        lambda p: rg.optim.SGD(p, 0.1, 0.9, weight_decay=1e-3),
    )


def dropout() -> Case:
    model = nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.SiLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    return model, _classes((16, 64)), F.cross_entropy, lambda p: rg.optim.AdamW(p, 1e-2, weight_decay=0.1)


def lenet() -> Case:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 5), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10),
    )  # fmt: skip
    return model, _classes((8, 1, 16, 16)), F.cross_entropy, lambda p: rg.optim.Adam(p, 1e-3)


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        plain = stride == 1 and before == after
        conv = nn.Conv2d(before, after, 1, stride, bias=False)
        self.short = nn.Identity() if plain else nn.Sequential(conv, nn.BatchNorm2d(after))

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.short(x)
        return self.relu(y)


def resnet() -> Case:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), Block(8, 8, 1),
        Block(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    return (
        model,
        _classes((4, 3, 12, 12)),
        F.cross_entropy,
        lambda p: rg.optim.SGD(p, 0.05, 0.9, nesterov=True),
    )


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.inner = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 1, 1)

    def forward(self, x: Any) -> Any:
        a = F.relu(self.down(x))
        b = F.leaky_relu(self.inner(F.max_pool2d(a, 2)))
        return self.out(rg.cat([a, self.up(b)], 1))


def unet() -> Case:
    def data(i: int) -> Any:
        x = rg.tensor(np.random.default_rng(i).standard_normal((2, 1, 8, 8)).astype(np.float32))
        return x, x.tanh()

    return UNet(), data, F.mse_loss, lambda p: rg.optim.RMSprop(p, 1e-3)


class CharLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = (
            nn.Embedding(30, 12),
            nn.LSTM(12, 16, 2, batch_first=True),
            nn.Linear(16, 30),
        )

    def forward(self, tokens: Any) -> Any:
        return self.head(self.lstm(self.embed(tokens))[0])


def lstm() -> Case:
    return CharLSTM(), _tokens((4, 7)), _over_tokens, lambda p: rg.optim.Adam(p, 1e-2, amsgrad=True)


class Attention(nn.Module):
    def __init__(self, width: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop, self.causal = nn.Dropout(dropout), causal

    def forward(self, x: Any) -> Any:
        b, t, c = x.shape
        q, k, v = (u.view(b, t, 2, c // 2).transpose(1, 2) for u in self.qkv(self.norm1(x)).split(c, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.drop(self.out(mixed.transpose(1, 2).contiguous().view(b, t, c)))
        return x + self.drop(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(30, 16), nn.Embedding(8, 16)
        self.layers = nn.Sequential(*[Attention(16, True, 0.1) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 30, bias=False)
        self.token.weight = self.head.weight  # tied

    def forward(self, tokens: Any) -> Any:
        x = self.token(tokens) + self.position(rg.arange(tokens.shape[1]))
        return self.head(self.norm(self.layers(x)))


def gpt() -> Case:
    return GPT(), _tokens((3, 8)), _over_tokens, lambda p: rg.optim.AdamW(p, 1e-2)


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.mark, self.place = nn.Parameter(rg.zeros(1, 1, 16)), nn.Parameter(rg.zeros(1, 5, 16))
        self.layers, self.head = nn.Sequential(Attention(16, False, 0.0)), nn.Linear(16, 10)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = rg.cat([self.mark.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.layers(x)[:, 0])


def vit() -> Case:
    return ViT(), _classes((4, 3, 8, 8)), F.cross_entropy, lambda p: rg.optim.Lion(p, 1e-3)


MODELS: dict[str, Callable[[], Case]] = {
    fn.__name__: fn for fn in (mlp, dropout, lenet, resnet, unet, lstm, gpt, vit)
}
