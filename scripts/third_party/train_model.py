"""20 steps of SGD on noise for a model that a file defines: `train_model.py module:callable size key=value ...`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch


def main(place: str, size: str, *settings: str) -> None:
    module, name = place.split(":")
    keywords: dict[str, Any] = {key: float(value) for key, value in (s.split("=") for s in settings)}
    keywords = {key: int(value) if value.is_integer() else value for key, value in keywords.items()}
    model = getattr(importlib.import_module(module), name)(**keywords)
    count = 8 if int(size) <= 64 else 4  # batch norms over fewer numbers magnify every rounding
    x, labels = torch.randn(count, 3, int(size), int(size)), torch.randint(0, 10, (count,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main(*sys.argv[1:])
