"""`ringgrad checkpoint`: look at a checkpoint, check every byte of it, and turn one format into another."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .distributed import sharded_state
from .distributed.checkpoint import loading
from .distributed.checkpoint.checkpointer import STEP
from .distributed.checkpoint.saving import INDEX
from .tensor.serialization import CheckpointError, load, save
from .tensor.serialization.leaves import to_array

WHO = "[checkpoint]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ringgrad checkpoint argv`; returns 0, 1 for a checkpoint that is damaged or can't be had, 2 for wrong use."""
    options = _parser().parse_args(argv)
    try:
        return options.run(options)
    except (CheckpointError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        text = error.args[0] if isinstance(error, KeyError) else str(error)
        print(text if text.startswith("[") else f"{WHO} {text}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ringgrad checkpoint",
        description="A PATH is a file (.rg, .pt, .safetensors ...), a folder that several ranks saved into, or a "
        "folder of such steps. Nothing in a file is run.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser("verify", help="read every byte and compare every checksum")
    verify.add_argument("path", nargs="+", metavar="PATH")
    verify.set_defaults(run=_verify)
    inspect = commands.add_parser("inspect", help="what is in it: names, dtypes, shapes, sizes, other values")
    inspect.add_argument("path", metavar="PATH")
    inspect.set_defaults(run=_inspect)
    convert = commands.add_parser("convert", help="write it in the format that TARGET's suffix names")
    convert.add_argument("path", metavar="PATH")
    convert.add_argument("target", metavar="TARGET", help="a file: .pt, .safetensors or .rg")
    convert.add_argument("--key", metavar="A.B", help="a part only, such as model or state_dict")
    convert.add_argument("--force", action="store_true", help="replace TARGET if it exists")
    convert.set_defaults(run=_convert)
    return parser


def read(path: str) -> Any:
    """What a file or folder holds. FileNotFoundError, CheckpointError or OSError where it cannot be had."""
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, INDEX)) and (steps := _steps(path)):
        return loading.read(steps[-1])
    return loading.read(path) if os.path.isdir(path) else load(path)


def whole(state: Any) -> Any:
    """The state with each optimizer whose slices several ranks wrote as one process has it."""
    if isinstance(state, dict):
        if "slices" in state and "pieces" in state:
            return sharded_state.whole(state)
        for key, value in state.items():
            state[key] = whole(value)
    return [whole(value) for value in state] if type(state) is list else state


def _steps(folder: str) -> list[str]:
    names = sorted((n for n in os.listdir(folder) if STEP.fullmatch(n)), key=lambda n: int(n[5:]))
    return [os.path.join(folder, n) for n in names if os.path.exists(os.path.join(folder, n, INDEX))]


def entries(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of everything in a nested state that is no container; names joined by dots."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from entries(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value and any(to_array(v) for v in value):
        for i, part in enumerate(value):
            yield from entries(part, f"{path}.{i}" if path else str(i))
    else:
        yield path, value


def _verify(options: argparse.Namespace) -> int:
    code = 0
    for path in options.path:
        steps = [] if os.path.exists(os.path.join(path, INDEX)) else _steps(path) if os.path.isdir(path) else []
        for one in steps or [path]:
            try:
                arrays = [found[1] for _, value in entries(read(one)) if (found := to_array(value))]
                print(f"ok       {one}: {len(arrays)} tensors, {_bytes(sum(a.nbytes for a in arrays))}")
            except (CheckpointError, OSError) as error:
                print(f"damaged  {one}: {error}")
                code = 1
    return code


def _inspect(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    tensors, others = Table(title=options.path, title_justify="left"), Table(show_header=False, box=None)
    for column in ("tensor", "dtype", "shape", "bytes"):
        tensors.add_column(column, justify="right" if column == "bytes" else "left", overflow="fold")
    total = elements = 0
    for name, value in entries(read(options.path)):
        found = to_array(value)
        if found is None:
            others.add_row(name, _short(value))
            continue
        array = found[1]
        total, elements = total + array.nbytes, elements + array.size
        tensors.add_row(name, array.dtype.name, str(list(array.shape)), f"{array.nbytes:,}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(tensors)
    console.print(f"{tensors.row_count} tensors, {elements:,} elements, {_bytes(total)}")
    if others.row_count:
        console.print(others)
    return 0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:67]}..."


def _bytes(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def _convert(options: argparse.Namespace) -> int:
    if os.path.exists(options.target) and not options.force:
        print(f"{WHO} {options.target} must not exist, or --force be given", file=sys.stderr)
        return 2
    state = whole(read(options.path))
    for key in options.key.split(".") if options.key else ():
        if not isinstance(state, dict) or key not in state:
            has = ", ".join(map(str, state)) if isinstance(state, dict) else f"a {type(state).__name__}"
            raise KeyError(f"{WHO} {options.path} must have {options.key}; where {key} should be it has {has}")
        state = state[key]
    if options.target.endswith(".safetensors"):
        rest = [name for name, value in entries(state) if not to_array(value)]
        nested = isinstance(state, dict) and any(isinstance(value, dict) for value in state.values())
        if rest or nested or not isinstance(state, dict):
            raise ValueError(
                f"{WHO} a .safetensors file holds a flat dict of tensors, and {options.path} has "
                f"{', '.join(rest[:5]) or 'dicts in it'}: choose a part with --key, or another format"
            )
    save(state, options.target)
    print(f"wrote {options.target}: {_bytes(os.path.getsize(options.target))}")
    return 0
