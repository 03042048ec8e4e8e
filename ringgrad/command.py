"""The command `ringgrad`: a table of subcommands, each loaded when it is called."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

# name: (function that takes the arguments and returns an exit code, what the help says of it)
COMMANDS = {
    "checkpoint": ("ringgrad.checkpoints:main", "verify, inspect or convert checkpoints"),
    "doctor": ("ringgrad.distributed.doctor:main", "look for what is wrong with this machine or job, and how to mend it"),
    "run-model": ("ringgrad.jit.files:main", "run a program that jit.save wrote, on .npy files"),
    "run": ("ringgrad.launch.cli:main", "start workers on this host; the same as ringrun"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ringgrad argv`; returns its exit code. 141 if nobody reads what it prints, as after `| head`."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # here, and not when Python ends and can only complain
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(argv: Sequence[str] | None) -> int:
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "-h", "--help"):
        print(_help())
        return 0 if name else 2
    if name not in COMMANDS:
        print(f"[ringgrad] the command must be one of {', '.join(COMMANDS)}, got {name!r}", file=sys.stderr)
        return 2
    module, _, function = COMMANDS[name][0].partition(":")
    return int(getattr(importlib.import_module(module), function)(arguments) or 0)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: ringgrad COMMAND ...", "", *lines, "", "ringgrad COMMAND --help tells more."])
