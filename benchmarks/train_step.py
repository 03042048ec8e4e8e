"""One training step (forward, loss, backward, optimizer) against PyTorch: same model, weights and batch.

    python benchmarks/train_step.py [--json FILE] [--threads N] [--quick]

Both sides run the code below with their own module under the name `torch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import main

CASES = ["mlp_small", "mlp", "lenet", "cnn_bn", "char_lstm", "char_gpt"]


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


def char_gpt(
    torch: Any, vocabulary: int = 96, block: int = 64, width: int = 128, heads: int = 4, layers: int = 4
) -> Any:
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
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).contiguous().view(b, t, c))
            return x + self.mlp(self.norm2(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(block, width)
            self.layers = nn.Sequential(*[Layer() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
            return self.head(self.norm(self.layers(x)))

    return GPT()


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


def parts(torch: Any, case: str) -> tuple[Any, Any, Any, Any]:
    """Model, inputs, targets and optimizer of a case."""
    rng = np.random.default_rng(1)
    optimizer = torch.optim.SGD
    if case in ("char_gpt", "char_lstm"):  # nanoGPT's settings for a CPU; 32 sequences for the LSTM
        model = char_gpt(torch) if case == "char_gpt" else char_lstm(torch)
        x, y = (torch.tensor(rng.integers(0, 96, (12 if case == "char_gpt" else 32, 64))) for _ in range(2))
        optimizer = torch.optim.AdamW
    elif case in ("lenet", "cnn_bn"):
        model, shape = (
            (lenet(torch), (64, 1, 28, 28)) if case == "lenet" else (cnn_bn(torch), (32, 3, 32, 32))
        )
        x = torch.tensor(rng.standard_normal(shape).astype(np.float32))
        y = torch.tensor(rng.integers(0, 10, (shape[0],)))
    else:
        width, batch = (32, 32) if case == "mlp_small" else (256, 64)
        model = mlp(torch, width)
        x = torch.tensor(rng.standard_normal((batch, 784)).astype(np.float32))
        y = torch.tensor(rng.integers(0, 10, (batch,)))
    same_weights(torch, model)
    return model, x, y, optimizer(model.parameters(), lr=1e-3)


def build(torch: Any, case: str) -> tuple[Callable[[], Any], Callable[[], float | None]]:
    F = torch.nn.functional
    model, x, y, optimizer = parts(torch, case)

    def step() -> Any:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    def value() -> float:
        """The loss after three steps: both sides must have done the same."""
        for _ in range(3):
            loss = step()
        return loss.item()

    return step, value


if __name__ == "__main__":
    main(__file__, "training step", CASES, build)
