"""The engine: graphs, hooks, modes, memory, higher orders, errors."""

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import autograd
from ringgrad.autograd import functional


def leaf(*values: float) -> Any:
    return rg.tensor(list(values), dtype=rg.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def mode_is_left_as_it_was() -> Iterator[None]:
    yield
    left = rg.is_grad_enabled()
    rg.set_grad_enabled(True)
    assert left


# ---- what backward computes


def test_gradients_of_a_dynamic_graph() -> None:
    x = leaf(1.0, 2.0, 3.0)
    for n in range(1, 5):  # another graph each time
        x.grad = None
        y = x
        for _ in range(n):
            y = y * x
        y.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), (n + 1) * x.detach().numpy() ** n)


def test_gradients_accumulate() -> None:
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    assert x.grad is first
    np.testing.assert_array_equal(x.grad.numpy(), [5.0, 7.0])


def test_a_shared_tensor_gets_all_its_contributions_once() -> None:
    x = leaf(2.0)
    calls = []
    h = x * x
    h.register_hook(lambda g: calls.append(g.item()))
    (h + h * h + h.exp()).sum().backward()
    want = 1 + 2 * 4 + np.exp(4)
    np.testing.assert_allclose(calls, [want])
    np.testing.assert_allclose(x.grad.numpy(), [want * 4])


def test_a_leaf_can_be_the_root() -> None:
    x = leaf(1.0)
    x.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1.0])
    x.backward(rg.tensor([3.0], dtype=rg.float64))
    np.testing.assert_array_equal(x.grad.numpy(), [4.0])
    autograd.backward([x, x * 2], [None, None])
    np.testing.assert_array_equal(x.grad.numpy(), [7.0])


def test_several_roots_and_weights() -> None:
    x = leaf(1.0, 2.0)
    a, b = x * 2, x * x
    autograd.backward(
        [a, b], [rg.tensor([1.0, 10.0], dtype=rg.float64), rg.tensor([1.0, 1.0], dtype=rg.float64)]
    )
    np.testing.assert_array_equal(x.grad.numpy(), [4.0, 24.0])


def test_backward_of_outputs_of_one_node() -> None:
    x = leaf(1.0, 2.0, 3.0, 4.0)
    a, b = x.split(2)
    (a * 2).sum().backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2, 0, 0])
    (b * b).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2, 6, 8])
    first, second = autograd.grad((x.unbind()[1] * 5), x)[0], None
    assert second is None
    np.testing.assert_array_equal(first.numpy(), [0, 5, 0, 0])


def test_retain_graph_and_a_second_backward() -> None:
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [12.0])
    with pytest.raises(RuntimeError, match=r"second time.*retain_graph"):
        y.backward()


def test_errors_of_backward() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"one element only, came shape \[2\]"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match=r"shape \[2\], came \[3\]"):
        (x * 2).backward(rg.zeros(3, dtype=rg.float64))
    with pytest.raises(RuntimeError, match="must require grad"):
        rg.zeros(1).backward()
    with pytest.raises(RuntimeError, match="must require grad"), rg.no_grad():
        y = x * 2
        y.sum().backward()
    with pytest.raises(RuntimeError, match="one gradient a tensor"):
        autograd.backward([x.sum(), x.sum()], [None])


def test_backward_into_chosen_inputs() -> None:
    x, y = leaf(1.0), leaf(2.0)
    (x * y).sum().backward(inputs=[x])
    np.testing.assert_array_equal(x.grad.numpy(), [2.0])
    assert y.grad is None


def test_grad_leaves_grad_alone() -> None:
    x, y = leaf(2.0), leaf(3.0)
    gx, gy = autograd.grad((x * y).sum(), (x, y))
    assert (gx.item(), gy.item(), x.grad, y.grad) == (3.0, 2.0, None, None)
    assert not gx.requires_grad


