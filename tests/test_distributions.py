"""Distributions: PyTorch's numbers with the same seed, and what holds without it."""

import math

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import distributions as D

# name, parameters (floats, nested lists), values to score
CASES = {
    "Normal": ("Normal", {"loc": [0.5, -1.0, 2.0], "scale": [0.3, 1.0, 4.0]}, [0.1, -2.0, 3.0]),
    "LogNormal": ("LogNormal", {"loc": [0.5, -1.0], "scale": [0.3, 1.2]}, [0.7, 2.0]),
    "HalfNormal": ("HalfNormal", {"scale": [0.3, 1.2]}, [0.7, 2.0]),
    "Uniform": ("Uniform", {"low": [0.0, -1.0], "high": [1.0, 3.0]}, [0.2, 2.5]),
    "Exponential": ("Exponential", {"rate": [0.5, 2.0, 9.0]}, [0.1, 1.0, 0.4]),
    "Laplace": ("Laplace", {"loc": [0.5, -1.0], "scale": [0.3, 2.0]}, [0.1, -3.0]),
    "Cauchy": ("Cauchy", {"loc": [0.5, -1.0], "scale": [0.3, 2.0]}, [0.1, -3.0]),
    "Gumbel": ("Gumbel", {"loc": [0.5, -1.0], "scale": [0.3, 2.0]}, [0.1, -3.0]),
    "Gamma": ("Gamma", {"concentration": [0.3, 1.0, 7.5], "rate": [1.0, 0.5, 3.0]}, [0.2, 1.0, 2.0]),
    "Chi2": ("Chi2", {"df": [1.0, 4.0]}, [0.2, 3.0]),
    "Beta": ("Beta", {"concentration1": [0.5, 3.0], "concentration0": [0.7, 2.0]}, [0.2, 0.6]),
    "Dirichlet": ("Dirichlet", {"concentration": [[0.5, 1.0, 2.0], [3.0, 4.0, 5.0]]}, [0.2, 0.5, 0.3]),
    "StudentT": ("StudentT", {"df": [3.0, 5.0], "loc": [0.0, 1.0], "scale": [1.0, 2.0]}, [0.3, -2.0]),
    "Bernoulli": ("Bernoulli", {"probs": [0.2, 0.5, 0.9]}, [1.0, 0.0, 1.0]),
    "Bernoulli logits": ("Bernoulli", {"logits": [-2.0, 0.3, 4.0]}, [1.0, 0.0, 1.0]),
    "ContinuousBernoulli": ("ContinuousBernoulli", {"probs": [0.2, 0.5, 0.9]}, [0.3, 0.4, 0.99]),
    "Categorical": ("Categorical", {"probs": [[0.2, 0.3, 0.5], [2.0, 1.0, 1.0]]}, [2, 0]),
    "Categorical logits": ("Categorical", {"logits": [[0.2, -1.3, 0.5], [2.0, 1.0, 1.0]]}, [1, 2]),
    "OneHotCategorical": ("OneHotCategorical", {"probs": [[0.2, 0.3, 0.5]]}, [[0.0, 1.0, 0.0]]),
    "Geometric": ("Geometric", {"probs": [0.2, 0.7]}, [3.0, 0.0]),
    "Poisson": ("Poisson", {"rate": [0.5, 4.0, 30.0]}, [0.0, 3.0, 25.0]),
    "Binomial": ("Binomial", {"total_count": 60, "probs": [0.05, 0.3, 0.9]}, [2.0, 20.0, 50.0]),
    "MultivariateNormal": (
        "MultivariateNormal",
        {"loc": [0.5, -1.0], "covariance_matrix": [[2.0, 0.5], [0.5, 1.0]]},
        [[0.1, 0.2], [3.0, -2.0]],
    ),
    "MultivariateNormal precision": (
        "MultivariateNormal",
        {"loc": [0.5, -1.0], "precision_matrix": [[2.0, 0.5], [0.5, 1.0]]},
        [0.1, 0.2],
    ),
    "MultivariateNormal tril": (
        "MultivariateNormal",
        {"loc": [[0.5, -1.0], [0.0, 0.0]], "scale_tril": [[2.0, 0.0], [0.5, 1.0]]},
        [0.1, 0.2],
    ),
}
REPARAMETERIZED = [k for k, (name, _, _) in CASES.items() if getattr(D, name).has_rsample is True]


