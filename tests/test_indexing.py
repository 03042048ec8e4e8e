"""Indexing: reading, writing and gradients, for every kind of index, beside NumPy and PyTorch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringgrad as rg

try:
    import torch
except ImportError:
    torch = None

quick = settings(max_examples=200)


@st.composite
def shapes(draw: Any) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))


@st.composite
def basic_item(draw: Any, n: int) -> Any:
    if draw(st.booleans()):
        return draw(st.integers(-n, n - 1))
    start, stop = (draw(st.none() | st.integers(-n - 1, n + 1)) for _ in range(2))
    return slice(start, stop, draw(st.none() | st.integers(1, 3)))


def spread(draw: Any, items: list[Any]) -> tuple[Any, ...]:
    """Puts None and ... between items that index the first dimensions."""
    out = []
    for item in items:
        if draw(st.integers(0, 4)) == 0:
            out.append(None)
        out.append(item)
    if draw(st.integers(0, 2)) == 0:
        out.append(Ellipsis)
    return tuple(out)


@st.composite
def basic_case(draw: Any) -> tuple[tuple[int, ...], Any]:
    shape = draw(shapes())
    count = draw(st.integers(0, len(shape)))
    index = spread(draw, [draw(basic_item(n)) for n in shape[:count]])
    return shape, index[0] if len(index) == 1 and draw(st.booleans()) else index


@st.composite
def mixed_case(draw: Any) -> tuple[tuple[int, ...], Any]:
    """Integer arrays that broadcast, masks, slices, ints and None together."""
    shape = draw(shapes())
    count = draw(st.integers(1, len(shape)))
    common = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    items: list[Any] = []
    d = 0
    arrays = 0
    while d < count:
        kind = draw(st.sampled_from(["array", "array", "basic", "mask", "list"]))
        n = shape[d]
        if kind == "array" or (kind == "mask" and arrays):
            part = tuple(
                1 if draw(st.integers(0, 3)) == 0 else c
                for c in common[draw(st.integers(0, len(common) - 1)) :]
            )
            values = draw(
                st.lists(st.integers(-n, n - 1), min_size=int(np.prod(part)), max_size=int(np.prod(part)))
            )
            items.append(np.array(values, np.int64).reshape(part))
            arrays += 1
        elif kind == "mask":
            dims = 2 if d + 1 < count and draw(st.booleans()) else 1
            size = int(np.prod(shape[d : d + dims]))
            values = draw(st.lists(st.booleans(), min_size=size, max_size=size))
            items.append(np.array(values, bool).reshape(shape[d : d + dims]))
            d += dims - 1
            arrays += 2
            common = (int(items[-1].sum()) or 1,)
            if not items[-1].any():
                common = (1,)
        elif kind == "list" and not arrays:
            items.append([draw(st.integers(-n, n - 1))])
            arrays += 1
        else:
            items.append(draw(basic_item(n)))
        d += 1
    return shape, tuple(items)


def numbers(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.sin(np.arange(int(np.prod(shape)), dtype=np.float64)).reshape(shape)


def wrapped(m: Any, index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(wrapped(m, i) for i in index)
    return m.tensor(index) if isinstance(index, np.ndarray) else index


def fits_numpy(array: np.ndarray[Any, Any], index: Any) -> Any:
    """NumPy's result, or None where its index does not broadcast."""
    try:
        return array[index]
    except IndexError:
        return None


@quick
@given(basic_case())
def test_basic_reading_is_numpys_and_a_view(case: Any) -> None:
    shape, index = case
    array = numbers(shape)
    x = rg.tensor(array)
    y = x[index]
    want = np.asarray(array[index])
    assert tuple(y.shape) == want.shape
    np.testing.assert_array_equal(y.numpy(), want)
    assert not want.size or np.shares_memory(x.array, y.array)
    assert y._version is x._version