def test_grad_of_a_tensor_inside_the_graph() -> None:
    x = leaf(2.0)
    h = x * x
    z = (h * h * x).sum()
    gh, gx = autograd.grad(z, (h, x))
    assert (gh.item(), gx.item()) == (16.0, 80.0)
    (same,) = autograd.grad(h, h, rg.tensor([5.0], dtype=rg.float64), retain_graph=True)
    assert same.item() == 5.0


def test_grad_of_one_output_of_a_node() -> None:
    x = leaf(1.0, 2.0, 3.0)
    a, b, c = x.unbind()
    z = a * b * b + c
    ga, gb, gc_ = autograd.grad(z, (a, b, c))
    assert (ga.item(), gb.item(), gc_.item()) == (4.0, 4.0, 1.0)


def test_unused_inputs() -> None:
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="input 1 that was not"):
        autograd.grad(x.sum(), (x, y))
    assert autograd.grad(x.sum(), (x, y), allow_unused=True)[1] is None
    assert autograd.grad(x.sum(), (x, y), materialize_grads=True)[1].item() == 0.0
    with pytest.raises(RuntimeError, match="input 0 that does not"):
        autograd.grad(x.sum(), rg.zeros(1))


# ---- higher orders


def test_third_derivative() -> None:
    x = leaf(0.5, 1.5)
    y = (x**4 + x.sin()).sum()
    values = x.detach().numpy()
    for want in (
        4 * values**3 + np.cos(values),
        12 * values**2 - np.sin(values),
        24 * values - np.cos(values),
    ):
        (g,) = autograd.grad(y, x, create_graph=True)
        np.testing.assert_allclose(g.detach().numpy(), want)
        y = g.sum()


def test_create_graph_in_backward() -> None:
    x = leaf(2.0)
    (x**3).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    first = x.grad
    x.grad = None
    first.sum().backward()
    assert x.grad.item() == 12.0


def test_gradient_penalty() -> None:
    w, x = leaf(1.0, -2.0), leaf(3.0, 0.5)
    (g,) = autograd.grad((w * x).tanh().sum(), x, create_graph=True)
    (g * g).sum().backward()
    a, b = w.detach().numpy(), x.detach().numpy()
    t = np.tanh(a * b)
    s = 1 - t * t
    np.testing.assert_allclose(w.grad.numpy(), 2 * (s * a) * (s - 2 * a * b * t * s))


def test_functional_derivatives() -> None:
    x, w = leaf(1.0, 2.0), rg.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=rg.float64)
    jacobian = functional.jacobian(lambda t: w @ (t * t), x)
    np.testing.assert_allclose(jacobian.numpy(), w.numpy() * 2 * x.detach().numpy())
    hessian = functional.hessian(lambda t: (t**3).sum() + t[0] * t[1], x)
    np.testing.assert_allclose(hessian.numpy(), [[6.0, 1.0], [1.0, 12.0]])
    v = rg.tensor([1.0, -1.0], dtype=rg.float64)
    out, along = functional.jvp(lambda t: w @ (t * t), x, v)
    np.testing.assert_allclose(along.numpy(), jacobian.numpy() @ v.numpy())
    _, back = functional.vjp(lambda t: w @ (t * t), x, v)
    np.testing.assert_allclose(back.numpy(), v.numpy() @ jacobian.numpy())
    for product in (functional.hvp, functional.vhp):
        _, found = product(lambda t: (t**3).sum() + t[0] * t[1], x, v)
        np.testing.assert_allclose(found.numpy(), hessian.numpy() @ v.numpy())
        assert not found.requires_grad
    assert not out.requires_grad


def test_functional_with_graph_and_strict() -> None:
    x = leaf(1.0, 2.0)
    functional.jacobian(lambda t: t**3, x, create_graph=True).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [6.0, 12.0])
    zero = functional.jacobian(lambda t: rg.ones(2, dtype=rg.float64), x)
    np.testing.assert_array_equal(zero.numpy(), np.zeros((2, 2)))
    with pytest.raises(RuntimeError, match="strict=True"):
        functional.jacobian(lambda t: rg.ones(2, dtype=rg.float64), x, strict=True)
    with pytest.raises(RuntimeError, match=r"one Tensor of one element, came \[2\]"):
        functional.hessian(lambda t: t * 2, x)
    with pytest.raises(RuntimeError, match="must have the shapes"):
        functional.jvp(lambda t: t * 2, x, rg.zeros(3))
    with pytest.raises(TypeError, match="came list"):
        functional.vjp(lambda t: [[t]], x)


