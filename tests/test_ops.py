"""Every op of the registry on its samples: values, dtypes, gradients of both orders, layouts, odd dtypes, memory."""

import math
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ringgrad
import ringgrad.nn.functional
from ringgrad.autograd import gradcheck, gradgradcheck
from ringgrad.autograd.engine import Variable, wrap
from ringgrad.autograd.op import registry, tensor_ops

sys.path.insert(0, str(Path(__file__).parent))
from op_samples import COMPLEX_OPS, INTEGER_ONLY, SAMPLES, A, Sample, settled

sys.path.pop(0)

OPS = sorted(set(registry) & set(SAMPLES))
DIFFERENTIABLE = [name for name in OPS if registry[name].differentiable and name not in COMPLEX_OPS]
DTYPES = ["float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]


def numpy_dtype(name: str) -> Any:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def build(
    sample: Sample, dtype: Any, grad: bool = False, copy: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    """The sample's call with Tensors for arrays; index tuples hold arrays, as ops take them."""

    def tensor(a: A) -> Any:
        array = a.make(dtype)
        t = wrap(array.copy() if copy and 0 in array.strides else array)
        if grad and a.kind not in ("fixed", "complex") and t.is_floating_point():
            t.requires_grad_()
        return t

    args, kw = sample.build(tensor)
    for key in ("index", "mask"):
        if key in kw:
            kw[key] = plain(kw[key])
    return args, kw


def plain(index: Any) -> Any:
    """Arrays in place of Tensors."""
    if isinstance(index, tuple):
        return tuple(plain(i) for i in index)
    return index.array if isinstance(index, Variable) else index


def invoke(name: str, args: list[Any], kw: dict[str, Any]) -> Any:
    args, kw = settled(args, kw, wrap)
    return tensor_ops[name](*args, **kw)


def run(name: str, args: list[Any], kw: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    out = invoke(name, args, kw)
    return [t.array for t in out] if isinstance(out, tuple) else [out.array]


def test_every_op_has_samples() -> None:
    assert set(registry) == set(SAMPLES), "an op without samples, or samples of no op"


def every_sample(names: list[str]) -> list[Any]:
    return [pytest.param(name, i, id=f"{name}-{i}") for name in names for i in range(len(SAMPLES[name]))]


@pytest.mark.parametrize("name", [n for n in OPS if n not in INTEGER_ONLY | COMPLEX_OPS])
def test_float32_is_float64_rounded(name: str) -> None:
    for sample in SAMPLES[name]:
        if "dtype" in sample.kw:
            continue
        args, kw = build(sample, "float32")
        got = run(name, args, kw)
        exact_args = [wrap(a.array.astype(np.float64)) if is_float(a) else a for a in args]
        want = run(name, exact_args, kw)
        assert len(got) == len(want)
        for a, b in zip(got, want):
            assert a.shape == b.shape
            if b.dtype == np.float64:
                assert a.dtype == np.float32, f"{name} of float32 is {a.dtype}: {sample}"
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=f"{name} {sample}")


def is_float(a: Any) -> bool:
    return isinstance(a, Variable) and a.is_floating_point()


NUMPYS = [
    "abs",
    "sign",
    "square",
    "exp",
    "expm1",
    "exp2",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "reciprocal",
]
NUMPYS += [
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "tanh",
    "floor",
    "ceil",
    "trunc",
    "isnan",
    "isinf",
    "isfinite",
]
NUMPYS += ["logical_not", "logical_and", "logical_or", "logical_xor", "maximum", "minimum"]
NUMPYS += ["floor_divide", "remainder", "fmod"]
NUMPY: dict[str, Any] = {name: getattr(np, name) for name in NUMPYS}
NUMPY |= {
    "neg": np.negative,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "rsqrt": lambda x: x**-0.5,
    "sigmoid": lambda x: 0.5 * (np.tanh(x / 2) + 1),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "round": lambda x, decimals=0: np.round(x, decimals),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "where": np.where,
    "clamp": lambda x, low=None, high=None: np.clip(x, low, high),
    "masked_fill": lambda x, mask, value: np.where(mask, value, x),
    "copy": lambda a, b: np.broadcast_to(b, a.shape),
    "clone": np.array,
    "contiguous": np.array,
    "alias": np.array,
    "cast": lambda x, dtype: x.astype(dtype),
    "sum_all": np.sum,
    "mean_all": lambda x: np.sum(x) / x.size,
    "sum": lambda x, dim, keepdim=False: np.sum(x, dim, keepdims=keepdim),
    "prod": lambda x, dim, keepdim=False: np.prod(x, dim, keepdims=keepdim),
    "mean": lambda x, dim, keepdim=False: (
        np.sum(x, dim, keepdims=keepdim) / np.sum(np.ones_like(x), dim, keepdims=keepdim)
    ),
    "amax": lambda x, dim, keepdim=False: np.max(x, dim, keepdims=keepdim),
    "amin": lambda x, dim, keepdim=False: np.min(x, dim, keepdims=keepdim),
    "argmax": lambda x, dim, keepdim=False: np.argmax(x, dim, keepdims=keepdim),
    "argmin": lambda x, dim, keepdim=False: np.argmin(x, dim, keepdims=keepdim),
    "all": lambda x, dim, keepdim=False: np.all(x, dim, keepdims=keepdim),
    "any": lambda x, dim, keepdim=False: np.any(x, dim, keepdims=keepdim),
    "logsumexp": lambda x, dim, keepdim=False: np.log(np.sum(np.exp(x), dim, keepdims=keepdim)),
    "norm2": lambda x, dim, keepdim=False: np.sqrt(np.sum(x**2, dim, keepdims=keepdim)),
    "cumsum": lambda x, dim: np.cumsum(x, dim) if x.ndim else x,
    "cumprod": lambda x, dim: np.cumprod(x, dim) if x.ndim else x,
    "reshape": np.reshape,
    "view": np.reshape,
    "permute": lambda x, dims: np.transpose(x, dims),
    "transpose": lambda x, dim0, dim1: np.swapaxes(x, dim0, dim1) if x.ndim else x,
    "unsqueeze": lambda x, dim: np.expand_dims(x, dim),
    "narrow": lambda x, dim, start, length: np.take(x, np.arange(start, start + length), dim),
    "cat": lambda *parts, dim: np.concatenate([p for p in parts if p.shape != (0,)], dim),
    "stack": lambda *parts, dim: np.stack(parts, dim),
    "flip": lambda x, dims: np.flip(x, dims),
    "roll": lambda x, shifts, dims=None: np.roll(x, shifts, dims),
    "diagonal": lambda x, offset=0, dim1=0, dim2=1: np.diagonal(x, offset, dim1, dim2),
    "tril": lambda x, diagonal=0: np.tril(x, diagonal),
    "triu": lambda x, diagonal=0: np.triu(x, diagonal),
    "getitem": lambda x, index: x[index],
    "index": lambda x, index: x[index],
    "gather": lambda x, dim, index: gather(x, dim, index),
    "index_select": lambda x, dim, index: np.take(x, index, dim),
    "matmul": np.matmul,
    "linear": lambda x, weight, bias=0.0: np.einsum("...i,oi->...o", x, weight) + bias,
}


def gather(x: Any, dim: int, index: Any) -> Any:
    out = np.zeros(index.shape)
    for place in np.ndindex(index.shape):
        source = list(place)
        if source:
            source[dim] = index[place]
        out[place] = x[tuple(source)]
    return out


@pytest.mark.parametrize("name", sorted(set(NUMPY) & set(OPS)))
def test_values_are_numpys(name: str) -> None:
    for sample in SAMPLES[name]:
        args, kw = build(sample, "float64")
        plain = [a.array if isinstance(a, Variable) else a for a in args]
        options = {k: v.array if isinstance(v, Variable) else v for k, v in kw.items()}
        with np.errstate(all="ignore"):
            want = NUMPY[name](*plain, **options)
        (got,) = run(name, args, kw)
        assert got.shape == np.shape(want), f"{name} {sample}"
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14, err_msg=f"{name} {sample}")


# The row padding_idx gets no gradient by definition.
PADDED = {("embedding", 1)}
JUMPS = {"floor", "ceil", "trunc", "round", "sign", "fmod", "remainder"}


def case(name: str, sample: Sample) -> tuple[Any, list[Any]] | None:
    """The call as a function of the inputs that want gradients; None where there are none."""
    args, kw = build(sample, "float64", grad=True, copy=True)
    inputs = [a for a in args if isinstance(a, Variable) and a.requires_grad and a.numel() <= 24]
    if not inputs:
        return None
    slots = [next((k for k, x in enumerate(inputs) if x is a), None) for a in args]

    def call(*xs: Any) -> Any:
        return invoke(name, [a if k is None else xs[k] for a, k in zip(args, slots)], kw)

    return call, inputs


@pytest.mark.parametrize(("name", "i"), every_sample(DIFFERENTIABLE))
def test_gradients_agree_with_differences(name: str, i: int) -> None:
    made = case(name, SAMPLES[name][i])
    if made is None or (name, i) in PADDED:
        return
    call, inputs = made
    if name == "cast" and call(*inputs).dtype is not ringgrad.float64:
        return  # differences in fewer digits say little
    assert gradcheck(call, inputs)


@pytest.mark.parametrize(("name", "i"), every_sample(DIFFERENTIABLE))
def test_gradients_of_gradients_agree_with_differences(name: str, i: int) -> None:
    made = case(name, SAMPLES[name][i])
    if made is None or name in JUMPS:
        return
    call, inputs = made
    out = call(*inputs)
    if name == "cast" and out.dtype is not ringgrad.float64:
        return
    outs = [t for t in (out if isinstance(out, tuple) else (out,)) if t.requires_grad]
    if outs:
        assert gradgradcheck(call, inputs, fast_mode=sum(t.numel() for t in (*outs, *inputs)) > 12)


@pytest.mark.parametrize("name", [n for n in OPS if n not in {"cast"} | INTEGER_ONLY | COMPLEX_OPS])
@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_half_types_round_once(name: str, low: str) -> None:
    """The result of a 16-bit input is the float32 result rounded."""
    dtype = numpy_dtype(low)
    for sample in SAMPLES[name]:
        args, kw = build(sample, dtype)
        wide = [wrap(a.array.astype(np.float32)) if is_float(a) else a for a in args]
        # numbers are rounded to 16 bits first, as a tensor of that type would be
        wide = [float(dtype.type(a)) if type(a) is float else a for a in wide]
        for got, want in zip(run(name, args, kw), run(name, wide, kw)):
            if want.dtype != np.float32:
                np.testing.assert_array_equal(got, want, err_msg=f"{name} {sample}")
                continue
            assert got.dtype == dtype, f"{name} of {low} is {got.dtype}"
            a, b = got.astype(np.float32), want.astype(dtype).astype(np.float32)
            np.testing.assert_array_equal(a, b, err_msg=f"{name} {sample}")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_half_gradients_are_near_float32s(name: str, low: str) -> None:
    dtype = numpy_dtype(low)
    sample = SAMPLES[name][0]
    if "dtype" in sample.kw:
        return
    found: list[list[Any]] = []
    for kind in (dtype, np.dtype("float32")):
        args, kw = build(sample, dtype)
        args = [wrap(a.array.astype(kind)).requires_grad_() if is_float(a) else a for a in args]
        out = invoke(name, args, kw)
        outs = [t for t in (out if isinstance(out, tuple) else (out,)) if t.requires_grad]
        if not outs:
            return
        seeds = [
            wrap(np.linspace(0.5, 1.5, t.numel()).reshape(t.shape).astype(dtype).astype(kind)) for t in outs
        ]
        ringgrad.autograd.backward(outs, seeds)
        found.append([a.grad.array for a in args if is_float(a) and a.grad is not None])
    step = 2**-10 if low == "float16" else 2**-7
    for got, want in zip(*found):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=4 * step, atol=4 * step, err_msg=name)


