"""Wrong input: every public function is called with inputs broken in many ways, beside PyTorch's.

Valid calls are found by trying; then one argument at a time is replaced: another rank, shape or dtype, no tensor,
a dimension or index out of range. Where both refuse, the exception's type must be PyTorch's (or, where PyTorch's is an
AttributeError by accident, TypeError) and the message must name a function. What differs is listed, by function.
"""

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.autograd.op import registry

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


class A:
    """A tensor argument for either library: values in (0.1, 0.9), or whole numbers below `high` (all `high` if < 0)."""

    def __init__(self, *shape, kind="float32", high=2):
        self.shape, self.kind, self.high = shape, kind, high

    def like(self, shape=None, kind=None, high=None):
        kind, high = kind or self.kind, self.high if high is None else high
        return A(*(self.shape if shape is None else shape), kind=kind, high=high)

    def make(self, t):
        draws = np.random.default_rng(sum(self.shape) + 1)
        if self.kind == "int64" and self.high < 0:
            values = np.full(self.shape, self.high)
        elif self.kind[0] in "iu":
            values = draws.integers(0, self.high, self.shape)
        elif self.kind == "bool":
            values = draws.random(self.shape) > 0.5
        else:
            values = draws.random(self.shape) * 0.8 + 0.1
        return t.tensor(np.asarray(values, self.kind))

    def __repr__(self):
        return f"{self.kind}{list(self.shape)}" + (f"<{self.high}" if self.kind == "int64" else "")


M, V, B, PICTURES = A(3, 3), A(3), A(2, 3, 3), A(2, 3, 6, 6)
SEQUENCES, VOLUMES = A(2, 3, 6), A(1, 2, 4, 4, 4)
INDEX, ROWS, MASK, LABELS = (
    A(3, 3, kind="int64", high=3),
    A(2, kind="int64"),
    A(3, 3, kind="bool"),
    A(3, kind="int64", high=3),
)
PATTERNS = [
    *(
        (M,),
        (M, 1),
        (M, M),
        (M, 0, ROWS),
        (M, 1, INDEX),
        (M, 1, INDEX, M),
        (M, M, M),
        (M, MASK),
        (M, MASK, 0.5),
    ),
    *((M, 2), (M, 0, 1), ([M, M],), ([M, M], 0), (V, V), (V,), (B, B), (B,), (PICTURES,), (PICTURES, 2)),
    *(
        (SEQUENCES, 2),
        (VOLUMES, 2),
        (PICTURES, A(4, 3, 3, 3)),
        (SEQUENCES, A(4, 3, 3)),
        (M, LABELS),
        (M, (3,)),
    ),
    *((M, A(2, 3)), (M, 0.5), (PICTURES, V, V), (M, 0, 1, 1), (INDEX,), (INDEX, M), (MASK,), (MASK, MASK)),
    *(
        (INDEX, INDEX),
        (M, (9,)),
        (M, V),
        (V, V, V),
        (M, (1, 0)),
        (M, 0, 2),
        (M, 1, 0.5),
        (M, M, V),
        (V, M, V),
    ),
    *((B, B, B), (M, [1, 2], 0)),
]
SPACES = {
    "torch": lambda t: t,
    "F": lambda t: t.nn.functional,
    "linalg": lambda t: t.linalg,
    "special": lambda t: t.special,
    "fft": lambda t: t.fft,
}
RANDOM = """
alpha_dropout alpha_dropout_ bernoulli binomial dropout dropout1d dropout2d dropout3d dropout_ empty empty_like
empty_permuted empty_strided feature_alpha_dropout feature_dropout gumbel_softmax multinomial normal poisson rand
rand_like randint randint_like randn randn_like randperm rrelu rrelu_
"""
NO_TENSORS = """
as_tensor asarray autocast bartlett_window blackman_window can_cast compile complex enable_grad fill_ finfo from_dlpack
from_numpy frombuffer hamming_window hann_window iinfo inference_mode initial_seed is_storage is_tensor kaiser_window
load manual_seed no_grad promote_types result_type save scalar_tensor seed sparse_coo_tensor tensor typename
use_deterministic_algorithms vmap zero_
"""


