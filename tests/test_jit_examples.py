"""The models of the examples, trained compiled as they are trained eagerly: 50 steps, each with data of its own."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import nn
from ringgrad.jit import explain
from ringgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

pytestmark = pytest.mark.slow
STEPS = 50
Loss = Callable[[Any, Any], Any]
Case = tuple[
    Any, Loss, tuple[int, ...], int
]  # model, loss of a batch, shape of the input, classes (0: of tokens)


def plain(model: Any, shape: tuple[int, ...], classes: int = 10) -> Case:
    return model, lambda x, y: F.cross_entropy(model(x), y), shape, classes


def char_gpt() -> Case:
    made = import_module("char_gpt")
    model = made.CharGPT(30, 16, width=32, layers=2)
    return model, lambda x, y: made.loss_of(model, x, y), (4, 16), 0


def char_gpt_lightning() -> Case:
    model = import_module("char_gpt_lightning").CharGPT(30, block=16, width=32)
    return model, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), (4, 16), 0


def custom_function() -> Case:
    model = import_module("custom_function").Net(32)

    def loss(x: Any, y: Any) -> Any:
        with rg.no_grad():
            for layer in (model.hidden, model.out):
                layer.weight.clamp_(-1, 1)
        return F.cross_entropy(model(x), y)

    return model, loss, (16, 64), 10


def digits_lightning() -> Case:
    return plain(import_module("digits_lightning").Net().layers, (8, 1, 8, 8))


def finetune_pytorch() -> Case:
    made = import_module("finetune_pytorch").Classifier(0)
    return plain(nn.Sequential(made.body, made.head), (8, 1, 8, 8), 5)


def mixed_precision() -> Case:
    layers = import_module("mixed_precision").Net().layers

    def loss(x: Any, y: Any) -> Any:
        with rg.autocast("cpu", dtype=rg.float16):
            return F.cross_entropy(layers(x), y)

    return layers, loss, (16, 64), 10


def overfitting() -> Case:
    """Without the pictures' moves: how far is a Python number, which a trace does not follow."""
    return plain(import_module("overfitting").Perceptron(0, 32).layers, (16, 8, 8))


def serve_onnx() -> Case:
    layers = nn.BatchNorm1d(64), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10)
    return plain(nn.Sequential(*layers), (16, 64))


def sweep() -> Case:
    data = [rg.zeros(1, 64), rg.zeros(1)] * 2
    return plain(
        import_module("sweep").Trial({"lr": 3e-3, "width": 16, "dropout": 0.3}, data).model, (16, 64)
    )


CASES = [
    char_gpt, char_gpt_lightning, custom_function, digits_lightning, finetune_pytorch, mixed_precision, overfitting,
    serve_onnx, sweep,
]  # fmt: skip


def batch(shape: tuple[int, ...], classes: int, i: int) -> tuple[Any, Any]:
    r = np.random.default_rng(i)
    if not classes:
        return tuple(rg.tensor(r.integers(0, 30, shape)) for _ in range(2))
    x = r.standard_normal(shape).astype(np.float32)
    return rg.tensor(x), rg.tensor(r.integers(0, classes, shape[0]))


def trained(build: Callable[[], Case], compiler: Callable[[Any], Any]) -> tuple[list[float], Any, Any]:
    rg.manual_seed(0)
    model, loss_of, shape, classes = build()
    optimizer = rg.optim.AdamW(model.parameters(), lr=3e-3)

    def step(x: Any, y: Any) -> Any:
        loss = loss_of(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    call = compiler(step)
    losses = [call(*batch(shape, classes, i)).item() for i in range(STEPS)]
    return losses, model.state_dict(), call


@pytest.mark.parametrize("build", CASES, ids=lambda f: f.__name__)
def test_examples_train_compiled_as_eagerly(build: Callable[[], Case]) -> None:
    """Bit by bit with exact=True; else losses within 2e-4, or 2e-3 in 16 bits."""
    losses, state, _ = trained(build, lambda step: step)
    same, other, call = trained(build, lambda step: rg.jit(step, exact=True))
    assert call.calls["replayed"] == STEPS - 2, explain(call)
    assert same == losses
    for name, value in state.items():
        np.testing.assert_array_equal(value.array, other[name].array, err_msg=name)
    close, _, call = trained(build, rg.jit)
    assert call.calls["replayed"] == STEPS - 2, explain(call)
    np.testing.assert_allclose(close, losses, rtol=2e-3 if build is mixed_precision else 2e-4)


@pytest.mark.filterwarnings("ignore:.*eagerly")
def test_a_graph_that_changes_at_each_call_runs_as_without_compiling() -> None:
    """Trees of other shapes than those that were recorded."""
    made = import_module("tree_rnn")
    trees = [ast.parse(f"def f():\n    return {'-' * (i % 12)}x").body[0] for i in range(16)]

    def losses(compiler: Callable[[Any], Any]) -> list[float]:
        rg.manual_seed(0)
        model = made.TreeLSTM(8)
        optimizer = rg.optim.Adam(model.parameters(), lr=3e-3)

        def step(tree: Any, label: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(tree), label)
            loss.backward()
            optimizer.step()
            return loss

        call = compiler(step)
        return [call(tree, rg.tensor([i % 2])).item() for i, tree in enumerate(trees)]

    assert losses(rg.jit) == pytest.approx(losses(lambda step: step), rel=1e-5)
