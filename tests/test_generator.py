"""The generator's numbers: recorded from PyTorch, beside PyTorch where it is installed, and by themselves."""

import copy
import hashlib
import pickle

import ml_dtypes
import numpy as np
import pytest

from ringgrad.tensor import generator as module
from ringgrad.tensor.generator import Generator, default_generator, initial_seed, manual_seed, seed
from ringgrad.tensor.generator_sampling import multinomial, poisson, trunc_normal
from ringgrad.tensor.generator_transforms import fma, inward, swap_in_turn

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16), BFLOAT16]


def digest(generator: Generator) -> str:
    return hashlib.sha256(generator.get_state().tobytes()).hexdigest()[:16]


def test_a_sequence_of_draws_gives_the_numbers_recorded_from_pytorch():
    g = Generator().manual_seed(42)
    weights = np.array([1, 2, 3, 4], np.float32)

    def exact(came, want):
        assert came.tolist() == want

    def close(came, want):
        np.testing.assert_allclose(came, want, rtol=3e-6)

    exact(g.uniform(4), [0.8822692632675171, 0.9150039553642273, 0.38286375999450684, 0.9593056440353394])
    exact(g.uniform(3, dtype=np.float64), [0.12358607277440903, 0.05258016436107704, 0.5261718968547618])
    close(g.normal(3), [-2.466057062149048, 0.36228621006011963, 0.3765491247177124])
    blocks = [-0.4973975419998169, 0.439589262008667, 1.573600172996521, 2.2667179107666016]
    close(g.normal(18)[[0, 1, 8, 17]], blocks)
    exact(g.randint(0, 100, 6), [70, 39, 86, 99, 15, 84])
    exact(g.randint(-5, 2**40, 3), [562035267843, 217619298870, 87819920875])
    exact(g.randperm(8), [6, 3, 5, 1, 7, 0, 4, 2])
    exact(g.bernoulli(0.3, 10, np.uint8), [0, 0, 0, 0, 0, 1, 0, 1, 0, 1])
    exact(g.bernoulli(np.array([0.1, 0.5, 0.9, 0.5], np.float32)), [0, 0, 1, 1])
    close(g.exponential(3, 2.0), [0.9994932413101196, 0.5252970457077026, 0.06941381841897964])
    close(g.cauchy(3, 1.0, 2.0), [811.9984130859375, -5.396805763244629, -0.7893755435943604])
    close(g.log_normal(3, 0.0, 0.5), [0.9135616421699524, 1.1746987104415894, 0.5914722681045532])
    exact(g.geometric(5, 0.2, np.int64), [2, 6, 2, 4, 3])
    exact(g.random(3), [4562250791397040465, 732190557709280308, 1600276602381676441])
    exact(multinomial(g, weights, 3), [2, 1, 3])
    exact(multinomial(g, weights, 6, replacement=True), [2, 0, 1, 3, 0, 3])
    exact(poisson(g, np.array([0.5, 3, 12, 400], np.float32)), [0, 2, 5, 422])
    truncated = [-0.9981703758239746, 0.15821687877178192, -1.6172014474868774, 0.6903586387634277]
    close(trunc_normal(g, 4), truncated)
    exact(g.uniform(3, -0.1, 0.3), [0.09044885635375977, 0.21167226135730743, 0.048893239349126816])
    exact(g.randint(0, 1000, 5), [487, 109, 722, 146, 648])


def test_the_state_has_the_bytes_that_pytorch_would_have():
    g = Generator().manual_seed(42)
    assert digest(g) == "5feb54a46230d321"
    g.uniform(1000)
    assert digest(g) == "75ddb2bd810e03fd"


