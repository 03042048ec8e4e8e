"""Exported ops against eager: every sample of every op with an ONNX form, through ONNX's checker and ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

sys.path.insert(0, str(Path(__file__).parent))
from op_samples import INTEGER_ONLY, SAMPLES, A, settled  # noqa: E402

import ringgrad as rg  # noqa: E402
import ringgrad.nn.layers.rnn  # noqa: E402
from ringgrad.autograd.engine import wrap  # noqa: E402
from ringgrad.autograd.op import registry, tensor_ops  # noqa: E402
from ringgrad.export.table import emitters  # noqa: E402
from ringgrad.onnx import ExportError, OnnxModule, export  # noqa: E402

MATRICES = "ONNX has no matrix decompositions (torch.linalg), and these iterate as the values ask"
COMPLEX = "complex numbers are outside of nearly every ONNX operator"
RANDOM = "random numbers: off in evaluation mode, and no two runtimes agree on them"
# Every op without an ONNX form, and why.
UNSAYABLE = {
    "nextafter": "ONNX has no such function, and none on the bits of floating-point numbers before opset 26",
    **dict.fromkeys(("eig", "eigh", "pinv", "qr", "svd", "svd_values"), MATRICES),
    **dict.fromkeys(("fft_c2c", "fft_c2r", "fft_r2c", "complex", "imag", "real"), COMPLEX),
    **dict.fromkeys(("view_as_complex", "view_as_real"), COMPLEX),
    "counted_dropout": RANDOM,
}
NEEDS_18 = {"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "scatter_reduce"}


def run(proto: Any, *inputs: Any) -> list[Any]:
    """The outputs of ONNX Runtime, after the checker with shape inference."""
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs)))


def built(name: str, number: int) -> tuple[Any, tuple[Any, ...]]:
    """A sample as a function of its tensors, and those."""
    dtype = np.int64 if name in INTEGER_ONLY else np.float32

    def make(a: A) -> Any:
        return wrap(a.make(np.bool_ if name.startswith("logical") else dtype))

    args, kw = SAMPLES[name][number].build(make)
    args, kw = settled([wrap(a) if isinstance(a, np.ndarray) else a for a in args], kw, wrap)
    kw = {k: _plain(v) for k, v in kw.items()}
    places = [i for i, a in enumerate(args) if isinstance(a, rg.Tensor)]

    def call(*given: Any) -> Any:
        full = list(args)
        for i, t in zip(places, given):
            full[i] = t
        if name == "cholesky":  # export tries other values too, and all must be positive definite
            full[0] = full[0] @ full[0].mT + rg.eye(2)
        y = tensor_ops[name](*full, **kw)  # the op of a sample
        return y if isinstance(y, tuple | list) else (y,)

    return call, tuple(wrap(np.ascontiguousarray(args[i].array).reshape(args[i].shape)) for i in places)


def test_an_op_without_onnx_form_is_listed_with_the_reason() -> None:
    listed = set(UNSAYABLE)
    assert listed == {n for n, op in registry.items() if n not in emitters and op.composite is None}


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_an_op_gives_what_eager_gives(name: str, opset: int) -> None:
    """All samples of an op as one model: the checker, ONNX Runtime and `load` against eager."""
    calls = [built(name, i) for i in range(len(SAMPLES[name]))]
    if name in UNSAYABLE:
        for call, tensors in calls:
            refused(call, *tensors, match=f"{name!r} has no ONNX form")
            refused(call, *tensors, match=line_of("the op of a sample"))
        return
    counts = [len(tensors) for _, tensors in calls]
    everything = tuple(t for _, tensors in calls for t in tensors)

    def model(*given: Any) -> Any:
        left = iter(given)
        return [y for (call, _), n in zip(calls, counts) for y in call(*(next(left) for _ in range(n)))]

    want = model(*everything)
    if name in NEEDS_18 and opset < 18:
        refused(model, *everything, match="needs opset_version 18", opset_version=opset)
        opset = 18
    proto = export(model, everything, opset_version=opset)
    again = OnnxModule(proto)(*everything)
    again = again if isinstance(again, tuple) else (again,)
    found = run(proto, *(t.array for t in everything))
    assert len(found) == len(want) == len(again)
    for y, z, w in zip(found, again, want):
        assert z.array.shape == w.array.shape and z.array.dtype == w.array.dtype
        np.testing.assert_allclose(z.array, w.array, rtol=2e-5, atol=2e-6)
        assert y.shape == w.array.shape and y.dtype == w.array.dtype
        np.testing.assert_allclose(y, w.array, rtol=2e-5, atol=2e-6)


SPECIAL = ["lgamma", "digamma", "erfinv", "ndtri", "erfcx", "log_ndtr", "i0", "i0e", "i1", "i1e"]
EDGES = [
    -np.inf,
    -1e4,
    -30.5,
    -8,
    -2.5,
    -2,
    -1,
    -0.7,
    -0.0,
    0,
    1e-6,
    0.3,
    0.99,
    1,
    1.5,
    3,
    20,
    88,
    1e4,
    np.inf,
    np.nan,
]


def test_special_functions_at_their_edges() -> None:
    def model(x: Any) -> Any:
        orders = [tensor_ops["polygamma"](x, n=n) for n in range(4)]
        return [*(tensor_ops[name](x) for name in SPECIAL), *orders]

    x = rg.tensor(np.array(EDGES, np.float32))
    for y, want in zip(run(export(model, (x,)), x.array), model(x)):
        np.testing.assert_allclose(y, want.array, rtol=2e-5, atol=1e-6)
        assert np.isnan(y[-1])  # at NaN


def test_solvers_take_any_batch_and_matrices_that_need_a_pivot() -> None:
    def model(m: Any, b: Any) -> Any:
        return rg.linalg.inv(m), rg.linalg.solve(m, b), rg.linalg.slogdet(m)[1]

    rng = np.random.default_rng(0)
    m = np.array([[[0, 1, 2], [1, 0, 3], [4, -3, 8]]], np.float32)
    given = {"input_names": ["m", "b"], "dynamic_axes": {"b": {0: "n"}}}
    proto = export(model, (rg.tensor(m), rg.ones(5, 3, 2)), **given)
    b = rng.normal(size=(4, 3, 2)).astype(np.float32)
    for y, want in zip(run(proto, m, b), model(rg.tensor(m), rg.tensor(b))):
        np.testing.assert_allclose(y, want.array, rtol=1e-5, atol=1e-6)


def test_common_divisors_of_any_integers() -> None:
    a, b = np.array([0, -12, 7, 0, 5, 1 << 40]), np.array([0, 18, 0, -5, 5, 6])

    def model(x: Any, y: Any) -> Any:
        return rg.gcd(x, y), rg.lcm(x, y)

    found = run(export(model, (rg.tensor(a), rg.tensor(b))), a, b)
    assert np.array_equal(found, [np.gcd(a, b), np.lcm(a, b)])


def _plain(value: Any) -> Any:
    if isinstance(value, rg.Tensor):
        return value.array
    return tuple(_plain(v) for v in value) if type(value) is tuple else value


def line_of(text: str) -> str:
    """`file:line` of the line of this file that has this text as its comment."""
    lines = Path(__file__).read_text().splitlines()
    return f"test_onnx.py:{1 + next(i for i, line in enumerate(lines) if line.endswith('# ' + text))}"


def refused(model: Any, *inputs: Any, match: str, **kw: Any) -> None:
    with pytest.raises(ExportError) as caught:
        export(model, inputs, **kw)
    assert match in str(caught.value), caught.value


X = rg.arange(12.0).reshape(3, 4) / 7


def test_an_op_without_onnx_form_is_named_with_the_line() -> None:
    def model(x: Any) -> Any:
        return rg.linalg.svdvals(x)  # a decomposition

    refused(model, X, match="'svd_values'")
    refused(model, X, match=line_of("a decomposition"))


def test_a_value_read_into_python_is_refused() -> None:
    def model(x: Any) -> Any:
        return x * x.sum().item()  # a number from Python

    refused(model, X, match=line_of("a number from Python"))


def test_control_flow_by_values_is_refused() -> None:
    def model(x: Any) -> Any:
        return x.exp() if x[0, 0] > 0.1 else x.tanh()

    refused(model, X, match="every call must run the same ops")


def test_random_numbers_are_refused() -> None:
    refused(lambda x: x + rg.randn(4), X, match="is random")


def _assigned(x: Any) -> Any:
    y = rg.zeros(3, 4)
    y[0] = x[0]
    y[1:, 1] = x[1:, 2] * 2
    y[x > 1] = -1.0
    y += 1
    z = rg.zeros(3, 4)
    z[1] = 5.0  # of constants alone: a constant
    z[rg.arange(2), x[0].argsort()[:2]] = x[0, :2]
    z[:, ::2] = 0.5
    return y, z


def test_items_assigned_are_followed() -> None:
    proto = export(_assigned, X)
    for x in (X, X * -2, X.flip(1)):
        for found, want in zip(run(proto, x.numpy()), _assigned(x)):
            np.testing.assert_allclose(found, want.numpy(), rtol=1e-6)


def test_items_assigned_along_a_dynamic_axis_are_followed() -> None:
    def model(x: Any) -> Any:
        y = x.new_zeros(x.shape[0], x.shape[1] + 2)
        y[:, 1:-1] = x
        y[:, 0] = 7
        y[-1] = -1
        return y

    proto = export(model, X, dynamic_axes={"input": {0: "n", 1: "m"}})
    for x in (X, rg.randn(5, 2)):
        np.testing.assert_allclose(run(proto, x.numpy())[0], model(x).numpy())


def test_a_model_that_writes_its_buffers_is_refused() -> None:
    class Counts(rg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", rg.zeros(1))

        def forward(self, x: Any) -> Any:
            self.count += 1  # a count kept
            return x * self.count

    refused(Counts(), X, match="'count'")
    refused(Counts(), X, match=line_of("a count kept"))


def test_a_model_that_differentiates_itself_is_exported() -> None:
    class Forces(rg.nn.Module):
        """The gradient of an energy, as models of molecules give it."""

        def __init__(self) -> None:
            super().__init__()
            self.energy = rg.nn.Sequential(rg.nn.Linear(4, 5), rg.nn.ReLU(), rg.nn.Linear(5, 5), rg.nn.Tanh())

        def forward(self, x: Any) -> Any:
            with rg.enable_grad():
                x = x.detach().requires_grad_()
                y = self.energy(x)[:, 1:].sum()
                (force,) = rg.autograd.grad(y, x, create_graph=True)
            return y.detach(), -force.detach()

    model = Forces()
    proto = export(model, X)
    for x in (X, X * -3):
        for found, want in zip(run(proto, x.numpy()), model(x)):
            np.testing.assert_allclose(found, want.numpy(), rtol=1e-5, atol=1e-6)


def test_memory_written_through_a_view_is_refused() -> None:
    def model(x: Any) -> Any:
        y = x.exp()
        y[0].mul_(2)
        return y + 1  # read after the write

    refused(model, X, match=line_of("read after the write"))


def test_a_loop_over_a_dynamic_dimension_is_refused() -> None:
    def model(x: Any) -> Any:
        return sum(row.exp() for row in x)

    refused(model, X, match="every call must run the same ops", dynamic_axes={"input": {0: "n"}})


def test_a_size_from_values_is_refused() -> None:
    refused(lambda x: x[x > 0.5] * 2, X, match="onnx")


def test_in_place_ops_on_fresh_tensors_are_followed() -> None:
    def model(x: Any) -> Any:
        y = x * 2
        y += 1
        y.relu_()
        return y.clamp_(0, 3) + x

    (y,) = run(export(model, X), X.numpy())
    np.testing.assert_allclose(y, model(X).numpy())


def test_indices_computed_by_the_model_are_followed() -> None:
    def model(x: Any) -> Any:
        values, places = x.topk(2, dim=1)
        best = x.argmax(dim=1)
        return values, places, x.gather(1, best[:, None]), x.index_select(0, best), x.T[best]

    x = rg.randn(4, 4)
    for found, want in zip(run(export(model, x), x.numpy()), model(x)):
        np.testing.assert_allclose(found, want.numpy())


def test_sizes_are_computed_when_the_model_runs() -> None:
    def model(x: Any) -> Any:
        n, t = x.shape[:2]
        places = rg.arange(t).float()
        y = x.reshape(n * t, -1) + rg.zeros(n * t, 1)
        y = y.view(n, t, -1).transpose(0, 1).reshape(t, -1) / n
        return (
            y + places[:, None],
            x[:, t - 1],
            x[:, : t // 2],
            x.new_ones(n, t).triu(),
            rg.cat([x, x], 1).sum((0, 1)) / t,
        )

    x = rg.randn(2, 4, 3)
    proto = export(model, x, dynamic_axes={"input": {0: "n", 1: "t"}}, output_names=list("abcde"))
    assert [d.dim_param for d in proto.graph.output[1].type.tensor_type.shape.dim][:1] == ["n"]
    for shape in ((2, 4, 3), (3, 6, 3), (1, 2, 3)):
        x = rg.randn(*shape)
        for found, want in zip(run(proto, x.numpy()), model(x)):
            np.testing.assert_allclose(found, want.numpy(), rtol=1e-5, atol=1e-6)


def test_shared_parameters_are_written_once_under_their_names() -> None:
    class Tied(rg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = rg.nn.Linear(4, 4)
            self.second = rg.nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.unused = rg.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            x.exp()
            return self.second(self.first(x))

    proto = export(Tied(), X, input_names=["x"], output_names=["y"])
    assert {t.name for t in proto.graph.initializer} == {"first.weight", "first.bias", "second.bias"}
    assert [n.op_type for n in proto.graph.node] == ["Gemm", "Gemm", "Identity"]


def test_compiled_functions_are_exported() -> None:
    compiled = rg.compile(lambda x: x.exp() * 2)
    with rg.no_grad():
        for _ in range(4):
            want = compiled(X)
    assert compiled.calls["replayed"]
    (y,) = run(export(compiled, X), X.numpy())
    np.testing.assert_allclose(y, want.numpy(), rtol=1e-6)


def test_the_file_is_written(tmp_path: Path) -> None:
    export(rg.nn.Linear(4, 2), X, tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)


@pytest.mark.parametrize(
    ("kw", "text"),
    [
        ({"opset_version": 9}, "opset_version must be in"),
        ({"input_names": ["a", "b"]}, "input_names must be 1 distinct names"),
        ({"dynamic_axes": {"x": {0: "n"}}}, "must name inputs"),
        ({"dynamic_axes": {"input": {5: "n"}}}, "must be in [-2, 1]"),
    ],
)
def test_wrong_settings_are_refused(kw: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        export(rg.nn.ReLU(), X, **kw)
    assert text in str(caught.value)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one Tensor"):
        export(rg.nn.ReLU(), ())
    with pytest.raises(TypeError, match="must return Tensors"):
        export(lambda x: 3, X)