def functions():
    for space, of in SPACES.items():
        theirs, ours = of(torch), of(rg)
        for name in sorted(dir(ours)):
            mine, other = getattr(ours, name), getattr(theirs, name, None)
            if (
                name in RANDOM.split()
                or name in NO_TENSORS.split()
                or name.startswith(("_", "get_", "set_", "is_autocast"))
            ):
                continue
            if not callable(mine) or not callable(other) or isinstance(mine, type) or isinstance(other, type):
                continue
            if space == "torch" or other is not getattr(torch, name, None):
                yield f"{space}.{name}"


def filled(arg, t):
    if isinstance(arg, A):
        return arg.make(t)
    return type(arg)(filled(x, t) for x in arg) if isinstance(arg, list | tuple) else arg


def error(t, name, args):
    """What the call raises, or None."""
    space, _, function = name.partition(".")
    try:
        getattr(SPACES[space](t), function)(*filled(args, t))
    except Exception as raised:
        return raised
    return None


def broken(args):
    """The call with one argument replaced."""
    for i, arg in enumerate(args):
        for other in replacements(arg):
            yield (*args[:i], other, *args[i + 1 :])


def replacements(arg):
    if isinstance(arg, A):
        shape = arg.shape
        for other in (
            (),
            (0,),
            (1, *shape),
            (*shape[:-1], shape[-1] + 1),
            (int(np.prod(shape)),),
            (0, *shape[1:]),
        ):
            yield arg.like(shape=other)
        for kind in ("int64", "bool", "complex64", "float64"):
            if kind != arg.kind:
                yield arg.like(kind=kind)
        if arg.kind == "int64":
            yield from (arg.like(high=-50), arg.like(high=1000))
        yield from (None, "text", [1.0])
    elif isinstance(arg, float):
        yield from ("text", None)
    elif isinstance(arg, int):
        yield from (99, -99, 1.5, "text", None)
    elif isinstance(arg[0], A):
        yield from ([], None, [arg[0], A(2, 2, 2)], [arg[0], "text"])
    else:
        yield from ((), None, (99,) * len(arg), (*arg, 7), (*arg, "text"))


def differences(name):
    """Of all broken calls: other types, what PyTorch alone refuses, what we alone refuse, messages without a name."""
    found = {"type": [], "lenient": [], "strict": [], "unnamed": []}
    valid = [p for p in PATTERNS if error(torch, name, p) is None and error(rg, name, p) is None]
    for args in (b for p in valid[:2] for b in broken(p)):
        theirs, ours = error(torch, name, args), error(rg, name, args)
        if theirs is None or ours is None:
            if theirs is not None or ours is not None:
                found["strict" if theirs is None else "lenient"].append((args, theirs or ours))
            continue
        if not str(ours).startswith("["):
            found["unnamed"].append((args, ours))
        wanted = type(theirs)
        wanted = (
            TypeError
            if wanted is AttributeError
            else RuntimeError
            if wanted is NotImplementedError
            else wanted
        )
        if not isinstance(ours, wanted):
            found["type"].append((args, theirs, ours))
    return found, len(valid)


