"""Single ops against PyTorch: the cost of a call on small tensors, the speed on large ones, and backward.

python benchmarks/ops.py [--json FILE] [--threads N] [--quick]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measure import main

# name: (expression, shapes of x, y and so on); "rec" is recorded for autograd, "bwd" includes backward
SMALL = (64,)
LARGE = (1024, 1024)
CASES: dict[str, tuple[str, dict[str, tuple[int, ...]], bool]] = {
    "add 64": ("x + y", {"x": SMALL, "y": SMALL}, False),
    "add 64 rec": ("x + y", {"x": SMALL, "y": SMALL}, True),
    "mul 64 rec": ("x * y", {"x": SMALL, "y": SMALL}, True),
    "mul scalar 64 rec": ("x * 2.0", {"x": SMALL}, True),
    "exp 64 rec": ("x.exp()", {"x": SMALL}, True),
    "relu 64 rec": ("F.relu(x)", {"x": SMALL}, True),
    "sum 64 rec": ("x.sum()", {"x": SMALL}, True),
    "sum dim 8x8 rec": ("x.sum(1)", {"x": (8, 8)}, True),
    "matmul 8x8 rec": ("x @ y", {"x": (8, 8), "y": (8, 8)}, True),
    "reshape 64 rec": ("x.reshape(8, 8)", {"x": SMALL}, True),
    "transpose 8x8 rec": ("x.transpose(0, 1)", {"x": (8, 8)}, True),
    "index row 8x8 rec": ("x[0]", {"x": (8, 8)}, True),
    "cat 2x64 rec": ("torch.cat([x, y])", {"x": SMALL, "y": SMALL}, True),
    "softmax 8x8 rec": ("F.softmax(x, dim=-1)", {"x": (8, 8)}, True),
    "max dim 8x8 rec": ("x.max(1)", {"x": (8, 8)}, True),
    "layer_norm 8x8 rec": ("F.layer_norm(x, (8,))", {"x": (8, 8)}, True),
    "linear 8x8 rec": ("F.linear(x, y)", {"x": (8, 8), "y": (8, 8)}, True),
    "mul sum bwd 64": ("(x * y).sum().backward()", {"x": SMALL, "y": SMALL}, True),
    "add 1M": ("x + y", {"x": LARGE, "y": LARGE}, False),
    "mul bwd 1M": ("(x * y).sum().backward()", {"x": LARGE, "y": LARGE}, True),
    "exp 1M": ("x.exp()", {"x": LARGE}, False),
    "tanh 1M": ("x.tanh()", {"x": LARGE}, False),
    "relu 1M": ("F.relu(x)", {"x": LARGE}, False),
    "gelu 1M": ("F.gelu(x)", {"x": LARGE}, False),
    "elu 1M": ("F.elu(x)", {"x": LARGE}, False),
    "pow 3 1M": ("x ** 3", {"x": LARGE}, False),
    "where 1M": ("torch.where(x > 0, x, y)", {"x": LARGE, "y": LARGE}, False),
    "add bias 1M": ("x + y", {"x": LARGE, "y": (1024,)}, False),
    "sum 1M": ("x.sum()", {"x": LARGE}, False),
    "sum dim0 1M": ("x.sum(0)", {"x": LARGE}, False),
    "sum dim1 1M": ("x.sum(1)", {"x": LARGE}, False),
    "max dim1 1M": ("x.max(1)", {"x": LARGE}, False),
    "cummax 1M": ("x.cummax(1)", {"x": LARGE}, False),
    "softmax 1M": ("F.softmax(x, dim=-1)", {"x": LARGE}, False),
    "softmax dim0 1M": ("F.softmax(x, dim=0)", {"x": LARGE}, False),
    "layer_norm 1M": ("F.layer_norm(x, (1024,))", {"x": LARGE}, False),
    "matmul 256": ("x @ y", {"x": (256, 256), "y": (256, 256)}, False),
    "matmul 1024": ("x @ y", {"x": LARGE, "y": LARGE}, False),
    "transpose copy 1M": ("x.t().contiguous()", {"x": LARGE}, False),
    "index rows 1M": ("x[i]", {"x": LARGE}, False),
    "index columns bwd 1M": ("x[:, i].sum().backward()", {"x": LARGE}, True),
}


def build(torch: Any, case: str) -> tuple[Callable[[], Any], Callable[[], float | None]]:
    expression, shapes, recorded = CASES[case]
    rng = np.random.default_rng(0)
    env: dict[str, Any] = {
        "torch": torch,
        "F": torch.nn.functional,
        "i": torch.tensor(rng.integers(0, 1024, (1024,))),
    }
    for name, shape in shapes.items():
        t = torch.tensor(rng.standard_normal(shape).astype(np.float32))
        env[name] = t.requires_grad_() if recorded else t
    call = eval(f"lambda: {expression}", env)

    def value() -> float | None:
        result = call()
        if result is None:
            return float(env["x"].grad.double().abs().sum())
        result = result[0] if isinstance(result, tuple) else result
        return float(result.detach().double().abs().sum())

    return call, value


if __name__ == "__main__":
    main(
        __file__,
        "ops",
        list(CASES),
        build,
        quick=["add 64 rec", "mul sum bwd 64", "matmul 256"],
        tolerance=1e-4,
        rounds=11,
    )
