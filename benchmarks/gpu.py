"""The GPU backend against PyTorch on the same card: eager and torch.compile in three modes. Under eight minutes.

    python benchmarks/gpu.py --json benchmarks/results/gpu_<card>_<date>.json

Needs a CUDA device; PyTorch is optional. Each case is timed in turn with its peers, several rounds, medians are kept.
It is an error if ringgrad's own kernels were not launched: no figure comes from a silent way round.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_models import FULL, TINY, Sizes, Training

ROUNDS = 5
BUDGET = 450.0  # seconds; cases that would begin later are left out, and named
COMPILED = {"compile": None, "reduce-overhead": "reduce-overhead", "max-autotune": "max-autotune"}
Case = Callable[[Any, Sizes], tuple[Callable[[], Any], dict[str, float]]]


def versions(rg: Any, torch: Any) -> dict[str, Any]:
    """What was measured on what."""
    p = rg.cuda.get_device_properties()
    found: dict[str, Any] = {"gpu": p.name, "capability": f"{p.major}.{p.minor}", "memory": p.total_memory}
    found |= {"python": platform.python_version(), "date": str(date.today())}
    if torch is not None:
        found |= {"torch": torch.__version__, "torch cuda": torch.version.cuda}
    for name in ("ringgrad", "numpy", "cupy-cuda13x", "nvidia-cudnn-frontend", "nvidia-cudnn-cu13"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def timed(call: Callable[[], Any], sync: Callable[[], None], seconds: float) -> float:
    """Seconds a call, over as many as fit into `seconds`, the GPU's work included."""
    call()
    sync()
    start = time.perf_counter()
    call()
    sync()
    count = max(3 if seconds > 0.01 else 1, min(2000, int(seconds / max(time.perf_counter() - start, 1e-6))))
    start = time.perf_counter()
    for _ in range(count):
        call()
    sync()
    return (time.perf_counter() - start) / count


# ---- cases: given the module (ringgrad or torch), the call and what it moves or computes


