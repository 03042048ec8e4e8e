"""Loss curves beside PyTorch's: the same program, the same seed, both libraries in one process.

A program is a function of the module that stands for torch; it builds its model from its own `manual_seed`, trains and
yields the loss of each step. Nothing is copied from one side to the other, so initial weights, dropout masks, orders
of shuffling and sampled actions must be PyTorch's too.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ringgrad

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

Curve = Iterator[float]
STEPS = 20


def fit(
    model: Any, optimizer: Any, loss_of: Callable[[int], Any], after: Callable[[], object] = int
) -> Curve:
    """One step an iteration; `after` runs between backward and the optimizer's step, then the schedule goes on."""
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()
        after()
        optimizer.step()
        yield loss.item()


def mlp(torch: Any) -> Curve:
    """Shuffling by randperm, dropout, batch norm, momentum and a schedule."""
    nn = torch.nn
    x, labels = torch.randn(96, 20), torch.randint(0, 5, (96,))
    model = nn.Sequential(
        nn.Linear(20, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(64, 32),
        nn.GELU(),
        nn.Linear(32, 5),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)

    def loss_of(step: int) -> Any:
        if step:
            schedule.step()
        chosen = torch.randperm(96)[:32]
        return nn.functional.cross_entropy(model(x[chosen]), labels[chosen], label_smoothing=0.1)

    return fit(model, optimizer, loss_of)


def loader(torch: Any) -> Curve:
    """A shuffling DataLoader over two random parts of a data set, three epochs."""
    nn, data = torch.nn, importlib.import_module(torch.__name__ + ".utils.data")
    whole = data.TensorDataset(torch.randn(80, 8), torch.randn(80, 1))
    part, rest = data.random_split(whole, [0.8, 0.2])
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        for x, y in data.DataLoader(part, batch_size=10, shuffle=True):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            yield loss.item()
        with torch.no_grad():
            for x, y in data.DataLoader(rest, batch_size=8):
                yield nn.functional.l1_loss(model(x), y).item()


def lenet(torch: Any) -> Curve:
    nn, F = torch.nn, torch.nn.functional

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(16 * 5 * 5, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = torch.flatten(x, 1)
            return F.log_softmax(self.fc3(F.relu(self.fc2(F.relu(self.fc1(x))))), dim=1)

    x, labels = torch.randn(16, 1, 28, 28), torch.randint(0, 10, (16,))
    model = LeNet()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=0.5)
    return fit(model, optimizer, lambda step: F.nll_loss(model(x), labels))


def resnet18(torch: Any) -> Curve:
    """All 18 layers at an eighth of the width, with He's initialisation.

    In float64: in float32 PyTorch parts from itself within 6 steps when it computes convolutions without oneDNN.
    """
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, width: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = None
            if stride != 1 or width != out:
                self.downsample = nn.Sequential(
                    nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out)
                )

        def forward(self, x: Any) -> Any:
            kept = x if self.downsample is None else self.downsample(x)
            out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            out += kept
            return self.relu(out)

    blocks, width = [], 8
    for out, stride in ((8, 1), (16, 2), (32, 2), (64, 2)):
        blocks += [Block(width, out, stride), Block(out, out, 1)]
        width = out
    stem = [
        nn.Conv2d(3, 8, 7, 2, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(64, 10))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    model.double()
    x, labels = torch.randn(8, 3, 32, 32).double(), torch.randint(0, 10, (8,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return fit(model, optimizer, lambda step: F.cross_entropy(model(x), labels))


def unet(torch: Any) -> Curve:
    nn, F = torch.nn, torch.nn.functional

    def twice(channels: int, out: int) -> Any:
        layers = [nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(2, out), nn.SiLU()]
        return nn.Sequential(*layers, nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(2, out), nn.SiLU())

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2, self.bottom = twice(1, 8), twice(8, 16), twice(16, 32)
            self.up2 = nn.ConvTranspose2d(32, 16, 2, stride=2)
            self.join2, self.join1 = twice(32, 16), twice(24, 8)
            self.out = nn.Conv2d(8, 1, 1)

        def forward(self, x: Any) -> Any:
            a = self.down1(x)
            b = self.down2(F.max_pool2d(a, 2))
            c = self.bottom(F.avg_pool2d(b, 2))
            b = self.join2(torch.cat([b, self.up2(c)], dim=1))
            b = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
            return self.out(self.join1(torch.cat([a, b], dim=1)))

    model = UNet()
    x = torch.randn(4, 1, 24, 24)
    mask = (x > 0.5).float()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.5)
    return fit(model, optimizer, lambda step: F.binary_cross_entropy_with_logits(model(x), mask))


def vae(torch: Any) -> Curve:
    """The noise of every step comes from randn_like."""
    nn, F = torch.nn, torch.nn.functional

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.mean, self.log_variance = nn.Linear(64, 32), nn.Linear(32, 4), nn.Linear(32, 4)
            self.decoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())

        def forward(self, x: Any) -> Any:
            h = F.relu(self.hidden(x.view(-1, 64)))
            mean, log_variance = self.mean(h), self.log_variance(h)
            std = torch.exp(0.5 * log_variance)
            return self.decoder(mean + torch.randn_like(std) * std), mean, log_variance

    model = VAE()
    x = torch.rand(32, 1, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss_of(step: int) -> Any:
        made, mean, log_variance = model(x)
        divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return F.binary_cross_entropy(made, x.view(-1, 64), reduction="sum") + divergence

    return fit(model, optimizer, loss_of)


def dcgan(torch: Any) -> Curve:
    """Two optimizers, detach, transposed convolutions, weights set by apply."""
    nn = torch.nn

    def weights(module: Any) -> None:
        name = module.__class__.__name__
        if name.find("Conv") != -1:
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif name.find("BatchNorm") != -1:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)

    def up(a: int, b: int, stride: int, padding: int) -> list[Any]:
        return [nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]

    def down(a: int, b: int) -> list[Any]:
        return [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2, inplace=True)]

    last = [nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False), nn.Tanh()]
    maker = nn.Sequential(*up(10, 16, 1, 0), *up(16, 8, 2, 1), *last).apply(weights)
    judge = nn.Sequential(
        *down(1, 8), *down(8, 16), nn.Conv2d(16, 1, 4, 1, 0, bias=False), nn.Sigmoid()
    ).apply(weights)
    loss = nn.BCELoss()
    judges = torch.optim.Adam(judge.parameters(), lr=2e-4, betas=(0.5, 0.999))
    makers = torch.optim.Adam(maker.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real = torch.rand(8, 1, 16, 16) * 2 - 1
    for _ in range(STEPS // 2):
        judge.zero_grad()
        label = torch.full((8,), 1.0)
        on_real = loss(judge(real).view(-1), label)
        on_real.backward()
        made = maker(torch.randn(8, 10, 1, 1))
        on_made = loss(judge(made.detach()).view(-1), label.fill_(0.0))
        on_made.backward()
        judges.step()
        maker.zero_grad()
        fooled = loss(judge(made).view(-1), label.fill_(1.0))
        fooled.backward()
        makers.step()
        yield (on_real + on_made).item()
        yield fooled.item()


def language_model(torch: Any) -> Curve:
    """An LSTM over stretches of text, the state carried over, gradients clipped, plain SGD by hand."""
    nn = torch.nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.2)
            self.encoder = nn.Embedding(30, 24)
            self.rnn = nn.LSTM(24, 24, 2, dropout=0.2)
            self.decoder = nn.Linear(24, 30)
            self.decoder.weight = self.encoder.weight
            nn.init.uniform_(self.encoder.weight, -0.1, 0.1)

        def forward(self, x: Any, state: Any) -> Any:
            out, state = self.rnn(self.drop(self.encoder(x)), state)
            return self.decoder(self.drop(out)).view(-1, 30), state

    model = Model()
    text = torch.randint(0, 30, (STEPS * 7 + 1, 5))
    state = (torch.zeros(2, 5, 24), torch.zeros(2, 5, 24))
    for step in range(STEPS):
        x, y = text[step * 7 : step * 7 + 7], text[step * 7 + 1 : step * 7 + 8].reshape(-1)
        model.zero_grad()
        state = tuple(s.detach() for s in state)
        out, state = model(x, state)
        loss = nn.functional.cross_entropy(out, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        for p in model.parameters():
            p.data.add_(p.grad, alpha=-2.0)
        yield loss.item()


def packed_gru(torch: Any) -> Curve:
    """A bidirectional GRU over sequences of different lengths, unsorted."""
    nn = torch.nn
    rnn = nn.utils.rnn
    lengths = [7, 3, 5, 1]
    parts = [torch.randn(n, 6) for n in lengths]
    labels = torch.randint(0, 3, (4,))
    gru, head = (
        nn.GRU(6, 10, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1),
        nn.Linear(40, 3),
    )
    both = nn.ModuleList([gru, head])
    optimizer = torch.optim.NAdam(both.parameters(), lr=0.01)

    def loss_of(step: int) -> Any:
        x = rnn.pad_sequence(parts, batch_first=True)
        packed = rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        out, last = gru(packed)
        padded, sizes = rnn.pad_packed_sequence(out, batch_first=True)
        mean = padded.sum(1) / sizes.unsqueeze(1)
        return nn.functional.cross_entropy(head(torch.cat([mean, last[-1], last[-2]], dim=1)), labels)

    return fit(both, optimizer, loss_of)


def transformer(torch: Any) -> Curve:
    nn = torch.nn
    embed = nn.Embedding(20, 16, padding_idx=0)
    whole = nn.Transformer(16, 4, 2, 2, 32, dropout=0.1, batch_first=True)
    head = nn.Linear(16, 20)
    model = nn.ModuleDict({"embed": embed, "whole": whole, "head": head})
    source, target = torch.randint(1, 20, (4, 9)), torch.randint(1, 20, (4, 7))
    source[0, 6:] = 0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))

    def loss_of(step: int) -> Any:
        if step:
            warm.step()
        mask = nn.Transformer.generate_square_subsequent_mask(6)
        hidden = source == 0
        out = whole(
            embed(source),
            embed(target[:, :-1]),
            tgt_mask=mask,
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
        )
        return nn.functional.cross_entropy(head(out).transpose(1, 2), target[:, 1:], ignore_index=0)

    return fit(model, optimizer, loss_of)


