"""Optimizers beside PyTorch's: the same numbers from the same gradients, and states that load both ways."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import optim

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

# small ones that share a block, a large one that is cut into several (float64), one with no elements
SHAPES = [(7, 5), (3,), (2, 3, 4), (), (0, 3), (220, 200)]
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", dict(momentum=0.9)),
    ("SGD", dict(momentum=0.9, dampening=0.3, weight_decay=0.1)),
    ("SGD", dict(momentum=0.9, nesterov=True, maximize=True)),
    ("Adam", {}),
    ("Adam", dict(weight_decay=0.1, amsgrad=True, maximize=True)),
    ("Adam", dict(weight_decay=0.1, decoupled_weight_decay=True)),
    ("AdamW", dict(lr=0.01, betas=(0.8, 0.95))),
    ("AdamW", dict(amsgrad=True, eps=1e-3)),
    ("Adamax", {}),
    ("Adamax", dict(weight_decay=0.1)),
    ("NAdam", dict(weight_decay=0.1)),
    ("NAdam", dict(weight_decay=0.1, decoupled_weight_decay=True, maximize=True)),
    ("RAdam", dict(lr=0.01)),
    ("RAdam", dict(betas=(0.9, 0.9), weight_decay=0.1)),
    ("RAdam", dict(weight_decay=0.1, decoupled_weight_decay=True)),
    ("Adagrad", {}),
    ("Adagrad", dict(lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.3)),
    ("Adadelta", {}),
    ("Adadelta", dict(weight_decay=0.1, rho=0.8, maximize=True)),
    ("RMSprop", {}),
    ("RMSprop", dict(centered=True, alpha=0.9)),
    ("RMSprop", dict(momentum=0.9, centered=True, weight_decay=0.1)),
    ("Rprop", {}),
    ("Rprop", dict(etas=(0.3, 1.5), step_sizes=(1e-3, 0.1), maximize=True)),
    ("ASGD", {}),
    ("ASGD", dict(t0=5, weight_decay=0.1, lambd=0.01)),
    ("Adafactor", {}),
    ("Adafactor", dict(weight_decay=0.1, maximize=True, d=1.5)),
]
IDS = [f"{name}-{'-'.join(kw)}" for name, kw in OPTIONS]


class Pair:
    """The same parameters in both libraries."""

    def __init__(self, dtype: Any, shapes: Any = SHAPES, seed: int = 0) -> None:
        self.rng, self.dtype, self.shapes = np.random.default_rng(seed), dtype, shapes
        first = [self.draw(shape) for shape in shapes]
        self.theirs = [torch.tensor(a, requires_grad=True) for a in first]
        self.ours = [rg.tensor(a, requires_grad=True) for a in first]

    def draw(self, shape: Any) -> Any:
        # away from zero, so that Rprop's and Adagrad's first steps do not hang on the last bit
        x = self.rng.uniform(0.5, 2.0, shape) * self.rng.choice([-1.0, 1.0], shape)
        if np.dtype(self.dtype).kind == "c":
            x = x + 1j * self.rng.uniform(0.5, 2.0, shape)
        return np.asarray(x, self.dtype)

    def gradients(self) -> None:
        for p, q in zip(self.theirs, self.ours):
            g = self.draw(q.array.shape)
            p.grad, q.grad = torch.tensor(g), rg.tensor(g)

    def check(self, rtol: float) -> None:
        for p, q in zip(self.theirs, self.ours):
            np.testing.assert_allclose(q.array, p.detach().numpy(), rtol=rtol, atol=rtol * 4)


def check_states(theirs: Any, ours: Any, rtol: float) -> None:
    a, b = theirs.state_dict(), ours.state_dict()
    assert a["param_groups"] == b["param_groups"]
    assert a["state"].keys() == b["state"].keys()
    for i, held in a["state"].items():
        assert held.keys() == b["state"][i].keys()
        for name, value in held.items():
            mine = b["state"][i][name].array
            assert mine.dtype == value.numpy().dtype, name
            np.testing.assert_allclose(mine, value.numpy(), rtol=rtol, atol=rtol * 4, err_msg=name)


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-6), (np.float64, 1e-12)], ids=["float32", "float64"])
@pytest.mark.parametrize("name, kw", OPTIONS, ids=IDS)
def test_twenty_steps(name: str, kw: dict[str, Any], dtype: Any, rtol: float) -> None:
    pair = Pair(dtype)
    if name == "Adafactor":  # its mean over no elements is NaN in PyTorch
        pair.theirs.pop(4), pair.ours.pop(4)
    theirs, ours = getattr(torch.optim, name)(pair.theirs, **kw), getattr(optim, name)(pair.ours, **kw)
    for _ in range(20):
        pair.gradients()
        theirs.step()
        ours.step()
    # sums of 20 float32 updates differ in the last bits: 20 steps of half an ulp each
    pair.check(rtol * (5 if dtype == np.float32 else 1))
    check_states(theirs, ours, rtol * (20 if dtype == np.float32 else 10))


@pytest.mark.parametrize("name, kw", [o for o in OPTIONS if o[0] != "Adafactor"], ids=IDS[:-2])
def test_complex_parameters(name: str, kw: dict[str, Any]) -> None:
    pair = Pair(np.complex128, [(3, 2), (4,)])
    theirs, ours = getattr(torch.optim, name)(pair.theirs, **kw), getattr(optim, name)(pair.ours, **kw)
    for _ in range(5):
        pair.gradients()
        theirs.step()
        ours.step()
    pair.check(1e-12)


@pytest.mark.parametrize("kw", [{}, dict(nesterov=False), dict(adjust_lr_fn="match_rms_adamw", lr=0.01)])
def test_muon(kw: dict[str, Any]) -> None:
    pair = Pair(np.float32, [(7, 5), (16, 40)])
    theirs, ours = torch.optim.Muon(pair.theirs, **kw), optim.Muon(pair.ours, **kw)
    for _ in range(5):
        pair.gradients()
        before = [q.array.copy() for q in pair.ours]
        theirs.step()
        ours.step()
    pair.check(1e-2 * kw.get("lr", 1e-3) * 100)  # the iteration rounds to bfloat16: 3 digits of the update
    moved = [np.abs(q.array - a).mean() for q, a in zip(pair.ours, before)]
    assert min(moved) > 1e-4
    check_states(theirs, ours, 1e-5)


def test_parameters_that_join_late_keep_their_own_step_counts() -> None:
    pair = Pair(np.float64)
    theirs, ours = torch.optim.NAdam(pair.theirs), optim.NAdam(pair.ours)
    for step in range(6):
        pair.gradients()
        for i, (p, q) in enumerate(zip(pair.theirs, pair.ours)):
            if (step + i) % 3 == 0 or i > step + 1:
                p.grad = q.grad = None
        theirs.step()
        ours.step()
    pair.check(1e-12)
    check_states(theirs, ours, 1e-12)


def test_momentum_begins_with_the_plain_gradient_for_a_late_parameter() -> None:
    pair = Pair(np.float64, [(3,), (4,), (2,)])
    kw = dict(lr=0.1, momentum=0.9, dampening=0.5)
    theirs, ours = torch.optim.SGD(pair.theirs, **kw), optim.SGD(pair.ours, **kw)
    for step in range(4):
        pair.gradients()
        if step < 2:
            pair.theirs[1].grad = pair.ours[1].grad = None
        theirs.step()
        ours.step()
    pair.check(1e-12)


@pytest.mark.parametrize(
    "name, kw", [o for o in OPTIONS if o[0] in ("SGD", "Adam", "NAdam", "ASGD", "Adafactor")]
)
def test_states_load_both_ways(name: str, kw: dict[str, Any]) -> None:
    pair = Pair(np.float64, [(7, 5), (3,)])
    theirs, ours = getattr(torch.optim, name)(pair.theirs, **kw), getattr(optim, name)(pair.ours, **kw)
    for _ in range(3):
        pair.gradients()
        theirs.step()
        ours.step()

    def convert(state: Any, leaf: Any, make: Any) -> Any:
        if isinstance(state, dict):
            return {k: convert(v, leaf, make) for k, v in state.items()}
        return make(state) if isinstance(state, leaf) else copy.deepcopy(state)

    from_theirs = convert(theirs.state_dict(), torch.Tensor, lambda t: rg.tensor(t.numpy()))
    from_ours = convert(ours.state_dict(), rg.Tensor, lambda t: torch.tensor(t.array))
    theirs, ours = getattr(torch.optim, name)(pair.theirs), getattr(optim, name)(pair.ours)
    theirs.load_state_dict(from_ours)
    ours.load_state_dict(from_theirs)
    for _ in range(3):
        pair.gradients()
        theirs.step()
        ours.step()
    pair.check(1e-12)
    check_states(theirs, ours, 1e-11)


def rosenbrock(x: Any) -> Any:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[1]) ** 2 + 100 * (x[2] - x[1] ** 2) ** 2


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs(search: str | None) -> None:
    start = np.array([-1.2, 1.0, 0.5])
    found = []
    for lib in (torch, rg):
        x = lib.tensor(start, requires_grad=True)
        kw = dict(lr=1 if search else 1e-3, max_iter=8, history_size=4, line_search_fn=search)
        optimizer = lib.optim.LBFGS([x], **kw)
        path = []

        def closure(optimizer: Any = optimizer, x: Any = x) -> Any:
            optimizer.zero_grad()
            loss = rosenbrock(x)
            loss.backward()
            return loss

        for step in range(4):
            if step == 2:  # a new one goes on from its state
                state = optimizer.state_dict()
                optimizer = lib.optim.LBFGS([x], **kw)
                optimizer.load_state_dict(state)
            path.append(optimizer.step(closure).item())
        state = optimizer.state_dict()["state"][0]
        found.append(
            (path, x.detach().tolist(), {k: v for k, v in state.items() if isinstance(v, int)}, set(state))
        )
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-6)
    assert found[1][2:] == found[0][2:]
    assert found[1][0][-1] < found[1][0][0]


def test_lbfgs_fills_in_parameters_without_gradients() -> None:
    ends = []
    for lib in (torch, rg):
        a, b = lib.tensor([2.0, -1.0], requires_grad=True), lib.tensor([3.0], requires_grad=True)
        optimizer = lib.optim.LBFGS([b, a], line_search_fn="strong_wolfe")

        def closure(a: Any = a) -> Any:
            a.grad = None
            loss = ((a - 1) ** 4).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        ends.append([a.detach().numpy(), b.detach().numpy()])
    for x, y in zip(*ends):
        np.testing.assert_allclose(y, x, rtol=1e-4)
