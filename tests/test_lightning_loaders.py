"""CombinedLoader, fine-tuning callbacks, and losses that are not finite, on one worker and on two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from script_job import finish, ringrun, start

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset
from ringgrad.lightning.utilities import CombinedLoader

NET = """
import json, sys
import ringgrad as rg, ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.head = nn.Linear(8, 1)
    def training_step(self, batch, batch_idx):
        return (self.head(self.backbone(batch[0])) - 1).pow(2).mean()
    def configure_optimizers(self):
        return optim.SGD(filter(lambda p: p.requires_grad, self.parameters()), lr=0.1, momentum=0.9)

def train(folder, workers, bad, every=2, **how):
    L.seed_everything(0, verbose=False)
    x = rg.randn(40, 4)
    for sample in bad:
        x[sample] = float("nan")
    callbacks = [L.callbacks.BackboneFinetuning(1, backbone_initial_lr=0.05)]
    trainer = L.Trainer(max_epochs=3, accumulate_grad_batches=every, callbacks=callbacks, logger=False,
                        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                        default_root_dir=folder, **how)
    model = Net()
    trainer.fit(model, DataLoader(TensorDataset(x), 4 // workers))
    weights = [w for p in model.parameters() for w in p.detach().reshape(-1).tolist()]
    groups = trainer.optimizers[0].param_groups
    return {"weights": weights, "skipped": trainer.fit_loop.skipped_batches, "lrs": [g["lr"] for g in groups]}
"""
SCRIPT = (
    NET
    + """
folder, on_nan = sys.argv[1:]
result = train(folder, 2, [13, 17], on_nan=on_nan)  # batches 3 and 4, both on rank 1
print("result:", json.dumps(result))
"""
)


def on_two(folder: Path, on_nan: str, code: int = 0) -> tuple[list[Any], str]:
    (folder / "script.py").write_text(SCRIPT)
    return finish(start([*ringrun(2), folder / "script.py", folder, on_nan]), code)


def test_two_workers_skip_alike_and_train_what_was_unfrozen(tmp_path: Path) -> None:
    """Both ranks end with the weights of one worker, which left out the same batches: also ends and begins of steps."""
    (first, second), told = on_two(tmp_path, "skip")
    assert first == second and first["skipped"] == 6 and first["lrs"] == [0.1, 0.1]
    assert "left out batch 3 of epoch 0 (step 1): the loss is not finite on rank 1" in told
    scope: dict[str, Any] = {}
    exec(NET, scope)
    with pytest.warns(UserWarning, match="left out batch [34] of epoch . .* on rank 0"):
        alone = scope["train"](tmp_path, 1, [13, 17], on_nan="skip")
    assert alone["skipped"] == 6
    np.testing.assert_allclose(first["weights"], alone["weights"], rtol=1e-4, atol=1e-6)


def test_the_rank_with_the_loss_that_is_not_finite_is_named(tmp_path: Path) -> None:
    _, told = on_two(tmp_path, "raise", code=1)
    assert "rank 1 failed first: FloatingPointError" in told
    assert "came nan on rank 1 in step 1 (epoch 0, batch 3)" in told


def test_skipping_leaves_weights_and_state_as_they_are(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(NET, scope)
    with pytest.warns(UserWarning, match="left out batch"):
        skipped = scope["train"](tmp_path, 1, range(40), every=1, on_nan="skip")
    L.seed_everything(0, verbose=False)
    rg.randn(40, 4)
    assert skipped["weights"] == [
        w for p in scope["Net"]().parameters() for w in p.detach().reshape(-1).tolist()
    ]
    with pytest.raises(ValueError, match='"raise", "skip" or "ignore"'):
        L.Trainer(on_nan="stop")
    with pytest.raises(ValueError, match="takes no on_nan"):
        L.Trainer(on_nan="skip", reproducible=4)


# ---- several loaders


def loader(*values: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(rg.tensor(values)), 1)


def plain(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {k: plain(v) for k, v in batch.items()}
    return None if batch is None else batch[0].item()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("min_size", [{"a": 1, "b": 8}, {"a": 2, "b": 9}]),
        ("max_size", [{"a": 1, "b": 8}, {"a": 2, "b": 9}, {"a": 3, "b": None}]),
        ("max_size_cycle", [{"a": 1, "b": 8}, {"a": 2, "b": 9}, {"a": 3, "b": 8}]),
        ("sequential", [1, 2, 3, 8, 9]),
    ],
)
def test_modes_of_combined_loaders(mode: str, expected: list[Any]) -> None:
    combined = CombinedLoader({"a": loader(1, 2, 3), "b": loader(8, 9)}, mode)
    for _ in range(2):  # it may be iterated again
        assert [plain(batch) for batch, _, _ in combined] == expected
    assert len(combined) == len(expected)
    which = [(i, where) for _, i, where in combined]
    wanted = (
        [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
        if mode == "sequential"
        else [(i, 0) for i in range(len(expected))]
    )
    assert which == wanted


def test_loaders_without_length_and_wrong_ones() -> None:
    def endless(n: int) -> Any:
        class Stream(rg.data.IterableDataset[Any]):
            def __iter__(self) -> Any:
                return iter(range(n))

        return DataLoader(Stream(), batch_size=None)

    cycled = CombinedLoader([endless(2), endless(5)], "max_size_cycle")
    assert [batch for batch, _, _ in cycled] == [[0, 0], [1, 1], [0, 2], [1, 3], [0, 4]]
    with pytest.raises(ValueError, match="loader 0 has no batches"):
        list(CombinedLoader([endless(0), endless(1)], "max_size_cycle"))
    with pytest.raises(ValueError, match="mode must be one of min_size"):
        CombinedLoader([], "longest")
    with pytest.raises(TypeError, match="iterables of batches, came int"):
        CombinedLoader({"a": 3})


@pytest.mark.parametrize("given", ["dict", "list", "combined", "batches"])
def test_training_takes_several_loaders(tmp_path: Path, given: str) -> None:
    seen: list[Any] = []

    class Net(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(rg.zeros(1))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append(plain(batch) if isinstance(batch, dict) else [int(b[0]) for b in batch])
            return self.w.sum()

        def train_dataloader(self) -> Any:
            a, b = loader(1, 2, 3), loader(8, 9)
            return {
                "dict": {"a": a, "b": b},
                "list": [a, b],
                "combined": CombinedLoader([a, b], "min_size"),
                "batches": [rg.tensor([[1], [8]]), rg.tensor([[2], [9]])],
            }[given]

        def configure_optimizers(self) -> Any:
            return optim.SGD(self.parameters(), lr=0.1)

    L.Trainer(max_epochs=1, barebones=True, default_root_dir=tmp_path).fit(Net())
    if given == "dict":
        assert seen == [{"a": 1, "b": 8}, {"a": 2, "b": 9}, {"a": 3, "b": 8}]
    else:
        assert seen == [[1, 8], [2, 9], [3, 8]][: 3 if given == "list" else 2]


# ---- fine-tuning


class Tuned(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))
        self.head = nn.Linear(8, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return (self.head(self.backbone(batch[0])) - 1).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.1)


class Rates(L.Callback):
    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append([round(g["lr"], 6) for g in trainer.optimizers[0].param_groups])


def tune(folder: Path, epochs: int, **how: Any) -> tuple[Tuned, list[list[float]]]:
    L.seed_everything(3, verbose=False)
    rates = Rates()
    backbone = L.callbacks.BackboneFinetuning(1, lambda epoch: 2, 0.3, train_bn=False)
    keeps = L.callbacks.ModelCheckpoint(folder / "kept", save_top_k=-1)
    t = L.Trainer(
        max_epochs=epochs,
        callbacks=[backbone, rates, keeps],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    model = Tuned()
    t.fit(model, DataLoader(TensorDataset(rg.randn(16, 4)), 8), **how)
    return model, rates.seen


def test_a_backbone_is_frozen_then_joins_at_a_growing_rate(tmp_path: Path) -> None:
    L.seed_everything(3, verbose=False)
    start = [p.array.copy() for p in Tuned().backbone.parameters()]
    frozen, _ = tune(tmp_path / "1", 1)
    assert all(np.array_equal(a, p.array) for a, p in zip(start, frozen.backbone.parameters()))
    model, rates = tune(tmp_path / "4", 4)
    assert rates == [[0.1], [0.1, 0.03], [0.1, 0.06], [0.1, 0.1]]
    moved = [not np.array_equal(a, p.array) for a, p in zip(start, model.backbone.parameters())]
    assert moved == [True, True, False, False, True, True]  # not the batch norm's
    for step in (2, 4):  # gone on from before and after the backbone has joined
        (path,) = (tmp_path / "4" / "kept").glob(f"*step={step}.ckpt")
        again, _ = tune(tmp_path / f"from{step}", 4, ckpt_path=path)
        for a, b in zip(model.parameters(), again.parameters()):
            assert np.array_equal(a.array, b.array), step


def test_a_backbone_must_be_there(tmp_path: Path) -> None:
    class Bare(L.LightningModule):
        training_step = Tuned.training_step
        configure_optimizers = Tuned.configure_optimizers

    t = L.Trainer(max_epochs=1, callbacks=[L.callbacks.BackboneFinetuning()], logger=False)
    with pytest.raises(TypeError, match="must have a Module `backbone`, Bare has none"):
        t.fit(Bare(), [1])
