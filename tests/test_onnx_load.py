"""ONNX files run as Modules: against ONNX Runtime and PyTorch, old forms of nodes, damaged and hostile files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import ringgrad as rg  # noqa: E402
from ringgrad.autograd.engine import wrap  # noqa: E402
from ringgrad.onnx import ExportError, OnnxModule, export, load  # noqa: E402

X = rg.arange(12.0).reshape(3, 4) / 7
helper = onnx.helper


def model_of(
    nodes: list[Any], opset: int, shape: Any = (2, 3, 4, 4), inits: Any = None, outputs: str = "y"
) -> Any:
    """A model of float32 `x` of this shape; initializers by name; outputs as `name` or `name:number of its type`."""
    info = [helper.make_tensor_value_info("x", 1, shape)]
    made = [
        helper.make_tensor_value_info(n.partition(":")[0], int(n.partition(":")[2] or 1), None)
        for n in outputs.split()
    ]
    weights = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (inits or {}).items()]
    graph = helper.make_graph(nodes, "g", info, made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(kind: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def same_as_onnx_runtime(proto: Any, *inputs: Any, atol: float = 1e-5) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    want = session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs)))
    found = OnnxModule(proto)(*(wrap(np.array(i)) for i in inputs))
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(want)
    for y, w in zip(found, want):
        assert y.array.dtype == w.dtype and y.array.shape == w.shape
        np.testing.assert_allclose(y.array, w, rtol=1e-4, atol=atol)


I64 = np.int64
OLD: list[tuple[int, Any, dict[str, Any]]] = [
    (7, node("Upsample", scales=[1.0, 1.0, 2.0, 1.5], mode="nearest"), {}),
    (9, node("Upsample", "x s", mode="linear"), {"s": np.array([1, 1, 2, 1.5], np.float32)}),
    (9, node("Slice", starts=[1, 0], ends=[3, -1], axes=[1, 3]), {}),
    (9, node("Clip", min=-0.5, max=0.25), {}),
    (9, node("TopK", outputs="y z", axis=1, k=2), {}),
    (10, node("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1], mode="constant", value=1.5), {}),
    (10, node("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1], mode="reflect"), {}),
    (10, node("Resize", "x s", mode="nearest"), {"s": np.array([1, 1, 0.5, 2], np.float32)}),
    (11, node("Softmax", axis=2), {}),
    (11, node("LogSoftmax"), {}),
    (11, node("Hardmax"), {}),
    (11, node("Unsqueeze", axes=[0, -1]), {}),
    (11, node("Split", outputs="y z", axis=1, split=[1, 2]), {}),
    (11, node("ReduceSum", axes=[1, 3], keepdims=0), {}),
    (11, node("Dropout", ratio=0.3), {}),
    (11, node("Pad", "x p", mode="edge"), {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1], I64)}),
    (12, node("Squeeze", axes=[0]), {}),
    (13, node("ReduceMean", axes=[-1]), {}),
    (13, node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), {}),
    (13, node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"), {}),
    (13, node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1), {}),
    (
        13,
        node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2]),
        {"w": np.ones((1, 3, 2, 3), np.float32)},
    ),
    (
        11,
        node("Resize", "x r s", mode="cubic", coordinate_transformation_mode="align_corners"),
        {"r": np.array([], np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
    ),
    (
        13,
        node("Resize", "x r r n", mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
        {"r": np.array([], np.float32), "n": np.array([2, 3, 7, 1], I64)},
    ),
    (9, node("BatchNormalization", "x a b c d"), {k: np.array([0.5, 1, 2], np.float32) for k in "abcd"}),
]


@pytest.mark.parametrize(("opset", "made", "inits"), OLD, ids=[f"{n.op_type}-{o}" for o, n, _ in OLD])
def test_an_old_form_gives_what_onnx_runtime_gives(opset: int, made: Any, inits: Any) -> None:
    shape = (1, 3, 4, 4) if made.op_type == "Squeeze" else (2, 3, 4, 4)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    outputs = "y z:7" if made.op_type == "TopK" else " ".join(made.output)
    same_as_onnx_runtime(model_of([made], opset, shape, inits, outputs), x)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("linear", [0, 1])
def test_a_recurrent_node_gives_what_onnx_runtime_gives(kind: str, direction: str, linear: int) -> None:
    count, gates, hidden = 2 if direction == "bidirectional" else 1, {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 3
    random = np.random.default_rng(1)

    def draw(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32) / 2

    inits = {"w": draw(count, gates * hidden, 4), "r": draw(count, gates * hidden, hidden)}
    inits |= {"b": draw(count, 2 * gates * hidden), "h": draw(count, 2, hidden)}
    kw = {"linear_before_reset": linear} if kind == "GRU" else {}
    made = node(kind, "x w r b  h".replace("  ", " n "), "y z", direction=direction, hidden_size=hidden, **kw)
    made.input[4] = ""
    same_as_onnx_runtime(model_of([made], 14, (5, 2, 4), inits, "y z"), draw(5, 2, 4))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_sequences_of_different_lengths_give_what_onnx_runtime_gives(kind: str) -> None:
    gates, random = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], np.random.default_rng(1)
    inits = {"w": random.standard_normal((2, gates * 3, 4)), "r": random.standard_normal((2, gates * 3, 3))}
    inits = {k: v.astype(np.float32) for k, v in inits.items()} | {"n": np.array([2, 5, 3], np.int32)}
    kw = {"linear_before_reset": 1} if kind == "GRU" else {}
    made = node(kind, "x w r none n", "y z", direction="bidirectional", hidden_size=3, **kw)
    made.input[3] = ""
    x = random.standard_normal((5, 3, 4)).astype(np.float32)
    same_as_onnx_runtime(model_of([made], 14, (5, 3, 4), inits, "y z"), x)


def test_a_quantised_model_gives_what_onnx_runtime_gives() -> None:
    random = np.random.default_rng(2)
    one, zero = np.float32(0.05), np.uint8(128)
    inits = {"s": one, "z": zero, "t": np.float32(0.02), "u": np.int8(0), "v": np.float32(0.3)}
    inits["w"] = random.integers(-100, 100, (5, 3, 3, 3)).astype(np.int8)
    inits["m"] = random.integers(-100, 100, (2, 4)).astype(np.int8)
    nodes = [
        node("QuantizeLinear", "x s z", "q"), node("QLinearConv", "q s z w t u v z", "c"),
        node("QLinearMatMul", "c v z m t u v z", "d"), node("DequantizeLinear", "d v z", "y"),
        node("MatMulInteger", "q i z", "k"),
    ]  # fmt: skip
    inits["i"] = random.integers(-100, 100, (4, 2)).astype(np.int8)
    x = random.standard_normal((2, 3, 4, 4)).astype(np.float32)
    same_as_onnx_runtime(model_of(nodes, 13, (2, 3, 4, 4), inits, "k:6"), x)
    # what lies between two quantised numbers may be rounded to either: a difference of one step
    same_as_onnx_runtime(model_of(nodes, 13, (2, 3, 4, 4), inits), x, atol=0.301)


def test_what_pytorch_exports_is_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            nn = torch.nn
            self.front = nn.Sequential(
                nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(3, 2, 1)
            )
            self.up = nn.Upsample(scale_factor=2, mode="bilinear")
            self.rnn = nn.LSTM(16, 5, bidirectional=True, batch_first=True)
            self.norm, self.head = nn.LayerNorm(10), nn.Linear(10, 3)

        def forward(self, x: Any) -> Any:
            y = self.up(self.front(x)).flatten(2)
            y, _ = self.rnn(y[:, :, :16])
            return self.head(self.norm(y)).softmax(-1)

    torch.manual_seed(0)
    model = Model().eval()
    x = torch.randn(2, 3, 16, 16)
    for opset in (11, 13, 17):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (x,), str(tmp_path / "m.onnx"), opset_version=opset, dynamo=False)
        y = load(tmp_path / "m.onnx")(rg.tensor(x.numpy()))
        np.testing.assert_allclose(y.numpy(), model(x).detach().numpy(), rtol=1e-4, atol=1e-6)


# ---- files


def test_a_file_is_loaded_as_a_module(tmp_path: Path) -> None:
    model = rg.nn.Sequential(rg.nn.Linear(4, 3), rg.nn.ReLU())
    export(model, X, tmp_path / "m.onnx", dynamic_axes={"input": {0: "n"}})
    loaded = load(tmp_path / "m.onnx")
    assert set(loaded.state_dict()) == {"0.weight", "0.bias"}
    x = rg.randn(7, 4)
    np.testing.assert_allclose(loaded(x).numpy(), model(x).detach().numpy(), rtol=1e-6)
    with pytest.raises(TypeError, match="takes the inputs"):
        loaded()


def saved(path: Path, *nodes: Any, opset: int = 18) -> Path:
    proto = model_of(list(nodes), opset, (3, 4), {"a": np.ones(4, np.float32)})
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", "m"]))
    onnx.save(proto, str(path))
    return path


def test_files_with_unknown_nodes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match="node types cannot be run: RandomNormalLike"):
        load(saved(file, node("RandomNormalLike")))
    with pytest.raises(ExportError, match="opset 7 to 28"):
        load(saved(file, node("Relu"), opset=6))
    with pytest.raises(ExportError, match="RNN with the attributes clip"):
        load(saved(file, node("RNN", "x x x", hidden_size=2, clip=1.0)))
    with pytest.raises(ExportError, match="training mode"):
        load(saved(file, node("BatchNormalization", "x a a a a", training_mode=1), opset=15))(X)


def test_weights_in_files_beside_it_are_read(tmp_path: Path) -> None:
    model = rg.nn.Linear(4, 3)
    proto = export(model, X)
    onnx.save(proto, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    np.testing.assert_allclose(load(tmp_path / "m.onnx")(X).numpy(), model(X).detach().numpy(), rtol=1e-6)
    whole = (tmp_path / "w.bin").read_bytes()
    for content in (whole[:-1], None):
        (tmp_path / "w.bin").unlink()
        if content is not None:
            (tmp_path / "w.bin").write_bytes(content)
        with pytest.raises(ExportError, match="must be a valid ONNX file"):
            load(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_weights_outside_of_its_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    proto = export(rg.nn.Linear(4, 3), X)
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {
            "location": location,
            "offset": "0",
            "length": str(4 * int(np.prod(tensor.dims))),
        }.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ExportError, match="must be a valid ONNX file"):
        load(folder / "m.onnx")


def test_damaged_files_are_refused_or_run_but_never_break(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    export(rg.nn.Sequential(rg.nn.Linear(4, 3), rg.nn.ReLU()), X, file)
    whole = file.read_bytes()
    for content in (b"", b"no model", whole[: len(whole) // 2], whole[:-3]):
        file.write_bytes(content)
        with pytest.raises(ExportError, match="must be a valid ONNX file"):
            load(file)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        broken = bytearray(whole)
        broken[random.integers(len(whole))] ^= 1 << int(random.integers(8))
        file.write_bytes(broken)
        try:
            load(file)
        except ExportError:
            refused += 1
    assert refused > 20
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.onnx")
