"""The profiler: what it counts against PyTorch's, its files, its lane of collectives, and that it leaves no trace."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import nn
from ringgrad.autograd.op import OpNode, array_ops, doors, listeners, registry
from ringgrad.autograd.profiler.events import Event, own_times, parents
from ringgrad.autograd.profiler.flops import Rates
from ringgrad.profiler import merge_traces, profile, record_function


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))


def step(model: Any, x: Any) -> None:
    model(x).sum().backward()


def rows(p: Any, **options: Any) -> dict[str, Any]:
    return {row.key: row for row in p.key_averages(**options)}


def test_operations_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    shapes = [(4, 3, 8, 8), (8, 3, 3, 3)]
    a, b = (np.ones(s, np.float32) for s in shapes)
    with torch.profiler.profile(with_flops=True) as theirs:
        torch.nn.functional.conv2d(torch.from_numpy(a), torch.from_numpy(b))
        torch.ones(5, 6) @ torch.ones(6, 7)
        torch.nn.functional.linear(torch.ones(5, 6), torch.ones(7, 6), torch.ones(7))
    expected = {row.key: row.flops for row in theirs.key_averages() if row.flops}
    with profile(with_flops=True) as p:
        nn.functional.conv2d(rg.tensor(a), rg.tensor(b))
        rg.ones(5, 6) @ rg.ones(6, 7)
        nn.functional.linear(rg.ones(5, 6), rg.ones(7, 6), rg.ones(7))
    found = rows(p)
    assert found["conv"].flops == expected["aten::conv2d"]
    assert found["matmul"].flops == expected["aten::mm"] and found["linear"].flops == expected["aten::addmm"]


def test_gradients_count_one_product_for_each_factor_that_wants_one() -> None:
    layer = nn.Linear(6, 7)
    for x, times in ((rg.ones(5, 6), 1), (rg.ones(5, 6, requires_grad=True), 2)):
        with profile(with_flops=True) as p:
            layer(x).sum().backward()
        found = rows(p)
        assert (
            found["linear"].flops == 2 * 5 * 6 * 7 and found["LinearBackward0"].flops == times * 2 * 5 * 6 * 7
        )
    backward = next(e for e in p.events() if e.name == "LinearBackward0")
    assert backward.kind == "backward" and backward.origin.name == "linear"


def test_shapes_and_bytes() -> None:
    with profile(record_shapes=True) as p:
        for n in (3, 5):
            (rg.ones(n, 4) * 2).t()
    found = {(row.key, row.input_shapes[0]): row for row in p.key_averages(group_by_input_shape=True)}
    assert found["mul", (3, 4)].count == 1 and found["mul", (5, 4)].count == 1
    assert found["mul", (5, 4)].moved >= 2 * 5 * 4 * 4
    views = [row for row in found.values() if row.key in ("transpose", "t", "permute")]
    assert views and all(row.moved == 0 for row in views)
    with pytest.raises(ValueError, match="record_shapes=True"):
        with profile() as p:
            pass
        p.key_averages(group_by_input_shape=True)
    with pytest.raises(ValueError, match="with_stack=True"):
        p.key_averages(group_by_stack_n=1)


def test_the_share_of_the_roofline() -> None:
    best = Rates(gemm=100.0, copy=10.0)
    assert best.least(1000, 0) == 10 and best.least(1000, 200) == 20
    with profile(with_flops=True) as p:
        for _ in range(3):
            rg.ones(256, 256) @ rg.ones(256, 256)
    row = rows(p)["matmul"]
    assert row.roofline > 0  # how much of it, the load of the machine decides
    table = p.key_averages().table(sort_by="flops")
    assert "Roofline %" in table and "GFLOP/s" in table and f"{3 * 2 * 256**3 / 1e6:.3f}" in table


def test_memory_comes_and_goes() -> None:
    model, x = net(), rg.ones(2, 3, 8, 8)
    with profile(profile_memory=True) as p:
        step(model, x)
    times, sizes = p.memory.timeline()
    assert times == sorted(times) and all(min(row) >= 0 for row in sizes)
    parameter, given, activation, _ = sizes[-1]
    assert parameter == sum(w.array.nbytes for w in model.parameters()) and given >= x.array.nbytes
    assert activation == 0, "what forward made is gone when backward has run"
    assert p.memory.peak() >= parameter + x.array.nbytes + 2 * 2 * 8 * 6 * 6 * 4
    assert rows(p)["conv"].cpu_memory_usage == 2 * 8 * 6 * 6 * 4 and "CPU Mem" in str(p.key_averages())
    with profile(profile_memory=True) as p:
        y = rg.ones(1000) * 2
        views = [y.reshape(10, 100), y.reshape(100, 10)]
    assert p.memory.timeline()[1][-1][2] == 4000 and len(views) == 2


def test_memory_as_files(tmp_path: Path) -> None:
    with profile(profile_memory=True) as p:
        step(net(), rg.ones(2, 3, 8, 8))
    p.export_memory_timeline(tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    assert len(content["times_us"]) == len(content["bytes"]) > 5 and len(content["categories"]) == 4
    p.export_memory_timeline(tmp_path / "m.html")
    page = (tmp_path / "m.html").read_text()
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    assert len(svg.findall("{*}polygon")) == 4
    with pytest.raises(ValueError, match="profile_memory=True"):
        profile().export_memory_timeline(tmp_path / "no.html")


def test_nesting() -> None:
    events = [
        Event("b", 1, 2, 1),
        Event("c", 3, 4, 1),
        Event("a", 0, 10, 1),
        Event("d", 2, 1, 2),
        Event("e", 12, 1, 1),
    ]
    assert parents(events) == [2, 2, -1, -1, -1]
    assert own_times(events) == [2, 4, 4, 1, 1]


def test_stacks_and_flame_graph(tmp_path: Path) -> None:
    model = net()
    with profile(with_stack=True) as p:
        with record_function("a;b <&>"):
            step(model, rg.ones(2, 3, 8, 8))
    p.export_stacks(tmp_path / "stacks.txt")
    lines = [line.rpartition(" ") for line in (tmp_path / "stacks.txt").read_text().splitlines()]
    assert any(
        "test_stacks_and_flame_graph" in a and ": step;" in a and a.endswith(";conv") for a, _, _ in lines
    )
    assert sum(int(n) for _, _, n in lines) == pytest.approx(p.self_cpu_time_total, abs=len(lines))
    assert any("step" in row.stack[-1] for row in p.key_averages(group_by_stack_n=1) if row.key == "conv")
    with profile() as p:
        with record_function("a;b <&>"):
            step(model, rg.ones(2, 3, 8, 8))
    p.export_stacks(tmp_path / "stacks.txt")
    assert "a,b <&>;conv " in (tmp_path / "stacks.txt").read_text()
    p.export_flame_graph(tmp_path / "flame.svg")
    titles = [t.text or "" for t in ElementTree.parse(tmp_path / "flame.svg").findall(".//{*}title")]
    assert any(t.startswith("a;b <&>: ") and "100.0 %" in t for t in titles)
    assert any(t.startswith("conv: ") for t in titles) and any(
        t.startswith("ConvBackward0: ") for t in titles
    )
    with pytest.raises(ValueError, match="self_cpu_time_total"):
        p.export_stacks(tmp_path / "no.txt", "self_cuda_memory")


def test_a_trace(tmp_path: Path) -> None:
    with profile(record_shapes=True, profile_memory=True) as p:
        p.add_metadata("model", "net")
        step(net(), rg.ones(2, 3, 8, 8))
    p.export_chrome_trace(tmp_path / "t.json.gz")
    with gzip.open(tmp_path / "t.json.gz", "rt") as file:
        content = json.load(file)
    assert content["model"] == "net" and content["distributedInfo"] == {"rank": 0, "world_size": 1}
    lines = content["traceEvents"]
    conv = next(line for line in lines if line["name"] == "conv")
    assert conv["args"]["Input Dims"][0] == [2, 3, 8, 8] and conv["cat"] == "cpu_op"
    arrows = [line for line in lines if line.get("cat") == "fwdbwd"]
    starts = {line["id"]: line["ts"] for line in arrows if line["ph"] == "s"}
    finishes = {line["id"]: line["ts"] for line in arrows if line["ph"] == "f"}
    assert starts.keys() == finishes.keys() and len(starts) >= 4
    assert all(starts[key] < finishes[key] for key in starts)
    assert any(line["ph"] == "C" and line["args"]["activation"] for line in lines)


RANKS = """
import sys
import ringgrad as rg
from ringgrad import distributed as dist, nn
from ringgrad.profiler import merge_traces, profile, tensorboard_trace_handler
dist.init_process_group()
model = nn.parallel.DistributedDataParallel(nn.Linear(64, 64))
handler = tensorboard_trace_handler(sys.argv[1], f"rank{dist.get_rank()}", use_gzip=True)
with profile(on_trace_ready=handler) as p:
    for _ in range(2):
        model(rg.ones(4, 64)).sum().backward()
    dist.all_reduce(rg.ones(3))
