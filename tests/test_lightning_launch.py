"""`python train.py` with Trainer(devices=2) starts its own workers; a signal saves, requeues, and training goes on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import script_job

import ringgrad.lightning as L

SCRIPT = """
import json, signal, sys, time
import ringgrad as rg, ringgrad.lightning as L
from ringgrad import nn, optim
from ringgrad.data import DataLoader, TensorDataset

devices, folder, *flags = sys.argv[1:]
L.seed_everything(0, verbose=False)
x = rg.randn(48, 4)
y = (x.sum(1) > 0).long()

def signalled():
    handlers = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1)]
    return any(getattr(getattr(handler, "__self__", None), "received", 0) for handler in handlers)

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 2), nn.Dropout(0.2)
    def training_step(self, batch, batch_idx):
        if "raise" in flags and self.global_rank == 1 and batch_idx == 2:
            raise RuntimeError("rank 1 is unwell")
        if "wait" in flags:
            if self.global_step == 5:
                print("step 5", flush=True)
            time.sleep(0.06)  # workers ask each other after at most 4 of these whether a signal came
            while self.global_step >= 5 and not signalled():
                time.sleep(0.01)
        return nn.functional.cross_entropy(self.layer(self.drop(batch[0])), batch[1])
    def configure_optimizers(self):
        return optim.Adam(self.parameters(), lr=0.01)

trainer = L.Trainer(devices=devices if devices == "auto" else int(devices), max_epochs=4, logger=False,
                    enable_checkpointing=False, enable_model_summary=False, default_root_dir=folder,
                    strategy="reproducible" if "reproducible" in flags else "ddp")
model = Net()
trainer.fit(model, DataLoader(TensorDataset(x, y), 8, shuffle=True), ckpt_path="last" if "last" in flags else None)
bits = b"".join(p.detach().numpy().tobytes() for p in model.parameters()).hex()
out = {"world": trainer.world_size, "steps": trainer.global_step, "bits": bits}
trainer.print("result:", json.dumps(out))
if "exit" in flags:
    sys.exit(7)