def vit(torch: Any) -> Curve:
    nn = torch.nn

    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 24, 4, stride=4)
            self.token = nn.Parameter(torch.zeros(1, 1, 24))
            self.position = nn.Parameter(torch.empty(1, 17, 24).normal_(std=0.02))
            nn.init.trunc_normal_(self.token, std=0.02)
            layer = nn.TransformerEncoderLayer(24, 3, 48, 0.1, "gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(24), enable_nested_tensor=False)
            self.head = nn.Linear(24, 10)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
            return self.head(self.encoder(x)[:, 0])

    model = ViT()
    x, labels = torch.randn(8, 3, 16, 16), torch.randint(0, 10, (8,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)

    def clip() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)

    return fit(model, optimizer, lambda step: nn.functional.cross_entropy(model(x), labels), clip)


def gpt(torch: Any) -> Curve:
    """Causal attention, tied weights, two parameter groups, batches by randint and stack."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(32), nn.LayerNorm(32)
            self.attn, self.proj = nn.Linear(32, 96, bias=False), nn.Linear(32, 32, bias=False)
            self.mlp = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32), nn.Dropout(0.1))

        def forward(self, x: Any) -> Any:
            b, t, c = x.size()
            q, k, v = (
                part.view(b, t, 4, 8).transpose(1, 2) for part in self.attn(self.first(x)).split(32, dim=2)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.transpose(1, 2).contiguous().view(b, t, c))
            return x + self.mlp(self.second(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(40, 32), nn.Embedding(12, 32)
            self.blocks = nn.ModuleList([Block() for _ in range(2)])
            self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 40, bias=False)
            self.token.weight = self.head.weight
            self.apply(self.start)
            for name, p in self.named_parameters():
                if name.endswith("proj.weight"):
                    nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(4))

        def start(self, module: Any) -> None:
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, mean=0.0, std=0.02)

        def forward(self, x: Any, y: Any) -> Any:
            h = self.token(x) + self.position(torch.arange(x.size(1)))
            for block in self.blocks:
                h = block(h)
            return F.cross_entropy(self.head(self.norm(h)).view(-1, 40), y.view(-1), ignore_index=-1)

    model = GPT()
    text = torch.randint(0, 40, (500,))
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))

    def loss_of(step: int) -> Any:
        places = torch.randint(len(text) - 12, (8,))
        x = torch.stack([text[i : i + 12] for i in places])
        y = torch.stack([text[i + 1 : i + 13] for i in places])
        return model(x, y)

    return fit(model, optimizer, loss_of)


def gcn(torch: Any) -> Curve:
    """Two graph convolutions in plain ops: a normalised adjacency matrix and matmul."""
    nn, F = torch.nn, torch.nn.functional

    class Convolution(nn.Module):
        def __init__(self, width: int, out: int) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.Tensor(width, out))
            self.bias = nn.Parameter(torch.Tensor(out))
            nn.init.xavier_normal_(self.kernel)
            nn.init.zeros_(self.bias)

        def forward(self, x: Any, edges: Any) -> Any:
            return torch.mm(edges, torch.mm(x, self.kernel)) + self.bias

    edges = (torch.rand(30, 30) < 0.15).float()
    edges = torch.maximum(edges, edges.t()) + torch.eye(30)
    degree = edges.sum(1).pow(-0.5)
    edges = degree[:, None] * edges * degree[None, :]
    x, labels = torch.rand(30, 12), torch.randint(0, 4, (30,))
    x = x / x.sum(1, keepdim=True)
    known = torch.arange(30) % 3 == 0
    first, second = Convolution(12, 8), Convolution(8, 4)
    both = nn.ModuleList([first, second])
    optimizer = torch.optim.Adam(both.parameters(), lr=0.02, weight_decay=5e-4)

    def loss_of(step: int) -> Any:
        h = F.dropout(F.relu(first(x, edges)), 0.5, training=True)
        return F.nll_loss(F.log_softmax(second(h, edges), dim=1)[known], labels[known])

    return fit(both, optimizer, loss_of)


class Corridor:
    """A walk of at most eight steps on a line: one right, zero left, a reward at the right end."""

    def reset(self) -> list[float]:
        self.place, self.time = 0, 0
        return self.seen()

    def seen(self) -> list[float]:
        return [self.place / 4, self.time / 8, 1.0]

    def step(self, action: int) -> tuple[list[float], float, bool]:
        self.place += 1 if action else -1
        self.time += 1
        reward = 1.0 if self.place >= 3 else -0.1
        return self.seen(), reward, self.place >= 3 or self.time >= 8


def reinforce(torch: Any) -> Curve:
    """Actions are sampled: one action that differs would part the curves for good."""
    nn = torch.nn
    policy = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 2), nn.Softmax(dim=-1))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    world = Corridor()

    def loss_of(step: int) -> Any:
        state, done, chances, rewards = world.reset(), False, [], []
        while not done:
            chosen = torch.distributions.Categorical(policy(torch.tensor(state).unsqueeze(0)))
            action = chosen.sample()
            chances.append(chosen.log_prob(action))
            state, reward, done = world.step(action.item())
            rewards.append(reward)
        total, returns = 0.0, []
        for reward in rewards[::-1]:
            total = reward + 0.99 * total
            returns.insert(0, total)
        gains = torch.tensor(returns)
        gains = (gains - gains.mean()) / (gains.std(correction=0) + 1e-3)
        return torch.cat([-chance * gain for chance, gain in zip(chances, gains)]).sum()

    return fit(policy, optimizer, loss_of)


def actor_critic(torch: Any) -> Curve:
    nn, F = torch.nn, torch.nn.functional
    body, actor, critic = nn.Linear(3, 16), nn.Linear(16, 2), nn.Linear(16, 1)
    model = nn.ModuleList([body, actor, critic])
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    world = Corridor()

    def loss_of(step: int) -> Any:
        state, done, lost = world.reset(), False, []
        while not done:
            h = torch.tanh(body(torch.tensor(state)))
            value, chosen = critic(h), torch.distributions.Categorical(logits=actor(h))
            action = chosen.sample()
            state, reward, done = world.step(int(action))
            with torch.no_grad():
                after = 0.0 if done else critic(torch.tanh(body(torch.tensor(state)))).item()
            advantage = reward + 0.9 * after - value
            policy = -chosen.log_prob(action) * advantage.detach() - 0.01 * chosen.entropy()
            lost.append(policy + F.smooth_l1_loss(value, torch.tensor([reward + 0.9 * after])))
        return torch.stack(lost).sum()

    return fit(model, optimizer, loss_of)


def penalty(torch: Any) -> Curve:
    """WGAN's gradient penalty: a gradient inside the loss, differentiated again."""
    nn = torch.nn
    judge = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2, betas=(0.5, 0.9))
    real = torch.randn(16, 6) + 1

    def loss_of(step: int) -> Any:
        made = torch.randn(16, 6)
        share = torch.rand(16, 1)
        between = (share * real + (1 - share) * made).requires_grad_(True)
        out = judge(between)
        (slope,) = torch.autograd.grad(
            out, between, torch.ones_like(out), create_graph=True, retain_graph=True
        )
        return judge(made).mean() - judge(real).mean() + 10 * ((slope.norm(2, dim=1) - 1) ** 2).mean()

    return fit(judge, optimizer, loss_of)