# Ops of layers are called for floating dtypes only, as the short ways of `sum` and `mean` are.
PLAIN = ("pointwise", "reduce", "shape", "index", "linear")
FLOATING = {n for n in OPS if registry[n].forward.__module__.rsplit(".", 1)[1] not in PLAIN} | {
    "sum_all",
    "mean_all",
}


@pytest.mark.parametrize("name", sorted(set(OPS) - FLOATING))
@pytest.mark.parametrize("kind", DTYPES)
def test_other_dtypes_work_or_say_why_not(name: str, kind: str) -> None:
    """No dtype gives nonsense: the result is that of float64 where the numbers are the same, or a clear error."""
    sample = SAMPLES[name][0]
    args, kw = build(sample, numpy_dtype(kind))
    try:
        got = run(name, args, kw)
    except (RuntimeError, TypeError) as error:
        assert str(error).startswith("["), f"{name} of {kind}: {error!r}"
        return
    if name in INTEGER_ONLY:
        assert numpy_dtype(kind).kind in "iub"
        return
    exact = [
        wrap(a.array.astype(np.float64)) if type(b) is A and b.kind in ("float", "nonzero") else a
        for a, b in zip(args, sample.args)
    ]
    want = run(name, exact, kw)
    for a, b in zip(got, want):
        if a.dtype.kind == "b" and b.dtype.kind == "f":
            b = b != 0
        if a.dtype.kind == "u" and (b < 0).any():
            b = b % (1 << 8 * a.dtype.itemsize)
        tolerance = {"float16": 2e-3, "bfloat16": 2e-2}.get(a.dtype.name, 1e-5)
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", OPS)
def test_only_views_share_memory(name: str) -> None:
    op = registry[name]
    for sample in SAMPLES[name]:
        args, kw = build(sample, "int64" if name in INTEGER_ONLY else "float64")
        before = [a.array.copy() for a in args if isinstance(a, Variable)]
        out = invoke(name, args, kw)
        for t in out if isinstance(out, tuple) else (out,):
            shared = any(isinstance(a, Variable) and np.shares_memory(t.array, a.array) for a in args)
            if op.view is False:
                assert not shared, f"{name} shares its input's memory: {sample}"
                assert t._version is not args[0]._version if isinstance(args[0], Variable) else True
                assert t.array.flags.writeable
            elif shared:
                assert t._version is args[0]._version, f"a view of {name} must share the version: {sample}"
        for was, a in zip(before, (a for a in args if isinstance(a, Variable))):
            np.testing.assert_array_equal(was, a.array, err_msg=f"{name} wrote into its input: {sample}")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_own_their_memory(name: str) -> None:
    """A leaf's gradient shares memory with nothing: not with other gradients, inputs, or the gradient sent in."""
    for sample in SAMPLES[name]:
        args, kw = build(sample, "float64", grad=True, copy=True)
        out = invoke(name, args, kw)
        outs = [t for t in (out if isinstance(out, tuple) else (out,)) if t.requires_grad]
        if not outs:
            continue
        seeds = [wrap(np.ones(t.shape)) for t in outs]
        ringgrad.autograd.backward(outs, seeds)
        grads = [a.grad.array for a in args if is_float(a) and a.grad is not None]
        others = [a.array for a in args if is_float(a)] + [t.array for t in (*outs, *seeds)]
        for i, g in enumerate(grads):
            assert g.flags.writeable
            assert not any(np.shares_memory(g, o) for o in grads[i + 1 :] + others), f"{name} {sample}"


