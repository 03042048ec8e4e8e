"""Every op of the registry on its samples beside PyTorch's function: values, dtypes, shapes, gradients, errors."""

import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ringgrad
from ringgrad.autograd.engine import Variable, wrap
from ringgrad.autograd.op import registry, tensor_ops

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))
from op_samples import SAMPLES, Sample  # noqa: E402

sys.path.pop(0)
pytestmark = pytest.mark.parity

DTYPES = ["float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]
BF16 = np.dtype(ml_dtypes.bfloat16)


def to_torch(array: Any) -> Any:
    """The same numbers and layout as a torch tensor."""
    if array.dtype == BF16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    if 0 in array.strides and array.size:
        return torch.from_numpy(array[:1].copy()).expand(array.shape)
    return torch.from_numpy(array)


def to_numpy(t: Any) -> np.ndarray[Any, Any]:
    t = t.detach()
    return t.float().numpy().astype(BF16) if t.dtype is torch.bfloat16 else t.numpy()


def zeros(like: Any, shape: Any) -> Any:
    return torch.zeros(shape, dtype=like.dtype)


def put(x: Any, index: Any, value: Any) -> Any:
    y = x.clone()
    y[index] = value
    return y


def adjoint(f: Any) -> Any:
    """The transpose of a linear function of a tensor of `shape`, through PyTorch's own autograd."""

    def call(g: Any, shape: Any, **kw: Any) -> Any:
        x = torch.zeros(shape, dtype=g.dtype, requires_grad=True)
        return torch.autograd.grad(f(x, **kw), x, g, create_graph=True)[0]

    return call


def all_dims(f: Any) -> Any:
    """sum, prod, ... with dim None or several where PyTorch's function takes them one by one."""

    def call(x: Any, dim: Any, keepdim: bool = False) -> Any:
        dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else dim
        for d in sorted((d % x.ndim for d in dims), reverse=True):
            x = f(x, d, True)
        return x if keepdim else x.squeeze(tuple(d % x.ndim for d in dims)) if dims else f(x)

    return call


# How PyTorch spells what is not one of its functions under the same name and arguments.
SPELLING: dict[str, Any] = {
    "sum_all": lambda x: torch.sum(x),
    "mean_all": lambda x: torch.mean(x),
    "prod": all_dims(lambda x, *a: torch.prod(x, *a)),
    "amax": lambda x, dim, keepdim=False: torch.amax(x, () if dim is None else dim, keepdim),
    "amin": lambda x, dim, keepdim=False: torch.amin(x, () if dim is None else dim, keepdim),
    "logsumexp": lambda x, dim, keepdim=False: torch.logsumexp(
        x, tuple(range(x.ndim)) if dim is None else dim, keepdim
    ),
    "norm2": lambda x, dim, keepdim=False: torch.linalg.vector_norm(x, 2, dim, keepdim),
    "argmax": lambda x, dim, keepdim=False: torch.argmax(x, dim, keepdim),
    "argmin": lambda x, dim, keepdim=False: torch.argmin(x, dim, keepdim),
    "cast": lambda x, dtype: x.to(getattr(torch, dtype.name)),
    "contiguous": lambda x: x.contiguous(),
    "alias": lambda x: x.view_as(x),
    "copy": lambda a, b: a.clone().copy_(b),
    "view": lambda x, shape: x.view(shape),
    "expand": lambda x, shape: x.expand(shape),
    "sum_to_shape": lambda x, shape: x.sum_to_size(shape),
    "linear": lambda x, weight, bias=None: torch.nn.functional.linear(x, weight, bias),
    "split": lambda x, sizes, dim: torch.split(x, sizes if isinstance(sizes, int) else list(sizes), dim),
    "squeeze": lambda x, dim=None: torch.squeeze(x) if dim is None else torch.squeeze(x, dim),
    "cat": lambda *parts, dim: torch.cat(parts, dim),
    "stack": lambda *parts, dim: torch.stack(parts, dim),
    "getitem": lambda x, index: x[index],
    "index": lambda x, index: x[index],
    "setitem": lambda x, value, index: put(x, index, value),
    "erase": lambda x, index: put(x, index, 0),
    "narrow_adjoint": lambda g, dim, start, **kw: adjoint(lambda x: x.narrow(dim, start, g.shape[dim]))(
        g, **kw
    ),
    "diagonal_adjoint": adjoint(torch.diagonal),
    "getitem_adjoint": adjoint(lambda x, index, basic: x[index]),
    "scatter_into_zeros": adjoint(torch.gather),
    "index_add_zeros": adjoint(torch.index_select),
    "gather": lambda x, dim, index: torch.gather(x, dim, index),
    "pick": lambda x, dim, index: torch.gather(x, dim, index.unsqueeze(dim)).squeeze(dim),
    "index_select": lambda x, dim, index: torch.index_select(x, dim, index),
}
# Ops of neural networks are compared where their layers are tested.
HERE = [f"ringgrad.tensor.ops.{name}" for name in ("pointwise", "reduce", "shape", "index", "linear")]
REGISTERED = {name for name, op in registry.items() if op.forward.__module__ in HERE}
COMPARED = sorted(name for name in REGISTERED & set(SAMPLES) if name in SPELLING or hasattr(torch, name))


def peer(name: str) -> Any:
    return SPELLING.get(name) or getattr(torch, name)


def plain(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(plain(i) for i in index)
    return index.array if isinstance(index, Variable) else index


def pair(sample: Sample, dtype: Any, grad: bool = False) -> tuple[Any, Any]:
    """The sample's call for us and for PyTorch."""
    args, kw = sample.build(lambda a: wrap(a.make(dtype)))
    targs, tkw = sample.build(lambda a: to_torch(a.make(dtype)))
    if "index" in kw:
        kw["index"] = plain(kw["index"])
        tkw["index"] = as_torch_index(tkw["index"])
    if grad:
        for a, t in zip(args, targs):
            if isinstance(a, Variable) and a.is_floating_point():
                a.requires_grad_()
                t.requires_grad_()
    return (args, kw), (targs, tkw)


def as_torch_index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(as_torch_index(i) for i in index)
    return torch.from_numpy(index) if isinstance(index, np.ndarray) else index


def outputs(out: Any) -> list[Any]:
    return list(out) if isinstance(out, tuple | list) else [out]


def test_every_op_is_compared() -> None:
    assert set(COMPARED) == REGISTERED, "an op that PyTorch has under another name needs a line in SPELLING"


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("name", COMPARED)
def test_values_and_gradients(name: str) -> None:
    for sample in SAMPLES[name]:
        kind = "int64" if name.startswith("bitwise") else "float64"
        (args, kw), (targs, tkw) = pair(sample, kind, grad=True)
        try:
            want = outputs(peer(name)(*targs, **tkw))
        except (RuntimeError, TypeError, IndexError):
            if any(isinstance(a, int | float) for a in args):
                continue  # numbers are taken in more places here
            with pytest.raises((RuntimeError, TypeError, IndexError)):
                tensor_ops[name](*args, **kw)
            continue
        got = outputs(tensor_ops[name](*args, **kw))
        assert len(got) == len(want)
        for a, b in zip(got, want):
            assert tuple(a.shape) == tuple(b.shape), f"{name} {sample}"
            assert str(a.dtype).split(".")[1] == str(b.dtype).split(".")[1], f"{name} {sample}"
            np.testing.assert_allclose(
                a.array,
                to_numpy(b),
                rtol=1e-6 if name == "erf" else 1e-11,
                atol=1e-12,
                err_msg=f"{name} {sample}",
            )
            if name != "floor_divide":  # PyTorch records it, and fails in backward
                assert a.requires_grad == b.requires_grad, f"{name} {sample}"
        pairs = [(a, b) for a, b in zip(got, want) if a.requires_grad]
        if not pairs or name == "floor_divide":
            continue
        seeds = [np.cos(np.arange(a.numel())).reshape(a.shape).astype(a.array.dtype) for a, _ in pairs]
        ringgrad.autograd.backward([a for a, _ in pairs], [wrap(s) for s in seeds])
        torch.autograd.backward([b for _, b in pairs], [torch.from_numpy(s) for s in seeds])
        for i, (a, t) in enumerate(zip(args, targs)):
            if not isinstance(a, Variable) or not a.requires_grad:
                continue
            ours = np.zeros(a.shape) if a.grad is None else a.grad.array
            theirs = np.zeros(a.shape) if t.grad is None else t.grad.numpy()
            np.testing.assert_allclose(
                ours, theirs, rtol=1e-10, atol=1e-12, err_msg=f"gradient {i} of {name} {sample}"
            )


# Called for floating dtypes only: by `sum` and `mean`, and by the gradients of broadcasting.
FLOATING = {"sum_all", "mean_all", "sum_to_shape"}


@pytest.mark.parametrize("name", sorted(set(COMPARED) - FLOATING))
@pytest.mark.parametrize("kind", DTYPES)
def test_dtypes(name: str, kind: str) -> None:
    """What PyTorch computes, this computes, in the same dtype; what it refuses may work here or be an error."""
    dtype = BF16 if kind == "bfloat16" else np.dtype(kind)
    sample = SAMPLES[name][0]
    (args, kw), (targs, tkw) = pair(sample, dtype)
    try:
        want = outputs(peer(name)(*targs, **tkw))
    except (RuntimeError, TypeError):
        return
    got = outputs(tensor_ops[name](*args, **kw))
    step = {"float16": 2e-3, "bfloat16": 1.6e-2, "float64": 1e-6 if name == "erf" else 1e-11}.get(kind, 1e-5)
    for a, b in zip(got, want):
        assert str(a.dtype).split(".")[1] == str(b.dtype).split(".")[1], f"{name} of {kind}: {sample}"
        ours, theirs = a.array.astype(np.float64), to_numpy(b).astype(np.float64)
        np.testing.assert_allclose(ours, theirs, rtol=step, atol=step, err_msg=f"{name} of {kind}")


BAD: list[tuple[str, Any]] = [
    ("add of shapes", lambda m: m.zeros(2, 3) + m.zeros(4)),
    ("matmul of shapes", lambda m: m.zeros(2, 3) @ m.zeros(2, 3)),
    ("matmul of dtypes", lambda m: m.zeros(2, 3) @ m.zeros(3, 2, dtype=m.float64)),
    ("matmul of 0-d", lambda m: m.tensor(1.0) @ m.zeros(1)),
    ("mm of vectors", lambda m: m.mm(m.zeros(2), m.zeros(2))),
    ("bmm of matrices", lambda m: m.bmm(m.zeros(2, 2), m.zeros(2, 2))),
    ("dot of lengths", lambda m: m.dot(m.zeros(2), m.zeros(3))),
    ("dim out of range", lambda m: m.zeros(2, 3).sum(dim=2)),
    ("negative dim out of range", lambda m: m.zeros(2, 3).softmax(dim=-3)),
    ("a dim twice", lambda m: m.zeros(2, 3).sum(dim=(0, 0))),
    ("view of size", lambda m: m.zeros(2, 3).view(4)),
    ("view of transposed", lambda m: m.zeros(2, 3).t().view(6)),
    ("reshape of size", lambda m: m.zeros(2, 3).reshape(4, -1)),
    ("two -1", lambda m: m.zeros(2, 3).reshape(-1, -1)),
    ("permute of too few", lambda m: m.zeros(2, 3).permute(0)),
    ("permute twice", lambda m: m.zeros(2, 3).permute(0, 0)),
    ("expand of 2", lambda m: m.zeros(2, 3).expand(4, 3)),
    ("expand to fewer", lambda m: m.zeros(2, 3).expand(3)),
    ("cat of ndim", lambda m: m.cat([m.zeros(2, 3), m.zeros(2)])),
    ("cat of sizes", lambda m: m.cat([m.zeros(2, 3), m.zeros(2, 4)])),
    ("cat of 0-d", lambda m: m.cat([m.tensor(1.0), m.tensor(2.0)])),
    ("stack of shapes", lambda m: m.stack([m.zeros(2), m.zeros(3)])),
    ("split of sizes", lambda m: m.zeros(5).split([2, 2])),
    ("unbind of 0-d", lambda m: m.tensor(1.0).unbind()),
    ("narrow too far", lambda m: m.zeros(3).narrow(0, 2, 2)),
    ("index too far", lambda m: m.zeros(3)[3]),
    ("too many indices", lambda m: m.zeros(3)[0, 0]),
    ("float index", lambda m: m.zeros(3)[m.tensor([0.5])]),
    ("mask of another shape", lambda m: m.zeros(3)[m.zeros(2, dtype=m.bool) == 0]),
    ("string index", lambda m: m.zeros(3)["a"]),
    ("negative step", lambda m: m.zeros(3)[::-1]),
    ("gather out of range", lambda m: m.gather(m.zeros(3), 0, m.tensor([3]))),
    ("gather of float index", lambda m: m.gather(m.zeros(3), 0, m.tensor([0.5]))),
    ("gather of ndim", lambda m: m.gather(m.zeros(2, 3), 0, m.tensor([0]))),
    ("index_select of a matrix", lambda m: m.index_select(m.zeros(3), 0, m.zeros(2, 2, dtype=m.int64))),
    ("where of a float condition", lambda m: m.where(m.zeros(2), m.zeros(2), m.zeros(2))),
    ("masked_fill of a float mask", lambda m: m.zeros(2).masked_fill(m.zeros(2), 1.0)),
    ("mean of integers", lambda m: m.arange(3).mean()),
    ("var of integers", lambda m: m.arange(3).var()),
    ("negate a bool", lambda m: -m.tensor([True])),
    ("subtract bools", lambda m: m.tensor([True]) - m.tensor([True])),
    ("bits of floats", lambda m: m.zeros(2) & m.zeros(2)),
    ("not of floats", lambda m: m.bitwise_not(m.zeros(2))),
    ("integers to a negative power", lambda m: m.arange(1, 3) ** -1),
    ("integers by zero", lambda m: m.arange(3) // m.zeros(3, dtype=m.int64)),
    ("amax of nothing", lambda m: m.zeros(0).amax()),
    ("argmax of nothing", lambda m: m.zeros(0).argmax()),
    ("max of nothing", lambda m: m.zeros(0).max()),
    ("clamp without bounds", lambda m: m.zeros(2).clamp()),
    ("item of two", lambda m: m.zeros(2).item()),
    ("bool of two", lambda m: bool(m.zeros(2))),
    ("len of 0-d", lambda m: len(m.tensor(1.0))),
    ("iterate 0-d", lambda m: list(m.tensor(1.0))),
    ("float of two", lambda m: float(m.zeros(2))),
    ("ragged data", lambda m: m.tensor([[1, 2], [3]])),
    ("data of strings", lambda m: m.tensor("abc")),
    ("negative size", lambda m: m.zeros(-1)),
    ("float size", lambda m: m.zeros(1.5)),
    ("add a string", lambda m: m.zeros(2) + "a"),
    ("sum of a number", lambda m: m.sum(3)),
    ("exp of a list", lambda m: m.exp([1.0])),
    ("in-place of shape", lambda m: m.zeros(2).add_(m.zeros(3, 2))),
    ("in-place of dtype", lambda m: m.arange(3).add_(0.5)),
    ("in-place division of integers", lambda m: m.arange(3).div_(2)),
    ("write to expanded", lambda m: m.zeros(1).expand(3).add_(1)),
    ("set a wrong shape", lambda m: m.zeros(3).__setitem__(slice(None), m.zeros(2))),
    ("requires_grad of integers", lambda m: m.arange(3).requires_grad_()),
    ("tensor of integers with grad", lambda m: m.tensor([1], requires_grad=True)),
    ("numpy of grad", lambda m: m.zeros(2, requires_grad=True).numpy()),
    ("backward without grad", lambda m: m.zeros(()).backward()),
    ("backward of two", lambda m: m.zeros(2, requires_grad=True).mul(2).backward()),
    ("grad of shape", lambda m: m.zeros(2, requires_grad=True).mul(2).backward(m.zeros(3))),
    ("set grad of shape", lambda m: setattr(m.zeros(2, requires_grad=True), "grad", m.zeros(3))),
    ("leaf in place", lambda m: m.zeros(2, requires_grad=True).add_(1)),
    ("chunk into none", lambda m: m.zeros(2).chunk(0)),
    ("diagonal of one dim", lambda m: m.zeros(2).diagonal()),
    ("tril of a vector", lambda m: m.zeros(2).tril()),
    ("t of three dims", lambda m: m.zeros(2, 2, 2).t()),
    ("flatten backwards", lambda m: m.zeros(2, 2).flatten(1, 0)),
    ("unflatten of size", lambda m: m.zeros(4).unflatten(0, (3, 2))),
    ("repeat of too few", lambda m: m.zeros(2, 2).repeat(2)),
    ("arange backwards", lambda m: m.arange(3, 0, 1)),
    ("arange without step", lambda m: m.arange(0, 3, 0)),
    ("linspace of -1", lambda m: m.linspace(0, 1, -1)),
    ("unknown device", lambda m: m.zeros(2, device="nowhere")),
    ("randperm of -1", lambda m: m.randperm(-1)),
    ("randint of an empty range", lambda m: m.randint(3, 3, (2,))),
    ("bernoulli of 2", lambda m: m.full((2,), 2.0).bernoulli()),
    ("multinomial of negatives", lambda m: m.multinomial(m.tensor([-1.0, 1.0]), 1)),
    ("normal of negative std", lambda m: m.normal(0.0, -1.0, (2,))),
]


@pytest.mark.parametrize(("what", "call"), BAD, ids=[what for what, _ in BAD])
def test_errors_are_of_pytorchs_type(what: str, call: Any) -> None:
    with pytest.raises(Exception) as theirs:
        call(torch)
    with pytest.raises(Exception) as ours:
        call(ringgrad)
    kind = RuntimeError if theirs.type is NotImplementedError else theirs.type
    assert isinstance(ours.value, kind), f"{theirs.type.__name__}: {theirs.value}"
    text = str(ours.value)
    assert text.startswith("[") or "argument" in text, f"the error must name who raises it, came {text!r}"


# ---- edges: ties, zeros, infinities, nothing, and the ways of grad

EDGES: dict[str, Any] = {}


def edge(f: Any) -> Any:
    EDGES[f.__name__] = f
    return f


def leaf(m: Any, *values: float) -> Any:
    return m.tensor(list(values), dtype=m.float64, requires_grad=True)


@edge
def hook_then_inplace(m: Any) -> Any:
    x = leaf(m, 1.0, 2.0)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.mul_(3)
    y.sum().backward()
    return seen, x.grad.tolist()


@edge
def hook_after_inplace(m: Any) -> Any:
    x = leaf(m, 1.0, 2.0)
    y = x * 2
    y.mul_(3)
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y * 5).sum().backward()
    return seen, x.grad.tolist()


@edge
def retain_view(m: Any) -> Any:
    x = leaf(m, 1.0, 2.0)
    y = x * 2
    v = y[0]
    v.retain_grad()
    (v * 5 + y.sum()).backward()
    return v.grad.tolist()


@edge
def grad_twice_same_input(m: Any) -> Any:
    x = leaf(m, 2.0)
    a, b = m.autograd.grad((x * x).sum(), (x, x))
    return a.tolist(), b.tolist()


@edge
def grad_list_outputs(m: Any) -> Any:
    x = leaf(m, 2.0)
    return [g.tolist() for g in m.autograd.grad([x.sum(), (x * x).sum()], [x])]


@edge
def zero_dim_broadcast(m: Any) -> Any:
    x = m.tensor(2.0, dtype=m.float64, requires_grad=True)
    y = leaf(m, 1.0, 2.0, 3.0)
    (x * y + x).sum().backward()
    return x.grad.tolist(), y.grad.tolist()


@edge
def x_pow_x(m: Any) -> Any:
    x = leaf(m, 0.5, 2.0, 0.0)
    (x**2 + 2**x).sum().backward()
    return x.grad.tolist()


@edge
def pow_zero(m: Any) -> Any:
    x = leaf(m, 0.0, 1.0)
    y = leaf(m, 0.0, 2.0)
    (x**y).sum().backward()
    return x.grad.tolist(), y.grad.tolist()


@edge
def max_ties(m: Any) -> Any:
    x = leaf(m, 2.0, 2.0, 1.0)
    x.max().backward()
    a = x.grad.tolist()
    x.grad = None
    x.amax(0).backward()
    b = x.grad.tolist()
    x.grad = None
    x.max(0)[0].backward()
    return a, b, x.grad.tolist()


@edge
def clamp_ties(m: Any) -> Any:
    x = leaf(m, 1.0, 2.0, 3.0)
    x.clamp(1, 2).sum().backward()
    return x.grad.tolist()


@edge
def abs_zero(m: Any) -> Any:
    x = leaf(m, 0.0, -1.0)
    x.abs().sum().backward()
    return x.grad.tolist()


@edge
def sqrt_zero(m: Any) -> Any:
    x = leaf(m, 0.0)
    x.sqrt().sum().backward()
    return x.grad.tolist()


@edge
def norm_zero(m: Any) -> Any:
    x = leaf(m, 0.0, 0.0)
    x.norm().backward()
    return x.grad.tolist()


@edge
def std_const(m: Any) -> Any:
    x = leaf(m, 1.0, 1.0)
    x.std().backward()
    return x.grad.tolist()


@edge
def prod_zeros(m: Any) -> Any:
    x = leaf(m, 0.0, 2.0, 0.0)
    x.prod().backward()
    return x.grad.tolist()


@edge
def cumprod_zeros(m: Any) -> Any:
    x = leaf(m, 1.0, 0.0, 2.0, 3.0)
    x.cumprod(0).sum().backward()
    return x.grad.tolist()


@edge
def logsumexp_inf(m: Any) -> Any:
    x = leaf(m, -float("inf"), -float("inf"))
    return x.logsumexp(0).tolist()


@edge
def mean_empty(m: Any) -> Any:
    return str(m.zeros(0).mean().item()), m.zeros(0).sum().item(), m.zeros(0).prod().item()


@edge
def softmax_inf(m: Any) -> Any:
    return m.tensor([1e30, -1e30, 0.0]).softmax(0).tolist()


@edge
def setitem_const_requires(m: Any) -> Any:
    y = m.zeros(3, dtype=m.float64)
    x = leaf(m, 1.0)
    y[0] = x[0]
    return y.requires_grad, y.is_leaf


@edge
def iadd_leaf_nograd(m: Any) -> Any:
    x = leaf(m, 1.0)
    with m.no_grad():
        x += 1
    return x.is_leaf, x.tolist()


@edge
def int_div(m: Any) -> Any:
    return (
        (m.tensor([7, -7]) // 2).tolist(),
        (m.tensor([7, -7]) % 3).tolist(),
        m.div(m.tensor([7, -7]), 2, rounding_mode="trunc").tolist(),
        m.fmod(m.tensor([7, -7]), 3).tolist(),
    )


@edge
def float_div(m: Any) -> Any:
    return (m.tensor([7.0, -7.0]) // 2).tolist(), (m.tensor([7.0, -7.0, float("inf")]) % 3).tolist()


@edge
def shifts(m: Any) -> Any:
    return (m.tensor([1, 2]) << 2).tolist(), (m.tensor([8, -8]) >> 1).tolist()


@edge
def round_half(m: Any) -> Any:
    return m.tensor([0.5, 1.5, 2.5, -0.5]).round().tolist(), m.round(
        m.tensor([1.25, 1.35]), decimals=1
    ).tolist()


@edge
def argmax_nan(m: Any) -> Any:
    return m.tensor([1.0, float("nan"), 3.0]).argmax().item(), str(m.tensor([1.0, float("nan")]).max().item())


@edge
def maximum_nan(m: Any) -> Any:
    return str(m.maximum(m.tensor(float("nan")), m.tensor(1.0)).item())


@edge
def clamp_min_gt_max(m: Any) -> Any:
    return m.tensor([1.0, 2.0, 3.0]).clamp(5, 2).tolist()


@edge
def sum_dtype(m: Any) -> Any:
    return str(m.ones(3, dtype=m.int8).sum(dtype=m.float32).dtype).split(".")[1]


@edge
def sum_bool(m: Any) -> Any:
    return m.tensor([True, True]).sum().item()


@edge
def mean_dtype(m: Any) -> Any:
    return m.arange(4).mean(dtype=m.float32).item()


@edge
def var_one(m: Any) -> Any:
    return str(m.ones(1).var().item()), m.ones(1).var(correction=0).item(), m.ones(3).var(False).item()


@edge
def half_sum(m: Any) -> Any:
    return m.full((5000,), 1.0, dtype=m.float16).sum().item()


@edge
def cumsum_int(m: Any) -> Any:
    return m.ones(3, dtype=m.uint8).cumsum(0).tolist()


@edge
def squeeze_multi(m: Any) -> Any:
    return list(m.zeros(1, 2, 1, 3).squeeze((0, 2)).shape), list(m.zeros(2, 1).squeeze(0).shape)


@edge
def where_scalar(m: Any) -> Any:
    return m.where(m.tensor([True, False]), 1, 2).tolist(), str(
        m.where(m.tensor([True]), 1.0, m.zeros(1, dtype=m.int64)).dtype
    ).split(".")[1]


@edge
def flip_grad(m: Any) -> Any:
    x = leaf(m, 1.0, 2.0, 3.0)
    (x.flip(0) * m.arange(3)).sum().backward()
    return x.grad.tolist()


@edge
def double_backward_hooks(m: Any) -> Any:
    x = leaf(m, 2.0)
    (g,) = m.autograd.grad((x**3).sum(), x, create_graph=True)
    seen = []
    g.register_hook(lambda q: seen.append(q.tolist()))
    g.sum().backward()
    return seen, x.grad.tolist()


@edge
def accumulate_create(m: Any) -> Any:
    x = leaf(m, 2.0)
    (x**2).sum().backward(create_graph=True)
    (x**2).sum().backward()
    return x.grad.tolist()


@edge
def grad_is_same_object(m: Any) -> Any:
    x = leaf(m, 2.0)
    (x**2).sum().backward()
    g = x.grad
    (x**2).sum().backward()
    return g is x.grad, g.tolist()


@edge
def custom_grad_set(m: Any) -> Any:
    x = leaf(m, 2.0)
    g = m.ones(1, dtype=m.float64)
    x.grad = g
    (x**2).sum().backward()
    return g.tolist()


@edge
def tensor_of_tensors_grad(m: Any) -> Any:
    x = leaf(m, 1.0, 2.0)
    return m.stack([x[0], x[1] * 2]).requires_grad


@edge
def sigmoid_ext(m: Any) -> Any:
    return m.tensor([-1000.0, 1000.0]).sigmoid().tolist()


@edge
def matmul_shapes(m: Any) -> Any:
    out = []
    for a, b in (
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((4, 2, 3), (3,)),
        ((3,), (4, 3, 2)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
        ((2, 3, 0), (0, 2)),
    ):
        x = m.ones(a, requires_grad=True)
        y = m.ones(b, requires_grad=True)
        z = x @ y
        z.sum().backward()
        out.append(
            (
                tuple(z.shape),
                tuple(x.grad.shape),
                tuple(y.grad.shape),
                x.grad.sum().item(),
                y.grad.sum().item(),
            )
        )
    return out


@edge
def int_matmul(m: Any) -> Any:
    return (m.arange(6).reshape(2, 3) @ m.arange(3)).tolist()


@edge
def isclose_nan(m: Any) -> Any:
    return m.isclose(
        m.tensor([float("nan"), 1.0]), m.tensor([float("nan"), 1.0 + 1e-9]), equal_nan=True
    ).tolist()


@edge
def equal_shapes(m: Any) -> Any:
    return m.equal(m.zeros(2), m.zeros(3)), m.allclose(m.zeros(2), m.zeros(1))


@edge
def contains(m: Any) -> Any:
    return 1.0 in m.ones(2), (m.tensor(3) in [m.tensor(3)])


@edge
def unflatten(m: Any) -> Any:
    return list(m.zeros(6, 2).unflatten(0, (2, -1)).shape)


@edge
def chunk_uneven(m: Any) -> Any:
    return [len(c) for c in m.arange(7).chunk(3)], [len(c) for c in m.arange(4).chunk(3)]


@edge
def type_str(m: Any) -> Any:
    return m.zeros(1).type(), m.zeros(1).double().type(), m.zeros(1).dtype.itemsize


@edge
def expand_inplace_grad(m: Any) -> Any:
    x = leaf(m, 1.0)
    x.expand(3).sum().backward()
    x.grad.add_(1)
    return x.grad.tolist()


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.filterwarnings("ignore:.*degrees of freedom", "ignore:.*create_graph")
def test_edges(name: str) -> None:
    ours, theirs = EDGES[name](ringgrad), EDGES[name](torch)
    np.testing.assert_equal(flat(ours), flat(theirs))


def flat(result: Any) -> list[Any]:
    """Numbers rounded to what both compute alike, in order."""
    if isinstance(result, tuple | list):
        return [x for part in result for x in flat(part)]
    return [float(f"{result:.5g}") if isinstance(result, float) else result]