@pytest.mark.parametrize("n", [0, 1, 623, 624, 625])
def test_set_state_goes_on_where_get_state_stood(n):
    g = Generator().manual_seed(7)
    g.uniform(n)
    g.normal(3)  # leaves a number over, which belongs to the state
    other = Generator().set_state(g.get_state())
    for twin in (other, g.clone_state(), copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert twin.initial_seed() == 7
        fork = copy.copy(g)
        np.testing.assert_array_equal(twin.normal(5), fork.normal(5))
        np.testing.assert_array_equal(twin.randint(0, 99, 700), fork.randint(0, 99, 700))
        np.testing.assert_array_equal(twin.get_state(), fork.get_state())


def test_a_draw_in_parts_equals_one_draw():
    parts, whole = Generator().manual_seed(1), Generator().manual_seed(1)
    np.testing.assert_array_equal(
        np.concatenate([parts.uniform(n) for n in (1, 0, 700, 70000, 3)]), whole.uniform(70704)
    )
    np.testing.assert_array_equal(
        np.concatenate([parts.randint(0, 9, n) for n in (5, 2000)]), whole.randint(0, 9, 2005)
    )
    np.testing.assert_allclose(
        np.concatenate([parts.log_normal(n, dtype=np.float64) for n in (1, 4, 7, 40)]),
        whole.log_normal(52, dtype=np.float64),
        rtol=1e-13,
    )


def test_manual_seed_forgets_the_kept_number_and_folds_negative_seeds():
    g = Generator().manual_seed(-1)
    assert g.initial_seed() == 2**64 - 1
    first = g.normal(3)
    g.manual_seed(-1)
    np.testing.assert_array_equal(g.normal(3), first)
    with pytest.raises(ValueError, match=r"\[manual_seed\] seed must lie"):
        g.manual_seed(2**64)
    with pytest.raises(TypeError):
        g.manual_seed(1.5)  # type: ignore[arg-type]


def test_the_default_generator():
    before = default_generator.get_state()
    try:
        assert manual_seed(5) is default_generator and initial_seed() == 5
        a = default_generator.uniform(3)
        assert seed() == initial_seed() != 5
        manual_seed(5)
        np.testing.assert_array_equal(default_generator.uniform(3), a)
    finally:
        default_generator.set_state(before)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_out_is_filled_in_c_order_whatever_its_strides(dtype):
    fresh = lambda: Generator().manual_seed(3)
    for draw in (
        lambda g, **to: g.uniform(**to),
        lambda g, **to: g.normal(**to),
        lambda g, **to: g.exponential(**to),
        lambda g, **to: g.log_normal(**to),
        lambda g, **to: g.cauchy(**to),
        lambda g, **to: g.geometric(p=0.3, **to),
        lambda g, **to: g.bernoulli(p=0.3, **to),
        lambda g, **to: g.randint(0, 100, **to),
        lambda g, **to: g.random(**to),
    ):
        want = draw(fresh(), shape=(5, 8), dtype=dtype)
        assert want.shape == (5, 8) and want.dtype == dtype
        for out in (np.zeros((5, 8), dtype), np.zeros((8, 5), dtype).T, np.zeros((5, 16), dtype)[:, ::2]):
            assert draw(fresh(), shape=(), out=out) is out
            np.testing.assert_array_equal(out, want)
    assert fresh().uniform((), dtype=dtype).shape == () and fresh().normal((0, 3), dtype=dtype).size == 0


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_uniform_stays_below_high(dtype):
    y = Generator().manual_seed(0).uniform(200000, 1.0, 2.0, dtype).astype(np.float64)
    assert y.min() >= 1.0 and y.max() < 2.0


def test_fma_rounds_once():
    from fractions import Fraction

    x = Generator().manual_seed(0).uniform(200, dtype=np.float64)
    for a, b in ((0.4, -0.1), (1e-3, 7.0), (3.0, -1.5), (1e300, 1.0)):
        want = [float(Fraction(v) * Fraction(a) + Fraction(b)) for v in x.tolist()]
        np.testing.assert_array_equal(fma(x, a, b), want)
    assert fma(np.array([1.0]), np.inf, 0.0)[0] == np.inf


@pytest.mark.parametrize("n", [1, 2, 100, 20000, 70000])
@pytest.mark.parametrize("least", [0, 10**9], ids=["long", "short"])
def test_randperm_swaps_one_after_the_other(monkeypatch, n, least):
    monkeypatch.setattr(module, "SHORT_PERMUTATION", least)
    g = Generator().manual_seed(n)
    words = g.clone_state()
    order = list(range(n))
    if least:
        for i, word in enumerate(words.words(n - 1).tolist()):
            j = i + word % (n - i)
            order[i], order[j] = order[j], order[i]
    else:
        for i, word in enumerate(words.words64(n).tolist()):
            j = word % (i + 1)
            order[i], order[j] = order[j], order[i]
    np.testing.assert_array_equal(g.randperm(n), order)
    np.testing.assert_array_equal(g.get_state(), words.get_state())


def test_swaps_that_meet_are_made_in_turn():
    order = np.arange(1 << 15)
    swap_in_turn(order, 0, np.full(300, 20000))
    assert order[:3].tolist() == [20000, 0, 1] and order[20000] == 299
    assert np.array_equal(np.sort(order), np.arange(1 << 15))


def test_randint_moves_ends_inward_that_a_float_cannot_hold():
    assert inward(0, 65504, np.dtype(np.float16)) == (0, 65472)
    assert inward(-3, 5, np.dtype(np.float32)) == (-3, 5)
    y = Generator().manual_seed(0).randint(0, 1000, 20000, BFLOAT16)
    assert y.astype(np.float64).min() >= 0 and y.astype(np.float64).max() < 1000


def test_moments():
    g, n = Generator().manual_seed(0), 200000
    for y, mean, std in (
        (g.normal(n, 2.0, 3.0), 2.0, 3.0),
        (g.exponential(n, 4.0), 0.25, 0.25),
        (g.geometric(n, 0.25), 4.0, 12**0.5),
        (g.bernoulli(0.3, n), 0.3, 0.21**0.5),
        (poisson(g, np.full(20000, 30.0)), 30.0, 30**0.5),
        (trunc_normal(g, n, a=-1.0, b=1.0), 0.0, 0.5396),
        (trunc_normal(g, n, a=1.0, b=2.0), 1.3831, 0.2640),
    ):
        assert abs(y.mean() - mean) < 5 * std / y.size**0.5
        assert abs(y.std() / std - 1) < 0.05


def test_multinomial_draws_in_proportion_and_without_repeats():
    g = Generator().manual_seed(0)
    weights = np.array([[0, 1, 3], [2, 2, 0]], np.float32)
    counts = [
        np.bincount(row, minlength=3) / 20000 for row in multinomial(g, weights, 20000, replacement=True)
    ]
    np.testing.assert_allclose(counts, [[0, 0.25, 0.75], [0.5, 0.5, 0]], atol=0.02)
    drawn = multinomial(g, np.ones((50, 6)), 6)
    np.testing.assert_array_equal(np.sort(drawn), np.tile(np.arange(6), (50, 1)))
    first = np.array([multinomial(g, weights[0], 1)[0] for _ in range(2000)])
    assert not (first == 0).any() and abs((first == 2).mean() - 0.75) < 0.05


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda g: g.uniform(3, 2, 1), "low <= high must hold.*low=2, high=1"),
        (lambda g: g.uniform(3, 0, 70000, np.float16), "within float16"),
        (lambda g: g.uniform(3, NAN, 1), "low=nan"),
        (lambda g: g.normal(3, 0, -1), r"std must be >= 0, got -1"),
        (lambda g: g.normal(3, 0, NAN), "got nan"),
        (lambda g: g.log_normal(3, 0, 0), "std must be > 0"),
        (lambda g: g.exponential(3, 0), "rate must be > 0"),
        (lambda g: g.cauchy(3, 0, 0), "sigma must be > 0"),
        (lambda g: g.geometric(3, 1.0), r"p must lie in \(0, 1\), got 1"),
        (lambda g: g.bernoulli(1.5, 3), r"p must lie in \[0, 1\], got 1.5"),
        (lambda g: g.bernoulli(NAN, 3), "got nan"),
        (lambda g: g.bernoulli(np.array([0.5, -2.0])), "from -2.0 to 0.5"),
        (lambda g: g.randint(5, 5, 3), "low < high must hold in int64, got low=5, high=5"),
        (lambda g: g.randint(0, 300, 3, np.uint8), "0 to 255, got low=0, high=300"),
        (lambda g: g.randint(0, 3, 3, np.bool_), "0 to 1"),
        (lambda g: g.randperm(-1), "n must be >= 0, got -1"),
        (lambda g: g.randperm(300, np.uint8), "at most 255 for uint8, got 300"),
        (lambda g: multinomial(g, np.ones(3), 4), "num_samples=4 of 3: pass replacement=True"),
        (lambda g: multinomial(g, np.ones(3), 0), "num_samples must be > 0, got 0"),
        (lambda g: multinomial(g, np.ones((1, 1, 1)), 1), r"1 or 2 dimensions, got shape \(1, 1, 1\)"),
        (lambda g: multinomial(g, np.ones(3, np.int64), 1), "floating type, got int64"),
        (lambda g: multinomial(g, np.zeros(3), 1), "sum > 0"),
        (lambda g: multinomial(g, np.zeros(3), 2, True), "sum > 0"),
        (lambda g: multinomial(g, np.array([1.0, -2.0]), 1), "finite and >= 0, got -2.0"),
        (lambda g: multinomial(g, np.array([1.0, INF]), 2, True), "finite and >= 0, got inf"),
        (lambda g: multinomial(g, np.array([1.0, NAN]), 1), "finite and >= 0, got nan"),
        (lambda g: poisson(g, np.array([1.0, -1.0])), "rate must be >= 0, got -1.0"),
        (lambda g: g.set_state(np.zeros(10, np.uint8)), "5056 bytes, got 10"),
        (lambda g: g.set_state(np.zeros(5056, np.uint8)), "seeded MT19937"),
        (lambda g: Generator("cuda"), "device must be 'cpu', got 'cuda'"),
    ],
)
def test_what_cannot_be_drawn_raises_as_in_pytorch(draw, words):
    g = Generator().manual_seed(0)
    with pytest.raises(RuntimeError, match=words):
        draw(g)
    np.testing.assert_array_equal(g.get_state(), Generator().manual_seed(0).get_state())


