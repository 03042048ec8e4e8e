"""Initial values: what each function promises, and PyTorch's numbers with the same seed."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import ringgrad
from ringgrad.nn import init


def made(*shape: int) -> ringgrad.Tensor:
    return ringgrad.empty(*shape)


def test_all_write_in_place_unrecorded_and_return_the_tensor():
    p = ringgrad.Parameter(made(4, 4))
    for fn in (
        init.uniform_,
        init.normal_,
        init.trunc_normal_,
        init.ones_,
        init.zeros_,
        init.eye_,
        init.orthogonal_,
    ):
        before = p._version[0]
        assert fn(p) is p
        assert p.is_leaf and p.requires_grad and p._version[0] > before
    assert init.constant_(p, 3.5) is p and (p.array == 3.5).all()


def test_bounds_and_spread():
    ringgrad.manual_seed(0)
    t = made(200, 100)
    init.uniform_(t, -2, 3)
    assert -2 <= t.array.min() < -1.99 and 2.99 < t.array.max() < 3
    init.normal_(t, 1, 2)
    assert abs(t.array.mean() - 1) < 0.05 and abs(t.array.std() - 2) < 0.05
    init.trunc_normal_(t, 0, 1, -0.5, 1)
    assert t.array.min() >= -0.5 and t.array.max() <= 1
    init.xavier_uniform_(t, gain=2)
    assert abs(t.array.max() - 2 * math.sqrt(6 / 300)) < 1e-3
    init.xavier_normal_(t)
    assert abs(t.array.std() - math.sqrt(2 / 300)) < 2e-3
    init.kaiming_uniform_(t, nonlinearity="relu")
    assert abs(t.array.max() - math.sqrt(6 / 100)) < 1e-3
    init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu")
    assert abs(t.array.std() - math.sqrt(2 / 200)) < 2e-3


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal(shape):
    q = init.orthogonal_(made(*shape), gain=2).array.reshape(shape[0], -1)
    small = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_eye_dirac_sparse():
    np.testing.assert_array_equal(init.eye_(made(2, 3)).array, np.eye(2, 3))
    w = init.dirac_(made(4, 2, 3, 3), groups=2).array
    x = np.arange(4.0)
    centre = w[:, :, 1, 1]
    np.testing.assert_array_equal(np.concatenate([centre[:2] @ x[:2], centre[2:] @ x[2:]]), x)
    assert w.sum() == 4
    s = init.sparse_(made(10, 6), sparsity=0.3).array
    assert ((s == 0).sum(0) == 3).all()


def test_fans():
    assert init._calculate_fan_in_and_fan_out(made(3, 5)) == (5, 3)
    assert init._calculate_fan_in_and_fan_out(made(3, 5, 2, 2)) == (20, 12)


def test_gains():
    assert (
        init.calculate_gain("linear")
        == init.calculate_gain("conv_transpose2d")
        == init.calculate_gain("sigmoid")
        == 1
    )
    assert init.calculate_gain("tanh") == 5 / 3 and init.calculate_gain("selu") == 0.75
    assert init.calculate_gain("relu") == math.sqrt(2)
    assert init.calculate_gain("leaky_relu", 0.5) == math.sqrt(2 / 1.25)
    with pytest.raises(ValueError, match="swish"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="True"):
        init.calculate_gain("leaky_relu", True)


def test_wrong_shapes_and_modes():
    for fn in (init.xavier_uniform_, init.xavier_normal_, init.kaiming_uniform_, init.kaiming_normal_):
        with pytest.raises(ValueError, match=r"\[3\]"):
            fn(made(3))
    for fn in (init.eye_, init.orthogonal_):
        with pytest.raises(ValueError, match=r"\[3\]"):
            fn(made(3))
    with pytest.raises(ValueError, match="2 dimensions"):
        init.sparse_(made(2, 2, 2), 0.1)
    with pytest.raises(ValueError, match="3, 4 or 5"):
        init.dirac_(made(2, 2))
    with pytest.raises(ValueError, match="groups"):
        init.dirac_(made(3, 2, 1), groups=2)
    with pytest.raises(ValueError, match="'fan_side'"):
        init.kaiming_uniform_(made(2, 2), mode="fan_side")


def test_tensors_without_elements_stay():
    with pytest.warns(UserWarning, match="without elements"):
        init.kaiming_uniform_(made(0, 2))
    with pytest.warns(UserWarning, match="without elements"):
        init.kaiming_normal_(made(0, 2))


def test_older_names_warn():
    with pytest.warns(FutureWarning, match="xavier_uniform_"):
        t = init.xavier_uniform(made(2, 3))
    assert t.shape == (2, 3)
    for name in (
        "uniform",
        "normal",
        "eye",
        "orthogonal",
        "kaiming_normal",
        "kaiming_uniform",
        "xavier_normal",
    ):
        with pytest.warns(FutureWarning):
            getattr(init, name)(made(2, 3))


def test_own_generator():
    a, b = ringgrad.Generator().manual_seed(3), ringgrad.Generator().manual_seed(3)
    for fn in (init.uniform_, init.normal_, init.trunc_normal_, init.orthogonal_, init.kaiming_uniform_):
        np.testing.assert_array_equal(fn(made(4, 5), generator=a).array, fn(made(4, 5), generator=b).array)


CALLS = [
    ("uniform_", {"a": -1.0, "b": 2.0}),
    ("normal_", {"mean": 1.0, "std": 0.02}),
    ("trunc_normal_", {"std": 0.02}),
    ("trunc_normal_", {"mean": 1.0, "std": 0.5, "a": 0.9, "b": 1.3}),
    ("xavier_uniform_", {"gain": 1.5}),
    ("xavier_normal_", {}),
    ("kaiming_uniform_", {"a": math.sqrt(5)}),
    ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "relu"}),
    ("kaiming_normal_", {"nonlinearity": "relu"}),
    ("orthogonal_", {"gain": 2.0}),
    ("sparse_", {"sparsity": 0.4}),
    ("eye_", {}),
    ("dirac_", {}),
    ("constant_", {"val": 0.3}),
]


MATRICES, KERNELS = [(12, 20), (20, 12), (3, 4)], [(6, 4, 3, 3)]


def _cases():
    for name, settings in CALLS:
        shapes = KERNELS if name == "dirac_" else MATRICES + ([] if name in ("sparse_", "eye_") else KERNELS)
        for shape in shapes:
            yield name, settings, shape


@pytest.mark.parity
@pytest.mark.parametrize(("name", "settings", "shape"), list(_cases()))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_pytorchs(name, settings, shape, dtype):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ringgrad.manual_seed(5)
        ours = getattr(init, name)(ringgrad.empty(shape, dtype=getattr(ringgrad, dtype)), **settings)
        torch.manual_seed(5)
        theirs = getattr(torch.nn.init, name)(torch.empty(shape, dtype=getattr(torch, dtype)), **settings)
    tolerance = 1e-5 if name == "orthogonal_" else 1e-6
    np.testing.assert_allclose(ours.array, theirs.numpy(), rtol=tolerance, atol=tolerance)
    if "uniform" in name:
        np.testing.assert_array_equal(ours.array, theirs.numpy())
    assert float(ringgrad.rand(1)) == float(torch.rand(1)), "both must have drawn equally many numbers"