@quick
@given(mixed_case())
def test_advanced_reading_is_numpys_and_a_copy(case: Any) -> None:
    shape, index = case
    array = numbers(shape)
    want = fits_numpy(array, index)
    x = rg.tensor(array)
    if want is None:
        with pytest.raises(IndexError):
            x[wrapped(rg, index)]
        return
    y = x[wrapped(rg, index)]
    assert tuple(y.shape) == np.shape(want)
    np.testing.assert_array_equal(y.numpy(), want)
    if any(isinstance(i, np.ndarray | list) for i in index):
        assert not np.shares_memory(x.array, y.array)


@quick
@given(st.one_of(basic_case(), mixed_case()), st.sampled_from(["number", "full", "row"]))
def test_writing_is_numpys(case: Any, kind: str) -> None:
    shape, index = case
    want = numbers(shape)
    part = fits_numpy(want, index)
    if part is None:
        return
    value: Any = 9.5
    if kind == "full":
        value = np.full(np.shape(part), 3.25)  # equal values: the order of writes to one place is not defined
    elif kind == "row":
        value = np.full(np.shape(part)[-1:], -1.0)
    x = rg.tensor(want)
    x[wrapped(rg, index)] = rg.tensor(value) if kind != "number" else value
    want[index] = value
    np.testing.assert_array_equal(x.numpy(), want)


@quick
@given(st.one_of(basic_case(), mixed_case()))
def test_gradients_of_reading(case: Any) -> None:
    shape, index = case
    part = fits_numpy(numbers(shape), index)
    if part is None:
        return
    weights = np.cos(np.arange(np.size(part))).reshape(np.shape(part))
    want = np.zeros(shape)
    np.add.at(want, index, weights)
    x = rg.tensor(numbers(shape), requires_grad=True)
    (x[wrapped(rg, index)] * rg.tensor(weights)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), want, atol=1e-12)


@pytest.mark.parity
@quick
@given(st.one_of(basic_case(), mixed_case()))
def test_reading_writing_and_gradients_are_pytorchs(case: Any) -> None:
    if torch is None:
        pytest.skip("torch is not installed")
    shape, index = case

    def run(m: Any) -> list[np.ndarray[Any, Any]]:
        x = m.tensor(numbers(shape), requires_grad=True)
        v = m.tensor(2.5, dtype=m.float64, requires_grad=True)
        y = x * 2
        found = y[wrapped(m, index)]
        y[wrapped(m, index)] = v * 3
        (y.sin().sum() + (found.clone() * 0.5).sum()).backward()
        return [y.detach().numpy(), x.grad.numpy(), v.grad.numpy()]

    try:
        theirs = run(torch)
    except (IndexError, RuntimeError):
        with pytest.raises((IndexError, RuntimeError)):
            run(rg)
        return
    for a, b in zip(run(rg), theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


# ---- by hand


def test_repeated_indices_add_their_gradients() -> None:
    x = rg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x[rg.tensor([0, 0, 2, 0])].sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3.0, 0.0, 1.0])


def test_many_repeated_rows_add_their_gradients() -> None:
    """The way for embeddings: sorted, then summed in runs."""
    rows = np.random.default_rng(0).integers(0, 7, 500)
    weights = np.random.default_rng(1).standard_normal((500, 3))
    x = rg.zeros(7, 3, dtype=rg.float64, requires_grad=True)
    (x[rg.tensor(rows)] * rg.tensor(weights)).sum().backward()
    want = np.zeros((7, 3))
    np.add.at(want, rows, weights)
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-12)


def test_one_element_is_0d_and_a_view() -> None:
    x = rg.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x[1, 0]
    assert y.shape == () and y.item() == 3.0
    y.mul_(10)
    assert x[1, 0].item() == 30.0
    x[0][1] = 7.0
    assert x[0, 1].item() == 7.0


