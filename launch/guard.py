"""Nothing stays behind: the job's private directory, and the process that clears up if ringrun is killed.

Every process of a job carries RINGGRAD_RUN_DIR, which is unique to the job, in its environment: that finds
descendants which left their parent's process group or outlived it. The process groups of the workers are
killed as well, for programs that overwrite their environment.
"""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress

_PREFIX = "ringgrad-"


def make_run_dir() -> str:
    """A new directory of mode 0700 with a short path: Unix socket addresses end at 107 bytes."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if not (
        os.path.isabs(base) and len(base) < 50 and os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK)
    ):
        base = "/tmp"
    _remove_abandoned(base)
    run_dir = os.path.join(base, _PREFIX + os.urandom(6).hex())
    os.mkdir(run_dir, 0o700)  # fails if it exists, also as a planted link
    return run_dir


def lock_run_dir(run_dir: str) -> int:
    """Mark `run_dir` as in use for as long as the returned descriptor, or a fork's copy of it, is open."""
    path = os.path.join(run_dir, "lock")
    lock = os.open(path + ".new", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.rename(path + ".new", path)  # whoever sees the file sees it locked
    return lock


def remove_run_dir(run_dir: str) -> None:
    for _ in range(100):  # a process that is just dying may still create a file
        shutil.rmtree(run_dir, ignore_errors=True)
        if not os.path.exists(run_dir):
            return
        time.sleep(0.01)


def _remove_abandoned(base: str) -> None:
    """Remove directories of jobs whose ringrun and guard were both killed before they could."""
    for entry in os.scandir(base):
        if not entry.name.startswith(_PREFIX) or entry.is_symlink():
            continue
        try:
            lock = os.open(os.path.join(entry.path, "lock"), os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # another user's, or not a job's
            continue
        try:
            if os.fstat(lock).st_uid == os.getuid() and stat.S_ISREG(os.fstat(lock).st_mode):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
        except BlockingIOError:  # in use
            pass
        finally:
            os.close(lock)


def kill_job(groups: set[int], run_dir: str) -> None:
    """SIGKILL every process of the job: the workers' groups and whatever carries the job's environment."""
    for group in groups:
        kill_group(group)
    marker = f"RINGGRAD_RUN_DIR={run_dir}".encode()
    deadline = time.monotonic() + 2
    # A process can fork while we look: look until nothing is left.
    while _kill_marked(marker) and time.monotonic() < deadline:
        time.sleep(0.005)


def kill_group(group: int, signum: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)


def _kill_marked(marker: bytes) -> int:
    if not os.path.isdir("/proc/self"):
        return 0
    killed = 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid() and _carries(name, marker):
            try:
                os.kill(int(name), signal.SIGKILL)
                killed += 1
            except (ProcessLookupError, PermissionError):
                pass
    return killed


def _carries(pid: str, marker: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return marker in file.read().split(b"\0")
    except OSError:  # gone, or another user's
        return False


class Guard:
    """A process that waits for ringrun's death, then kills the job and removes its directory.

    A pipe tells: the kernel closes ringrun's end however ringrun dies. Not a thread in each worker, since
    that needs the interpreter lock, which a worker deep in native code does not give away.
    """

    def __init__(self, run_dir: str, lock: int) -> None:
        # This file as a program: the standard library alone, and without an outer job's mark.
        environ = {name: value for name, value in os.environ.items() if name != "RINGGRAD_RUN_DIR"}
        read_end, self.write_end = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), run_dir],
            stdin=read_end,
            stdout=subprocess.DEVNULL,  # whoever reads ringrun's output must see its end when ringrun ends
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
            pass_fds=(lock,),
        )
        os.close(read_end)

    def watch(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def dismiss(self) -> None:
        """End the guard; the job must be over."""
        self._tell("q\n")
        os.close(self.write_end)
        self.process.wait()

    def _tell(self, message: str) -> None:
        with suppress(BrokenPipeError):  # the guard was killed: the workers still have their death signal
            os.write(self.write_end, message.encode())


def _guard(run_dir: str) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        if line == "q\n":
            return
        (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
    kill_job(groups, run_dir)
    remove_run_dir(run_dir)


if __name__ == "__main__":
    _guard(sys.argv[1])
