"""A ringrun of a test's own, whose leftovers can be found: the `launcher` fixture (conftest.py) hands it out."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

DEADLINE = 60  # s; only a hang reaches it


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"still waiting for {what}"
        time.sleep(0.01)


def hear():
    """A job started here ignores no signal, also where pytest runs under nohup or in a shell's background."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


class Started(subprocess.Popen):
    """Killed, not waited for, when the test that started it fails."""

    def __exit__(self, kind, *rest):
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


class Launcher:
    """Runs ringrun with a directory and an environment variable of its own, to find leftovers by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cookie = f"RINGGRAD_TEST={uuid.uuid4().hex}"
        self.runtime = Path(tempfile.mkdtemp(prefix="rg", dir="/tmp"))
        name, value = self.cookie.split("=")
        drop = ("RINGGRAD_", "OMP_", "OPENBLAS_", "MKL_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
        self.env |= {name: value, "XDG_RUNTIME_DIR": str(self.runtime)}

    def script(self, text: str, name: str = "script.py") -> str:
        (self.folder / name).write_text("import os, sys, time\n" + textwrap.dedent(text))
        return name

    def start(self, *args: str, **options) -> subprocess.Popen:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "ringgrad.launch", *args]
        env = self.env | options.pop("env", {})
        return Started(command, cwd=self.folder, env=env, text=True, preexec_fn=hear, **(pipes | options))

    def run(self, *args: str, input: str | None = None, **options) -> subprocess.CompletedProcess:
        if input is not None:
            options["stdin"] = subprocess.PIPE
        with self.start(*args, **options) as process:
            out, err = process.communicate(input, timeout=DEADLINE)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def processes(self, named: str = "") -> list[int]:
        """Every process of this test's jobs, their guards too; with `named` in its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                ours = entry.name.isdecimal() and self.cookie.encode() in (entry / "environ").read_bytes()
                if ours and named.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def wait_for_processes(self, number: int, named: str = "") -> list[int]:
        """Waits: in the middle of an exec the kernel shows neither environment nor command line."""
        wait_for(lambda: len(self.processes(named)) == number, f"{number} processes")
        return self.processes(named)


ENDLESS = """
    import signal, subprocess
    print("ready", os.getpid(), flush=True)
    while True:
        time.sleep(60)
"""


def until_ready(process, workers):
    return [int(process.stdout.readline().split()[-1]) for _ in range(workers)]
