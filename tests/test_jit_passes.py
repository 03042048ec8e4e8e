"""Passes, before and after; memory plans; fused kernels against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.jit import passes
from ringgrad.jit.graph import Graph
from ringgrad.jit.guards import Reach
from ringgrad.jit.memory import Plan
from ringgrad.jit.program import Program
from ringgrad.jit.trace import Tracer
from ringgrad.nn import functional as F


def traced(fn: Any, *inputs: Any) -> Graph:
    tracer = Tracer("fn", inputs, Reach(fn).tensors)
    tracer.run(lambda: fn(*inputs))
    assert tracer.stopped is None, tracer.stopped
    return tracer.graph


def names(graph: Graph) -> list[str]:
    return [node.kw.get("ufunc", node.op) for node in graph.nodes]


def same_result(graph: Graph, fn: Any, *inputs: Any) -> None:
    got = Program(graph, []).run(*inputs)
    np.testing.assert_allclose(got.array, fn(*inputs).array, rtol=1e-5, atol=1e-6)


def x(*shape: int) -> Any:
    return rg.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def test_dead_code_goes() -> None:
    def fn(a: Any) -> Any:
        a.exp().sum()
        return a * 2

    before = traced(fn, x(3))
    after = passes.dead_code(before)
    assert names(before) == ["exp", "sum_all", "mul"] or names(before) == ["exp", "sum", "mul"]
    assert names(after) == ["mul"]
    same_result(after, fn, x(3))


def test_equal_nodes_are_computed_once() -> None:
    def fn(a: Any) -> Any:
        return a.exp() + a.exp() * a.tanh()

    after = passes.common_subexpressions(traced(fn, x(3)))
    assert sorted(names(after)) == ["add", "exp", "mul", "tanh"]
    same_result(after, fn, x(3))


def test_what_is_written_in_between_is_computed_again() -> None:
    def fn(a: Any) -> Any:
        first = a.exp()
        a.mul_(2)
        return first + a.exp()

    after = passes.optimize(traced(fn, x(3)), [])
    assert names(after).count("exp") == 2
    np.testing.assert_allclose(Program(after, []).run(x(3)).array, fn(x(3)).array, rtol=1e-6)


def test_equal_results_that_are_returned_stay_apart() -> None:
    after = passes.optimize(traced(lambda a: (a * 2, a * 2), x(3)), [])
    a, b = Program(after, []).run(x(3))
    a.mul_(0)
    assert b.abs().sum().item() > 0


def test_constants_are_folded() -> None:
    def fn(a: Any) -> Any:
        mask = rg.ones(3, 3).tril() * 2 + 1
        return a * mask

    assert names(passes.fold_constants(traced(fn, x(3, 3)))) == ["mul"]
    same_result(passes.fold_constants(traced(fn, x(3, 3))), fn, x(3, 3))


@pytest.mark.parametrize(
    "fn, left",
    [
        (lambda a: (a * 1).exp(), ["exp"]),
        (lambda a: (1 * a).exp(), ["exp"]),
        (lambda a: (a / 1 - 0).exp(), ["exp"]),
        (lambda a: a.neg().neg().exp(), ["neg", "exp"]),
        (lambda a: (a**1).exp(), ["exp"]),
        (lambda a: (a + 0).exp(), ["add", "exp"]),  # -0 + 0 is 0
        (lambda a: (a * 0).exp(), ["mul", "exp"]),  # inf * 0 is NaN
    ],
)
def test_algebra(fn: Any, left: list[str]) -> None:
    after = passes.dead_code(passes.simplify_algebra(traced(fn, x(4))))
    assert [n for n in names(after) if n != "neg"] == [n for n in left if n != "neg"]
    same_result(after, fn, x(4))


def test_algebra_does_not_change_types() -> None:
    fn = lambda a: (a * 1.0).exp()
    ints = rg.tensor([1, 2])
    got = Program(passes.optimize(traced(fn, ints), []), []).run(ints)
    assert got.dtype == rg.float32


def test_views_that_change_nothing_go() -> None:
    def fn(a: Any) -> Any:
        return a.view(3, 4).reshape(12).view(3, 4).contiguous().exp()

    after = passes.dead_code(passes.remove_views(traced(fn, x(3, 4))))
    assert names(after) == ["exp"]
    same_result(after, fn, x(3, 4))


def test_products_take_relu_in() -> None:
    w, b = x(5, 4), x(5)
    fn = lambda a: F.relu(F.linear(a, w, b)) * 2.0
    lowered = passes.lower(traced(fn, x(3, 4)))
    assert names(lowered)[:2] == ["gemm", "relu"]
    after = passes.fuse_epilogues(lowered)
    assert "relu" not in names(after) and after.nodes[0].kw["act"] == "relu"
    same_result(after, fn, x(3, 4))


def test_a_product_that_is_read_elsewhere_keeps_its_values() -> None:
    w, b = x(5, 4), x(5)

    def fn(a: Any) -> Any:
        y = F.linear(a, w, b)
        return F.relu(y) + y

    after = passes.optimize(traced(fn, x(3, 4)), [])
    same_result(after, fn, x(3, 4))


def test_chains_become_one_kernel() -> None:
    pytest.importorskip("numba")
    a, b, c = x(64, 256), x(64, 256), x(64, 256)
    fn = lambda a, b, c: ((a + b) * c - a).tanh().exp()
    before = passes.lower(traced(fn, a, b, c))
    after = passes.fuse_elementwise(before)
    assert len(before.nodes) == 5 and names(after) == ["fused"]
    same_result(after, fn, a, b, c)
    odd = rg.tensor(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 90.0, -90.0, 1e-30] * 2048, np.float32))
    for f in (
        lambda a: (a + a).tanh(),
        lambda a: (-a).exp(),
        lambda a: F.relu(a * a - a),
        lambda a: -(a.abs()),
    ):
        graph = passes.fuse_elementwise(passes.lower(traced(f, odd)))
        assert names(graph) == ["fused"]
        with np.errstate(all="ignore"):
            want = f(odd).array
        got = Program(graph, []).run(odd).array
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-37)


def test_without_numba_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.jit import kernel_table, optimizers

    monkeypatch.setattr(kernel_table, "available", lambda: False)
    monkeypatch.setattr(optimizers, "available", lambda: False)
    model = rg.nn.Sequential(rg.nn.Linear(8, 8), rg.nn.LayerNorm(8), rg.nn.GELU(), rg.nn.Linear(8, 3))
    optimizer = rg.optim.AdamW(model.parameters(), 1e-3)
    y = rg.tensor([0, 1, 2, 1])

    def step(a: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(a), y)
        loss.backward()
        optimizer.step()
        return loss

    c = rg.jit(step)
    losses = [c(x(4, 8)).item() for _ in range(5)]
    assert c.calls["replayed"] == 3 and losses == sorted(losses, reverse=True)


def test_the_arena_holds_the_largest_live_set() -> None:
    """A chain needs two arrays at a time, however long it is; in place, one."""
    w = x(64, 64)

    def fn(a: Any) -> Any:
        for _ in range(10):
            a = a @ w
        return a + 1

    plan = Plan(passes.lower(traced(fn, x(64, 64))))
    assert plan.asked == 10 * 64 * 64 * 4 and plan.peak == 2 * 64 * 64 * 4

    def steps(a: Any) -> Any:
        for _ in range(5):
            a = a * a
        return a.sum()

    plan = Plan(passes.lower(traced(steps, x(16, 16))))
    assert plan.peak == 16 * 16 * 4


def test_live_values_never_share_bytes() -> None:
    def fn(a: Any) -> Any:
        parts = [a * a, a + a, a - a, a.exp()]
        total = parts[0]
        for part in parts[1:]:
            total = total * part + parts[0]
        return total.sum()

    graph = passes.lower(traced(fn, x(16, 16)))
    plan = Plan(graph)
    same_result(graph, fn, x(16, 16))
    taken = [(plan.places[r], plan.born[r], plan.last_of_root[r]) for r in plan.places]
    for i, ((at, size), born, last) in enumerate(taken):
        for (other, room), b, e in taken[i + 1 :]:
            apart = at + size <= other or other + room <= at
            assert apart or e <= born or last <= b


def test_kernels_agree_with_the_ops() -> None:
    pytest.importorskip("numba")
    weight, bias = x(48), x(48) * 0.1
    table = x(11, 48)
    index = rg.tensor(np.random.default_rng(1).integers(0, 11, (8, 6)))
    leaves = [weight.requires_grad_(), bias.requires_grad_(), table.requires_grad_()]

    def fn(index: Any, target: Any) -> Any:
        h = F.gelu(F.layer_norm(F.embedding(index, table), (48,), weight, bias))
        loss = F.cross_entropy(h.view(-1, 48), target, ignore_index=3)
        return (loss.detach(), *rg.autograd.grad(loss, leaves))

    target = rg.tensor(np.random.default_rng(2).integers(0, 48, 48))
    c = rg.jit(fn)
    for _ in range(4):
        for a, b in zip(c(index, target), fn(index, target)):
            np.testing.assert_allclose(a.array, b.array, rtol=2e-4, atol=2e-6)
    ops = [
        n.op for e in c.table.values() for r in e.recordings for n in r.optimized.nodes if n.kind == "kernel"
    ]
    for name in (
        "embedding",
        "layer_norm",
        "gelu",
        "cross_entropy",
        "cross_entropy_backward",
        "gelu_backward",
    ):
        assert name in ops
    with pytest.raises(IndexError, match=r"\[cross_entropy\] class indices must be in \[0, 47\]"):
        c(index, rg.full((48,), 99))
    nothing = rg.full((48,), 3)
    assert np.isnan(c(index, nothing)[0].item()) and np.isnan(fn(index, nothing)[0].item())


def test_explain_prints_the_passes() -> None:
    c = rg.jit(lambda a: a.exp() + a.exp())
    for _ in range(3):
        c(x(3))
    text = rg.jit.explain(c)
    assert "common subexpressions: 3 -> 2" in text and "arena" in text
    with pytest.raises(TypeError, match="compile"):
        rg.jit.explain(len)
