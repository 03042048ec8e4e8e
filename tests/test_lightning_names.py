"""What scripts written for Lightning reach for beside module and Trainer: CLI, tuner, profilers, demos, small names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning.callbacks import BatchSizeFinder, LearningRateFinder
from ringgrad.lightning.demos.boring_classes import BoringDataModule, BoringModel, DemoModel, RandomDataset
from ringgrad.lightning.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from ringgrad.lightning.tuner import Tuner
from ringgrad.lightning.utilities import rank_zero_only, rank_zero_warn


class Net(L.LightningModule):
    """Least squares, whose best learning rate is known within an order of magnitude."""

    def __init__(self, lr: float = 1e-4, batch_size: int = 4, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        rg.manual_seed(1)
        self.layer = nn.Linear(width, 1)
        self.batch_size = batch_size

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return ((self.layer(batch[0]) - batch[1]) ** 2).mean()

    def train_dataloader(self) -> Any:
        g = rg.Generator().manual_seed(0)
        x = rg.randn(64, 8, generator=g)
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), self.batch_size)

    def configure_optimizers(self) -> Any:
        return optim.SGD(self.parameters(), lr=self.hparams.lr)


def trainer(tmp_path: Path, **kwargs: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(default_root_dir=tmp_path, **{"logger": False, "max_epochs": 2, **quiet, **kwargs})


def weights(model: Any) -> np.ndarray:
    return np.concatenate([p.detach().numpy().reshape(-1) for p in model.parameters()])


def test_lr_find_suggests_a_rate_and_leaves_everything_else(tmp_path: Path) -> None:
    model, t = Net(), trainer(tmp_path)
    before, settings = weights(model), (t.max_epochs, t.max_steps, t.callbacks)
    rg.manual_seed(3)
    expected = rg.rand(1).item()
    rg.manual_seed(3)
    finder = Tuner(t).lr_find(model, min_lr=1e-5, max_lr=10.0, num_training=80)
    lr = finder.suggestion()
    assert lr is not None and 1e-4 < lr < 2 and model.hparams.lr == lr
    assert np.array_equal(weights(model), before) and rg.rand(1).item() == expected
    assert (t.max_epochs, t.max_steps, t.callbacks) == settings and t.global_step == 0
    losses = finder.results["loss"]
    assert len(losses) < 80 and min(losses) < losses[0] / 1.1  # it fell, and ended when it rose fourfold
    t.fit(model)
    assert t.global_step == 32 and t.optimizers[0].param_groups[0]["lr"] == lr


def test_a_found_rate_needs_a_place(tmp_path: Path) -> None:
    class Nameless(BoringModel):
        pass

    with pytest.raises(AttributeError, match="must have lr or learning_rate"):
        Tuner(trainer(tmp_path)).lr_find(Nameless())
    with pytest.raises(ValueError, match="0 < min_lr < max_lr"):
        Tuner(trainer(tmp_path)).lr_find(Net(), min_lr=1.0, max_lr=0.1)


@pytest.mark.parametrize(
    ("mode", "largest", "found"), [("power", 20, 16), ("binsearch", 20, 20), ("power", 999, 64)]
)
def test_the_batch_grows_until_memory_or_data_are_used_up(
    tmp_path: Path, mode: str, largest: int, found: int
) -> None:
    class Hungry(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if len(batch[0]) > largest:
                raise MemoryError
            return super().training_step(batch, batch_idx)

    model = Hungry()
    assert Tuner(trainer(tmp_path)).scale_batch_size(model, mode=mode) == found == model.batch_size


def test_finders_run_before_training(tmp_path: Path) -> None:
    model = Net()
    lr, size = LearningRateFinder(1e-5, 10.0, 60), BatchSizeFinder(init_val=8)
    t = trainer(tmp_path, callbacks=[size, lr])
    t.fit(model)
    assert size.optimal_batch_size == model.batch_size == 64 and t.global_step == 2
    assert lr.optimal_lr is not None and t.optimizers[0].param_groups[0]["lr"] == lr.optimal_lr.suggestion()


def test_the_simple_profiler_counts_what_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profiler = SimpleProfiler()
    model = Net()
    trainer(tmp_path, profiler=profiler).fit(model)
    counts = {name: len(times) for name, times in profiler.durations.items()}
    assert (counts["training_step"], counts["backward"], counts["optimizer_step"]) == (32, 32, 32)
    assert sum(profiler.durations["backward"]) < profiler.total
    assert "training_step" in capsys.readouterr().out and "training_step" not in vars(model)
    with pytest.raises(ValueError, match="profiler must be one of simple"):
        trainer(tmp_path, profiler="slow")


def test_a_profiler_leaves_steps_that_a_module_made_itself(tmp_path: Path) -> None:
    model = BoringModel()
    model.training_step = own = model.training_step  # as scripts do that choose among several
    trainer(tmp_path, profiler="simple").fit(model)
    assert model.training_step is own


def test_other_profilers_write_files(tmp_path: Path) -> None:
    for profiler, said in (
        (AdvancedProfiler(tmp_path, "python"), "run_epoch"),
        (PyTorchProfiler(tmp_path, "ops"), "linear"),
    ):
        trainer(tmp_path, profiler=profiler).fit(Net())
        assert said in (tmp_path / f"fit-{profiler.filename}.txt").read_text()


def test_boring_models_go_through_every_stage(tmp_path: Path) -> None:
    model, t = BoringModel(), trainer(tmp_path, fast_dev_run=2)
    t.fit(model)
    t.validate(model, verbose=False)
    t.test(model, verbose=False, datamodule=BoringDataModule())
    assert len(t.predict(model)) == 2
    trainer(tmp_path, barebones=True, max_steps=3).fit(DemoModel(), DataLoader(RandomDataset(32, 8), 2))


def test_loaders_are_asked_for_anew(tmp_path: Path) -> None:
    asked: list[int] = []

    class Asks(Net):
        def train_dataloader(self) -> Any:
            asked.append(self.current_epoch)
            return super().train_dataloader()

    trainer(tmp_path, max_epochs=5, reload_dataloaders_every_n_epochs=2).fit(Asks())
    assert asked == [0, 2, 4]


def test_float16_scales_its_loss_and_leaves_overflows_out(tmp_path: Path) -> None:
    class Overflows(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx) * (1e38 if self.global_step == 3 else 1.0)

    model = Overflows(lr=0.05)
    t = trainer(tmp_path, precision="16-mixed", max_epochs=4)
    t.fit(model)
    assert np.isfinite(weights(model)).all() and t.precision.scaler.get_scale() < 65536
    np.testing.assert_allclose(model.layer.weight.detach().numpy(), np.ones((1, 8)), atol=0.2)
    t.save_checkpoint(tmp_path / "a.ckpt")
    assert rg.load(tmp_path / "a.ckpt")["MixedPrecision"]["scale"] == t.precision.scaler.get_scale()


def test_rank_zero_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    say = rank_zero_only(lambda: "said", default="nothing")
    assert say() == "said"
    with pytest.warns(UserWarning, match="mind"):
        rank_zero_warn("mind")
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert say() == "nothing"


CONFIG = """
seed_everything: 7
trainer: {max_epochs: 3}
model: {lr: 0.2}
"""


def test_the_command_line_builds_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jsonargparse")
    from ringgrad.lightning.cli import LightningCLI

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIG)
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    seen: list[int] = []

    class CLI(LightningCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_argument("--note", default="")
            parser.link_arguments("model.batch_size", "model.width", compute_fn=lambda size: 2 * size)

        def after_fit(self) -> None:
            seen.append(self.trainer.global_step)

    fit = [*quiet, "--config=run.yaml", "--model.batch_size=4", "--trainer.max_steps=9"]
    cli = CLI(Net, trainer_defaults={"callbacks": LearningRateFinder(1e-5, 1.0, 20)}, args=["fit", *fit])
    assert seen == [9] and cli.model.hparams.width == 8 and cli.trainer.max_epochs == 3
    assert isinstance(cli.trainer.callbacks[0], LearningRateFinder)
    saved = (Path(cli.trainer.log_dir) / "config.yaml").read_text()
    assert "lr: 0.2" in saved and "max_steps: 9" in saved and "seed_everything: 7" in saved
    built = LightningCLI(BoringModel, BoringDataModule, run=False, args=quiet, seed_everything_default=3)
    assert isinstance(built.datamodule, BoringDataModule) and built.trainer.global_step == 0


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # PyTorch's, of its own speed
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_norms_take_what_autocast_gives_them(norm: str, dtype: str) -> None:
    """A 16-bit input and float32 parameters: PyTorch computes in float32 and rounds once."""
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    outs = []
    for t in (rg, torch):
        layer, x = getattr(t.nn, norm)(8), t.tensor(values).to(getattr(t, dtype))
        with t.no_grad():
            layer.weight.copy_(t.tensor(values[0] + 1))
        y = layer(x)
        assert str(y.dtype).endswith(dtype)
        outs.append(y.detach().float().numpy())
        y.float().sum().backward()
        outs.append(layer.weight.grad.numpy())
    np.testing.assert_allclose(outs[0], outs[2], rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(outs[1], outs[3], rtol=2e-2, atol=2e-2)


def test_the_demo_language_model_trains_on_any_text(tmp_path: Path) -> None:
    from ringgrad.lightning.demos import LightningTransformer, WikiText2

    (tmp_path / "wikitext-2.txt").write_text("the cat sat\non the mat\n" * 6)
    data = WikiText2(tmp_path, block_size=4)
    words, following = data[1]
    assert len(data) == 11 and data.vocab_size == 6 and (words[1:] == following[:-1]).all()
    model = LightningTransformer(data.vocab_size, nlayers=1)
    L.Trainer(fast_dev_run=True, enable_progress_bar=False).fit(model, DataLoader(data, 3))
    scores = model.eval()(words[None], following[None])
    assert scores.shape == (4, 6) and scores.exp().sum(-1).detach().numpy() == pytest.approx(
        np.ones(4), rel=1e-5
    )
    other = model(words[None], rg.cat([following[:2], following[:2]])[None])
    assert (other[:2] == scores[:2]).all()  # a word sees none of the words after it
    with pytest.raises(FileNotFoundError, match="there must be a file"):
        WikiText2(tmp_path / "nowhere", download=False)
