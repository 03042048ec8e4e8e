"""Making tensors: from data, filled, ranges; beside PyTorch where it is installed."""

from typing import Any

import numpy as np
import pytest

import ringgrad as rg

CALLS: list[Any] = [
    lambda m: m.tensor(1),
    lambda m: m.tensor(1.5),
    lambda m: m.tensor(True),
    lambda m: m.tensor([]),
    lambda m: m.tensor([[], []]),
    lambda m: m.tensor([1, 2, 3]),
    lambda m: m.tensor([1, 2.5]),
    lambda m: m.tensor([True, False]),
    lambda m: m.tensor([True, 2]),
    lambda m: m.tensor([[1, 2], [3, 4]], dtype=m.float16),
    lambda m: m.tensor((1, (2)), dtype=m.int8),
    lambda m: m.tensor(range(4)),
    lambda m: m.tensor(np.arange(3, dtype=np.float64)),
    lambda m: m.tensor(np.float64(2.5)),
    lambda m: m.tensor(np.int32(2)),
    lambda m: m.tensor(np.arange(4).reshape(2, 2).T),
    lambda m: m.tensor([np.float64(1), np.float64(2)]),
    lambda m: m.tensor([np.arange(2), np.arange(2)]),
    lambda m: m.tensor([m.tensor(1), m.tensor(2)]),
    lambda m: m.tensor([m.tensor(1.5), 2]),
    lambda m: m.tensor(1 + 2j),
    lambda m: m.tensor([1.7, -1.7], dtype=m.int32),
    lambda m: m.tensor([0.0, 0.5, -2.0], dtype=m.bool),
    lambda m: m.tensor(float("nan")),
    lambda m: m.tensor([1e10, float("inf")]),
    lambda m: m.tensor(2**40),
    lambda m: m.as_tensor([1.0, 2.0]),
    lambda m: m.as_tensor(np.arange(3), dtype=m.float32),
    lambda m: m.as_tensor(m.ones(2), dtype=m.int64),
    lambda m: m.from_numpy(np.arange(3, dtype=np.int16)),
    lambda m: m.zeros(2, 3),
    lambda m: m.zeros((2, 3), dtype=m.int64),
    lambda m: m.zeros([]),
    lambda m: m.zeros(()),
    lambda m: m.zeros(0, 3),
    lambda m: m.zeros(m.Size([2, 2])),
    lambda m: m.ones(2, dtype=m.bool),
    lambda m: m.ones(3, 1, dtype=m.bfloat16),
    lambda m: m.full((2, 2), 3),
    lambda m: m.full((2,), 3.5),
    lambda m: m.full((2,), True),
    lambda m: m.full((), 2),
    lambda m: m.full((2,), 3, dtype=m.float64),
    lambda m: m.full([1, 2], m.tensor(2.5)),
    lambda m: m.zeros_like(m.ones(2, 3, dtype=m.int8)),
    lambda m: m.ones_like(m.zeros(2), dtype=m.float64),
    lambda m: m.full_like(m.zeros(2, 2), 7),
    lambda m: m.full_like(m.arange(3), 2),
    lambda m: m.arange(5),
    lambda m: m.arange(2, 5),
    lambda m: m.arange(1, 10, 3),
    lambda m: m.arange(5, 0, -2),
    lambda m: m.arange(0, 1, 0.25),
    lambda m: m.arange(0.0, 1.0, 0.1),
    lambda m: m.arange(1.0),
    lambda m: m.arange(0),
    lambda m: m.arange(3, dtype=m.float16),
    lambda m: m.arange(2.5),
    lambda m: m.linspace(0, 1, 5),
    lambda m: m.linspace(-3.0, 3.0, 1),
    lambda m: m.linspace(0, 10, 0),
    lambda m: m.linspace(5, -5, 11, dtype=m.float64),
    lambda m: m.logspace(0, 3, 4),
    lambda m: m.logspace(0, 3, 4, base=2.0),
    lambda m: m.eye(3),
    lambda m: m.eye(2, 3, dtype=m.int64),
    lambda m: m.eye(0),
    lambda m: m.zeros(2).new_tensor([1, 2]),
    lambda m: m.zeros(2, dtype=m.int8).new_zeros(3),
    lambda m: m.zeros(2, dtype=m.float64).new_ones((2, 2)),
    lambda m: m.zeros(2).new_full((2,), 3),
    lambda m: m.zeros(2).new_full((2,), 3, dtype=m.int64),
    lambda m: m.frombuffer(np.arange(4, dtype=np.int32), dtype=m.int32, offset=4),
    lambda m: m.Tensor([1, 2]),
    lambda m: m.FloatTensor([1, 2]),
    lambda m: m.LongTensor([1, 2]),
    lambda m: m.DoubleTensor([[1, 2]]),
    lambda m: m.BoolTensor([True]),
    lambda m: m.tensor([1, 2]).type(m.float32),
    lambda m: m.tensor([1, 2]).type("torch.DoubleTensor"),
]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list")
@pytest.mark.parametrize("i", range(len(CALLS)))
def test_what_is_made_is_pytorchs(i: int) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = CALLS[i](rg), CALLS[i](torch)
    assert tuple(ours.shape) == tuple(theirs.shape)
    assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1]
    if theirs.dtype is torch.bfloat16:
        ours, theirs = ours.float(), theirs.float()
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    assert ours.requires_grad == theirs.requires_grad