assert {row.key: row.count for row in p.key_averages()}["all_reduce"] >= 3
dist.destroy_process_group()
"""


def test_ranks_merged_with_their_collectives(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(RANKS)
    run = [
        sys.executable,
        "-m",
        "ringgrad.launch",
        "-n",
        "2",
        str(tmp_path / "script.py"),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(run, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 2
    merge_traces(files, tmp_path / "all.json")
    lines = json.loads((tmp_path / "all.json").read_text())["traceEvents"]
    assert {line["pid"] for line in lines} == {0, 1}
    calls: list[list[Any]] = [
        [line for line in lines if line.get("cat") == "communication" and line["pid"] == r] for r in (0, 1)
    ]
    assert len(calls[0]) == len(calls[1]) >= 3
    for ours, theirs in zip(*calls):  # on one clock: neither ends before the other has begun
        assert ours["args"]["detail"] == theirs["args"]["detail"]
        assert ours["ts"] <= theirs["ts"] + theirs["dur"] + 1 and theirs["ts"] <= ours["ts"] + ours["dur"] + 1
    names = [
        line for line in lines if line["name"] == "thread_name" and line["args"]["name"] == "communication"
    ]
    assert {line["pid"] for line in names} == {0, 1}
    with pytest.raises(ValueError, match="rank 0 came twice"):
        merge_traces([files[0], files[0]], tmp_path / "no.json")
    with pytest.raises(ValueError, match="at least one"):
        merge_traces([], tmp_path / "no.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="must be a trace that ringgrad's profiler wrote"):
        merge_traces([tmp_path / "other.json"], tmp_path / "no.json")


def test_compiled_functions_are_noted() -> None:
    @rg.compile
    def double(x: Any) -> Any:
        return (x * 2).sum()

    x = rg.ones(5)
    for _ in range(3):
        double(x)
    with profile() as p:
        assert double(x).item() == 10
    assert rows(p)["compiled double"].count == 1 and "mul" not in rows(p)


def test_nothing_stays_behind() -> None:
    from ringgrad.distributed.group import Group

    state = lambda: ({n: op.forward for n, op in registry.items()}, OpNode.vjp, Group._steps, list(listeners))
    before = state()
    with profile(with_flops=True, profile_memory=True):
        step(net(), rg.ones(2, 3, 8, 8))
        assert state() != before
    with pytest.raises(RuntimeError, match=r"\[add\]|\[matmul\]"), profile() as p:
        rg.ones(2, 3) @ rg.ones(2, 3)
    assert state() == before and not vars(array_ops) and len(doors) >= 1
    assert rows(p)["matmul"].count == 1, "a call that failed took time too"


def test_an_output_that_is_computed_again_keeps_its_keywords() -> None:
    """A pooled output that was overwritten is made anew in backward, by the function that the profile put in."""
    found = []
    for active in (False, True):
        x = rg.arange(64.0).reshape(1, 1, 8, 8).requires_grad_()
        with profile(enabled=active):
            y = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
            y.relu_()
            y.sum().backward()
        found.append(x.grad.numpy())
    assert np.array_equal(*found) and found[0].any()
