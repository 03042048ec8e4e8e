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
from ringgrad.autograd.op import tensor_ops  # noqa: E402
from ringgrad.export.table import emitters  # noqa: E402
from ringgrad.onnx import ExportError, OnnxModule, export, load  # noqa: E402

BY_COMPOSITE = {"rms_norm", "batch_norm"}
# What the samples hold that ONNX cannot say, by op and number.
REFUSED = {"scatter_reduce": {1, 2, 3, 5}}


def run(proto: Any, *inputs: Any) -> list[Any]:
    """The outputs of ONNX Runtime, after the checker with shape inference."""
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs)))


def cases() -> list[Any]:
    names = sorted(n for n in {*emitters, *BY_COMPOSITE} if n in SAMPLES)
    return [pytest.param(n, i, id=f"{n}-{i}") for n in names for i in range(len(SAMPLES[n]))]


@pytest.mark.parametrize(("name", "number"), cases())
def test_an_op_gives_what_eager_gives(name: str, number: int) -> None:
    sample = SAMPLES[name][number]
    dtype = np.int64 if name in INTEGER_ONLY else np.float32
    tensors: list[Any] = []

    def make(a: A) -> Any:
        array = a.make(np.bool_ if name.startswith("logical") else dtype)
        return wrap(array)

    def argument(value: Any) -> Any:
        return value.array if isinstance(value, rg.Tensor) else value

    args, kw = sample.build(make)
    args, kw = settled(args, kw, wrap)
    kw = {k: _plain(v) for k, v in kw.items()}
    places = [i for i, a in enumerate(args) if isinstance(a, rg.Tensor)]
    tensors = [wrap(np.ascontiguousarray(args[i].array).reshape(args[i].shape)) for i in places]

    def model(*given: Any) -> Any:
        full = list(args)
        for i, t in zip(places, given):
            full[i] = t
        return tensor_ops[name](*full, **kw)

    want = model(*tensors)
    want = list(want) if isinstance(want, tuple) else [want]
    if number in REFUSED.get(name, ()):
        with pytest.raises(ExportError, match=name):
            export(model, tuple(tensors))
        return
    found = run(export(model, tuple(tensors)), *(t.array for t in tensors))
    again = OnnxModule(export(model, tuple(tensors)))(*tensors)
    again = list(again) if isinstance(again, tuple) else [again]
    assert len(found) == len(want) == len(again)
    for y, z, w in zip(found, again, want):
        assert z.array.shape == w.array.shape and z.array.dtype == w.array.dtype
        np.testing.assert_allclose(z.array, w.array, rtol=2e-5, atol=2e-6)
        assert y.shape == w.array.shape and y.dtype == w.array.dtype
        np.testing.assert_allclose(y, w.array, rtol=2e-5, atol=2e-6)


def _plain(value: Any) -> Any:
    if isinstance(value, rg.Tensor):
        return value.array
    return tuple(_plain(v) for v in value) if isinstance(value, tuple) else value


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
        return rg.special.i0(x)  # a Bessel function

    refused(model, X, match="'i0'")
    refused(model, X, match=line_of("a Bessel function"))


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


def test_values_moved_through_item_assignment_are_refused() -> None:
    def model(x: Any) -> Any:
        y = rg.zeros(3, 4)
        y[0] = x[0]
        return y * 2  # assigned before

    refused(model, X, match=line_of("assigned before"))


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


def test_a_file_is_loaded_as_a_module(tmp_path: Path) -> None:
    model = rg.nn.Sequential(rg.nn.Linear(4, 3), rg.nn.ReLU())
    export(model, X, tmp_path / "m.onnx", dynamic_axes={"input": {0: "n"}})
    loaded = load(tmp_path / "m.onnx")
    assert set(loaded.state_dict()) == {"0.weight", "0.bias"}
    x = rg.randn(7, 4)
    np.testing.assert_allclose(loaded(x).numpy(), model(x).detach().numpy(), rtol=1e-6)
    with pytest.raises(TypeError, match="takes the inputs"):
        loaded()


def test_files_with_unknown_nodes_are_refused(tmp_path: Path) -> None:
    def file(kind: str, opset: int = 18, **attributes: Any) -> Path:
        info = [onnx.helper.make_tensor_value_info(n, 1, [3, 4]) for n in "xy"]
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node(kind, ["x"], ["y"], **attributes)], "g", info[:1], info[1:]
        )
        proto = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8
        )
        onnx.save(proto, str(tmp_path / "m.onnx"))
        return tmp_path / "m.onnx"

    with pytest.raises(ExportError, match="node types cannot be run: Hardmax"):
        load(file("Hardmax"))
    with pytest.raises(ExportError, match="opset 17 to 23"):
        load(file("Relu", 14))
    with pytest.raises(ExportError, match="MaxPool with the attributes ceil_mode"):
        load(file("MaxPool", kernel_shape=[1], ceil_mode=1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the cases themselves warn of while they are made
def test_node_tests_of_the_onnx_package_run_right_or_are_refused() -> None:
    from onnx.backend.test.case.node import collect_testcases

    right = 0
    for case in collect_testcases(None):
        inputs, outputs = case.data_sets[0]
        arrays = all(isinstance(a, np.ndarray) and a.dtype.kind in "fiub" for a in (*inputs, *outputs))
        opset = next((o for o in case.model.opset_import if o.domain == ""), None)
        if not arrays or opset is None or "empty_set" in case.name:  # PyTorch has no maximum of nothing
            continue
        opset.version = min(max(opset.version, 17), 23)  # the nodes that are run did not change since
        try:
            found = OnnxModule(case.model)(*(wrap(np.array(a)) for a in inputs))
        except ExportError:
            continue
        for y, want in zip(found if isinstance(found, tuple) else (found,), outputs):
            assert y.array.shape == want.shape, case.name
            np.testing.assert_allclose(y.array, want, rtol=1e-3, atol=1e-5, err_msg=case.name)
        right += 1
    assert right > 400
