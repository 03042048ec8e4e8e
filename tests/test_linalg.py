"""Linear algebra, einsum and Fourier transforms beside PyTorch, and where no PyTorch is needed beside NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

sys.path.insert(0, str(Path(__file__).parent))
from test_more_parity import check, data  # noqa: E402

sys.path.pop(0)


def spd(n: int, batch: tuple[int, ...] = ()) -> np.ndarray[Any, Any]:
    a = data((*batch, n, n), 5)
    return a @ a.swapaxes(-1, -2) + n * np.eye(n)


SQUARE = data((3, 3), 1) + 2 * np.eye(3)
BATCH = data((2, 3, 3), 2) + 2 * np.eye(3)
COMPLEX = data((3, 3), 1) + 1j * data((3, 3), 2) + 2 * np.eye(3)
SINGULAR = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]])
TALL, WIDE = data((5, 3), 3), data((3, 5), 4)

LINALG: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
    ("inv", lambda T, a: [T.linalg.inv(a), T.inverse(a)], (BATCH,)),
    ("inv complex", lambda T, a: T.linalg.inv(a), (COMPLEX,)),
    ("solve", lambda T, a, b: T.linalg.solve(a, b), (BATCH, (2, 3, 2))),
    ("solve vector", lambda T, a, b: T.linalg.solve(a, b), (SQUARE, (3,))),
    ("solve vectors", lambda T, a, b: T.linalg.solve(a, b), (BATCH, (2, 3))),
    ("solve broadcast", lambda T, a, b: T.linalg.solve(a, b), (SQUARE, (4, 3, 2))),
    ("solve right", lambda T, a, b: T.linalg.solve(a, b, left=False), (SQUARE, (2, 3))),
    ("solve_triangular", lambda T, a, b: T.linalg.solve_triangular(a, b, upper=True), (SQUARE, (3, 2))),
    (
        "solve_triangular right",
        lambda T, a, b: T.linalg.solve_triangular(a, b, upper=False, left=False, unitriangular=True),
        (SQUARE, (2, 3)),
    ),
    ("det", lambda T, a: [T.det(a), a.det()], (BATCH,)),
    ("det complex", lambda T, a: T.linalg.det(a), (COMPLEX,)),
    ("slogdet", lambda T, a: T.slogdet(a)[1], (BATCH,)),
    ("slogdet sign", lambda T, a: T.linalg.slogdet(a.detach()), (BATCH,)),
    ("logdet", lambda T, a: T.logdet(a), (spd(3),)),
    ("cholesky", lambda T, a: T.linalg.cholesky(a), (spd(3, (2,)),)),
    ("cholesky upper", lambda T, a: [T.linalg.cholesky(a, upper=True), T.cholesky(a)], (spd(3),)),
    ("cholesky_solve", lambda T, b, a: T.cholesky_solve(b, T.linalg.cholesky(a)), ((3, 2), spd(3))),
    ("cholesky_inverse", lambda T, a: T.cholesky_inverse(T.linalg.cholesky(a)), (spd(3),)),
    ("qr", lambda T, a: [(q.abs(), r.abs()) for q, r in [T.linalg.qr(a)]], (TALL,)),
    ("qr wide", lambda T, a: [(q.abs(), r.abs()) for q, r in [T.linalg.qr(a)]], (WIDE,)),
    ("qr batch", lambda T, a: T.linalg.qr(a)[1].abs(), (BATCH,)),
    ("qr r", lambda T, a: T.linalg.qr(a.detach(), mode="r")[1].abs(), (TALL,)),
    ("qr complete", lambda T, a: T.linalg.qr(a.detach(), mode="complete")[0].abs(), (TALL,)),
    ("svd", lambda T, a: [u.abs() for u in T.linalg.svd(a, full_matrices=False)], (TALL,)),
    ("svd wide", lambda T, a: [u.abs() for u in T.linalg.svd(a, full_matrices=False)], (WIDE,)),
    ("svd batch", lambda T, a: T.linalg.svd(a, full_matrices=False)[1], (BATCH,)),
    ("svd full", lambda T, a: T.linalg.svd(a)[1], (TALL,)),
    ("svd old", lambda T, a: [T.svd(a)[1], T.svd(a)[2].abs()], (TALL,)),
    ("svdvals", lambda T, a: T.linalg.svdvals(a), (WIDE,)),
    ("low rank", lambda T, a: (lambda u, s, v: (u * s) @ v)(*T.linalg.svd(a, full_matrices=False)), (TALL,)),
    ("eigh", lambda T, a: [v.abs() for v in T.linalg.eigh(a + a.mT)], (BATCH,)),
    ("eigvalsh", lambda T, a: T.linalg.eigvalsh(a + a.mT), (BATCH,)),
    ("eigh upper", lambda T, a: T.linalg.eigh(a.detach(), UPLO="U")[0], (SQUARE,)),
    ("pinv", lambda T, a: T.linalg.pinv(a), (TALL,)),
    ("pinv wide", lambda T, a: [T.linalg.pinv(a), T.pinverse(a)], (WIDE,)),
    ("lstsq", lambda T, a, b: T.linalg.lstsq(a, b).solution, (TALL, (5, 2))),
    (
        "lstsq parts",
        lambda T, a, b: [
            *T.linalg.lstsq(a.detach(), b.detach()),
            *T.linalg.lstsq(a.detach(), b.detach(), driver="gelsd"),
        ],
        (TALL, (5, 2)),
    ),
    ("matrix_exp", lambda T, a: T.matrix_exp(a), (BATCH,)),
    ("matrix_exp large", lambda T, a: T.linalg.matrix_exp(a * 4), (SQUARE,)),
    ("matrix_power", lambda T, a: [T.linalg.matrix_power(a, n) for n in (-2, 0, 1, 3)], (BATCH,)),
    ("vector_norm", lambda T, x: [T.linalg.vector_norm(x, p) for p in (0, 1, 2, 3, float("inf"))], ((3, 4),)),
    ("vector_norm dim", lambda T, x: T.linalg.vector_norm(x, dim=(0, 2), keepdim=True), ((2, 3, 4),)),
    ("norm", lambda T, x: [T.linalg.norm(x), T.linalg.norm(x, dim=1), T.linalg.norm(x, "nuc")], ((3, 4),)),
    (
        "matrix_norm",
        lambda T, x: [
            T.linalg.matrix_norm(x, p) for p in ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf"))
        ],
        ((2, 3, 4),),
    ),
    ("matrix_norm dims", lambda T, x: T.linalg.matrix_norm(x, 1, dim=(0, 1), keepdim=True), ((2, 3, 4),)),
    ("cond", lambda T, a: [T.linalg.cond(a), T.linalg.cond(a.detach(), 1), T.linalg.cond(a, -2)], (SQUARE,)),
    ("matrix_rank", lambda T, a: T.linalg.matrix_rank(a.detach()), (SINGULAR,)),
    ("multi_dot", lambda T, a, b, c: T.linalg.multi_dot([a, b, c]), ((3,), (3, 5), (5, 2))),
    ("chain_matmul", lambda T, a, b, c: T.chain_matmul(a, b, c), ((4, 3), (3, 5), (5, 2))),
    ("vecdot", lambda T, a, b: T.linalg.vecdot(a, b), ((4, 3), (4, 3))),
    ("cross", lambda T, a, b: [T.linalg.cross(a, b), T.cross(a, b, dim=1)], ((4, 3), (4, 3))),
    ("tensorsolve", lambda T, a, b: T.linalg.tensorsolve(a, b), ((2, 3, 6), (2, 3))),
    ("tensorinv", lambda T, a: T.linalg.tensorinv(a, 1), ((6, 2, 3),)),
    ("diagonal", lambda T, a: T.linalg.diagonal(a, offset=1), (BATCH,)),
    ("kron", lambda T, a, b: [T.kron(a, b), T.kron(a[0], b)], ((2, 3), (2, 2))),
    ("tensordot", lambda T, a, b: [T.tensordot(a, b, 1), T.tensordot(a, b, ([0], [1]))], ((3, 4), (4, 3))),
    ("tensordot none", lambda T, a, b: T.tensordot(a, b, 0), ((3, 4), (2,))),
]
FIRST_ORDER = {
    "matrix_norm", "vector_norm", "norm", "svd", "svd wide", "svd old", "eigh", "qr", "qr wide", "qr batch", "svd full",
    "det complex", "inv complex", "cond", "low rank",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", LINALG, ids=[c[0] for c in LINALG])
def test_linear_algebra_is_pytorchs(case: Any) -> None:
    name, fn, specs = case
    check(fn, specs, tol=1e-6, second=name not in FIRST_ORDER)


def test_eigenvectors_solve_their_equation_and_have_gradients() -> None:
    def values(T: Any, a: Any) -> Any:
        found = T.linalg.eigvals(a)
        return found.real.sum(), (found.imag**2).sum(), T.linalg.eig(a)[1].abs().sum()

    check(values, (SQUARE,), tol=1e-6, second=False)
    a = rg.tensor(SQUARE)
    w, v = rg.linalg.eig(a)
    np.testing.assert_allclose(SQUARE @ v.numpy(), v.numpy() * w.numpy(), atol=1e-12)


def test_the_determinant_of_a_singular_matrix_has_a_gradient() -> None:
    a = rg.tensor(SINGULAR, requires_grad=True)
    rg.linalg.det(a).backward()  # PyTorch gives zeros here; the cofactors by hand:
    np.testing.assert_allclose(a.grad.numpy(), [[4, 4, -4], [-2, -2, 2], [0, 0, 0]], atol=1e-12)


@pytest.mark.parametrize(
    "fn",
    [
        lambda T: T.linalg.inv(T.zeros(2, 2)),
        lambda T: T.linalg.solve(T.zeros(2, 2), T.ones(2)),
        lambda T: T.linalg.cholesky(-T.eye(2)),
    ],
)
def test_singular_matrices_raise_linalg_errors(fn: Callable[..., Any]) -> None:
    with pytest.raises(torch.linalg.LinAlgError):
        fn(torch)
    with pytest.raises(rg.linalg.LinAlgError):
        fn(rg)
    assert issubclass(rg.linalg.LinAlgError, RuntimeError)


@pytest.mark.parametrize(
    "fn",
    [
        lambda T: T.linalg.inv(T.ones(2, 3)),
        lambda T: T.linalg.inv(T.ones(2, 2).long()),
        lambda T: T.linalg.det(T.ones(2)),
        lambda T: T.linalg.solve(T.eye(2), T.ones(3, 1)),
        lambda T: T.linalg.qr(T.ones(2, 2), mode="half"),
        lambda T: T.einsum("ij,jk->il", T.ones(2, 2), T.ones(2, 2)),
        lambda T: T.einsum("ij,jk", T.ones(2, 2)),
        lambda T: T.einsum("ij,jk", T.ones(2, 2), T.ones(3, 2)),
        lambda T: T.einsum("ijk,jk", T.ones(2, 2), T.ones(2, 2)),
        lambda T: T.tensordot(T.ones(2, 3), T.ones(2, 3), 1),
        lambda T: T.cross(T.ones(2), T.ones(2), dim=0),
        lambda T: T.fft.fft(T.ones(3), n=0),
        lambda T: T.fft.rfft(T.ones(3) * 1j),
        lambda T: T.fft.fft(T.ones(3), norm="half"),
        lambda T: T.stft(T.ones(100), 16),
    ],
)
def test_errors_are_runtime_errors(fn: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError):
        fn(torch)
    with pytest.raises(RuntimeError, match=r"^\["):
        fn(rg)


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bhij,bjhd->bihd", (2, 3, 4, 5), (2, 5, 3, 6)),
    ("i,j->ji", (3,), (4,)),
    ("i,i", (3,), (3,)),
    ("bi,bi->b", (4, 3), (4, 3)),
    ("bi,bi->bi", (4, 3), (4, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("ij->", (3, 4)),
    ("ijk->kji", (2, 3, 4)),
    ("...ij,...jk->...ik", (2, 3, 4), (4, 5)),
    ("...i,...i->...", (2, 1, 4), (3, 4)),
    ("i...->...i", (2, 3, 4)),
    ("ik,jkl,il->ij", (2, 3), (4, 3, 5), (2, 5)),
    ("bn,anm,bm->ba", (2, 3), (4, 3, 5), (2, 5)),
    ("ab,bc,cd,de->ae", (2, 3), (3, 4), (4, 2), (2, 5)),
    ("ij,kj->", (2, 3), (4, 3)),
    ("iij,jk->ik", (3, 3, 2), (2, 4)),
    (" b s k , b t k -> b s t ", (2, 3, 4), (2, 5, 4)),
    ("ij,ij->j", (1, 3), (4, 3)),
    ("i,->i", (3,), ()),
    ("bld,dn->bln", (2, 3, 4), (4, 5)),
    ("nchw,oc->nohw", (2, 3, 4, 5), (6, 3)),
    ("Ab,bC->CA", (2, 3), (3, 4)),
]


@pytest.mark.parametrize("case", EINSUMS, ids=[c[0] for c in EINSUMS])
def test_einsum_is_pytorchs(case: Any) -> None:
    equation, *shapes = case
    check(lambda T, *xs: T.einsum(equation, *xs), tuple(shapes))
    check(lambda T, *xs: T.einsum(equation, [x.detach().float() for x in xs]), tuple(shapes), tol=1e-5)


def test_einsum_by_lists_of_labels_and_of_integers() -> None:
    check(lambda T, a, b: T.einsum(a, [0, 1], b, [1, 2], [2, 0]), ((2, 3), (3, 4)))
    check(lambda T, a, b: T.einsum(a, [..., 1], b, [1, 2]), ((5, 2, 3), (3, 4)))
    check(lambda T: T.einsum("ij,jk->ik", T.arange(6).reshape(2, 3), T.arange(6).reshape(3, 2)), ())


def test_einsum_of_non_contiguous_and_empty() -> None:
    check(
        lambda T, a, b: T.einsum("bij,bkj->bik", a.transpose(0, 2), b.transpose(1, 2)), ((4, 3, 2), (2, 4, 5))
    )
    check(lambda T, a, b: T.einsum("ij,jk->ik", a, b), ((2, 0), (0, 3)))


TRANSFORMS: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
    *[(f"{n} {norm}", lambda T, x, n=n, norm=norm: getattr(T.fft, n)(x, norm=norm), ((3, 6),))
      for n in ("fft", "ifft", "rfft", "irfft", "ihfft", "hfft", "fft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn")
      for norm in ("backward", "ortho", "forward")],
    ("fft longer", lambda T, x: T.fft.fft(x, n=9, dim=0), ((6, 3),)),
    ("fft shorter", lambda T, x: T.fft.fft(x, 4), ((3, 6),)),
    ("rfft odd", lambda T, x: T.fft.rfft(x, n=5), ((3, 6),)),
    ("irfft odd", lambda T, x: T.fft.irfft(x, n=5), ((3, 6),)),
    ("irfft of complex", lambda T, x: T.fft.irfft(T.fft.rfft(x), n=7), ((3, 7),)),
    ("fft2 s", lambda T, x: T.fft.fft2(x, s=(4, 5)), ((2, 3, 6),)),
    ("fftn dims", lambda T, x: T.fft.fftn(x, dim=(0, 2)), ((2, 3, 4),)),
    ("power", lambda T, x: T.fft.fft(x).abs() ** 2, ((3, 6),)),
    ("shift", lambda T, x: [T.fft.fftshift(x), T.fft.ifftshift(x, dim=1)], ((3, 6),)),
    ("freq", lambda T: [T.fft.fftfreq(7, 0.1), T.fft.rfftfreq(8, d=2.0)], ()),
    ("fft ints", lambda T: T.fft.fft(T.arange(5)), ()),
    ("fft float32", lambda T, x: T.fft.rfft(x.float()), ((6,),)),
    ("stft", lambda T, x: T.stft(x, 16, return_complex=True), ((2, 100),)),
    ("stft window", lambda T, x: T.stft(x, 16, 5, 12, T.hann_window(12, dtype=x.dtype), return_complex=True), ((60,),)),
    (
        "stft plain",
        lambda T, x: T.stft(x, 16, center=False, normalized=True, return_complex=False, onesided=False),
        ((60,),),
    ),
    (
        "istft",
        lambda T, x: T.istft(T.stft(x, 16, 4, window=T.hann_window(16, dtype=x.dtype), return_complex=True), 16, 4,
                             window=T.hann_window(16, dtype=x.dtype), length=60),
        ((2, 60),),
    ),
    ("windows", lambda T: [w(9, periodic=p, dtype=T.float64) for p in (True, False) for w in (
        T.hann_window, T.hamming_window, T.blackman_window, T.bartlett_window, T.kaiser_window)], ()),
]  # fmt: skip


@pytest.mark.parametrize("case", TRANSFORMS, ids=[c[0] for c in TRANSFORMS])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_transforms_are_pytorchs(case: Any) -> None:
    name, fn, specs = case
    check(fn, specs, tol=1e-5 if "32" in name else 1e-7, second=False)


def test_gradients_of_transforms_of_complex_numbers() -> None:
    z = data((3, 5)) + 1j * data((3, 5), 1)
    for name in ("fft", "ifft", "irfft", "fft2", "hfft"):
        check(lambda T, x, name=name: getattr(T.fft, name)(x), (z,), second=False)


def test_second_derivatives_by_differences() -> None:
    from ringgrad.autograd import gradgradcheck

    def leaf(array: Any) -> Any:
        return rg.tensor(array, requires_grad=True)

    for fn, arrays in [
        (lambda a: rg.linalg.svdvals(a), (TALL,)),
        (lambda a: rg.linalg.eigvalsh(a + a.mT), (SQUARE,)),
        (lambda a: rg.linalg.qr(a).R.abs(), (TALL,)),
        (lambda a: rg.linalg.cholesky(a @ a.mT + 3 * rg.eye(3, dtype=rg.float64)), (SQUARE,)),
        (lambda a: rg.matrix_exp(a), (SQUARE,)),
        (lambda a: rg.logcumsumexp(a, 1), (WIDE,)),
        (lambda a, b: rg.einsum("ij,kj->ik", a, b), (TALL, data((2, 3)))),
    ]:
        assert gradgradcheck(fn, tuple(leaf(a) for a in arrays))