def lbfgs(torch: Any) -> Curve:
    """A closure evaluated several times a step, in float64, through LSTM cells."""
    nn = torch.nn
    cell, head = nn.LSTMCell(1, 8).double(), nn.Linear(8, 1).double()
    both = nn.ModuleList([cell, head])
    wave = torch.sin(torch.arange(24, dtype=torch.float64) / 3 + torch.rand(3, 1, dtype=torch.float64) * 4)
    optimizer = torch.optim.LBFGS(both.parameters(), lr=0.8, max_iter=5)
    seen: list[float] = []

    def closure() -> Any:
        optimizer.zero_grad()
        state = (torch.zeros(3, 8, dtype=torch.double), torch.zeros(3, 8, dtype=torch.double))
        outputs = []
        for x in wave[:, :-1].split(1, dim=1):
            state = cell(x, state)
            outputs.append(head(state[0]))
        loss = nn.functional.mse_loss(torch.cat(outputs, dim=1), wave[:, 1:])
        seen.append(loss.item())
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
    return iter(seen)


def hogwild_worker(rank: int, model: Any, losses: Any, library: str) -> None:
    """Trains the shared parameters in place; the losses come back through a shared tensor."""
    torch = importlib.import_module(library)
    torch.set_num_threads(1)
    torch.manual_seed(10 + rank)
    x = torch.randn(12, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS // 2):
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses[rank, step] = loss.item()


def hogwild(torch: Any) -> Curve:
    """Two processes write the same parameters, here one after the other: together no two runs are the same."""
    context = torch.multiprocessing.get_context("spawn")
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    model.share_memory()
    losses = torch.zeros(2, STEPS // 2).share_memory_()
    for rank in range(2):
        process = context.Process(target=hogwild_worker, args=(rank, model, losses, torch.__name__))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    yield from losses.flatten().tolist()
    yield from model[2].weight.detach().flatten().tolist()


# program, how far float32's roundings may grow into its curve (relative)
PROGRAMS: list[tuple[Callable[[Any], Curve], float]] = [
    (mlp, 1e-5),
    (loader, 1e-5),
    (lenet, 1e-5),
    (resnet18, 1e-6),
    (unet, 1e-5),
    (vae, 1e-5),
    (dcgan, 1e-5),
    (language_model, 1e-5),
    (packed_gru, 1e-4),
    (transformer, 1e-5),
    (vit, 1e-5),
    (gpt, 1e-5),
    (gcn, 1e-5),
    (reinforce, 1e-4),
    (actor_critic, 1e-4),
    (penalty, 1e-4),
    (lbfgs, 1e-6),
]


def curve(program: Callable[[Any], Curve], library: Any) -> np.ndarray:
    library.manual_seed(1234)
    return np.array(list(program(library)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("program, tolerance", PROGRAMS, ids=[program.__name__ for program, _ in PROGRAMS])
def test_loss_curve(program: Callable[[Any], Curve], tolerance: float) -> None:
    theirs = curve(program, torch)
    assert len(theirs) >= STEPS and np.isfinite(theirs).all() and np.ptp(theirs) > 0
    np.testing.assert_allclose(curve(program, ringgrad), theirs, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.slow
def test_hogwild(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.path.dirname(os.path.abspath(__file__))  # spawned processes import this file by its name
    monkeypatch.syspath_prepend(os.path.dirname(here) if "." in __name__ else here)
    np.testing.assert_allclose(curve(hogwild, ringgrad), curve(hogwild, torch), rtol=1e-5, atol=1e-7)
