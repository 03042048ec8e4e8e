"""The examples run as their pages say, and the main one gives the same numbers under every launcher."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ringgrad as rg

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
GPT = [str(ROOT / "examples" / "char_gpt.py"), "--steps", "8", "--batch", "16"]

pytest.importorskip("matplotlib")


def result_of(command: list[str], folder: Path, **env: str) -> dict[str, Any]:
    command = [*command, "--checkpoint", str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    return json.loads(last[last.index("result: ") + len("result: ") :])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("alone")
    return result_of([sys.executable, *GPT], folder), folder


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    assert a["val_loss"] == pytest.approx(b["val_loss"], abs=1e-3)


def test_one_worker_trains_and_keeps_what_it_made(alone: tuple[dict[str, Any], Path]) -> None:
    result, folder = alone
    assert result["steps"] == 8 and result["world_size"] == 1 and result["tokens_per_s"] > 0
    assert result["val_loss"] < 4.5  # an untrained model: log of a vocabulary of about 100
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "checkpoint.rg").stat().st_size > 1 << 20


@pytest.mark.slow
def test_mpirun_gives_the_same_numbers(alone: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    mpirun = BIN / "mpirun"
    if not mpirun.exists():
        pytest.skip("no mpirun beside this Python")
    result = result_of([str(mpirun), "-n", "4", sys.executable, *GPT], tmp_path)
    assert result["world_size"] == 4
    same(result, alone[0])


@pytest.mark.slow
def test_ringrun_gives_the_same_numbers(alone: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    result = result_of([sys.executable, "-m", "ringgrad.launch", "-n", "2", *GPT], tmp_path)
    assert result["world_size"] == 2
    same(result, alone[0])


@pytest.mark.slow
def test_a_resumed_run_goes_on(alone: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    """That it ends where one in one go does is tested of the Trainer, whose runs can be cut off anywhere."""
    shutil.copytree(alone[1], tmp_path, dirs_exist_ok=True)
    longer = [sys.executable, GPT[0], "--steps", "12", "--batch", "16", "--resume"]
    resumed = result_of(longer, tmp_path)
    assert resumed["steps"] == 12 and resumed["val_loss"] < alone[0]["val_loss"]
    before, after = (rg.load(folder / "checkpoint.rg")["losses"] for folder in (alone[1], tmp_path))
    assert len(before) == 8 and len(after) == 12 and after[:8] == before


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ringgrad.launch", "-n", "2", GPT[0], "--steps", "2", "--batch", "7"]
    done = subprocess.run(
        [*command, "--checkpoint", str(tmp_path)], capture_output=True, text=True, timeout=110
    )
    assert done.returncode != 0
    assert "must be divisible by the workers, came 7 for 2" in done.stderr + done.stdout
