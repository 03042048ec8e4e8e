"""The networks of benchmarks/gpu.py, written once for ringgrad and PyTorch: `torch` is either."""

from __future__ import annotations

from typing import Any, NamedTuple


class Sizes(NamedTuple):
    """How large the cases are: `FULL` for a GPU, `TINY` to see that the code runs."""

    copy: int  # bytes of the copied array
    rows: int
    width: int
    classes: int
    parameters: int
    gemm: int
    attention: tuple[int, int, int, int]  # batch, heads, length, width of a head
    gpt: tuple[int, int, int, int, int]  # vocabulary, length, width, heads, layers
    gpt_batches: tuple[int, ...]
    images: tuple[int, int]  # batch, side
    blocks: tuple[int, ...]  # of the residual network's four stages
    planes: int  # channels of its first
    seconds: float  # of a timing


FULL = Sizes(
    copy=2 << 30,
    rows=32768,
    width=768,
    classes=50304,
    parameters=124_000_000,
    gemm=8192,
    attention=(8, 12, 2048, 64),
    gpt=(50304, 1024, 768, 12, 12),
    gpt_batches=(4, 32),
    images=(64, 224),
    blocks=(3, 4, 6, 3),
    planes=64,
    seconds=0.4,
)
TINY = Sizes(
    copy=4096,
    rows=4,
    width=16,
    classes=24,
    parameters=500,
    gemm=8,
    attention=(1, 2, 4, 8),
    gpt=(24, 4, 16, 2, 1),
    gpt_batches=(2,),
    images=(2, 16),
    blocks=(1, 1),
    planes=2,
    seconds=0.001,
)


def gpt(torch: Any, vocabulary: int, length: int, width: int, heads: int, layers: int) -> Any:
    """GPT-2 small at (50304, 1024, 768, 12, 12), without dropout, the head tied to the embedding."""
    nn, F = torch.nn, torch.nn.functional

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, c = x.shape
            q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
            q, k, v = (u.view(b, t, heads, c // heads).transpose(1, 2) for u in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(b, t, c))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
            self.layers = nn.Sequential(*[Layer() for _ in range(layers)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.token.weight
            self.register_buffer("at", torch.arange(length))

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position(self.at)
            return self.head(self.norm(self.layers(x)))

    return GPT()


def resnet(torch: Any, blocks: tuple[int, ...], planes: int) -> Any:
    """ResNet-50 at (3, 4, 6, 3) and 64 (He et al. 2016, arXiv:1512.03385)."""
    nn, F = torch.nn, torch.nn.functional

    class Bottleneck(nn.Module):
        def __init__(self, inside: int, width: int, stride: int) -> None:
            super().__init__()
            out = width * 4
            self.conv1, self.norm1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(width)
            self.conv3, self.norm3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
            self.short = None
            if stride != 1 or inside != out:
                self.short = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x: Any) -> Any:
            y = F.relu(self.norm1(self.conv1(x)))
            y = F.relu(self.norm2(self.conv2(y)))
            y = self.norm3(self.conv3(y))
            return F.relu(y + (x if self.short is None else self.short(x)))

    layers: list[Any] = [nn.Conv2d(3, planes, 7, 2, 3, bias=False), nn.BatchNorm2d(planes), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inside = planes
    for stage, count in enumerate(blocks):
        for i in range(count):
            width = planes << stage
            layers.append(Bottleneck(inside, width, 2 if i == 0 and stage else 1))
            inside = width * 4
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 1000))


class Training:
    """One step of a network in bfloat16 autocast: forward, loss, backward, AdamW or SGD."""

    def __init__(self, torch: Any, kind: str, sizes: Sizes, batch: int) -> None:
        self.torch, self.kind = torch, kind
        torch.manual_seed(0)
        if kind == "gpt":
            vocabulary, length = sizes.gpt[:2]
            self.model = gpt(torch, *sizes.gpt).to("cuda")
            self.x = torch.randint(0, vocabulary, (batch, length)).to("cuda")
            self.y = torch.randint(0, vocabulary, (batch * length,)).to("cuda")
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        else:
            self.model = resnet(torch, sizes.blocks, sizes.planes).to("cuda")
            self.x = torch.randn(batch, 3, sizes.images[1], sizes.images[1]).to("cuda")
            if torch.__name__ == "torch":
                self.model = self.model.to(memory_format=torch.channels_last)
                self.x = self.x.to(memory_format=torch.channels_last)
            self.y = torch.randint(0, 1000, (batch,)).to("cuda")
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.forward = self.model

    def step(self) -> Any:
        torch = self.torch
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            out = self.forward(self.x)
            loss = torch.nn.functional.cross_entropy(out.view(-1, out.shape[-1]), self.y)
        loss.backward()
        self.optimizer.step()
        return loss
