"""The command line of ringrun."""

import argparse
import os
import stat
import sys
from collections.abc import Callable, Sequence

from .host import usable_cores
from .spawn import Job

_EXAMPLES = """\
examples:
  ringrun -n 2 train.py --steps 100          two workers, each with half of the cores
  ringrun -n 2 -m package.train --steps 100  a module, as `python -m`
  ringrun -n 2 --torch ddp_script.py         a PyTorch script, unedited: its torch is ringgrad
  ringrun -n 8 --log-dir logs train.py       each rank's output in logs/rank<r>.log as well
  ringrun -n 8 --max-restarts 3 train.py     start again after a failure; TORCHELASTIC_RESTART_COUNT counts

  two hosts of four workers, the same secret in RINGGRAD_TOKEN on both:
  ringrun --nnodes 2 --node-rank 0 --master-addr hostA -n 4 train.py    on hostA
  ringrun --nnodes 2 --node-rank 1 --master-addr hostA -n 4 train.py    on hostB

output: lines of all ranks get their rank in front. On a terminal rank 0 writes there itself, so that its
progress bar works; with --log-dir or --prefix always it does not. Ctrl-C gives the workers 5 s (--grace) to finish,
a second one kills them. The exit code is that of the first rank that failed: 128 + n after signal n, 130
after Ctrl-C. Every process the workers started ends with the job.
"""

_TOKEN_ADVICE = """\
  do: make one     python -c "import secrets; print(secrets.token_hex(32))" > token; chmod 600 token
      copy it to every host, and pass --token-file token, or set RINGGRAD_TOKEN to its content"""

