"""Neural network functions against PyTorch: values, gradients, and gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.nn import functional as RF

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning")]
TF = torch.nn.functional

Case = tuple[str, Callable[..., Any], tuple[Any, ...]]
CASES: list[Case] = []


def case(name: str, fn: Callable[..., Any], *inputs: Any) -> None:
    """fn(F, *tensors) with tensors of normal numbers of the shapes given, or of the arrays given."""
    CASES.append((name, fn, inputs))


def classes(*shape: int, high: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def uniform(*shape: int, low: float = 0.05, high: float = 0.95, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


WIDE = np.concatenate([np.linspace(-9, 9, 61), [-30.0, 30.0, 100.0]]).reshape(8, 8) + 1e-3

# ---- activations

for name in (
    "relu",
    "relu6",
    "silu",
    "mish",
    "selu",
    "logsigmoid",
    "softsign",
    "tanhshrink",
    "hardswish",
    "hardsigmoid",
):
    case(name, lambda F, x, name=name: getattr(F, name)(x), WIDE)
for name in (
    "gelu",
    "elu",
    "celu",
    "softplus",
    "leaky_relu",
    "hardtanh",
    "hardshrink",
    "softshrink",
    "sigmoid",
    "tanh",
):
    case(name, lambda F, x, name=name: getattr(F, name)(x), WIDE)
case("gelu_tanh", lambda F, x: F.gelu(x, approximate="tanh"), WIDE)
case("elu_alpha", lambda F, x: F.elu(x, 0.7), WIDE)
case("celu_alpha", lambda F, x: F.celu(x, 1.7), WIDE)
case("softplus_beta", lambda F, x: F.softplus(x, 2.5, 10), WIDE)
case("leaky_relu_steep", lambda F, x: F.leaky_relu(x, 1.5), WIDE)
case("leaky_relu_negative", lambda F, x: F.leaky_relu(x, -0.2), WIDE)
case("hardtanh_range", lambda F, x: F.hardtanh(x, -2.0, 0.5), WIDE)
case("threshold", lambda F, x: F.threshold(x, 0.1, 20.0), WIDE)
case("prelu_one", lambda F, x, w: F.prelu(x, w), (4, 5, 3), np.array([0.3]))
case("prelu_channels", lambda F, x, w: F.prelu(x, w), (4, 5, 3), (5,))
case("rrelu_eval", lambda F, x: F.rrelu(x), WIDE)
case("glu", lambda F, x: F.glu(x, 1), (3, 6, 2))
case("softmax", lambda F, x: F.softmax(x, -1), (3, 4, 7))
case("softmax_middle", lambda F, x: F.softmax(x * 9, 1), (3, 4, 7))
case("softmax_long", lambda F, x: F.softmax(x, 1), (70, 600))
case("softmax_0d", lambda F, x: F.softmax(x, 0), np.array(2.0))
case("softmin", lambda F, x: F.softmin(x, 0), (3, 4))
case("log_softmax", lambda F, x: F.log_softmax(x * 20, -1), (3, 4, 7))
case("log_softmax_first", lambda F, x: F.log_softmax(x, 0), (3, 4, 7))

# ---- maps, lookups, norms, attention

case("linear", lambda F, x, w, b: F.linear(x, w, b), (2, 3, 4), (5, 4), (5,))
case("linear_1d", lambda F, x, w: F.linear(x, w), (4,), (5, 4))
case("bilinear", lambda F, a, b, w, c: F.bilinear(a, b, w, c), (2, 6, 3), (2, 6, 4), (5, 3, 4), (5,))
case("embedding", lambda F, i, w: F.embedding(i, w), classes(4, 6, high=5), (5, 3))
case("embedding_padding", lambda F, i, w: F.embedding(i, w, padding_idx=-2), classes(4, 6, high=5), (5, 3))
case(
    "embedding_freq",
    lambda F, i, w: F.embedding(i, w, scale_grad_by_freq=True),
    classes(4, 6, high=5),
    (5, 3),
)
case("layer_norm", lambda F, x, w, b: F.layer_norm(x, (7,), w, b), (5, 3, 7), (7,), (7,))
case("layer_norm_plain", lambda F, x: F.layer_norm(x, (3, 7), eps=1e-2), (5, 3, 7))
case("layer_norm_bias", lambda F, x, b: F.layer_norm(x, (7,), None, b), (5, 3, 7), (7,))
case("layer_norm_long", lambda F, x, w, b: F.layer_norm(x, (500,), w, b), (140, 500), (500,), (500,))
case("rms_norm", lambda F, x, w: F.rms_norm(x, (7,), w), (5, 3, 7), (7,))
case("rms_norm_plain", lambda F, x: F.rms_norm(x, (3, 7), eps=0.1), (5, 3, 7))
case("normalize", lambda F, x: F.normalize(x), (4, 5, 3))
case("normalize_1", lambda F, x: F.normalize(x, 1.0, -1), (4, 5, 3))
case("cosine_similarity", lambda F, a, b: F.cosine_similarity(a, b), (4, 5, 3), (4, 5, 3))
case("pairwise_distance", lambda F, a, b: F.pairwise_distance(a, b), (4, 5), (4, 5))

QKV = ((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4))
MASK = np.random.default_rng(0).random((2, 1, 5, 6)) > 0.4
MASK[0, 0, 2] = False


def attention(F: Any, q: Any, k: Any, v: Any, mask: Any = None, **kw: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, mask, **kw)


case("attention", attention, *QKV)
case("attention_causal", lambda F, *t: attention(F, *t, is_causal=True), *QKV)
case("attention_scale", lambda F, *t: attention(F, *t, scale=0.7), (5, 4), (6, 4), (6, 3))
case("attention_bool_mask", attention, *QKV, MASK)
case("attention_float_mask", attention, *QKV, (1, 3, 5, 6))
case(
    "attention_gqa",
    lambda F, *t: attention(F, *t, is_causal=True, enable_gqa=True),
    (2, 6, 5, 4),
    (2, 2, 5, 4),
    (2, 2, 5, 4),
)

# ---- losses

for reduction in ("mean", "sum", "none"):
    r = {"reduction": reduction}
    for smooth in (0.0, 0.2):
        s = {**r, "label_smoothing": smooth}
        tag = f"{reduction}_{smooth}"
        case(f"ce_{tag}", lambda F, x, t, s=s: F.cross_entropy(x, t, **s), (6, 5), classes(6, high=5))
        case(f"ce_1d_{tag}", lambda F, x, t, s=s: F.cross_entropy(x, t, **s), (5,), np.array(3))
        case(
            f"ce_weight_{tag}",
            lambda F, x, t, w, s=s: F.cross_entropy(x, t, w.detach().abs(), ignore_index=2, **s),
            (6, 5),
            classes(6, high=5),
            (5,),
        )
        case(
            f"ce_3d_{tag}",
            lambda F, x, t, w, s=s: F.cross_entropy(x, t, w.detach().abs(), ignore_index=-1, **s),
            (3, 5, 2, 4),
            classes(3, 2, 4, high=6) - 1,
            (5,),
        )
        case(
            f"ce_probabilities_{tag}",
            lambda F, x, t, w, s=s: F.cross_entropy(x, F.softmax(t, 1), w.detach().abs(), **s),
            (3, 5, 4),
            (3, 5, 4),
            (5,),
        )
    case(f"nll_{reduction}", lambda F, x, t, r=r: F.nll_loss(x, t, **r), (6, 5), classes(6, high=5))
    case(
        f"nll_weight_{reduction}",
        lambda F, x, t, w, r=r: F.nll_loss(x, t, w.detach(), ignore_index=1, **r),
        (3, 5, 4),
        classes(3, 4, high=5),
        uniform(5),
    )
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        case(f"{name}_{reduction}", lambda F, x, t, r=r, n=name: getattr(F, n)(x, t, **r), (4, 5), (4, 5))
    case(
        f"bce_{reduction}",
        lambda F, x, t, r=r: F.binary_cross_entropy(x, t, **r),
        uniform(4, 5),
        uniform(4, 5, seed=1),
    )
    case(
        f"bce_logits_{reduction}",
        lambda F, x, t, r=r: F.binary_cross_entropy_with_logits(x, t, **r),
        (4, 5),
        uniform(4, 5),
    )
    case(
        f"poisson_{reduction}",
        lambda F, x, t, r=r: F.poisson_nll_loss(x, t.detach(), **r),
        (4, 5),
        uniform(4, 5),
    )
    case(
        f"soft_margin_{reduction}",
        lambda F, x, r=r: F.soft_margin_loss(x, F.hardtanh(x.detach() * 1e9), **r),
        (4, 5),
    )

case("smooth_l1_beta", lambda F, x, t: F.smooth_l1_loss(x, t, beta=0.3), (4, 5), (4, 5))
case("smooth_l1_beta0", lambda F, x, t: F.smooth_l1_loss(x, t, beta=0.0), (4, 5), (4, 5))
case("huber_delta", lambda F, x, t: F.huber_loss(x, t, delta=0.4), (4, 5), (4, 5))
case(
    "bce_weight",
    lambda F, x, t, w: F.binary_cross_entropy(x, t, w.detach()),
    uniform(4, 5),
    uniform(4, 5, seed=1),
    (4, 5),
)
case(
    "bce_logits_weights",
    lambda F, x, t, w, p: F.binary_cross_entropy_with_logits(x, t, w.detach(), pos_weight=p.detach()),
    WIDE,
    uniform(8, 8),
    (8,),
    uniform(8),
)
for reduction in ("batchmean", "mean", "sum", "none"):
    case(f"kl_{reduction}", lambda F, x, t, r=reduction: F.kl_div(x, t, reduction=r), (4, 5), uniform(4, 5))
case("kl_log", lambda F, x, t: F.kl_div(x, t, reduction="batchmean", log_target=True), (4, 5), (4, 5))
case(
    "poisson_full",
    lambda F, x, t: F.poisson_nll_loss(x, t.detach(), False, True),
    uniform(4, 5),
    uniform(4, 5, high=6),
)
case("gaussian", lambda F, x, t, v: F.gaussian_nll_loss(x, t, v, full=True), (4, 5), (4, 5), uniform(4, 1))
SIGNS = np.array([1, -1, -1, 1])
case("hinge_embedding", lambda F, x, t: F.hinge_embedding_loss(x, t), (3, 4), SIGNS)
case("margin_ranking", lambda F, a, b, t: F.margin_ranking_loss(a, b, t, 0.3), (4,), (4,), SIGNS)
case("cosine_embedding", lambda F, a, b, t: F.cosine_embedding_loss(a, b, t, 0.1), (4, 6), (4, 6), SIGNS)
case("triplet", lambda F, a, b, c: F.triplet_margin_loss(a, b, c), (4, 6), (4, 6), (4, 6))
case(
    "triplet_swap", lambda F, a, b, c: F.triplet_margin_loss(a, b, c, 0.5, swap=True), (4, 6), (4, 6), (4, 6)
)
case(
    "triplet_distance",
    lambda F, a, b, c: F.triplet_margin_with_distance_loss(a, b, c),
    (4, 6),
    (4, 6),
    (4, 6),
)
case("multi_margin", lambda F, x, t: F.multi_margin_loss(x, t), (6, 5), classes(6, high=5))
case(
    "multi_margin_2",
    lambda F, x, t, w: F.multi_margin_loss(x, t, 2, 0.4, w.detach()),
    (6, 5),
    classes(6, high=5),
    uniform(5),
)
LABELS = np.array([[0, 3, -1, 1], [2, -1, 0, 1], [3, 2, 1, 0]])
case("multilabel_margin", lambda F, x, t: F.multilabel_margin_loss(x, t), (3, 4), LABELS)
case(
    "multilabel_soft_margin",
    lambda F, x, t: F.multilabel_soft_margin_loss(x, t.detach()),
    (3, 4),
    uniform(3, 4),
)

# ---- padding

case("pad", lambda F, x: F.pad(x, (1, 2)), (2, 3, 4))
case("pad_value", lambda F, x: F.pad(x, (1, 2, 0, 1, 2, 0), value=1.5), (2, 3, 4))
case("pad_negative", lambda F, x: F.pad(x, (-1, 2, 1, -2)), (2, 3, 4))
for mode in ("reflect", "replicate", "circular"):
    case(f"pad_{mode}_1", lambda F, x, m=mode: F.pad(x, (2, 1), m), (2, 3, 4))
    case(f"pad_{mode}_2", lambda F, x, m=mode: F.pad(x, (2, 1, 0, 2), m), (2, 3, 4, 5))
    case(f"pad_{mode}_3", lambda F, x, m=mode: F.pad(x, (1, 1, 0, 2, 2, 1), m), (2, 3, 4, 5, 4))


# ---- convolutions

X1, X2, X3 = (2, 4, 9), (2, 4, 7, 9), (2, 4, 5, 6, 4)
for dims, x in ((1, X1), (2, X2), (3, X3)):
    k = (3, 2, 3)[:dims]
    for tag, kw in (
        ("", {}),
        ("stride", {"stride": 2, "padding": 1}),
        ("dilation", {"dilation": 2, "padding": 2}),
        ("groups", {"groups": 2, "padding": 1}),
        ("same", {"padding": "same"}),
        ("wide", {"padding": 3}),
    ):
        n = kw.get("groups", 1)
        case(
            f"conv{dims}d_{tag}",
            lambda F, x, w, b, d=dims, kw=kw: getattr(F, f"conv{d}d")(x, w, b, **kw),
            x,
            (6, 4 // n, *k),
            (6,),
        )
    for tag, kw in (
        ("", {}),
        ("stride", {"stride": 2, "padding": 1, "output_padding": 1}),
        ("dilation", {"dilation": 2, "stride": 3}),
        ("groups", {"groups": 2, "padding": 1}),
    ):
        n = kw.get("groups", 1)
        case(
            f"conv_transpose{dims}d_{tag}",
            lambda F, x, w, b, d=dims, kw=kw: getattr(F, f"conv_transpose{d}d")(x, w, b, **kw),
            x,
            (4, 6 // n, *k),
            (6,),
        )
case("conv2d_1x1", lambda F, x, w, b: F.conv2d(x, w, b), X2, (6, 4, 1, 1), (6,))
case("conv2d_1x1_stride", lambda F, x, w: F.conv2d(x, w, stride=2), X2, (6, 4, 1, 1))
case("conv2d_depthwise", lambda F, x, w: F.conv2d(x, w, groups=4, padding=1), X2, (8, 1, 3, 3))
case("conv2d_one_sample", lambda F, x, w: F.conv2d(x, w), (4, 7, 9), (6, 4, 3, 2))
case("conv2d_large", lambda F, x, w: F.conv2d(x, w, padding=1), (3, 2, 33, 40), (3, 2, 3, 3))
case(
    "conv2d_sides",
    lambda F, x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    X2,
    (6, 4, 3, 3),
)
case("unfold", lambda F, x: F.unfold(x, (3, 2), dilation=2, padding=1, stride=(1, 2)), X2)
case("fold", lambda F, x: F.fold(x, (6, 7), (3, 2), padding=1, stride=(1, 2)), (2, 12, 24))

# ---- pooling

for dims, x in ((1, X1), (2, X2), (3, X3)):
    for tag, kw in (
        ("", {"kernel_size": 2}),
        ("padded", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("ceil", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        ("overlap", {"kernel_size": 3, "stride": 1}),
    ):
        case(f"max_pool{dims}d_{tag}", lambda F, x, d=dims, kw=kw: getattr(F, f"max_pool{d}d")(x, **kw), x)
        case(f"avg_pool{dims}d_{tag}", lambda F, x, d=dims, kw=kw: getattr(F, f"avg_pool{d}d")(x, **kw), x)
    case(
        f"avg_pool{dims}d_exclude",
        lambda F, x, d=dims: getattr(F, f"avg_pool{d}d")(x, 3, 2, 1, True, False),
        x,
    )
    case(f"max_pool{dims}d_dilation", lambda F, x, d=dims: getattr(F, f"max_pool{d}d")(x, 2, 1, 0, 2), x)
    for out in (1, 2, 3):
        case(
            f"adaptive_avg{dims}d_{out}",
            lambda F, x, d=dims, n=out: getattr(F, f"adaptive_avg_pool{d}d")(x, n),
            x,
        )
        case(
            f"adaptive_max{dims}d_{out}",
            lambda F, x, d=dims, n=out: getattr(F, f"adaptive_max_pool{d}d")(x, n),
            x,
        )
    for tag, fn in (
        ("max", lambda F, x, d=dims: getattr(F, f"max_pool{d}d")(x, 3, 2, 1, return_indices=True)),
        ("adaptive", lambda F, x, d=dims: getattr(F, f"adaptive_max_pool{d}d")(x, 2, return_indices=True)),
    ):
        case(f"{tag}_indices{dims}d", lambda F, x, fn=fn: fn(F, x)[1] * 1.0 + fn(F, x)[0] * 0, x)
    case(
        f"max_unpool{dims}d",
        lambda F, x, d=dims: getattr(F, f"max_unpool{d}d")(
            *getattr(F, f"max_pool{d}d")(x, 2, return_indices=True), 2
        ),
        (2, 4, *(8, 6, 4)[:dims]),
    )
case("avg_pool2d_divisor", lambda F, x: F.avg_pool2d(x, 2, divisor_override=3), X2)
case("lp_pool2d", lambda F, x: F.lp_pool2d(x, 2, 2), uniform(*X2))

# ---- channels

for shape in ((6, 4), X1, X2, X3):
    case(
        f"batch_norm_{len(shape)}",
        lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True),
        shape,
        (4,),
        (4,),
    )
    case(
        f"batch_norm_eval_{len(shape)}",
        lambda F, x, m, v, w, b: F.batch_norm(x, m.detach(), v.detach(), w, b),
        shape,
        (4,),
        uniform(4),
        (4,),
        (4,),
    )
    case(f"group_norm_{len(shape)}", lambda F, x, w, b: F.group_norm(x, 2, w, b), shape, (4,), (4,))
    if len(shape) > 2:
        case(
            f"instance_norm_{len(shape)}",
            lambda F, x, w, b: F.instance_norm(x, weight=w, bias=b),
            shape,
            (4,),
            (4,),
        )
        case(f"local_response_{len(shape)}", lambda F, x: F.local_response_norm(x, 3, 0.5), shape)

# ---- resizing

for mode, x in (("linear", X1), ("bilinear", X2), ("bicubic", X2), ("trilinear", X3)):
    for size in (3, 5, 12):
        for corners in (False, True):
            case(
                f"{mode}_{size}_{corners}",
                lambda F, x, m=mode, n=size, c=corners: F.interpolate(x, n, mode=m, align_corners=c),
                x,
            )
    case(f"{mode}_scale", lambda F, x, m=mode: F.interpolate(x, scale_factor=1.7, mode=m), x)
for mode in ("nearest", "nearest-exact", "area"):
    for x in (X1, X2, X3):
        case(f"{mode}_{len(x)}", lambda F, x, m=mode: F.interpolate(x, 5, mode=m), x)
        case(f"{mode}_scale_{len(x)}", lambda F, x, m=mode: F.interpolate(x, scale_factor=2.6, mode=m), x)
for mode in ("bilinear", "bicubic"):
    for size in ((3, 4), (11, 5)):
        case(
            f"antialias_{mode}_{size}",
            lambda F, x, m=mode, n=size: F.interpolate(x, n, mode=m, antialias=True),
            (2, 3, 9, 10),
        )
case("pixel_shuffle", lambda F, x: F.pixel_shuffle(x, 2), (2, 8, 3, 4))
case("pixel_unshuffle", lambda F, x: F.pixel_unshuffle(x, 2), (2, 3, 4, 6))
case(
    "channel_shuffle",
    lambda F, x: F.channel_shuffle(x, 2) if hasattr(F, "channel_shuffle") else torch.channel_shuffle(x, 2),
    X2,
)


# ---- sequences

LABELS_2D = classes(3, 4, high=5) + 1
for reduction in ("mean", "sum", "none"):
    case(
        f"ctc_{reduction}",
        lambda F, x, t, r=reduction: F.ctc_loss(F.log_softmax(x, -1), t, (9, 7, 8), (4, 0, 2), reduction=r),
        (9, 3, 6),
        LABELS_2D,
    )
case(
    "ctc_flat",
    lambda F, x, t: F.ctc_loss(F.log_softmax(x, -1), t, (9, 9), (4, 2), blank=5),
    (9, 2, 6),
    np.array([1, 1, 2, 0, 3, 3]),
)
case("ctc_one", lambda F, x, t: F.ctc_loss(F.log_softmax(x, -1), t, (9,), (3,)), (9, 6), np.array([1, 1, 2]))
case(
    "ctc_impossible",
    lambda F, x, t: F.ctc_loss(F.log_softmax(x, -1), t, (2, 6), (4, 2), zero_infinity=True),
    (6, 2, 6),
    LABELS_2D[:2],
)
OFFSETS = np.array([0, 2, 2, 5])
for mode in ("sum", "mean", "max"):
    case(f"bag_{mode}", lambda F, i, w, m=mode: F.embedding_bag(i, w, mode=m), classes(3, 4, high=5), (5, 3))
    case(
        f"bag_offsets_{mode}",
        lambda F, i, w, o, m=mode: F.embedding_bag(i, w, o, mode=m, padding_idx=1),
        classes(8, high=5),
        (5, 3),
        OFFSETS,
    )
case(
    "bag_weights",
    lambda F, i, w, p: F.embedding_bag(i, w, mode="sum", per_sample_weights=p),
    classes(3, 4, high=5),
    (5, 3),
    (3, 4),
)
case("pdist", lambda F, x: F.pdist(x), (5, 3))


# ---- sampling

GRID = uniform(2, 3, 4, 2, low=-1.4, high=1.4)
for mode in ("bilinear", "nearest", "bicubic"):
    for padding in ("zeros", "border", "reflection"):
        for corners in (False, True):
            kw = {"mode": mode, "padding_mode": padding, "align_corners": corners}
            case(
                f"grid_{mode}_{padding}_{corners}",
                lambda F, x, g, kw=kw: F.grid_sample(x, g, **kw),
                (2, 3, 5, 6),
                GRID,
            )
            if mode != "bicubic":
                case(
                    f"grid3d_{mode}_{padding}_{corners}",
                    lambda F, x, g, kw=kw: F.grid_sample(x, g, **kw),
                    (1, 2, 3, 4, 5),
                    uniform(1, 2, 3, 2, 3, low=-1.4, high=1.4),
                )
for corners in (False, True):
    case(f"affine_grid_{corners}", lambda F, t, c=corners: F.affine_grid(t, (2, 3, 4, 5), c), (2, 2, 3))
    case(f"affine_grid3d_{corners}", lambda F, t, c=corners: F.affine_grid(t, (2, 1, 3, 4, 5), c), (2, 3, 4))


def arrays_of(inputs: tuple[Any, ...], dtype: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    made = [rng.standard_normal(i) if isinstance(i, tuple) else i for i in inputs]
    return [a.astype(dtype) if a.dtype.kind == "f" else a for a in made]


def double_backward(
    module: Any, F: Any, fn: Callable[..., Any], arrays: list[np.ndarray], seed: int = 1
) -> list[Any]:
    """Output, gradients of a weighted sum of it, and gradients of a weighted sum of those."""
    rng = np.random.default_rng(seed)
    tensors = [module.tensor(a.copy()) for a in arrays]
    leaves = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    y = fn(F, *tensors)
    weight = module.tensor(
        rng.standard_normal(tuple(y.shape)).astype(arrays[0].dtype if leaves else np.float32)
    )
    weight = weight.to(y.dtype).requires_grad_()
    grad = module.autograd.grad
    first = grad((y * weight).sum(), leaves, create_graph=True, allow_unused=True)
    total = 0
    for g in first:
        if g is not None:
            total = total + (g * module.tensor(rng.standard_normal(tuple(g.shape))).to(g.dtype)).sum()
    second = grad(total, [*leaves, weight], allow_unused=True)
    return [y, *first, *second]


def plain_backward(module: Any, F: Any, fn: Callable[..., Any], arrays: list[np.ndarray]) -> list[Any]:
    rng = np.random.default_rng(1)
    tensors = [module.tensor(a.copy()) for a in arrays]
    leaves = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    y = fn(F, *tensors)
    (y * module.tensor(rng.standard_normal(tuple(y.shape))).to(y.dtype)).sum().backward()
    return [y, *[t.grad for t in leaves]]


def compare(ours: list[Any], theirs: list[Any], rtol: float, atol: float) -> None:
    assert len(ours) == len(theirs)
    for i, (a, b) in enumerate(zip(ours, theirs)):
        b = None if b is None else b.numpy(force=True)
        if a is None or b is None:
            rest = a.detach().numpy() if a is not None else b
            assert rest is None or not rest.any(), f"result {i}: only one side has a gradient"
            continue
        a = a.detach().numpy()
        assert a.shape == b.shape and a.dtype == b.dtype, f"result {i}"
        np.testing.assert_allclose(
            a, b, rtol, atol * max(1.0, float(np.abs(b).max(initial=0))), err_msg=f"result {i}"
        )


@pytest.mark.parametrize(("name", "fn", "inputs"), CASES, ids=[c[0] for c in CASES])
def test_values_and_gradients_equal_pytorchs(
    name: str, fn: Callable[..., Any], inputs: tuple[Any, ...]
) -> None:
    arrays = arrays_of(inputs, np.float32)
    compare(plain_backward(rg, RF, fn, arrays), plain_backward(torch, TF, fn, arrays), 2e-5, 3e-6)


@pytest.mark.parametrize(("name", "fn", "inputs"), CASES, ids=[c[0] for c in CASES])
def test_second_gradients_equal_pytorchs(name: str, fn: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
    arrays = arrays_of(inputs, np.float64)
    if name in NO_DOUBLE or name.startswith(("ctc", "bag", "pdist", "grid")):
        pytest.skip("PyTorch has no second gradient here")
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        theirs = double_backward(torch, TF, fn, arrays)
    compare(double_backward(rg, RF, fn, arrays), theirs, 1e-7, 1e-9)


# PyTorch has none, or (embedding) leaves out the scaling
NO_DOUBLE = {
    "embedding_freq",
    "hardsigmoid",
    "layer_norm_bias",
    "multi_margin",
    "multi_margin_2",
    "multilabel_margin",
}


RANDOM = {
    "dropout": lambda F, x: F.dropout(x, 0.3),
    "dropout1d": lambda F, x: F.dropout1d(x[0], 0.4),
    "dropout2d": lambda F, x: F.dropout2d(x, 0.4),
    "dropout2d_one_sample": lambda F, x: F.dropout2d(x[0], 0.4),
    "dropout3d": lambda F, x: F.dropout3d(x, 0.4),
    "alpha_dropout": lambda F, x: F.alpha_dropout(x, 0.3, True),
    "feature_alpha_dropout": lambda F, x: F.feature_alpha_dropout(x, 0.3, True),
    "rrelu": lambda F, x: F.rrelu(x, training=True),
    "attention": lambda F, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3),
    "attention_causal": lambda F, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3, is_causal=True),
    "gumbel_softmax": lambda F, x: F.gumbel_softmax(x, 0.7),
    "gumbel_softmax_hard": lambda F, x: F.gumbel_softmax(x, hard=True),
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_functions_draw_pytorchs_numbers(name: str, dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 4)).astype(dtype)
    results = []
    for module, F in ((rg, RF), (torch, TF)):
        module.manual_seed(7)
        results.append([*plain_backward(module, F, RANDOM[name], [x]), module.rand(3)])
    compare(*results, 2e-5, 3e-6)


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_running_moments_move_as_pytorchs(momentum: float) -> None:
    x = np.random.default_rng(0).standard_normal((6, 4, 5)).astype(np.float32)
    for name in ("batch_norm", "instance_norm"):
        results = []
        for module, F in ((rg, RF), (torch, TF)):
            mean, var = module.zeros(4), module.ones(4)
            y = getattr(F, name)(module.tensor(x), mean, var, None, None, True, momentum)
            results.append([y, mean, var])
        compare(*results, 2e-5, 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["relu", "gelu", "silu", "softmax", "layer_norm", "cross_entropy", "linear", "conv2d"]
)
def test_half_precision_is_rounded_once(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 6, 5, 5)), rng.standard_normal((3, 6, 3, 3))
    functions = {
        "softmax": lambda F, x, w, t: F.softmax(x, -1),
        "layer_norm": lambda F, x, w, t: F.layer_norm(x, (5,)),
        "cross_entropy": lambda F, x, w, t: F.cross_entropy(x.reshape(24, 25), t),
        "linear": lambda F, x, w, t: F.linear(x[0, 0], w.reshape(-1, 5)[:7]),
        "conv2d": lambda F, x, w, t: F.conv2d(x, w),
    }
    fn = functions.get(name, lambda F, x, w, t: getattr(F, name)(x))
    w = rng.standard_normal((3, 5, 3, 3)) if name == "linear" else w
    out = []
    for module, F in ((rg, RF), (torch, TF)):
        low = getattr(module, dtype)
        t = module.tensor(np.arange(24))
        y = fn(F, module.tensor(x).to(low), module.tensor(w).to(low), t)
        assert y.dtype == low
        out.append(y.float().numpy())
    step = 2**-10 if dtype == "float16" else 2**-7
    np.testing.assert_allclose(*out, rtol=2 * step, atol=step * 0.5)
