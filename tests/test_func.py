"""torch.func: vmap, derivatives of functions, modules as functions, beside PyTorch's."""

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import func, nn
from ringgrad.utils._pytree import tree_leaves

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def both(check):
    """Runs check(library, its func) on both libraries and compares the tensors that it returns."""
    torch = pytest.importorskip("torch")
    import torch.func as theirs
    from torch.utils import _pytree

    ours = tree_leaves(check(rg, func))
    expected = _pytree.tree_leaves(check(torch, theirs))
    assert len(ours) == len(expected) > 0
    for a, b in zip(ours, expected):
        assert tuple(a.shape) == tuple(b.shape) and a.requires_grad == b.requires_grad
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


def numbers(t, *shape, seed=0):
    return t.tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def nested(t, f):
    x = numbers(t, 4, 3)
    return f.vmap(lambda d: {"a": d["x"].sum(), "b": (d["y"], d["x"] * 2)}, in_dims=({"x": 0, "y": None},))(
        {"x": x, "y": x[0]}
    )


CASES = {
    "vmap": lambda t, f: f.vmap(lambda x, y: x @ y)(numbers(t, 5, 3), numbers(t, 5, 3, seed=1)),
    "vmap dims": lambda t, f: f.vmap(lambda x, y: x * y, in_dims=(1, None), out_dims=1)(
        numbers(t, 2, 4), numbers(t, 2)
    ),
    "vmap negative": lambda t, f: f.vmap(lambda x: x.exp(), in_dims=-1, out_dims=-1)(numbers(t, 2, 4)),
    "vmap nested": lambda t, f: f.vmap(f.vmap(lambda x: x.sum()))(numbers(t, 2, 4, 3)),
    "vmap tree": nested,
    "vmap kwargs": lambda t, f: f.vmap(lambda x, y: x + y)(numbers(t, 3), y=numbers(t, 3, seed=1)),
    "grad": lambda t, f: f.grad(lambda x: (x**3).sum())(numbers(t, 3)),
    "grad of grad": lambda t, f: f.grad(f.grad(lambda x: x.sin()))(t.tensor(0.3)),
    "third": lambda t, f: f.grad(f.grad(f.grad(lambda x: x.exp() * x)))(t.tensor(0.3)),
    "closure": lambda t, f: f.grad(lambda x: f.grad(lambda y: (x * y) ** 2)(t.tensor(2.0)))(t.tensor(3.0)),
    "grad argnums": lambda t, f: f.grad(lambda x, y: (x * y).sum(), argnums=(0, 1))(
        numbers(t, 3), numbers(t, 3, seed=1)
    ),
    "grad tree": lambda t, f: f.grad(lambda p: (p["w"] * p["b"]).sum())(
        {"w": numbers(t, 3), "b": numbers(t, 3)}
    ),
    "grad aux": lambda t, f: f.grad(lambda x: ((x**2).sum(), x * 2), has_aux=True)(numbers(t, 3)),
    "grad_and_value": lambda t, f: f.grad_and_value(lambda x: ((x**2).sum(), x), has_aux=True)(numbers(t, 3)),
    "unused": lambda t, f: f.grad(lambda x: t.tensor(2.0))(numbers(t, 3)),
    "per example": lambda t, f: f.vmap(f.grad(lambda w, x: (w * x).sum() ** 2), in_dims=(None, 0))(
        numbers(t, 3), numbers(t, 4, 3, seed=1)
    ),
    "grad of vmap": lambda t, f: f.grad(lambda x: f.vmap(lambda r: r.prod())(x).sum())(numbers(t, 2, 3)),
    "jvp": lambda t, f: f.jvp(
        lambda x, y: (x * y, x.sin()), (numbers(t, 3), numbers(t, 3)), (t.ones(3), t.ones(3))
    ),
    "jacrev": lambda t, f: f.jacrev(lambda x: x.outer(x) if t is rg else t.outer(x, x))(numbers(t, 3)),
    "jacfwd": lambda t, f: f.jacfwd(lambda x, y: x[:2] * y, argnums=1)(numbers(t, 3), numbers(t, 2)),
    "jacrev tuple": lambda t, f: f.jacrev(lambda x, y: (x * y, x.sum()), argnums=(0, 1))(
        numbers(t, 3), numbers(t, 3)
    ),
    "hessian": lambda t, f: f.hessian(lambda x: (x**3).sum() * x[0])(numbers(t, 3)),
    "hessian vmap": lambda t, f: f.vmap(f.hessian(lambda x: x.prod()))(numbers(t, 2, 3)),
}


@pytest.mark.parity
@pytest.mark.parametrize("key", CASES)
def test_as_pytorch(key):
    both(CASES[key])


