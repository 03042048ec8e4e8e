"""ZeRO's stages and checkpoints that all workers write, under the Trainer, on any number of workers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from script_job import finish, result_of, ringrun, start

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import checkpoints as command
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning.checkpoint_io import content, saved_at
from ringgrad.tensor.serialization import CheckpointError

SCRIPT = """
import json, sys
import ringgrad as rg, ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset

folder, how = sys.argv[1], json.loads(sys.argv[2])
L.seed_everything(0, verbose=False)
x = rg.randn(64, 4)
y = (x.sum(1) > 0).long()

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 2))
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
    def configure_optimizers(self):
        decayed = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim < 2]
        optimizer = optim.AdamW([{"params": others, "weight_decay": 0.0}, {"params": decayed}], lr=0.01, eps=1e-3)
        scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

class State(L.Callback):
    def on_train_end(self, trainer, module):
        rows = [[v for v in s.values() if v.ndim] for s in trainer.optimizers[0].state.values()]
        self.elements = sum(v.numel() for row in rows for v in row)

state, speed = State(), L.callbacks.ThroughputMonitor()
every = L.callbacks.ModelCheckpoint(folder + "/kept", every_n_train_steps=3, monitor="step", mode="max", save_top_k=2)
plugins = [L.ShardedCheckpointIO(asynchronous=how["io"] == "async")] if how.get("io") else []
trainer = L.Trainer(strategy=how["strategy"], max_epochs=2, max_steps=how.get("steps", -1),
                    callbacks=[state, every, speed], plugins=plugins, logger=False,
                    enable_progress_bar=False, enable_model_summary=False,
                    gradient_clip_val=0.5, accumulate_grad_batches=2, default_root_dir=folder)
