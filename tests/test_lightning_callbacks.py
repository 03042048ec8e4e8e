"""Callbacks: what they change in training, and what they tell."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning import callbacks as C
from ringgrad.lightning.callbacks.throughput import summary as throughput
from ringgrad.lightning.loggers import CSVLogger
from ringgrad.lightning.report.chart import chart, log_ticks, thin, ticks


def loader(n: int = 16, batch: int = 4) -> DataLoader[Any]:
    g = rg.Generator().manual_seed(0)
    return DataLoader(TensorDataset(rg.randn(n, 4, generator=g), rg.randn(n, 1, generator=g)), batch)


class Net(L.LightningModule):
    def __init__(self, norm: bool = False, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        rg.manual_seed(1)
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh(), nn.Linear(8, 1)
        )
        self.seen: list[np.ndarray] = []  # the weights that validation met

    def forward(self, x: Any) -> Any:
        return self.layers(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = ((self(batch[0]) - batch[1]) ** 2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(weights(self))
        self.log("val_loss", ((self(batch[0]) - batch[1]) ** 2).mean())

    def configure_optimizers(self) -> Any:
        return optim.SGD(self.parameters(), lr=self.hparams.lr)


def weights(model: Any) -> np.ndarray:
    return np.concatenate([p.detach().numpy().reshape(-1) for p in model.parameters()])


class Trace(L.Callback):
    """The weights after each step and each epoch."""

    def __init__(self) -> None:
        self.steps: list[np.ndarray] = []
        self.epochs: list[np.ndarray] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.steps.append(weights(pl_module))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(weights(pl_module))


def trainer(tmp_path: Path, *callbacks: Any, **kwargs: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    given = {"logger": False, "max_epochs": 3, **quiet, **kwargs}
    return L.Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **given)


def test_ema_is_the_recursion_of_its_definition(tmp_path: Path) -> None:
    trace, model = Trace(), Net()
    trainer(tmp_path, C.EMA(decay=0.9), trace).fit(model, loader())
    average = trace.steps[0]
    for now in trace.steps[1:]:
        average = 0.9 * average + 0.1 * now
    np.testing.assert_allclose(weights(model), average, rtol=1e-5, atol=1e-7)


def test_validation_sees_the_average_and_training_goes_on_with_its_own(tmp_path: Path) -> None:
    plain, averaged, trace, other = Net(), Net(), Trace(), Trace()
    trainer(tmp_path, trace, num_sanity_val_steps=0).fit(plain, loader(), loader(4))
    trainer(tmp_path, C.WeightAveraging(), other, num_sanity_val_steps=0).fit(averaged, loader(), loader(4))
    assert np.array_equal(trace.steps, other.steps)
    for epoch, seen in enumerate(averaged.seen):
        np.testing.assert_allclose(
            seen, np.mean(trace.steps[: 4 * (epoch + 1)], axis=0), rtol=1e-5, atol=1e-6
        )


def test_an_average_goes_on_after_a_resume(tmp_path: Path) -> None:
    whole, first, second = Net(), Net(), Net()
    trainer(tmp_path, C.EMA(decay=0.5), max_epochs=4).fit(whole, loader())
    half = trainer(tmp_path, C.EMA(decay=0.5), max_epochs=4, limit_train_batches=4)
    save = C.LambdaCallback(
        on_train_epoch_end=lambda t, m: (
            t.save_checkpoint(tmp_path / "half.ckpt") if t.current_epoch == 1 else None
        )
    )
    half.callbacks.append(save)
    half.fit(first, loader())
    trainer(tmp_path, C.EMA(decay=0.5), max_epochs=4).fit(second, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert np.array_equal(weights(second), weights(whole))


def test_swa_is_the_mean_of_the_last_epochs(tmp_path: Path) -> None:
    trace, model = Trace(), Net()
    swa = C.StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2, annealing_epochs=1)
    t = trainer(tmp_path, swa, trace, max_epochs=5)
    t.fit(model, loader())
    np.testing.assert_allclose(weights(model), np.mean(trace.epochs[2:], axis=0), rtol=1e-5, atol=1e-6)
    assert t.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05)
    with pytest.raises(ValueError, match="swa_epoch_start must be"):
        C.StochasticWeightAveraging(0.1, swa_epoch_start=1.5)


def test_swa_renews_the_statistics_of_batch_norms(tmp_path: Path) -> None:
    model = Net(norm=True)
    trainer(tmp_path, C.StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1)).fit(model, loader())
    norm = model.layers[1]
    (x, _), means = next(iter(loader(16, 16))), []
    for part in x.split(4):
        means.append(model.layers[0](part).mean(0).detach().numpy())
    np.testing.assert_allclose(norm.running_mean.numpy(), np.mean(means, axis=0), rtol=1e-4, atol=1e-6)
    assert norm.momentum == 0.1


def test_accumulation_follows_its_schedule(tmp_path: Path) -> None:
    t = trainer(tmp_path, C.GradientAccumulationScheduler({1: 2, 2: 4}))
    t.fit(Net(), loader())
    assert t.global_step == 4 + 2 + 1
    with pytest.raises(ValueError, match="must be left out, came 2"):
        trainer(tmp_path, C.GradientAccumulationScheduler({0: 2}), accumulate_grad_batches=2).fit(
            Net(), loader()
        )
    with pytest.raises(ValueError, match="numbers of batches from 1"):
        C.GradientAccumulationScheduler({0: 0})


def test_lambda_callbacks_are_named_hooks(tmp_path: Path) -> None:
    calls: list[int] = []
    trainer(tmp_path, C.LambdaCallback(on_train_epoch_end=lambda t, m: calls.append(t.current_epoch))).fit(
        Net(), loader()
    )
    assert calls == [0, 1, 2]
    with pytest.raises(TypeError, match="came on_sunday"):
        C.LambdaCallback(on_sunday=print)


def test_an_error_leaves_a_checkpoint(tmp_path: Path) -> None:
    class Fails(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 6:
                raise RuntimeError("unwell")
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match="unwell"):
        trainer(tmp_path, C.OnExceptionCheckpoint(tmp_path)).fit(Fails(), loader())
    t = trainer(tmp_path)
    t.fit(Net(), loader(), ckpt_path=tmp_path / "on_exception.ckpt")
    assert t.global_step == 12


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_told(tmp_path: Path, value: float) -> None:
    class Breaks(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return loss * value if self.global_step == 5 else loss

    model = Breaks()
    with pytest.raises(FloatingPointError, match=rf"came {value} on rank 0 in step 5 \(epoch 1, batch 1\)"):
        trainer(tmp_path).fit(model, loader())
    assert np.isfinite(weights(model)).all()
    trainer(tmp_path, on_nan="ignore").fit(model := Breaks(), loader())
    assert not np.isfinite(weights(model)).all()


def test_the_summary_has_shapes_and_operations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Convs(Net):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
            self.example_input_array = rg.ones(2, 3, 6, 6)

    model = Convs()
    rows = {row.name: row for row in C.model_summary.summary(model, -1)}
    assert rows["layers.0"].outputs == "[2, 8, 6, 6]" and rows["layers.2"].inputs == "[2, 288]"
    conv, linear = 2 * (2 * 8 * 36) * 27, 2 * (2 * 5) * 288
    assert (rows["layers.0"].flops, rows["layers.1"].flops, rows["layers.2"].flops) == (conv, 0, linear)
    assert rows["layers"].flops == conv + linear and rows["layers"].parameters == 8 * 27 + 8 + 5 * 288 + 5
    assert model.training
    trainer(tmp_path, enable_model_summary=True, fast_dev_run=True)
    trainer(tmp_path, C.ModelSummary(2), enable_model_summary=True, max_epochs=0).fit(model, loader())
    assert "FLOPs" in capsys.readouterr().out


@pytest.mark.parametrize("layer", ["lstm", "gru", "attention", "transposed"])
def test_operations_agree_with_pytorchs_counter(layer: str) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from ringgrad.lightning.flops import counting

    def run(t: Any) -> None:
        if layer == "transposed":
            t.nn.ConvTranspose2d(3, 8, 3)(t.ones(2, 3, 5, 5))
        elif layer == "attention":
            q = t.ones(2, 4, 6, 8)
            t.nn.functional.scaled_dot_product_attention(q, q, q)
        elif layer == "lstm":
            t.nn.LSTM(4, 6, batch_first=True)(t.ones(2, 7, 4))
        else:
            t.nn.GRU(4, 6, batch_first=True)(t.ones(2, 7, 4))

    with counting() as ours:
        run(rg)
    if layer in ("lstm", "gru"):  # PyTorch's counter knows no recurrent layers: two products a step
        gates = {"lstm": 4, "gru": 3}[layer]
        assert ours.total == 2 * 2 * 7 * gates * 6 * (4 + 6)
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with FlopCounterMode(display=False) as theirs, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        run(torch)
    assert ours.total == theirs.get_total_flops()


@pytest.mark.parametrize("interval", ["batch", "epoch", "batch_and_epoch"])
def test_predictions_are_written_with_the_numbers_of_their_samples(tmp_path: Path, interval: str) -> None:
    class Writer(C.BasePredictionWriter):
        batches: dict[tuple[int, ...], Any] = {}
        rounds: list[Any] = []

        def write_on_batch_end(
            self, trainer: Any, pl_module: Any, prediction: Any, batch_indices: Any, *_: Any
        ) -> None:
            self.batches[tuple(batch_indices)] = prediction

        def write_on_epoch_end(
            self, trainer: Any, pl_module: Any, predictions: Any, batch_indices: Any
        ) -> None:
            self.rounds.append((predictions, batch_indices))

    class Predicts(Net):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch[0])

    writer, numbers = Writer(interval), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    writer.batches, writer.rounds = {}, []
    found = trainer(tmp_path, writer).predict(Predicts(), loader(10))
    assert [*writer.batches] == ([tuple(n) for n in numbers] if "batch" in interval else [])
    assert [indices for _, indices in writer.rounds] == ([numbers] if "epoch" in interval else [])
    assert all(predictions == found for predictions, _ in writer.rounds)
    with pytest.raises(ValueError, match="write_interval must be one of"):
        Writer("step")


def test_steps_are_logged_where_accumulated_gradients_are_used(tmp_path: Path) -> None:
    class Logs(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("i", float(batch_idx))
            return super().training_step(batch, batch_idx)

    log = CSVLogger(tmp_path)
    options = {"accumulate_grad_batches": 2, "log_every_n_steps": 1, "max_epochs": 1}
    trainer(tmp_path, logger=log, **options).fit(Logs(), loader(16))
    assert [(row["step"], row["i"]) for row in log.rows if "i" in row] == [(0, 1.0), (1, 3.0)]


def test_throughput_says_what_the_time_went_into(tmp_path: Path) -> None:
    class Slow(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            time.sleep(0.01)
            return super().training_step(batch, batch_idx)

    def batches() -> Any:
        for batch in [*loader()] * 2:
            time.sleep(0.01)
            yield batch

    class Stream:
        def __iter__(self) -> Any:
            return batches()

    monitor = C.ThroughputMonitor(length_fn=lambda batch: batch[0].numel())
    log = CSVLogger(tmp_path)
    trainer(tmp_path, monitor, logger=log, log_every_n_steps=4, max_epochs=1).fit(Slow(), Stream())
    (row,) = [row for row in log.rows if "share/stall" in row and row["step"] == 7]
    assert row["share/compute"] + row["share/stall"] + row["share/communication"] == pytest.approx(1)
    assert row["share/stall"] > 0.25 and row["share/compute"] > 0.25 and row["share/communication"] == 0
    assert row["throughput/items_per_s"] == pytest.approx(4 * row["throughput/samples_per_s"])
    assert row["throughput/samples_per_s"] == pytest.approx(4e3 / row["throughput/step_ms"])


def test_the_straggler_is_named() -> None:
    #         batches samples items busy communication stall
    rows = [[10, 80, 0, 1.0, 0.5, 0.1], [10, 80, 0, 1.0, 0.0, 0.1], [10, 80, 0, 1.0, 0.5, 0.1]]
    found = throughput([[float(x) for x in row] for row in rows], items=False)
    assert found["throughput/straggler"] == 1
    assert found["share/communication"] == pytest.approx(1.0 / 3.3)
    assert found["throughput/samples_per_s"] == pytest.approx(240 / 1.1)
    assert throughput([[float(x) for x in rows[0]]] * 3, items=False)["throughput/straggler"] == -1


def test_device_stats_are_logged(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path)
    trainer(tmp_path, C.DeviceStatsMonitor(), logger=log, log_every_n_steps=4).fit(Net(), loader())
    row = next(row for row in log.rows if "device/resident_mb" in row)
    assert 10 < row["device/resident_mb"] <= row["device/peak_mb"] + 1 < 1e5
    with pytest.raises(ValueError, match="needs a logger"):
        trainer(tmp_path, C.DeviceStatsMonitor()).fit(Net(), loader())


def test_the_report_is_one_file_with_every_curve(tmp_path: Path) -> None:
    from html.parser import HTMLParser

    report = C.HTMLReport()
    t = trainer(tmp_path, report, log_every_n_steps=1, max_epochs=2)
    t.fit(Net(), loader(), loader(4))
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(", text)
    assert "finished at" in text and "prefers-color-scheme: dark" in text
    for name in ("train_loss", "val_loss", "lr-SGD", "throughput/samples_per_s", "share/communication"):
        assert f"</i>{name} <b>" in text
    open_tags: list[str] = []

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("meta", "path", "circle"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert tag in ("path", "circle") or open_tags.pop() == tag

    Check().feed(text)
    assert not open_tags
    (line,) = re.findall(r'<polyline class="c0" points="([^"]*)"><title>train_loss<', text)
    assert len(line.split()) == 8  # every step of both epochs


def test_the_report_of_a_failed_run_says_so(tmp_path: Path) -> None:
    class Fails(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 6:
                raise RuntimeError("<unwell>")
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError):
        trainer(tmp_path, C.HTMLReport(tmp_path / "run.html"), log_every_n_steps=1).fit(Fails(), loader())
    assert "ended by RuntimeError: &lt;unwell&gt;" in (tmp_path / "run.html").read_text()


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.0, 17.0), (1e-9, 3e-9), (5.0, 5.0), (0.0, 1234567.0)]
)
def test_ticks_are_round_and_span(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 3 <= len(found) <= 12


def test_charts_survive_what_is_logged() -> None:
    assert "nothing was logged" in chart({"x": [(0, float("nan"))]})
    assert chart({"x": [(3, 1.0)]}).count("<circle") == 1
    many = [(float(i), float(i % 7 == 0 and i == 7000)) for i in range(20000)]
    assert len(thin(many)) <= 700 and max(thin(many), key=lambda p: p[1]) == (7000.0, 1.0)
    assert log_ticks(0.003, 2.0)[0] <= 0.003 and 1.0 in log_ticks(0.003, 2.0)