@pytest.mark.parity
def test_vjp_pulls_back_several_times():
    def check(t, f):
        y, pull = f.vjp(lambda x, z: (x.exp() * z, z.sum()), numbers(t, 3), numbers(t, 3, seed=1))
        first = pull((t.ones(3), t.tensor(0.0)))
        return [
            y,
            first,
            pull((t.zeros(3), t.tensor(2.0))),
            f.vjp(lambda x: (x * 2, x), numbers(t, 2), has_aux=True)[2],
        ]

    both(check)


@pytest.mark.parity
def test_derivatives_join_the_callers_graph():
    def check(t, f):
        x = numbers(t, 3).requires_grad_()
        g = f.grad(lambda v: (v**3).sum())(x)
        g.sum().backward()
        with t.no_grad():
            plain = f.grad(lambda v: (v**3).sum())(x)
        return [g, x.grad, plain]

    both(check)


def test_results_do_not_carry_graphs_of_their_own():
    x = rg.tensor([1.0, 2.0])
    for _ in range(3):
        x = x - 0.1 * func.grad(lambda v: (v**2).sum())(x)
    assert not x.requires_grad and x.grad_fn is None


def test_randomness():
    x = rg.zeros(3)
    with pytest.raises(RuntimeError, match=r"\[vmap\] func must not draw"):
        func.vmap(lambda v: v + rg.rand(()))(x)
    same = func.vmap(lambda v: v + rg.rand(()), randomness="same")(x)
    other = func.vmap(lambda v: v + rg.rand(()), randomness="different")(x)
    assert len(set(same.tolist())) == 1 and len(set(other.tolist())) == 3


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: func.vmap(lambda x, y: x)(rg.zeros(2), rg.zeros(3)), r"one size, came \[2, 3\]"),
        (lambda: func.vmap(lambda x: x, in_dims=2)(rg.zeros(2)), "name a dimension"),
        (lambda: func.vmap(lambda x: x, in_dims=None)(rg.zeros(2)), "at least one argument"),
        (lambda: func.vmap(lambda x: 1.0)(rg.zeros(2)), "must return Tensors"),
        (lambda: func.vmap(lambda x: x, in_dims=(0, 0))(rg.zeros(2)), "entry for each"),
    ],
)
def test_bad_vmap(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_derivatives():
    with pytest.raises(RuntimeError, match="0-d Tensor"):
        func.grad(lambda x: x)(rg.zeros(2))
    with pytest.raises(RuntimeError, match="argnums"):
        func.grad(lambda x: x.sum(), argnums=1)(rg.zeros(2))
    with pytest.raises(RuntimeError, match="cotangents"):
        func.vjp(lambda x: x, rg.zeros(2))[1](rg.zeros(3))
    with pytest.raises(RuntimeError, match="tangents"):
        func.jvp(lambda x: x, (rg.zeros(2),), (rg.zeros(3),))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(rg.ones(2))
        self.again = self.w
        self.register_buffer("shift", rg.zeros(2))

    def forward(self, x, scale=1.0):
        return (self.w * x + self.again * x + self.shift) * scale


def test_functional_call():
    net = Tied()
    x = rg.ones(2)
    w = rg.full((2,), 3.0, requires_grad=True)
    out = func.functional_call(net, {"w": w, "shift": rg.ones(2)}, x, {"scale": 2.0})
    assert out.tolist() == [14.0, 14.0]
    out.sum().backward()
    assert w.grad.tolist() == [4.0, 4.0] and net.w.grad is None
    assert net(x).tolist() == [2.0, 2.0]
    untied = func.functional_call(net, {"w": w}, (x,), tie_weights=False)
    assert untied.tolist() == [4.0, 4.0]
    with pytest.raises(RuntimeError, match="names must be those"):
        func.functional_call(net, {"nothing": w}, x)
    with pytest.raises(RuntimeError, match=r"missing \['shift'\]"):
        func.functional_call(net, {"w": w}, x, strict=True)


def test_ensemble():
    nets = [Tied() for _ in range(3)]
    for k, net in enumerate(nets):
        net.w.data.fill_(float(k))
    params, buffers = func.stack_module_state(nets)
    assert params["w"].shape == (3, 2) and params["w"].requires_grad and params["w"].is_leaf
    call = lambda p, b, x: func.functional_call(nets[0], (p, b), (x,))
    out = func.vmap(call, in_dims=(0, 0, None))(params, buffers, rg.ones(2))
    assert out.tolist() == [[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]
    out.sum().backward()
    assert params["w"].grad.tolist() == [[2.0, 2.0]] * 3
