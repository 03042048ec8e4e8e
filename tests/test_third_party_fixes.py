"""What whole third-party programs needed: each test is one difference from PyTorch that such a program showed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def same(program: Callable[[Any], Any], tolerance: float = 1e-6) -> None:
    """The program gives the same tensor in both libraries, and leaves both generators in the same state."""
    results = []
    for library in (torch, ringgrad):
        library.manual_seed(3)
        results.append((np.array(program(library).detach().numpy()), library.rand(3).tolist()))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=tolerance, atol=tolerance)
    assert results[1][1] == results[0][1]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("name", ["dropout", "alpha_dropout"])
def test_dropout_draws_in_the_order_of_memory(name: str, order: tuple[int, ...]) -> None:
    same(lambda t: getattr(t.nn.functional, name)(t.ones(3, 5, 7).permute(*order), 0.4, True))
    same(lambda t: getattr(t.nn.functional, name)(t.ones(3, 5, 8).permute(*order)[..., ::2], 0.4, True))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_layers_with_dropout(batch_first: bool, norm_first: bool) -> None:
    settings = {"batch_first": batch_first, "norm_first": norm_first}
    same(lambda t: t.nn.TransformerEncoderLayer(16, 4, 32, 0.1, **settings)(t.randn(2, 9, 16)))
    sizes = [(2, 9, 16), (2, 7, 16)] if batch_first else [(9, 2, 16), (7, 2, 16)]
    same(lambda t: t.nn.TransformerDecoderLayer(16, 4, 32, 0.1, **settings)(*(t.randn(s) for s in sizes)))


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge", "greater", "less_equal", "logical_and"])
def test_comparisons_as_methods(name: str) -> None:
    same(lambda t: getattr(t.tensor([1.0, 0.0, 3.0]), name)(t.tensor([1.0, 2.0, 0.0])))
    if name != "logical_and":
        same(lambda t: getattr(t.tensor([1, 0, 3]), name)(1))


def test_map_location_of_places_that_the_file_does_not_name(tmp_path: Path) -> None:
    def load(t: Any) -> Any:
        t.save({"x": t.ones(3)}, tmp_path / "x.pt")
        return t.load(tmp_path / "x.pt", map_location={"cuda:0": "cuda:1"}, weights_only=True)["x"]

    same(load)


def test_names_that_torchvision_and_examples_read() -> None:
    import torch.hub

    import ringgrad.hub

    assert ringgrad.hub._get_torch_home() == torch.hub._get_torch_home()
    assert ringgrad.hub.get_dir() == torch.hub.get_dir()
    assert ringgrad.ones(1).is_xpu is torch.ones(1).is_xpu is False


def test_randint_with_named_arguments() -> None:
    same(lambda t: t.randint(7, size=(5,)))
    same(lambda t: t.randint(high=7, size=(5,)))
    same(lambda t: t.randint(2, 7, size=(5,)))
    same(lambda t: t.randint(low=2, high=7, size=(5,)))
    for library in (torch, ringgrad):
        with pytest.raises(TypeError):
            library.randint(7)
        with pytest.raises(TypeError):
            library.randint(size=(5,))


FILLS = ["uniform_", "normal_", "exponential_", "cauchy_", "log_normal_", "bernoulli_", "random_"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("step", [1, 2])
def test_random_fills_in_the_order_of_memory(order: tuple[int, ...], step: int) -> None:
    for name in FILLS:
        same(lambda t: getattr(t.zeros(3, 6, 7).permute(*order)[..., ::step], name)())  # noqa: B023
    for name in ("rand_like", "randn_like"):
        same(lambda t: getattr(t, name)(t.zeros(3, 6, 7).permute(*order)[..., ::step]))  # noqa: B023
    same(lambda t: t.randint_like(t.zeros(3, 6, 7).permute(*order)[..., ::step], 9))


def test_cross_product_of_two_vectors() -> None:
    same(lambda t: t.cross(t.randn(3), t.randn(3), dim=0))
    same(lambda t: t.linalg.cross(t.randn(4, 3), t.randn(4, 3)))


def test_names_of_tutorials() -> None:
    import ringgrad.functional
    from ringgrad.utils.benchmark import Compare, Measurement, Timer

    assert ringgrad.functional.einsum is ringgrad.einsum
    with ringgrad.backends.cudnn.flags(enabled=True, deterministic=True):
        assert ringgrad.backends.cudnn.deterministic
    assert not ringgrad.backends.cudnn.deterministic
    timer = Timer("x + y", setup="y = x * 2", globals={"x": ringgrad.ones(3)}, label="add")
    once, often = timer.timeit(20), timer.blocked_autorange(min_run_time=0.01)
    assert once.mean > 0 and often.median > 0 and often.iqr >= 0
    assert "add" in repr(once) and str(Compare([once, often])).count("add") == 2
    assert "Median" in repr(Measurement(20, [0.1, 0.2], "add"))


def test_tensors_are_swapped() -> None:
    for t in (torch, ringgrad):
        a, b = t.nn.Parameter(t.ones(2)), t.zeros(3)
        b.note = "b"
        one = a
        t.utils.swap_tensors(a, b)
        assert one.tolist() == [0, 0, 0] and one.note == "b" and type(one) is t.Tensor
        assert isinstance(b, t.nn.Parameter) and b.requires_grad and not one.requires_grad


def test_legacy_constructors_take_a_size() -> None:
    for t in (torch, ringgrad):
        size = t.ones(2, 3).shape
        assert t.FloatTensor(size).shape == t.Tensor(size).shape == t.LongTensor(size).shape == (2, 3)
        assert t.Tensor(t.Size([])).shape == () and t.FloatTensor((2, 3)).tolist() == [2, 3]


def test_grad_takes_any_collection_of_inputs() -> None:
    for t in (torch, ringgrad):
        weights = t.nn.ParameterList([t.nn.Parameter(t.ones(2)), t.nn.Parameter(t.ones(3))])
        found = t.autograd.grad((weights[0].sum() * 2 + weights[1].sum()), weights)
        assert [g.tolist() for g in found] == [[2, 2], [1, 1, 1]]


def test_hooks_can_be_listed() -> None:
    for t in (torch, ringgrad):
        layer = t.nn.Linear(2, 2)
        layer.register_forward_pre_hook(len)
        layer.register_forward_hook(print)
        assert list(layer._forward_pre_hooks.values()) == [len] and list(layer._forward_hooks.values()) == [
            print
        ]
        assert not layer._backward_hooks


def test_sparse_adam() -> None:
    for maximize in (False, True):

        def program(t: Any, maximize: bool = maximize) -> Any:
            table = t.nn.Embedding(6, 3, sparse=True)
            optimizer = t.optim.SparseAdam(table.parameters(), lr=0.1, maximize=maximize)
            for index in ([0, 1, 1], [4], [1, 4], [0, 5]):
                optimizer.zero_grad()
                (table(t.tensor(index)) ** 2).sum().backward()
                optimizer.step()
            return table.weight

        same(program)
    for bad in ({"lr": 0.0}, {"eps": 0.0}, {"betas": (1.0, 0.9)}):
        for t in (torch, ringgrad):
            with pytest.raises(ValueError):
                t.optim.SparseAdam([t.nn.Parameter(t.ones(2))], **bad)


def test_version_comparisons_see_a_release_of_pytorch(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "x.py").write_text(
        "import torch; assert torch.__version__ >= '1.5.0'; print(torch.__version__, torch.version.__version__)"
    )
    command = [sys.executable, "-m", "ringgrad.torch", str(tmp_path / "x.py")]
    first, second = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=100
    ).stdout.split()
    assert first == second == f"2.13.0+ringgrad{ringgrad.__version__}"


def test_what_is_no_tensor_is_named() -> None:
    calls = (
        lambda t: t.nn.functional.linear(None, t.ones(2, 2)),
        lambda t: t.nn.functional.gelu(None),
        lambda t: t.addmm(t.ones(2, 2), None, t.ones(2, 2)),
        lambda t: t.abs_("x"),
        lambda t: t.nn.Conv2d(1, 1, 1)(None),
        lambda t: t.linalg.inv(None),
    )
    for call in calls:
        with pytest.raises(TypeError):
            call(torch)
        with pytest.raises(TypeError, match=r"^\[\w+\].*(NoneType|str)"):
            call(ringgrad)


def test_lightning_is_found_under_its_names(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "x.py").write_text(
        "import lightning as L, pytorch_lightning as pl, lightning.pytorch\n"
        "from lightning.pytorch import LightningModule, Trainer\n"
        "from lightning.pytorch.callbacks import ModelCheckpoint\n"
        "assert L.Trainer is Trainer is pl.Trainer and L.pytorch.LightningModule is LightningModule\n"
        "print(Trainer.__module__)"
    )
    command = [sys.executable, "-m", "ringgrad.torch", str(tmp_path / "x.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith("ringgrad.lightning"), done.stderr


def test_the_method_split_names_its_size() -> None:
    for t in (torch, ringgrad):
        parts = t.ones(4, 6).split(split_size=[2, 4], dim=1)
        assert [tuple(p.shape) for p in parts] == [(4, 2), (4, 4)]
        assert len(t.split(t.ones(4), split_size_or_sections=3)) == 2


def test_numbers_before_tensors_as_older_optimizers_write_them():
    x, y = ringgrad.ones(2), ringgrad.tensor([2.0, 4.0])
    with pytest.warns(UserWarning, match="keyword"):
        assert ringgrad.add(x, 3, y).tolist() == [7, 13] and x.sub(3, y).tolist() == [-5, -11]
        assert ringgrad.addcmul(x, 2, y, y).tolist() == [9, 33] and ringgrad.addcdiv(x, 2, y, y).tolist() == [
            3,
            3,
        ]
        assert x.clone().add_(3, y).tolist() == [7, 13] and x.clone().sub_(3, y).tolist() == [-5, -11]
        assert x.clone().addcmul_(2, y, y).tolist() == [9, 33] and x.clone().addcdiv_(2, y, y).tolist() == [
            3,
            3,
        ]
    with pytest.raises(TypeError, match=r"\[add\]"):
        ringgrad.add(x, y, y)


def test_results_that_were_wrong_without_an_error():
    z = ringgrad.tensor([[3 + 4j, 0], [1j, 2]])
    assert ringgrad.norm(z).item() == pytest.approx(30**0.5)
    assert ringgrad.var(z).item() == pytest.approx(abs(z.numpy() - z.numpy().mean()).__pow__(2).sum() / 3)
    assert ringgrad.linalg.vander(ringgrad.tensor([2.0, 3.0]), N=3).tolist() == [[1, 2, 4], [1, 3, 9]]
    assert ringgrad.xlogy(ringgrad.ones(2), 2).dtype is ringgrad.float32
    assert ringgrad.float_power(ringgrad.tensor([2j]), 2).tolist() == [-4]


def test_sizes_given_by_keyword():
    for t in (torch, ringgrad):
        x = t.ones(2)
        made = [t.zeros(size=(2, 3)), t.rand(size=(2, 3)), x.new_ones(size=(2, 3)), t.empty(size=(2, 3))]
        assert all(tuple(y.shape) == (2, 3) for y in made)
        taken = [
            x.view(size=(2, 1)),
            x.reshape(shape=(2, 1)),
            x.repeat(repeats=(2, 1)),
            x.expand(size=(2, 2)),
        ]
        taken += [t.tile(x, dims=(2, 1)), t.ones(1, 2).permute(dims=(1, 0)), x.view(dtype=t.int32)]
        assert [tuple(y.shape) for y in taken] == [(2, 1), (2, 1), (2, 2), (2, 2), (2, 2), (2, 1), (2,)]
        with pytest.raises(TypeError, match=r"unexpected keyword argument|invalid combination"):
            t.zeros(2, sizes=(3,))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("count", [5, 40])
def test_complex_random_numbers(dtype: str, count: int) -> None:
    same(lambda t: t.view_as_real(t.randn(count, dtype=getattr(t, dtype))))
    same(lambda t: t.view_as_real(t.rand(count, 2, dtype=getattr(t, dtype))))
    same(lambda t: t.view_as_real(t.empty(count, dtype=getattr(t, dtype)).normal_(1, 2)))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 5), (5, 3), (0, 3, 3), (3, 0)])
def test_lu_factors_and_their_gradients(dtype: str, shape: tuple[int, ...]) -> None:
    a = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
    a = a[0] + 1j * a[1] if dtype == "complex128" else a[0]
    results = []
    for t in (torch, ringgrad):
        x = t.tensor(a, requires_grad=True)
        LU, pivots = t.linalg.lu_factor(x)
        P, L, U = t.lu_unpack(LU, pivots)
        (LU * t.arange(1.0, 1 + LU.numel()).reshape(LU.shape)).abs().square().sum().backward()
        found = [P, L, U, LU, pivots, x.grad]
        if shape[-1] == shape[-2]:
            b = t.ones(*shape[:-1], 2, dtype=x.dtype)
            found += [
                t.lu_solve(b, *x.detach().lu()),
                t.linalg.lu_solve(LU.detach(), pivots, b, adjoint=True),
            ]
            found.append(t.linalg.lu_solve(LU.detach(), pivots, b.transpose(-1, -2), left=False))
        results.append([y.detach().resolve_conj().numpy() for y in found])
    for theirs, ours in zip(*results):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_sparse_matrices_go_into_matmul():
    for t in (torch, ringgrad):
        sparse = t.eye(3).to_sparse()
        assert t.matmul(sparse, t.ones(3, 2)).tolist() == t.mm(sparse, t.ones(3, 2)).tolist() == [[1, 1]] * 3
        assert sparse.matmul(t.ones(3, 1)).tolist() == [[1]] * 3


def test_the_optimizer_that_shares_its_state_stands_where_scripts_import_it():
    from ringgrad.distributed import ZeroRedundancyOptimizer
    from ringgrad.distributed.optim import ZeroRedundancyOptimizer as imported

    assert imported is ZeroRedundancyOptimizer


def test_powers_of_complex_numbers_round_as_the_c_library_does():
    root = np.exp(-2j * np.pi / 12)
    found = [(t.tensor(root, dtype=t.complex64) ** t.arange(7)).numpy() for t in (torch, ringgrad)]
    np.testing.assert_allclose(
        found[1], found[0], rtol=0, atol=2e-8
    )  # -1 without its last bits would divide by 0
    same(lambda t: t.view_as_real(t.randn(20, dtype=t.complex64) ** 3))
    same(lambda t: t.view_as_real(t.randn(20, dtype=t.complex128) ** t.tensor([2.0])))


def test_dropout_of_a_transform_follows_its_memory():
    def mixed(t: Any) -> Any:
        y = t.fft.fft(t.fft.fft(t.randn(4, 5, 6), dim=2), dim=0).real
        return t.nn.functional.dropout(y, 0.5) + t.nn.functional.dropout(
            t.fft.rfft2(y, dim=(0, 1)).imag.sum(), 0.1
        )

    same(mixed, 1e-5)


def test_bytes_are_masks():
    for t in (torch, ringgrad):
        x, mask = t.arange(3.0), t.tensor([1, 0, 2], dtype=t.uint8)
        with pytest.warns(UserWarning, match="uint8"):
            assert x[mask].tolist() == [0, 2]
        with pytest.warns(UserWarning, match="uint8"):
            assert t.where(mask, x + 1, -x).tolist() == [1, -1, 3]
        with pytest.warns(UserWarning, match="uint8"):
            assert t.eye(2)[:, mask[:2]].tolist() == [[1], [0]]
