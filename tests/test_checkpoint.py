"""Checkpoints that several ranks write: one structure of all, whole or not at all, read on any number of ranks."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.distributed import checkpoint
from ringgrad.distributed.checkpoint import Checkpointer, loading, saving
from ringgrad.distributed.checkpoint.layout import described, merged, shared_out
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.local import LocalTransport, run_threads
from ringgrad.tensor.serialization import CheckpointError

sys.path.insert(0, str(Path(__file__).parent))
import kill_saves

sys.path.pop(0)


def on(world: int, body: Any) -> list[Any]:
    """body(group) on `world` threads, each a rank; what it returned, or the error it raised."""

    def rank(transport: LocalTransport) -> Any:
        group = Group(transport, timeout=60)
        try:
            return body(group)
        except Exception as error:
            return error

    return run_threads(world, rank)


def state_of(rank: int, value: float = 1.0) -> dict[str, Any]:
    weights = {f"layer{i}": rg.full((50, i + 1), value + i) for i in range(5)}
    return {
        "model": OrderedDict(weights),
        "half": rg.full((3,), value, dtype=rg.bfloat16),
        "optimizer": {"state": {rank: {"momentum": rg.full((4, 4), 10.0 * rank + value)}}, "lr": 0.1},
        f"rank{rank}": {"seed": rank, "noise": np.arange(rank + 1)},
        "step": 7,
        "nothing": [None, float("nan"), (1, "two")],
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, rg.Tensor | np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return a == b or (a != a and b != b)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_ranks_write_their_shares_and_any_number_reads_the_whole(tmp_path: Path, world: int) -> None:
    errors = on(world, lambda g: checkpoint.save(state_of(g.rank), tmp_path / "c", g))
    assert errors == [None] * world
    found = checkpoint.load(checkpoint_id=tmp_path / "c")
    whole = state_of(0)
    for rank in range(world):
        whole[f"rank{rank}"] = state_of(rank)[f"rank{rank}"]
        whole["optimizer"]["state"][rank] = state_of(rank)["optimizer"]["state"][rank]
    assert same(found, whole) and type(found["model"]) is OrderedDict
    names = [f"shard-{loading.read_index(str(tmp_path / 'c'))['save']}-{r:05d}.rg" for r in range(world)]
    assert sorted(os.listdir(tmp_path / "c")) == ["index.rg", *names]
    sizes = [sum(t.nbytes for t in rg.load(tmp_path / "c" / name)["tensors"].values()) for name in names]
    assert max(sizes) - min(sizes) <= max(t.nbytes for t in whole["model"].values())
    assert sum(sizes) == sum(leaf.array.nbytes for leaf in described(whole)[1].values())  # each once


def test_tied_weights_come_back_tied(tmp_path: Path) -> None:
    weight = rg.ones(4, 3)
    checkpoint.save({"a": weight, "b": weight.detach(), "c": weight[0]}, tmp_path / "c")
    found = checkpoint.load(checkpoint_id=tmp_path / "c")
    found["a"][0, 0] = 9.0
    assert found["b"][0, 0] == 9 and found["c"].tolist() == [9, 1, 1]


def test_a_state_is_filled_in_place(tmp_path: Path) -> None:
    first, second = rg.nn.Linear(3, 2), rg.nn.Linear(3, 2)
    checkpoint.save({"model": first.state_dict(), "step": 5}, tmp_path / "c")
    wanted: dict[str, Any] = {"model": second.state_dict(), "step": 0}
    checkpoint.load(wanted, checkpoint_id=tmp_path / "c")
    assert (second.weight == first.weight).all() and wanted["step"] == 5
    with pytest.raises(KeyError, match=r"must hold \['model'\]\['weight'\] of shape \[2, 4\], \['epoch'\]"):
        checkpoint.load({"model": rg.nn.Linear(4, 2).state_dict(), "epoch": 0}, checkpoint_id=tmp_path / "c")


def test_a_zero_optimizer_is_saved_in_parts_and_loaded_elsewhere(tmp_path: Path) -> None:
    """Each rank writes its own share of the state; any other world size goes on as if it had been there."""
    from ringgrad.distributed import ZeroRedundancyOptimizer

    def model_of() -> Any:
        rg.manual_seed(3)
        return rg.nn.Sequential(rg.nn.Linear(6, 8), rg.nn.Linear(8, 5), rg.nn.Linear(5, 2))

    def steps(optimizer: Any, model: Any, begin: int, end: int) -> None:
        for i in range(begin, end):
            optimizer.zero_grad()
            model(rg.full((4, 6), 0.1 * i)).square().sum().backward()
            optimizer.step()

    def zero(model: Any, group: Group) -> Any:
        return ZeroRedundancyOptimizer(model.parameters(), rg.optim.Adam, process_group=group, lr=0.01)

    def first(group: Group) -> None:
        model = models[group.rank]
        optimizer = zero(model, group)
        steps(optimizer, model, 0, 3)
        state = {"model": model.state_dict(), "optimizer": optimizer.local_state_dict()}
        checkpoint.save(state, tmp_path / "c", group)

    def second(group: Group) -> Any:
        model = models[group.rank]
        optimizer = zero(model, group)
        state = checkpoint.load(checkpoint_id=tmp_path / "c")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        steps(optimizer, model, 3, 5)
        return model[0].weight.detach().numpy()

    models = [model_of() for _ in range(3)]
    assert on(3, first) == [None] * 3
    models = [model_of() for _ in range(2)]
    two = on(2, second)
    alone = model_of()
    plain = rg.optim.Adam(alone.parameters(), lr=0.01)
    steps(plain, alone, 0, 5)
    for weight in two:
        assert np.allclose(weight, alone[0].weight.detach().numpy(), atol=1e-6), weight


def test_states_that_contradict_each_other(tmp_path: Path) -> None:
    def body(group: Group) -> None:
        checkpoint.save({"model": {"w": rg.ones(2 + group.rank)}, "step": 1}, tmp_path / "c", group)

    for error in on(3, body):
        assert type(error) is ValueError and "state['model']['w'] must be the same on all ranks" in str(error)
        assert "came float32[2] and on rank 1 float32[3]" in str(error)
    assert not list((tmp_path / "c").iterdir())
    different = on(2, lambda g: checkpoint.save({"step": g.rank}, tmp_path / "c", g))
    assert all("state['step'] must be" in str(e) and "came 0 and on rank 1 1" in str(e) for e in different)


def test_a_rank_that_can_not_write_is_named_and_the_old_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on(3, lambda g: checkpoint.save(state_of(g.rank), tmp_path / "c", g)) == [None] * 3
    before = sorted(os.listdir(tmp_path / "c"))
    write = saving.write_tree

    def fails(path: str, tree: Any, leaves: Any) -> None:
        if path.endswith("-00001.rg"):
            raise OSError(28, "[save] no room for it")
        write(path, tree, leaves)

    monkeypatch.setattr(saving, "write_tree", fails)
    for error in on(3, lambda g: checkpoint.save(state_of(g.rank, 2.0), tmp_path / "c", g)):
        assert type(error) is CheckpointError and "failed on rank 1: OSError: [Errno 28]" in str(error)
    assert sorted(os.listdir(tmp_path / "c")) == before
    assert checkpoint.load(checkpoint_id=tmp_path / "c")["model"]["layer0"][0, 0] == 1


def test_an_asynchronous_save_keeps_the_values_of_its_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, write = threading.Event(), saving.write_tree
    monkeypatch.setattr(saving, "write_tree", lambda *a: (go.wait(20), write(*a)))
    weight = rg.zeros(100)
    first = checkpoint.async_save({"w": weight}, tmp_path / "c")
    weight += 1
    assert not first.done() and not (tmp_path / "c" / "index.rg").exists()
    go.set()
    checkpoint.async_save({"w": weight}, tmp_path / "d").wait()
    first.wait()
    assert first.done()
    assert checkpoint.load(checkpoint_id=tmp_path / "c")["w"].sum() == 0
    assert checkpoint.load(checkpoint_id=tmp_path / "d")["w"].sum() == 100


def test_steady_tensors_are_copied_until_copied_returns_and_a_torn_copy_is_refused(tmp_path: Path) -> None:
    weight = rg.nn.Parameter(rg.zeros(300, 300))
    small = rg.zeros(3)
    optimizer = rg.optim.Adam([weight], lr=1.0)

    def step() -> None:
        weight.grad = rg.ones_like(weight)
        optimizer.step()

    step()
    with Checkpointer(tmp_path, asynchronous=True) as checkpointer:
        for number in (1, 2):
            before = weight.detach().clone()
            checkpointer.save(number, {"w": weight, "small": small, "o": optimizer.state_dict()}, [optimizer])
            small += 1  # not among the steady ones: was copied at once
            checkpointer.copied()
            step()
            found = checkpointer.load(number)
            assert found is not None
            assert (found[1]["w"] == before).all() and (found[1]["small"] == number - 1).all()
            assert found[1]["o"]["state"][0]["step"] == number
        checkpointer.save(3, {"w": weight}, [optimizer])
        step()
        with pytest.raises(CheckpointError, match=r"state\['w'\] must not be written while it is copied"):
            checkpointer.wait()
        assert checkpointer.steps() == [1, 2]


def test_the_error_of_an_asynchronous_save_comes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "[save] no room")

    checkpointer = Checkpointer(tmp_path, asynchronous=True)
    checkpointer.save(1, {"w": rg.ones(2)})
    checkpointer.wait()
    with monkeypatch.context() as patched:
        patched.setattr(saving, "write_tree", full)
        checkpointer.save(2, {"w": rg.ones(2)})
        with pytest.raises(OSError, match="no room"):
            checkpointer.save(3, {"w": rg.ones(2)})
    checkpointer.save(3, {"w": rg.ones(2)})
    checkpointer.close()
    assert checkpointer.steps() == [1, 3]


def test_the_last_few_steps_are_kept(tmp_path: Path) -> None:
    def body(group: Group) -> Any:
        with Checkpointer(tmp_path, keep=2, group=group) as checkpointer:
            for step in (5, 10, 200, 15):  # started again from 10, say
                checkpointer.save(step, state_of(group.rank, step))
            found = checkpointer.load()
            return checkpointer.steps(), found and (found[0], float(found[1]["model"]["layer0"][0, 0]))

    assert on(2, body) == [([15, 200], (200, 200.0))] * 2
    assert sorted(os.listdir(tmp_path)) == ["lock", "step-000000015", "step-000000200"]


def test_a_damaged_step_is_passed_over_with_its_name(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, keep=None) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, {"w": rg.full((40,), step)})
    shard = next((tmp_path / "step-000000003").glob("shard-*"))
    raw = bytearray(shard.read_bytes())
    raw[-3] ^= 4
    shard.write_bytes(raw)
    shutil.rmtree(tmp_path / "step-000000002")
    (tmp_path / "step-000000002").mkdir()  # a save that was cut off
    with pytest.warns(UserWarning, match=r"passing over step 3 .*is damaged: tensor 'w'"):
        found = Checkpointer(tmp_path).load()
    assert found is not None and found[0] == 1 and found[1]["w"][0] == 1
    with pytest.raises(CheckpointError, match="is damaged"):
        Checkpointer(tmp_path).load(3)
    with pytest.raises(FileNotFoundError, match=r"has steps \[1, 3\], and not 2"):
        Checkpointer(tmp_path).load(2)
    assert Checkpointer(tmp_path / "empty").load() is None


def test_flipped_bits_and_cuts_anywhere_are_refused(tmp_path: Path) -> None:
    on(2, lambda g: checkpoint.save(state_of(g.rank), tmp_path / "c", g))
    files = sorted((tmp_path / "c").iterdir())
    random.seed(5)
    for _ in range(1500):
        path = random.choice(files)
        raw = path.read_bytes()
        if random.random() < 0.1:
            damaged = raw[: random.randrange(len(raw))]
        else:
            at = random.randrange(len(raw))
            damaged = raw[:at] + bytes([raw[at] ^ 1 << random.randrange(8)]) + raw[at + 1 :]
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=re_escape(path.name)):
            checkpoint.load(checkpoint_id=tmp_path / "c")
        path.write_bytes(raw)
    assert checkpoint.load(checkpoint_id=tmp_path / "c")["step"] == 7


def re_escape(name: str) -> str:
    return name.replace(".", r"\.")


def test_shards_of_two_saves_do_not_mix(tmp_path: Path) -> None:
    for name in ("a", "b"):
        on(2, lambda g, name=name: checkpoint.save(state_of(g.rank), tmp_path / name, g))
    old, new = (next((tmp_path / n).glob("shard-*-00000.rg")) for n in ("a", "b"))
    shutil.copy(new, old)
    with pytest.raises(CheckpointError, match="it is of another"):
        checkpoint.load(checkpoint_id=tmp_path / "a")
    old.unlink()
    with pytest.raises(CheckpointError, match="which is not there"):
        checkpoint.load(checkpoint_id=tmp_path / "a")


def test_a_second_job_is_refused_with_the_firsts_name(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"a": 1})
        code = (
            "from ringgrad.distributed.checkpoint import Checkpointer\n"
            f"Checkpointer({str(tmp_path)!r}).save(2, {{'a': 2}})"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"by one job at a time, and process {os.getpid()} on" in done.stderr
        assert Checkpointer(tmp_path).load() == (1, {"a": 1})  # reading needs no lock
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_merging_is_a_pure_function() -> None:
    trees = [described({"a": rg.ones(2), "own": {r: r}})[0] for r in range(3)]
    assert merged(trees)["dict"][1][1] == {"dict": [[0, 0], [1, 1], [2, 2]]}
    assert shared_out([{"a": 9, "b": 5}, {"a": 9, "b": 5, "c": 1}]) == {"a": 0, "b": 1, "c": 1}


@pytest.mark.slow
def test_a_kill_before_any_system_call_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    if reason := kill_saves.missing():
        pytest.skip(reason)
    script = [sys.executable, kill_saves.__file__, str(tmp_path / "saves")]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert counts.keys() == {".rg", ".pt", ".safetensors", "folder", "steps"}
    assert all(int(count) >= 8 for count in counts.values()), counts
