"""Scripts that end with a line `result: JSON`, run as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringrun_job import hear

ENDS = 110  # s; only a hang reaches it


def ringrun(workers: int) -> list[str]:
    return [sys.executable, "-m", "ringgrad.launch", "-n", str(workers)]


def environment(**env: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **env}


def start(command: Sequence[object], folder: Path | None = None, **env: str) -> subprocess.Popen[str]:
    """In a session of its own, so that a Ctrl-C of the test reaches it alone, as a terminal's would; heard also where
    pytest runs in a shell's background, which ignores it.
    """
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(**env),
        start_new_session=True,
        preexec_fn=hear,
    )


def finish(job: subprocess.Popen[str], code: int = 0) -> tuple[list[Any], str]:
    """The results of all ranks that print one, and what it wrote to stderr. Fails if it does not end with `code`."""
    try:
        out, err = job.communicate(timeout=ENDS)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        raise
    assert job.returncode == code, err
    lines = [line for line in out.splitlines() if "result: " in line]
    return [json.loads(line[line.index("result: ") + len("result: ") :]) for line in lines], err


def result_of(command: Sequence[object], folder: Path | None = None, **env: str) -> Any:
    """Run it to its end; its one result."""
    (result,) = finish(start(command, folder, **env))[0]
    return result
