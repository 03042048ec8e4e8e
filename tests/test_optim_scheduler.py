"""Learning rate schedules: mistakes, warnings, states, warm-up with cosine; and PyTorch's values step by step."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

import ringgrad as rg
from ringgrad import optim
from ringgrad.optim import lr_scheduler

Make = Any

SCHEDULES: dict[str, Make] = {
    "lambda": lambda s, o: s.LambdaLR(o, lambda e: 0.95**e),
    "lambdas": lambda s, o: s.LambdaLR(o, [lambda e: 0.95**e, lambda e: 1 / (e + 1)]),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, [lambda e: 0.95, lambda e: 0.9]),
    "step": lambda s, o: s.StepLR(o, 7),
    "multistep": lambda s, o: s.MultiStepLR(o, [3, 3, 9]),
    "constant": lambda s, o: s.ConstantLR(o, 0.5, 9),
    "linear": lambda s, o: s.LinearLR(o, 0.2, 0.8, 11),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.9),
    "polynomial": lambda s, o: s.PolynomialLR(o, 20, 2.0),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 10, 1e-3),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 2, 1e-3),
    "cyclic": lambda s, o: s.CyclicLR(o, 0.01, [0.1, 0.2], 5, 7),
    "cyclic2": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 5, mode="triangular2"),
    "cyclic range": lambda s, o: s.CyclicLR(
        o, 0.01, 0.1, 5, mode="exp_range", gamma=0.98, cycle_momentum=False
    ),
    "cyclic own": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 5, scale_fn=lambda x: 1 / x),
    "one cycle": lambda s, o: s.OneCycleLR(o, [0.3, 0.1], 60),
    "one cycle of three": lambda s, o: s.OneCycleLR(
        o, 0.3, epochs=6, steps_per_epoch=10, three_phase=True, anneal_strategy="linear"
    ),
    "sequential": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingLR(o, 20), s.ExponentialLR(o, 0.9)], [5, 30]
    ),
    "chained": lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.1, total_iters=5), s.ExponentialLR(o, 0.9)]),
}
PLATEAUS: dict[str, Make] = {
    "relative": lambda s, o: s.ReduceLROnPlateau(o, patience=2, cooldown=1, threshold=0.1),
    "absolute": lambda s, o: s.ReduceLROnPlateau(
        o, "max", patience=1, threshold_mode="abs", min_lr=[1e-3, 1e-2]
    ),
    "largest": lambda s, o: s.ReduceLROnPlateau(o, mode="max", patience=1, threshold=0.2),
    "floor": lambda s, o: s.ReduceLROnPlateau(
        o, "min", patience=0, threshold_mode="abs", threshold=0.3, eps=1e-3
    ),
}


def optimizer(lib: Any = rg, name: str = "SGD", **kw: Any) -> Any:
    kw = kw or (dict(lr=0.1, momentum=0.9) if name == "SGD" else dict(lr=0.1))
    p, q = lib.tensor([1.0, 2.0], requires_grad=True), lib.tensor([1.0], requires_grad=True)
    return getattr(lib.optim, name)([{"params": [p]}, {"params": [q], "lr": 0.5}], **kw)


def now(opt: Any) -> list[Any]:
    return [(g["lr"], g.get("momentum"), g.get("betas")) for g in opt.param_groups]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_fifty_steps_are_pytorchs(make: Make, name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = optimizer(torch, name), optimizer(rg, name)
    a, b = make(torch.optim.lr_scheduler, theirs), make(lr_scheduler, ours)
    assert a.state_dict().keys() == b.state_dict().keys()
    for _ in range(50):
        assert now(theirs) == now(ours)
        assert a.get_last_lr() == b.get_last_lr()
        for each in (theirs, ours, a, b):
            each.step()
    held, other = b.state_dict(), a.state_dict()
    assert all(
        held[k] == v for k, v in other.items() if k not in ("lr_lambdas", "_schedulers", "_scale_fn_custom")
    )
    fresh = optimizer(rg, name)
    c = make(lr_scheduler, fresh)
    c.load_state_dict(other)  # PyTorch's state in ours
    assert (
        c.get_last_lr() == b.get_last_lr() and c.last_epoch == b.last_epoch if "last_epoch" in held else True
    )


@pytest.mark.parity
@pytest.mark.parametrize("make", PLATEAUS.values(), ids=PLATEAUS)
def test_plateaus_are_pytorchs(make: Make) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = optimizer(torch), optimizer()
    a, b = make(torch.optim.lr_scheduler, theirs), make(lr_scheduler, ours)
    reduced = set()
    for i in range(50):
        a.step(math.sin(i / 2) - 0.1)
        b.step(rg.tensor(math.sin(i / 2) - 0.1, dtype=rg.float64))
        assert now(theirs) == now(ours)
        reduced.add(now(ours)[0][0])
    assert a.state_dict() == b.state_dict() and len(reduced) > 2


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", ["step", "multistep", "constant", "linear", "exponential", "polynomial", "cosine"]
)
def test_closed_forms_are_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = optimizer(torch), optimizer()
    a, b = SCHEDULES[name](torch.optim.lr_scheduler, theirs), SCHEDULES[name](lr_scheduler, ours)
    theirs.step(), ours.step()
    for epoch in (3, 9, 30, 2):
        with pytest.warns(UserWarning, match="epoch"):
            a.step(epoch)
        with pytest.warns(UserWarning, match="deprecated"):
            b.step(epoch)
        assert [g[0] for g in now(ours)] == pytest.approx([g[0] for g in now(theirs)], rel=1e-14)


@pytest.mark.parity
def test_restarts_in_fractions_of_epochs_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    for mult in (1, 2):
        theirs, ours = optimizer(torch), optimizer()
        a = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, 3, mult)
        b = lr_scheduler.CosineAnnealingWarmRestarts(ours, 3, mult)
        for epoch in (0.25, 2.9, 3, 7.5, 20.125, 1):
            a.step(epoch), b.step(epoch)
            assert now(theirs) == now(ours) and a.last_epoch == b.last_epoch


@pytest.mark.parity
@pytest.mark.parametrize("strategy, epochs", [("cos", 5), ("linear", 8), ("linear", 0)])
def test_swalr_is_pytorchs(strategy: Any, epochs: int) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = optimizer(torch), optimizer()
    a = torch.optim.swa_utils.SWALR(theirs, [0.01, 0.02], epochs, strategy)
    b = optim.swa_utils.SWALR(ours, [0.01, 0.02], epochs, strategy)
    for _ in range(12):
        assert now(theirs) == now(ours)
        for each in (theirs, ours, a, b):
            each.step()
    assert a.state_dict() == b.state_dict()


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_a_loaded_state_goes_on(make: Make) -> None:
    one, other = optimizer(), optimizer()
    a = make(lr_scheduler, one)
    for _ in range(8):
        one.step()
        a.step()
    b = make(lr_scheduler, other)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    b.load_state_dict(a.state_dict() | {})
    for _ in range(30):
        for each in (one, other, a, b):
            each.step()
        assert now(one) == now(other)


def test_warmup_then_cosine() -> None:
    opt = optimizer(lr=1.0)
    schedule = lr_scheduler.CosineWarmupLR(opt, warmup_steps=4, total_steps=14, min_lr_ratio=0.1)
    seen = []
    for _ in range(20):
        seen.append(now(opt)[0][0])
        opt.step()
        schedule.step()
    assert seen[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert seen[9] == pytest.approx(0.1 + 0.9 * 0.5)
    assert seen[4:15] == sorted(seen[4:15], reverse=True)
    assert seen[14:] == pytest.approx([0.1] * 6)
    assert now(opt)[1][0] == pytest.approx(0.05)


def test_warmup_without_warmup_and_without_decay() -> None:
    opt = optimizer(lr=1.0)
    lr_scheduler.CosineWarmupLR(opt, 0, 10)
    assert now(opt)[0][0] == 1.0
    opt = optimizer(lr=1.0)
    schedule = lr_scheduler.CosineWarmupLR(opt, 3, 3)
    opt.step()
    for _ in range(3):
        schedule.step()
    assert now(opt)[0][0] == 1.0


def test_training_can_go_on_from_a_later_epoch() -> None:
    opt = optimizer()
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.StepLR(opt, 3, last_epoch=5)
    for group in opt.param_groups:
        group["initial_lr"] = 1.0
    schedule = lr_scheduler.CosineAnnealingLR(opt, 10, last_epoch=4)
    assert schedule.last_epoch == 5 and schedule.base_lrs == [1.0, 1.0]


def test_rates_in_tensors_are_written_in_place() -> None:
    lr = rg.tensor(0.5)
    opt = optim.Adam([rg.ones(2, requires_grad=True)], lr=lr)
    schedule = lr_scheduler.ExponentialLR(opt, 0.5)
    opt.step()
    schedule.step()
    assert opt.param_groups[0]["lr"] is lr and lr.item() == 0.25
    schedule.get_last_lr()[0].fill_(7.0)
    assert lr.item() == 0.25


def test_callable_objects_are_saved_functions_are_not() -> None:
    class Factor:
        def __init__(self) -> None:
            self.base = 0.5

        def __call__(self, epoch: float) -> float:
            return self.base**epoch

    one = lr_scheduler.LambdaLR(optimizer(), [Factor(), lambda e: 1.0])
    one.lr_lambdas[0].base = 0.25
    state = one.state_dict()
    assert state["lr_lambdas"] == [{"base": 0.25}, None]
    other = lr_scheduler.LambdaLR(optimizer(), [Factor(), lambda e: 1.0])
    other.load_state_dict(state)
    assert other.lr_lambdas[0].base == 0.25 and "lr_lambdas" in state
    cyclic = lr_scheduler.CyclicLR(optimizer(), 0.1, 0.2, 5, scale_fn=Factor())
    assert cyclic.state_dict()["_scale_fn_custom"] == {"base": 0.5}


# ---- warnings and mistakes


def test_the_wrong_order_of_steps_is_warned_about() -> None:
    opt = optimizer()
    schedule = lr_scheduler.StepLR(opt, 3)
    with pytest.warns(UserWarning, match=r"before optimizer.step\(\)"):
        schedule.step()
    schedule.step()  # once is enough


def test_a_replaced_step_is_warned_about() -> None:
    opt = optimizer()
    schedule = lr_scheduler.StepLR(opt, 3)
    opt.step = lambda: None
    with pytest.warns(UserWarning, match="was replaced"):
        schedule.step()


def test_get_lr_outside_of_step_is_warned_about() -> None:
    schedule = lr_scheduler.StepLR(optimizer(), 3)
    with pytest.warns(UserWarning, match="get_last_lr"):
        schedule.get_lr()


S = lr_scheduler


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda o: S.StepLR("sgd", 3), TypeError, "came str"),
        (lambda o: S.LambdaLR(o, [lambda e: 1.0]), ValueError, "each of 2 groups, came 1"),
        (lambda o: S.MultiplicativeLR(o, 3), TypeError, "came int"),
        (lambda o: S.ConstantLR(o, 1.5), ValueError, "came 1.5"),
        (lambda o: S.LinearLR(o, 0.0), ValueError, "start_factor .* came 0.0"),
        (lambda o: S.LinearLR(o, 0.5, 2.0), ValueError, "end_factor .* came 2.0"),
        (lambda o: S.CosineAnnealingWarmRestarts(o, 0), ValueError, "T_0"),
        (lambda o: S.CosineAnnealingWarmRestarts(o, 3, 0), ValueError, "T_mult"),
        (lambda o: S.CosineAnnealingWarmRestarts(o, 3).step(-1), ValueError, "came -1"),
        (lambda o: S.CosineWarmupLR(o, 5, 3), ValueError, "came 5 and 3"),
        (lambda o: S.CosineWarmupLR(o, 1, 3, 2.0), ValueError, "min_lr_ratio"),
        (lambda o: S.CyclicLR(o, 0.1, 0.2, mode="saw"), ValueError, "came 'saw'"),
        (lambda o: S.CyclicLR(optimizer(name="Adagrad"), 0.1, 0.2), ValueError, "came Adagrad"),
        (lambda o: S.OneCycleLR(o, 0.1), ValueError, "came neither"),
        (lambda o: S.OneCycleLR(o, 0.1, 0), ValueError, "total_steps .* came 0"),
        (lambda o: S.OneCycleLR(o, 0.1, epochs=3, steps_per_epoch=-1), ValueError, "steps_per_epoch"),
        (lambda o: S.OneCycleLR(o, 0.1, 9, pct_start=2.0), ValueError, "pct_start"),
        (lambda o: S.OneCycleLR(o, 0.1, 9, anneal_strategy="x"), ValueError, "came 'x'"),
        (lambda o: S.ReduceLROnPlateau(o, "least"), ValueError, "came 'least'"),
        (lambda o: S.ReduceLROnPlateau(o, threshold_mode="x"), ValueError, "came 'x'"),
        (lambda o: S.ReduceLROnPlateau(o, factor=1.0), ValueError, "factor"),
        (lambda o: S.ReduceLROnPlateau(o, min_lr=[0.1]), ValueError, "min_lr"),
        (lambda o: S.SequentialLR(o, [], []), ValueError, "came none"),
        (lambda o: S.SequentialLR(o, [S.StepLR(o, 3)], [3]), ValueError, "came 1"),
        (lambda o: S.SequentialLR(o, [S.ReduceLROnPlateau(o)], []), ValueError, "ReduceLROnPlateau"),
        (
            lambda o: S.ChainedScheduler([S.StepLR(o, 3), S.StepLR(optimizer(), 3)]),
            ValueError,
            "another at index 1",
        ),
        (lambda o: S.ChainedScheduler([S.StepLR(o, 3), 3]), TypeError, "came int at index 1"),
        (lambda o: S.LRScheduler(o), NotImplementedError, "get_lr"),
    ],
)
def test_mistakes(make: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make(optimizer())


def test_one_cycle_ends() -> None:
    opt = optimizer()
    schedule = lr_scheduler.OneCycleLR(opt, 0.1, 3)
    opt.step()
    for _ in range(3):
        schedule.step()
    with pytest.raises(ValueError, match="at most 3 steps"):
        schedule.step()


def test_a_group_added_later_needs_its_own_least_rate() -> None:
    opt = optimizer()
    schedule = lr_scheduler.ReduceLROnPlateau(opt, patience=0, min_lr=[0.01, 0.01])
    opt.add_param_group({"params": rg.ones(1, requires_grad=True)})
    schedule.step(1.0)
    with pytest.raises(RuntimeError, match="each of 3 groups, came 2"):
        schedule.step(1.0)


def test_old_names() -> None:
    assert issubclass(lr_scheduler._LRScheduler, lr_scheduler.LRScheduler)