model = Net()
trainer.fit(model, DataLoader(TensorDataset(x, y), 4 // trainer.world_size),
            ckpt_path=how.get("from"))
bits = b"".join(p.detach().numpy().tobytes() for p in model.parameters()).hex()
trainer.print("result:", json.dumps({"bits": bits, "steps": trainer.global_step, "elements": state.elements,
                                     "lr": trainer.optimizers[0].param_groups[1]["lr"], "path": trainer.ckpt_path,
                                     "communication": speed.values["share/communication"]}))
"""


def run(workers: int, folder: Path, **how: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(SCRIPT)
    return result_of([*ringrun(workers), folder / "script.py", folder, json.dumps(how)])


def weights(result: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(result["bits"]), np.float32)


@pytest.mark.slow
def test_zero_goes_on_from_sharded_saves_on_any_number_of_workers(tmp_path: Path) -> None:
    """Stage 2 is as stage 1; cut off in mid-epoch it goes on with as many workers, and with fewer."""
    first = run(2, tmp_path / "zero", strategy="zero", io="sync")
    whole = run(2, tmp_path / "zero2", strategy="zero2", io="async")
    moments = 2 * (4 * 16 + 16 + 16 + 16 + 16 * 2 + 2)
    assert whole["elements"] == moments // 2 > 0 and first["elements"] < moments
    assert whole["lr"] == first["lr"] and min(whole["communication"], first["communication"]) > 0
    np.testing.assert_allclose(weights(whole), weights(first), rtol=1e-4, atol=1e-5)
    saved, kept = {}, ["epoch=1-step=12.ckpt", "epoch=1-step=15.ckpt"]
    for name in ("zero", "zero2"):
        folder = tmp_path / name / "kept"
        assert sorted(p.name for p in folder.iterdir()) == [*kept, "lock"]
        shards = [p.stat().st_size for p in (folder / kept[0]).glob("shard-*")]
        assert len(shards) == 2 and min(shards) > 0.2 * max(shards)
        saved[name] = content(str(folder / kept[0]))["optimizer_states"][0]
    assert saved["zero2"]["param_groups"] == saved["zero"]["param_groups"]
    for number, state in saved["zero"]["state"].items():
        for name, value in state.items():
            other = saved["zero2"]["state"][number][name]
            np.testing.assert_allclose(other.array, value.array, rtol=1e-4, atol=1e-6)
    at = str(tmp_path / "zero2" / "kept" / kept[0])
    again = run(2, tmp_path / "again", strategy="zero2", io="sync", **{"from": at})
    assert again["bits"] == whole["bits"] and again["steps"] == whole["steps"] == 16
    alone = run(1, tmp_path / "alone", strategy="zero2", **{"from": at})
    assert alone["lr"] == pytest.approx(whole["lr"]) and alone["communication"] == 0
    np.testing.assert_allclose(weights(alone), weights(whole), rtol=1e-4, atol=1e-5)
    one = tmp_path / "one.ckpt"
    assert command.main(["convert", at, str(one)]) == 0
    from_file = run(1, tmp_path / "from file", strategy="auto", **{"from": str(one)})
    assert from_file["bits"] == alone["bits"] and from_file["lr"] == alone["lr"]
    torch = pytest.importorskip("torch")
    theirs = torch.load(one, weights_only=False)["optimizer_states"][0]["state"]
    assert theirs.keys() == saved["zero2"]["state"].keys()
    for number, state in saved["zero2"]["state"].items():
        for name, value in state.items():
            np.testing.assert_array_equal(theirs[number][name].numpy(), value.array)


TWICE = """
import sys
import ringgrad as rg, ringgrad.lightning as L
from ringgrad.data import DataLoader, TensorDataset

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = rg.nn.Linear(4, 1)
    def training_step(self, batch, batch_idx):
        return (self.layer(batch[0]) - 1).pow(2).mean()
    def configure_optimizers(self):
        return rg.optim.SGD(self.parameters(), lr=0.1)

for strategy in ("zero2", "ddp", "reproducible"):
    L.seed_everything(0, verbose=False)
    model, x = Net(), rg.randn(16, 4)
    for _ in range(2):
        trainer = L.Trainer(strategy=strategy, max_epochs=1, barebones=True)
        trainer.fit(model, DataLoader(TensorDataset(x), 8 if strategy == "reproducible" else 4))
    assert all(not p._whole_hooks and p._grad_home is None for p in model.parameters())
    trainer.print("result:", model.layer.weight.reshape(-1).tolist())
"""


def test_a_second_fit_trains_as_the_first(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TWICE)
    rows, _ = finish(start([*ringrun(2), tmp_path / "script.py"]))
    assert len(rows) == 3
    for row in rows:
        np.testing.assert_allclose(row, rows[0], atol=2e-6)


class Net(L.LightningModule):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(width, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch[0]).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return optim.Adam(self.parameters(), lr=0.1)


DATA = DataLoader(TensorDataset(rg.ones(8, 4)), 2)


def trainer(folder: Path, plugin: Any = None, **how: Any) -> L.Trainer:
    every = L.callbacks.ModelCheckpoint(str(folder / "kept"), every_n_train_steps=2, save_top_k=-1)
    return L.Trainer(
        default_root_dir=folder,
        callbacks=[every],
        plugins=[plugin or L.ShardedCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, **how},
    )


def test_the_newest_that_is_whole_is_gone_on_from(tmp_path: Path) -> None:
    model = Net()
    trainer(tmp_path).fit(model, DATA)
    old, new = (tmp_path / "kept" / f"epoch=0-step={step}.ckpt" for step in (2, 4))
    again = Net.load_from_checkpoint(new)
    assert np.array_equal(again.layer.weight.array, model.layer.weight.array)
    shard = next(new.glob("shard-*"))
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    (tmp_path / "kept" / "epoch=0-step=6.ckpt").mkdir()  # a save that was killed
    t = trainer(tmp_path)
    with pytest.warns(UserWarning, match=f"passing over {new} for the one before: .*checksum"):
        t.fit(Net(), DATA, ckpt_path="last")
    assert t.ckpt_path == str(old) and t.global_step == 4
    with pytest.raises(CheckpointError, match="checksum"):
        trainer(tmp_path).fit(Net(), DATA, ckpt_path=new)


def test_two_jobs_may_not_save_into_one_folder(tmp_path: Path) -> None:
    class Other(L.Callback):
        def on_train_end(self, trainer_: Any, pl_module: Any) -> None:
            trainer(tmp_path).fit(Net(), DATA)

    t = trainer(tmp_path)
    t.callbacks.append(Other())
    with pytest.raises(
        RuntimeError, match=f"must be written by one job at a time, and process {os.getpid()}"
    ):
        t.fit(Net(), DATA)
    trainer(tmp_path).fit(Net(), DATA)  # the lock went with the run


def test_a_failed_save_is_raised_and_the_old_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ringgrad.distributed.checkpoint import saving

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    trainer(tmp_path).fit(Net(), DATA)
    t = trainer(tmp_path, max_epochs=2)
    monkeypatch.setattr(saving, "write_tree", full)
    with pytest.raises(OSError, match="No space left"):
        t.fit(Net(), DATA, ckpt_path="last")
    kept = tmp_path / "kept"
    assert content(str(kept / "epoch=0-step=4.ckpt"))["global_step"] == 4
    assert saved_at(str(kept / "epoch=1-step=6.ckpt")) is None


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"optimizer": optim.Adafactor}, 'Adafactor: take strategy="zero"'),
        ({"precision": "16-mixed"}, 'take "bf16-mixed"'),
        ({"manual": True}, "automatic optimization with one optimizer"),
    ],
)
def test_what_zero2_cannot_train_is_told(how: dict[str, Any], said: str) -> None:
    from ringgrad.lightning.strategies.zero import check_zero2

    module = Net()
    module.trainer = L.Trainer(
        precision=how.get("precision", "32"), barebones=True, max_epochs=1, strategy="zero2"
    )
    module.automatic_optimization = not how.get("manual")
    with pytest.raises(ValueError, match=said):
        check_zero2(module, [how.get("optimizer", optim.SGD)(module.parameters(), lr=0.1)])
