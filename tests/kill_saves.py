"""A process killed before its n-th system call that touches a file, for every n. Needs Linux on x86-64.

`python kill_saves.py FOLDER` runs every kind of save this way and prints how many places each was killed at. After each
kill the old or the new state must be there, whole, and the next save must succeed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

TRACEME, GETREGS, SYSCALL, SETOPTIONS = 0, 12, 24, 0x4200
SYSCALL_STOP, KILL_WITH_TRACER = 1, 0x100000  # options
ORIG_RAX = 15  # of user_regs_struct: the number of the system call
FILE_CALLS = {
    *(1, 3, 8, 18, 20),  # write close lseek pwrite64 writev
    *(74, 75, 77, 82, 83, 84, 87),  # fsync fdatasync ftruncate rename mkdir rmdir unlink
    *(90, 91, 257, 258, 263, 264, 316),  # chmod fchmod openat mkdirat unlinkat renameat renameat2
}
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def missing() -> str | None:
    """What keeps this machine from it, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "needs Linux on x86-64"
    return None if killed_before(lambda: None, -1) is not None else "this container does not allow ptrace"


def killed_before(action: Callable[[], None], n: int) -> bool | None:
    """Run `action` in a fork and kill it before its n-th file call; False if it ended before that, None: no ptrace."""
    pid = os.fork()
    if pid == 0:
        if libc.ptrace(TRACEME, 0, None, None):
            os._exit(99)
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            action()
        except BaseException as error:
            print(f"the save failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        return None
    libc.ptrace(SETOPTIONS, pid, None, SYSCALL_STOP | KILL_WITH_TRACER)
    registers, entering, count = (ctypes.c_ulonglong * 27)(), True, 0
    while True:
        libc.ptrace(SYSCALL, pid, None, None)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, (
                f"the save ended with status {status}"
            )
            return False
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            continue
        if entering:
            libc.ptrace(GETREGS, pid, None, ctypes.addressof(registers))
            if registers[ORIG_RAX] in FILE_CALLS:
                if count == n:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    return True
                count += 1
        entering = not entering


def everywhere(folder: Path, save: Callable[[int], None], load: Callable[[], int]) -> int:
    """Kill `save(1)` over a saved 0 at every place; the number of places."""
    n = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        save(0)
        killed = killed_before(lambda: save(1), n)
        assert load() in ((0, 1) if killed else (1,)), f"neither old nor new after a kill at call {n}"
        save(2)
        assert load() == 2
        if not killed:
            return n
        n += 1


def main(folder: Path) -> None:
    import ringgrad as rg
    from ringgrad.distributed import checkpoint

    def state(value: int) -> dict:
        return {"value": value, "weight": rg.full((300, 7), float(value))}

    def value(found: dict) -> int:
        assert (found["weight"] == found["value"]).all()
        return found["value"]

    for suffix in (".rg", ".pt"):
        path = folder / f"state{suffix}"
        save, load = (lambda v, p=path: rg.save(state(v), p)), (lambda p=path: value(rg.load(p)))
        print(suffix, everywhere(folder, save, load))
    path = folder / "state.safetensors"
    count = everywhere(
        folder,
        lambda v: rg.save({"value": rg.full((9,), v)}, path),
        lambda: int(rg.load(path)["value"][0]),
    )
    print(".safetensors", count)
    count = everywhere(
        folder,
        lambda v: checkpoint.save(state(v), folder / "c"),
        lambda: value(checkpoint.load(checkpoint_id=folder / "c")),
    )
    print("folder", count)

    def step(v: int) -> None:
        with checkpoint.Checkpointer(folder, keep=1) as checkpointer:
            checkpointer.save(v, state(v))

    def newest() -> int:
        number, found = checkpoint.Checkpointer(folder).load()
        assert number == value(found)
        return number

    print("steps", everywhere(folder, step, newest))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
