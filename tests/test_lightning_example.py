"""The examples beside char_gpt.py run in a short form, learn, and say what they reached; the jobs' files are sound."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from free_port import free_port
from script_job import finish, result_of, ringrun, start

pytest.importorskip("sklearn")
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def run(folder: Path, command: list[Any], **env: str) -> dict[str, Any]:
    return result_of(command, folder, **{"PATH": PATH, **env})


def example(folder: Path, name: str, *arguments: Any) -> dict[str, Any]:
    return run(folder, [sys.executable, EXAMPLES / name, *arguments])


def test_digits_are_learnt(tmp_path: Path) -> None:
    result = example(tmp_path, "digits_lightning.py", "--epochs", 4, "--folder", tmp_path)
    assert result["steps"] == 88 and result["test_accuracy"] > 0.8
    (found,) = (tmp_path / "lightning_logs").iterdir()
    assert (found / "metrics.csv").exists() and len(list((found / "checkpoints").glob("*.ckpt"))) == 1


def test_overfitting_is_seen(tmp_path: Path) -> None:
    result = example(tmp_path, "overfitting.py", "--epochs", 25)
    plain, augmented = result["plain"], result["augmented"]
    assert plain["gap"] > 2 * augmented["gap"] and plain["f1"] > 0.8
    assert "train_loss" in (tmp_path / "runs" / "overfitting" / "plain.html").read_text()


def test_one_bit_weights_learn(tmp_path: Path) -> None:
    result = example(tmp_path, "custom_function.py", "--epochs", 4)
    assert result["accuracy"] > 0.7 and result["kilobytes"] < 3


def test_a_graph_of_its_own_for_every_sample_learns(tmp_path: Path) -> None:
    result = example(tmp_path, "tree_rnn.py", "--functions", 100, "--epochs", 1)
    assert result["functions"] == 100 and result["accuracy"] > 0.4


def test_16_bits_learn_as_well(tmp_path: Path) -> None:
    result = example(tmp_path, "mixed_precision.py", "--epochs", 6)
    assert [r["computed"][9:] for r in result.values()] == ["float32", "bfloat16", "float16"]
    assert all(r["accuracy"] > 0.85 for r in result.values())


def test_a_pytorch_checkpoint_is_worth_something(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    result = example(tmp_path, "finetune_pytorch.py", "--epochs", 6)
    assert result["fine-tuned"] > 0.7 and (tmp_path / "runs" / "finetune" / "body.pt").exists()


def test_the_server_answers_as_the_model_that_was_trained(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = example(tmp_path, "serve_onnx.py", "--epochs", 3)
    assert result["same_as_trained"] == 1.0 and result["accuracy"] > 0.8


def test_a_sweep_finds_the_same_on_one_rank_and_on_two(tmp_path: Path) -> None:
    alone = example(tmp_path, "sweep.py", "--epochs", 2)
    both = run(tmp_path, [*ringrun(2), EXAMPLES / "sweep.py", "--epochs", 2])
    assert both == alone and alone["trials"] == 12


GPT = ["--steps", "4", "--batch", "8"]


def test_the_gpt_starts_its_workers_and_reports(tmp_path: Path) -> None:
    result = example(tmp_path, "char_gpt_lightning.py", *GPT, "--devices", 2)
    assert result["workers"] == 2 and result["steps"] == 4 and result["val_perplexity"] < 200
    assert "items_per_s" in (tmp_path / "runs" / "char_gpt_lightning" / "report.html").read_text()


@pytest.mark.slow
def test_torchruns_variables_and_mpiruns_script_do(tmp_path: Path) -> None:
    port = str(free_port())
    command = [sys.executable, EXAMPLES / "char_gpt_lightning.py", *GPT]
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [start(command, tmp_path, RANK=str(r), LOCAL_RANK=str(r), **place) for r in range(2)]
    (first,), second = [finish(process)[0] for process in started]
    assert first["workers"] == 2 and second == []
    if shutil.which("mpirun", path=PATH):
        pytest.importorskip("mpi4py")
        script = [EXAMPLES / "jobs" / "mpirun.sh", 2, *GPT, "--folder", tmp_path / "mpi"]
        assert run(tmp_path, script)["workers"] == 2


def test_the_job_files_are_sound(tmp_path: Path) -> None:
    jobs = EXAMPLES / "jobs"
    for script in ("slurm.sbatch", "mpirun.sh"):
        subprocess.run(["bash", "-n", str(jobs / script)], check=True)
    tool = tmp_path / "srun"  # a Slurm that only tells what it was asked
    tool.write_text('#!/bin/sh\necho "result: {\\"asked\\": \\"$*\\"}"\n')
    tool.chmod(0o755)
    env = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "RINGGRAD_ROOT": str(ROOT)}
    asked = run(
        tmp_path,
        ["bash", jobs / "slurm.sbatch", "--steps", 3],
        **env,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    assert asked == {"asked": "python3 examples/char_gpt_lightning.py --folder runs/char_gpt_7 --steps 3"}
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((jobs / "kubernetes.yaml").read_text())
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    names = {variable["name"] for variable in worker["env"]}
    assert {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= names
    assert (ROOT / worker["command"][1]).exists()
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]


def test_the_table_names_every_example() -> None:
    table = (EXAMPLES / "README.md").read_text()
    files = [p.relative_to(EXAMPLES) for p in [*EXAMPLES.glob("*.py"), *(EXAMPLES / "jobs").iterdir()]]
    assert all(f"]({name})" in table for name in files)
