"""Checkpoints written beside training: CheckpointIO plugins of the Trainer."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning.callbacks import ModelCheckpoint
from ringgrad.tensor.serialization import CheckpointError


class Net(L.LightningModule):
    """Its weight is large enough to be copied beside training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = rg.nn.Linear(128, 130)
        self.norm = rg.nn.BatchNorm1d(130)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return (self.norm(self.layer(batch[0])) - 1).square().mean()

    def configure_optimizers(self) -> Any:
        return rg.optim.Adam(self.parameters(), lr=0.01)


class Clamps(Net):
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        with rg.no_grad():
            self.layer.weight.clamp_(-0.05, 0.05)  # after the callbacks, which may just have begun a save


def fit(folder: Path, io: L.CheckpointIO, net: type[L.LightningModule] = Net, **options: Any) -> Any:
    L.seed_everything(1)
    saving = ModelCheckpoint(folder, every_n_train_steps=2, filename="{step}", **options)
    trainer = L.Trainer(
        max_steps=7,
        callbacks=[saving],
        plugins=[io],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net(), DataLoader(TensorDataset(rg.randn(40, 128)), batch_size=4))
    return trainer


@pytest.mark.parametrize("net", [Net, Clamps])
@pytest.mark.parametrize("plugin", [L.AsyncCheckpointIO, L.ShardedCheckpointIO])
def test_files_are_those_of_a_save_that_waits(tmp_path: Path, plugin: Any, net: Any) -> None:
    fit(tmp_path / "a", L.CheckpointIO(), net, save_top_k=-1)
    fit(tmp_path / "b", plugin(), net, save_top_k=-1)
    names = sorted(os.listdir(tmp_path / "a"))
    assert names == ["step=2.ckpt", "step=4.ckpt", "step=6.ckpt"]
    for name in names:
        one, two = (plugin().load_checkpoint(str(tmp_path / where / name)) for where in "ab")
        assert one["global_step"] == two["global_step"]
        for key, value in one["state_dict"].items():
            assert (value == two["state_dict"][key]).all(), key
        states = [found["optimizer_states"][0]["state"][0]["exp_avg"] for found in (one, two)]
        assert (states[0] == states[1]).all()


@pytest.mark.parametrize("plugin", [L.AsyncCheckpointIO, L.ShardedCheckpointIO])
def test_a_step_that_writes_weights_while_they_are_copied_is_refused(tmp_path: Path, plugin: Any) -> None:
    class Writes(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            with rg.no_grad():
                self.layer.weight.clamp_(-0.01, 0.01)
            return super().training_step(batch, batch_idx)

    with pytest.raises(CheckpointError, match=r"\['layer.weight'\] must not be written while it is copied"):
        fit(tmp_path, plugin(), Writes)
    fit(tmp_path / "at once", plugin(overlap=False), Writes)
    assert "step=6.ckpt" in os.listdir(tmp_path / "at once")


class Slow(L.CheckpointIO):
    """Writes once it is told to; the thread that asks notes the order."""

    def __init__(self) -> None:
        self.go, self.calls = threading.Event(), []

    def save_checkpoint(self, checkpoint: Any, path: str, storage_options: Any = None) -> None:
        self.go.wait(20)
        self.calls.append(("save", os.path.basename(path), threading.current_thread().name))
        super().save_checkpoint(checkpoint, path)

    def remove_checkpoint(self, path: str) -> None:
        self.calls.append(("remove", os.path.basename(path), threading.current_thread().name))
        super().remove_checkpoint(path)


def test_the_old_file_goes_once_the_new_one_is_there(tmp_path: Path) -> None:
    slow = Slow()
    io = L.AsyncCheckpointIO(slow)
    weight = rg.zeros(3)
    io.save_checkpoint({"w": weight}, str(tmp_path / "one"))
    weight += 1
    assert not slow.calls  # training goes on meanwhile
    io.remove_checkpoint(str(tmp_path / "zero"))
    slow.go.set()
    io.save_checkpoint({"w": weight}, str(tmp_path / "two"))
    io.remove_checkpoint(str(tmp_path / "one"))
    io.teardown()
    assert [call[:2] for call in slow.calls] == [
        ("save", "one"),
        ("remove", "zero"),
        ("save", "two"),
        ("remove", "one"),
    ]
    assert all(name.startswith("checkpoint") for *_, name in slow.calls)
    assert rg.load(tmp_path / "two")["w"].sum() == 3 and os.listdir(tmp_path) == ["two"]


class Full(L.CheckpointIO):
    def save_checkpoint(self, checkpoint: Any, path: str, storage_options: Any = None) -> None:
        if "step=4" in path:
            raise OSError(28, "[save] no room")
        super().save_checkpoint(checkpoint, path)


def test_a_failed_save_ends_the_run_and_leaves_the_one_before(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no room"):
        fit(tmp_path, L.AsyncCheckpointIO(Full()), save_top_k=1)
    assert os.listdir(tmp_path) == ["step=2.ckpt"] and rg.load(tmp_path / "step=2.ckpt")["global_step"] == 2


def test_what_can_not_be_copied_is_written_at_once(tmp_path: Path) -> None:
    io = L.AsyncCheckpointIO()
    io.save_checkpoint({"model": rg.nn.Linear(2, 1)}, str(tmp_path / "a.ckpt"))
    assert (tmp_path / "a.ckpt").exists()
    io.teardown()


def test_a_removal_looks_at_its_own_save(tmp_path: Path) -> None:
    """Whoever waits for the save meanwhile: the removal must still know that it failed."""
    removing = threading.Event()

    class Waits(Full):
        def save_checkpoint(self, checkpoint: Any, path: str, storage_options: Any = None) -> None:
            if "4" in os.path.basename(path):
                removing.wait(20)
            super().save_checkpoint(checkpoint, path)

    io = L.AsyncCheckpointIO(Waits())
    old, new = str(tmp_path / "step=2"), str(tmp_path / "step=4")
    io.save_checkpoint({"w": rg.ones(1)}, old)
    io.save_checkpoint({"w": rg.ones(1)}, new)
    io.remove_checkpoint(old)
    io._pending.clear()  # as a wait does while the thread is still at the save
    removing.set()
    io.teardown()
    assert os.listdir(tmp_path) == ["step=2"]