def test_functional_of_several_inputs_and_outputs() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0)
    found = functional.jacobian(lambda a, b: (a * b, a.sum()), (x, y))
    assert [[tuple(g.shape) for g in row] for row in found] == [[(2, 2), (2, 1)], [(2,), (1,)]]
    np.testing.assert_allclose(found[0][1].numpy(), [[1.0], [2.0]])
    hessian = functional.hessian(lambda a, b: (a * a * b).sum(), (x, y))
    np.testing.assert_allclose(hessian[0][1].numpy(), [[2.0], [4.0]])
    np.testing.assert_allclose(hessian[1][1].numpy(), [[0.0]])


class WrongSquare(autograd.Function):
    """x^2 whose gradient is 3x."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.saved_tensors[0] * 3


@pytest.mark.parametrize("fast", [False, True])
def test_gradcheck_finds_a_wrong_gradient(fast: bool) -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"input 0 for output 0.*numerical"):
        autograd.gradcheck(WrongSquare.apply, x, fast_mode=fast)
    assert not autograd.gradcheck(WrongSquare.apply, x, fast_mode=fast, raise_exception=False)
    assert autograd.gradcheck(lambda t: t * t, x, fast_mode=fast)


def test_gradcheck_names_the_entry() -> None:
    with pytest.raises(
        RuntimeError, match=r"first at input element \[0\], output element 0.*numerical 2, analytical 3"
    ):
        autograd.gradcheck(WrongSquare.apply, leaf(1.0, 2.0))


def test_gradgradcheck_finds_a_wrong_second_gradient() -> None:
    class Once(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x = ctx.saved_tensors[0]
            return g * (3 * x.detach() * x)

    assert autograd.gradcheck(Once.apply, leaf(1.0, 2.0))
    assert not autograd.gradgradcheck(Once.apply, leaf(1.0, 2.0), raise_exception=False)
    assert autograd.gradgradcheck(lambda x: x**3, leaf(1.0, 2.0))


def test_gradcheck_refuses_what_it_cannot_check() -> None:
    with pytest.raises(ValueError, match="at least one input must require grad"):
        autograd.gradcheck(lambda x: x, rg.zeros(1, dtype=rg.float64))
    with pytest.raises(ValueError, match="check_forward_ad must be False"):
        autograd.gradcheck(lambda x: x, leaf(1.0), check_forward_ad=True)
    with pytest.raises(RuntimeError, match="must not share memory"):
        autograd.gradcheck(lambda x: x, rg.ones(1, dtype=rg.float64).expand(3).requires_grad_())
    with pytest.warns(UserWarning, match="should be float64"):
        autograd.gradcheck(lambda x: x * 2, rg.ones(1, requires_grad=True), eps=1e-2)
    with pytest.raises(RuntimeError, match="depends on input 0 and must require grad"):
        autograd.gradcheck(lambda x: rg.tensor(x.detach().numpy() * 2), leaf(1.0))


# ---- hooks


def test_hooks_of_leaves_see_and_replace_gradients() -> None:
    x = leaf(1.0, 2.0)
    seen = []
    handle = x.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g * 10)
    (x * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [30.0, 30.0])
    handle.remove()
    (x * 3).sum().backward()
    assert seen == [[3.0, 3.0]]


def test_a_leafs_hook_runs_once_on_the_whole_gradient() -> None:
    x = leaf(2.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.item()))
    (x * x + x * 3 + x).sum().backward()
    assert seen == [8.0]


def test_hooks_inside_the_graph() -> None:
    x = leaf(1.0)
    h = x * 2
    handle = h.register_hook(lambda g: g + 1)
    (h * 3).sum().backward(retain_graph=True)
    assert x.grad.item() == 8.0
    handle.remove()
    x.grad = None
    (h * 3).sum().backward()
    assert x.grad.item() == 6.0


def test_hooks_of_outputs_of_one_node() -> None:
    x = leaf(1.0, 2.0)
    a, b = x.unbind()
    b.register_hook(lambda g: g * 100)
    (a * 3 + b * 4).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3.0, 400.0])


def test_hooks_apply_to_grad_too() -> None:
    x = leaf(1.0)
    h = x * 2
    h.register_hook(lambda g: g * 5)
    gh, gx = autograd.grad(h.sum(), (h, x))
    assert (gh.item(), gx.item()) == (5.0, 10.0)


def test_retain_grad() -> None:
    x = leaf(1.0)
    h = x * 2
    h.retain_grad()
    assert h.retains_grad
    assert not x.retains_grad
    (h * h).sum().backward()
    assert h.grad.item() == 4.0
    with pytest.raises(RuntimeError, match="must require grad"):
        rg.zeros(1).retain_grad()


def test_post_accumulate_hooks_fire_once_when_whole() -> None:
    """Each leaf's hook fires when its gradient is whole, before the rest of the graph is done."""
    x, w, v = leaf(1.0), leaf(2.0), leaf(3.0)
    order = []
    for name, t in (("x", x), ("w", w), ("v", v)):
        t.register_post_accumulate_grad_hook(lambda t, name=name: order.append((name, t.grad.item())))
    h = x * w
    ((h * v) * w + w).sum().backward()
    assert order[0] == ("v", 4.0)
    assert sorted(order) == [("v", 4.0), ("w", 13.0), ("x", 12.0)]
    ((x * w) * v).sum().backward()
    assert len(order) == 6


