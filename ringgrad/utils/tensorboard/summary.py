"""Values as TensorBoard's summary messages. Imports tensorboard, so it is loaded by the writer alone."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np

try:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.hparams import summary_v2 as hparams_summary
except ImportError as error:
    raise ImportError(
        '[SummaryWriter] needs tensorboard, which is not installed: pip install "ringgrad[tensorboard]"'
    ) from error

from ...autograd.engine import Variable

RATIO = 1.1  # between the edges of the default histogram's buckets


def array_of(values: Any) -> Any:
    """A tensor, array, number or sequence as an array."""
    if isinstance(values, Variable):
        values = values.detach().cpu().array
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def number_of(who: str, tag: str, value: Any) -> float:
    """A number, or a tensor or array of one element, as a float."""
    array = array_of(value)
    if array.size != 1:
        raise ValueError(f"[{who}] {tag!r} must be one number, came shape {list(array.shape)}")
    return float(array.reshape(()))


def scalar(tag: str, value: float) -> Any:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def scalar_tensor(tag: str, value: float) -> Any:
    """The newer form, as a tensor of the scalars plugin."""
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    tensor = TensorProto(float_val=[value], dtype="DT_FLOAT")
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def text(tag: str, value: str) -> Any:
    plugin = SummaryMetadata.PluginData(plugin_name="text", content=b"")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[value.encode()], tensor_shape=shape)
    metadata = SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=tag + "/text_summary", tensor=tensor, metadata=metadata)])


def histogram(tag: str, values: Any, bins: Any, max_bins: int | None = None) -> Any:
    """Counts of the values: `bins` as for numpy.histogram, or "tensorflow" for buckets that grow by a tenth."""
    flat = array_of(values).astype(np.float64).reshape(-1)
    if not flat.size:
        raise ValueError(f"[add_histogram] {tag!r} must have at least one value, came none")
    if not np.isfinite(flat).all():
        raise ValueError(f"[add_histogram] {tag!r} must be finite, came NaN or infinity")
    counts, edges = np.histogram(flat, bins=_growing_edges() if bins == "tensorflow" else bins)
    if max_bins is not None and len(counts) > max_bins:
        step = -(-len(counts) // max_bins)
        counts = np.add.reduceat(counts, range(0, len(counts), step))
        edges = np.append(edges[:-1:step], edges[-1])
    filled = np.flatnonzero(counts)
    start, end = int(filled[0]), int(filled[-1]) + 1  # without the empty buckets at both ends
    proto = HistogramProto(
        min=flat.min(),
        max=flat.max(),
        num=flat.size,
        sum=flat.sum(),
        sum_squares=flat @ flat,
        bucket_limit=edges[start : end + 1].tolist(),
        bucket=[0, *counts[start:end].tolist()],
    )
    return Summary(value=[Summary.Value(tag=tag, histo=proto)])


def _growing_edges() -> Any:
    half = 1e-12 * RATIO ** np.arange(int(np.log(1e32) / np.log(RATIO)) + 1)
    return np.concatenate([-half[::-1], [0.0], half])


def image(tag: str, values: Any, dataformats: str) -> Any:
    """uint8 as it is, floats in [0, 1]; `dataformats` names the dimensions, "NCHW" images are laid side by side."""
    pixels = _as_hwc(array_of(values), dataformats)
    if pixels.dtype != np.uint8:
        pixels = (np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)
    height, width, channels = pixels.shape
    encoded = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png(pixels))
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])


def _as_hwc(values: Any, dataformats: str) -> Any:
    letters = dataformats.upper()
    if len(letters) != values.ndim or len(set(letters)) != len(letters) or set(letters) - set("NCHW"):
        raise ValueError(
            f"[add_image] dataformats must name each dimension of shape {list(values.shape)} with N, C, H, W, came"
            f" {dataformats!r}"
        )
    full = values.reshape(*values.shape, *(1,) * (4 - values.ndim))
    letters += "".join(c for c in "NCHW" if c not in letters)
    pixels = full.transpose([letters.index(c) for c in "NHWC"])
    n, height, width, channels = pixels.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    canvas = np.zeros((rows * columns, height, width, channels), pixels.dtype)
    canvas[:n] = pixels
    grid = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * height, columns * width, channels)
    if channels not in (1, 3, 4):
        raise ValueError(f"[add_image] an image must have 1, 3 or 4 channels, came {channels}")
    return np.repeat(grid, 3, axis=2) if channels == 1 else grid


def png(pixels: Any) -> bytes:
    """Pixels, uint8 [height, width, 3 or 4], as a PNG file (RFC 2083)."""
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each line starts with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header += bytes([8, 2 if channels == 3 else 6, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def figure(tag: str, drawn: Any, close: bool) -> Any:
    """A matplotlib figure as an image."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="rgba", dpi=drawn.dpi)
    width, height = drawn.canvas.get_width_height()
    pixels = np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)
    if close:
        import matplotlib.pyplot as plt

        plt.close(drawn)
    return image(tag, pixels, "HWC")


def hparams(values: dict[str, Any], metrics: dict[str, Any]) -> list[Any]:
    """Hyperparameters and the metrics to compare them by."""
    plain = {k: v if isinstance(v, bool | str) else number_of("add_hparams", k, v) for k, v in values.items()}
    configuration = hparams_summary.hparams_config_pb(
        hparams=[hparams_summary.HParam(name) for name in plain],
        metrics=[hparams_summary.Metric(name) for name in metrics],
    )
    return [configuration, hparams_summary.hparams_pb(plain)]