def test_wrong_types():
    g = Generator()
    for draw in (g.uniform, g.normal, g.log_normal, g.exponential, g.cauchy):
        with pytest.raises(NotImplementedError, match="dtype must be a floating type"):
            draw(3, dtype=np.int64)
    for call in (
        lambda: g.geometric(3, 0.5, np.bool_),
        lambda: g.random(3, np.complex64),
        lambda: g.bernoulli(np.array([1, 0])),
        lambda: poisson(g, np.array([1])),
    ):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(TypeError, match="uint8, got float64"):
        g.set_state(np.zeros(5056))


def test_trunc_normal_warns_far_from_the_mean():
    with pytest.warns(UserWarning, match="within 2 std"):
        y = trunc_normal(Generator().manual_seed(0), 100, 0.0, 1.0, 3.0, 4.0)
    assert y.min() >= 3 and y.max() <= 4


@pytest.fixture
def twins():
    """Our generator, PyTorch's in the same state, and a check that results and states agree afterwards."""
    torch = pytest.importorskip("torch")
    ours, theirs = Generator().manual_seed(1234), torch.Generator().manual_seed(1234)

    def check(came, tensor, rtol=0.0, floor=0.0):
        want = tensor.float().numpy().astype(BFLOAT16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
        assert came.dtype == want.dtype and came.shape == want.shape
        if rtol:
            came, want = came.astype(np.float64), want.astype(np.float64)
            np.testing.assert_allclose(came, want, rtol=rtol, atol=rtol * floor)
        else:
            np.testing.assert_array_equal(came, want)
        np.testing.assert_array_equal(ours.get_state(), theirs.get_state().numpy())

    return torch, ours, theirs, check


SIZES = [*range(42), 199, 200, 623, 1000, 65536 + 5]
ROUNDING = {"float64": 1e-13, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}


@pytest.mark.parity
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_equal_pytorchs_at_every_size(twins, dtype):
    torch, ours, theirs, check = twins
    kind, eps = getattr(torch, dtype.name), ROUNDING[dtype.name]
    for n in SIZES:

        def empty(n=n):
            return torch.empty(n, dtype=kind)

        check(ours.uniform(n, dtype=dtype), torch.rand(n, dtype=kind, generator=theirs))
        check(ours.uniform(n, -0.1, 0.3, dtype), empty().uniform_(-0.1, 0.3, generator=theirs))
        check(ours.normal(n, dtype=dtype), torch.randn(n, dtype=kind, generator=theirs), eps, 0.1)
        check(ours.normal(n, 0.5, 0.02, dtype), empty().normal_(0.5, 0.02, generator=theirs), eps)
        check(ours.log_normal(n, 1.0, 2.0, dtype), empty().log_normal_(generator=theirs), eps)
        check(ours.exponential(n, 2.0, dtype), empty().exponential_(2.0, generator=theirs), eps)
        check(ours.cauchy(n, 1.0, 2.0, dtype), empty().cauchy_(1.0, 2.0, generator=theirs), eps, 0.1)
        check(ours.geometric(n, 0.1, dtype), empty().geometric_(0.1, generator=theirs))
        check(ours.bernoulli(0.3, n, dtype), empty().bernoulli_(0.3, generator=theirs))
        p = np.linspace(0, 1, n).astype(dtype)
        chances = torch.from_numpy(p.astype(np.float64)).to(kind)
        check(ours.bernoulli(p), torch.bernoulli(chances, generator=theirs))
        check(ours.random(n, dtype), empty().random_(generator=theirs))
        check(ours.randint(-3, 250, n, dtype), empty().random_(-3, 250, generator=theirs))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["int64", "int32", "int16", "int8", "uint8", "bool"])