@pytest.mark.parametrize("shape", [(70, 90), (6, 40, 5, 33), (4, 3, 1500), (3000,)])
def test_large_arrays_go_the_fast_ways_to_the_same_numbers(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    r = np.random.default_rng(8)
    a, b = (r.standard_normal(shape).astype(np.float32) * 3 for _ in "ab")
    a.reshape(-1)[:6] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42]
    b.reshape(-1)[:6] = [0.5, -0.5, np.inf, np.inf, 1.0, 2.0]
    calls: list[Any] = [
        lambda m, x, y: x % 2,
        lambda m, x, y: x % y,
        lambda m, x, y: m.logaddexp(x, y),
        lambda m, x, y: m.sign(y),
        lambda m, x, y: x.clamp(min=-1),
        lambda m, x, y: x.clamp(-1, 2),
        lambda m, x, y: m.nn.functional.hardswish(x),
        lambda m, x, y: m.nn.functional.hardsigmoid(x),
        lambda m, x, y: m.nn.functional.relu6(x),
        lambda m, x, y: m.nn.functional.huber_loss(x, m.zeros_like(y), reduction="none", delta=0.7),
        lambda m, x, y: m.nn.functional.smooth_l1_loss(x, m.zeros_like(y), reduction="none", beta=0.5),
        lambda m, x, y: m.nn.functional.prelu(x, m.tensor([0.3])),
        *(
            lambda m, x, y, d=d, f=f: getattr(m, f)(y, d)
            for d in range(len(shape))
            for f in ("softmax", "log_softmax", "amax", "amin", "prod", "sum")
        ),
        lambda m, x, y: y[6:].norm(),
        lambda m, x, y: (y[6:] if y.ndim == 1 else y[1:]).norm(dim=-1, keepdim=True),
        lambda m, x, y: y.sum(tuple(range(1, y.ndim)) if y.ndim > 1 else 0, keepdim=True),
        lambda m, x, y: y.movedim(-1, 0).reshape(-1),
        lambda m, x, y: m.roll(y, 3, -1),
        lambda m, x, y: x**3 + y**-2,
        lambda m, x, y: y[..., m.tensor([2, -1, 0])],
    ]
    for i, call in enumerate(calls):
        ours, theirs = ringgrad.tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
        with np.errstate(all="ignore"):
            got, want = call(ringgrad, ours, ringgrad.tensor(b)), call(torch, theirs, torch.tensor(b))
        np.testing.assert_allclose(
            got.detach().numpy(), want.detach().numpy(), rtol=2e-5, atol=1e-5, err_msg=f"call {i}"
        )


@pytest.mark.parametrize("size", [3, 5000])
def test_the_sign_of_nan_is_zero(size: int) -> None:
    x = ringgrad.full((size,), float("nan"))
    x[0] = -2
    for found in (ringgrad.sign(x), ringgrad.sgn(x), x.clone().sign_(), ringgrad.sign(x.half())):
        assert found[0] == -1 and not found[1:].any()