def copy(torch: Any, s: Sizes) -> Any:
    x = torch.zeros(s.copy // 2, dtype=torch.bfloat16, device="cuda")
    y = torch.empty_like(x)
    return (lambda: y.copy_(x)), {"bytes": 2.0 * s.copy}


def gelu(torch: Any, s: Sizes) -> Any:
    x = torch.randn(s.rows, 4 * s.width, device="cuda").to(torch.bfloat16)
    return (lambda: torch.nn.functional.gelu(x)), {"bytes": 2.0 * 2 * x.numel()}


def gelu_backward(torch: Any, s: Sizes) -> Any:
    x = torch.randn(s.rows, 4 * s.width, device="cuda").to(torch.bfloat16).requires_grad_()
    g = torch.ones_like(x)

    def call() -> None:
        x.grad = None
        torch.nn.functional.gelu(x).backward(g)

    return call, {"bytes": 2.0 * 5 * x.numel()}


def layer_norm(torch: Any, s: Sizes) -> Any:
    x = torch.randn(s.rows, s.width, device="cuda").to(torch.bfloat16).requires_grad_()
    layer = torch.nn.LayerNorm(s.width).to("cuda").to(torch.bfloat16)
    g = torch.ones_like(x)

    def call() -> None:
        x.grad = layer.weight.grad = layer.bias.grad = None
        layer(x).backward(g)

    return call, {"bytes": 2.0 * 5 * x.numel()}


def softmax(torch: Any, s: Sizes) -> Any:
    x = torch.randn(s.rows, 4 * s.width, device="cuda").to(torch.bfloat16).requires_grad_()
    g = torch.ones_like(x)

    def call() -> None:
        x.grad = None
        torch.softmax(x, -1).backward(g)

    return call, {"bytes": 2.0 * 5 * x.numel()}


def cross_entropy(torch: Any, s: Sizes) -> Any:
    x = torch.randn(s.rows // 4, s.classes, device="cuda").to(torch.bfloat16).requires_grad_()
    y = torch.randint(0, s.classes, (s.rows // 4,)).to("cuda")

    def call() -> None:
        x.grad = None
        torch.nn.functional.cross_entropy(x * 1, y).backward()

    return call, {"bytes": 2.0 * 6 * x.numel()}


def adamw(torch: Any, s: Sizes) -> Any:
    sizes = [s.parameters // 4, s.parameters // 2, s.parameters // 4 - 77, 77]
    params = [torch.zeros(n, device="cuda").requires_grad_() for n in sizes]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = torch.optim.AdamW(params, lr=1e-4, fused=True)
    return optimizer.step, {"bytes": 28.0 * sum(sizes)}


def embedding(torch: Any, s: Sizes) -> Any:
    table = torch.zeros(s.classes, s.width, device="cuda").to(torch.bfloat16).requires_grad_()
    index = torch.randint(0, s.classes, (s.rows,)).to("cuda")
    g = torch.ones(s.rows, s.width, dtype=torch.bfloat16, device="cuda")

    def call() -> None:
        table.grad = None
        torch.nn.functional.embedding(index, table).backward(g)

    return call, {"bytes": 2.0 * (3 * s.rows + s.classes) * s.width}


def product(m: Callable[[Sizes], tuple[int, int, int]]) -> Case:
    def case(torch: Any, s: Sizes) -> Any:
        rows, inner, cols = m(s)
        a = torch.randn(rows, inner, device="cuda").to(torch.bfloat16)
        b = torch.randn(cols, inner, device="cuda").to(torch.bfloat16)
        return (lambda: torch.nn.functional.linear(a, b)), {"flop": 2.0 * rows * inner * cols}

    return case


def attention(torch: Any, s: Sizes) -> Any:
    q, k, v = (torch.randn(*s.attention, device="cuda").to(torch.bfloat16).requires_grad_() for _ in range(3))
    b, h, t, d = s.attention
    g = torch.ones(b, h, t, d, dtype=torch.bfloat16, device="cuda")

    def call() -> None:
        q.grad = k.grad = v.grad = None
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).backward(g)

    return call, {"flop": 3.5 * 4 * b * h * t * t * d / 2}


def small_add(torch: Any, s: Sizes) -> Any:
    x = torch.ones(64, device="cuda")
    return (lambda: x + x), {}


def small_step(torch: Any, s: Sizes) -> Any:
    x = torch.ones(64, device="cuda", requires_grad=True)

    def call() -> None:
        x.grad = None
        (x * x).sum().backward()

    return call, {}


CASES: dict[str, Case] = {
    "copy": copy,
    "gelu": gelu,
    "gelu forward+backward": gelu_backward,
    "layer norm forward+backward": layer_norm,
    "softmax forward+backward": softmax,
    "cross entropy forward+backward": cross_entropy,
    "embedding forward+backward": embedding,
    "AdamW": adamw,
    "GEMM square": product(lambda s: (s.gemm, s.gemm, s.gemm)),
    "GEMM GPT-2 up": product(lambda s: (s.rows, s.width, 4 * s.width)),
    "GEMM GPT-2 head": product(lambda s: (s.rows // 4, s.width, s.classes)),
    "attention forward+backward": attention,
    "add of 64 floats": small_add,
    "mul, sum, backward of 64 floats": small_step,
}


def measure_case(name: str, sides: dict[str, Any], s: Sizes) -> dict[str, Any]:
    """Medians of a case, the sides in turn."""
    calls, work = {}, {}
    for side, module in sides.items():
        calls[side], work = CASES[name](module, s)
    times: dict[str, list[float]] = {side: [] for side in calls}
    for _ in range(ROUNDS):
        for side, call in calls.items():
            times[side].append(timed(call, sides[side].cuda.synchronize, s.seconds / ROUNDS))
    row: dict[str, Any] = {f"{side}_us": statistics.median(t) * 1e6 for side, t in times.items()}
    for kind, unit in (("bytes", "GB/s"), ("flop", "TFLOP/s")):
        if kind in work:
            scale = 1e9 if kind == "bytes" else 1e12
            row |= {f"{side} {unit}": work[kind] / row[f"{side}_us"] * 1e6 / scale for side in calls}
    return row


# ---- training steps


def captured(rg: Any, training: Training) -> Callable[[], Any]:
    """The whole step as a graph; its loss must be the eager one's."""
    side = rg.cuda.Stream()
    side.wait_stream(rg.cuda.current_stream())
    with rg.cuda.stream(side):
        for _ in range(3):
            training.step()
    rg.cuda.current_stream().wait_stream(side)
    graph = rg.cuda.CUDAGraph()
    with rg.cuda.graph(graph):
        loss = training.step()
    training.graph, training.loss = graph, loss  # type: ignore[attr-defined]
    return graph.replay


def measure_step(
    kind: str, batch: int, sides: dict[str, Any], s: Sizes, left: Callable[[], bool]
) -> dict[str, Any]:
    """Seconds a step of each way to run it: one after another, as memory holds one at a time."""
    ways: dict[str, Callable[[], Callable[[], Any]]] = {}
    rg, torch = sides["ringgrad"], sides.get("torch")
    ways["ringgrad eager"] = lambda: Training(rg, kind, s, batch).step
    ways["ringgrad captured"] = lambda: captured(rg, Training(rg, kind, s, batch))
    if torch is not None:
        ways["torch eager"] = lambda: Training(torch, kind, s, batch).step
        for name, mode in COMPILED.items():
            ways[f"torch {name}"] = lambda mode=mode: _compiled(torch, Training(torch, kind, s, batch), mode)
    row: dict[str, Any] = {}
    for name, build in ways.items():
        if not left():
            row[name] = "left out: no time"
            continue
        module = rg if name.startswith("ringgrad") else torch
        try:
            call = build()
            row[f"{name}_ms"] = timed(call, module.cuda.synchronize, s.seconds * 2) * 1e3
        except Exception as error:  # an out of memory of one side is a result, too
            row[name] = f"{type(error).__name__}: {error}"[:300]
        call = None
        module.cuda.empty_cache()
    unit, count = ("tokens", batch * s.gpt[1]) if kind == "gpt" else ("images", batch)
    speeds = {k[:-3]: count / v * 1e3 for k, v in row.items() if k.endswith("_ms")}
    return row | {f"{name} {unit}/s": v for name, v in speeds.items()}


def _compiled(torch: Any, training: Training, mode: str | None) -> Callable[[], Any]:
    training.forward = torch.compile(training.model, mode=mode)
    return training.step


# ---- all


def run(sides: dict[str, Any], s: Sizes, budget: float = BUDGET) -> dict[str, Any]:
    """All results; errors where ringgrad's kernels were not launched."""
    from ringgrad.tensor.backend.cuda import kernel

    begin = time.monotonic()
    kernel.launches.clear()

    def left() -> bool:
        return time.monotonic() - begin < budget

    results: dict[str, Any] = {}
    for name in CASES:
        results[name] = measure_case(name, sides, s) if left() else "left out: no time"
        for module in sides.values():
            module.cuda.empty_cache()
    for batch in s.gpt_batches:
        results[f"GPT-2 small step, batch {batch}"] = measure_step("gpt", batch, sides, s, left)
    results["ResNet-50 step"] = measure_step("resnet", s.images[0], sides, s, left)
    wanted = (
        "gelu_bf16",
        "norm_bf16",
        "softmax_bf16",
        "cross_entropy_bf16",
        "adam_f32",
        "gemm",
        "embedding_bf16",
    )
    missing = [name for name in wanted if not kernel.launches[name]]
    if missing:
        raise RuntimeError(
            f"[benchmark] these kernels must have been launched, and were not: {', '.join(missing)}"
        )
    results["launches"] = dict(kernel.launches)
    return results


def show(results: dict[str, Any]) -> None:
    """A line a figure."""
    for name, row in results.items():
        if name == "launches":
            continue
        print(f"\n{name}")
        for key, value in row.items() if isinstance(row, dict) else [("", row)]:
            print(f"  {key:<32}{value:>16,.2f}" if isinstance(value, float) else f"  {key:<32}{value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the code runs")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds after which no case begins")
    args = parser.parse_args()
    import ringgrad as rg

    if not rg.cuda.is_available():
        rg.cuda.init()  # says what is missing
    sides: dict[str, Any] = {"ringgrad": rg}
    if find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            sides["torch"] = torch
    about = versions(rg, sides.get("torch"))
    print(json.dumps(about, indent=1))
    results = run(sides, TINY if args.tiny else FULL, args.budget)
    show(results)
    if args.json:
        args.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
