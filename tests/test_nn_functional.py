"""Neural network functions by themselves: gradients by finite differences, closed forms, errors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.autograd import gradcheck, gradgradcheck
from ringgrad.nn import functional as F
from ringgrad.tensor.ops import activation, conv

rng = np.random.default_rng(0)


def t(*shape: int, low: float | None = None) -> Any:
    values = rng.standard_normal(shape) if low is None else rng.uniform(low, 1 - low, shape)
    return rg.tensor(values, requires_grad=True)


INDEX = rg.tensor([2, 0, 1, 2])
MASK = rg.tensor([[True, False, True], [True, True, False], [True, True, True], [False, False, True]])

GRADIENTS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "gelu": (F.gelu, (t(3, 4),)),
    "gelu_tanh": (lambda x: F.gelu(x, "tanh"), (t(3, 4),)),
    "silu": (F.silu, (t(3, 4),)),
    "mish": (F.mish, (t(3, 4),)),
    "elu": (F.elu, (t(3, 4),)),
    "softplus": (F.softplus, (t(3, 4),)),
    "logsigmoid": (F.logsigmoid, (t(3, 4),)),
    "hardswish": (F.hardswish, (t(3, 4),)),
    "leaky_relu": (F.leaky_relu, (t(3, 4),)),
    "prelu": (F.prelu, (t(2, 3, 2), t(3))),
    "glu": (F.glu, (t(3, 4),)),
    "softmax": (lambda x: F.softmax(x, 1), (t(2, 3, 4),)),
    "log_softmax": (lambda x: F.log_softmax(x, 1), (t(2, 3, 4),)),
    "linear": (F.linear, (t(2, 3), t(4, 3), t(4))),
    "embedding": (lambda w: F.embedding(INDEX, w), (t(3, 2),)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), (t(3, 4), t(4), t(4))),
    "rms_norm": (lambda x, w: F.rms_norm(x, (4,), w), (t(3, 4), t(4))),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (t(3, 2, 4), t(2), t(2))),
    "batch_norm_flat": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (t(5, 2), t(2), t(2))),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), (t(2, 4, 3), t(4), t(4))),
    "instance_norm": (F.instance_norm, (t(2, 2, 4),)),
    "attention": (F.scaled_dot_product_attention, (t(2, 4, 3), t(2, 3, 3), t(2, 3, 2))),
    "attention_mask": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, MASK),
        (t(4, 3), t(3, 3), t(3, 2)),
    ),
    "attention_bias": (F.scaled_dot_product_attention, (t(2, 4, 3), t(2, 3, 3), t(2, 3, 2), t(1, 4, 3))),
    "attention_causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (t(4, 3), t(4, 3), t(4, 2)),
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, INDEX), (t(4, 3),)),
    "cross_entropy_smooth": (
        lambda x: F.cross_entropy(x, INDEX, label_smoothing=0.3, ignore_index=1),
        (t(4, 3),),
    ),
    "nll_loss": (lambda x: F.nll_loss(x, INDEX), (t(4, 3),)),
    "mse_loss": (F.mse_loss, (t(3, 4), t(3, 4))),
    "huber_loss": (F.huber_loss, (t(3, 4), t(3, 4))),
    "bce": (F.binary_cross_entropy, (t(3, 4, low=0.1), t(3, 4, low=0.1))),
    "bce_logits": (F.binary_cross_entropy_with_logits, (t(3, 4), t(3, 4))),
    "kl_div": (lambda x, y: F.kl_div(x, y, reduction="batchmean"), (t(3, 4), t(3, 4, low=0.1))),
    "ctc_loss": (lambda x: F.ctc_loss(x, rg.tensor([[1, 1], [2, 1]]), (5, 4), (2, 1)), (t(5, 2, 3),)),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 2, 1), (t(2, 2, 5), t(3, 2, 3), t(3))),
    "conv2d_groups": (lambda x, w: F.conv2d(x, w, groups=2, padding=1), (t(1, 2, 3, 4), t(4, 1, 2, 3))),
    "conv_transpose1d": (
        lambda x, w, b: F.conv_transpose1d(x, w, b, 2, 1, 1),
        (t(2, 2, 4), t(2, 3, 3), t(3)),
    ),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, dilation=2), (t(1, 2, 3, 2), t(2, 2, 2, 2))),
    "unfold": (lambda x: F.unfold(x, 2, padding=1), (t(1, 2, 3, 3),)),
    "fold": (lambda x: F.fold(x, (3, 3), 2), (t(1, 8, 4),)),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2, 1), (t(2, 2, 6),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2, 1, 1, count_include_pad=False), (t(1, 2, 3, 4),)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (t(1, 2, 5, 4),)),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 3), (t(2, 2, 7),)),
    "bicubic": (lambda x: F.interpolate(x, (3, 5), mode="bicubic"), (t(1, 2, 4, 4),)),
    "pad": (lambda x: F.pad(x, (1, -1, 2, 0)), (t(2, 3, 4),)),
    "pad_reflect": (lambda x: F.pad(x, (1, 2), "reflect"), (t(2, 3, 4),)),
    "normalize": (F.normalize, (t(2, 3),)),
    "cosine_similarity": (F.cosine_similarity, (t(2, 3), t(2, 3))),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    fn, inputs = GRADIENTS[name]
    assert gradcheck(fn, inputs)
    assert gradgradcheck(fn, inputs)


# ---- closed forms


def test_gelu_is_within_float32_of_its_definition() -> None:
    x = np.linspace(-12, 12, 20001).astype(np.float32)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(float)])
    error = np.abs(F.gelu(rg.tensor(x)).numpy() - exact)
    assert (error <= 3e-7 * np.maximum(1, np.abs(x))).all()


def test_gelu_far_out() -> None:
    y = F.gelu(rg.tensor([1e20, -1e20, 50.0, -50.0, float("inf"), float("nan")])).numpy()
    assert y[0] == np.float32(1e20) and y[2] == 50 and y[4] == np.inf
    assert y[1] == 0 and y[3] == 0 and np.isnan(y[5])


def test_relu_keeps_nan_and_large_numbers() -> None:
    y = F.relu(rg.tensor([[-1.0, float("nan")], [float("-inf"), float("inf")]])).numpy()
    np.testing.assert_array_equal(y, [[0, np.nan], [0, np.inf]])


def test_softmax_of_large_numbers_does_not_overflow() -> None:
    y = F.softmax(rg.tensor([[1e4, 1e4, -1e4]]), 1).numpy()
    np.testing.assert_allclose(y, [[0.5, 0.5, 0]])


def test_cross_entropy_of_equal_logits_is_the_log_of_the_classes() -> None:
    for shape, target in (((5, 7), (5,)), ((2, 7, 3), (2, 3))):
        loss = F.cross_entropy(rg.zeros(shape), rg.zeros(target, dtype=rg.int64))
        assert loss.item() == pytest.approx(math.log(7))


def test_ignored_targets_count_for_nothing() -> None:
    x = rg.randn(4, 3)
    some = F.cross_entropy(x, rg.tensor([1, -100, 2, -100]))
    kept = F.cross_entropy(x[::2], rg.tensor([1, 2]))
    assert some.item() == pytest.approx(kept.item(), rel=1e-6)
    y = rg.randn(2, 3, requires_grad=True)
    F.cross_entropy(y, rg.tensor([-100, 1])).backward()
    assert not y.grad[0].numpy().any() and y.grad[1].numpy().any()


def test_a_graph_that_is_kept_can_be_walked_twice() -> None:
    """Fused gradients must not be written over what was saved for them."""
    cases = [
        (lambda x: F.cross_entropy(x, rg.tensor([0, 2, 1])), (3, 4)),
        (lambda x: F.gelu(x).sum(), (3, 4)),
        (lambda x: F.layer_norm(x, (4,)).pow(3).sum(), (3, 4)),
        (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True).pow(2).sum(), (3, 4)),
        (lambda x: F.batch_norm(x, None, None, training=True).pow(3).sum(), (3, 4)),
    ]
    for fn, shape in cases:
        x = rg.randn(shape, requires_grad=True)
        y = fn(x)
        y.backward(retain_graph=True)
        first = x.grad.clone()
        x.grad = None
        y.backward()
        np.testing.assert_array_equal(first.numpy(), x.grad.numpy())


def test_causal_attention_does_not_see_the_future() -> None:
    q, k, v = rg.randn(5, 4), rg.randn(5, 4), rg.randn(5, 4)
    before = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    v[3:] = 100.0
    k[3:] = -3.0
    after = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    np.testing.assert_array_equal(before[:3].numpy(), after[:3].numpy())


def test_queries_that_see_nothing_give_zeros_and_no_gradient() -> None:
    q = rg.randn(2, 4, requires_grad=True)
    y = F.scaled_dot_product_attention(
        q, rg.randn(3, 4), rg.randn(3, 4), rg.tensor([[False] * 3, [True] * 3])
    )
    assert not y[0].detach().numpy().any() and y[1].detach().numpy().any()
    y.sum().backward()
    assert not q.grad[0].numpy().any() and np.isfinite(q.grad.numpy()).all()


def test_embedding_gradient_counts_repeats_and_leaves_padding_out() -> None:
    w = rg.zeros(4, 2, requires_grad=True)
    F.embedding(rg.tensor([[1, 1, 3], [1, 0, 3]]), w, padding_idx=3).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [[1, 1], [3, 3], [0, 0], [0, 0]])


def test_embedding_max_norm_scales_only_the_rows_looked_up() -> None:
    w = rg.tensor([[3.0, 4.0], [3.0, 4.0], [0.1, 0.0]])
    F.embedding(rg.tensor([0, 2]), w, max_norm=1.0)
    np.testing.assert_allclose(w.numpy(), [[0.6, 0.8], [3, 4], [0.1, 0]], rtol=1e-5)


def test_dropout_scales_what_it_keeps_and_draws_nothing_when_it_need_not() -> None:
    rg.manual_seed(3)
    expected = rg.rand(2).numpy()
    rg.manual_seed(3)
    x = rg.ones(200, 50)
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert not F.dropout(x, 1.0).numpy().any()
    np.testing.assert_array_equal(rg.rand(2).numpy(), expected)
    y = F.dropout(x, 0.2).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1.25)} and abs(y.mean() - 1) < 0.02


def test_in_place_forms_write_into_their_input() -> None:
    for fn in (F.relu_, F.elu_, F.leaky_relu_, F.selu_, F.hardtanh_, F.celu_):
        x = rg.tensor([-2.0, 3.0])
        assert fn(x) is x and x[0].item() != -2.0
    x = rg.ones(8)
    assert F.dropout(x, 0.5, inplace=True) is x
    y = rg.randn(3, requires_grad=True)
    F.relu(y * 2, inplace=True).sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), np.where(y.detach().numpy() > 0, 2, 0))


def test_convolution_is_a_sum_over_the_kernel() -> None:
    x, w = rng.standard_normal((2, 3, 5, 6)), rng.standard_normal((4, 3, 2, 3))
    expected = np.zeros((2, 4, 4, 4))
    for i in range(2):
        for j in range(3):
            expected += np.einsum("ncyx,oc->noyx", x[:, :, i : i + 4, j : j + 4], w[:, :, i, j])
    np.testing.assert_allclose(F.conv2d(rg.tensor(x), rg.tensor(w)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (5, 5), (40, 40)])
def test_convolution_of_many_images_is_that_of_each(size: tuple[int, int]) -> None:
    """However many images share a product."""
    x, w = rg.randn(9, 3, *size), rg.randn(4, 3, 1, 1)
    assert conv.images_at_once(9, 27, math.prod(size)) >= 1
    w = w if size == (1, 1) else rg.randn(4, 3, 3, 3)
    together = F.conv2d(x, w, padding=w.shape[-1] // 2)
    for i in range(9):
        alone = F.conv2d(x[i], w, padding=w.shape[-1] // 2)
        np.testing.assert_allclose(together[i].numpy(), alone.numpy(), rtol=2e-5, atol=2e-5)


def test_max_pool_takes_the_first_of_equals() -> None:
    x = rg.zeros(1, 1, 4, 4, requires_grad=True)
    y, places = F.max_pool2d(x, 2, return_indices=True)
    y.sum().backward()
    assert places.tolist() == [[[[0, 2], [8, 10]]]]
    np.testing.assert_array_equal(np.flatnonzero(x.grad.numpy()), [0, 2, 8, 10])


def test_unpooling_undoes_pooling_where_maxima_stood() -> None:
    x = rg.randn(2, 3, 6, 6)
    y, places = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(y, places, 2)
    np.testing.assert_array_equal(back.numpy()[back.numpy() != 0], x.numpy()[back.numpy() != 0])
    assert (back.numpy() != 0).sum() == y.numel()


def test_batch_norm_gives_mean_zero_and_variance_one() -> None:
    y = F.batch_norm(rg.randn(8, 3, 5) * 7 + 100, None, None, training=True).numpy()
    np.testing.assert_allclose(y.mean(axis=(0, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(y.var(axis=(0, 2)), 1, rtol=1e-3)


def test_interpolation_keeps_constants_and_lines() -> None:
    for mode in ("bilinear", "bicubic"):
        y = F.interpolate(rg.ones(1, 1, 5, 7), (9, 4), mode=mode)
        np.testing.assert_allclose(y.numpy(), 1, rtol=1e-6)
    line = rg.arange(5.0).reshape(1, 1, 5)
    y = F.interpolate(line, 9, mode="linear", align_corners=True)
    np.testing.assert_allclose(y.numpy().ravel(), np.linspace(0, 4, 9), rtol=1e-6)


def test_ctc_of_one_frame_a_label_is_their_negative_sum() -> None:
    logs = F.log_softmax(rg.randn(3, 4), -1)
    loss = F.ctc_loss(logs, rg.tensor([1, 2, 3]), (3,), (3,), reduction="sum")
    assert loss.item() == pytest.approx(-(logs[0, 1] + logs[1, 2] + logs[2, 3]).item(), rel=1e-5)
    assert F.ctc_loss(logs, rg.tensor([1, 1, 1]), (3,), (3,), reduction="sum").item() == math.inf


def test_pieces_cover_arrays_of_any_size() -> None:
    for n in (0, 1, 32768, 32769, 100_000):
        x = rg.randn(n)
        np.testing.assert_allclose(
            F.silu(x).numpy(), x.numpy() / (1 + np.exp(-x.numpy())), rtol=1e-5, atol=1e-7
        )


def test_empty_tensors() -> None:
    x = rg.zeros(0, 5, requires_grad=True)
    for y in (F.relu(x), F.gelu(x), F.softmax(x, 1), F.layer_norm(x, (5,)), F.linear(x, rg.randn(3, 5))):
        assert y.shape[0] == 0
        (g,) = rg.autograd.grad(y.sum(), x)
        assert g.shape == (0, 5)
    assert math.isnan(F.cross_entropy(x, rg.zeros(0, dtype=rg.int64)).item())
    assert F.cross_entropy(x, rg.zeros(0, dtype=rg.int64), reduction="sum").item() == 0
    assert F.conv2d(rg.zeros(0, 3, 5, 5), rg.randn(4, 3, 3, 3)).shape == (0, 4, 3, 3)


def test_non_contiguous_inputs_give_the_same() -> None:
    x = rg.randn(4, 6, 5)
    turned = x.permute(2, 0, 1)
    plain = turned.contiguous()
    for fn in (
        F.relu,
        F.gelu,
        F.silu,
        lambda x: F.softmax(x, 1),
        lambda x: F.layer_norm(x, (6,)),
        lambda x: F.rms_norm(x, (4, 6)),
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: F.conv1d(x, rg.ones(2, 4, 3)),
        lambda x: F.max_pool1d(x, 2),
        lambda x: F.batch_norm(x, None, None, training=True),
    ):
        np.testing.assert_allclose(fn(turned).numpy(), fn(plain).numpy(), rtol=1e-5, atol=1e-6)


def test_every_activation_refuses_integers() -> None:
    for op in (activation.gelu, activation.silu, activation.mish, activation.logsigmoid):
        with pytest.raises(RuntimeError, match="must be floating, came int64"):
            op(rg.tensor([1, 2]))


# ---- errors

ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: F.cross_entropy(rg.randn(2, 3), rg.tensor([0, 3])),
        IndexError,
        r"\[cross_entropy\].*\[0, 2\].*came 3",
    ),
    (lambda: F.cross_entropy(rg.randn(2, 3), rg.tensor([-1, 2])), IndexError, r"\[cross_entropy\].*came -1"),
    (lambda: F.nll_loss(rg.randn(2, 3), rg.tensor([0, 7])), IndexError, r"\[nll_loss\].*came 7"),
    (lambda: F.cross_entropy(rg.randn(2, 3), rg.tensor([0, 1, 2])), ValueError, r"came target int64\[3\]"),
    (lambda: F.cross_entropy(rg.randn(2, 3, 4), rg.tensor([[0], [1]])), RuntimeError, r"\[2, 4\], came"),
    (
        lambda: F.cross_entropy(rg.randn(2, 3), rg.tensor([0, 1]), rg.ones(4)),
        RuntimeError,
        r"came float32\[4\]",
    ),
    (lambda: F.cross_entropy(rg.randn(2, 3), rg.tensor([0, 1]), reduction="all"), ValueError, "'all'"),
    (lambda: F.cross_entropy(rg.randn(2, 3), rg.tensor([0, 1]), label_smoothing=2.0), RuntimeError, "2.0"),
    (lambda: F.cross_entropy(rg.randn(2, 3), rg.randn(2, 4)), RuntimeError, r"float32\[2, 4\]"),
    (lambda: F.embedding(rg.tensor([5]), rg.randn(5, 2)), IndexError, r"\[embedding\].*\[0, 4\].*came 5"),
    (lambda: F.embedding(rg.tensor([-1]), rg.randn(5, 2)), IndexError, r"\[embedding\].*came -1"),
    (lambda: F.embedding(rg.randn(2), rg.randn(5, 2)), RuntimeError, r"integer tensor, came float32\[2\]"),
    (lambda: F.one_hot(rg.tensor([0, 5]), 3), RuntimeError, r"\[one_hot\].*came 5"),
    (lambda: F.one_hot(rg.tensor([0, -5])), RuntimeError, r"\[one_hot\].*came -5"),
    (lambda: F.linear(rg.randn(2, 3), rg.randn(4, 5)), RuntimeError, r"\[linear\].*float32\[4, 5\]"),
    (
        lambda: F.layer_norm(rg.randn(2, 3), (4,)),
        RuntimeError,
        r"\[layer_norm\].*\[4\], came float32\[2, 3\]",
    ),
    (
        lambda: F.layer_norm(rg.randn(2, 3), (3,), rg.ones(2)),
        RuntimeError,
        r"weight must have .* came float32\[2\]",
    ),
    (lambda: F.dropout(rg.randn(2), 1.5), ValueError, r"\[dropout\].*came 1.5"),
    (lambda: F.softmax(rg.randn(2), 3), IndexError, r"\[softmax\].*came 3"),
    (lambda: F.softmax(rg.tensor([1, 2]), 0), RuntimeError, r"\[softmax\].*int64"),
    (lambda: F.gelu(rg.randn(2), "none of these"), RuntimeError, "none of these"),
    (lambda: F.conv2d(rg.randn(1, 3, 5, 5), rg.randn(4, 2, 3, 3)), RuntimeError, "expected 2 channels"),
    (
        lambda: F.conv2d(rg.randn(1, 3, 5, 5), rg.randn(4, 3, 7, 7)),
        RuntimeError,
        "larger than the padded input",
    ),
    (lambda: F.conv2d(rg.randn(5, 5), rg.randn(4, 3, 7, 7)), RuntimeError, r"\[conv2d\].*4 dimensions, or 3"),
    (
        lambda: F.conv1d(rg.randn(1, 3, 5), rg.randn(4, 3, 3), padding="same", stride=2),
        RuntimeError,
        "stride 1",
    ),
    (
        lambda: F.conv1d(rg.randn(1, 3, 5), rg.randn(4, 3, 3), rg.randn(3)),
        RuntimeError,
        r"bias.*4, came float32\[3\]",
    ),
    (lambda: F.conv1d(rg.randn(1, 3, 5), rg.randn(4, 3, 3).double()), RuntimeError, "dtypes must be equal"),
    (lambda: F.max_pool2d(rg.randn(1, 1, 4, 4), 2, padding=2), RuntimeError, "half of the kernel"),
    (lambda: F.max_pool2d(rg.randn(1, 1, 4, 4), 6), RuntimeError, "larger than the padded input"),
    (lambda: F.batch_norm(rg.randn(1, 3), None, None, training=True), ValueError, "more than one value"),
    (lambda: F.batch_norm(rg.randn(2, 3), None, None), RuntimeError, "running_mean"),
    (lambda: F.group_norm(rg.randn(2, 3), 2), RuntimeError, "came 3 and 2"),
    (lambda: F.pad(rg.randn(2, 3), (1,)), RuntimeError, r"\[pad\].*\[1\]"),
    (lambda: F.pad(rg.randn(1, 2, 3), (3, 0), "reflect"), RuntimeError, "at most 2"),
    (lambda: F.pad(rg.randn(1, 2, 3), (1, 0), "mirror"), NotImplementedError, "mirror"),
    (lambda: F.binary_cross_entropy(rg.tensor([1.5]), rg.tensor([1.0])), RuntimeError, r"\[0, 1\].*1.5"),
    (lambda: F.binary_cross_entropy(rg.rand(2), rg.rand(3)), ValueError, r"float32\[3\] and float32\[2\]"),
    (
        lambda: F.scaled_dot_product_attention(rg.randn(2, 4), rg.randn(2, 3), rg.randn(2, 3)),
        RuntimeError,
        r"\[scaled_dot_product_attention\].*float32\[2, 4\], float32\[2, 3\]",
    ),
    (
        lambda: F.scaled_dot_product_attention(*[rg.randn(2, 4)] * 3, rg.ones(2, 2), is_causal=True),
        RuntimeError,
        "is_causal",
    ),
    (
        lambda: F.scaled_dot_product_attention(*[rg.randn(2, 4)] * 3, rg.ones(2, 2, dtype=rg.int64)),
        RuntimeError,
        "bool or floating",
    ),
    (lambda: F.interpolate(rg.randn(1, 1, 4)), ValueError, "size and scale_factor"),
    (lambda: F.interpolate(rg.randn(1, 1, 4), 3, mode="bilinear"), NotImplementedError, "needs 4 dimensions"),
    (lambda: F.ctc_loss(rg.randn(3, 4), rg.tensor([1, 4]), (3,), (2,)), IndexError, r"\[ctc_loss\].*came 4"),
    (
        lambda: F.ctc_loss(rg.randn(3, 4), rg.tensor([1, 2]), (5,), (2,)),
        RuntimeError,
        "input_lengths.*came 5",
    ),
    (lambda: F.pixel_shuffle(rg.randn(1, 3, 2, 2), 2), RuntimeError, r"\[pixel_shuffle\].*\[1, 3, 2, 2\]"),
    (lambda: F.fold(rg.randn(1, 8, 5), (3, 3), 2), RuntimeError, r"\[fold\].*\[1, 8, 5\]"),
    (lambda: F.multi_margin_loss(rg.randn(2, 3), rg.tensor([0, 3])), RuntimeError, "to 3"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors_name_the_function_and_the_values(number: int) -> None:
    call, kind, pattern = ERRORS[number]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.search(pattern, str(caught.value), re.S), str(caught.value)


def test_warnings_of_what_is_seldom_meant() -> None:
    with pytest.warns(UserWarning, match="broadcast"):
        F.mse_loss(rg.randn(3, 1), rg.randn(3))
    with pytest.warns(UserWarning, match="dimension should be given"):
        F.softmax(rg.randn(3, 2))
    with pytest.warns(UserWarning, match="batchmean"):
        F.kl_div(rg.randn(3, 2), rg.rand(3, 2))
    with pytest.warns(UserWarning, match="reduction='sum'"):
        F.mse_loss(rg.randn(3), rg.randn(3), size_average=False)
