"""How a worker tells why it died, and how the launcher reads it.

A worker that raises writes one JSON file, `<run_dir>/errors/rank<r>.json`, by rename, so that a reader sees
all of it or none. An exception whose class has the attribute `ringgrad_consequence = True` (a peer was lost)
is never taken for the root cause while another failure exists.
"""

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

TRACEBACK_LIMIT = 64 * 1024


class Failure(NamedTuple):
    """Why one worker ended. `monotonic` (s) orders failures of one host, `wall` (s since 1970) is for people.

    `kind` is the exception's class name, or "" for a death that no Python exception explains.
    """

    rank: int
    pid: int
    kind: str
    message: str
    traceback: str
    exit_code: int
    is_consequence: bool
    monotonic: float
    wall: float


def report_failure(exc: BaseException, run_dir: str, rank: int) -> bool:
    """Write down why `rank` is about to die; False if that was not possible (full disk, directory gone)."""
    import json
    import time

    failure = Failure(
        rank=rank,
        pid=os.getpid(),
        kind=type(exc).__qualname__,
        message=_text_of(exc),
        traceback=format_failure(exc),
        exit_code=exit_code_of(exc),
        is_consequence=is_consequence(exc),
        monotonic=time.monotonic(),
        wall=time.time(),
    )
    path = os.path.join(run_dir, "errors", f"rank{rank}.json")
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(failure._asdict(), file)
        os.replace(path + ".new", path)
    except OSError:
        return False
    return True


def read_failures(run_dir: str) -> list[Failure]:
    """All failures reported so far, the likeliest root cause first. Files that are no reports are skipped."""
    import json

    folder = os.path.join(run_dir, "errors")
    failures = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.endswith(".json"):
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    failures.append(_checked(json.load(file)))
            except (OSError, ValueError, TypeError):
                continue
    return sorted(failures, key=causal_order)


def _checked(fields: dict[str, Any]) -> Failure:
    failure = Failure(**fields)
    for name, kind in Failure.__annotations__.items():
        if not isinstance(getattr(failure, name), kind):
            raise TypeError(f"{name} must be {kind.__name__}")
    return failure


def causal_order(failure: Failure) -> tuple[bool, float]:
    """Sort key: the first failure that no other failure caused comes first."""
    return failure.is_consequence, failure.monotonic


def is_consequence(exc: BaseException) -> bool:
    """True if `exc`, or an exception it was raised from or while handling, comes from a peer's failure."""
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        if getattr(type(link), "ringgrad_consequence", False):
            return True
        seen.add(id(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return False


def exit_code_of(exc: BaseException) -> int:
    """The exit code Python itself gives a process that `exc` ends."""
    if isinstance(exc, KeyboardInterrupt):
        return 130
    if not isinstance(exc, SystemExit):
        return 1
    if exc.code is None:
        return 0
    return exc.code & 0xFF if isinstance(exc.code, int) else 1


def format_failure(exc: BaseException) -> str:
    """The traceback, its middle left out beyond 64 KiB. For sys.exit only the line that called it."""
    import traceback

    if isinstance(exc, SystemExit):
        return "".join(traceback.format_tb(exc.__traceback__)[-1:])
    text = "".join(traceback.format_exception(exc))
    if len(text) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2 - 50
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)[:4096]
    except Exception as broken:
        return f"<its __str__ raised {type(broken).__name__}>"


def install_excepthook(on_failure: Callable[[BaseException], None]) -> Callable[[], None]:
    """Call `on_failure(exc)` before an uncaught exception ends this process, then the hook that was there.

    So a worker under mpirun tells its peers before it dies. Returns the function that takes the hook out.
    """
    previous = sys.excepthook
    active = True

    def hook(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
        try:
            if active:
                on_failure(exc)
        finally:
            previous(kind, exc, trace)

    def remove() -> None:
        nonlocal active
        active = False
        if sys.excepthook is hook:
            sys.excepthook = previous

    sys.excepthook = hook
    return remove