def test_post_accumulate_hooks_can_free_the_gradient() -> None:
    x = leaf(1.0)
    x.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", None))
    (x * 2).sum().backward()
    assert x.grad is None
    with pytest.raises(RuntimeError, match="must be a leaf"):
        (x * 2).register_post_accumulate_grad_hook(print)


def test_hooks_need_a_gradient() -> None:
    with pytest.raises(RuntimeError, match="must require grad"):
        rg.zeros(1).register_hook(print)


def test_backward_inside_a_hook() -> None:
    x, z = leaf(2.0), leaf(5.0)
    inner = []

    def hook(g: Any) -> None:
        with rg.enable_grad():  # backward itself is not recorded
            loss = (z * z).sum()
        loss.backward()
        inner.append(z.grad.item())

    h = x * x
    h.register_hook(hook)
    (h * 3).sum().backward()
    assert inner == [10.0]
    assert x.grad.item() == 12.0


def test_callbacks_at_the_end_of_backward() -> None:
    x, y = leaf(1.0), leaf(1.0)
    events = []
    x.register_hook(lambda g: autograd.queue_callback(done))
    y.register_hook(lambda g: events.append("y"))

    def done() -> None:
        events.append("end")

    (y * 1 + x).sum().backward()
    assert events == ["y", "end"]
    with pytest.raises(RuntimeError, match="from within a backward"):
        autograd.queue_callback(done)


# ---- modes


def test_no_grad_as_context_and_decorator() -> None:
    x = leaf(1.0)
    with rg.no_grad():
        assert not rg.is_grad_enabled()
        assert not (x * 2).requires_grad
        with rg.enable_grad():
            assert (x * 2).requires_grad
        assert not rg.is_grad_enabled()
    assert rg.is_grad_enabled()

    @rg.no_grad()
    def silent(t: Any) -> Any:
        return t * 2

    @rg.no_grad
    def bare(t: Any) -> Any:
        return t * 2

    assert not silent(x).requires_grad
    assert not bare(x).requires_grad
    assert silent.__name__ == "silent"
    assert rg.is_grad_enabled()


def test_modes_end_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), rg.no_grad():
        _ = 1 / 0
    assert rg.is_grad_enabled()


