"""torch.autograd.graph and forward_ad: hooks on what the graph keeps, tangents, beside PyTorch."""

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.autograd import forward_ad as fwad
from ringgrad.autograd import graph


def test_saved_values_go_through_hooks():
    seen = []

    def pack(t):
        seen.append(tuple(t.shape))
        return t.numpy().copy()

    x = rg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    w = rg.tensor([2.0, 3.0, 4.0], requires_grad=True)
    with graph.saved_tensors_hooks(pack, lambda a: rg.tensor(a * 10)):
        y = (x * w).exp().log().sum()
    assert seen.count((3,)) >= 3 and type(y.grad_fn.node).__name__ in ("_PackedNode", "OpNode")
    plain = (x * w).sum()
    plain.backward()
    assert w.grad.tolist() == [1, 2, 3]
    w.grad = None
    z = x * 3
    with graph.saved_tensors_hooks(pack, lambda a: rg.tensor(a * 10)):
        y = (z * w).sum()
    y.backward(retain_graph=True)
    assert w.grad.tolist() == [30, 60, 90]  # what unpack returned
    y.backward()
    assert w.grad.tolist() == [60, 120, 180]


def test_saved_on_the_cpu_and_second_order():
    x = rg.tensor([1.0, 2.0], requires_grad=True)
    with graph.save_on_cpu():
        y = (x * x * x).sum()
    (g,) = rg.autograd.grad(y, x, create_graph=True)
    assert g.tolist() == [3, 12]
    with graph.disable_saved_tensors_hooks("not here"), pytest.raises(RuntimeError, match="not here"):
        graph.saved_tensors_hooks(lambda t: t, lambda t: t).__enter__()
    with graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        pass


def test_what_a_node_saved_can_be_seen():
    x = rg.tensor([1.0, 2.0], requires_grad=True)
    y, z = x.pow(2), x.exp()
    assert rg.equal(y.grad_fn._saved_self, x) and rg.equal(z.grad_fn._saved_result, z)
    with pytest.raises(AttributeError):
        _ = y.grad_fn._saved_nothing
    y.sum().backward()
    with pytest.raises(RuntimeError, match="freed"):
        _ = y.grad_fn._saved_self


def test_a_counted_write_is_noticed():
    x = rg.ones(2, requires_grad=True)
    w = rg.ones(2)
    y = (x * w).sum()
    graph.increment_version([w])
    with pytest.raises(RuntimeError, match="must not be overwritten"):
        y.backward()


FUNCTIONS = {
    "polynomial": lambda t, x: x * x * x + 2 * x,
    "matmul": lambda t, x: t.sin(x) @ x.T,
    "unused": lambda t, x: t.ones(2),
    "linear": lambda t, x: 3 * x,
    "softmax": lambda t, x: t.softmax(x, 1).log(),
    "constant": lambda t, x: x * 0 + 1,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own parts
@pytest.mark.parametrize("name", FUNCTIONS)
def test_tangents(name):
    torch = pytest.importorskip("torch")
    import torch.autograd.forward_ad as theirs

    a, v = np.random.default_rng(0).standard_normal((2, 2, 3))
    found = []
    for library, ad in ((rg, fwad), (torch, theirs)):
        with ad.dual_level():
            dual = ad.make_dual(library.tensor(a), library.tensor(v))
            assert ad.unpack_dual(dual).tangent is not None
            primal, tangent = ad.unpack_dual(FUNCTIONS[name](library, dual))
            found.append((primal.detach().numpy(), None if tangent is None else tangent.detach().numpy()))
    (y, dy), (ty, tdy) = found
    np.testing.assert_allclose(y, ty)
    assert (dy is None) == (tdy is None)
    if dy is not None:
        np.testing.assert_allclose(dy, tdy, atol=1e-12)


def test_levels():
    with pytest.raises(RuntimeError, match="within dual_level"):
        fwad.make_dual(rg.ones(2), rg.ones(2))
    with fwad.dual_level():
        with pytest.raises(RuntimeError, match="nested"):
            fwad.enter_dual_level()
        with pytest.raises(ValueError, match="must have the shape"):
            fwad.make_dual(rg.ones(2), rg.ones(3))
        assert fwad.unpack_dual(rg.ones(2)).tangent is None
    with pytest.raises(RuntimeError, match="open"):
        fwad.exit_dual_level()


def test_a_recorded_backward_leaves_a_backends_bodies_to_other_threads() -> None:
    """A body with its own gradient is walked back through the op's rules; meanwhile the op keeps its bodies."""
    from ringgrad.autograd.op import Op, Variant, registry

    seen = []

    def doubled(xp, x):
        seen.append(len(op.variants))
        return x * 2

    op = Op("probe_doubled", doubled, [lambda g: g * 2])
    try:
        own = Variant(
            op, np, lambda x: True, lambda xp, x: x * 2, lambda xp, g, needs: [g * 2], half="float32"
        )
        x = rg.ones(3, dtype=rg.float16).requires_grad_()  # 16 bits: the way on which bodies are looked up
        y = op(x)
        assert y.grad_fn is not None and y._node.op is own
        (g,) = rg.autograd.grad((y * y).sum(), x, create_graph=True)
        assert g.tolist() == [8.0] * 3 and seen == [1]
    finally:
        del registry["probe_doubled"]
