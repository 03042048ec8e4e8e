"""What optimizers promise beside their numbers: groups, state, hooks, errors, and the ways memory may move."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import optim
from ringgrad.optim.elementwise import BLOCK_BYTES

ALL = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "RAdam",
    "RMSprop",
]
ALL += ["Rprop", "SGD"]


def parameter(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    p = rg.Parameter(rg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype)))
    p.grad = rg.tensor(np.random.default_rng(seed + 1).standard_normal(shape).astype(dtype))
    return p


def copies(params: list[Any]) -> list[Any]:
    found = copy.deepcopy(params)
    for p, q in zip(found, params):
        p.grad = q.grad.clone()
    return found


def equal(ours: list[Any], others: list[Any]) -> None:
    for p, q in zip(ours, others, strict=True):
        np.testing.assert_array_equal(p.array, q.array)


# ---- the flat buffers


@pytest.mark.parametrize("name", ALL)
def test_blocks_and_gathering_change_no_bit(name: str) -> None:
    shapes = [(3,), (40, 50), (BLOCK_BYTES // 4 + 77,), (5, 2), (1,)]
    together = [parameter(*s, seed=i) for i, s in enumerate(shapes)]
    alone = copies(together)
    one = getattr(optim, name)(together, lr=0.01)
    each = [getattr(optim, name)([p], lr=0.01) for p in alone]
    for _ in range(3):
        one.step()
        for optimizer in each:
            optimizer.step()
    equal(together, alone)


def test_state_is_a_view_of_one_buffer_and_writes_into_it_count() -> None:
    a, b = parameter(3), parameter(4, seed=5)
    optimizer = optim.SGD([a, b], lr=1.0, momentum=0.5)
    optimizer.step()
    buffers = [optimizer.state[p]["momentum_buffer"].array for p in (a, b)]
    assert buffers[0].base is not None and buffers[0].base is buffers[1].base
    optimizer.state[b]["momentum_buffer"].zero_()
    before = b.array.copy()
    optimizer.step()
    np.testing.assert_allclose(b.array, before - b.grad.array, rtol=1e-6)


def test_replaced_state_is_used() -> None:
    p = parameter(4)
    optimizer = optim.SGD([p], lr=1.0, momentum=0.5)
    optimizer.step()
    given = rg.ones(4)
    optimizer.state[p]["momentum_buffer"] = given
    before = p.array.copy()
    optimizer.step()
    np.testing.assert_allclose(p.array, before - (0.5 + p.grad.array), rtol=1e-6)
    assert given.tolist() == [1.0] * 4  # the tensor that came is not written


def test_replaced_parameters_are_followed() -> None:
    p, q = parameter(4), parameter(6, seed=3)
    optimizer = optim.SGD([p, q], lr=1.0)
    optimizer.step()
    p.data = rg.zeros(4)  # other memory
    q.data = rg.zeros(2, 3)  # another shape
    q.grad = rg.ones(2, 3)
    optimizer.step()
    np.testing.assert_array_equal(p.array, -p.grad.array)
    assert q.tolist() == [[-1.0] * 3] * 2
    p.data = rg.zeros(4, dtype=rg.float64)
    p.grad = rg.ones(4, dtype=rg.float64)
    optimizer.step()
    assert p.dtype == rg.float64 and p.tolist() == [-1.0] * 4


def test_state_of_another_shape_is_an_error() -> None:
    p = parameter(4)
    optimizer = optim.Adam([p])
    optimizer.step()
    p.data = rg.zeros(5)
    p.grad = rg.ones(5)
    with pytest.raises(
        RuntimeError, match=r"state 'exp_avg' must have its parameter's shape \[5\], came \[4\]"
    ):
        optimizer.step()


def test_views_of_a_parameter_see_the_step() -> None:
    p = parameter(4, 3)
    alias, view = p.detach(), p.data.view(12)
    optim.Adam([p], lr=0.1).step()
    np.testing.assert_array_equal(alias.array, p.array)
    np.testing.assert_array_equal(view.array, p.array.reshape(-1))


@pytest.mark.parametrize("name", ALL)
def test_parameters_and_gradients_that_are_not_contiguous(name: str) -> None:
    plain = parameter(4, 6)
    turned = rg.Parameter(rg.tensor(plain.array.T.copy()).t())
    turned.grad = rg.tensor(plain.grad.array.T.copy()).t()
    assert not turned.array.flags.c_contiguous and not turned.grad.array.flags.c_contiguous
    memory = turned.array
    one, other = getattr(optim, name)([plain], lr=0.1), getattr(optim, name)([turned], lr=0.1)
    for _ in range(3):
        one.step()
        other.step()
    np.testing.assert_allclose(turned.array, plain.array, rtol=1e-6)  # Adafactor sums in another order
    assert turned.array is memory


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("low", [rg.float16, rg.bfloat16])
def test_16_bit_parameters_are_computed_in_float32(name: str, low: Any) -> None:
    exact = [parameter(5, 3), parameter(7, seed=4)]
    for p in exact:
        p.data, p.grad = p.data.to(low).float(), p.grad.to(low).float()
    short = [rg.Parameter(p.detach().to(low)) for p in exact]
    for p, q in zip(short, exact):
        p.grad = q.grad.to(low)
    # a rate that is exact in 16 bits, where Rprop's step sizes begin
    one, other = getattr(optim, name)(exact, lr=0.125), getattr(optim, name)(short, lr=0.125)
    if name == "Adafactor":  # its floor is the dtype's resolution
        one.param_groups[0]["eps"] = other.param_groups[0]["eps"] = (1e-3, 1e-3)
    one.step()
    other.step()
    for p, q in zip(short, exact):
        assert p.dtype == low
        np.testing.assert_array_equal(p.array, q.detach().to(low).array)
    state = other.state[short[0]]
    assert {v.dtype for k, v in state.items() if v.ndim} <= {low}


def test_a_gradient_of_another_dtype_is_cast() -> None:
    p = parameter(4)
    g = p.grad.to(rg.bfloat16)
    p._grad = g
    before = p.array.copy()
    optim.SGD([p], lr=1.0).step()
    np.testing.assert_array_equal(p.array, before - g.float().array)


def test_dtypes_may_be_mixed_in_a_group() -> None:
    params = [parameter(3), parameter(4, dtype=np.float64), parameter(2, seed=7)]
    alone = copies(params)
    optim.Adam(params).step()
    for p in alone:
        optim.Adam([p]).step()
    equal(params, alone)


def test_the_written_version_is_counted() -> None:
    p = parameter(3)
    y = (p * p).sum()
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="mul"):
        y.backward()


@pytest.mark.parametrize("name", [*ALL, "Muon"])
def test_parameters_without_gradients_are_skipped(name: str) -> None:
    p, q = parameter(3, 2), parameter(3, 2, seed=9)
    q.grad = None
    before = q.array.copy()
    optimizer = getattr(optim, name)([p, q])
    optimizer.step()
    np.testing.assert_array_equal(q.array, before)
    assert q._version[0] == 0
    if name != "Adagrad":
        assert q not in optimizer.state or not optimizer.state[q]
    p.grad = None
    optimizer.step()


def test_lion_is_what_its_paper_says() -> None:
    p = parameter(50, dtype=np.float64)
    x, m = p.array.copy(), np.zeros(50)
    optimizer = optim.Lion([p], lr=0.1, betas=(0.8, 0.95), weight_decay=0.3)
    rng = np.random.default_rng(3)
    for _ in range(5):
        g = rng.standard_normal(50)
        p.grad = rg.tensor(g)
        optimizer.step()
        x = x - 0.1 * (np.sign(0.8 * m + 0.2 * g) + 0.3 * x)
        m = 0.95 * m + 0.05 * g
    np.testing.assert_allclose(p.array, x, rtol=1e-12)


# ---- groups and options


def test_groups_take_their_own_options_and_the_defaults() -> None:
    p, q = parameter(2), parameter(2, seed=4)
    optimizer = optim.SGD([{"params": [p]}, {"params": q, "lr": 1.0, "mine": "kept"}], lr=0.1, momentum=0.9)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 1.0]
    assert [g["momentum"] for g in optimizer.param_groups] == [0.9, 0.9]
    assert optimizer.param_groups[1]["mine"] == "kept" and optimizer.param_groups[1]["params"] == [q]
    before = [p.array.copy(), q.array.copy()]
    for group in optimizer.param_groups:
        group["lr"] *= 2
    optimizer.step()
    np.testing.assert_allclose(p.array, before[0] - 0.2 * p.grad.array, rtol=1e-6)
    np.testing.assert_allclose(q.array, before[1] - 2.0 * q.grad.array, rtol=1e-6)
    r = parameter(2, seed=8)
    optimizer.add_param_group({"params": r})
    optimizer.step()
    assert "momentum_buffer" in optimizer.state[r]


def test_momentum_may_be_switched_on_later() -> None:
    p = parameter(3)
    optimizer = optim.SGD([p], lr=1.0)
    optimizer.step()
    assert not optimizer.state[p]
    optimizer.param_groups[0]["momentum"] = 0.9
    optimizer.step()
    np.testing.assert_array_equal(optimizer.state[p]["momentum_buffer"].array, p.grad.array)


def test_names_of_parameters() -> None:
    p, q = parameter(2), parameter(2)
    optimizer = optim.Adam([("w", p), ("b", q)])
    assert optimizer.param_groups[0]["param_names"] == ["w", "b"] and optimizer.param_groups[0]["params"] == [
        p,
        q,
    ]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["w", "b"]
    with pytest.raises(ValueError, match="came 1 of 2"):
        optim.Adam([("w", p), q])
    with pytest.raises(ValueError, match="came both kinds"):
        optimizer.add_param_group({"params": [parameter(1)]})


def test_hyper_parameters_may_be_tensors_of_one_element() -> None:
    a = parameter(3)
    (b,) = copies([a])
    optim.Adam([a], lr=rg.tensor(0.5), betas=(rg.tensor(0.75), rg.tensor(0.5))).step()
    optim.Adam([b], lr=0.5, betas=(0.75, 0.5)).step()
    equal([a], [b])


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda p: optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
        (lambda p: optim.SGD(p, lr=0.1), TypeError, "came one tensor"),
        (lambda p: optim.SGD([1.0], lr=0.1), TypeError, "came float"),
        (lambda p: optim.SGD([{"params": {p}}], lr=0.1), TypeError, "came a set"),
        (lambda p: optim.SGD([p * 2], lr=0.1), ValueError, "non-leaf"),
        (
            lambda p: optim.SGD([{"params": [p]}, {"params": [p]}], lr=0.1),
            ValueError,
            "more than one parameter group",
        ),
        (lambda p: optim.SGD([p], lr=-1.0), ValueError, r"\[SGD\] lr must be at least 0, came -1.0"),
        (lambda p: optim.SGD([p], lr=float("nan")), ValueError, "came nan"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "momentum 0"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, r"\[Adam\] betas\[1\] .* came 1.0"),
        (lambda p: optim.AdamW([p], eps=-2), ValueError, r"\[AdamW\] eps .* came -2"),
        (lambda p: optim.NAdam([p], momentum_decay=-1), ValueError, "momentum_decay"),
        (lambda p: optim.Adadelta([p], rho=1.5), ValueError, "rho .* came 1.5"),
        (lambda p: optim.RMSprop([p], alpha=-1), ValueError, "alpha"),
        (lambda p: optim.Rprop([p], etas=(1.5, 1.2)), ValueError, "came 1.5 and 1.2"),
        (lambda p: optim.Adagrad([p], lr_decay=-1), ValueError, "lr_decay"),
        (lambda p: optim.ASGD([p], weight_decay=-1), ValueError, "weight_decay"),
        (lambda p: optim.Adafactor([p], d=0.5), ValueError, "d must be at least 1, came 0.5"),
        (lambda p: optim.Adafactor([p], beta2_decay=1), ValueError, "beta2_decay"),
        (lambda p: optim.Muon([parameter(3)]), ValueError, r"2-D, came float32\[3\]"),
        (lambda p: optim.Muon([p], adjust_lr_fn="x"), ValueError, "came 'x'"),
        (lambda p: optim.LBFGS([{"params": [p]}, {"params": [parameter(1)]}]), ValueError, "came 2 groups"),
        (lambda p: optim.LBFGS([p], line_search_fn="armijo"), RuntimeError, "came 'armijo'"),
        (lambda p: optim.LBFGS([p]).step(), TypeError, "closure"),
        (lambda p: optim.Adam([p], fused=True, foreach=True), RuntimeError, "fused and foreach"),
        (lambda p: optim.Adam([p], differentiable=True), RuntimeError, "differentiable must be False"),
    ],
)
def test_mistakes(make: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make(parameter(2, 2))


def test_a_parameter_named_twice_is_warned_about_and_updated_once() -> None:
    p = parameter(3)
    with pytest.warns(UserWarning, match="2 parameters of which 1 are different"):
        optimizer = optim.SGD([p, p], lr=1.0)
    before = p.array.copy()
    optimizer.step()
    np.testing.assert_array_equal(p.array, before - p.grad.array)


def test_signatures_that_scripts_look_at() -> None:
    assert "fused" in inspect.signature(optim.AdamW).parameters
    for name in ("SGD", "Adam", "AdamW"):
        getattr(optim, name)([parameter(2)], lr=0.1, foreach=True)
        getattr(optim, name)([parameter(2)], lr=0.1, fused=True)
    optim.Adam([parameter(2)], capturable=True).step()


def test_repr_lists_the_options_in_order() -> None:
    lines = repr(optim.SGD([parameter(2)], lr=0.1)).splitlines()
    assert lines[:2] == ["SGD (", "Parameter Group 0"] and lines[-1] == ")"
    assert "    lr: 0.1" in lines and lines[2:-1] == sorted(lines[2:-1])


def test_every_name_is_there() -> None:
    for name in optim.__all__:
        assert getattr(optim, name) is not None
    with pytest.raises(AttributeError, match="Sgd"):
        _ = optim.Sgd


# ---- gradients


def test_zero_grad() -> None:
    p, q = parameter(3), parameter(2)
    q.grad = None
    optimizer = optim.SGD([p, q], lr=0.1)
    held = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is held and held.tolist() == [0.0] * 3 and q.grad is None
    optimizer.zero_grad()
    assert p.grad is None
    (p**3).sum().backward(create_graph=True)
    assert p.grad.requires_grad
    optimizer.zero_grad(set_to_none=False)
    assert not p.grad.requires_grad and p.grad.tolist() == [0.0] * 3


def test_the_closure_runs_with_gradients_on() -> None:
    p = parameter(3)
    optimizer = optim.SGD([p], lr=0.1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    before = p.array.copy()
    with rg.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == pytest.approx(float((before**2).sum()))
    np.testing.assert_allclose(p.array, 0.8 * before, rtol=1e-6)


# ---- subclasses and hooks


class Plain(optim.Optimizer):
    """As scripts write their own."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @rg.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                p.add_(p.grad, alpha=-group["lr"])


