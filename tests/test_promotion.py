"""Type promotion beside PyTorch: every dtype with every dtype, as tensors, 0-d tensors and Python numbers."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ringgrad as rg

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
NUMBERS: list[Any] = [True, 2, 2.5]
OPS = ["add", "mul", "sub", "div", "maximum", "pow", "eq", "lt", "where", "atan2"]


def call(m: Any, op: str, a: Any, b: Any) -> Any:
    if op == "where":
        return m.where(m.tensor([True, False]), a, b)
    if op in ("maximum", "atan2") and not (isinstance(a, m.Tensor) and isinstance(b, m.Tensor)):
        return m.add(a, b)
    return getattr(m, op)(a, b)


def made(m: Any, dtype: str, dims: bool) -> Any:
    return m.ones(2, dtype=getattr(m, dtype)) if dims else m.tensor(1, dtype=getattr(m, dtype))


def outcome(f: Any) -> str:
    try:
        return str(f().dtype).split(".")[1]
    except (RuntimeError, TypeError, NotImplementedError):
        return "error"


@pytest.mark.parity
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dims", [(True, True), (True, False), (False, True), (False, False)])
def test_tensors_with_tensors(op: str, dims: tuple[bool, bool]) -> None:
    torch = pytest.importorskip("torch")
    wrong = []
    for a, b in itertools.product(DTYPES, DTYPES):
        want = outcome(lambda: call(torch, op, made(torch, a, dims[0]), made(torch, b, dims[1])))  # noqa: B023
        got = outcome(lambda: call(rg, op, made(rg, a, dims[0]), made(rg, b, dims[1])))  # noqa: B023
        if got != want and want != "error":
            wrong.append(f"{a} {op} {b}: {want}, came {got}")
    assert not wrong, wrong


@pytest.mark.parity
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dims", [True, False])
@pytest.mark.parametrize("default", ["float32", "float64", "float16"])
def test_tensors_with_numbers(op: str, dims: bool, default: str) -> None:
    torch = pytest.importorskip("torch")
    wrong = []
    try:
        torch.set_default_dtype(getattr(torch, default))
        rg.set_default_dtype(getattr(rg, default))
        for a, number, left in itertools.product(DTYPES, NUMBERS, (False, True)):
            if left and op in ("sub", "div", "pow", "eq", "lt", "add", "mul", "maximum", "atan2"):
                sign = {
                    "sub": "__rsub__",
                    "div": "__rtruediv__",
                    "pow": "__rpow__",
                    "add": "__radd__",
                    "mul": "__rmul__",
                }
                if op not in sign:
                    continue
                f = lambda m: getattr(made(m, a, dims), sign[op])(number)  # noqa: B023
            elif left:
                f = lambda m: call(m, op, number, made(m, a, dims))  # noqa: B023
            else:
                f = lambda m: call(m, op, made(m, a, dims), number)  # noqa: B023
            want, got = outcome(lambda: f(torch)), outcome(lambda: f(rg))  # noqa: B023
            if got != want and want != "error":
                wrong.append(f"{a} {op} {number!r} {'left' if left else ''}: {want}, came {got}")
    finally:
        torch.set_default_dtype(torch.float32)
        rg.set_default_dtype(rg.float32)
    assert not wrong, wrong


@pytest.mark.parity
@pytest.mark.parametrize("op", ["add_", "mul_", "div_", "sub_", "pow_", "copy_"])
def test_in_place_keeps_the_dtype_or_is_an_error(op: str) -> None:
    torch = pytest.importorskip("torch")
    wrong = []
    for a, b in itertools.product(DTYPES, [*DTYPES, *NUMBERS]):

        def run(m: Any) -> Any:
            other = made(m, b, True) if isinstance(b, str) else b  # noqa: B023
            if op == "copy_" and not isinstance(b, str):  # noqa: B023
                other = m.tensor(b)  # noqa: B023
            return getattr(made(m, a, True), op)(other)  # noqa: B023

        want, got = outcome(lambda: run(torch)), outcome(lambda: run(rg))
        if op in ("sub_", "pow_") and b in ("bool", True):
            continue  # refused by PyTorch, a number like any other here
        if got != want:
            wrong.append(f"{a}.{op}({b}): {want}, came {got}")
    assert not wrong, wrong


@pytest.mark.parity
@pytest.mark.parametrize(
    "name",
    [
        "sum",
        "prod",
        "mean",
        "cumsum",
        "exp",
        "sqrt",
        "abs",
        "neg",
        "sigmoid",
        "floor",
        "square",
        "sign",
        "logical_not",
    ],
)
def test_functions_of_one_tensor(name: str) -> None:
    torch = pytest.importorskip("torch")
    args = (0,) if name == "cumsum" else ()
    wrong = []
    for a in DTYPES:
        want = outcome(lambda: getattr(torch, name)(made(torch, a, True), *args))  # noqa: B023
        got = outcome(lambda: getattr(rg, name)(made(rg, a, True), *args))  # noqa: B023
        if got != want and want != "error":
            wrong.append(f"{name} of {a}: {want}, came {got}")
    assert not wrong, wrong


@pytest.mark.parity
@pytest.mark.parametrize("name", ["cat", "stack"])
def test_joins(name: str) -> None:
    torch = pytest.importorskip("torch")
    for a, b in itertools.product(DTYPES, DTYPES):
        want = outcome(lambda: getattr(torch, name)([made(torch, a, True), made(torch, b, True)]))  # noqa: B023
        got = outcome(lambda: getattr(rg, name)([made(rg, a, True), made(rg, b, True)]))  # noqa: B023
        assert got == want, f"{name} of {a} and {b}"


# ---- without PyTorch

BY_HAND = [
    ("int64", "float16", "float16"),
    ("uint8", "int8", "int16"),
    ("float16", "bfloat16", "float32"),
    ("bool", "uint8", "uint8"),
    ("int32", "float32", "float32"),
    ("float32", "float64", "float64"),
]


@pytest.mark.parametrize(("a", "b", "want"), BY_HAND)
def test_by_hand(a: str, b: str, want: str) -> None:
    assert str((made(rg, a, True) + made(rg, b, True)).dtype) == f"ringgrad.{want}"
    assert str((made(rg, b, True) * made(rg, a, True)).dtype) == f"ringgrad.{want}"


def test_0d_tensors_and_numbers_do_not_widen() -> None:
    assert (rg.ones(2) * rg.tensor(2.0, dtype=rg.float64)).dtype is rg.float32
    assert (rg.ones(2, dtype=rg.int32) + rg.tensor(1)).dtype is rg.int32
    assert (rg.ones(2, dtype=rg.int32) + 1.5).dtype is rg.float32
    assert (rg.ones(2, dtype=rg.float16) + 1e3).dtype is rg.float16
    assert (rg.ones(2, dtype=rg.uint8) + True).dtype is rg.uint8
    assert (rg.tensor(1.0, dtype=rg.float64) + rg.ones((), dtype=rg.float32)).dtype is rg.float64
    assert (rg.arange(3) / 2).dtype is rg.float32


def test_numpy_scalars_count_as_numbers() -> None:
    assert (rg.ones(2) * np.float64(2.0)).dtype is rg.float32
    assert (rg.ones(2) * np.int64(2)).dtype is rg.float32
    assert (rg.arange(2) * np.int64(2)).dtype is rg.int64


def test_a_number_must_fit() -> None:
    with pytest.raises(RuntimeError, match="a number must fit uint8, came 300"):
        rg.ones(2, dtype=rg.uint8) + 300


def test_gradients_flow_through_promotion() -> None:
    x = rg.ones(2, dtype=rg.float16, requires_grad=True)
    y = rg.ones(2, dtype=rg.float64, requires_grad=True)
    (x * y * 3).sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (rg.float16, rg.float64)
    assert x.grad.tolist() == [3.0, 3.0]


KINDS = [*(name for name in DTYPES if name != "float16"), "complex64", "complex128"]  # there is no complex32
OPERANDS = st.one_of(
    st.tuples(st.sampled_from(KINDS), st.sampled_from([(), (1,), (2, 1), (3,)])),
    st.sampled_from([True, 2, 2.5, 1j]),
)


def chain(m: Any, operands: list[Any], op: str) -> list[Any]:
    """dtypes and shapes of the operands taken together one by one, and what result_type says of each pair."""
    values = [m.ones(x[1], dtype=getattr(m, x[0])) if isinstance(x, tuple) else x for x in operands]
    seen, so_far = [], values[0]
    for value in values[1:]:
        if isinstance(so_far, m.Tensor) or isinstance(value, m.Tensor):
            seen.append(str(m.result_type(so_far, value)).split(".")[1])
        so_far = so_far + value if op == "add" else so_far * value
        if isinstance(so_far, m.Tensor):
            seen.append((str(so_far.dtype).split(".")[1], tuple(so_far.shape), so_far.sum().item()))
    return seen


@pytest.mark.parity
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(OPERANDS, min_size=2, max_size=4), st.sampled_from(["add", "mul"]))
def test_chains_of_operands(operands: list[Any], op: str) -> None:
    torch = pytest.importorskip("torch")
    assert chain(rg, operands, op) == chain(torch, operands, op)
