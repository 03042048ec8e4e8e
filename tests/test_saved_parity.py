"""Results and inputs written over before backward: where PyTorch allows it, so must we."""

import numpy as np
import pytest

import ringgrad

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

CASES = {
    "max_pool2d": ((2, 3, 6, 6), lambda t, x: t.nn.functional.max_pool2d(x, 2)),
    "max_pool1d": ((2, 3, 6), lambda t, x: t.nn.functional.max_pool1d(x, 2)),
    "amax_pool": ((2, 3, 6, 6), lambda t, x: t.nn.functional.adaptive_max_pool2d(x, 2)),
    "avg_pool2d": ((2, 3, 6, 6), lambda t, x: t.nn.functional.avg_pool2d(x, 2)),
    "aavg": ((2, 3, 6, 6), lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, 2)),
    "conv": ((2, 3, 6, 6), lambda t, x: t.nn.functional.conv2d(x, t.ones(4, 3, 3, 3))),
    "convT": ((2, 3, 6, 6), lambda t, x: t.nn.functional.conv_transpose2d(x, t.ones(3, 4, 3, 3))),
    "bn": ((4, 3, 6, 6), lambda t, x: t.nn.BatchNorm2d(3)(x)),
    "bneval": ((4, 3, 6, 6), lambda t, x: t.nn.BatchNorm2d(3).eval()(x)),
    "ln": ((4, 6), lambda t, x: t.nn.LayerNorm(6)(x)),
    "gn": ((4, 6, 3), lambda t, x: t.nn.GroupNorm(2, 6)(x)),
    "in": ((4, 6, 3, 3), lambda t, x: t.nn.InstanceNorm2d(6)(x)),
    "rms": ((4, 6), lambda t, x: t.nn.RMSNorm(6)(x)),
    "lrn": ((4, 6, 3, 3), lambda t, x: t.nn.LocalResponseNorm(2)(x)),
    "linear": ((4, 6), lambda t, x: t.nn.functional.linear(x, t.ones(3, 6), t.ones(3))),
    "emb": ((4, 6), lambda t, x: t.nn.functional.embedding(t.tensor([0, 1]), x)),
    "dropout": ((4, 6), lambda t, x: t.nn.functional.dropout(x, 0.5)),
    "softmax": ((4, 6), lambda t, x: t.nn.functional.softmax(x, 1)),
    "normalize": ((4, 6), lambda t, x: t.nn.functional.normalize(x)),
    "sdpa": ((1, 2, 4, 6), lambda t, x: t.nn.functional.scaled_dot_product_attention(x, x, x)),
    "interp": ((1, 2, 4, 6), lambda t, x: t.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")),
    "gridsample": (
        (1, 2, 4, 4),
        lambda t, x: t.nn.functional.grid_sample(x, t.zeros(1, 3, 3, 2), align_corners=False),
    ),
    "pad": ((1, 2, 4, 4), lambda t, x: t.nn.functional.pad(x, (1, 1))),
    "lstm": ((5, 2, 3), lambda t, x: t.nn.LSTM(3, 4)(x)[0]),
    "gru": ((5, 2, 3), lambda t, x: t.nn.GRU(3, 4)(x)[0]),
    "mha": ((5, 2, 4), lambda t, x: t.nn.MultiheadAttention(4, 2)(x, x, x)[0]),
    "matmul": ((3, 3), lambda t, x: x @ x),
    "norm": ((3, 3), lambda t, x: x.norm(dim=1)),
    "norm0": ((3, 3), lambda t, x: x.norm()),
    "cumsum": ((3, 3), lambda t, x: x.cumsum(0)),
    "cumprod": ((3, 3), lambda t, x: x.cumprod(0)),
    "prod": ((3, 3), lambda t, x: x.prod(0)),
    "max": ((3, 3), lambda t, x: x.max(0)[0]),
    "maxall": ((3, 3), lambda t, x: x.max()),
    "amax": ((3, 3), lambda t, x: x.amax(0)),
    "sort": ((3, 3), lambda t, x: x.sort(0)[0]),
    "topk": ((3, 3), lambda t, x: x.topk(2)[0]),
    "median": ((3, 3), lambda t, x: x.median(0)[0]),
    "std": ((3, 3), lambda t, x: x.std(0)),
    "var": ((3, 3), lambda t, x: x.var(0)),
    "lse": ((3, 3), lambda t, x: x.logsumexp(0)),
    "maximum": ((3, 3), lambda t, x: t.maximum(x, x * 2)),
    "where": ((3, 3), lambda t, x: t.where(x > 0, x, x * 2)),
    "gather": ((3, 3), lambda t, x: x.gather(0, t.tensor([[0, 1, 2]]))),
    "idxsel": ((3, 3), lambda t, x: x.index_select(0, t.tensor([0]))),
    "cdist": ((3, 3), lambda t, x: t.cdist(x, x * 2)),
    "cos": ((3, 3), lambda t, x: t.nn.functional.cosine_similarity(x, x * 2)),
    "pixelshuffle": ((1, 4, 3, 3), lambda t, x: t.nn.functional.pixel_shuffle(x, 2)),
    "glu": ((3, 4), lambda t, x: t.nn.functional.glu(x)),
    "prelu": ((3, 4), lambda t, x: t.nn.functional.prelu(x, t.ones(1))),
    "inv": ((3, 3), lambda t, x: t.linalg.inv(x)),
    "chol": ((3, 3), lambda t, x: t.linalg.cholesky(x @ x.T + t.eye(3))),
    "solve": ((3, 3), lambda t, x: t.linalg.solve(x, t.ones(3, 1))),
    "det": ((3, 3), lambda t, x: t.linalg.det(x)),
    "embbag": ((4, 6), lambda t, x: t.nn.functional.embedding_bag(t.tensor([0, 1]), x, t.tensor([0]))),
    "einsum": ((3, 3), lambda t, x: t.einsum("ij,jk->ik", x, x)),
    "unfold": ((1, 2, 4, 4), lambda t, x: t.nn.functional.unfold(x, 2)),
    "fold": ((1, 8, 9), lambda t, x: t.nn.functional.fold(x, (4, 4), 2)),
    "upsample_nearest": ((1, 2, 4, 4), lambda t, x: t.nn.functional.interpolate(x, scale_factor=2)),
    "mse": ((3, 3), lambda t, x: t.nn.functional.mse_loss(x, x * 2, reduction="none")),
    "bce": (
        (3, 3),
        lambda t, x: t.nn.functional.binary_cross_entropy_with_logits(x, t.ones(3, 3), reduction="none"),
    ),
    "ce": ((3, 3), lambda t, x: t.nn.functional.cross_entropy(x, t.tensor([0, 1, 2]), reduction="none")),
    "div": ((3, 3), lambda t, x: x / (x + 3)),
    "pow": ((3, 3), lambda t, x: x**2),
    "pow2": ((3, 3), lambda t, x: 2**x),
    "powt": ((3, 3), lambda t, x: x.abs() ** x),
    "mul": ((3, 3), lambda t, x: x * x),
    "abs": ((3, 3), lambda t, x: x.abs()),
    "clamp": ((3, 3), lambda t, x: x.clamp(0, 1)),
}
ACTIVATIONS = (
    "relu leaky_relu elu selu celu gelu silu mish softplus hardtanh relu6 hardswish hardsigmoid "
    " sigmoid tanh logsigmoid softsign tanhshrink softshrink hardshrink threshold rrelu"
)
for n in ACTIVATIONS.split():
    CASES["F." + n] = (
        (3, 4),
        (lambda t, x, n=n: getattr(t.nn.functional, n)(x, *((0.1, 0.0) if n == "threshold" else ()))),
    )