# Where a few broken calls get an exception of another type than PyTorch's.
OTHER_TYPE = """
torch.adjoint torch.baddbmm torch.clamp_max torch.clamp_max_ torch.clamp_min torch.clamp_min_
torch.cumulative_trapezoid torch.diag_embed torch.diagonal_scatter torch.dstack torch.einsum torch.histogram
torch.index_select torch.kthvalue torch.masked_select torch.moveaxis torch.movedim torch.mv torch.nanquantile
torch.narrow torch.norm torch.permute torch.quantile torch.repeat_interleave torch.rot90 torch.row_stack
torch.scatter torch.scatter_add torch.searchsorted torch.select torch.trapezoid torch.trapz torch.vstack
F.adaptive_avg_pool2d F.adaptive_avg_pool3d F.adaptive_max_pool1d F.adaptive_max_pool2d F.adaptive_max_pool3d
F.avg_pool2d F.batch_norm F.celu F.cross_entropy F.elu F.elu_ F.embedding F.embedding_bag F.glu F.group_norm
F.interpolate F.layer_norm F.multi_margin_loss F.nll_loss F.normalize F.rms_norm F.softplus F.threshold F.unfold
F.upsample F.upsample_bilinear F.upsample_nearest linalg.cond linalg.matrix_norm linalg.norm linalg.tensorinv
fft.fft fft.hfft fft.ifft fft.ihfft fft.irfft fft.rfft fft.rfftn
"""
# What we compute, or never look at, and PyTorch refuses: mostly dtypes that it has no kernel for.
LENIENT = """
torch.abs_ torch.addmm torch.addmv torch.addmv_ torch.allclose torch.baddbmm torch.bucketize torch.cartesian_prod
torch.cdist torch.chain_matmul torch.clamp_max_ torch.clamp_min_ torch.cross torch.cumulative_trapezoid
torch.diagonal_scatter torch.diff torch.fill torch.flatten torch.float_power torch.frexp torch.full_like
torch.gather torch.heaviside torch.histc torch.histogram torch.inner torch.isclose torch.isin torch.kthvalue
torch.ldexp torch.ldexp_ torch.lerp torch.logit torch.logsumexp torch.masked_fill torch.masked_select torch.max
torch.median torch.min torch.nan_to_num torch.nanmean torch.nanmedian torch.nanquantile torch.nansum torch.narrow
torch.pdist torch.polar torch.prod torch.quantile torch.resolve_conj torch.resolve_neg torch.roll torch.rot90
torch.round torch.scatter torch.searchsorted torch.select torch.slice_scatter torch.squeeze torch.tensordot
torch.topk torch.trace torch.trapezoid torch.trapz torch.tril torch.triu torch.unique torch.unique_consecutive
torch.vander F.adaptive_avg_pool2d F.adaptive_avg_pool3d F.adaptive_max_pool1d F.adaptive_max_pool2d
F.adaptive_max_pool3d F.avg_pool2d F.avg_pool3d F.batch_norm F.binary_cross_entropy
F.binary_cross_entropy_with_logits F.embedding_bag F.gaussian_nll_loss F.glu F.hinge_embedding_loss F.huber_loss
F.interpolate F.kl_div F.l1_loss F.local_response_norm F.max_pool1d F.max_pool2d F.max_pool3d F.multi_margin_loss
F.multilabel_soft_margin_loss F.soft_margin_loss F.threshold F.unfold F.upsample F.upsample_bilinear
F.upsample_nearest linalg.cross linalg.lstsq linalg.matrix_norm linalg.matrix_power linalg.matrix_rank linalg.norm
linalg.tensorinv linalg.vander linalg.vecdot special.logit special.logsumexp special.round fft.fft fft.fft2 fft.hfft
fft.ifft fft.ifft2 fft.ihfft fft.irfft fft.irfft2 fft.rfft fft.rfft2
"""
# What we refuse and PyTorch computes.
STRICT = """
torch.adjoint torch.argmax torch.argmin torch.corrcoef torch.cov torch.cummax torch.cummin
torch.cumulative_trapezoid torch.gather torch.logaddexp torch.logcumsumexp torch.max torch.min torch.sgn
torch.tensordot torch.trapezoid torch.trapz torch.unique_consecutive F.avg_pool2d F.avg_pool3d F.batch_norm
F.hardtanh_ F.instance_norm F.local_response_norm F.scaled_dot_product_attention F.soft_margin_loss F.unfold
linalg.cond
"""


@pytest.mark.parametrize("name", list(functions()))
def test_wrong_input_is_refused_as_pytorch_does(name):
    found, _ = differences(name)
    assert not found["unnamed"]
    assert name in OTHER_TYPE.split() or not found["type"]
    assert name in LENIENT.split() or not found["lenient"]
    assert name in STRICT.split() or not found["strict"]


def test_most_functions_are_called():
    assert len(list(functions())) > 480 and len(registry) > 200