"""
GUARDED = SCRIPT.replace(
    "trainer = L.Trainer", "if __name__ != '__main__':\n    raise SystemExit(9)\ntrainer = L.Trainer"
)


def start(folder: Path, devices: Any, *flags: str, text: str = SCRIPT, **env: str) -> subprocess.Popen[str]:
    (folder / "train.py").write_text(text)
    for name in [n for n in os.environ if n.startswith(("SLURM_", "RINGGRAD_", "PMI"))]:
        env.setdefault(name, "")
    return script_job.start([sys.executable, folder / "train.py", devices, folder, *flags], **env)


def finish(job: subprocess.Popen[str], code: int = 0) -> tuple[dict[str, Any], str]:
    results, err = script_job.finish(job, code)
    return (results[0] if results else {}), err


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Any]]:
    """What a run ends with that nothing cuts off."""
    return cache(lambda devices: finish(start(tmp_path_factory.mktemp("whole"), devices))[0])


def test_a_plain_script_starts_its_workers(tmp_path: Path) -> None:
    result, err = finish(start(tmp_path, 2))
    assert (result["world"], result["steps"]) == (2, 12)
    assert "starting 2 workers: ringrun -n 2" in err


def test_the_script_is_main_and_the_exit_code_its_own(tmp_path: Path) -> None:
    result, _ = finish(start(tmp_path, 2, "exit", text=GUARDED), code=7)
    assert (result["world"], result["steps"]) == (2, 12)


def test_a_workers_exception_ends_all_and_comes_first(tmp_path: Path) -> None:
    _, err = finish(start(tmp_path, 2, "raise"), code=1)
    told = err.splitlines()
    assert told[1].startswith("[ringrun] rank 1 failed first: RuntimeError: rank 1 is unwell")
    assert "Traceback" in told[2] and "1 other rank was then ended" in told[-1]


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    process = start(tmp_path, 2, "wait")
    assert process.stdout is not None and "step 5" in process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    _, err = finish(process, code=130)
    assert "Traceback" not in err.replace("KeyboardInterrupt", "")


def test_devices_must_agree_with_the_launcher(tmp_path: Path) -> None:
    env = {
        "RINGGRAD_RANK": "0",
        "RINGGRAD_WORLD_SIZE": "1",
        "RINGGRAD_LOCAL_RANK": "0",
        "RINGGRAD_NODE_RANK": "0",
        "RINGGRAD_LOCAL_WORLD_SIZE": "1",
    }
    _, err = finish(start(tmp_path, 2, **env), code=1)
    assert "devices=2, num_nodes=1 are 2 workers, but ringrun has started 1" in err


def test_several_hosts_must_know_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_RANK", "MASTER_ADDR", "RINGGRAD_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="2 hosts need NODE_RANK, MASTER_ADDR, RINGGRAD_TOKEN"):
        L.Trainer(num_nodes=2, devices=1)
    for name in ("NODE_RANK", "MASTER_ADDR", "RINGGRAD_TOKEN"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(RuntimeError, match="several workers start from a script"):
        L.Trainer(num_nodes=2, devices=1)


@pytest.mark.parametrize(
    ("local", "how", "said"),
    [
        (2, {"devices": 2}, "devices=2, num_nodes=1 are 2 workers, but torchrun has started 4"),
        (
            4,
            {"devices": 2, "num_nodes": 2},
            "on each of 2 hosts, but torchrun has started 4, and 4 of them here",
        ),
        (0, {"num_nodes": 2}, "num_nodes=2 needs devices, the number of workers of a host, came 'auto'"),
        (2, {"num_nodes": 0}, "num_nodes must be at least 1, came 0"),
    ],
)
def test_numbers_of_hosts_must_fit(
    monkeypatch: pytest.MonkeyPatch, local: int, how: dict[str, Any], said: str
) -> None:
    place = {"RANK": 0, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": local, "GROUP_RANK": 0}
    for name, value in place.items() if local else ():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match=said):
        L.Trainer(**how)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_preempted_run_goes_on_to_the_same_bits(
    tmp_path: Path, devices: int, whole: Callable[[int], dict[str, Any]]
) -> None:
    process = start(tmp_path, devices, "wait")
    assert process.stdout is not None and "step 5" in process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    _, err = finish(process, code=143)
    assert f"SIGTERM: saved {tmp_path}/hpc_ckpt.ckpt" in err
    again, _ = finish(start(tmp_path, devices, "last"))
    assert again == whole(devices)
    assert not (tmp_path / "hpc_ckpt.ckpt").exists()


def slurm(folder: Path, code: int) -> dict[str, str]:
    """An environment in which `scontrol` notes what it is asked, and exits with `code`."""
    tool = folder / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(
        f"#!/bin/sh\necho \"$@\" >> {shlex.quote(str(folder / 'asked'))}\necho 'no such job' >&2\nexit {code}\n"
    )
    tool.chmod(0o755)
    return {"PATH": f"{tool.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize("code", [0, 1])
def test_slurms_warning_saves_and_requeues(
    tmp_path: Path, code: int, whole: Callable[[int], dict[str, Any]]
) -> None:
    env = slurm(tmp_path, code)
    process = start(tmp_path, 2, "wait", **env)
    assert process.stdout is not None and "step 5" in process.stdout.readline()
    os.kill(process.pid, signal.SIGUSR1)
    _, err = finish(process, code=138 if code else 0)
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert ("requeued job 4711" in err) is (code == 0) and ("no such job; submit" in err) is (code == 1)
    assert (tmp_path / "hpc_ckpt_4711.ckpt").exists()
    again, _ = finish(start(tmp_path, 2, **env))  # the requeued job: the same command, the same number
    assert again == whole(2)
    assert not (tmp_path / "hpc_ckpt_4711.ckpt").exists()


def test_another_jobs_cut_off_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "hpc_ckpt_1.ckpt").write_text("not ours")
    result, _ = finish(start(tmp_path, 1, SLURM_JOB_ID="4711", SLURM_JOB_NAME="train"))
    assert result["steps"] == 24 and (tmp_path / "hpc_ckpt_1.ckpt").exists()


def test_a_reproducible_run_may_change_its_workers(tmp_path: Path) -> None:
    """Begun on two workers, cut off, finished on one: the bits of one that was never cut off."""
    whole, _ = finish(start(tmp_path, 1, "reproducible"))
    process = start(tmp_path, 2, "wait", "reproducible")
    assert process.stdout is not None and "step 5" in process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    finish(process, code=143)
    again, _ = finish(start(tmp_path, 1, "reproducible", "last"))
    assert again["bits"] == whole["bits"] and again["steps"] == whole["steps"] == 24
