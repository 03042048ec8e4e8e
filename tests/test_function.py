"""Custom Functions: what they keep, which gradients they give, errors."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.autograd import Function, grad, gradcheck, gradgradcheck, once_differentiable


def leaf(*values: float) -> Any:
    return rg.tensor(list(values), dtype=rg.float64, requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


class Exp(Function):
    """Saves its output."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (y,) = ctx.saved_tensors
        return g * y


class Product(Function):
    """x * y + number, in the newer form."""

    @staticmethod
    def forward(x: Any, y: Any, number: float) -> Any:
        return x * y + number

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, y, ctx.number = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, y = ctx.saved_tensors
        assert ctx.number == 2.5
        return g * y if ctx.needs_input_grad[0] else None, g * x if ctx.needs_input_grad[1] else None, None


def test_first_and_second_order() -> None:
    x = leaf(1.0, 2.0)
    for call in (Cube.apply, Exp.apply):
        assert gradcheck(call, x)
        assert gradgradcheck(call, x)
    y = Cube.apply(x)
    assert y.grad_fn.name() == "CubeBackward"
    (g,) = grad(y.sum(), x, create_graph=True)
    (h,) = grad(g.sum(), x, create_graph=True)
    (third,) = grad(h.sum(), x)
    np.testing.assert_allclose(h.detach().numpy(), [6.0, 12.0])
    np.testing.assert_allclose(third.numpy(), [6.0, 6.0])


def test_setup_context_and_arguments_that_are_no_tensors() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    assert gradcheck(lambda a, b: Product.apply(a, b, 2.5), (x, y))
    assert gradgradcheck(lambda a, b: Product.apply(a, b, 2.5), (x, y))


def test_needs_input_grad() -> None:
    seen = []

    class Watch(Product):
        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            seen.append(ctx.needs_input_grad)
            return Product.backward(ctx, g)

    x, y = leaf(1.0), leaf(2.0)
    Watch.apply(x, y.detach(), 2.5).backward()
    Watch.apply(x.detach(), y, 2.5).backward()
    assert seen == [(True, False, False), (False, True, False)]
    assert (x.grad.item(), y.grad.item()) == (2.0, 1.0)


def test_without_gradients_nothing_is_recorded() -> None:
    assert not Cube.apply(rg.ones(2)).requires_grad
    with rg.no_grad():
        assert not Cube.apply(leaf(1.0)).requires_grad


def test_forward_is_not_recorded() -> None:
    inside = []

    class Look(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            inside.append((rg.is_grad_enabled(), (x * 2).requires_grad))
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            inside.append((rg.is_grad_enabled(), g.requires_grad))
            return g * 2

    x = leaf(1.0)
    Look.apply(x).backward()
    grad(Look.apply(x), x, leaf(1.0), create_graph=True)
    assert inside == [(False, False), (False, False), (False, False), (True, True)]


class SumAndDifference(Function):
    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        return x + y, x - y

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        return g + h, g - h


def test_several_outputs() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    a, b = SumAndDifference.apply(x, y)
    (a * b).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy())
    np.testing.assert_allclose(y.grad.numpy(), -2 * y.detach().numpy())
    assert gradcheck(SumAndDifference.apply, (x, y))
    assert gradgradcheck(SumAndDifference.apply, (x, y))


def test_an_output_without_a_gradient_gives_zeros() -> None:
    x, y = leaf(1.0), leaf(2.0)
    a, _ = SumAndDifference.apply(x, y)
    a.backward()
    assert (x.grad.item(), y.grad.item()) == (1.0, 1.0)


def test_or_none_where_zeros_are_not_wanted() -> None:
    seen = []

    class Raw(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            seen.append((g is None, h is None))
            return h * 2

    x = leaf(1.0)
    Raw.apply(x)[1].backward()
    assert seen == [(True, False)]


def test_non_differentiable_outputs() -> None:
    class SortLike(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            mask = (x > 1).to(x.dtype)
            index = x.argmax()
            ctx.mark_non_differentiable(mask, index)
            ctx.save_for_backward(mask)
            return x * mask, mask, index

        @staticmethod
        def backward(ctx: Any, g: Any, unused: Any, other: Any) -> Any:
            return g * ctx.saved_tensors[0]

    x = leaf(0.5, 2.0)
    y, mask, index = SortLike.apply(x)
    assert (y.requires_grad, mask.requires_grad, index.requires_grad) == (True, False, False)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.0, 1.0])