class Loud(Plain):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize("cls", [Plain, Loud, optim.SGD, optim.AdamW])
def test_hooks_run_once_around_a_step(cls: Any) -> None:
    p = parameter(2)
    optimizer = cls([p], lr=0.5)
    seen: list[str] = []
    before = p.array.copy()
    handles = [
        optimizer.register_step_pre_hook(lambda o, args, kw: seen.append("pre")),
        optimizer.register_step_post_hook(lambda o, args, kw: seen.append("post")),
        optim.optimizer.register_optimizer_step_pre_hook(lambda o, args, kw: seen.append("all pre")),
        optim.optimizer.register_optimizer_step_post_hook(lambda o, args, kw: seen.append("all post")),
    ]
    optimizer.step()
    assert seen == ["all pre", "pre", "post", "all post"]
    assert not np.array_equal(p.array, before)
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert len(seen) == 4


def test_a_pre_hook_may_change_the_arguments() -> None:
    p = parameter(2)
    optimizer = optim.SGD([p], lr=0.1)
    optimizer.register_step_pre_hook(lambda o, args, kw: ((lambda: 7,), {}))
    assert optimizer.step() == 7
    optimizer.register_step_pre_hook(lambda o, args, kw: 3)
    with pytest.raises(RuntimeError, match="came 3"):
        optimizer.step()


