"""Batches of samples: what becomes a tensor, what stays, and errors that name the sample."""

from collections import OrderedDict, UserDict, UserList, namedtuple
from types import MappingProxyType

import ml_dtypes
import numpy as np
import pytest

import ringgrad as rg
from ringgrad.data import default_collate, default_convert

Point = namedtuple("Point", "x y")


def test_numbers_become_tensors_of_pytorchs_types():
    for batch, dtype in (([1, 2], rg.int64), ([1.0, 2.0], rg.float64), ([True, False], rg.bool)):
        found = default_collate(batch)
        assert found.dtype is dtype and found.tolist() == batch
    found = default_collate([np.float32(1), np.float32(2)])
    assert found.dtype is rg.float32 and found.tolist() == [1.0, 2.0]


def test_tensors_and_arrays_are_stacked_into_new_memory():
    rows = [rg.full((2, 3), float(i)) for i in range(4)]
    found = default_collate(rows)
    assert tuple(found.shape) == (4, 2, 3) and found[:, 1, 2].tolist() == [0.0, 1.0, 2.0, 3.0]
    found.zero_()
    assert rows[3].tolist() == [[3.0] * 3] * 2
    turned = np.arange(6, dtype=np.int16).reshape(2, 3).T
    assert default_collate([turned, turned])[1].tolist() == turned.tolist()
    half = np.ones(2, ml_dtypes.bfloat16)
    assert default_collate([half, half]).dtype is rg.bfloat16
    scalars = default_collate([rg.tensor(1.5), rg.tensor(2.5)])
    assert tuple(scalars.shape) == (2,) and scalars.tolist() == [1.5, 2.5]
    assert tuple(default_collate([rg.zeros(0), rg.zeros(0)]).shape) == (2, 0)


def test_a_gradient_flows_back_into_the_samples():
    base = rg.zeros(3)
    view = base[1:]
    leaf = rg.ones(2, requires_grad=True)
    base[1:] = leaf * 2  # the view now needs a gradient, through its base
    (default_collate([view, rg.ones(2)]) * 3).sum().backward()
    assert leaf.grad.tolist() == [6.0, 6.0]


def test_containers_keep_their_form():
    batch = [{"p": Point(1, [2, "a"]), "q": (3, b"b")}, {"p": Point(4, [5, "c"]), "q": (6, b"d")}]
    found = default_collate(batch)
    assert type(found["p"]) is Point and found["p"].x.tolist() == [1, 4]
    assert type(found["p"].y) is list and found["p"].y[0].tolist() == [2, 5] and found["p"].y[1] == ("a", "c")
    assert type(found["q"]) is list and found["q"][1] == (b"b", b"d")


def test_other_mappings_and_sequences_keep_their_type():
    class Named(dict):
        def __init__(self, name):
            super().__init__()
            self.name = name

    named = Named("first")
    named["a"] = 1
    assert default_collate([named, named]).name == "first" and named == {"a": 1}
    for like in (OrderedDict(a=1), UserDict(a=1), MappingProxyType({"a": 1})):
        found = default_collate([like, like])
        assert type(found) is type(like) and found["a"].tolist() == [1, 1]
    assert type(default_collate([UserList([1]), UserList([2])])) is UserList
    assert [t.tolist() for t in default_collate([range(2), range(2)])] == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    "batch, error, message",
    [
        (
            [np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 4))],
            RuntimeError,
            r"\[2, 3\] at entry 0 and \[2, 4\] at entry 2",
        ),
        (
            [{"image": (0, rg.ones(2))}, {"image": (0, rg.ones(3))}],
            RuntimeError,
            r"\[2\] at entry 0 and \[3\] at entry 1 for sample\['image'\]\[1\]: pass a collate_fn",
        ),
        (
            [{"a": [1, 2]}, {"a": [1]}],
            RuntimeError,
            r"sample\['a'\] has length 2 in sample 0 and 1 in sample 1",
        ),
        ([{"a": 1}, {"a": 1}, {"b": 1}], KeyError, r"sample of sample 2 has \['b'\], without 'a'"),
        ([{"a": (1, None)}], TypeError, r"found NoneType as sample\['a'\]\[1\]"),
        ([np.array(["x"])], TypeError, "found an array of <U1"),
    ],
)
def test_errors_name_the_member_and_the_sample(batch, error, message):
    with pytest.raises(error, match=message):
        default_collate(batch)


def test_converting_one_sample():
    array = np.arange(3)
    found = default_convert({"a": array, "b": Point([np.float32(2)], "text"), "c": None, "d": (1, array)})
    array[0] = 9
    assert found["a"].tolist() == [9, 1, 2] and found["b"].x[0].dtype is rg.float32 and found["b"].y == "text"
    assert found["c"] is None and type(found["d"]) is list and found["d"][0] == 1
    names = np.array(["a"])
    assert default_convert(names) is names
