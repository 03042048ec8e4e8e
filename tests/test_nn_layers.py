"""Layers without PyTorch: shapes, settings, modes, and what wrong input is told."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import nn
from ringgrad.nn import utils
from ringgrad.nn.utils import parametrize, rnn


def ones(*shape: int) -> rg.Tensor:
    return rg.ones(*shape)


# ---- linear and tables


def test_linear_computes_the_product():
    layer = nn.Linear(2, 3)
    x = rg.tensor([[1.0, 2.0]])
    want = x.array @ layer.weight.array.T + layer.bias.array
    np.testing.assert_allclose(layer(x).array, want, rtol=1e-6)
    assert nn.Linear(2, 3)(ones(4, 5, 2)).shape == (4, 5, 3)
    assert nn.Linear(2, 3, dtype=rg.float64).weight.dtype == rg.float64


def test_linear_takes_whatever_stands_under_its_names():
    layer = nn.Linear(2, 2)
    del layer.weight
    layer.weight = rg.zeros(2, 2)
    np.testing.assert_array_equal(layer(ones(1, 2)).array, layer.bias.array[None])


def test_wrong_shapes_name_both_sides():
    with pytest.raises(RuntimeError, match=r"\[linear\].*\[1, 5\].*\[3, 2\]"):
        nn.Linear(2, 3)(ones(1, 5))
    with pytest.raises(RuntimeError, match="dtype"):
        nn.Linear(2, 3)(rg.ones(1, 2, dtype=rg.float64))
    with pytest.raises(ValueError, match="in1_features"):
        nn.Bilinear(0, 2, 3)
    with pytest.raises(IndexError, match="7"):
        nn.Embedding(5, 2)(rg.tensor([1, 7]))
    with pytest.raises(RuntimeError, match="layer_norm"):
        nn.LayerNorm(3)(ones(2, 4))


def test_embedding_settings():
    table = nn.Embedding(5, 2, padding_idx=-1)
    assert table.padding_idx == 4 and not table.weight.array[4].any()
    table(rg.tensor([4, 0])).sum().backward()
    assert not table.weight.grad.array[4].any() and table.weight.grad.array[0].all()
    with pytest.raises(ValueError, match="padding_idx"):
        nn.Embedding(5, 2, padding_idx=5)
    with pytest.raises(ValueError, match=r"\[5, 2\].*\[4, 2\]"):
        nn.Embedding(5, 2, _weight=ones(4, 2))
    with pytest.raises(ValueError, match="2 dimensions"):
        nn.Embedding.from_pretrained(ones(3))
    with pytest.raises(ValueError, match="'last'"):
        nn.EmbeddingBag(5, 2, mode="last")


# ---- modes


def test_dropout_only_in_training():
    rg.manual_seed(0)
    layer = nn.Dropout(0.5)
    x = ones(1000)
    y = layer(x).array
    assert set(np.unique(y)) == {0, 2} and 400 < (y == 0).sum() < 600
    assert layer.eval()(x) is x or np.array_equal(layer(x).array, x.array)
    for p in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            nn.Dropout(p)


def test_batch_norm_keeps_statistics_of_the_batches():
    layer = nn.BatchNorm1d(2, momentum=0.5)
    x = rg.tensor([[0.0, 2.0], [2.0, 6.0]])
    y = layer(x)
    np.testing.assert_allclose(y.array, [[-1, -1], [1, 1]], atol=1e-4)
    np.testing.assert_allclose(layer.running_mean.array, [0.5, 2])
    np.testing.assert_allclose(layer.running_var.array, [0.5 + 0.5 * 2, 0.5 + 0.5 * 8])
    assert layer.num_batches_tracked.item() == 1
    before = layer.running_mean.array.copy()
    layer.eval()(x)
    np.testing.assert_array_equal(layer.running_mean.array, before)
    layer.reset_running_stats()
    assert layer.num_batches_tracked.item() == 0 and not layer.running_mean.array.any()


def test_batch_norm_checks_dimensions_and_old_states():
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.BatchNorm2d(2)(ones(3, 2))
    with pytest.raises(ValueError, match="2D or 3D"):
        nn.BatchNorm1d(2)(ones(2))
    layer = nn.BatchNorm1d(2)
    state = layer.state_dict()
    del state["num_batches_tracked"], state._metadata
    layer.load_state_dict(state)
    state._metadata = {"": {"version": 2}}
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        layer.load_state_dict(state)


def test_norm_settings():
    with pytest.raises(ValueError, match="num_groups"):
        nn.GroupNorm(3, 4)
    with pytest.raises(ValueError, match="num_features=4"):
        nn.InstanceNorm1d(4, affine=True)(ones(2, 3, 5))
    assert nn.LayerNorm(3, bias=False).bias is None and nn.LayerNorm([2, 3]).normalized_shape == (2, 3)
    assert list(nn.BatchNorm1d(3, affine=False, track_running_stats=False).state_dict()) == []


# ---- settings that make no sense


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups must divide in_channels"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), "groups must divide out_channels"),
        (lambda: nn.Conv2d(4, 4, 3, groups=0), "groups must be positive"),
        (lambda: nn.Conv2d(4, 4, 3, padding="full"), "'full'"),
        (lambda: nn.Conv2d(4, 4, 3, padding="same", stride=2), "stride"),
        (lambda: nn.Conv2d(4, 4, 3, padding_mode="mirror"), "'mirror'"),
        (lambda: nn.ConvTranspose2d(4, 4, 3, padding_mode="reflect"), "'zeros'"),
        (lambda: nn.Hardtanh(2, 1), "max_val"),
        (lambda: nn.MSELoss(reduction="median"), "'median'"),
        (lambda: nn.MultiMarginLoss(p=3), "1 or 2"),
        (lambda: nn.TripletMarginLoss(margin=0), "margin"),
        (lambda: nn.LSTM(2, 0), "hidden_size"),
        (lambda: nn.LSTM(2, 3, 0), "num_layers"),
        (lambda: nn.LSTM(2, 3, proj_size=3), "proj_size"),
        (lambda: nn.GRU(2, 3, 2, dropout=1.5), "dropout"),
        (lambda: nn.RNN(2, 3, nonlinearity="gelu"), "'gelu'"),
        (lambda: nn.RNNCell(2, 3, nonlinearity="gelu"), "'gelu'"),
        (lambda: nn.MultiheadAttention(5, 2), "num_heads"),
        (lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, [5, 3]), "ascending"),
        (lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, []), "cutoffs"),
        (lambda: utils.spectral_norm(nn.Linear(2, 2), n_power_iterations=0), "n_power_iterations"),
    ],
)
def test_wrong_settings_are_told(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_wrong_types_are_told():
    with pytest.raises(TypeError, match="hidden_size"):
        nn.LSTM(2, 3.5)
    with pytest.raises(TypeError, match="Unflatten"):
        nn.Unflatten("name", (2, 3))
    with pytest.raises(TypeError, match="Unflatten"):
        nn.Unflatten(1, (2, "x"))
    with pytest.raises(RuntimeError, match="relu/gelu"):
        nn.TransformerEncoderLayer(4, 2, activation="swish")
    with pytest.raises(RuntimeError, match="DistributedDataParallel"):
        nn.DataParallel(nn.Linear(2, 2), device_ids=[0, 1])
    with pytest.raises(ValueError, match="3 or 4 dimensions"):
        nn.Softmax2d()(ones(2, 2))


def test_dropout_without_a_next_layer_warns():
    with pytest.warns(UserWarning, match="num_layers=1"):
        nn.LSTM(2, 3, dropout=0.5)


def test_data_parallel_is_the_module_under_another_name():
    model = nn.DataParallel(nn.Linear(2, 2), device_ids=[0])
    assert list(model.state_dict()) == ["module.weight", "module.bias"] and model(ones(1, 2)).shape == (1, 2)


# ---- recurrent layers


@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
def test_layer_equals_its_cell_step_by_step(cell):
    layer = cell(2, 3)
    single = {nn.RNN: nn.RNNCell, nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}[cell](2, 3)
    single.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x = rg.randn(5, 4, 2)
    y, last = layer(x)
    state = None
    for t in range(5):
        state = single(x[t], state)
        np.testing.assert_allclose(y[t].array, (state[0] if cell is nn.LSTM else state).array, atol=1e-6)
    for a, b in zip(last, state) if cell is nn.LSTM else [(last, state)]:
        np.testing.assert_allclose(a[0].array, b.array, atol=1e-6)


def test_recurrent_gradients_are_those_of_finite_differences():
    rg.manual_seed(0)
    for layer in (
        nn.LSTM(2, 3, 2, bidirectional=True, proj_size=2, dtype=rg.float64),
        nn.GRU(2, 3, dtype=rg.float64),
        nn.RNN(2, 3, bidirectional=True, bias=False, dtype=rg.float64),
    ):
        parameters = [p.detach().clone().requires_grad_() for p in layer.parameters()]
        x = rg.randn(3, 2, 2, dtype=rg.float64).requires_grad_()

        def run(x, *values, layer=layer):
            for (name, _), value in zip(list(layer.named_parameters()), values):
                layer.__dict__[name] = value
            y, state = layer(x)
            return (y * y).sum() + sum(
                (s * 0.5).sum() for s in (state if isinstance(state, tuple) else (state,))
            )

        for name, _ in layer.named_parameters():
            assert name not in layer.__dict__
        assert rg.autograd.gradcheck(run, (x, *parameters))


def test_packed_states_equal_the_padded_ones_at_each_length():
    layer = nn.LSTM(2, 3, bidirectional=True)
    x, lengths = rg.randn(4, 3, 2), [4, 2, 1]
    packed = rnn.pack_padded_sequence(x, lengths)
    y, found = rnn.pad_packed_sequence(layer(packed)[0])
    assert found.tolist() == lengths
    for i, n in enumerate(lengths):
        alone = layer(x[:n, i])[0]
        np.testing.assert_allclose(y[:n, i].array, alone.array, atol=1e-6)
        assert not y[n:, i].array.any()


def test_recurrent_input_is_checked():
    layer = nn.LSTM(2, 3)
    with pytest.raises(RuntimeError, match="Expected 2, got 5"):
        layer(ones(4, 1, 5))
    with pytest.raises(ValueError, match="2D or 3D"):
        layer(ones(2))
    with pytest.raises(TypeError, match="pair"):
        layer(ones(4, 1, 2), ones(1, 1, 3))
    with pytest.raises(RuntimeError, match=r"\(1, 1, 3\).*\[1, 2, 3\]"):
        layer(ones(4, 1, 2), (ones(1, 2, 3), ones(1, 1, 3)))
    with pytest.raises(RuntimeError, match="at least one step"):
        layer(rg.zeros(0, 1, 2))
    with pytest.raises(RuntimeError, match="got 5 expected 2"):
        nn.GRUCell(2, 3)(ones(1, 5))
    with pytest.raises(RuntimeError, match=r"\[4, 3\]"):
        nn.GRUCell(2, 3)(ones(4, 2), ones(2, 3))
    with pytest.raises(RuntimeError, match="must descend"):
        rnn.pack_padded_sequence(ones(4, 2, 1), [2, 4])
    with pytest.raises(RuntimeError, match="greater than 0"):
        rnn.pack_padded_sequence(ones(4, 2, 1), [2, 0])
    with pytest.raises(RuntimeError, match="one length for each"):
        rnn.pack_padded_sequence(ones(4, 2, 1), [2])
    with pytest.raises(RuntimeError, match="at most"):
        rnn.pack_padded_sequence(ones(4, 2, 1), [9, 1])
    with pytest.raises(ValueError, match="total_length"):
        rnn.pad_packed_sequence(rnn.pack_padded_sequence(ones(4, 1, 1), [4]), total_length=2)
    with pytest.raises(ValueError, match="none"):
        rnn.pad_sequence([])
    with pytest.raises(RuntimeError, match="all dimensions but the first"):
        rnn.pad_sequence([ones(2, 3), ones(2, 4)])


# ---- attention


def test_attention_is_told_what_does_not_fit():
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    q = ones(1, 3, 4)
    with pytest.raises(RuntimeError, match="need attn_mask"):
        layer(q, q, q, is_causal=True)
    with pytest.raises(RuntimeError, match=r"\[3, 3\].*\[2, 2\]"):
        layer(q, q, q, attn_mask=rg.zeros(2, 2))
    with pytest.raises(RuntimeError, match=r"key_padding_mask.*\[1, 3\]"):
        layer(q, q, q, key_padding_mask=rg.zeros(3, 3))
    with pytest.raises(RuntimeError, match="int64"):
        layer(q, q, q, attn_mask=rg.zeros(3, 3, dtype=rg.int64))
    with pytest.raises(RuntimeError, match="of size 4"):
        layer(ones(1, 3, 5), q, q)
    with pytest.raises(RuntimeError, match="one batch size"):
        layer(q, ones(2, 3, 4), ones(2, 3, 4))
    with pytest.raises(RuntimeError, match="d_model=4"):
        nn.Transformer(4, 2, 1, 1, 8)(ones(2, 1, 5), ones(2, 1, 4))


def test_causal_attention_does_not_see_the_future():
    rg.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    x = rg.randn(1, 3, 4)
    changed = x.clone()
    changed[0, 2] = 5.0
    for need_weights in (True, False):
        a = layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=need_weights)[0]
        b = layer(changed, changed, changed, attn_mask=mask, is_causal=True, need_weights=need_weights)[0]
        np.testing.assert_allclose(a[0, :2].array, b[0, :2].array, atol=1e-6)


# ---- utilities


def test_clipping():
    a, b = nn.Parameter(rg.zeros(2)), nn.Parameter(rg.zeros(1))
    a.grad, b.grad = rg.tensor([3.0, 0.0]), rg.tensor([4.0])
    version = a.grad._version[0]
    assert utils.clip_grad_norm_([a, b], 10.0).item() == 5 and a.grad.tolist() == [3, 0]
    assert utils.clip_grad_norm_(iter([a, b]), 1.0).item() == 5
    np.testing.assert_allclose(a.grad.array, [0.6, 0], rtol=1e-5)
    assert a.grad._version[0] > version
    utils.clip_grad_value_([a, b], 0.5)
    assert a.grad.tolist() == [0.5, 0] and b.grad.tolist() == [0.5]
    assert utils.clip_grad_norm_(a, 1.0, "inf").item() == 0.5
    assert utils.clip_grad_norm_([], 1.0).item() == 0
    a.grad = rg.tensor([math.inf, 0.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        utils.clip_grad_norm_([a], 1.0, error_if_nonfinite=True)
    a.grad, b.grad = rg.tensor([math.nan, 1.0]), rg.tensor([2.0])
    assert math.isnan(utils.get_total_norm([b.grad, a.grad, b.grad], "inf").item())
    assert math.isnan(utils.clip_grad_norm_([a], 1.0).item()) and np.isnan(a.grad.array).all()
    with pytest.warns(UserWarning, match="empty"):
        utils.clip_grad_norm_((p for p in ()), 1.0)
    with pytest.warns(FutureWarning, match="clip_grad_norm_"):
        utils.clip_grad_norm([b], 1.0)


def test_clipping_half_precision_does_not_overflow():
    p = nn.Parameter(rg.zeros(100, dtype=rg.float16))
    p.grad = rg.full((100,), 300.0, dtype=rg.float16)
    assert abs(utils.clip_grad_norm_([p], 1.0).item() - 3000) < 2
    np.testing.assert_allclose(p.grad.array.astype(np.float32), 0.1, rtol=1e-2)


def test_vectors():
    model = nn.Linear(2, 3)
    vector = utils.parameters_to_vector(model.parameters())
    assert vector.shape == (9,)
    utils.vector_to_parameters(rg.arange(9.0), model.parameters())
    assert model.weight.tolist() == [[0, 1], [2, 3], [4, 5]] and model.bias.tolist() == [6, 7, 8]
    with pytest.raises(RuntimeError, match="9 elements, came 3"):
        utils.vector_to_parameters(rg.zeros(3), model.parameters())
    with pytest.raises(TypeError, match="list"):
        utils.vector_to_parameters([1.0], model.parameters())


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x):
        return x.triu()


def test_parametrizations():
    model = nn.Linear(3, 3)
    held = model.weight
    parametrize.register_parametrization(model, "weight", Symmetric())
    assert parametrize.is_parametrized(model, "weight") and not parametrize.is_parametrized(model, "bias")
    assert parametrize.type_before_parametrizations(model) is nn.Linear and isinstance(model, nn.Linear)
    np.testing.assert_array_equal(model.weight.array, model.weight.array.T)
    assert model.parametrizations.weight.original is held
    assert list(model.state_dict()) == ["bias", "parametrizations.weight.original"]
    model(ones(1, 3)).sum().backward()
    assert held.grad is not None and not np.tril(held.grad.array, -1).any()
    with parametrize.cached():
        assert model.weight is model.weight
    assert model.weight is not model.weight
    with rg.no_grad():
        model.weight = rg.eye(3) * 2
    np.testing.assert_array_equal(model.weight.array, 2 * np.eye(3))
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(twin.weight.array, model.weight.array)
    parametrize.remove_parametrizations(model, "weight")
    assert type(model) is nn.Linear and model.weight is held and "weight" in model._parameters
    np.testing.assert_array_equal(model.weight.array, 2 * np.eye(3))
    with pytest.raises(ValueError, match="zzz"):
        parametrize.register_parametrization(model, "zzz", Symmetric())
    with pytest.raises(ValueError, match="shape"):
        parametrize.register_parametrization(model, "weight", nn.Flatten(0))
    assert "weight" in model._parameters
    with pytest.raises(ValueError, match="parametrization"):
        parametrize.remove_parametrizations(model, "bias")


def test_norms_of_weights_are_told_apart():
    model = utils.weight_norm(nn.Linear(2, 2))
    assert set(dict(model.named_parameters())) == {"bias", "weight_g", "weight_v"}
    with pytest.raises(RuntimeError, match="two weight_norm"):
        utils.weight_norm(model)
    model(ones(1, 2)).sum().backward()
    assert model.weight_g.grad is not None
    utils.remove_weight_norm(model)
    with pytest.raises(ValueError, match="weight"):
        utils.remove_weight_norm(model)
    model = utils.spectral_norm(nn.Linear(4, 4), n_power_iterations=30)
    model(ones(1, 4))
    assert abs(np.linalg.norm(model.weight.array, 2) - 1) < 1e-3
    utils.remove_spectral_norm(model)
    assert abs(np.linalg.norm(model.weight.array, 2) - 1) < 1e-3 and list(model.state_dict()) == [
        "bias",
        "weight",
    ]


def test_fusing_linear_and_batch_norm():
    linear, bn = nn.Linear(2, 3), nn.BatchNorm1d(3)
    bn(linear(rg.randn(8, 2)))
    with pytest.raises(RuntimeError, match="evaluation"):
        utils.fuse_linear_bn_eval(linear, bn)
    x = rg.randn(4, 2)
    fused = utils.fuse_linear_bn_eval(linear.eval(), bn.eval())
    np.testing.assert_allclose(fused(x).array, bn(linear(x)).array, atol=1e-5)
    conv, bn = nn.Conv1d(2, 3, 2).eval(), nn.BatchNorm1d(3).eval()
    x = rg.randn(2, 2, 5)
    np.testing.assert_allclose(utils.fuse_conv_bn_eval(conv, bn)(x).array, bn(conv(x)).array, atol=1e-5)


def test_a_model_learns():
    rg.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    x = rg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    target, loss_fn = rg.tensor([0, 1, 1, 0]), nn.CrossEntropyLoss()
    for _ in range(300):
        model.zero_grad()
        loss = loss_fn(model(x), target)
        loss.backward()
        with rg.no_grad():
            for p in model.parameters():
                p.sub_(p.grad)
    assert loss.item() < 0.05 and model(x).argmax(1).tolist() == [0, 1, 1, 0]
