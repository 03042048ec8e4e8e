"""Every kind of layer, exported for any batch size, against eager."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import ringgrad as torch  # noqa: E402
from ringgrad import nn  # noqa: E402
from ringgrad.nn import functional as F  # noqa: E402
from ringgrad.onnx import ExportError, OnnxModule, export  # noqa: E402

Make = Callable[[int], Any]
CASES: dict[str, tuple[Callable[[], Any], Make]] = {}


def of(*shape: int, count: int = 1, axis: int = 0) -> Make:
    """Tensors whose batch size stands at `axis`."""
    return lambda n: tuple(torch.randn(*shape[:axis], n, *shape[axis:]) for _ in range(count))


def index(rows: int, *shape: int) -> Make:
    return lambda n: (torch.randint(0, rows, (n, *shape)),)


V = of(8)
PLACES = {1: of(4, 9), 2: of(4, 8, 10), 3: of(4, 6, 6, 6)}
CONV = {"in_channels": 4, "out_channels": 6, "kernel_size": 3}
WITH_PLACES: list[tuple[str, dict[str, Any]]] = [
    ("Conv", {**CONV, "padding": "same", "groups": 2}),
    ("Conv", {**CONV, "padding": 1, "padding_mode": "circular"}),
    ("Conv", {**CONV, "stride": 2, "dilation": 2, "padding": 2, "bias": False}),
    ("ConvTranspose", {**CONV, "stride": 2, "padding": 1, "output_padding": 1}),
    ("MaxPool", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ("AvgPool", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("AvgPool", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ("AdaptiveAvgPool", {"output_size": 3}),
    ("AdaptiveMaxPool", {"output_size": 3}),
    ("LPPool", {"norm_type": 2, "kernel_size": 2}),
    ("BatchNorm", {"num_features": 4}),
    ("InstanceNorm", {"num_features": 4, "affine": True}),
    ("ReflectionPad", {"padding": 2}),
    ("ReplicationPad", {"padding": 2}),
    ("ConstantPad", {"padding": 2, "value": 1.0}),
    ("CircularPad", {"padding": 1}),
    ("Dropout", {}),
]
for _d, _made in PLACES.items():
    for _i, (_name, _kw) in enumerate(WITH_PLACES):
        if hasattr(nn, f"{_name}{_d}d"):
            CASES[f"{_name}{_d}d-{_i}"] = (partial(getattr(nn, f"{_name}{_d}d"), **_kw), _made)
ACTIVATIONS = """ReLU ReLU6 ELU SELU CELU GELU SiLU Mish Hardtanh Hardswish Hardsigmoid Hardshrink Softshrink Softplus
    Softsign Sigmoid Tanh Tanhshrink LogSigmoid LeakyReLU PReLU RReLU GLU Identity"""
for _name in ACTIVATIONS.split():
    CASES[_name] = (getattr(nn, _name), V)


def with_grid(n: int) -> tuple[Any, ...]:
    return torch.randn(n, 4, 6, 6), torch.randn(n, 3, 5, 2)


def probabilities(n: int) -> tuple[Any, ...]:
    return torch.rand(n, 8) * 0.8 + 0.1, torch.rand(n, 8) * 0.8 + 0.1


def signs(n: int) -> tuple[Any, ...]:
    return torch.randn(n, 8), torch.randint(0, 2, (n, 8)).float() * 2 - 1


def classes(n: int) -> tuple[Any, ...]:
    return torch.randn(n, 8), torch.randint(0, 8, (n,))


def pairs(n: int) -> tuple[Any, ...]:
    return torch.randn(n, 8), torch.randn(n, 8), torch.randint(0, 2, (n,)) * 2 - 1


def ranks(n: int) -> tuple[Any, ...]:
    return torch.randn(n), torch.randn(n), torch.randint(0, 2, (n,)) * 2 - 1


def unpooled(d: int) -> Any:
    class Unpooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = getattr(nn, f"MaxPool{d}d")(2, return_indices=True)
            self.back = getattr(nn, f"MaxUnpool{d}d")(2)

        def forward(self, x: Any) -> Any:
            return self.back(*self.pool(x), output_size=x.shape)

    return Unpooled


for _d, _made in PLACES.items():
    CASES[f"MaxUnpool{_d}d"] = (unpooled(_d), _made)
    CASES[f"ZeroPad{_d}d"] = (partial(getattr(nn, f"ZeroPad{_d}d"), 1), _made)
TWO = of(8, count=2)
LOSSES: dict[str, Make] = {
    "BCELoss": probabilities, "BCEWithLogitsLoss": probabilities, "CosineEmbeddingLoss": pairs,
    "CrossEntropyLoss": classes, "HingeEmbeddingLoss": signs, "HuberLoss": TWO, "KLDivLoss": probabilities,
    "L1Loss": TWO, "MarginRankingLoss": ranks, "MSELoss": TWO, "MultiLabelSoftMarginLoss": probabilities,
    "NLLLoss": classes, "NLLLoss2d": classes, "PoissonNLLLoss": probabilities, "SmoothL1Loss": TWO,
    "SoftMarginLoss": signs, "TripletMarginLoss": of(8, count=3), "TripletMarginWithDistanceLoss": of(8, count=3),
    "GaussianNLLLoss": lambda n: (*TWO(n), torch.rand(n, 8) + 0.1),
}  # fmt: skip
for _name, _make in LOSSES.items():
    _kw = {"reduction": "batchmean"} if _name == "KLDivLoss" else {}
    CASES[_name] = (partial(getattr(nn, _name), **_kw), _make)
CASES |= {
    "Softmax": (lambda: nn.Softmax(1), V),
    "Softmin": (lambda: nn.Softmin(1), V),
    "LogSoftmax": (lambda: nn.LogSoftmax(1), V),
    "Linear": (lambda: nn.Linear(8, 3), V),
    "Bilinear": (lambda: nn.Bilinear(8, 8, 3), of(8, count=2)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), PLACES[2]),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3), PLACES[2]),
    "RMSNorm": (lambda: nn.RMSNorm(8), V),
    "LayerNorm": (lambda: nn.LayerNorm((8, 10)), PLACES[2]),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), PLACES[2]),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), PLACES[2]),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), PLACES[2]),
    "Unfold": (lambda: nn.Unfold(3, padding=1), PLACES[2]),
    "Fold": (lambda: nn.Fold((8, 10), 2, stride=2), of(8, 20)),
    "Fold, overlapping": (lambda: nn.Fold((8, 10), 3, padding=1), of(9, 80)),
    "Upsample": (lambda: nn.Upsample(scale_factor=2), PLACES[2]),
    "bilinear": (lambda: nn.Upsample(size=(5, 7), mode="bilinear"), PLACES[2]),
    "bicubic": (lambda: nn.Upsample(scale_factor=2, mode="bicubic", align_corners=True), PLACES[2]),
    "Flatten": (nn.Flatten, PLACES[2]),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 2)), PLACES[2]),
    "CosineSimilarity": (nn.CosineSimilarity, of(8, count=2)),
    "PairwiseDistance": (nn.PairwiseDistance, of(8, count=2)),
    "Embedding": (lambda: nn.Embedding(9, 3, padding_idx=0), index(9, 5)),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), of(5, 8, count=3)),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), of(5, 8, count=2)),
    "Transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), of(5, 8, count=2)),
    "LSTMCell": (lambda: nn.LSTMCell(8, 3), V),
    "GRUCell": (lambda: nn.GRUCell(8, 3), V),
    "RNNCell": (lambda: nn.RNNCell(8, 3, nonlinearity="relu"), V),
    "LSTM with projection": (lambda: nn.LSTM(8, 4, proj_size=2), of(3, 8, axis=1)),
    "LSTM without bias": (lambda: nn.LSTM(8, 4, bias=False), of(3, 8, axis=1)),
    "MaxPool with indices": (lambda: nn.MaxPool2d(2, return_indices=True), PLACES[2]),
    "AdaptiveLogSoftmax": (lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10]).log_prob, V),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)), V),
    "spectral_norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3)), V),
    "Softmax2d": (nn.Softmax2d, PLACES[2]),
    "Threshold": (lambda: nn.Threshold(0.1, 2.0), V),
    "AlphaDropout": (nn.AlphaDropout, V),
    "Dropout": (nn.Dropout, V),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, PLACES[2]),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), PLACES[2]),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d(scale_factor=2), PLACES[2]),
    "LSTM in both directions": (lambda: nn.LSTM(8, 3, 2, bidirectional=True), of(3, 8, axis=1)),
    "GRU in both directions": (lambda: nn.GRU(8, 3, 2, bidirectional=True), of(3, 8, axis=1)),
    "RNN of relu": (lambda: nn.RNN(8, 3, nonlinearity="relu"), of(3, 8, axis=1)),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(9, 3), index(9, 5)),
    "EmbeddingBag, max": (lambda: nn.EmbeddingBag(9, 3, mode="max", padding_idx=2), index(9, 5)),
    "EmbeddingBag, padded": (lambda: nn.EmbeddingBag(9, 3, padding_idx=2), index(9, 5)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), of(5, 8)),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1), of(5, 8)
    ),
    "TransformerDecoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1), of(5, 8, count=2)
    ),
    "one_hot": (lambda: lambda i: F.one_hot(i, 9), index(9, 5)),
    "grid_sample": (lambda: lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), with_grid),
    "normalize": (lambda: F.normalize, V),
    "einsum": (lambda: lambda x: torch.einsum("bij,bik->bjk", x, x), PLACES[1]),
    "cdist": (lambda: lambda x: torch.cdist(x, x), PLACES[1]),
    "sort": (lambda: lambda x: torch.sort(x, dim=1), V),
    "max": (lambda: lambda x: x.max(dim=1), V),
    "repeat": (lambda: lambda x: (x.repeat(2, 3), x.repeat_interleave(2, 1)), V),
    "std_mean": (lambda: lambda x: torch.std_mean(x, 1), V),
    "addmm": (lambda: lambda x: torch.addmm(x, x, torch.eye(8)), V),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_layer_runs_with_another_batch_size(name: str) -> None:
    build, make = CASES[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch warns of too: nested tensors, weight_norm
        layer = build()
    args = make(2)
    names = [f"x{i}" for i in range(len(args))]
    axis = 1 if name.startswith(("LSTM ", "GRU ", "RNN ")) else 0
    proto = export(layer, args, input_names=names, dynamic_axes={n: {axis: "batch"} for n in names})
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    runner = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    if isinstance(layer, nn.Module):
        layer.eval()
    for size in (2, 3):
        args = make(size)
        found = runner.run(None, {n: t.numpy() for n, t in zip(names, args)})
        want = flat(layer(*args))
        assert len(found) == len(want)
        again = flat(OnnxModule(proto)(*args))
        for y, z, w in zip(found, again, want):
            np.testing.assert_allclose(y, w.detach().numpy(), rtol=1e-4, atol=2e-5)
            np.testing.assert_allclose(z.numpy(), w.detach().numpy(), rtol=1e-4, atol=2e-5)


def flat(result: Any) -> list[Any]:
    return [t for part in result for t in flat(part)] if isinstance(result, tuple) else [result]


# Layers that are exported as part of others, and those that are not.
PARTS = {
    "Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "LazyModuleMixin", "RNNBase",
    "RNNCellBase", "DataParallel",
}  # fmt: skip
VALUES = "reads values of its inputs in Python: which classes, how long"
REFUSED = dict.fromkeys(("CTCLoss", "MultiLabelMarginLoss", "MultiMarginLoss"), VALUES)


def test_every_layer_is_exported_or_listed() -> None:
    layers = {n for n, c in vars(nn).items() if isinstance(c, type) and issubclass(c, nn.Module)}
    exported = {re.split("[- ,]", name)[0] for name in CASES}
    aliases = {"AdaptiveLogSoftmaxWithLoss"}  # its log_prob is exported
    plain = {
        n for n in layers if not n.startswith("Lazy")
    }  # lazy ones become the plain ones in their first call
    assert plain - exported - PARTS - aliases == set(REFUSED)


def test_what_depends_on_values_is_refused_not_frozen() -> None:
    with pytest.raises(ExportError, match="num_classes: -1 depends on the inputs' values"):
        export(lambda i: F.one_hot(i), index(9, 5)(2))
    with pytest.raises(ExportError, match="inputs' values"):
        export(nn.MultiMarginLoss(), classes(2))
    with pytest.raises(ExportError, match="inputs' values"):
        export(lambda i: i * i.item(), torch.tensor([3]))
