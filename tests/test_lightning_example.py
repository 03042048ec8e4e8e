"""The Trainer's example runs, learns, and says what it reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits_lightning.py"


def test_digits_are_learnt(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--epochs", "4", "--folder", str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=env)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1].removeprefix("result: "))
    assert result["steps"] == 88 and result["test_accuracy"] > 0.8
    (run,) = (tmp_path / "lightning_logs").iterdir()
    assert (run / "metrics.csv").exists() and len(list((run / "checkpoints").glob("*.ckpt"))) == 1