def test_an_optimizer_without_step_says_so() -> None:
    class Empty(optim.Optimizer):
        pass

    with pytest.raises(NotImplementedError, match=r"\[Empty\]"):
        Empty([parameter(1)], {}).step()


# ---- state


@pytest.mark.parametrize("name", ALL)
def test_a_loaded_state_goes_on_as_if_never_saved(name: str) -> None:
    params = [parameter(4, 3), parameter(5, seed=6)]
    optimizer = getattr(optim, name)(params, lr=0.1)
    for _ in range(3):
        optimizer.step()
    others = copies(params)
    other = getattr(optim, name)(others, lr=0.7)
    saved = copy.deepcopy(optimizer.state_dict())
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.1
    for _ in range(3):
        optimizer.step()
        other.step()
    equal(others, params)
    again = copy.deepcopy(saved)
    third = getattr(optim, name)(copies(params), lr=0.7)
    third.load_state_dict(again)  # what was loaded before is still what it was
    for i, held in saved["state"].items():
        for key, value in held.items():
            np.testing.assert_array_equal(third.state_dict()["state"][i][key].array, value.array)


def test_state_is_cast_to_the_parameter_but_not_the_step_count() -> None:
    p, q = parameter(3), parameter(3, dtype=np.float64)
    one, other = optim.Adam([p]), optim.Adam([q])
    one.step()
    other.load_state_dict(one.state_dict())
    assert other.state[q]["exp_avg"].dtype == rg.float64 and other.state[q]["step"].dtype == rg.float32
    other.step()
    assert other.state[q]["step"].item() == 2