def test_a_decorated_generator_keeps_its_mode_to_itself() -> None:
    @rg.no_grad()
    def numbers() -> Iterator[bool]:
        yield rg.is_grad_enabled()
        yield rg.is_grad_enabled()

    seen = []
    for inside in numbers():
        seen.append((inside, rg.is_grad_enabled()))
    assert seen == [(False, True), (False, True)]


def test_set_grad_enabled() -> None:
    with rg.set_grad_enabled(False):
        assert not rg.is_grad_enabled()
    assert rg.is_grad_enabled()
    rg.set_grad_enabled(False)
    try:
        assert not rg.is_grad_enabled()
    finally:
        rg.set_grad_enabled(True)

    @rg.set_grad_enabled(False)
    def silent() -> bool:
        return rg.is_grad_enabled()

    assert rg.is_grad_enabled()
    assert not silent()


def test_inference_mode() -> None:
    x = leaf(1.0)
    with rg.inference_mode():
        assert rg.is_inference_mode_enabled()
        assert not (x * 2).requires_grad
        with rg.inference_mode(False):
            assert not rg.is_inference_mode_enabled()
    assert not rg.is_inference_mode_enabled()

    @rg.inference_mode()
    def silent() -> bool:
        return rg.is_inference_mode_enabled() and not rg.is_grad_enabled()

    assert silent()


def test_the_mode_belongs_to_the_thread() -> None:
    seen = []
    with rg.no_grad():
        thread = threading.Thread(target=lambda: seen.append(rg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_detach_and_data() -> None:
    x = leaf(1.0, 2.0)
    d = x.detach()
    assert not d.requires_grad
    assert np.shares_memory(d.array, x.array)
    (x * d).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1.0, 2.0])
    h = x * 2
    h.detach_()
    assert h.is_leaf and not h.requires_grad


def test_threads_run_their_own_backward() -> None:
    w = leaf(2.0)
    leaves = [leaf(float(i)) for i in range(8)]
    start = threading.Barrier(8)

    def work(x: Any) -> None:
        start.wait()
        for _ in range(50):
            x.grad = None
            y = x
            for _ in range(10):
                y = y * w
            autograd.grad(y.sum(), x, retain_graph=True)
            (y * x).sum().backward(inputs=[x])

    threads = [threading.Thread(target=work, args=(x,)) for x in leaves]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, x in enumerate(leaves):
        assert x.grad.item() == 2 * i * 2.0**10


# ---- memory


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_graph_dies_with_its_root(no_collector: None) -> None:
    x = leaf(1.0, 2.0)
    h = x.exp()
    y = (h * h).tanh().sum()
    dead = [weakref.ref(t) for t in (h, y, h.array, h._node, y._node)]
    del h
    assert dead[2]() is not None, "the graph keeps what it saved"
    del y
    assert [r() is None for r in dead] == [True] * 5


def test_backward_frees_what_was_saved(no_collector: None) -> None:
    x = leaf(1.0, 2.0)
    h = x.exp()
    array = weakref.ref(h.array)
    y = (h * 2).sum()
    del h
    assert array() is not None
    y.backward()
    assert array() is None
    assert y.requires_grad


