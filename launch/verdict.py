"""What ringrun says when a job fails: the root cause first and once, what followed from it folded."""

import signal

from .failure import Failure, causal_order

_LISTED = 3


def died(rank: int, pid: int, status: int, when: float, wall: float, killed_by: str) -> Failure:
    """A worker that ended without reporting why. `status` is its exit code, or minus its signal."""
    if status >= 0:
        message = f"exited with code {status} and no Python exception (os._exit or native code)"
    else:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        message = f"killed by {name}" + (f": {killed_by}" if -status == signal.SIGKILL else "")
    return Failure(rank, pid, "", message, "", exit_code(status), False, when, wall)


def exit_code(status: int) -> int:
    """The exit code a shell would give: 128 + signal for a death by signal."""
    return status if status >= 0 else 128 - status


def verdict(failures: list[Failure], ended: int, logs: dict[int, str]) -> str:
    """The closing words. `ended`: how many workers ringrun itself ended. `logs`: rank to log file."""
    root, *others = sorted(failures, key=causal_order)
    lines = [f"[ringrun] rank {root.rank} failed{' first' if others or ended else ''}: {_headline(root)}\n"]
    if root.traceback:
        lines.append(root.traceback.rstrip("\n") + "\n")
    if root.is_consequence:
        lines.append(
            "[ringrun] that is the consequence of a failure elsewhere; no worker here failed before it\n"
        )
    if root.rank in logs:
        lines.append(f"[ringrun] its output: {logs[root.rank]}\n")
    return "".join(lines) + _aftermath(root, others, ended)


def _headline(failure: Failure) -> str:
    what = f"{failure.kind}: {failure.message}" if failure.kind else failure.message
    what = what.partition("\n")[0][:300] if failure.traceback else what
    return f"{what} (exit code {failure.exit_code}, pid {failure.pid})"


def _aftermath(root: Failure, others: list[Failure], ended: int) -> str:
    same = [f for f in others if not f.is_consequence and (f.kind, f.message) == (root.kind, root.message)]
    different = [f for f in others if not f.is_consequence and f not in same]
    then_ended = ended + len(others) - len(same) - len(different)
    lines = [f"[ringrun] rank {f.rank} failed too: {_headline(f)}\n" for f in different[:_LISTED]]
    if len(different) > _LISTED:
        lines.append(f"[ringrun] {_ranks(len(different) - _LISTED)} failed in other ways\n")
    if same:
        lines.append(f"[ringrun] {_ranks(len(same))} failed in the same way\n")
    if then_ended:
        lines.append(f"[ringrun] {_ranks(then_ended)} {'was' if then_ended == 1 else 'were'} then ended\n")
    return "".join(lines)


def _ranks(count: int) -> str:
    return f"{count} other rank" + ("" if count == 1 else "s")