_LEAST_TOKEN = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ringrun argv`; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        job = _job(options)
    except ValueError as error:
        print(f"[ringrun] {error}", file=sys.stderr)
        return 2
    from .restart import run

    try:
        return run(job)
    except KeyboardInterrupt:  # it came before the workers were started, or after they ended
        return 130
    except OSError as error:
        print(f"[ringrun] the job was ended: {error}", file=sys.stderr)
        return 1


def _job(options: argparse.Namespace) -> Job:
    """Check what the options say together. Raises ValueError with a message for the user."""
    _check_target(options.target, options.module)
    cores = usable_cores()
    if options.workers > 4 * cores:
        print(
            f"[ringrun] warning: {options.workers} workers on {cores} usable cores will be slow; "
            f"-n {cores} gives each worker a core",
            file=sys.stderr,
        )
    if options.node_rank >= options.nnodes:
        raise ValueError(
            f"--node-rank must be below --nnodes, but they are {options.node_rank} and {options.nnodes}"
        )
    if options.nnodes > 1 and options.master_addr is None:
        raise ValueError(
            f"--nnodes {options.nnodes} needs --master-addr: a name or address of node 0 all nodes reach"
        )
    if options.log_dir is not None:
        try:
            os.makedirs(options.log_dir, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--log-dir must be a directory that can be written: {error}") from None
    several = options.nnodes > 1
    return Job(
        target=options.target,
        arguments=options.arguments,
        workers=options.workers,
        is_module=options.module,
        as_torch=options.torch,
        nodes=options.nnodes,
        node_rank=options.node_rank,
        master_addr=options.master_addr or "127.0.0.1",
        master_port=options.master_port or (29500 if several else _free_port()),
        token=_token(options.token_file, several),
        threads=options.threads,
        prefix=options.prefix,
        log_dir=options.log_dir,
        max_restarts=options.max_restarts,
        grace=options.grace,
    )


def _check_target(target: str, is_module: bool) -> None:
    if is_module:
        from importlib.util import find_spec

        sys.path.insert(0, os.getcwd())  # as `python -m` in the workers
        names = target.split(".")
        if not all(name.isidentifier() for name in names) or find_spec(names[0]) is None:
            raise ValueError(
                f"there is no module {target!r} here or among the installed ones (-m takes a module's name)"
            )
    elif not os.path.exists(target):
        raise ValueError(f"there is no script {target!r} in {os.getcwd()}")
    elif os.path.isdir(target) and not os.path.exists(os.path.join(target, "__main__.py")):
        raise ValueError(
            f"{target!r} is a directory without a __main__.py: name a script, or a module after -m"
        )
    elif not os.access(target, os.R_OK):
        raise ValueError(f"the script {target!r} can not be read: check its permissions")


def _token(path: str | None, several_nodes: bool) -> str:
    """The secret that lets a worker into the job: from a file, RINGGRAD_TOKEN, or new on a single host."""
    if path is not None:
        source, token = path, _read_token(path)
    else:
        source, token = "RINGGRAD_TOKEN", os.environ.get("RINGGRAD_TOKEN", "").strip()
        if not token and not several_nodes:
            return os.urandom(32).hex()
        if not token:
            raise ValueError(
                "several nodes need a secret token, else anyone who reaches the port can join the job; "
                f"there is none\n{_TOKEN_ADVICE}"
            )
    if len(token) < _LEAST_TOKEN:
        raise ValueError(
            f"the token must have at least {_LEAST_TOKEN} characters, "
            f"but that of {source} has {len(token)}\n{_TOKEN_ADVICE}"
        )
    return token


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (os.getuid(), 0) or stat.S_IMODE(status.st_mode) & 0o077:
                raise ValueError(
                    f"the token file must be readable by its owner alone, but {path} has mode "
                    f"{stat.S_IMODE(status.st_mode):04o} and owner {status.st_uid}\n  do: chmod 600 {path}"
                )
            return file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file can not be read: {error}\n{_TOKEN_ADVICE}") from None


def _free_port() -> int:
    """A port that is free now, for scripts that read MASTER_PORT. ringrun itself listens nowhere."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ringrun",
        usage="ringrun [-n WORKERS] [options] (SCRIPT | -m MODULE) [ARGUMENT ...]",
        description="Start N workers of a training script on this host and watch over them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "-n",
        "--nproc-per-node",
        "--nproc_per_node",
        dest="workers",
        metavar="N",
        type=_at_least(1),
        default=1,
        help="workers on this host (default 1)",
    )
    add("--threads", metavar="T", type=_at_least(1), help="threads of each worker (default: cores / workers)")
    when = ("auto", "always", "never")
    add(
        "--prefix",
        metavar="WHEN",
        choices=when,
        default="auto",
        help="rank in front of lines: auto, always, never",
    )
    add("--no-prefix", dest="prefix", action="store_const", const="never", help="the same as --prefix never")
    add(
        "--log-dir",
        metavar="DIR",
        help="also keep each rank's output in DIR/rank<r>.log, replacing older ones",
    )
    add(
        "--grace",
        metavar="S",
        type=_at_least(1),
        default=5,
        help="seconds that workers get to finish (to save) after Ctrl-C or SIGTERM (default 5)",
    )
    add(
        "--max-restarts",
        "--max_restarts",
        dest="max_restarts",
        metavar="N",
        type=_at_least(0),
        default=0,
        help="after a failure start all workers again, N times at most (default 0); the script loads its checkpoint",
    )
    add("--version", action=_Version, nargs=0, help="show the version and exit")
    hosts = parser.add_argument_group("several hosts (the same -n on each)")
    add = hosts.add_argument
    add("--nnodes", metavar="NODES", type=_at_least(1), default=1, help="number of hosts (default 1)")
    add("--node-rank", metavar="R", type=_at_least(0), default=0, help="this host's number, from 0")
    add("--master-addr", metavar="HOST", help="node 0, as the others reach it")
    add("--master-port", metavar="PORT", type=_port, help="port on node 0 (default 29500)")
    add(
        "--token-file",
        metavar="FILE",
        help="file of mode 0600 with the job's secret (default: RINGGRAD_TOKEN)",
    )
    parser.add_argument(
        "--torch", action="store_true", help="`import torch` gives ringgrad, as `python -m ringgrad.torch`"
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as `python -m`")
    parser.add_argument("target", metavar="SCRIPT", help="the training script, or with -m the module")
    parser.add_argument(
        "arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="handed to the script"
    )
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, but is {text!r}")
        return int(text)

    return integer


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be a TCP port, 1 to 65535, but is {text!r}")
    return int(text)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *ignored: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"ringrun {version('ringgrad')}")
        except PackageNotFoundError:
            print("ringrun of a ringgrad that is not installed")
        parser.exit(0)