def test_whole_numbers_equal_pytorchs(twins, name):
    torch, ours, theirs, check = twins
    dtype, kind = np.dtype(name), getattr(torch, name)
    least, most = (0, 1) if name == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    spans = [(0, 2), (least, most), (0, most)] + [(-5, 2**k) for k in (3, 27, 28, 31, 32, 62) if 2**k <= most]
    for n in (0, 1, 7, 1000, 70000):
        check(ours.random(n, dtype), torch.empty(n, dtype=kind).random_(generator=theirs))
        check(ours.bernoulli(0.7, n, dtype), torch.empty(n, dtype=kind).bernoulli_(0.7, generator=theirs))
        for low, high in spans:
            if low >= least:
                drawn = torch.randint(int(low), int(high), (n,), dtype=kind, generator=theirs)
                check(ours.randint(int(low), int(high), n, dtype), drawn)
    every = torch.empty(9, dtype=torch.int64).random_(-(2**63), None, generator=theirs)
    check(ours.randint(-(2**63), 2**63, 9), every)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*is out of bounds")
def test_integer_ranges_that_a_float_cannot_hold_equal_pytorchs(twins):
    torch, ours, theirs, check = twins
    for low, high, name in (
        (0, 65504, "float16"),
        (-65503, 0, "float16"),
        (2**24 + 1, 2**24 + 100, "float32"),
        (0, 2**53 + 3, "float64"),
    ):
        drawn = torch.randint(low, high, (3000,), dtype=getattr(torch, name), generator=theirs)
        check(ours.randint(low, high, 3000, name), drawn)


