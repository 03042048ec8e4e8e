"""Sorting, scattering, rearranging, statistics, special functions beside PyTorch: values, types, gradients, errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad as rg

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

Case = tuple[str, Callable[..., Any], tuple[Any, ...]]


def data(spec: Any, seed: int = 0) -> Any:
    """An array from a shape (normal numbers), or an array as it is."""
    if isinstance(spec, np.ndarray):
        return spec
    return np.random.default_rng(seed).normal(size=spec).astype(np.float64)


def flat(result: Any) -> list[Any]:
    if isinstance(result, tuple | list) or type(result).__module__.startswith("torch.return_types"):
        return [part for r in result for part in flat(r)]
    return [result]


def array_of(t: Any) -> Any:
    if isinstance(t, torch.Tensor):
        return t.resolve_conj().numpy(force=True)
    return t.detach().numpy() if isinstance(t, rg.Tensor) else t


def loss(parts: list[Any], lib: Any) -> Any:
    total = None
    for k, t in enumerate(parts):
        if not hasattr(t, "requires_grad") or not t.requires_grad:
            continue
        if t.is_complex():
            t = lib.view_as_real(t.resolve_conj())
        w = np.random.default_rng(k + 7).uniform(0.5, 1.5, size=tuple(t.shape))
        term = (t * lib.tensor(w, dtype=t.dtype)).sum()
        total = term if total is None else total + term
    return total


def run(
    fn: Callable[..., Any], arrays: list[Any], lib: Any, second: bool
) -> tuple[list[Any], list[Any], list[Any]]:
    """Outputs, gradients, and gradients of the gradients' sum of squares."""
    inputs = [lib.tensor(a) for a in arrays]
    leaves = [t.requires_grad_() for t in inputs if t.is_floating_point() or t.is_complex()]
    out = flat(fn(lib, *inputs))
    total = loss(out, lib)
    if total is None:
        return out, [], []
    grads = lib.autograd.grad(total, leaves, allow_unused=True, create_graph=second)
    if not second:
        return out, list(grads), []
    square = sum((g * g).sum() for g in grads if g is not None and g.requires_grad)
    if not hasattr(square, "requires_grad") or not square.requires_grad:
        return out, list(grads), []
    return out, list(grads), list(lib.autograd.grad(square, leaves, allow_unused=True))


def compare(ours: list[Any], theirs: list[Any], what: str, tol: float) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        zero_a = a is None or not isinstance(a, rg.Tensor)
        if b is None or a is None:
            rest = b if a is None else a
            assert rest is None or not np.abs(array_of(rest)).any(), what
            continue
        if zero_a:
            assert a == b, what
            continue
        x, y = array_of(a), array_of(b)
        assert x.shape == y.shape, f"{what}: {x.shape} {y.shape}"
        assert x.dtype == y.dtype, f"{what}: {x.dtype} {y.dtype}"
        np.testing.assert_allclose(x, y, rtol=tol, atol=tol, err_msg=what)


