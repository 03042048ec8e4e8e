"""Trains a model that a file defines for 20 steps of SGD on noise: `train_model.py module:callable size key=value ...`.

With the environment variable FLOAT64 in float64: networks with batch norms over few numbers are so sensitive that in
float32 PyTorch does not repeat its own curve when it is rounded otherwise.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import torch


def main(place: str, size: str, *settings: str) -> None:
    module, name = place.split(":")
    keywords: dict[str, Any] = {key: float(value) for key, value in (s.split("=") for s in settings)}
    keywords = {key: int(value) if value.is_integer() else value for key, value in keywords.items()}
    model = getattr(importlib.import_module(module), name)(**keywords)
    x, labels = torch.randn(4, 3, int(size), int(size)), torch.randint(0, 10, (4,))
    if os.environ.get("FLOAT64"):
        model, x = model.double(), x.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main(*sys.argv[1:])
