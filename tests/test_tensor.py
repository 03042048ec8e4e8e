"""The Tensor as an object: how it prints, leaves the engine, is copied and sent; legacy constructors."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import ringgrad as rg

PRINTED: list[Any] = [
    lambda m: m.tensor(1.0),
    lambda m: m.tensor(1),
    lambda m: m.tensor(True),
    lambda m: m.tensor(-1.5, dtype=m.float64),
    lambda m: m.tensor([]),
    lambda m: m.zeros(0, 3),
    lambda m: m.zeros(2, 0, dtype=m.int64),
    lambda m: m.tensor([], dtype=m.int64),
    lambda m: m.tensor([1.0, 2.0, 3.0]),
    lambda m: m.tensor([1.5, -2.25, 3.125]),
    lambda m: m.tensor([0.0001, 1000.0]),
    lambda m: m.tensor([1e-5, 1.0]),
    lambda m: m.tensor([1e-8]),
    lambda m: m.tensor([1e10]),
    lambda m: m.tensor([123456.0, 1.0]),
    lambda m: m.tensor([1234567.5]),
    lambda m: m.tensor([99999.5, 0.5]),
    lambda m: m.tensor([1e9, 2e9]),
    lambda m: m.tensor([float("nan"), float("inf"), -float("inf")]),
    lambda m: m.tensor([float("nan"), 1.5]),
    lambda m: m.tensor([float("inf"), 1.0]),
    lambda m: m.tensor([-0.0, 0.0]),
    lambda m: m.tensor([1, 20, -300]),
    lambda m: m.tensor([[1, 2], [3, 4]], dtype=m.int8),
    lambda m: m.tensor([True, False]),
    lambda m: m.tensor([[True], [False]]),
    lambda m: m.tensor([1.5, 2.0], dtype=m.float16),
    lambda m: m.tensor([1.5, 2.25], dtype=m.bfloat16),
    lambda m: m.tensor([1.0, 2.0], dtype=m.float64),
    lambda m: m.tensor([1, 2], dtype=m.uint8),
    lambda m: m.zeros(2, 3),
    lambda m: m.ones(2, 2, 2),
    lambda m: m.arange(24).reshape(2, 3, 4),
    lambda m: m.arange(24.0).reshape(2, 1, 3, 4),
    lambda m: m.arange(30),
    lambda m: m.arange(100.0) / 7,
    lambda m: m.arange(1001),
    lambda m: m.arange(2000.0),
    lambda m: m.arange(2000.0) / 3,
    lambda m: m.arange(4000).reshape(40, 100),
    lambda m: m.zeros(20, 20, 20),
    lambda m: m.eye(3),
    lambda m: m.full((3,), 0.1),
    lambda m: m.tensor([[0.5, 100.25], [-3.0, 1e-3]]),
    lambda m: m.tensor([1.0, 2.0], requires_grad=True),
    lambda m: m.tensor([1.0, 2.0], requires_grad=True) * 2,
    lambda m: (m.tensor([1.0, 2.0], requires_grad=True) * 2).sum(),
    lambda m: m.zeros(0, requires_grad=True),
    lambda m: m.tensor([1.0, 2.0], dtype=m.float64, requires_grad=True).exp(),
    lambda m: m.arange(6).reshape(2, 3).t(),
    lambda m: m.tensor([[1.0, float("nan")], [1e5, 0.1]]),
    lambda m: m.tensor(1e-10),
    lambda m: m.tensor(12345678.0),
    lambda m: m.tensor(0.1 + 0.2, dtype=m.float64),
    lambda m: m.Size([2, 3]),
    lambda m: m.float32,
    lambda m: m.zeros(2, 3).shape,
    lambda m: m.nn.Parameter(m.ones(2)),
]


@pytest.mark.parity
@pytest.mark.parametrize("i", range(len(PRINTED)))
def test_prints_as_pytorch(i: int) -> None:
    torch = pytest.importorskip("torch")
    assert repr(PRINTED[i](rg)).replace("ringgrad.", "torch.") == repr(PRINTED[i](torch))


@pytest.mark.parity
def test_print_options() -> None:
    torch = pytest.importorskip("torch")
    try:
        for options in (
            {"precision": 2},
            {"threshold": 10, "edgeitems": 2},
            {"sci_mode": True},
            {"sci_mode": False},
            {"linewidth": 40},
            {"profile": "short"},
        ):
            for m in (rg, torch):
                m.set_printoptions(profile="default")
                m.set_printoptions(**options)
            for make in (
                lambda m: m.arange(30.0) / 7,
                lambda m: m.tensor([1e-6, 1.0]),
                lambda m: m.arange(40).reshape(4, 10),
            ):
                assert repr(make(rg)) == repr(make(torch)), options
    finally:
        for m in (rg, torch):
            m.set_printoptions(profile="default")


def test_printing_by_hand() -> None:
    assert repr(rg.tensor([1.0, 2.5])) == "tensor([1.0000, 2.5000])"
    assert str(rg.tensor([[1, -2], [3, 4]])) == "tensor([[ 1, -2],\n        [ 3,  4]])"
    assert repr(rg.tensor(3.0, requires_grad=True)) == "tensor(3., requires_grad=True)"
    assert repr(rg.tensor([1.0], requires_grad=True) + 1) == "tensor([2.], grad_fn=<AddBackward0>)"
    assert f"{rg.tensor(3.14159):.2f}" == "3.14"
    assert f"{rg.tensor(7)}" == "7"


# ---- out of the engine


def test_item_and_tolist() -> None:
    assert rg.tensor(2.5).item() == 2.5
    assert type(rg.tensor(2).item()) is int
    assert type(rg.tensor(True).item()) is bool
    assert rg.tensor([[3.0]]).item() == 3.0
    assert rg.tensor(1.5, dtype=rg.bfloat16).item() == 1.5
    assert rg.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert rg.tensor(1.5).tolist() == 1.5
    assert rg.tensor([1.5], dtype=rg.bfloat16).tolist() == [1.5]
    assert rg.zeros(2, 0).tolist() == [[], []]
    with pytest.raises(RuntimeError, match=r"must have one element, came 2"):
        rg.zeros(2).item()


def test_python_numbers() -> None:
    x = rg.tensor(2.7)
    assert (float(x), int(x), bool(x), complex(x)) == (pytest.approx(2.7), 2, True, pytest.approx(2.7))
    assert [10, 20, 30][rg.tensor(1)] == 20
    assert list(range(rg.tensor(3))) == [0, 1, 2]
    assert not rg.tensor([0.0])
    with pytest.raises(TypeError, match="only integer tensors"):
        [1, 2][rg.tensor(1.0)]
    with pytest.raises(RuntimeError, match="truth of a tensor"):
        bool(rg.zeros(2))


def test_len_iter_contains_hash_eq() -> None:
    x = rg.tensor([[1, 2], [3, 4], [5, 6]])
    assert len(x) == 3
    assert [row.tolist() for row in x] == [[1, 2], [3, 4], [5, 6]]
    assert 4 in x and 7 not in x
    assert x in {x} and len({x, x.clone()}) == 2
    assert (x == x).all() and not (x != x).any()
    assert (x == "a") is False
    assert (x == None) is False  # noqa: E711
    _, b, _ = x
    assert b.tolist() == [3, 4]
    assert rg.tensor([1.0, 2.0]).sum() == 3.0


def test_numpy_shares_memory() -> None:
    x = rg.zeros(3)
    array = x.numpy()
    array[0] = 5
    assert x[0].item() == 5.0
    assert np.shares_memory(np.asarray(x), array)
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert np.add(array, x.numpy()).tolist() == [10.0, 0.0, 0.0]
    y = rg.zeros(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"use \.detach\(\)\.numpy\(\)"):
        y.numpy()
    assert y.numpy(force=True).shape == (2,)
    assert isinstance(np.ones(3, np.float32) * x, rg.Tensor)
    assert (np.float64(2.0) * x).dtype is rg.float32


def test_dlpack() -> None:
    x = rg.arange(6.0).reshape(2, 3)
    array = np.from_dlpack(x)
    assert np.shares_memory(array, x.numpy())
    assert x.__dlpack_device__() == (1, 0)
    torch = pytest.importorskip("torch")
    theirs = torch.from_dlpack(x)
    theirs[0, 0] = 42.0
    assert x[0, 0].item() == 42.0
    with pytest.raises(RuntimeError, match="must not require grad"):
        np.from_dlpack(rg.zeros(2, requires_grad=True))


# ---- copies


def test_deepcopy() -> None:
    x = rg.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    x.note = "kept"
    y = copy.deepcopy(x)
    assert y.requires_grad and y.is_leaf and y.note == "kept"
    assert y.grad.tolist() == [2.0, 2.0]
    with rg.no_grad():
        y.zero_()
        y.grad.zero_()
    assert x.tolist() == [1.0, 1.0] and x.grad.tolist() == [2.0, 2.0]
    p = copy.deepcopy({"a": x, "b": x})
    assert p["a"] is p["b"]
    with pytest.raises(RuntimeError, match="only leaves"):
        copy.deepcopy(x * 2)
    assert copy.deepcopy(rg.arange(4).reshape(2, 2).t()).stride() == (1, 2)


def test_deepcopy_leaves_hooks_behind() -> None:
    x = rg.ones(1, requires_grad=True)
    x.register_hook(lambda g: g * 100)
    y = copy.deepcopy(x)
    (y * 2).sum().backward()
    assert y.grad.item() == 2.0


def test_copy_and_pickle_between_processes() -> None:
    """What multiprocessing does with what workers return."""
    x = rg.tensor([[1.5, 2.0], [3.0, 4.0]], dtype=rg.bfloat16)
    y = pickle.loads(pickle.dumps(x))
    assert y.dtype is rg.bfloat16 and y.tolist() == x.tolist()
    p = rg.Parameter(rg.ones(2))
    q = pickle.loads(pickle.dumps(p))
    assert type(q) is rg.Parameter and q.requires_grad and q.is_leaf
    h = pickle.loads(pickle.dumps((p * 2).detach()))
    assert h.tolist() == [2.0, 2.0]
    assert pickle.loads(pickle.dumps(rg.float32)) is rg.float32
    assert copy.copy(x).tolist() == x.tolist()
    assert pickle.loads(pickle.dumps(rg.Size([2, 3]))) == (2, 3)


# ---- what it is


def test_sizes_and_strides() -> None:
    x = rg.zeros(2, 3, 4)
    assert x.shape == (2, 3, 4) == x.size() and isinstance(x.shape, rg.Size)
    assert (x.size(1), x.size(-1), x.dim(), x.ndim, x.numel(), x.nelement()) == (3, 4, 3, 3, 24, 24)
    assert x.stride() == (12, 4, 1) and x.stride(0) == 12
    assert x.shape[1:] == rg.Size([3, 4]) and isinstance(x.shape[1:], rg.Size)
    assert x.shape.numel() == 24
    assert (x.element_size(), x.itemsize, x.nbytes) == (4, 4, 96)
    assert x[1, 2].storage_offset() == 20
    assert x.is_contiguous() and not x.transpose(0, 2).is_contiguous()
    assert x.transpose(0, 2).contiguous().is_contiguous()
    assert x.is_floating_point() and not x.is_complex()
    assert x.T.shape == (4, 3, 2) and x.mT.shape == (2, 4, 3)
    assert x.data_ptr() == x.view(-1).data_ptr() != x.clone().data_ptr()
    assert str(x.device) == "cpu" and not x.is_cuda


def test_casts() -> None:
    x = rg.tensor([1.7, -1.7])
    assert x.int().tolist() == [1, -1]
    assert x.to(rg.float32) is x
    assert x.to(rg.float64).dtype is rg.float64
    assert x.to("cpu") is x
    assert x.to("cpu", rg.int8).dtype is rg.int8
    assert x.to(rg.zeros(1, dtype=rg.float16)).dtype is rg.float16
    assert x.to(x, copy=True) is not x
    assert x.type_as(rg.zeros(1, dtype=rg.int16)).dtype is rg.int16
    kinds = [x.double(), x.half(), x.bfloat16(), x.long(), x.short(), x.char(), x.bool()]
    assert [t.dtype for t in kinds] == [
        rg.float64,
        rg.float16,
        rg.bfloat16,
        rg.int64,
        rg.int16,
        rg.int8,
        rg.bool,
    ]
    with pytest.raises(RuntimeError):
        x.to("cuda")


def test_legacy_constructors_and_types() -> None:
    assert rg.Tensor([1, 2]).dtype is rg.float32
    assert rg.Tensor(2, 3).shape == (2, 3)
    assert rg.FloatTensor(2, 3).shape == (2, 3)
    assert rg.LongTensor([1, 2]).dtype is rg.int64
    assert rg.ByteTensor([1]).dtype is rg.uint8
    assert rg.HalfTensor([1]).dtype is rg.float16
    assert rg.tensor([1.0]).type() == "torch.FloatTensor"
    assert rg.tensor([1.0]).type("torch.LongTensor").dtype is rg.int64
    assert isinstance(rg.tensor([1.0]), rg.FloatTensor)
    assert not isinstance(rg.tensor([1]), rg.FloatTensor)
    with pytest.raises(ValueError, match="must be a dtype or one of"):
        rg.zeros(1).type("torch.NoTensor")


def test_subclasses_and_attributes() -> None:
    x = rg.zeros(2)
    x.name = "weights"
    assert x.name == "weights"
    assert isinstance(rg.Parameter(rg.ones(2)), rg.Tensor)
    assert not rg.Parameter(rg.ones(2), requires_grad=False).requires_grad
    assert rg.is_tensor(x) and not rg.is_tensor(3)


def test_data_can_be_replaced() -> None:
    x = rg.ones(2, requires_grad=True)
    x.data = rg.tensor([5.0, 6.0])
    assert x.tolist() == [5.0, 6.0] and x.requires_grad and x.is_leaf
    x.data.mul_(2)
    assert x.tolist() == [10.0, 12.0]
    x.grad = rg.ones(2)
    del x.grad
    assert x.grad is None
    with pytest.raises(RuntimeError, match="shape and dtype must be the tensor's"):
        x.grad = rg.ones(3)
    with pytest.raises(TypeError, match="must be a Tensor or None"):
        x.grad = 3


def test_a_0d_tensor_takes_the_dimensions_0_and_minus_1() -> None:
    x = rg.tensor(2.0, requires_grad=True)
    assert x.sum(0).item() == x.mean(-1).item() == x.amax(0).item() == 2.0
    x.sum(0).backward()
    assert x.grad.item() == 1.0
    with pytest.raises(IndexError, match=r"\[sum\] dim must be in \[-1, 0\], came 1"):
        x.sum(1)
