"""First code of every worker that ringrun starts: run by path, it becomes the user's script.

It must not import ringgrad unless --torch asks for it: the script decides when NumPy is loaded, and ringgrad may be
what is broken.
"""

import os
import sys
from types import ModuleType, TracebackType


def main() -> None:
    # Set by the supervisor and ours alone: processes that the script starts must not see it.
    launcher, report_fd, kind, torch = os.environ.pop("_RINGGRAD_WORKER").split(",")
    os.set_inheritable(int(report_fd), False)
    _die_with(int(launcher))
    import faulthandler

    faulthandler.enable()  # a segmentation fault shows its Python stack
    # The supervisor prints the first failure, once. A hook that the script installs still runs.
    sys.excepthook = _stay_silent
    try:
        if torch == "ringgrad":
            _install_torch()
        run = _run_module if kind == "module" else _run_script
        run(sys.argv[1])
    except SystemExit as exc:
        if exc.code not in (None, 0) and _failure().exit_code_of(exc):
            _report(exc, int(report_fd))
        raise
    except BaseException as exc:
        exc.__traceback__ = _script_part(exc.__traceback__)
        if not _report(exc, int(report_fd)):
            sys.__excepthook__(type(exc), exc, exc.__traceback__)
        if sys.excepthook is not _stay_silent:
            sys.excepthook(type(exc), exc, exc.__traceback__)
        sys.exit(_failure().exit_code_of(exc))


def _install_torch() -> None:
    """From here on `import torch` gives ringgrad."""
    import importlib

    folder = (
        sys.path.pop(0) if not sys.flags.safe_path else None
    )  # ours, where launch/environment.py and so on lie
    importlib.import_module("ringgrad.torch").install()
    if folder is not None:
        sys.path.insert(0, folder)


def _die_with(launcher: int) -> None:
    """Ask the kernel to kill us when the launcher dies: the second line behind its guard process."""
    try:
        import ctypes

        PR_SET_PDEATHSIG, SIGKILL = 1, 9
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    except (ImportError, OSError, AttributeError):  # no ctypes, or not Linux
        pass
    if os.getppid() != launcher:  # it died before we asked
        os._exit(1)


def _run_script(path: str) -> None:
    """As `python path`: a file, or a directory or archive with a __main__.py."""
    import importlib.machinery
    import runpy

    sys.argv = sys.argv[1:]
    main = sys.modules["__main__"] = ModuleType("__main__")  # not ours: pickle and spawn look names up there
    if os.path.isdir(path) or _is_archive(path):
        sys.path[: 0 if sys.flags.safe_path else 1] = [path]
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return
    _set_first_path(os.path.dirname(os.path.realpath(path)))
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    main.__dict__.update(__file__=path, __cached__=None, __builtins__=__builtins__, __loader__=loader)
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _run_module(name: str) -> None:
    """As `python -m name`."""
    import runpy

    sys.argv = sys.argv[1:]
    sys.modules["__main__"] = ModuleType("__main__")
    _set_first_path(os.getcwd())
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def _set_first_path(folder: str) -> None:
    if not sys.flags.safe_path:  # otherwise Python put nothing in front
        sys.path[0] = folder


def _is_archive(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _report(exc: BaseException, report_fd: int) -> bool:
    rank = int(os.environ["RINGGRAD_RANK"])
    try:
        if _failure().report_failure(exc, os.environ["RINGGRAD_RUN_DIR"], rank):
            os.write(report_fd, rank.to_bytes(4, "little"))
            return True
    except Exception as broken:  # the script's own error must show whatever happens here
        print(f"[ringrun] the failure could not be reported: {broken!r}", file=sys.stderr)
    return False


def _failure() -> ModuleType:
    """Our neighbour failure.py, loaded by path and only when it is needed."""
    import importlib.util

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "failure.py")
    spec = importlib.util.spec_from_file_location("_ringgrad_failure", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _script_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this file and of runpy."""
    ours = (__file__, "<frozen runpy>")
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    return trace


def _stay_silent(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    pass


if __name__ == "__main__":
    main()