class Double_(Function):
    """Doubles in place."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        with rg.no_grad():
            x.mul_(2)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2


def test_mark_dirty() -> None:
    x = leaf(1.0, 2.0)
    h = x * 3
    y = Double_.apply(h)
    assert y is h
    (h * h).sum().backward()
    np.testing.assert_array_equal(h.detach().numpy(), [6.0, 12.0])
    np.testing.assert_array_equal(x.grad.numpy(), [72.0, 144.0])


def test_a_dirty_tensor_that_was_saved_is_noticed() -> None:
    x = leaf(1.0, 2.0)
    h = x * 3
    z = h * h
    Double_.apply(h)
    with pytest.raises(RuntimeError, match="must not be overwritten"):
        z.sum().backward()


def test_an_input_handed_through_is_another_tensor() -> None:
    class Same(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 5

    x = leaf(1.0)
    y = Same.apply(x)
    assert y is not x and x.is_leaf and not y.is_leaf
    y.backward()
    assert x.grad.item() == 5.0


def test_once_differentiable() -> None:
    class Once(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            assert not rg.is_grad_enabled()
            return g * 2 * ctx.saved_tensors[0]

    x = leaf(3.0)
    assert gradcheck(Once.apply, x)
    (g,) = grad(Once.apply(x), x, create_graph=True)
    assert g.item() == 6.0
    with pytest.raises(RuntimeError, match="second time"):
        g.backward()


def test_saved_tensors_are_checked_and_freed() -> None:
    x = leaf(1.0, 2.0)
    h = x * 1
    y = Cube.apply(h)
    h.add_(1)
    with pytest.raises(RuntimeError, match=r"\[Cube\] saved tensors must not be overwritten"):
        y.sum().backward()
    y = Cube.apply(x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_a_graph_of_functions_is_freed_at_once() -> None:
    gc.disable()
    try:
        x = leaf(1.0)
        y = Exp.apply(Cube.apply(x)).sum()
        node = weakref.ref(y._node)
        array = weakref.ref(y.array)
        del y
        assert node() is None and array() is None
        h = x * 1
        saved = weakref.ref(h.array)
        y = Cube.apply(h)
        node = weakref.ref(y._node)
        del h
        assert saved() is not None
        del y
        assert node() is None and saved() is None
    finally:
        gc.enable()


def test_attributes_of_the_context() -> None:
    class Scale(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, factor: float) -> Any:
            ctx.factor = factor
            return x * factor

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.factor, None

    x = leaf(1.0)
    Scale.apply(x, 4.0).backward()
    assert x.grad.item() == 4.0


def wrong(result: Any) -> Any:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return result

    return Wrong.apply(leaf(1.0, 2.0)).sum()


def test_errors_of_backward() -> None:
    with pytest.raises(RuntimeError, match=r"\[Wrong\].*one gradient an input of forward: 1, came 2"):
        wrong((rg.zeros(2), rg.zeros(2))).backward()
    with pytest.raises(RuntimeError, match=r"\[Wrong\].*input 0 has \[2\], came \[3\]"):
        wrong(rg.zeros(3)).backward()
    with pytest.raises(TypeError, match=r"\[Wrong\].*came float"):
        wrong(1.0).backward()
    wrong((rg.zeros(2), None)).backward()  # PyTorch drops what is None beyond the inputs


def test_a_function_must_say_what_it_does() -> None:
    class Empty(Function):
        pass

    class ForwardOnly(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

    with pytest.raises(NotImplementedError, match="forward"):
        Empty.apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match="backward"):
        ForwardOnly.apply(leaf(1.0)).backward()


def test_views_and_inplace_around_functions() -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = Cube.apply(x[1:]) * 1
    y[0] = 7.0
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.0, 0.0, 27.0])


def test_integer_inputs_get_no_gradient() -> None:
    class Pick(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, i: Any) -> Any:
            ctx.save_for_backward(i)
            ctx.n = x.shape[0]
            return x[i]

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (i,) = ctx.saved_tensors
            full = rg.zeros(ctx.n, dtype=g.dtype)
            full[i] = g
            return full, None

    x = leaf(1.0, 2.0, 3.0)
    assert gradcheck(lambda t: Pick.apply(t, rg.tensor([2, 0])), x)


@pytest.mark.parity
def test_beside_pytorch() -> None:
    torch = pytest.importorskip("torch")

    def run(m: Any) -> list[Any]:
        class Swish(m.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            def forward(ctx: Any, x: Any, beta: float) -> Any:
                ctx.save_for_backward(x)
                ctx.beta = beta
                return x * (x * beta).sigmoid(), x.detach().max()

            @staticmethod
            def backward(ctx: Any, g: Any, unused: Any) -> Any:
                (x,) = ctx.saved_tensors
                s = (x * ctx.beta).sigmoid()
                return g * (s + ctx.beta * x * s * (1 - s)), None

        x = m.tensor([-1.0, 0.5, 2.0], dtype=m.float64, requires_grad=True)
        y, top = Swish.apply(x * 2, 1.5)
        (g,) = m.autograd.grad((y * y).sum(), x, create_graph=True)
        (g.sum() + y.sum()).backward()
        return [y.detach().numpy(), top.item(), g.detach().numpy(), x.grad.numpy()]

    for ours, theirs in zip(run(rg), run(torch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
