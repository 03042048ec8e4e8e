"""The examples run as their pages say, and the main one gives the same numbers under every launcher."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from script_job import ENDS, result_of, ringrun, start

import ringgrad as rg

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
GPT = [str(ROOT / "examples" / "char_gpt.py"), "--steps", "8", "--batch", "16"]

pytest.importorskip("matplotlib")


def trained(command: list[str], folder: Path) -> dict[str, Any]:
    return result_of([*command, "--checkpoint", folder])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("alone")
    return trained([sys.executable, *GPT], folder), folder


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
    result = trained([str(mpirun), "-n", "4", sys.executable, *GPT], tmp_path)
    assert result["world_size"] == 4
    same(result, alone[0])


@pytest.mark.slow
def test_ringrun_gives_the_same_numbers(alone: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    result = trained([*ringrun(2), *GPT], tmp_path)
    assert result["world_size"] == 2
    same(result, alone[0])


@pytest.mark.slow
def test_a_resumed_run_goes_on(alone: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    """That it ends where one in one go does is tested of the Trainer, whose runs can be cut off anywhere."""
    shutil.copytree(alone[1], tmp_path, dirs_exist_ok=True)
    longer = [sys.executable, GPT[0], "--steps", "12", "--batch", "16", "--resume"]
    resumed = trained(longer, tmp_path)
    assert resumed["steps"] == 12 and resumed["val_loss"] < alone[0]["val_loss"]
    before, after = (rg.load(folder / "checkpoint.rg")["losses"] for folder in (alone[1], tmp_path))
    assert len(before) == 8 and len(after) == 12 and after[:8] == before


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    command = [*ringrun(2), GPT[0], "--steps", "2", "--batch", "7"]
    job = start([*command, "--checkpoint", tmp_path])
    out, err = job.communicate(timeout=ENDS)
    assert job.returncode != 0
    assert "must be divisible by the workers, came 7 for 2" in err + out
