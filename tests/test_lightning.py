"""ringgrad.lightning: the loop, its hooks, its limits, checkpoints and what it says about mistakes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, IterableDataset, TensorDataset
from ringgrad.lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer
from ringgrad.lightning.loggers import CSVLogger, TensorBoardLogger


def loader(n: int = 16, batch: int = 4, shuffle: bool = False) -> DataLoader[Any]:
    g = rg.Generator().manual_seed(0)
    return DataLoader(TensorDataset(rg.randn(n, 4, generator=g), rg.randn(n, 1, generator=g)), batch, shuffle)


class Net(L.LightningModule):
    def __init__(self, lr: float = 0.1, dropout: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        rg.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
        self.losses: list[float] = []

    def forward(self, x: Any) -> Any:
        return self.layers(x)

    def loss(self, batch: Any) -> Any:
        x, y = batch
        return ((self(x) - y) ** 2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.losses.append(loss.item())
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return optim.Adam(self.parameters(), lr=self.hparams.lr)


def trainer(tmp_path: Path, **kwargs: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return L.Trainer(default_root_dir=tmp_path, **{**quiet, "enable_checkpointing": None, **kwargs})


def weights(model: Any) -> np.ndarray:
    return np.concatenate([p.array.reshape(-1) for p in model.parameters()])


def by_hand(model: Net, epochs: int, data: Any) -> np.ndarray:
    optimizer = model.configure_optimizers()
    for _ in range(epochs):
        for batch in data:
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
    return weights(model)


def test_fit_is_the_loop_written_by_hand(tmp_path: Path) -> None:
    model, t = Net(), trainer(tmp_path, max_epochs=3)
    before = weights(model)
    t.fit(model, loader(), loader())
    assert np.array_equal(weights(model), by_hand(Net(), 3, loader()))
    assert not np.array_equal(weights(model), before)
    assert (t.current_epoch, t.global_step) == (3, 12)


def test_accumulated_batches_are_one_batch(tmp_path: Path) -> None:
    model, t = Net(), trainer(tmp_path, max_epochs=2, accumulate_grad_batches=2)
    t.fit(model, loader(16, 4))
    np.testing.assert_allclose(weights(model), by_hand(Net(), 2, loader(16, 8)), rtol=1e-4, atol=1e-6)
    assert t.global_step == 4


def test_gradients_are_clipped(tmp_path: Path) -> None:
    seen: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            grads = np.concatenate([p.grad.array.reshape(-1) for p in pl_module.parameters()])
            seen.append(float(np.linalg.norm(grads)))

    trainer(tmp_path, max_epochs=1, gradient_clip_val=0.01, callbacks=[Watch()]).fit(Net(), loader())
    assert seen == pytest.approx([0.01] * 4, rel=1e-3)
    seen.clear()
    trainer(tmp_path, max_epochs=1, callbacks=Watch()).fit(Net(), loader())
    assert max(seen) > 0.1


HOOKS = """
    prepare_data setup configure_model configure_optimizers on_fit_start
    on_validation_model_eval on_validation_start on_validation_epoch_start
    on_validation_batch_start validation_step on_validation_batch_end
    on_validation_epoch_end on_validation_end on_validation_model_train
    on_train_start on_train_epoch_start
    on_before_batch_transfer transfer_batch_to_device on_after_batch_transfer on_train_batch_start
    training_step on_before_zero_grad optimizer_zero_grad on_before_backward backward on_after_backward
    on_before_optimizer_step configure_gradient_clipping optimizer_step on_train_batch_end
    on_validation_model_zero_grad on_validation_model_eval on_validation_start on_validation_epoch_start
    on_validation_batch_start validation_step on_validation_batch_end
    on_validation_epoch_end on_validation_end on_validation_model_train
    on_train_epoch_end on_save_checkpoint on_train_end on_fit_end teardown
