"""A Function and a layer of one's own: weights of one bit, trained through a step that has no gradient.

    python examples/custom_function.py

`Sign` rounds to -1 and 1; its backward pretends that it was the identity between them (the straight-through
estimator: Y. Bengio et al., arXiv:1308.3432). `Softplus2` is smooth, so gradcheck can test its backward.
"""

from __future__ import annotations

import argparse
import json
import math

import ringgrad as rg
from ringgrad import nn, optim
from ringgrad.autograd import Function, gradcheck, gradgradcheck
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.nn import functional as F


class Sign(Function):
    """-1 or 1; the gradient passes where the input is in [-1, 1]."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return rg.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class Softplus2(Function):
    """log2(1 + 2**x), written so that nothing overflows. Its backward is made of ops, so it can be derived again."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0) + (1 + rg.exp2(-x.abs())).log2()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x * math.log(2)).sigmoid()


class BinaryLinear(nn.Module):
    """A linear layer with weights of one bit and a scale for each output; trains real weights behind them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(rg.empty(outputs, inputs).uniform_(-0.5, 0.5))
        self.scale = nn.Parameter(rg.full((outputs,), 1 / math.sqrt(inputs)))

    def forward(self, x: rg.Tensor) -> rg.Tensor:
        return F.linear(x, Sign.apply(self.weight)) * self.scale

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, 1 bit"


class Net(nn.Module):
    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.hidden, self.norm, self.out = (
            BinaryLinear(64, width),
            nn.BatchNorm1d(width),
            BinaryLinear(width, 10),
        )

    def forward(self, x: rg.Tensor) -> rg.Tensor:
        return self.out(Softplus2.apply(self.norm(self.hidden(x))))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()

    rg.manual_seed(0)
    x = rg.randn(5, 3, dtype=rg.float64, requires_grad=True)
    assert gradcheck(Softplus2.apply, (x,)) and gradgradcheck(Softplus2.apply, (x,))

    from sklearn.datasets import load_digits

    digits = load_digits()
    images = rg.tensor(digits.data, dtype=rg.float32) / 8 - 1
    labels = rg.tensor(digits.target)
    train, test = TensorDataset(images[:1400], labels[:1400]), (images[1400:], labels[1400:])
    model = Net()
    print(model)
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(args.epochs):
        model.train()
        for inputs, targets in DataLoader(train, 50, shuffle=True):
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with rg.no_grad():  # weights beyond 1 would get no gradient any more
                for layer in (model.hidden, model.out):
                    layer.weight.clamp_(-1, 1)
        model.eval()
        with rg.no_grad():
            accuracy = (model(test[0]).argmax(1) == test[1]).float().mean().item()
        print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy on other digits {accuracy:.3f}")
    bits = sum(layer.weight.numel() for layer in (model.hidden, model.out))
    print("result:", json.dumps({"accuracy": accuracy, "kilobytes": bits / 8 / 1024}))


if __name__ == "__main__":
    main()