def test_step_counts_that_are_numbers_are_taken() -> None:
    p = parameter(3)
    optimizer = optim.Adam([p])
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["step"] = 5
    optimizer.load_state_dict(state)
    optimizer.step()
    assert optimizer.state[p]["step"].item() == 6


def test_states_that_do_not_fit() -> None:
    optimizer = optim.Adam([parameter(2), parameter(3)])
    with pytest.raises(ValueError, match=r"must have \[2\] parameters, came groups with \[1\]"):
        optimizer.load_state_dict(optim.Adam([parameter(2)]).state_dict())
    with pytest.raises(ValueError, match=r"came groups with \[1, 1\]"):
        optimizer.load_state_dict(
            optim.Adam([{"params": [parameter(2)]}, {"params": [parameter(2)]}]).state_dict()
        )


def test_adamw_keeps_its_kind_of_decay_when_it_loads_adam() -> None:
    optimizer = optim.AdamW([parameter(2)])
    optimizer.load_state_dict(optim.Adam([parameter(2)]).state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


def test_state_dict_hooks() -> None:
    optimizer = optim.SGD([parameter(2)], lr=0.1)
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("second"))
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("first"), prepend=True)
    optimizer.register_state_dict_post_hook(lambda o, d: d | {"extra": 1})
    optimizer.register_load_state_dict_pre_hook(
        lambda o, d: d | {"param_groups": [{**d["param_groups"][0], "lr": 9.0}]}
    )
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    state = optimizer.state_dict()
    assert state["extra"] == 1
    optimizer.load_state_dict(state)
    assert seen == ["first", "second", "loaded"] and optimizer.param_groups[0]["lr"] == 9.0


def test_an_optimizer_can_be_copied_with_its_parameters() -> None:
    params = [parameter(3), parameter(4, seed=2)]
    optimizer = optim.Adam(params, lr=0.1)
    optimizer.step()
    twins, twin = copy.deepcopy((params, optimizer))
    assert twin.param_groups[0]["params"][0] is twins[0]
    for p, q in zip(twins, params):
        p.grad = q.grad.clone()
    optimizer.step()
    twin.step()
    equal(twins, params)


def test_saved_to_a_file_and_back(tmp_path: Any) -> None:
    p = parameter(3)
    optimizer = optim.AdamW([p], lr=0.1)
    optimizer.step()
    rg.save(optimizer.state_dict(), tmp_path / "state.pt")
    (q,) = copies([p])
    other = optim.AdamW([q])
    other.load_state_dict(rg.load(tmp_path / "state.pt"))
    optimizer.step()
    other.step()
    equal([q], [p])