def test_tensor_copies_as_tensor_and_from_numpy_share() -> None:
    array = np.zeros(3, np.float32)
    copied, shared, also = rg.tensor(array), rg.as_tensor(array), rg.from_numpy(array)
    array[0] = 1
    assert (copied[0].item(), shared[0].item(), also[0].item()) == (0.0, 1.0, 1.0)
    t = rg.ones(2)
    assert rg.as_tensor(t) is t


def test_requires_grad_and_empty() -> None:
    assert rg.zeros(2, requires_grad=True).requires_grad
    assert rg.tensor([1.0], requires_grad=True).is_leaf
    assert rg.empty(2, 3).shape == (2, 3)
    assert rg.empty_like(rg.zeros(2, dtype=rg.int8)).dtype is rg.int8
    assert rg.empty(0).numel() == 0


def test_the_default_dtype() -> None:
    assert rg.get_default_dtype() is rg.float32
    try:
        rg.set_default_dtype(rg.float64)
        assert rg.zeros(1).dtype is rg.float64
        assert rg.tensor(1.5).dtype is rg.float64
        assert rg.tensor([1, 2]).dtype is rg.int64
        assert rg.arange(0.5).dtype is rg.float64
    finally:
        rg.set_default_dtype(rg.float32)
    with pytest.raises(TypeError, match="must be a floating dtype"):
        rg.set_default_dtype(rg.int64)


def test_copies_of_other_memory_orders() -> None:
    array = np.arange(6).reshape(2, 3)
    assert rg.tensor(array.T).is_contiguous()
    assert rg.from_numpy(array.T).stride() == (1, 3)
    assert rg.from_numpy(array[:, ::2]).tolist() == [[0, 2], [3, 5]]
    assert rg.tensor(array[::-1]).tolist() == [[3, 4, 5], [0, 1, 2]]
    assert rg.tensor(array.astype(">i8")).tolist() == array.tolist()


def test_errors() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        rg.tensor([[1, 2], [3]])
    with pytest.raises(TypeError, match=r"must be a numpy\.ndarray, came list"):
        rg.from_numpy([1])
    with pytest.raises(TypeError, match="object and string arrays cannot be tensors"):
        rg.from_numpy(np.array(["a"]))
    with pytest.raises((TypeError, ValueError)):
        rg.tensor(object())
    with pytest.raises((TypeError, ValueError)):
        rg.tensor([None])
    with pytest.raises(RuntimeError, match=r"must not be negative, came \[-1\]"):
        rg.zeros(-1)
    with pytest.raises(TypeError, match="sizes must be ints"):
        rg.zeros(2.0)
    with pytest.raises(TypeError, match="must be a ringgrad dtype"):
        rg.zeros(2, dtype="bogus".upper)
    with pytest.raises(RuntimeError, match="step must lead from start to end"):
        rg.arange(0, 3, -1)


def test_bfloat16_comes_from_ml_dtypes() -> None:
    t = rg.tensor([1.0, 1.00390625, 3.0], dtype=rg.bfloat16)
    assert t.tolist() == [1.0, 1.0, 3.0]
    assert t.element_size() == 2
    assert t.float().dtype is rg.float32


def test_pythons_types_are_the_widest_of_their_kind() -> None:
    kinds = {bool: rg.bool, int: rg.int64, float: rg.float64, complex: rg.complex128}
    assert [rg.zeros(2, dtype=kind).dtype for kind in kinds] == list(kinds.values())
    assert rg.ones(2).to(float).dtype is rg.float64