@pytest.mark.parity
@pytest.mark.parametrize("n", [0, 1, 2, 10, 16383, 16384, 100000])
def test_randperm_equals_pytorchs(twins, n):
    torch, ours, theirs, check = twins
    check(ours.randperm(n), torch.randperm(n, generator=theirs))
    check(ours.randperm(n, np.int32), torch.randperm(n, dtype=torch.int32, generator=theirs))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_choices_equal_pytorchs(twins, name):
    torch, ours, theirs, check = twins
    for n in (1, 2, 50, 300):  # a full shuffle of thousands has ties, whose order PyTorch leaves open
        for shape in ((n,), (7, n)):
            weights = Generator().manual_seed(n).uniform(shape, 0.01, 1.0, name)
            for k, again in ((1, False), (1, True), (min(n, 20), False), (n, False), (100, True)):
                drawn = torch.multinomial(torch.from_numpy(weights), k, again, generator=theirs)
                check(multinomial(ours, weights, k, again), drawn)
    for rate in (0, 0.1, 3, 9.99, 10, 25, 1000, 1e6):
        rates = np.full((30, 10), rate, name)
        check(poisson(ours, rates), torch.poisson(torch.from_numpy(rates), generator=theirs))
    for bounds in ((0, 1, -2, 2), (0, 0.02, -0.04, 0.04), (0, 1, 1, 1.5), (1, 2, -2, 2)):
        for n in (5, 20, 1000):
            blank = torch.empty(n, dtype=getattr(torch, name))
            drawn = torch.nn.init.trunc_normal_(blank, *bounds, generator=theirs)
            check(trunc_normal(ours, n, *bounds, dtype=name), drawn, ROUNDING[name], 0.1)


@pytest.mark.parity
def test_dropout_keeps_what_bernoulli_keeps(twins):
    torch, ours, _, _ = twins
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        kept = torch.nn.functional.dropout(torch.ones(40, 30), 0.3).numpy() != 0
        np.testing.assert_array_equal(ours.manual_seed(9).bernoulli(1 - 0.3, (40, 30), np.bool_), kept)
        np.testing.assert_array_equal(ours.get_state(), torch.get_rng_state().numpy())


@pytest.mark.parity
@pytest.mark.parametrize("steps", [0, 1, 623, 624, 625, 2000])
def test_states_move_both_ways_in_mid_stream(twins, steps):
    torch, ours, theirs, check = twins
    torch.rand(steps, generator=theirs)
    torch.randn(3, generator=theirs)
    ours.manual_seed(0).set_state(theirs.get_state().numpy())
    check(ours.normal(5), torch.randn(5, generator=theirs), 2e-6)
    ours.uniform(700)
    theirs.set_state(torch.from_numpy(ours.get_state()))
    check(ours.normal(20, dtype=np.float64), torch.randn(20, dtype=torch.float64, generator=theirs), 1e-13)
    assert theirs.initial_seed() == ours.initial_seed() == 1234


@pytest.mark.parity
@pytest.mark.parametrize("seed", [0, 1, -5, 2**31, 2**32 + 1, 2**64 - 1])
def test_seeds_mean_what_they_mean_in_pytorch(twins, seed):
    torch, ours, theirs, check = twins
    ours.manual_seed(seed), theirs.manual_seed(seed)
    np.testing.assert_array_equal(ours.get_state(), theirs.get_state().numpy())
    check(ours.uniform(3), torch.rand(3, generator=theirs))
    assert ours.initial_seed() == theirs.initial_seed()
    assert Generator().initial_seed() == torch.Generator().initial_seed()
