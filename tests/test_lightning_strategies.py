"""Strategies of the Trainer: reproducible and zero are what their parts by hand are, for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from script_job import result_of, ringrun

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import distributed as dist
from ringgrad import nn, optim
from ringgrad.data import DataLoader, Dataset, TensorDataset
from ringgrad.distributed.reproducible import ShardSampler
from ringgrad.nn.parallel import DistributedDataParallel

SCRIPT = """
import hashlib, json, sys
import ringgrad as rg, ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, Dataset, TensorDataset

strategy, folder = sys.argv[1:3]
L.seed_everything(0, verbose=False)
x = rg.randn(64, 4)
y = (x.sum(1) > 0).long()

class Noisy(Dataset):  # a sample is augmented when it is read
    def __len__(self):
        return 64
    def __getitem__(self, i):
        return x[i] + 0.1 * rg.randn(4), y[i]

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 2))
    def step(self, batch):
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch))
    def configure_optimizers(self):
        optimizer = optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

class Steps(L.Callback):
    seen = []
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append(outputs["loss"].item().hex())

trainer = L.Trainer(strategy=strategy, max_epochs=3, callbacks=[Steps()], enable_progress_bar=False,
                    log_every_n_steps=1, enable_model_summary=False, gradient_clip_val=0.5, default_root_dir=folder)
model = Net()
batch = 16 if strategy == "reproducible" else 16 // trainer.world_size
trainer.fit(model, DataLoader(Noisy() if strategy == "reproducible" else TensorDataset(x, y), batch, shuffle=True),
            DataLoader(TensorDataset(x, y), 5))
state = {**model.state_dict()}
def sha(values):
    return hashlib.sha256(b"".join(v.array.tobytes() for v in values)).hexdigest()
states = [[v for v in s.values() if isinstance(v, rg.Tensor)] for s in trainer.optimizers[0].state.values()]
out = {"world": trainer.world_size, "weights": sha(state.values()), "losses": Steps.seen,
       "lr": trainer.optimizers[0].param_groups[0]["lr"],
       "logged": {k: float(v).hex() for k, v in trainer.callback_values.items()}, "states": len(states),
       "numbers": [round(float(w), 5) for w in model.layers[0].weight.reshape(-1).tolist()]}
