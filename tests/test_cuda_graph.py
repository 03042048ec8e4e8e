"""Captured training steps on the fake device: replay is eager, and what cannot be captured is an error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import fakecuda
import fakecuda_device as machine
import fakecuda_kernels as kernels

pytestmark = pytest.mark.skipif(kernels.compiler() is None, reason="no C++ compiler")


@pytest.fixture
def cupy() -> Iterator[Any]:
    with fakecuda.installed() as cp:
        yield cp


class Net(rg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = rg.nn.Embedding(11, 8)
        self.norm = rg.nn.LayerNorm(8)
        self.dropout = rg.nn.Dropout(0.3)
        self.head = rg.nn.Linear(8, 11)

    def forward(self, x: Any) -> Any:
        return self.head(self.dropout(F.gelu(self.norm(self.embedding(x)))))


def batches(n: int) -> list[tuple[Any, Any]]:
    rg.manual_seed(3)
    return [(rg.randint(0, 11, (16,)).cuda(), rg.randint(0, 11, (16,)).cuda()) for _ in range(n)]


class Trainer:
    """A model and what trains it, eagerly or by replay."""

    def __init__(self, optimizer: str, **kw: Any) -> None:
        rg.manual_seed(0)
        self.model = Net().cuda()
        self.optimizer = getattr(rg.optim, optimizer)(self.model.parameters(), **kw)

    def step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        rg.nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        return loss

    def run(self, data: list[Any], graphed: bool) -> list[float]:
        """Losses; the learning rate falls from step to step."""
        losses = []
        rg.cuda.manual_seed(5)
        for i in range(3):  # warm up, on a side stream, as a capture needs
            side = rg.cuda.Stream()
            side.wait_stream(rg.cuda.current_stream())
            with rg.cuda.stream(side):
                losses.append(self.step(*data[i]).item())
            rg.cuda.current_stream().wait_stream(side)
        if graphed:
            x, y = data[0][0].clone(), data[0][1].clone()
            self.graph = rg.cuda.CUDAGraph()
            with rg.cuda.graph(self.graph):
                loss = self.step(x, y)
        for i in range(3, len(data)):
            self.optimizer.param_groups[0]["lr"] *= 0.8
            if graphed:
                x.copy_(data[i][0])
                y.copy_(data[i][1])
                self.graph.replay()
                losses.append(loss.item())
            else:
                losses.append(self.step(*data[i]).item())
        return losses


@pytest.mark.parametrize(
    ("name", "kw"),
    [
        ("AdamW", {"lr": 0.05}),
        ("Adam", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01, "maximize": True}),
    ],
)
def test_replay_is_eager(cupy: Any, name: str, kw: Any) -> None:
    """The same bits: dropout draws on, steps are counted, the scheduler's learning rate is used."""
    data = batches(7)
    eager, graphed = Trainer(name, **kw), Trainer(name, **kw)
    want = eager.run(data, False)
    drawn = rg.cuda.get_rng_state().tolist()
    got = graphed.run(data, True)
    assert got == want and len(set(got)) == len(got)
    assert rg.cuda.get_rng_state().tolist() == drawn  # the host counts the draws of replays
    for p, q in zip(eager.model.parameters(), graphed.model.parameters()):
        np.testing.assert_array_equal(p.detach().cpu().numpy(), q.detach().cpu().numpy())
    if "Adam" in name:
        steps = {int(s["step"].item()) for s in graphed.optimizer.state.values()}
        assert steps == {7}
    for trainer in (graphed, eager):  # eager again: goes on from there
        rg.cuda.manual_seed(1)
        trainer.step(*data[0])
    a, b = (t.model.head.weight.detach().cpu().numpy() for t in (eager, graphed))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("what", "act"),
    [
        ("host read", lambda x: x.sum().item()),
        ("host read", lambda x: bool((x > 0).all())),
        ("boolean index", lambda x: x[x > 0]),
        ("synchronised", lambda x: rg.cuda.synchronize()),
        ("host array", lambda x: x + rg.from_numpy(np.ones(4, np.float32)).array),
        ("nonzero", lambda x: x.nonzero()),
    ],
)
def test_what_cannot_be_captured_is_an_error(cupy: Any, what: str, act: Any) -> None:
    x = rg.ones(4, device="cuda")
    g = rg.cuda.CUDAGraph()
    with pytest.raises((machine.CaptureError, RuntimeError)) as caught, rg.cuda.graph(g):
        act(x)
    assert isinstance(caught.value, machine.CaptureError) or "one device" in str(caught.value)
    with rg.cuda.graph(rg.cuda.CUDAGraph()):  # another one can be captured afterwards
        x + 1


def test_misuse_is_named(cupy: Any) -> None:
    g = rg.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="must be captured before"):
        g.replay()
    with pytest.raises(RuntimeError, match="not be the default one"):
        g.capture_begin()
    x = rg.ones(2, device="cuda")
    with rg.cuda.graph(g):
        y = x + 1
        assert rg.cuda.is_current_stream_capturing()
    with pytest.raises(RuntimeError, match="captured once"), rg.cuda.graph(g):
        pass
    x.fill_(5)
    g.replay()
    assert y.tolist() == [6.0, 6.0]


def test_an_optimizer_without_a_step_cannot_be_captured(cupy: Any) -> None:
    p = rg.ones(4, device="cuda", requires_grad=True)
    p.sum().backward()
    optimizer = rg.optim.Adam([p])
    with pytest.raises((machine.CaptureError, RuntimeError)), rg.cuda.graph(rg.cuda.CUDAGraph()):
        optimizer.step()


def test_graphed_callables_train(cupy: Any) -> None:
    rg.manual_seed(0)
    layer, plain = rg.nn.Linear(3, 2).cuda(), rg.nn.Linear(3, 2).cuda()
    plain.load_state_dict(layer.state_dict())
    x = rg.randn(4, 3, device="cuda", requires_grad=True)
    graphed = rg.cuda.make_graphed_callables(layer, (x,))
    for scale in (1.0, 2.0):
        a = (x.detach() * scale).requires_grad_()
        b = (x.detach() * scale).requires_grad_()
        (graphed(a) ** 2).sum().backward()
        (plain(b) ** 2).sum().backward()
        np.testing.assert_allclose(a.grad.cpu().numpy(), b.grad.cpu().numpy(), rtol=1e-6)
    np.testing.assert_allclose(layer.weight.grad.cpu().numpy(), plain.weight.grad.cpu().numpy(), rtol=1e-6)