def build(library, dists, key, grad=False):
    name, given, value = CASES[key]
    leaves = {
        k: v if isinstance(v, int) else library.tensor(v, dtype=library.float32, requires_grad=grad)
        for k, v in given.items()
    }
    return getattr(dists, name)(**leaves), leaves, library.tensor(value)


def close(ours, theirs, rtol=2e-5, atol=2e-6):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=atol)
    assert str(ours.dtype).split(".")[-1] == str(theirs.dtype).split(".")[-1]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parity
@pytest.mark.parametrize("key", CASES)
def test_sample_is_pytorchs_with_the_same_seed(key, torch):
    ours, _, _ = build(rg, D, key)
    theirs, _, _ = build(torch, torch.distributions, key)
    rg.manual_seed(3)
    torch.manual_seed(3)
    for shape in ((), (4,), (3, 5)):
        a, b = ours.sample(shape), theirs.sample(shape)
        assert tuple(a.shape) == tuple(b.shape)
        close(a, b, rtol=1e-4, atol=1e-6)
    assert rg.rand(1).item() == torch.rand(1).item()  # as many numbers were drawn


@pytest.mark.parity
@pytest.mark.parametrize("key", CASES)
def test_log_prob_and_its_gradients(key, torch):
    ours, mine, value = build(rg, D, key, grad=True)
    theirs, his, expected = build(torch, torch.distributions, key, grad=True)
    a, b = ours.log_prob(value), theirs.log_prob(expected)
    close(a, b)
    a.sum().backward()
    b.sum().backward()
    for k, leaf in mine.items():
        if not isinstance(leaf, int):
            close(leaf.grad, his[k].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("what", ["mean", "variance", "stddev", "mode", "entropy"])
def test_moments_and_entropy(key, what, torch):
    ours, _, _ = build(rg, D, key)
    theirs, _, _ = build(torch, torch.distributions, key)
    try:
        expected = getattr(theirs, what)
        expected = expected() if what == "entropy" else expected
    except NotImplementedError:
        with pytest.raises(NotImplementedError):
            found = getattr(ours, what)
            found() if what == "entropy" else found
        return
    found = getattr(ours, what)
    close(found() if what == "entropy" else found, expected, rtol=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize("key", CASES)
def test_shapes_and_expand(key, torch):
    ours, _, value = build(rg, D, key)
    theirs, _, expected = build(torch, torch.distributions, key)
    assert tuple(ours.batch_shape) == tuple(theirs.batch_shape)
    assert tuple(ours.event_shape) == tuple(theirs.event_shape)
    shape = (2, *ours.batch_shape)
    big, his = ours.expand(shape), theirs.expand(shape)
    assert tuple(big.batch_shape) == shape and type(big) is type(ours)
    close(big.log_prob(value), his.log_prob(expected))
    rg.manual_seed(0)
    torch.manual_seed(0)
    close(big.sample((2,)), his.sample((2,)), rtol=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize("key", [k for k in REPARAMETERIZED if k not in ("Beta", "Dirichlet")])
def test_gradients_through_rsample(key, torch):
    ours, mine, _ = build(rg, D, key, grad=True)
    theirs, his, _ = build(torch, torch.distributions, key, grad=True)
    rg.manual_seed(11)
    torch.manual_seed(11)
    a, b = ours.rsample((50,)), theirs.rsample((50,))
    (a**2).sum().backward()
    (b**2).sum().backward()
    for k, leaf in mine.items():
        close(leaf.grad, his[k].grad, rtol=2e-3, atol=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize(
    "key",
    ["Normal", "LogNormal", "Uniform", "Exponential", "Laplace", "Cauchy", "Gumbel", "HalfNormal"]
    + ["ContinuousBernoulli"],
)
def test_cdf_and_icdf(key, torch):
    ours, _, value = build(rg, D, key)
    theirs, _, expected = build(torch, torch.distributions, key)
    close(ours.cdf(value), theirs.cdf(expected), rtol=1e-4)
    u = np.linspace(0.1, 0.9, value.shape[-1], dtype=np.float32)
    close(ours.icdf(rg.tensor(u)), theirs.icdf(torch.tensor(u)), rtol=1e-4)


KL = [
    ("Normal", {"loc": [0.5], "scale": [1.5]}, {"loc": [0.0], "scale": [0.5]}),
    ("Bernoulli", {"probs": [0.0, 0.3]}, {"probs": [0.2, 0.9]}),
    ("Categorical", {"probs": [0.2, 0.3, 0.5]}, {"probs": [0.5, 0.25, 0.25]}),
    ("OneHotCategorical", {"probs": [0.2, 0.3, 0.5]}, {"probs": [0.5, 0.25, 0.25]}),
    ("Gamma", {"concentration": [0.5], "rate": [1.5]}, {"concentration": [2.0], "rate": [0.5]}),
    (
        "Beta",
        {"concentration1": [0.5], "concentration0": [1.5]},
        {"concentration1": [2.0], "concentration0": [3.0]},
    ),
    ("Dirichlet", {"concentration": [0.5, 2.0]}, {"concentration": [2.0, 1.0]}),
    ("Exponential", {"rate": [0.5]}, {"rate": [2.0]}),
    ("Laplace", {"loc": [0.5], "scale": [1.5]}, {"loc": [0.0], "scale": [0.5]}),
    ("Cauchy", {"loc": [0.5], "scale": [1.5]}, {"loc": [0.0], "scale": [0.5]}),
    ("Gumbel", {"loc": [0.5], "scale": [1.5]}, {"loc": [0.0], "scale": [0.5]}),
    ("Poisson", {"rate": [0.5]}, {"rate": [2.0]}),
    ("Geometric", {"probs": [0.5]}, {"probs": [0.2]}),
    ("Uniform", {"low": [0.0, 0.0], "high": [1.0, 1.0]}, {"low": [-1.0, 0.5], "high": [2.0, 2.0]}),
    ("LogNormal", {"loc": [0.5], "scale": [1.5]}, {"loc": [0.0], "scale": [0.5]}),
    ("HalfNormal", {"scale": [1.5]}, {"scale": [0.5]}),
    ("ContinuousBernoulli", {"probs": [0.3]}, {"probs": [0.8]}),
    ("Binomial", {"total_count": [5.0], "probs": [0.3]}, {"total_count": [5.0], "probs": [0.8]}),
    (
        "MultivariateNormal",
        {"loc": [0.5, 0.1], "covariance_matrix": [[2.0, 0.5], [0.5, 1.0]]},
        {"loc": [0.0, 0.0], "covariance_matrix": [[1.0, 0.2], [0.2, 3.0]]},
    ),
]


@pytest.mark.parity
@pytest.mark.parametrize("name, p, q", KL, ids=[k[0] for k in KL])
def test_kl_divergence(name, p, q, torch):
    def divergence(library, dists):
        make = lambda given: getattr(dists, name)(**{k: library.tensor(v) for k, v in given.items()})
        return dists.kl_divergence(make(p), make(q))

    close(divergence(rg, D), divergence(torch, torch.distributions), rtol=1e-4)


@pytest.mark.parity
def test_kl_divergence_of_different_kinds(torch):
    def found(t, d):
        normal, laplace = (
            d.Normal(t.tensor([0.5]), t.tensor([1.5])),
            d.Laplace(t.tensor([0.0]), t.tensor([2.0])),
        )
        uniform = d.Uniform(t.tensor([-1.0]), t.tensor([2.0]))
        pairs = [(normal, laplace), (laplace, normal), (uniform, normal)]
        return [d.kl_divergence(p, q) for p, q in pairs]

    for a, b in zip(found(rg, D), found(torch, torch.distributions)):
        close(a, b)


@pytest.mark.parity
def test_independent_mixture_and_transformed(torch):
    def run(t, d):
        t.manual_seed(5)
        normal = d.Normal(t.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]]), t.tensor([1.0, 0.5]))
        whole = d.Independent(normal, 1)
        mixture = d.MixtureSameFamily(d.Categorical(t.tensor([0.2, 0.5, 0.3])), whole)
        steps = [d.AffineTransform(1.0, -2.0), d.TanhTransform(cache_size=1)]
        squashed = d.TransformedDistribution(d.Normal(t.tensor([0.0, 0.3]), t.tensor([1.0, 0.2])), steps)
        x, y, z = whole.sample((4,)), mixture.sample((4, 2)), squashed.rsample((3,))
        more = [whole.log_prob(x), whole.entropy(), mixture.log_prob(y), mixture.mean, mixture.variance]
        more += [squashed.log_prob(z), squashed.cdf(z), d.kl_divergence(whole, d.Independent(normal, 1))]
        return [x, y, z, *more]

    for a, b in zip(run(rg, D), run(torch, torch.distributions)):
        close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize(
    "make",
    [
        lambda t, d: d.Normal(t.tensor(0.0), t.tensor(-1.0)),
        lambda t, d: d.Categorical(probs=t.tensor([-0.5, 1.5])),
        lambda t, d: d.Categorical(probs=t.tensor(0.5)),
        lambda t, d: d.Bernoulli(probs=t.tensor(1.5)),
        lambda t, d: d.Bernoulli(),
        lambda t, d: d.Bernoulli(probs=t.tensor(0.5), logits=t.tensor(0.5)),
        lambda t, d: d.Uniform(t.tensor(2.0), t.tensor(1.0)),
        lambda t, d: d.Normal("a", 1.0),
        lambda t, d: d.MultivariateNormal(t.zeros(2), covariance_matrix=t.tensor([[1.0, 2.0], [2.0, 1.0]])),
        lambda t, d: d.Normal(t.zeros(2), 1.0).log_prob(t.zeros(3)),
        lambda t, d: d.Normal(t.zeros(2), 1.0).log_prob(0.5),
        lambda t, d: d.Categorical(t.ones(3)).log_prob(t.tensor(3)),
        lambda t, d: d.Exponential(t.tensor(1.0)).log_prob(t.tensor(-1.0)),
        lambda t, d: d.Independent(d.Normal(t.zeros(2), 1.0), 2),
        lambda t, d: d.Normal(t.tensor(float("nan")), 1.0),
    ],
)
def test_bad_input_is_pytorchs_error(make, torch):
    with pytest.raises(Exception) as theirs:
        make(torch, torch.distributions)
    with pytest.raises(theirs.type) as ours:
        make(rg, D)
    assert str(ours.value).startswith("[")


def test_no_check_when_told_so():
    D.Normal(0.0, -1.0, validate_args=False)
    D.Distribution.set_default_validate_args(False)
    try:
        D.Normal(0.0, -1.0)
    finally:
        D.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError, match=r"\[Normal\] parameter scale must satisfy GreaterThan"):
        D.Normal(0.0, -1.0)