trainer.print("result:", json.dumps(out))
"""


def run(workers: int, strategy: str, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    return result_of([*ringrun(workers), folder / "script.py", strategy, folder])


@pytest.mark.slow
def test_reproducible_has_the_same_bits_on_1_2_and_4_workers(tmp_path: Path) -> None:
    """Weights, batch norm's statistics, every step's loss, and everything that was logged."""
    runs = [run(n, "reproducible", tmp_path / str(n)) for n in (1, 2, 4)]
    assert [r.pop("world") for r in runs] == [1, 2, 4]
    assert runs[0] == runs[1] == runs[2]
    tables = [next((tmp_path / str(n)).rglob("metrics.csv")).read_text() for n in (1, 2, 4)]
    assert tables[0] == tables[1] == tables[2] and tables[0].count("\n") > 12


@pytest.mark.slow
def test_zero_shares_the_state_out_and_changes_nothing_else(tmp_path: Path) -> None:
    plain, zero = (run(2, name, tmp_path / name) for name in ("ddp", "zero"))
    assert zero["numbers"] == plain["numbers"] and zero["lr"] == plain["lr"] == pytest.approx(0.01 / 8)
    assert zero["states"] < plain["states"] == 6
    one, both = (rg.load(next((tmp_path / name).rglob("*.ckpt"))) for name in ("ddp", "zero"))
    one, both = one["optimizer_states"][0], both["optimizer_states"][0]
    assert one["param_groups"] == both["param_groups"] and sorted(one["state"]) == list(both["state"])
    for number, state in one["state"].items():
        for name, value in state.items():
            np.testing.assert_allclose(both["state"][number][name].array, value.array, rtol=1e-5, atol=1e-7)


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        rg.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return optim.Adam(self.parameters(), lr=0.01)


@pytest.fixture
def group() -> Iterator[None]:
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def data() -> TensorDataset:
    g = rg.Generator().manual_seed(0)
    x = rg.randn(48, 4, generator=g)
    return TensorDataset(x, (x.sum(1) > 0).long())


def trainer(tmp_path: Path, **kwargs: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(default_root_dir=tmp_path, logger=False, **{"max_epochs": 2, **quiet, **kwargs})


def test_reproducible_is_the_loop_written_by_hand(tmp_path: Path, group: None) -> None:
    L.seed_everything(5, verbose=False)
    model = Net()
    trainer(tmp_path, reproducible=4).fit(model, DataLoader(data(), 12, shuffle=True))
    ours = [p.detach().numpy().copy() for p in model.parameters()]

    L.seed_everything(5, verbose=False)
    net = Net()
    optimizer = net.configure_optimizers()
    ddp = DistributedDataParallel(net.layers, reproducible=4)
    sampler = ShardSampler(data(), 12, 4, seed=5)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for batch in DataLoader(data(), batch_sampler=sampler):
            optimizer.zero_grad()
            for x, y in ddp.shards(*batch):
                nn.functional.cross_entropy(ddp(x), y).backward()
            optimizer.step()
    for a, b in zip(ours, net.parameters()):
        assert np.array_equal(a, b.detach().numpy())


def test_the_number_of_shards_follows_from_the_batch(tmp_path: Path, group: None) -> None:
    calls: list[int] = []

    class Counts(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            calls.append(len(batch[0]))
            return super().training_step(batch, batch_idx)

    trainer(tmp_path, strategy="reproducible", limit_train_batches=1, max_epochs=1).fit(
        Counts(), DataLoader(data(), 16)
    )
    assert calls == [2] * 8  # gcd(16, 24) shards


@pytest.mark.parametrize(
    ("arguments", "batch", "said"),
    [
        ({"strategy": "reproducible", "reproducible": 5}, 12, "cuts a batch into 5 equal shards"),
        ({"strategy": "zero", "reproducible": 4}, 12, "is a strategy of its own"),
        ({"reproducible": 0}, 12, "must be a number of shards, as 24, came 0"),
        ({"strategy": "fsdp"}, 12, "strategy must be one of auto, ddp"),
    ],
)
def test_wrong_arguments_are_told(
    tmp_path: Path, group: None, arguments: dict[str, Any], batch: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        trainer(tmp_path, **arguments).fit(Net(), DataLoader(data(), batch))


def test_reproducible_needs_batches_it_can_cut(tmp_path: Path, group: None) -> None:
    class Odd(Dataset[Any]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, i: int) -> Any:
            return rg.ones(4), i

    t = trainer(tmp_path, reproducible=2)
    with pytest.raises(ValueError, match="shares out a DataLoader over a dataset"):
        t.fit(Net(), [1, 2])
    order = rg.utils.data.WeightedRandomSampler([1.0] * 8, 8)
    with pytest.raises(ValueError, match="WeightedRandomSampler"):
        t.fit(Net(), DataLoader(Odd(), 4, sampler=order))
    manual = Net()
    manual.automatic_optimization = False
    with pytest.raises(ValueError, match="needs automatic optimization"):
        t.fit(manual, DataLoader(data(), 4))


def test_strategies_may_be_objects(tmp_path: Path) -> None:
    from ringgrad.lightning.strategies import DDPStrategy

    t = trainer(tmp_path, strategy=DDPStrategy(find_unused_parameters=True, static_graph=False))
    t.fit(Net(), DataLoader(data(), 16))
    assert t.global_step == 6
    for name in ("ddp_spawn", "ddp_find_unused_parameters_true"):
        assert trainer(tmp_path, strategy=name).world_size == 1