def test_no_garbage_is_left(no_collector: None) -> None:
    """Forward, backward, views, in-place writes, hooks, Functions, higher orders: all without a cycle."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        x, w = leaf(1.0, 2.0, 3.0), leaf(0.5, 0.5, 0.5)
        for _ in range(3):
            h = (x * w).exp()
            h.retain_grad()
            v = h.clone()
            v[0] = w[1] * 2
            v[1:].mul_(2)
            a, b = v.split([1, 2])
            handle = v.register_hook(lambda g: g * 2)
            (WrongSquare.apply(a).sum() + b.sum() + h.sum()).backward()
            (g,) = autograd.grad((x**3).sum(), x, create_graph=True)
            g.sum().backward()
            handle.remove()
            x.grad = w.grad = None
        del h, v, a, b, g, handle
        gc.collect()
        ours = [o for o in gc.garbage if type(o).__module__.startswith("ringgrad")]
        assert not ours, f"cycles through {sorted({type(o).__name__ for o in ours})}"
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_intermediate_gradients_die_during_backward(no_collector: None) -> None:
    """A deep chain does not hold all of its gradients at once."""
    x = leaf(1.0)
    alive: list[weakref.ref[Any]] = []
    most = 0

    def watch(g: Any) -> None:
        nonlocal most
        alive.append(weakref.ref(g.array))
        most = max(most, sum(r() is not None for r in alive))

    y = x
    for _ in range(20):
        y = y.tanh()
        y.register_hook(watch)
    y.sum().backward()
    assert most <= 3


def test_gradients_share_no_memory() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    z = x + y
    seed = rg.ones(2, dtype=rg.float64)
    z.backward(seed)
    arrays = [x.grad.array, y.grad.array, seed.array]
    for i, a in enumerate(arrays):
        for b in arrays[i + 1 :]:
            assert not np.shares_memory(a, b)
    x.grad.add_(100)
    np.testing.assert_array_equal(y.grad.numpy(), [1.0, 1.0])


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sum(),
        lambda x: x.mean(),
        lambda x: x.expand(3, 2).sum(),
        lambda x: x.view(2, 1).sum(),
        lambda x: x.reshape(1, 2).clone().sum(),
        lambda x: x[0:1].sum() + x[1],
        lambda x: rg.cat([x, x]).sum(),
        lambda x: rg.stack([x, x]).sum(),
        lambda x: sum(x.unbind()),
        lambda x: x.t().sum(),
        lambda x: (x - x).sum(),
        lambda x: x.clone().fill_(2).sum() + x.sum(),
    ],
)
def test_gradients_can_be_written(call: Any) -> None:
    x = leaf(1.0, 2.0)
    call(x).backward()
    assert x.grad.array.flags.writeable and x.grad.array.flags.owndata
    assert x.grad.shape == x.shape
    x.grad.zero_()
    call(x).backward()


def test_gradients_are_not_what_was_saved() -> None:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x * w).sum().backward()
    x.grad.zero_()
    np.testing.assert_array_equal(w.detach().numpy(), [3.0, 4.0])


def test_deep_graphs(no_collector: None) -> None:
    x = leaf(1.0)
    y = x
    for _ in range(50_000):
        y = y + 1
    y.sum().backward()
    assert x.grad.item() == 1.0
    del y  # freed without a recursion too


def test_a_deep_graph_is_freed_without_backward(no_collector: None) -> None:
    y = leaf(1.0)
    for _ in range(50_000):
        y = y * 1.0
    node = weakref.ref(y._node)
    del y
    assert node() is None


def test_deep_graphs_of_second_order() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(3_000):
        y = y * 1.0
    (g,) = autograd.grad((y * y).sum(), x, create_graph=True)
    g.sum().backward()
    assert x.grad.item() == 2.0


# ---- errors that teach


def test_a_saved_tensor_that_was_overwritten() -> None:
    x = leaf(1.0, 2.0)
    h = x * 2
    y = h * h
    h.add_(1)
    with pytest.raises(
        RuntimeError,
        match=r"\[mul\].*must not be overwritten.*version 1.*last written by .*test_autograd.py:\d+",
    ):
        y.sum().backward()


def test_a_saved_output_that_was_overwritten() -> None:
    x = leaf(1.0, 2.0)
    y = x.exp()
    y.mul_(2)
    with pytest.raises(RuntimeError, match=r"\[exp\].*must not be overwritten"):
        y.sum().backward()
    y = x.tanh()
    with rg.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match=r"\[tanh\]"):
        y.sum().backward()


def test_a_saved_leaf_that_was_overwritten() -> None:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = (x * w).sum()
    with rg.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="must not be overwritten"):
        y.backward()


def test_overwriting_what_is_not_saved_is_fine() -> None:
    x = leaf(1.0, 2.0)
    h = x * 2
    y = h + 1  # saves nothing
    h.mul_(5)
    (y.sum() + h.sum()).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [12.0, 12.0])


def test_anomaly_mode_names_the_op_and_the_line() -> None:
    x = leaf(-1.0)
    with autograd.detect_anomaly():
        y = x.sqrt()  # the line that is named
        line = y.sum()
        with pytest.raises(RuntimeError, match=r"NaN from SqrtBackward0.*test_autograd.py:\d+"):
            line.backward()
    x.sqrt().sum().backward()  # silent again
    assert np.isnan(x.grad.item())


def test_integer_tensors_have_no_gradients() -> None:
    with pytest.raises(RuntimeError, match=r"floating or complex, came ringgrad\.int64"):
        rg.arange(3).requires_grad_()
    x = leaf(1.0, 2.0)
    assert not x.argmax().requires_grad
    assert not (x > 1).requires_grad
    assert not x.long().requires_grad
    values, indices = x.max(dim=0)
    assert values.requires_grad and not indices.requires_grad


def test_gradients_keep_their_leafs_dtype() -> None:
    x = rg.ones(2, requires_grad=True)
    (x * rg.ones(2, dtype=rg.float64)).sum().backward()
    assert x.grad.dtype is rg.float32
    h = rg.ones(2, dtype=rg.bfloat16, requires_grad=True)
    (h.float() * 3).sum().backward()
    assert h.grad.dtype is rg.bfloat16


def test_grad_fn_and_its_inputs() -> None:
    x = leaf(1.0)
    y = (x * 2).exp()
    assert y.grad_fn.name() == "ExpBackward0"
    (inner, _), *_ = y.grad_fn.next_functions
    assert inner.name() == "MulBackward0"
    (end, _), *_ = inner.next_functions
    assert end.name() == "AccumulateGrad"
    assert end.variable is x
    assert x.grad_fn is None and x.is_leaf and not y.is_leaf
    with pytest.raises(RuntimeError, match="leaves only"):
        y.requires_grad_(False)


# ---- beside PyTorch


@pytest.mark.parity
def test_a_small_network_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(s) for s in ((5, 3), (4, 3), (4,), (2, 4))]

    def run(m: Any) -> list[np.ndarray[Any, Any]]:
        x, w, b, v = (m.tensor(a, requires_grad=True) for a in arrays)
        h = (x @ w.t() + b).tanh()
        loss = (h @ v.t()).logsumexp(dim=1).mean() + (w * w).sum() * 0.1
        gw, gv = m.autograd.grad(loss, (w, v), create_graph=True)
        ((gw * gw).sum() + gv.sum() + loss).backward()
        return [t.grad.numpy() for t in (x, w, b, v)]

    for ours, theirs in zip(run(rg), run(torch)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


STEPS: list[Any] = [
    lambda m, a, b: a * b,
    lambda m, a, b: a + b,
    lambda m, a, b: a.sin() - b,
    lambda m, a, b: a / (b * b + 1),
    lambda m, a, b: m.cat([a, b])[1:3],
    lambda m, a, b: (a @ b.t()) @ a * 0.1,
    lambda m, a, b: a.softmax(dim=1) * b,
    lambda m, a, b: m.stack([a, b]).mean(dim=0),
    lambda m, a, b: m.where(a > b, a, b * 2),
    lambda m, a, b: a.sum(dim=0, keepdim=True) - b.amax(dim=1, keepdim=True),
]


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_pytorchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    steps = np.random.default_rng(seed).integers(0, 1000, (12, 3))

    def run(m: Any) -> list[np.ndarray[Any, Any]]:
        leaves = [
            m.tensor(np.linspace(0.3, 1.1, 6).reshape(2, 3) * (i + 1), requires_grad=True) for i in range(3)
        ]
        pool = list(leaves)
        for kind, i, j in steps:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            pool.append(STEPS[kind % 10](m, a, b))
        total = sum((t * t).mean() for t in pool[-4:])
        first = m.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
        again = sum((g * g).sum() for g in first if g is not None)
        again.backward()
        return [x.grad.numpy() if x.grad is not None else np.zeros(()) for x in leaves] + [
            g.detach().numpy() for g in first if g is not None
        ]

    with np.errstate(all="ignore"):
        for ours, theirs in zip(run(rg), run(torch), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
