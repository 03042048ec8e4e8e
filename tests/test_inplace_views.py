"""Writing in place under autograd: views, bases, chains of both, what is forbidden; beside PyTorch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringgrad as rg

try:
    import torch
except ImportError:
    torch = None


def leaf(m: Any, *shape: int, start: float = 1.0) -> Any:
    values = start + np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape) / 4
    return m.tensor(values, requires_grad=True)


def set_item(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y[0] = w[0]
    return y * y


def set_number(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y[:, 1] = 3.0
    return y * y


def set_broadcast(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y[:, 1:] = w[0, 0]
    return y * w


def set_with_indices(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y[m.tensor([1, 0]), m.tensor([2, 0])] = w[0, :2] * 3
    return y * y


def set_with_mask(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y[x > 1.6] = w[0, 0]
    return y * y


def multiply_a_view(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y[:, 1].mul_(w[:, 0])
    return y * y


def read_a_view_after_its_base_changed(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    v = y[0]
    y.mul_(w)
    return v * v


def read_a_base_after_its_view_changed(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    v = y.t()[1]
    v.add_(w[:, 0])
    return y * w


def views_of_views(m: Any, x: Any, w: Any) -> Any:
    y = x * 1
    a = y.view(3, 2)
    b = a.t()
    c = b[1:, :2]
    c.mul_(w[:1, :2])
    return y * w + a.sum() + b.sum() * 2 + c.sum() * 3


def two_views_that_overlap(m: Any, x: Any, w: Any) -> Any:
    y = x * 1
    a, b = y[:, :2], y[:, 1:]
    a.mul_(w[:, :2])
    b.add_(w[:, 1:] * 5)
    a.mul_(2)
    return y * y


def in_place_of_in_place(m: Any, x: Any, w: Any) -> Any:
    y = x * 1
    y.add_(w).mul_(w).sub_(x).div_(2)
    return y * w


def copy_into_a_view(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y.narrow(1, 1, 2).copy_(w[:, :2] * 3)
    return y * x


def fill_a_view(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y.select(0, 1).zero_()
    y[0, 0:1].fill_(7.0)
    return y * w


def write_into_a_constant(m: Any, x: Any, w: Any) -> Any:
    y = m.zeros(2, 3, dtype=m.float64)
    v = y[0]
    y[0] = x[0] * w[1]
    y[1].add_(w[0])
    return y * y + v


def functions_in_place(m: Any, x: Any, w: Any) -> Any:
    y = x * w
    y[0].sin_()
    y[1].log_()
    y[:, 2].square_()
    y.sqrt_()
    return y * (x * w).tanh_() + (x - w).sigmoid_() * (x / w).exp_()


def operators_in_place(m: Any, x: Any, w: Any) -> Any:
    y = x * 1
    y += w
    y *= x
    y[0] -= 2
    y[:, 1] /= w[:, 1]
    y **= 2
    return y


def squeeze_and_expand(m: Any, x: Any, w: Any) -> Any:
    y = x * 1
    y.unsqueeze(0).squeeze(0).unsqueeze(-1).mul_(w.unsqueeze(-1))
    return y.expand(2, 2, 3) * w


def diagonal_of_a_view(m: Any, x: Any, w: Any) -> Any:
    y = x * 1
    y.diagonal().mul_(m.stack([w[0, 0], w[1, 1]]))
    return y * y


def clamp_and_mask(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y.clamp_(2.6, 4.1)
    y[0].masked_fill_(w[0] > 2.1, 9.0)
    return y * w


def add_scaled(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    y.add_(w, alpha=3).sub_(x, alpha=2).addcmul_(x, w, value=0.5).addcdiv_(w, x, value=2).lerp_(w, 0.25)
    return y * y


def a_view_that_outlives_its_base(m: Any, x: Any, w: Any) -> Any:
    v = (x * 2)[1]
    v.mul_(w[0])
    return v * v


def detach_in_between(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    d = y.detach() * w.detach()
    y[0] = 5.0
    return y * d


def a_view_made_under_no_grad_of_a_write(m: Any, x: Any, w: Any) -> Any:
    y = x * 2
    with m.no_grad():
        y.add_(1)
    return y + w


def a_loop_like_a_recurrence(m: Any, x: Any, w: Any) -> Any:
    state = m.zeros(4, 3, dtype=m.float64)
    for t in range(3):
        state[t + 1] = (state[t].clone() * w[0] + x[t % 2]).tanh()
    return state


PROGRAMS = [
    set_item,
    set_number,
    set_broadcast,
    set_with_indices,
    set_with_mask,
    multiply_a_view,
    read_a_view_after_its_base_changed,
    read_a_base_after_its_view_changed,
    views_of_views,
    two_views_that_overlap,
    in_place_of_in_place,
    copy_into_a_view,
    fill_a_view,
    write_into_a_constant,
    functions_in_place,
    operators_in_place,
    squeeze_and_expand,
    diagonal_of_a_view,
    clamp_and_mask,
    add_scaled,
    a_view_that_outlives_its_base,
    detach_in_between,
    a_view_made_under_no_grad_of_a_write,
    a_loop_like_a_recurrence,
]


def run(m: Any, program: Any) -> list[np.ndarray[Any, Any]]:
    x, w = leaf(m, 2, 3), leaf(m, 2, 3, start=2.0)
    y = program(m, x, w)
    loss = (y * y.detach().cos()).sum()
    loss.backward()
    return [
        y.detach().numpy().copy(),
        *(np.zeros((2, 3)) if t.grad is None else t.grad.numpy() for t in (x, w)),
    ]


@pytest.mark.parity
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_programs_beside_pytorch(program: Any) -> None:
    if torch is None:
        pytest.skip("torch is not installed")
    for ours, theirs in zip(run(rg, program), run(torch, program), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, err_msg=program.__name__)


# Not functions of x and w alone as differences see them: they cut the graph.
CUT = {detach_in_between, a_view_made_under_no_grad_of_a_write}


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p not in CUT], ids=lambda p: p.__name__)
def test_programs_beside_differences(program: Any) -> None:
    """Needs no PyTorch: gradients and their gradients against finite differences."""
    x, w = leaf(rg, 2, 3), leaf(rg, 2, 3, start=2.0)
    assert rg.autograd.gradcheck(lambda a, b: program(rg, a, b), (x, w))
    assert rg.autograd.gradgradcheck(lambda a, b: program(rg, a, b), (x, w), fast_mode=True)


def test_by_hand() -> None:
    x = rg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    y[1] = 10.0
    y[2:].mul_(3)
    (y * y).sum().backward()
    # y = (2, 10, 18): dy0/dx0 = 2, dy1/dx1 = 0, dy2/dx2 = 6
    np.testing.assert_array_equal(y.detach().numpy(), [2.0, 10.0, 18.0])
    np.testing.assert_array_equal(x.grad.numpy(), [8.0, 0.0, 216.0])


def test_names_of_the_graph() -> None:
    y = leaf(rg, 2, 3) * 2
    v = y[0]
    v.mul_(2)
    assert y.grad_fn.name() == "CopySlices"
    assert v.grad_fn is not None and v.requires_grad
    assert v._is_view_of is y


# ---- what is forbidden


def forbidden(m: Any) -> list[tuple[str, Any]]:
    x = leaf(m, 4)
    y = x * 2
    return [
        ("leaf", lambda: x.add_(1)),
        ("leaf setitem", lambda: x.__setitem__(0, 1.0)),
        ("view of a leaf", lambda: x[0].mul_(2)),
        ("view of a view of a leaf", lambda: x.view(2, 2)[0].mul_(2)),
        ("split", lambda: y.split(2)[0].mul_(2)),
        ("unbind", lambda: y.unbind()[0].mul_(2)),
        ("view of a part", lambda: y.split(2)[0][0:1].mul_(2)),
        ("chunk", lambda: y.chunk(2)[1].add_(1)),
        ("expanded", lambda: (x[:1] * 2).expand(4).mul_(2)),
    ]


@pytest.mark.parametrize("i", range(9))
def test_forbidden_writes(i: int) -> None:
    _, call = forbidden(rg)[i]
    with pytest.raises(RuntimeError, match=r"^\["):
        call()
    if torch is not None:
        with pytest.raises(RuntimeError):
            forbidden(torch)[i][1]()


def test_under_no_grad_all_of_it_is_allowed() -> None:
    x = leaf(rg, 4)
    with rg.no_grad():
        x.add_(1)
        x[0] = 7.0
        x.view(2, 2)[1].mul_(2)
        x.split(2)[0].add_(1)
    assert x.is_leaf and x.requires_grad
    np.testing.assert_allclose(x.detach().numpy(), [8.0, 3.25, 5.0, 5.5])


def test_a_part_may_be_written_when_nothing_is_recorded() -> None:
    y = rg.zeros(4)
    y.split(2)[0].add_(1)
    np.testing.assert_array_equal(y.numpy(), [1, 1, 0, 0])


def test_an_integer_result_cannot_take_floats() -> None:
    x = rg.arange(3)
    with pytest.raises(RuntimeError, match="cannot be cast"):
        x.mul_(1.5)
    with pytest.raises(RuntimeError, match="must have the tensor's shape"):
        rg.zeros(2).add_(rg.zeros(3, 2))
    x.mul_(2)
    np.testing.assert_array_equal(x.numpy(), [0, 2, 4])


# ---- versions


def test_views_and_detach_share_the_version_data_does_not() -> None:
    x = leaf(rg, 2, 2)
    y = x * 2
    before = y._version[0]
    y[0].mul_(2)
    assert y._version[0] == before + 1
    y.detach().add_(1)
    assert y._version[0] == before + 2
    y.data.add_(1)
    assert y._version[0] == before + 2
    y.t().zero_()
    assert y._version[0] == before + 3


def test_a_write_through_detach_is_noticed_through_data_is_not() -> None:
    x = leaf(rg, 2)
    y = x * 2
    z = y * y
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="must not be overwritten"):
        z.sum().backward()
    y = x * 2
    z = y * y
    y.data.zero_()
    z.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.0, 0.0])


def test_a_write_through_a_view_is_noticed() -> None:
    x = leaf(rg, 2)
    y = x * 2
    z = y * y
    y[0:1].add_(1)
    with pytest.raises(RuntimeError, match=r"\[mul\] what backward needs must not be overwritten"):
        z.sum().backward()


def test_a_write_to_the_base_is_noticed_by_what_a_view_saved() -> None:
    x = leaf(rg, 2)
    y = x * 2
    v = y[0]
    z = v * v
    y.add_(1)
    with pytest.raises(RuntimeError, match="must not be overwritten"):
        z.backward()


def test_in_place_functions_that_need_their_result() -> None:
    """exp_ saves its output, which a later write spoils, an earlier one not."""
    x = leaf(rg, 3)
    y = (x * 1).exp_()
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp(x.detach().numpy()))
    y = (x * 1).exp_()
    y.add_(1)
    with pytest.raises(RuntimeError, match="must not be overwritten"):
        y.sum().backward()


# ---- random programs

VIEWS: list[Any] = [
    lambda t: t[0:1],
    lambda t: t[..., 0:2],
    lambda t: t[..., 1:],
    lambda t: t.transpose(0, -1),
    lambda t: t.unsqueeze(0),
    lambda t: t.narrow(0, 0, 1),
    lambda t: t[-1:],
    lambda t: t[..., ::2],
    lambda t: t.permute(*range(t.ndim)[::-1]),
]


def write(m: Any, kind: int, t: Any, other: Any) -> None:
    value = other.sum() * 0.1
    if kind == 0:
        t.mul_(value)
    elif kind == 1:
        t.add_(value)
    elif kind == 2:
        t[0] = value
    elif kind == 3:
        t.copy_(value.expand(t.shape))
    elif kind == 4:
        t.zero_()
    elif kind == 5:
        t.sub_(t.clone() * value)
    elif kind == 6:
        t.sin_()
    else:
        t[..., -1].add_(value)


step = st.tuples(
    st.sampled_from(["view", "write", "op"]), st.integers(0, 7), st.integers(0, 7), st.integers(0, 7)
)


def play(m: Any, program: list[tuple[str, int, int, int]]) -> list[np.ndarray[Any, Any]]:
    x, w = leaf(m, 2, 3), leaf(m, 2, 3, start=0.3)
    pool = [x * 1.0, w.sin()]
    for what, kind, i, j in program:
        t, other = pool[i % len(pool)], pool[j % len(pool)]
        if what == "view" and t.ndim < 4:
            pool.append(VIEWS[kind % len(VIEWS)](t))
        elif what == "write":
            write(m, kind, t, other.clone())
        else:
            pool.append((t.clone() * 0.5).cos() + other.clone().sum() * 0.1)
    loss = sum((t.clone() * t.clone().cos()).sum() for t in pool)
    loss.backward()
    return [t.detach().numpy().copy() for t in pool] + [x.grad.numpy(), w.grad.numpy()]


@pytest.mark.parity
@settings(max_examples=150)
@given(st.lists(step, min_size=2, max_size=9))
def test_random_programs_are_pytorchs(program: list[tuple[str, int, int, int]]) -> None:
    if torch is None:
        pytest.skip("torch is not installed")
    try:
        theirs = play(torch, program)
    except RuntimeError:
        with pytest.raises(RuntimeError, match=r"^\["):
            play(rg, program)
        return
    for a, b in zip(play(rg, program), theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
