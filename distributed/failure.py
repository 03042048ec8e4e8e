"""What a rank does when it is about to die: tell the others why, so that they end too."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from ..launch.failure import format_failure, install_excepthook, is_consequence
from .group import Group

GRACE = 0.6  # s for the others to say their line before MPI ends them all
TURN = 0.25  # s that the others leave the failed rank's traceback, as mpirun forwards ranks in any order
_remove: Callable[[], None] | None = None


def watch_over(group: Group, ends_job: bool) -> None:
    """Tell `group` of an uncaught exception. ends_job: also end all ranks through MPI (under mpirun)."""
    global _remove

    def on_failure(error: BaseException) -> None:
        if is_consequence(error):
            if ends_job:
                time.sleep(TURN)
                _print(f"[rank {group.rank}] {type(error).__name__}: {error}\n")
                time.sleep(4 * GRACE)  # the rank that failed first ends the job; if it cannot, we do
                _abort_mpi()
            return
        text = format_failure(error)
        if ends_job:
            _print(f"[rank {group.rank}]\n{text}")
        group.abort(f"{type(error).__name__}: {error}".splitlines()[0] + "\n" + text)
        if ends_job:
            time.sleep(GRACE)
            _abort_mpi()

    _remove = install_excepthook(on_failure)


def stop_watching() -> None:
    """Undo `watch_over`."""
    global _remove
    if _remove is not None:
        _remove()
        _remove = None


def _print(text: str) -> None:
    # One write, so that lines of several ranks do not mix.
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()


def _abort_mpi() -> None:
    from mpi4py import MPI

    try:
        MPI.COMM_WORLD.Abort(1)
    finally:
        os._exit(1)  # MPICH's Abort returns