def test_indices_of_many_kinds() -> None:
    x = rg.arange(12).reshape(3, 4)
    assert x[rg.tensor(1)].tolist() == [4, 5, 6, 7]
    assert x[np.int64(1), np.array(2)].item() == 6
    assert x[rg.tensor(1) :].tolist() == x[1:].tolist()
    assert x[[0, 2]].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert x[[0, 2], [1, 3]].tolist() == [1, 11]
    assert x[[True, False, True], 1].tolist() == [1, 9]
    assert x[range(2)].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert x[rg.tensor([0, 2], dtype=rg.int32)].tolist() == x[[0, 2]].tolist()
    assert x[rg.tensor([], dtype=rg.int64)].shape == (0, 4)
    assert x[[]].shape == (0, 4)
    assert x[True].shape == (1, 3, 4)
    assert x[False].shape == (0, 3, 4)
    assert x[None].shape == (1, 3, 4)
    assert x[..., None].shape == (3, 4, 1)
    assert rg.tensor(5)[None].tolist() == [5]
    assert rg.tensor(5)[...].item() == 5
    assert x[x > 5].tolist() == [6, 7, 8, 9, 10, 11]
    assert x[(x > 5).any(dim=1)].shape == (2, 4)


def test_writing_of_many_kinds() -> None:
    x = rg.zeros(3, 4)
    x[1] = 1
    x[:, 2] = rg.tensor([5, 6, 7])
    x[x == 0] = -1.0
    x[0, [0, 1]] = rg.tensor([8.0, 9.0], dtype=rg.float64)
    x[2, 3] = rg.tensor(4)
    x[rg.tensor([True, False, False])] += 1
    assert x.tolist() == [[9, 10, 6, 0], [1, 1, 6, 1], [-1, -1, 7, 4]]
    x[...] = rg.arange(4)
    assert x[2].tolist() == [0, 1, 2, 3]
    x[0] = [1, 2, 3, 4.5]
    assert x[0].tolist() == [1, 2, 3, 4.5]


def test_writing_leading_ones_as_pytorch_does() -> None:
    x = rg.zeros(2, 3)
    x[0] = rg.ones(1, 3)
    assert x.tolist() == [[1, 1, 1], [0, 0, 0]]
    x[:, 0] = rg.full((1, 1, 2), 5.0)
    assert x[:, 0].tolist() == [5, 5]


def test_writing_a_tensor_into_itself() -> None:
    x = rg.arange(5)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3]
    x[:-1] = x[1:].clone()
    assert x.tolist() == [0, 1, 2, 3, 3]


def test_errors() -> None:
    x = rg.zeros(3, 4)
    for index in ((3,), (0, 4), (-4,), (0, 0, 0), ([3],), (rg.tensor([0, 5]),), (rg.zeros(2, 4) > 0,)):
        with pytest.raises(IndexError):
            x[index]
    with pytest.raises(IndexError, match="integer or bool, came float32"):
        x[rg.tensor([0.5])]
    with pytest.raises(IndexError, match="came float"):
        x[0.5]
    with pytest.raises(TypeError, match="came str"):
        x["a"]
    with pytest.raises(ValueError, match="step of a slice must be positive, came -1"):
        x[::-1]
    with pytest.raises(RuntimeError, match="value must fit the indexed part"):
        x[0] = rg.zeros(5)
    with pytest.raises(IndexError):
        x[7] = 1.0


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gather_and_index_select(dim: int) -> None:
    x = rg.tensor(numbers((3, 4, 5)), requires_grad=True)
    index = np.random.default_rng(0).integers(0, 3, (3, 4, 5))
    y = x.gather(dim, rg.tensor(index))
    np.testing.assert_array_equal(y.detach().numpy(), np.take_along_axis(x.detach().numpy(), index, dim))
    rows = rg.tensor([2, 0, 2])
    np.testing.assert_array_equal(
        x.index_select(dim, rows).detach().numpy(), np.take(x.detach().numpy(), rows.numpy(), dim)
    )


def test_masked_select_nonzero_and_where() -> None:
    x = rg.tensor([[0.0, 2.0], [3.0, 0.0]])
    assert x.masked_select(x > 0).tolist() == [2.0, 3.0]
    assert x.masked_select(rg.tensor([True, False])).tolist() == [0.0, 3.0]
    assert x.nonzero().tolist() == [[0, 1], [1, 0]]
    rows, columns = rg.where(x > 0)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    assert rg.tensor(3).nonzero().shape == (1, 0)
    assert rg.zeros(0, 2).nonzero().shape == (0, 2)