def test_gradients_of_dirichlet_draws_are_right_on_average():
    a = rg.tensor([2.0, 1.0, 0.7], requires_grad=True)
    rg.manual_seed(0)
    (D.Dirichlet(a).rsample((20000,)) ** 2).sum(-1).mean().backward()
    x = a.detach().requires_grad_()
    total = x.sum()  # E[x_i^2] = a_i (a_i + 1) / (A (A + 1))
    (x * (x + 1) / (total * (total + 1))).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), x.grad.numpy(), atol=6e-3)


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0, 3.0, 50.0, 2000.0])
def test_slope_of_gamma_numbers(alpha):
    """Against differences of the quantile function that numeric integration of the density gives."""
    from ringgrad.distributions.gamma import gamma_slope

    x = alpha * 1.1 + 0.1
    h = min(1e-3 * alpha, 0.1)

    def cdf(a):
        t = (
            np.linspace(-60, math.log(x), 200001)
            if a < 100
            else np.linspace(math.log(x) - 2, math.log(x), 200001)
        )
        y = np.exp(a * t - np.exp(t) - math.lgamma(a))
        return float(np.sum((y[1:] + y[:-1]) / 2) * (t[1] - t[0])) + (
            0 if a >= 1 else math.exp(a * t[0]) / math.gamma(a + 1)
        )

    density = math.exp((alpha - 1) * math.log(x) - x - math.lgamma(alpha))
    expected = -(cdf(alpha + h) - cdf(alpha - h)) / (2 * h) / density
    found = gamma_slope(np.array([alpha]), np.array([x]))[0]
    assert found == pytest.approx(expected, rel=2e-3)


def test_register_kl_and_missing_pairs():
    class Mine(D.Normal):
        pass

    assert D.kl_divergence(Mine(0.0, 1.0), D.Normal(0.0, 1.0)).item() == 0
    with pytest.raises(NotImplementedError, match=r"\[kl_divergence\] no closed form"):
        D.kl_divergence(D.Poisson(1.0), D.Normal(0.0, 1.0))

    @D.register_kl(Mine, Mine)
    def rule(p, q):
        return rg.tensor(7.0)

    assert D.kl_divergence(Mine(0.0, 1.0), Mine(0.0, 1.0)).item() == 7


def test_policy_gradient_flows():
    logits = rg.zeros(2, 3, requires_grad=True)
    dist = D.Categorical(logits=logits)
    loss = -dist.log_prob(rg.tensor([0, 2])).sum()
    loss.backward()
    expected = np.full((2, 3), 1 / 3, np.float32)
    expected[0, 0] -= 1
    expected[1, 2] -= 1
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-6)
    assert not dist.sample().requires_grad
    with pytest.raises(NotImplementedError):
        dist.rsample()