"""


def test_hooks_come_in_lightnings_order(tmp_path: Path) -> None:
    calls: list[str] = []
    inner = {"training_step", "on_before_zero_grad", "optimizer_zero_grad", "on_before_backward", "backward"}

    def recorded(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            out = getattr(super(Recorder, self), name)(
                *args, **kwargs
            )  # an outer call is told of when it ends
            transfer = "transfer" in name and "validation_step" not in calls[-1:]
            if "transfer" not in name or (transfer and calls[-1] not in VAL and self.training):
                calls.append(name)
            return out

        return method

    VAL = {"on_validation_epoch_start", "on_validation_batch_end"}
    Recorder = type("Recorder", (Net,), {name: recorded(name) for name in {*HOOKS.split()} | inner})
    trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=1).fit(
        Recorder(), loader(), loader()
    )
    assert calls == HOOKS.split()


def test_callbacks_are_called_before_the_module_and_monitors_after(tmp_path: Path) -> None:
    calls: list[str] = []

    class Own(L.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            calls.append(f"callback {sorted(trainer.callback_metrics)}")

    class Stop(EarlyStopping):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            calls.append("monitor")
            super().on_train_epoch_end(trainer, pl_module)

    class Logs(Net):
        def on_train_epoch_end(self) -> None:
            calls.append("module")
            self.log("late", 3.0)

    t = trainer(tmp_path, max_epochs=1, callbacks=[Stop("late"), Own()])
    t.fit(Logs(), loader())
    assert calls == ["callback ['train_loss', 'train_loss_epoch', 'train_loss_step']", "module", "monitor"]
    assert t.callback_metrics["late"].item() == 3.0


def test_epoch_values_are_means_over_samples(tmp_path: Path) -> None:
    class Logs(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("mean", float(batch_idx))
            self.log("sum", 1.0, reduce_fx="sum")
            self.log("max", float(batch_idx), reduce_fx="max")

    t = trainer(tmp_path)
    (out,) = t.validate(Logs(), loader(10, 4), verbose=False)
    assert out == {"mean": pytest.approx((0 * 4 + 1 * 4 + 2 * 2) / 10), "sum": 3.0, "max": 2.0}


def test_several_loaders_have_their_own_values(tmp_path: Path) -> None:
    class Logs(Net):
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            self.log("n", float(dataloader_idx))
            self.log("both", 2.0, on_step=True, on_epoch=True)

    t = trainer(tmp_path)
    out = t.test(Logs(), [loader(), loader()], verbose=False)
    assert out == [{f"n/dataloader_idx_{i}": i, f"both_epoch/dataloader_idx_{i}": 2.0} for i in (0, 1)]
    assert t.num_test_batches == [4, 4] and "both_step/dataloader_idx_1" in t.callback_metrics


def test_predict_keeps_outputs_in_order(tmp_path: Path) -> None:
    model = Net()
    out = trainer(tmp_path).predict(model, [[b[0] for b in loader()]])
    assert len(out) == 4 and not out[0].requires_grad
    assert np.array_equal(out[2].array, model([*loader()][2][0]).array)
    assert model.training


@pytest.mark.parametrize(
    ("arguments", "batches", "validations"),
    [
        ({"max_epochs": 2}, 8, 2),
        ({"max_steps": 5}, 5, 1),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 4, 2),
        ({"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 0}, 6, 0),
        ({"max_epochs": 1, "val_check_interval": 0.25}, 4, 4),
        ({"max_epochs": 2, "val_check_interval": 3, "check_val_every_n_epoch": None}, 8, 2),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, 16, 2),
        ({"fast_dev_run": True, "max_epochs": 9}, 1, 1),
        ({"fast_dev_run": 2}, 2, 1),
        ({"max_epochs": 3, "overfit_batches": 1}, 3, 3),
    ],
)
def test_limits(tmp_path: Path, arguments: dict[str, Any], batches: int, validations: int) -> None:
    class Counts(Net):
        rounds = 0

        def on_validation_epoch_end(self) -> None:
            self.rounds += 1

    model = Counts()
    trainer(tmp_path, num_sanity_val_steps=0, **arguments).fit(model, loader(), loader())
    assert (len(model.losses), model.rounds) == (batches, validations)


def test_streams_without_a_length(tmp_path: Path) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter([[rg.ones(4), rg.ones(1)]] * 5)

    model = Net()
    t = trainer(tmp_path, max_epochs=2, accumulate_grad_batches=2)
    t.fit(model, DataLoader(Stream(), 1), DataLoader(Stream(), 1))
    assert (len(model.losses), t.global_step) == (10, 6)
    with pytest.raises(ValueError, match="needs a loader with a length"):
        trainer(tmp_path, val_check_interval=0.5).fit(Net(), DataLoader(Stream(), 1), loader())


def test_precision(tmp_path: Path) -> None:
    seen = []

    class Looks(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append((batch[0].dtype, self(batch[0]).dtype))
            return self.loss(batch)

    for precision in ("64", "bf16-mixed", 32):
        trainer(tmp_path, fast_dev_run=True, precision=precision).fit(Looks(), loader())
    assert seen == [(rg.float64, rg.float64), (rg.float32, rg.bfloat16), (rg.float32, rg.float32)]
    assert rg.get_default_dtype() is rg.float32
    with pytest.raises(ValueError, match="precision must be one of"):
        trainer(tmp_path, precision="8")


def schedule(o: Any) -> Any:
    return optim.lr_scheduler.StepLR(o, 1, 0.5)


@pytest.mark.parametrize(
    ("form", "lr"),
    [
        (lambda o: o, 1.0),
        (lambda o: [o], 1.0),
        (lambda o: ([o], [schedule(o)]), 0.25),
        (lambda o: {"optimizer": o, "lr_scheduler": schedule(o)}, 0.25),
        (lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": schedule(o), "interval": "step"}}, 0.5**8),
        (lambda o: [{"optimizer": o, "lr_scheduler": {"scheduler": schedule(o), "frequency": 2}}], 0.5),
        (lambda o: ([o], [{"scheduler": schedule(o), "interval": "epoch"}]), 0.25),
        (
            lambda o: {
                "optimizer": o,
                "lr_scheduler": optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.1, patience=0),
                "monitor": "flat",
            },
            0.1,
        ),
    ],
)
def test_what_configure_optimizers_may_return(tmp_path: Path, form: Any, lr: float) -> None:
    class Forms(Net):
        def configure_optimizers(self) -> Any:
            self.log_here = optim.SGD(self.parameters(), lr=1.0)
            return form(self.log_here)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("flat", 1.0)

    model = Forms()
    trainer(tmp_path, max_epochs=2).fit(model, loader(), loader())
    assert model.log_here.param_groups[0]["lr"] == pytest.approx(lr)


def test_manual_optimization(tmp_path: Path) -> None:
    class Manual(Net):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            first, second = self.optimizers()
            self.toggle_optimizer(first)
            assert [p.requires_grad for p in self.parameters()] == [True, True, False, False]
            loss = self.loss(batch)
            self.losses.append(loss.item())
            self.manual_backward(loss)
            first.step()
            first.zero_grad()
            self.untoggle_optimizer(first)
            second.zero_grad()
            self.manual_backward(self.loss(batch))
            second.step()

        def configure_optimizers(self) -> Any:
            parts = self.layers[0], self.layers[3]
            return [optim.SGD(p.parameters(), lr=0.1) for p in parts]

    model, t = Manual(), trainer(tmp_path, max_epochs=5)
    t.fit(model, loader())
    assert t.global_step == 40 and sum(model.losses[-4:]) < sum(model.losses[:4])
    assert all(p.requires_grad for p in model.parameters())


def test_a_step_may_leave_a_batch_out_and_a_hook_the_rest(tmp_path: Path) -> None:
    class Picks(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 0 else super().training_step(batch, batch_idx)

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if batch_idx == 2 else None

    model = Picks()
    trainer(tmp_path, max_epochs=2).fit(model, loader())
    assert len(model.losses) == 2


def test_datamodule(tmp_path: Path) -> None:
    class Data(L.LightningDataModule):
        def __init__(self, batch: int = 4) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.calls: list[str] = []

        def prepare_data(self) -> None:
            self.calls.append("prepare")

        def setup(self, stage: str) -> None:
            self.calls.append(f"setup {stage}")

        def train_dataloader(self) -> Any:
            return loader(batch=self.hparams.batch)

        def val_dataloader(self) -> Any:
            return loader()

        def teardown(self, stage: str) -> None:
            self.calls.append(f"teardown {stage}")

    data, t, model = Data(8), trainer(tmp_path, max_epochs=1), Net()
    t.fit(model, datamodule=data)
    assert data.calls == ["prepare", "setup fit", "teardown fit"] and len(model.losses) == 2
    loaded = Data.load_from_checkpoint(t.checkpoint_callback.best_model_path)  # type: ignore[union-attr]
    assert loaded.hparams.batch == 8
    simple = L.LightningDataModule.from_datasets(loader().dataset, batch_size=2)
    t = trainer(tmp_path, max_epochs=1)
    t.fit(Net(), simple)
    assert t.global_step == 8


def test_hyperparameters_and_load_from_checkpoint(tmp_path: Path) -> None:
    class Deep(Net):
        def __init__(self, width: int, *, name: str = "n", **kwargs: Any) -> None:
            super().__init__(lr=0.01)
            self.save_hyperparameters(ignore="name")

    model = Deep(3, extra=1)
    assert dict(model.hparams) == {"width": 3, "extra": 1, "lr": 0.01, "dropout": 0.0}
    t = trainer(tmp_path, max_epochs=1)
    t.fit(model, loader())
    path = t.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    again = Deep.load_from_checkpoint(path, width=4)
    assert again.hparams.width == 4 and np.array_equal(weights(again), weights(model))

    class Late(Net):
        def configure_model(self) -> None:
            self.layers.append(nn.Linear(1, 1))

    t = trainer(tmp_path / "late", max_epochs=1)
    t.fit(Late(), loader())
    late = Late.load_from_checkpoint(t.checkpoint_callback.best_model_path)  # type: ignore[union-attr]
    assert np.array_equal(weights(late), weights(t.lightning_module))

    class Needs(Net):
        def __init__(self, depth: int) -> None:
            super().__init__()

    with pytest.raises(TypeError, match=r"needs \['depth'\]"):
        Needs.load_from_checkpoint(path)


def test_freeze() -> None:
    model = Net()
    model.freeze()
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    model.unfreeze()
    assert model.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("stop", [2, 4, 6, 7, 8])
@pytest.mark.parametrize("val_check_interval", [1.0, 2])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, stop: int, val_check_interval: float) -> None:
    def arguments(folder: str) -> dict[str, Any]:
        saves = ModelCheckpoint(tmp_path / folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        return {"max_epochs": 3, "callbacks": [saves], "val_check_interval": val_check_interval}

    class Scheduled(Net):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            return [optimizer], [schedule(optimizer)]

    whole, t = Scheduled(dropout=0.5), trainer(tmp_path, **arguments("whole"))
    t.fit(whole, loader(shuffle=True), loader())
    resumed, again = Scheduled(dropout=0.5), trainer(tmp_path, **arguments("again"))
    again.fit(resumed, loader(shuffle=True), loader(), ckpt_path=tmp_path / "whole" / f"step={stop}.ckpt")
    assert resumed.losses == whole.losses[stop:]
    assert np.array_equal(weights(resumed), weights(whole))
    assert again.callback_values == t.callback_values and again.global_step == t.global_step


def test_a_run_goes_on_for_more_epochs(tmp_path: Path) -> None:
    whole = Net()
    trainer(tmp_path / "a", max_epochs=4).fit(whole, loader(shuffle=True))
    first, t = Net(), trainer(tmp_path / "b", max_epochs=2)
    t.fit(first, loader(shuffle=True))
    t.save_checkpoint(tmp_path / "end.ckpt")
    best = t.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    for path in (best, tmp_path / "end.ckpt"):
        more, t = Net(), trainer(tmp_path / "c", max_epochs=4)
        t.fit(more, loader(shuffle=True), ckpt_path=path)
        assert t.current_epoch == 4 and more.losses == whole.losses[8:]


def test_model_checkpoint_keeps_the_best_and_the_last(tmp_path: Path) -> None:
    scores = [5.0, 3.0, 4.0, 1.0, 2.0]

    class Scored(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("score", scores[self.current_epoch])

    saves = ModelCheckpoint(tmp_path, "{epoch:02d}-{score:.1f}", "score", save_top_k=2, save_last=True)
    t = trainer(tmp_path, max_epochs=5, callbacks=[saves])
    t.fit(Scored(), loader(), loader())
    names = {p.name for p in tmp_path.glob("*.ckpt")}
    assert names == {"epoch=03-score=1.0.ckpt", "epoch=04-score=2.0.ckpt", "last.ckpt"}
    assert (
        Path(saves.best_model_path).name == "epoch=03-score=1.0.ckpt" and saves.best_model_score.item() == 1.0
    )
    assert rg.load(saves.last_model_path)["epoch"] == 4
    again = ModelCheckpoint(tmp_path, "again", save_last=True)  # a new run: the files there are not its own
    trainer(tmp_path, max_epochs=1, callbacks=[again]).fit(Net(), loader())
    assert Path(again.last_model_path).name == "last-v1.ckpt" and rg.load(saves.last_model_path)["epoch"] == 4
    other = Net()
    t.test(other, loader(), ckpt_path="best", verbose=False)
    assert np.array_equal(weights(other), weights(Net.load_from_checkpoint(saves.best_model_path)))
    with pytest.raises(ValueError, match="monitors 'nothing', which was not logged"):
        trainer(tmp_path, max_epochs=1, callbacks=[ModelCheckpoint(monitor="nothing")]).fit(Net(), loader())


def test_early_stopping(tmp_path: Path) -> None:
    class Flat(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("v", [3.0, 2.0, 2.5, 2.5, 2.5][self.current_epoch])

    t = trainer(tmp_path, max_epochs=5, callbacks=[EarlyStopping("v", patience=2)])
    t.fit(Flat(), loader(), loader())
    assert t.current_epoch == 4 and t.early_stopping_callback.stopped_epoch == 3  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="monitors 'w', which was not logged"):
        trainer(tmp_path, max_epochs=1, callbacks=[EarlyStopping("w")]).fit(Flat(), loader(), loader())


def test_time_ends_training(tmp_path: Path) -> None:
    t = trainer(tmp_path, max_epochs=-1, max_time={"seconds": 0})
    t.fit(Net(), loader())
    assert t.global_step == 1
    with pytest.raises(ValueError, match="DD:HH:MM:SS"):
        Timer("1 hour")


def test_loggers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    loggers = [CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "tb")]
    callbacks = [LearningRateMonitor("step")]
    t = trainer(tmp_path, max_epochs=2, logger=loggers, log_every_n_steps=2, callbacks=callbacks)
    t.fit(Net(), loader(), loader())
    rows = list(csv.DictReader((tmp_path / "csv" / "version_0" / "metrics.csv").read_text().splitlines()))
    steps = [(int(r["step"]), float(r["train_loss_step"])) for r in rows if r["train_loss_step"]]
    assert [s for s, _ in steps] == [1, 3, 5, 7]
    assert [v for _, v in steps] == pytest.approx([t.lightning_module.losses[s] for s, _ in steps])
    assert sum(bool(r["val_loss"]) for r in rows) == sum(bool(r["train_loss_epoch"]) for r in rows) == 2
    assert {float(r["lr-Adam"]) for r in rows if r["lr-Adam"]} == {0.1}
    assert list((tmp_path / "tb" / "version_0").glob("events*"))
    assert CSVLogger(tmp_path, "csv").version == 1


def test_seed_everything() -> None:
    def draw() -> tuple[float, ...]:
        import random

        return random.random(), float(np.random.random()), rg.rand(1).item()

    assert L.seed_everything(3, verbose=False) == 3
    first = draw()
    L.seed_everything(3, verbose=False)
    assert draw() == first
    with pytest.raises(ValueError, match="must be in 0"):
        L.seed_everything(-1)


class NoStep(L.LightningModule):
    def configure_optimizers(self) -> Any:
        return None


def returning(value: Any) -> Any:
    return type("Returns", (Net,), {"training_step": lambda self, batch, batch_idx: value})()


def configuring(value: Any) -> Any:
    return type("Configures", (Net,), {"configure_optimizers": lambda self: value})()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.fit(NoStep(), loader()), ValueError, r"NoStep must define training_step\(\)"),
        (lambda t: t.fit(Net()), ValueError, "needs training data"),
        (
            lambda t: t.fit(nn.Linear(1, 1), loader()),
            TypeError,
            "model must be a LightningModule, came Linear",
        ),
        (lambda t: t.validate(Net()), ValueError, r"needs data: pass dataloaders .* val_dataloader\(\)"),
        (lambda t: t.validate(), ValueError, "needs a model"),
        (lambda t: t.test(NoStep(), loader()), ValueError, r"NoStep must define test_step\(\)"),
        (lambda t: t.fit(returning(1.5), loader()), TypeError, "must return a loss .* came float"),
        (lambda t: t.fit(returning({"l": 1}), loader()), TypeError, "must have 'loss'"),
        (lambda t: t.fit(returning(rg.ones(2)), loader()), ValueError, r"one number, came shape \(2,\)"),
        (lambda t: t.fit(configuring("sgd"), loader()), TypeError, "came str for an optimizer"),
        (lambda t: t.fit(configuring({"optim": 1}), loader()), ValueError, "a dict must have 'optimizer'"),
        (lambda t: t.fit(Net(), 3), TypeError, "iterable of batches, came int"),
        (
            lambda t: t.fit(Net(), loader(), ckpt_path="no.ckpt"),
            FileNotFoundError,
            "there is no file no.ckpt",
        ),
        (lambda t: t.fit(Net(), loader(), datamodule=L.LightningDataModule()), ValueError, "came both"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, call: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(trainer(tmp_path, max_epochs=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accelerator": "tpu"}, "accelerator must be"),
        ({"strategy": "horovod"}, "strategy must be one of"),
        ({"val_check_interval": 1.5}, "val_check_interval must be"),
        ({"accumulate_grad_batches": 0}, "must be at least 1"),
        ({"gradient_clip_algorithm": "sqrt"}, "gradient_clip_algorithm must be"),
        ({"max_time": "soon"}, "DD:HH:MM:SS"),
    ],
)
def test_wrong_arguments_are_told(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **arguments)


def test_log_says_where_it_can_be_called(tmp_path: Path) -> None:
    class Early(Net):
        def on_fit_start(self) -> None:
            self.log("x", 1.0)

    with pytest.raises(RuntimeError, match="cannot be called in on_fit_start"):
        trainer(tmp_path, max_epochs=1).fit(Early(), loader())

    class Vector(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("x", rg.ones(3))

    with pytest.raises(ValueError, match=r"'x' must be one number, came a tensor of shape \(3,\)"):
        trainer(tmp_path, max_epochs=1).fit(Vector(), loader())


def test_detect_anomaly_finds_nan(tmp_path: Path) -> None:
    class Nan(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return (self(batch[0]) * 0).sqrt().sum() * 0

    with pytest.raises(RuntimeError, match="NaN"):
        trainer(tmp_path, max_epochs=1, detect_anomaly=True).fit(Nan(), loader())


def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    if rg.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RuntimeError, match="accelerator='gpu' needs an NVIDIA GPU"):
        trainer(tmp_path, accelerator="gpu")


def test_a_collection_of_metrics_is_logged_as_a_dict(tmp_path: Path) -> None:
    from ringgrad.lightning.metrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

    class Logs(Net):
        def __init__(self) -> None:
            super().__init__()
            self.errors = MetricCollection([MeanSquaredError(), MeanAbsoluteError()], prefix="val_")

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.errors.update(self(batch[0]), batch[1])
            self.log_dict(self.errors)

    model = Logs()
    (out,) = trainer(tmp_path).validate(model, loader(10, 4), verbose=False)
    x, y = next(iter(loader(10, 10)))
    error = (model(x) - y).detach().numpy()
    assert out == {
        "val_MeanSquaredError": pytest.approx((error**2).mean(), rel=1e-5),
        "val_MeanAbsoluteError": pytest.approx(abs(error).mean(), rel=1e-5),
    }
