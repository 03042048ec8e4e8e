"""One training step (forward, loss, backward, optimizer) against PyTorch: same model, weights and batch.

    python benchmarks/train_step.py [--json FILE] [--threads N] [--quick]

Both sides run the code in models.py with their own module under the name `torch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from measure import main
from models import CASES, training


def build(torch: Any, case: str) -> tuple[Callable[[], Any], Callable[[], float | None]]:
    step = training(torch, case)

    def value() -> float:
        """The loss after two steps: both sides must have done the same."""
        step()
        return step().item()

    return step, value


if __name__ == "__main__":
    main(__file__, "training step", list(CASES), build)