def check(fn: Callable[..., Any], specs: tuple[Any, ...], tol: float = 1e-7, second: bool = True) -> None:
    arrays = [data(s, i) for i, s in enumerate(specs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = run(fn, arrays, torch, second)
    ours = run(fn, arrays, rg, second)
    for what, a, b in zip(("value", "gradient", "second gradient"), ours, theirs):
        compare(a, b or [None] * len(a), what, tol)


I = np.array([[0, 1, 2], [2, 0, 1]])
I1 = np.array([2, 0, 2, 1])
B = np.array([[True, False, True], [False, True, True]])
POS = np.random.default_rng(3).uniform(0.1, 3, (3, 4))
UNIT = np.random.default_rng(4).uniform(-0.9, 0.9, (3, 4))
INTS = np.random.default_rng(5).integers(0, 5, (4, 6))
NANS = np.where(np.random.default_rng(6).uniform(size=(3, 5)) < 0.2, np.nan, data((3, 5), 6))
GAPS = np.array([0.0, -1.5, 2.0, np.inf, -np.inf, np.nan])
Z = data((3, 4)) + 1j * data((3, 4), 1)

CASES: list[Case] = [
    ("sort", lambda T, x: T.sort(x), ((3, 5),)),
    ("sort descending", lambda T, x: x.sort(0, descending=True), ((3, 5),)),
    ("sort ties", lambda T, x: T.sort(x, dim=1, stable=True), (INTS,)),
    ("sort ties down", lambda T, x: T.sort(x, dim=1, descending=True, stable=True), (INTS,)),
    ("sort nan", lambda T, x: T.sort(x, descending=True), (GAPS,)),
    ("sort 0-d", lambda T, x: T.sort(x), ((),)),
    ("sort empty", lambda T, x: T.sort(x), ((3, 0),)),
    ("sort large", lambda T, x: T.sort((x * 100).round(), stable=True), ((9000,),)),
    ("sort large unique", lambda T, x: T.sort(x, dim=0), ((3000, 2),)),
    ("sort turned", lambda T, x: T.sort(x.t()), ((3, 5),)),
    ("argsort", lambda T, x: T.argsort(x, dim=0, descending=True), ((4, 3),)),
    ("msort", lambda T, x: T.msort(x), ((4, 3),)),
    ("topk", lambda T, x: T.topk(x, 3), ((4, 7),)),
    ("topk smallest", lambda T, x: x.topk(2, dim=0, largest=False), ((4, 7),)),
    ("topk many", lambda T, x: T.topk(x, k=5, dim=-1), ((3, 500),)),
    ("topk many smallest", lambda T, x: T.topk(x, k=5, dim=-1, largest=False), ((3, 500),)),
    ("topk 0-d", lambda T, x: T.topk(x, 1), ((),)),
    ("kthvalue", lambda T, x: T.kthvalue(x, 2), ((4, 5),)),
    ("kthvalue keepdim", lambda T, x: T.kthvalue(x, 70, 0, True), ((100, 2),)),
    ("median", lambda T, x: T.median(x), ((4, 5),)),
    ("median dim", lambda T, x: T.median(x, 1), ((4, 6),)),
    ("median nan", lambda T, x: T.median(x, 1, True), (NANS,)),
    ("nanmedian", lambda T, x: T.nanmedian(x, 1), (NANS,)),
    ("nanmedian all", lambda T, x: T.nanmedian(x), (NANS,)),
    ("median ints", lambda T, x: T.median(x), (INTS,)),
    ("median empty", lambda T, x: T.median(x), ((0,),)),
    ("mode", lambda T, x: T.mode(x, 1)[0], (INTS,)),
    ("cummax", lambda T, x: T.cummax(x, 1), ((3, 6),)),
    ("cummax ties", lambda T, x: T.cummax(x, 1), (INTS,)),
    ("cummin", lambda T, x: T.cummin(x, 0), ((3, 6),)),
    ("cummax nan", lambda T, x: T.cummax(x, 1), (NANS,)),
    ("aminmax", lambda T, x: T.aminmax(x), ((3, 6),)),
    ("aminmax dim", lambda T, x: T.aminmax(x, dim=1, keepdim=True), ((3, 6),)),
    ("unique", lambda T, x: T.unique(x), (INTS,)),
    ("unique all", lambda T, x: T.unique(x, return_inverse=True, return_counts=True), (INTS,)),
    ("unique dim", lambda T, x: T.unique(x % 2, dim=0, return_inverse=True, return_counts=True), (INTS,)),
    (
        "unique_consecutive",
        lambda T, x: T.unique_consecutive(x // 3, return_inverse=True, return_counts=True),
        (INTS,),
    ),
    ("unique_consecutive dim", lambda T, x: x.unique_consecutive(dim=1, return_counts=True), (INTS // 4,)),
    ("searchsorted", lambda T, x, v: T.searchsorted(x.sort(-1)[0], v), ((3, 6), (3, 4))),
    ("searchsorted right", lambda T, x: T.searchsorted(T.arange(5), x, right=True, out_int32=True), (INTS,)),
    ("searchsorted number", lambda T, x: T.searchsorted(x, 2.5), (np.arange(5.0),)),
    ("bucketize", lambda T, x: T.bucketize(x, T.tensor([-1.0, 0.0, 1.0])), ((3, 4),)),
    ("isin", lambda T, x: T.isin(x, T.tensor([1, 3])), (INTS,)),
    ("bincount", lambda T, x: T.bincount(x.flatten(), minlength=9), (INTS,)),
    ("bincount weights", lambda T, x: T.bincount(x.flatten(), weights=T.ones(24) * 0.5), (INTS,)),
    ("histc", lambda T, x: T.histc(x, bins=4, min=-1, max=1), ((50,),)),
    ("histc of the data", lambda T, x: T.histc(x, 5), ((50,),)),
    ("histogram", lambda T, x: tuple(T.histogram(x.detach(), 5)), ((50,),)),
    ("count_nonzero", lambda T, x: T.count_nonzero(x, dim=1), (INTS,)),
    ("argwhere", lambda T, x: T.argwhere(x), (B,)),
    ("quantile", lambda T, x: T.quantile(x, 0.3), ((4, 5),)),
    (
        "quantile several",
        lambda T, x: T.quantile(x, T.tensor([0.1, 0.5, 1.0], dtype=T.float64), dim=1),
        ((4, 5),),
    ),
    ("quantile keepdim", lambda T, x: x.quantile(0.6, dim=0, keepdim=True), ((4, 5),)),
    ("quantile lower", lambda T, x: T.quantile(x, 0.3, 1, interpolation="lower"), ((4, 5),)),
    ("quantile higher", lambda T, x: T.quantile(x, 0.3, 1, interpolation="higher"), ((4, 5),)),
    ("quantile nearest", lambda T, x: T.quantile(x, 0.3, 1, interpolation="nearest"), ((4, 5),)),
    ("quantile midpoint", lambda T, x: T.quantile(x, 0.3, 1, interpolation="midpoint"), ((4, 5),)),
    ("quantile nan", lambda T, x: T.quantile(x, 0.5, 1), (NANS,)),
    ("nanquantile", lambda T, x: T.nanquantile(x, 0.4, 1), (NANS,)),
    # ---- writing at positions
    ("scatter", lambda T, x, s: T.scatter(x, 0, T.tensor(I), s), ((3, 4), (2, 3))),
    ("scatter part of src", lambda T, x, s: T.scatter(x, 1, T.tensor(I), s.detach()), ((3, 4), (4, 5))),
    ("scatter number", lambda T, x: x.scatter(1, T.tensor(I), 2.5), ((2, 4),)),
    ("scatter value", lambda T, x: x.scatter(dim=1, index=T.tensor(I), value=1.5), ((2, 4),)),
    (
        "scatter add",
        lambda T, x, s: x.detach().scatter(1, T.tensor(I % 2), s.detach(), reduce="add"),
        ((2, 4), (2, 3)),
    ),
    ("scatter_", lambda T, x, s: x.clone().scatter_(0, T.tensor(I), s), ((3, 4), (2, 3))),
    ("scatter_ one hot", lambda T: T.zeros(4, 3).scatter_(1, T.tensor([[0], [2], [1], [1]]), 1), ()),
    (
        "scatter_ multiply",
        lambda T, x: x.detach().scatter_(1, T.tensor(I), 2.0, reduce="multiply"),
        ((2, 4),),
    ),
    ("scatter_add", lambda T, x, s: T.scatter_add(x, 1, T.tensor(I % 2), s), ((2, 4), (2, 3))),
    ("scatter_add_", lambda T, x, s: x.clone().scatter_add_(0, T.tensor(I1), s), ((3,), (4,))),
    ("index_add", lambda T, x, s: T.index_add(x, 1, T.tensor(I1), s, alpha=2), ((3, 5), (3, 4))),
    ("index_add_", lambda T, x, s: x.clone().index_add_(0, T.tensor(I1), s), ((3, 5), (4, 5))),
    ("index_add ints", lambda T, x: T.index_add(x, 0, T.tensor([1, 1]), x[:2]), (INTS,)),
    ("index_copy", lambda T, x, s: T.index_copy(x, 1, T.tensor([3, 0]), s), ((3, 5), (3, 2))),
    ("index_copy_", lambda T, x, s: x.clone().index_copy_(0, T.tensor([2, 0]), s), ((3, 5), (2, 5))),
    ("index_fill", lambda T, x: T.index_fill(x, 1, T.tensor([-1, 0]), 2.0), ((3, 5),)),
    ("index_fill_", lambda T, x: x.clone().index_fill_(0, T.tensor([1]), 2.0), ((3, 5),)),
    ("index_put", lambda T, x, v: T.index_put(x, (T.tensor(I1), T.tensor([0, 1, 2, 3])), v), ((3, 5), (4,))),
    (
        "index_put_ adding",
        lambda T, x, v: x.clone().index_put_((T.tensor(I1),), v, accumulate=True),
        ((3, 5), (5,)),
    ),
    (
        "index_reduce",
        lambda T, x, s: x.detach().index_reduce(0, T.tensor(I1), s.detach(), "amax"),
        ((3, 5), (4, 5)),
    ),
    ("masked_scatter", lambda T, x, s: T.masked_scatter(x, T.tensor(B), s), ((2, 3), (7,))),
    ("masked_scatter_", lambda T, x, s: x.clone().masked_scatter_(T.tensor(B), s), ((2, 3), (3, 3))),
    ("take", lambda T, x: T.take(x, T.tensor([[0, -1], [5, 5]])), ((3, 4),)),
    ("put", lambda T, x, s: T.put(x, T.tensor([1, -1]), s), ((3, 4), (2,))),
    ("put adding", lambda T, x, s: T.put(x, T.tensor([1, 1]), s, accumulate=True), ((3, 4), (2,))),
    ("put_", lambda T, x, s: x.clone().put_(T.tensor([1, 11]), s), ((3, 4), (2,))),
    ("take_along_dim", lambda T, x: T.take_along_dim(x, T.tensor([[1], [0]]), 1), ((2, 4),)),
    ("take_along_dim flat", lambda T, x: T.take_along_dim(x, T.tensor([3, 3, 1])), ((2, 4),)),
    ("select_scatter", lambda T, x, s: T.select_scatter(x, s, 1, 2), ((2, 4), (2,))),
    ("slice_scatter", lambda T, x, s: T.slice_scatter(x, s, 1, 0, 4, 2), ((2, 5), (2, 2))),
    ("diagonal_scatter", lambda T, x, s: T.diagonal_scatter(x, s, 1), ((3, 4), (3,))),
    ("fill_diagonal_", lambda T, x: x.clone().fill_diagonal_(3.0), ((3, 4),)),
    ("fill_diagonal_ wrapped", lambda T, x: x.detach().fill_diagonal_(3.0, wrap=True), ((9, 3),)),
    ("repeat_interleave", lambda T, x: T.repeat_interleave(x, 2), ((2, 3),)),
    ("repeat_interleave dim", lambda T, x: x.repeat_interleave(3, dim=1), ((2, 3),)),
    ("repeat_interleave counts", lambda T, x: x.repeat_interleave(T.tensor([0, 2, 1]), dim=1), ((2, 3),)),
    ("repeat_interleave alone", lambda T: T.repeat_interleave(T.tensor([1, 0, 3])), ()),
    # ---- rearranging
    ("movedim", lambda T, x: T.movedim(x, (0, 1), (-1, 0)), ((2, 3, 4),)),
    ("rot90", lambda T, x: [T.rot90(x, k, [0, 2]) for k in range(-1, 4)], ((2, 3, 4),)),
    ("fliplr", lambda T, x: [T.fliplr(x), T.flipud(x)], ((2, 3),)),
    ("ravel", lambda T, x: T.ravel(x.t()), ((2, 3),)),
    ("tile", lambda T, x: [T.tile(x, (2,)), x.tile((2, 1, 2))], ((2, 3),)),
    ("tensor_split", lambda T, x: [*T.tensor_split(x, 3), *T.tensor_split(x, (1, 4), dim=1)], ((7, 5),)),
    ("hsplit", lambda T, x: [*T.hsplit(x, 2), *T.vsplit(x, [1]), *T.dsplit(x, 1)], ((2, 4, 3),)),
    ("hstack", lambda T, x, y: [T.hstack([x, y]), T.vstack([x, y]), T.dstack([x, y])], ((2, 3), (2, 3))),
    ("hstack vectors", lambda T, x, y: [T.hstack((x, y)), T.vstack((x, y)), T.dstack((x, y))], ((3,), (3,))),
    ("column_stack", lambda T, x, y: T.column_stack([x, y]), ((3,), (3, 2))),
    ("atleast", lambda T, x: [T.atleast_1d(x), T.atleast_2d(x), T.atleast_3d(x)], ((),)),
    ("atleast of several", lambda T, x, y: [*T.atleast_2d(x, y), *T.atleast_3d([x, y])], ((3,), (2, 2))),
    ("broadcast_tensors", lambda T, x, y: T.broadcast_tensors(x, y), ((3, 1), (4,))),
    ("meshgrid", lambda T, x, y: T.meshgrid(x, y, indexing="ij"), ((3,), (4,))),
    ("meshgrid xy", lambda T, x, y, z: T.meshgrid([x, y, z], indexing="xy"), ((3,), (4,), ())),
    ("meshgrid default", lambda T, x, y: T.meshgrid(x, y), ((3,), (4,))),
    ("cartesian_prod", lambda T, x, y: T.cartesian_prod(x, y), ((3,), (4,))),
    (
        "combinations",
        lambda T, x: [T.combinations(x), T.combinations(x, 3, True), T.combinations(x, 0)],
        ((4,),),
    ),
    ("diag", lambda T, x, v: [T.diag(x), T.diag(x, -1), T.diag(v, 1)], ((3, 4), (3,))),
    ("diag_embed", lambda T, x: [T.diag_embed(x), T.diag_embed(x, -1, 0, 2)], ((2, 3),)),
    ("diagflat", lambda T, x: T.diagflat(x, 1), ((2, 2),)),
    ("trace", lambda T, x: T.trace(x), ((3, 4),)),
    ("trace ints", lambda T, x: x.trace(), (INTS,)),
    ("block_diag", lambda T, x, y: T.block_diag(x, y, T.tensor(2.0, dtype=T.float64)), ((2, 3), (3,))),
    ("tril_indices", lambda T: [T.tril_indices(3, 4, 1), T.triu_indices(4, 3, -1)], ()),
    ("vander", lambda T, x: [T.vander(x.detach()), T.vander(x.detach(), 2, increasing=True)], ((3,),)),
    ("unravel_index", lambda T: T.unravel_index(T.tensor([5, 7]), (2, 4)), ()),
    ("unfold", lambda T, x: [x.unfold(1, 3, 2), x.unfold(0, 2, 1), x.unfold(1, 1, 3)], ((4, 7),)),
    ("unfold long windows", lambda T, x: x.unfold(0, 5, 2), ((9, 2),)),
    ("unfold 0-d", lambda T, x: x.unfold(0, 1, 1), ((),)),
    ("as_strided", lambda T, x: T.as_strided(x, (2, 3), (1, 2), 1), ((3, 4),)),
    ("sum_to_size", lambda T, x: x.sum_to_size(1, 3), ((2, 4, 3),)),
    ("gradient", lambda T, x: T.gradient(x), ((4, 3),)),
    # ---- statistics
    ("nansum", lambda T, x: [T.nansum(x), T.nansum(x, 1)], (NANS,)),
    ("nanmean", lambda T, x: T.nanmean(x, 1), (NANS,)),
    (
        "std_mean",
        lambda T, x: [*T.std_mean(x, 1), *T.var_mean(x, dim=0, unbiased=False, keepdim=True)],
        ((3, 4),),
    ),
    ("cov", lambda T, x: [T.cov(x), T.cov(x[0]), T.cov(x, correction=0)], ((3, 6),)),
    (
        "cov weights",
        lambda T, x, w: T.cov(x, fweights=T.arange(1, 7), aweights=w.detach().abs()),
        ((3, 6), (6,)),
    ),
    ("corrcoef", lambda T, x: T.corrcoef(x), ((3, 6),)),
    ("cdist", lambda T, x, y: [T.cdist(x, y), T.cdist(x, y, 1.0), T.cdist(x, y, 3.0)], ((4, 3), (5, 3))),
    ("cdist by products", lambda T, x, y: T.cdist(x, y), ((2, 30, 3), (2, 5, 3))),
    ("dist", lambda T, x, y: [T.dist(x, y), x.dist(y, 1)], ((4, 3), (3,))),
    ("renorm", lambda T, x: T.renorm(x, 2, 0, 1.0), ((4, 3),)),
    ("diff", lambda T, x: [T.diff(x), T.diff(x, 2, 0), T.diff(x, prepend=x[:, :1])], ((4, 5),)),
    (
        "trapezoid",
        lambda T, y, x: [T.trapezoid(y), T.trapezoid(y, dx=0.5, dim=0), T.trapezoid(y, x)],
        ((3, 4), (4,)),
    ),
    ("cumulative_trapezoid", lambda T, y: T.cumulative_trapezoid(y), ((3, 4),)),
    ("logcumsumexp", lambda T, x: T.logcumsumexp(x, 1), ((3, 5),)),
    # ---- elementwise
    ("asinh", lambda T, x: [T.asinh(x), T.acosh(x + 1), T.sinc(x), T.deg2rad(x), T.rad2deg(x)], (POS,)),
    ("atanh", lambda T, x: [T.atanh(x), T.frac(x * 3), T.signbit(x), T.erfinv(x)], (UNIT,)),
    ("logit", lambda T, x: [T.logit(x.abs() + 0.02), T.logit(x, eps=0.2)], (UNIT,)),
    ("nan_to_num", lambda T, x: [T.nan_to_num(x), T.nan_to_num(x, 1.0, 2.0, 3.0)], (GAPS,)),
    ("isposinf", lambda T, x: [T.isposinf(x), T.isneginf(x), T.isreal(x)], (GAPS,)),
    ("fmax", lambda T, x, y: [T.fmax(x, y), T.fmin(x, y), T.hypot(x, y)], ((3, 4), (4,))),
    (
        "fmax nan",
        lambda T, x: [T.fmax(x, T.zeros(6, dtype=x.dtype)), T.fmin(T.ones(6, dtype=x.dtype), x)],
        (GAPS,),
    ),
    ("copysign", lambda T, x, y: T.copysign(x, y), ((3, 4), (4,))),
    (
        "heaviside",
        lambda T, x: T.heaviside(x.detach(), T.tensor(0.5, dtype=x.dtype)),
        (np.array([-1.0, 0.0, 2.0]),),
    ),
    ("gcd", lambda T, x: [T.gcd(x, T.tensor(6)), T.lcm(x, T.tensor(4))], (INTS,)),
    ("logaddexp", lambda T, x, y: [T.logaddexp(x, y), T.logaddexp2(x, y)], ((3, 4), (4,))),
    ("xlogy", lambda T, x, y: [T.xlogy(x - x[0, 0], y), T.special.xlog1py(x, y)], ((3, 4), POS)),
    ("nextafter", lambda T, x: T.nextafter(x.detach(), x.detach() + 1), ((3,),)),
    ("float_power", lambda T, x: T.float_power(x, 2), (INTS,)),
    ("ldexp", lambda T, x: T.ldexp(x, T.tensor(3)), ((3,),)),
    ("frexp", lambda T, x: T.frexp(x.detach()), ((5,),)),
    ("clamp_min", lambda T, x: [T.clamp_min(x, 0.1), T.clamp_max(x, 0.1)], ((3, 4),)),
    ("rsub", lambda T, x: T.rsub(x, 2.0), ((3,),)),
    ("baddbmm", lambda T, a, x, y: T.baddbmm(a, x, y, beta=0.5, alpha=2), ((4,), (2, 3, 5), (2, 5, 4))),
    ("addbmm", lambda T, a, x, y: T.addbmm(a, x, y, beta=0.5), ((3, 4), (2, 3, 5), (2, 5, 4))),
    ("addmv", lambda T, a, x, y: T.addmv(a, x, y, alpha=3), ((3,), (3, 5), (5,))),
    ("addr", lambda T, a, x, y: T.addr(a, x, y), ((3, 5), (3,), (5,))),
    ("inner", lambda T, x, y: [T.inner(x, y), T.ger(x[0], y[0])], ((2, 3), (4, 3))),
    # ---- complex
    ("complex", lambda T, x, y: [T.complex(x, y), T.polar(x.abs(), y)], ((3, 4), (3, 4))),
    ("parts", lambda T, z: [z.real, z.imag, T.conj(z), T.angle(z), T.sgn(z), z.abs()], (Z,)),
    ("view_as_real", lambda T, z: [T.view_as_real(z), z.H, z.mH], (Z,)),
    ("view_as_complex", lambda T, x: T.view_as_complex(x), ((3, 2),)),
    ("angle of reals", lambda T, x: [T.angle(x), T.sgn(x), T.real(x), T.conj(x)], ((3, 4),)),
    # ---- special functions
    (
        "lgamma",
        lambda T, x: [T.lgamma(x), T.digamma(x), T.polygamma(1, x), T.special.gammaln(-x - 0.03)],
        (POS,),
    ),
    ("digamma negative", lambda T, x: [T.digamma(x - 1.01), T.polygamma(2, x + 1)], (UNIT,)),
    ("lgamma large", lambda T, x: [T.lgamma(x), T.digamma(x)], (np.array([1e-3, 7.9, 8.1, 50.0, 1e5]),)),
    ("mvlgamma", lambda T, x: T.mvlgamma(x + 2, 3), (POS,)),
    ("erfc", lambda T, x: [T.erfc(x * 3), T.special.erfcx(x), T.special.ndtr(x)], ((3, 4),)),
    ("log_ndtr", lambda T, x: [T.special.log_ndtr(x * 4), T.special.ndtri(T.sigmoid(x))], ((3, 4),)),
    ("entr", lambda T, x: [T.special.entr(x), T.special.expit(x), T.special.psi(x)], (POS,)),
    ("i0", lambda T, x: [T.i0(x), T.special.i0e(x), T.special.i1(x), T.special.i1e(x)], ((3, 4),)),
    ("i0 large", lambda T, x: [T.special.i0e(x), T.special.i1e(x)], (np.array([-50.0, 29.0, 31.0, 200.0]),)),
    ("zeta", lambda T, x: T.special.zeta(x.detach() + 1.1, 2.0), (POS,)),
]
FIRST_ORDER = {
    "cdist", "dist", "renorm", "unfold 0-d", "i0 large", "parts", "complex", "view_as_real", "view_as_complex",
    "digamma negative", "cdist by products", "lgamma large", "log_ndtr", "median nan", "logcumsumexp",
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
def test_values_types_and_gradients_are_pytorchs(case: Case) -> None:
    name, fn, specs = case
    check(fn, specs, second=name not in FIRST_ORDER)


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("zeros", [False, True])
def test_scatter_reduce(reduce: str, include_self: bool, zeros: bool) -> None:
    def fn(T: Any, x: Any, s: Any) -> Any:
        return T.scatter_reduce(x, 1, T.tensor(I % 2), s, reduce, include_self=include_self)

    source = data((2, 3), 1)
    if zeros:
        source[0, 1] = source[1, 0] = source[1, 1] = 0
    check(fn, ((2, 4), source), second=reduce in ("sum", "mean"))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool", "float16"])
def test_dtypes_of_results(dtype: str) -> None:
    values = np.array([[3, 1, 2], [0, 1, 5]])

    def fn(T: Any) -> Any:
        x = T.tensor(values).to(getattr(T, dtype))
        out = [*T.sort(x, stable=True), T.unique(x), T.flip(x, [0]), T.repeat_interleave(x, 2)]
        out += [
            x.diag(),
            x.diff(),
            T.tile(x, (2,)),
            x.trace() if dtype not in ("float16", "bool") else x,
            x.unfold(1, 2, 1),
        ]
        if dtype not in ("bool", "float16"):
            out += [T.median(x), T.cummax(x, 1)[0], x.scatter_add(1, T.tensor(I), x), T.nansum(x)]
        if dtype != "bool":
            out += T.topk(x, 1)
            out += [T.deg2rad(x), T.erfc(x), T.lgamma(x + 1)] if dtype != "float16" else []
        return [x.float() if dtype == "float16" and x.is_floating_point() else x for x in out]

    check(fn, (), tol=1e-3 if dtype == "float16" else 1e-5)


ERRORS: list[tuple[str, Callable[..., Any]]] = [
    ("topk", lambda T: T.topk(T.zeros(3), 5)),
    ("kthvalue", lambda T: T.zeros(3).kthvalue(4)),
    ("sort dim", lambda T: T.sort(T.ones(3), 1)),
    ("cummax dim", lambda T: T.ones(3).cummax(1)),
    ("median empty", lambda T: T.ones(0).median(0)),
    ("mode empty", lambda T: T.mode(T.ones(0))),
    ("aminmax empty", lambda T: T.aminmax(T.ones(0))),
    ("scatter range", lambda T: T.zeros(3).scatter_(0, T.tensor([5]), 1.0)),
    ("scatter rank", lambda T: T.zeros(3).scatter_(0, T.tensor([[1]]), 1.0)),
    ("scatter dtype", lambda T: T.zeros(3).scatter_(0, T.tensor([1]), T.ones(1).double())),
    ("scatter index", lambda T: T.zeros(3).scatter(0, T.tensor([1.0]), T.ones(1))),
    ("scatter_add size", lambda T: T.zeros(3).scatter_add(0, T.tensor([1, 1]), T.ones(1))),
    ("scatter_reduce name", lambda T: T.zeros(3).scatter_reduce(0, T.tensor([1]), T.ones(1), "best")),
    ("index_add range", lambda T: T.zeros(3).index_add_(0, T.tensor([5]), T.ones(1))),
    ("index_fill range", lambda T: T.zeros(3).index_fill_(0, T.tensor([5]), 1)),
    ("index_copy range", lambda T: T.zeros(3).index_copy_(0, T.tensor([5]), T.ones(1))),
    ("take range", lambda T: T.zeros(3).take(T.tensor([5]))),
    ("put range", lambda T: T.zeros(3).put_(T.tensor([5]), T.ones(1))),
    ("masked_scatter few", lambda T: T.ones(3).masked_scatter(T.tensor([True] * 3), T.ones(2))),
    ("unfold size", lambda T: T.ones(3).unfold(0, 5, 1)),
    ("unfold step", lambda T: T.ones(3).unfold(0, 1, 0)),
    ("bincount negative", lambda T: T.bincount(T.tensor([-1]))),
    ("bincount float", lambda T: T.bincount(T.tensor([1.0]))),
    ("quantile range", lambda T: T.quantile(T.ones(3), 1.5)),
    ("quantile int", lambda T: T.quantile(T.ones(3).long(), 0.5)),
    ("meshgrid rank", lambda T: T.meshgrid(T.ones(2, 2), indexing="ij")),
    ("meshgrid word", lambda T: T.meshgrid(T.ones(2), indexing="yx")),
    ("repeat_interleave", lambda T: T.repeat_interleave(T.ones(3), T.tensor([1, 2]))),
    ("cdist columns", lambda T: T.cdist(T.ones(3, 2), T.ones(3, 4))),
    ("imag", lambda T: T.ones(3).imag),
    ("view_as_complex", lambda T: T.view_as_complex(T.ones(3))),
    ("complex dtype", lambda T: T.complex(T.ones(2), T.ones(2).double())),
    ("histc bins", lambda T: T.histc(T.ones(3), 0)),
    ("diag rank", lambda T: T.diag(T.ones(2, 2, 2))),
    ("trace rank", lambda T: T.trace(T.ones(3))),
    ("searchsorted", lambda T: T.searchsorted(T.ones(2, 3), T.ones(3, 3))),
    ("tensor_split", lambda T: T.tensor_split(T.ones(3), 0)),
    ("hsplit", lambda T: T.hsplit(T.ones(3), 2)),
    ("movedim", lambda T: T.movedim(T.ones(2, 3), (0, 1), (0,))),
    ("combinations", lambda T: T.combinations(T.ones(2, 2))),
    ("broadcast", lambda T: T.broadcast_tensors(T.ones(2), T.ones(3))),
    ("gcd float", lambda T: T.gcd(T.ones(2), T.ones(2))),
    ("fliplr", lambda T: T.fliplr(T.ones(2))),
    ("as_strided", lambda T: T.as_strided(T.ones(3), (4,), (1,))),
    ("polygamma", lambda T: T.polygamma(-1, T.ones(3))),
    ("finfo", lambda T: T.finfo(T.int64)),
    ("iinfo", lambda T: T.iinfo(T.float32)),
    ("frac", lambda T: T.frac(T.ones(3).long())),
]


@pytest.mark.parametrize("case", ERRORS, ids=[c[0] for c in ERRORS])
def test_errors_are_of_pytorchs_type(case: tuple[str, Callable[..., Any]]) -> None:
    _, fn = case
    with pytest.raises(Exception) as theirs:
        fn(torch)
    kind = next(k for k in (IndexError, TypeError, ValueError, RuntimeError) if isinstance(theirs.value, k))
    with pytest.raises(kind) as ours:
        fn(rg)
    assert str(ours.value).startswith("["), "our words name the op"


UNARY_NAMES = (
    "abs_ absolute_ acos_ asin_ atan_ ceil_ cos_ cosh_ erf_ erfc_ erfinv_ exp_ exp2_ expm1_ floor_"
    " frac_ log_ log10_ log1p_ log2_ logit_ lgamma_ digamma_ neg_ negative_ reciprocal_ round_ rsqrt_"
    " sigmoid_ sign_ sgn_ sin_ sinc_ sinh_ sqrt_ square_ tan_ tanh_ trunc_ fix_ asinh_ atanh_"
    " deg2rad_ rad2deg_ nan_to_num_ relu_ t_ tril_ triu_ squeeze_ i0_ logical_not_ zero_"
    " conj_physical_"
)
UNARY_INPLACE = UNARY_NAMES.split()


@pytest.mark.parametrize("name", UNARY_INPLACE)
def test_in_place_functions_of_one_tensor(name: str) -> None:
    def fn(T: Any, x: Any) -> Any:
        y = x * 0.9 if name not in ("asinh_", "atanh_") else x.detach()
        result = getattr(y, name)()
        assert result is y
        return y

    differentiable = name not in ("logical_not_",)
    check(fn if differentiable else (lambda T, x: getattr(x.detach(), name)()), (np.abs(UNIT),), second=False)


BINARY_NAMES = (
    "add_ sub_ mul_ div_ pow_ atan2_ remainder_ fmod_ floor_divide_ hypot_ copysign_ xlogy_ fmax_"
    " fmin_ eq_ ne_ lt_ le_ gt_ ge_ greater_ less_equal_ not_equal_ logical_and_ logical_or_"
    " logical_xor_ multiply_ subtract_ divide_ clamp_min_ clamp_max_ nextafter_ heaviside_"
    " true_divide_"
)
BINARY_INPLACE = BINARY_NAMES.split()


@pytest.mark.parametrize("name", BINARY_INPLACE)
def test_in_place_functions_of_two_tensors(name: str) -> None:
    if not hasattr(torch.Tensor, name):
        pytest.skip(f"this PyTorch has no {name}")

    def fn(T: Any, x: Any, y: Any) -> Any:
        z = (
            x * 1.0
            if name[:-1] in ("add", "sub", "mul", "div", "pow", "atan2", "hypot", "xlogy")
            else x.detach()
        )
        getattr(z, name)(y if z.requires_grad else y.detach())
        return z

    check(fn, (POS, POS[::-1].copy() + 0.1), second=False)


def test_shape_changes_in_place_keep_the_graph() -> None:
    def fn(T: Any, x: Any) -> Any:
        y = x * 2
        y.unsqueeze_(1).transpose_(0, 2)
        y.squeeze_()
        return y * y

    check(fn, ((3, 4),))


def test_views_write_through() -> None:
    for T in (rg, torch):
        x = T.zeros(6)
        x.unfold(0, 2, 2)[1] = 5
        T.as_strided(x, (2,), (1,), 4).fill_(7)
        assert x.tolist() == [0, 0, 5, 5, 7, 7]
        z = T.zeros(2, dtype=T.complex64)
        z.real = T.ones(2)
        T.view_as_real(z)[:, 1] = 2
        assert z.tolist() == [1 + 2j, 1 + 2j]


def test_in_place_writes_to_leaves_are_refused() -> None:
    x = rg.zeros(3, requires_grad=True)
    for call in (lambda: x.scatter_(0, rg.tensor([0]), 1.0), lambda: x.unsqueeze_(0), lambda: x.erfinv_()):
        with pytest.raises(RuntimeError, match="leaf"):
            call()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_finfo(name: str) -> None:
    ours, theirs = rg.finfo(getattr(rg, name)), torch.finfo(getattr(torch, name))
    for field in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "resolution", "dtype"):
        assert getattr(ours, field) == getattr(theirs, field), field


def test_integer_limits_and_promotion() -> None:
    for name in ("uint8", "int8", "int16", "int32", "int64"):
        ours, theirs = rg.iinfo(getattr(rg, name)), torch.iinfo(getattr(torch, name))
        assert (ours.bits, ours.max, ours.min) == (theirs.bits, theirs.max, theirs.min)
    names = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64")
    for a in names:
        for b in names:
            ours, theirs = (T.promote_types(getattr(T, a), getattr(T, b)) for T in (rg, torch))
            assert str(ours).split(".")[1] == str(theirs).split(".")[1]
            assert rg.can_cast(getattr(rg, a), getattr(rg, b)) == torch.can_cast(
                getattr(torch, a), getattr(torch, b)
            )
    assert rg.result_type(rg.ones(2).int(), 1.5) is rg.float32


def test_settings_are_kept() -> None:
    threads = rg.get_num_threads()
    rg.set_num_threads(1)
    assert rg.get_num_threads() == 1
    rg.set_num_threads(threads)
    rg.use_deterministic_algorithms(True, warn_only=True)
    assert rg.are_deterministic_algorithms_enabled() and rg.is_deterministic_algorithms_warn_only_enabled()
    rg.use_deterministic_algorithms(False)
    assert rg.get_deterministic_debug_mode() == 0
    rg.set_default_tensor_type("torch.DoubleTensor")
    assert rg.zeros(1).dtype is rg.float64
    rg.set_default_tensor_type(rg.FloatTensor)
    assert rg.zeros(1).dtype is rg.float32
    with pytest.raises(TypeError):
        rg.set_default_tensor_type(rg.LongTensor)


def test_memory() -> None:
    x = rg.arange(6.0).reshape(2, 3)
    assert x.storage().tolist() == [0, 1, 2, 3, 4, 5] and len(x[0].storage()) == 6
    assert x.untyped_storage().nbytes() == 24 and x[1].untyped_storage().data_ptr() == x.data_ptr()
    y = rg.zeros(2).set_(x)
    y[0, 0] = 9
    assert x[0, 0] == 9
    assert x.clone().resize_(3, 1).tolist() == [[9], [1], [2]] and x.clone().resize_(9).shape == (9,)
    assert rg.zeros(1).resize_as_(x).shape == (2, 3)
    assert x.share_memory_() is x and x[0, 0] == 9
    assert rg.arange(3).apply_(lambda v: v * 2).tolist() == [0, 2, 4]
    assert rg.arange(3).map_(rg.tensor([5]), lambda a, b: a + b).tolist() == [5, 6, 7]
    assert x.new(2, 2).shape == (2, 2) and x.new([1, 2]).tolist() == [1, 2] and x.get_device() == -1


def test_lists_of_tensors() -> None:
    for T in (rg, torch):
        xs = [T.ones(2), T.ones(3)]
        T._foreach_add_(xs, 1)
        T._foreach_mul_(xs, [2.0, 3.0])
        T._foreach_addcdiv_(xs, [T.ones(2), T.ones(3)], [T.ones(2) * 2, T.ones(3)], value=-1)
        T._foreach_lerp_(xs, T._foreach_mul(xs, 0), 0.5)
        assert [x.tolist() for x in xs] == [[1.75] * 2, [2.5] * 3]
        assert [float(n) for n in T._foreach_norm([T.ones(4)])] == [2.0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sparse_matrices() -> None:
    for T in (rg, torch):
        values = T.tensor([1.0, 2.0, 3.0], requires_grad=True)
        m = T.sparse_coo_tensor(T.tensor([[0, 1, 1], [2, 0, 0]]), values, (2, 3))
        x = T.arange(6.0).reshape(3, 2).requires_grad_()
        y = T.spmm(m, x)
        assert y.tolist() == [[4.0, 5.0], [0.0, 5.0]] and (m @ x).tolist() == y.tolist()
        assert m.coalesce().indices().tolist() == [[0, 1], [2, 0]] and m.to_dense().tolist() == [
            [0, 0, 1],
            [5, 0, 0],
        ]
        y.sum().backward()
        assert x.grad.tolist() == [[5, 5], [0, 0], [1, 1]]
        back = T.tensor([[0.0, 2.0], [0.0, 0.0]]).to_sparse()
        assert back.to_dense().tolist() == [[0, 2], [0, 0]] and back.is_sparse


def test_numpys_keywords_and_out() -> None:
    for T in (rg, torch):
        x = T.arange(6.0).reshape(2, 3)
        assert x.sum(axis=1).tolist() == T.sum(x, axis=1).tolist() == [3, 12]
        assert x.mean(axis=0, keepdims=True).shape == (1, 3) and x.max(axis=1).indices.tolist() == [2, 2]
        assert T.cat([x, x], axis=1).shape == (2, 6) and T.stack([x, x], axis=2).shape == (2, 3, 2)
        out = T.empty(2, 3)
        assert T.add(x, 1, out=out) is out and out[1, 2] == 6
        values, indices = T.empty(2), T.empty(2, dtype=T.long)
        T.max(x, 1, out=(values, indices))
        assert values.tolist() == [2, 5] and indices.tolist() == [2, 2]
        with pytest.raises(RuntimeError):
            T.mul(x.requires_grad_(), 2, out=T.empty(2, 3))
