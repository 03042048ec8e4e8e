"""Pruning beside PyTorch: the same masks with the same seed, the same names, the same errors."""

import numpy as np
import pytest

import ringgrad
from ringgrad import nn
from ringgrad.nn.utils import prune

torch = pytest.importorskip("torch")
from torch.nn.utils import prune as theirs_prune  # noqa: E402

STEPS = {
    "random_unstructured": lambda p, m: p.random_unstructured(m, "weight", 0.3),
    "l1_unstructured": lambda p, m: p.l1_unstructured(m, "weight", amount=5),
    "random_structured": lambda p, m: p.random_structured(m, "weight", amount=2, dim=0),
    "ln_structured": lambda p, m: p.ln_structured(m, name="weight", amount=0.5, n=2, dim=1),
    "identity": lambda p, m: p.identity(m, "bias"),
    "bias": lambda p, m: p.l1_unstructured(m, "bias", amount=0.5),
}
CHAINS = [[name] for name in STEPS] + [
    ["l1_unstructured", "random_unstructured", "ln_structured"],
    ["ln_structured", "l1_unstructured", "bias", "random_structured"],
]


def both(build):
    made = []
    for library in (ringgrad, torch):
        library.manual_seed(3)
        made.append(build(library))
    return made


def close(a, b):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-5)


def same(ours, theirs):
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        close(ours.state_dict()[name], value)
    close(ours.weight, theirs.weight)


def outputs(ours, theirs):
    x = torch.randn(2, 6)
    a, b = ours(ringgrad.tensor(x.numpy())), theirs(x)
    close(a.flatten(), b.flatten())
    a.sum().backward()
    b.sum().backward()
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters()):
        close(name == other and p.grad, q.grad)


@pytest.mark.parametrize("chain", CHAINS, ids="-".join)
def test_chains_of_methods(chain):
    ours, theirs = both(lambda library: library.nn.Linear(6, 4))
    for name in chain:
        ringgrad.manual_seed(5), torch.manual_seed(5)
        STEPS[name](prune, ours), STEPS[name](theirs_prune, theirs)
        same(ours, theirs)
    assert prune.is_pruned(ours) and isinstance(
        ours.weight_orig if hasattr(ours, "weight_orig") else ours.weight, nn.Parameter
    )
    outputs(ours, theirs)
    for name in ("weight", "bias"):
        if hasattr(ours, name + "_mask"):
            prune.remove(ours, name), theirs_prune.remove(theirs, name)
    same(ours, theirs)
    assert not prune.is_pruned(ours) and isinstance(ours.weight, nn.Parameter)


def test_over_several_layers():
    nets = both(lambda library: library.nn.Sequential(library.nn.Linear(6, 4), library.nn.Linear(4, 2)))
    for net, p in zip(nets, (prune, theirs_prune)):
        p.l1_unstructured(net[1], "weight", 1)
        pairs = ((net[0], "weight"), (net[1], "weight"))
        p.global_unstructured(pairs, pruning_method=p.L1Unstructured, amount=0.4)
    for ours, theirs in zip(*nets):
        same(ours, theirs)


def test_a_mask_of_ones_own():
    ours, theirs = both(lambda library: library.nn.Linear(6, 4))
    prune.custom_from_mask(ours, "bias", ringgrad.tensor([0, 1, 1, 0]))
    theirs_prune.custom_from_mask(theirs, "bias", torch.tensor([0, 1, 1, 0]))
    same(ours, theirs)
    assert ours.bias.tolist()[0] == 0


def test_a_method_of_ones_own():
    class EveryOther(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    layer = nn.Linear(3, 2)
    EveryOther.apply(layer, "bias")
    assert layer.bias_mask.tolist() == [0, 1]


@pytest.mark.parametrize(
    "call",
    [
        lambda p, m: p.random_unstructured(m, "weight", 1.5),
        lambda p, m: p.random_unstructured(m, "weight", -1),
        lambda p, m: p.random_unstructured(m, "weight", "half"),
        lambda p, m: p.random_unstructured(m, "weight", 100),
        lambda p, m: p.random_unstructured(m, "wait", 1),
        lambda p, m: p.ln_structured(m, "bias", 1, 2, 0),
        lambda p, m: p.ln_structured(m, "weight", 1, 2, 5),
        lambda p, m: p.remove(m, "weight"),
        lambda p, m: p.global_unstructured([(m, "weight")], p.LnStructured, amount=1, n=2),
        lambda p, m: p.global_unstructured(3, p.L1Unstructured, amount=1),
    ],
)
def test_errors(call):
    ours, theirs = both(lambda library: library.nn.Linear(6, 4))
    with pytest.raises(Exception) as wanted:
        call(theirs_prune, theirs)
    with pytest.raises(wanted.type):
        call(prune, ours)
    assert not prune.is_pruned(ours) and "weight" in dict(ours.named_parameters())