POINTWISE = (
    "exp log sqrt rsqrt sin cos tan asin acos atan sinh cosh asinh atanh erf erfinv expm1 log1p log2 "
    " log10 exp2 reciprocal square neg sign floor frac trunc lgamma digamma sigmoid tanh"
)
for n in POINTWISE.split():
    CASES[n] = ((3, 4), (lambda t, x, n=n: getattr(t, n)(x)))


def gradient(t, call, array, what):
    """The gradient of the sum, or None where backward refuses."""
    t.manual_seed(0)
    x = t.tensor(array, requires_grad=True)
    inner = x * 1
    y = call(t, inner)
    total = y.sum() * 1
    (y if what == "result" else inner).mul_(2)
    try:
        (y.sum() if what == "result" else total).backward()
    except RuntimeError as error:
        assert "overwritten" in str(error) or "modified by an inplace" in str(error), error
        return None
    return x.grad.numpy()


@pytest.mark.parametrize("what", ["result", "input"])
@pytest.mark.parametrize("name", CASES)
def test_where_pytorch_lets_write_we_do(name, what):
    shape, call = CASES[name]
    array = (np.random.default_rng(0).random(shape) * 0.8 + 0.1).astype(np.float32)
    theirs = gradient(torch, call, array, what)
    if theirs is not None:
        ours = gradient(ringgrad, call, array, what)
        assert ours is not None
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
