"""Start a failed job again, as long as that can help.

All workers are started anew, as after `torchrun --max-restarts`: the script finds its last checkpoint. On several
hosts each ringrun restarts its own workers, as all of them fail when one host's do, and the count of restarts keeps
messages of the earlier ones out.
"""

import sys
import time

from .failure import Failure
from .spawn import Job
from .supervisor import Outcome, supervise

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # s before a restart; doubles from one to the next
YOUNG = 10.0  # s: a worker that failed before never came to training
SAME_IN_A_ROW = 3  # so often may young workers fail in one way
HOPELESS = ("SyntaxError", "IndentationError", "ImportError", "ModuleNotFoundError")


def run(job: Job) -> int:
    """Run the job, and again after failures, `job.max_restarts` times at most; returns the last exit code."""
    ways: list[str] = []  # how it failed, young, in a row
    while True:
        start = time.monotonic()
        outcome = supervise(job)
        if outcome.root is None or outcome.stopped:
            return outcome.exit_code
        way = _way(outcome.root)
        ways = [*(ways if ways[-1:] == [way] else []), way] if time.monotonic() - start < YOUNG else []
        left = job.max_restarts - job.restart
        if reason := _no_use(outcome, len(ways)) if left else None:
            _say(f"not starting again, with {left} of {job.max_restarts} restarts left: {reason}")
        if not left or reason:
            return outcome.exit_code
        pause = min(FIRST_PAUSE * 2**job.restart, LONGEST_PAUSE)
        job = job._replace(restart=job.restart + 1)
        _say(f"starting all workers again in {pause:g} s: restart {job.restart} of {job.max_restarts}")
        time.sleep(pause)


def _way(root: Failure) -> str:
    lines = root.traceback.rstrip("\n").split("\n")
    return f"{root.rank} {root.kind} {root.message} {lines[-1]}"


def _no_use(outcome: Outcome, same: int) -> str | None:
    root = outcome.root
    assert root is not None
    if root.kind in HOPELESS:
        return f"the code must change to mend {root.kind}"
    if root.kind == "SystemExit" and root.exit_code == 2:
        return "exit code 2 is that of wrong arguments"
    if same >= SAME_IN_A_ROW:
        return f"{same} times in a row the workers failed in one way within {YOUNG:g} s of their start"
    return None


def _say(text: str) -> None:
    print(f"[ringrun] {text}", file=sys.stderr, flush=True)
