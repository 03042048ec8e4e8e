"""What is printed, beside PyTorch: tensors, modules, optimizers and their state, and the names of graph nodes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.tensor import dtypes

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def printed_under_pytorchs_name() -> Iterator[None]:
    dtypes.library[0] = "torch"
    yield
    dtypes.library[0] = "ringgrad"
    for t in (torch, rg):
        t.set_printoptions(profile="default")


# ---- tensors

DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
DTYPES += ["complex64", "complex128"]
SHAPES: list[tuple[int, ...]] = [
    (),
    (0,),
    (3,),
    (30,),
    (2, 3),
    (2, 0),
    (2, 3, 4),
    (1, 1, 1),
    (1100,),
    (7, 200),
]
KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "plain": lambda a, rng: a,
    "large": lambda a, rng: a * 1e5,
    "small": lambda a, rng: a * 1e-6,
    "mixed": lambda a, rng: a * 10.0 ** rng.integers(-3, 6, a.shape),
    "whole": lambda a, rng: np.round(a * 1e6),
    "nan": lambda a, rng: np.where(rng.random(a.shape) < 0.3, np.nan, a),
    "inf": lambda a, rng: np.where(rng.random(a.shape) < 0.3, np.inf, np.round(a * 3)),
    "zero": lambda a, rng: a * 0,
}


def numbers(kind: str, shape: tuple[int, ...], dtype: str) -> Any:
    rng = np.random.default_rng(sum(shape) + len(kind))
    a = np.asarray(KINDS[kind](rng.standard_normal(shape), rng))
    if dtype.startswith("complex"):
        return a + 1j * rng.standard_normal(shape)
    if dtype[0] in "iu":
        return (np.abs(np.nan_to_num(a, posinf=3)) * 10).astype(np.int64) % 100
    return a > 0 if dtype == "bool" else a


def same_text(kind: str, shape: tuple[int, ...], dtype: str, **options: Any) -> None:
    a = numbers(kind, shape, dtype)
    theirs, ours = (t.tensor(a).to(getattr(t, dtype)) for t in (torch, rg))
    assert repr(ours) == repr(theirs) and str(ours) == str(theirs), (kind, shape, dtype, options)
    if theirs.is_floating_point():
        assert repr(ours.requires_grad_()) == repr(theirs.requires_grad_())
        assert repr(ours * 2) == repr(theirs * 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors(dtype: str) -> None:
    for kind in KINDS if dtype[0] not in "iub" or dtype == "bfloat16" else ["plain"]:
        for shape in SHAPES:
            same_text(kind, shape, dtype)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2},
        {"sci_mode": True},
        {"sci_mode": False},
        {"threshold": 5, "edgeitems": 1},
        {"linewidth": 40},
        {"profile": "full"},
        {"profile": "short"},
    ],
    ids=str,
)
def test_print_options(options: dict[str, Any]) -> None:
    for t in (torch, rg):
        t.set_printoptions(**options)
    for dtype in ("float32", "complex64", "int64", "bool"):
        for kind in ("plain", "mixed", "nan") if dtype[0] in "fc" else ["plain"]:
            for shape in [(), (30,), (7, 20), (2, 3, 4)]:
                same_text(kind, shape, dtype, **options)


def test_the_things_beside_tensors() -> None:
    for show in (
        lambda t: [
            t.float32,
            t.bfloat16,
            t.bool,
            t.Size([2, 3]),
            t.device("cpu"),
            t.strided,
            t.contiguous_format,
        ],
        lambda t: [str(t.float64), str(t.device("cpu")), str(t.ones(2).shape), str(t.strided)],
        lambda t: [t.finfo(t.float32), t.iinfo(t.int8), t.nn.Parameter(t.ones(2)), t.ones(2).type()],
    ):
        assert repr(show(rg)) == repr(show(torch))


# ---- modules

SIZES: dict[str, Any] = {
    "num_heads": 2, "nhead": 2, "num_groups": 2, "groups": 2, "kernel_size": 3, "normalized_shape": [4],
    "output_size": 3, "padding": 1, "threshold": 0.1, "value": 0.2, "num_layers": 2, "upscale_factor": 2,
    "downscale_factor": 2, "norm_type": 2,
}  # fmt: skip
MADE: dict[str, Callable[[Any], Any]] = {
    "TransformerEncoder": lambda n: n.TransformerEncoder(n.TransformerEncoderLayer(8, 2, 16), 2),
    "TransformerDecoder": lambda n: n.TransformerDecoder(n.TransformerDecoderLayer(8, 2, 16), 2),
    "Transformer": lambda n: n.Transformer(8, 2, 1, 1, 16),
    "Sequential": lambda n: n.Sequential(n.Linear(2, 3), n.ReLU()),
    "ModuleList": lambda n: n.ModuleList([*(n.Linear(2, 3) for _ in range(3)), n.ReLU()]),
    "ModuleDict": lambda n: n.ModuleDict({"a": n.ReLU(), "b": n.Linear(2, 2)}),
    "Unflatten": lambda n: n.Unflatten(1, (2, 2)),
    "AdaptiveLogSoftmaxWithLoss": lambda n: n.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10]),
    "LSTM": lambda n: n.LSTM(3, 4, 2, bidirectional=True, dropout=0.1, proj_size=2),
    "GRU": lambda n: n.GRU(3, 4, batch_first=True),
    "RNN": lambda n: n.RNN(3, 4, bias=False),
}
ABSTRACT = {"Module", "Container", "RNNBase", "RNNCellBase", "DataParallel"}
ABSENT = {"CrossMapLRN2d", "FractionalMaxPool2d", "FractionalMaxPool3d", "LinearCrossEntropyLoss"}


def made(library: Any, name: str) -> Any:
    if name in MADE:
        return MADE[name](library.nn)
    parameters = list(inspect.signature(getattr(torch.nn, name).__init__).parameters.values())[1:]
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return getattr(library.nn, name)(**{name: SIZES.get(name, 4) for name in wanted})


MODULES = [
    name
    for name, value in vars(torch.nn).items()
    if inspect.isclass(value) and issubclass(value, torch.nn.Module) and name not in ABSTRACT
]


def test_modules() -> None:
    assert {name for name in MODULES if not hasattr(rg.nn, name)} <= ABSENT and len(MODULES) > 140
    for name in set(MODULES) - ABSENT:
        theirs, ours = made(torch, name), made(rg, name)
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict()), name
        for listed in ("named_parameters", "named_buffers", "named_modules"):
            names = [[key for key, _ in getattr(m, listed)()] for m in (theirs, ours)]
            assert names[1] == names[0], (name, listed)


# ---- optimizers and schedulers

OPTIMIZERS = [
    name
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value)
    and issubclass(value, torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam")
]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    seen = []
    for t in (torch, rg):
        p = t.nn.Parameter(t.ones(3, 2))
        optimizer = getattr(t.optim, name)([p], lr=0.1)

        def closure(optimizer: Any = optimizer, p: Any = p) -> Any:
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        state = optimizer.state_dict()
        kept = {key: set(value) for key, value in state["state"].items()}
        seen.append([repr(optimizer), list(state), [list(group) for group in state["param_groups"]], kept])
    assert seen[1] == seen[0]


SCHEDULERS: dict[str, tuple[Any, ...]] = {
    "StepLR": (2,),
    "MultiStepLR": ([1, 2],),
    "ExponentialLR": (0.9,),
    "LambdaLR": (lambda epoch: 1,),
    "MultiplicativeLR": (lambda epoch: 1,),
    "CosineAnnealingLR": (3,),
    "CosineAnnealingWarmRestarts": (3,),
    "OneCycleLR": (0.1, 10),
    "CyclicLR": (0.1, 0.2),
    "PolynomialLR": (3,),
    "LinearLR": (),
    "ConstantLR": (),
    "ReduceLROnPlateau": (),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name: str) -> None:
    seen = []
    for t in (torch, rg):
        optimizer = t.optim.SGD([t.nn.Parameter(t.ones(3))], lr=0.1, momentum=0.9)
        scheduler = getattr(t.optim.lr_scheduler, name)(optimizer, *SCHEDULERS[name])
        optimizer.step()
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
        seen.append([scheduler.state_dict(), optimizer.state_dict()["param_groups"]])
    assert seen[1] == seen[0]


# ---- nodes of the graph

CALLS = """
x+x x-x x*x x/x -x x**2 x**x 2**x x.sum() x.sum(0) x.mean() x.mean(1) x.exp() x.log1p() x.abs() x.sqrt()
x.square() x@x x@x[0] x[0]@x[0] x.mm(x) x.matmul(b) b@b x.reshape(9) x.view(9) x.t().contiguous()
x.transpose(0,1) x.permute(1,0) x[0] x[1:] x[:,1] x[0,1:] x[...,None] x[:,None,0] x[i] x[x>0] x.select(0,1)
x.narrow(0,1,1) x.unsqueeze(0) x.expand(2,3,3) x.clone() x.flip(0) x.cumsum(0) x.tril() x.relu() x.sigmoid()
x.softmax(0) x.std() x.var(0) x.amax(0) x.gather(0,j) x.index_select(0,i) x.masked_fill(x>0,1) x.where(x>0,x)
x.clamp(0,1) x.norm() x.roll(1) x.prod() x.diagonal() x.unbind()[0] x.split(1)[0] x.chunk(3)[0] x.repeat(2,1)
x.double() x.fmod(2) x.remainder(x) x.logsumexp(0) x.erf() x.atan2(x) F.linear(x,x) F.linear(x,x,x[0])
F.linear(b,x,x[0]) F.linear(b,x) F.cross_entropy(x,i) F.nll_loss(x,i) F.mse_loss(x,x) F.log_softmax(x,0)
F.layer_norm(x,(3,)) F.gelu(x) F.silu(x) F.elu(x) F.leaky_relu(x) F.softplus(x) F.logsigmoid(x) F.conv2d(p,p)
F.max_pool2d(p,2) F.avg_pool2d(p,2) F.pad(x,(1,1)) F.embedding(i,x) F.unfold(p,2) F.l1_loss(x,x)
F.batch_norm(x,None,None,training=True) F.kl_div(x,x) F.hardtanh(x) F.conv_transpose2d(p,p) t.cat([x,x])
t.stack([x,x]) t.einsum("ij,jk->ik",x,x) t.bmm(b,b) t.outer(x[0],x[0]) t.maximum(x,x) t.linalg.inv(x)
t.linalg.det(x) t.linalg.qr(x)[0] t.linalg.svd(x)[0] t.linalg.eigh(x)[0] t.linalg.solve(x,x)
t.linalg.cholesky(x@x.T) t.fft.rfft(x) t.fft.ifft(x+0j) t.special.i0e(x) t.special.entr(x) t.diag_embed(x)
t.lgamma(x) t.rad2deg(x)
"""
# Made of several ops here: the last one names the node.
SEVERAL = ["x.matmul(b)", "x.repeat(2,1)", "t.bmm(b,b)", 't.einsum("ij,jk->ik",x,x)']


def test_nodes() -> None:
    differ = []
    for expression in CALLS.split():
        names = []
        for t in (torch, rg):
            t.manual_seed(0)
            b, p = (t.rand(*shape, requires_grad=True) for shape in [(2, 3, 3), (2, 2, 6, 6)])
            x = t.nn.Parameter(t.rand(3, 3) + t.eye(3))
            around = {"x": x, "b": b, "p": p, "F": t.nn.functional, "t": t, "i": t.tensor([0, 1, 2])}
            around["j"] = t.tensor([[0, 1, 2]])
            y = eval(expression, around)
            names.append(y.grad_fn.name())
        if names[1] != names[0]:
            differ.append((expression, *names))
    assert [found for found in differ if found[0] not in SEVERAL] == []
