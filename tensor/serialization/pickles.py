"""The pickle streams inside PyTorch's files, read without running anything and written opcode by opcode.

A pickle is a program for a small stack machine. Two of its instructions are dangerous: the one that names a
global and the one that calls it. Here a name can only be looked up in a table that the caller passes, and
only entries of that table are called. Python's own unpickler takes no part.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..dtypes import dtype

MAX_BYTES = (
    64 << 20
)  # of one pickle: tensors are kept outside, so a gigabyte-sized model needs far less than a megabyte
KEY_PARTS = 64


class Call(NamedTuple):
    """A global that a pickle may call, and what runs instead of it."""

    name: str
    run: Callable[..., Any]
    build: Callable[[Any, Any], None] | None = None  # for BUILD: takes the object made and its state
    tensors: bool = False  # whether tensors are among the arguments

    def __call__(self, *arguments: Any) -> Any:
        """Only plain values go in, so that no method of a tensor, perhaps a huge one, is called by accident."""
        if not self.tensors and not all(isinstance(a, PLAIN) for a in arguments):
            raise TypeError(f"{self.name} takes plain values")
        return self.run(*arguments)


PLAIN = (
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
    bytearray,
    tuple,
    list,
    dict,
    set,
    frozenset,
    np.dtype,
    dtype,
)


def _nothing_else(function: Any, new: bool) -> Call:
    raise TypeError("only functions from the list of allowed ones can be called")


class Reader:
    """One pickle, from the stream's position to its STOP.

    `lookup` maps "module.name" to a value or a Call, or raises ValueError; `persistent` maps an outside
    reference to its object; `permit` gives the Call of a value that is none, or raises TypeError.
    `load` raises ValueError for everything that is not allowed or not well-formed.
    """

    def __init__(
        self,
        stream: BinaryIO,
        lookup: Callable[[str], Any],
        persistent: Callable[[Any], Any],
        permit: Callable[[Any, bool], Call] = _nothing_else,
    ) -> None:
        self.stream, self.lookup, self.persistent, self.permit = stream, lookup, persistent, permit
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.budget = 0
        self.made: dict[
            int, tuple[Any, Call]
        ] = {}  # what a Call with `build` returned, for BUILD to complete

    def load(self) -> Any:
        import pickletools

        start = self.stream.tell()
        name, position = "", 0
        try:
            for opcode, argument, at in pickletools.genops(self.stream):
                name, position = opcode.name, at or 0
                if position - start > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES} bytes")
                if name in LITERALS:
                    self.budget += len(argument) if isinstance(argument, str | bytes | bytearray) else 0
                    self.stack.append(argument)
                elif name in CONSTANTS:
                    self.stack.append(CONSTANTS[name])
                elif name == "STOP":
                    return self.stack.pop()
                elif name in STEPS:
                    self.budget += 64
                    STEPS[name](self, argument)
                else:
                    raise ValueError("this instruction is not allowed")
        except Refused:
            raise
        except (
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
            OverflowError,
            struct.error,
        ) as error:
            raise ValueError(
                f"malformed pickle at byte {max(position - start, 0)}, instruction {name}: {error}"
            ) from None
        raise ValueError("pickle without an end")

    def spend(self, count: int) -> None:
        """Copies of long values, made by a few bytes of pickle, must stay in proportion to the pickle's
        length."""
        self.budget -= count
        if self.budget < -MAX_BYTES:
            raise ValueError("a short pickle that would unfold into a very large value")

    def items(self) -> list[Any]:
        """What was pushed since the last MARK."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        self.stack[len(self.stack) - count :] = [tuple(self.stack[len(self.stack) - count :])]

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError("items can only be set in a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain_key(key)] = value

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError("values can only be appended to a list")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise TypeError("values can only be added to a set")
        target.update(map(plain_key, items))

    def find(self, name: str) -> None:
        try:
            self.stack.append(self.lookup(name))
        except ValueError as error:
            raise Refused(str(error)) from None

    def call(self, function: Any, arguments: Any, new: bool = False) -> None:
        if not isinstance(function, Call):
            function = self.permit(function, new)
        if type(arguments) is not tuple:
            raise TypeError("arguments must come as a tuple")
        for argument in arguments:
            if isinstance(argument, str | bytes | list | dict | set | tuple):
                self.spend(len(argument))
        value = function(*arguments)
        if function.build:
            self.made[id(value)] = value, function
        self.stack.append(value)

    def build(self, state: Any) -> None:
        value = self.stack[-1]
        _, function = self.made.get(id(value), (None, None))
        if function is None or function.build is None:
            raise TypeError(f"a {type(value).__name__} takes no state")
        function.build(value, state)


class Refused(ValueError):
    """A global that is not on the list: the message names it."""


def plain_key(key: Any) -> Any:
    """A dict key or set element: hashing a tuple of tuples of tuples ... would take for ever."""
    parts = key if type(key) in (tuple, frozenset) else (key,)
    if len(parts) > KEY_PARTS or any(type(p) in (tuple, frozenset) for p in parts):
        raise ValueError("a key must be a plain value or a short flat tuple")
    return key


LITERALS = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
    + ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
    + ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUT = lambda m, n: m.memo.__setitem__(n, m.stack[-1])
_GET = lambda m, n: m.stack.append(m.memo[n])
_CALL = lambda m, _: m.call(*reversed((m.stack.pop(), m.stack.pop())))
STEPS: dict[str, Callable[[Reader, Any], None]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.__delitem__(-1),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "LIST": lambda m, _: _push(m, m.items()),
    "TUPLE": lambda m, _: _push(m, tuple(m.items())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "FROZENSET": lambda m, _: _push(m, frozenset(map(plain_key, m.items()))),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.items()),
    "SETITEM": lambda m, _: m.set_items([*reversed((m.stack.pop(), m.stack.pop()))]),
    "SETITEMS": lambda m, _: m.set_items(m.items()),
    "ADDITEMS": lambda m, _: m.add(m.items()),
    "PUT": _PUT,
    "BINPUT": _PUT,
    "LONG_BINPUT": _PUT,
    "MEMOIZE": lambda m, _: _PUT(m, len(m.memo)),
    "GET": _GET,
    "BINGET": _GET,
    "LONG_BINGET": _GET,
    "GLOBAL": lambda m, name: m.find(name.replace(" ", ".")),
    "STACK_GLOBAL": lambda m, _: m.find(".".join(reversed((m.stack.pop(), m.stack.pop())))),
    "REDUCE": _CALL,
    "NEWOBJ": lambda m, _: m.call(*reversed((m.stack.pop(), m.stack.pop())), new=True),  # type: ignore[misc]
    "BUILD": lambda m, _: m.build(m.stack.pop()),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.stack.pop())),
}


def _push(machine: Reader, value: Any) -> None:
    machine.stack.append(value)


class Writer:
    """Appends pickle instructions (protocol 2, the one torch.save writes) to `out`."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self.memo: dict[Any, int] = {}

    def number(self, x: int) -> None:
        if 0 <= x < 1 << 16:
            self.out += b"K%c" % x if x < 256 else b"M" + struct.pack("<H", x)
        elif -(1 << 31) <= x < 1 << 31:
            self.out += b"J" + struct.pack("<i", x)
        else:
            raw = x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
            if len(raw) > 255:
                raise ValueError(
                    "[save] PyTorch's format holds integers of at most 2039 bits, a longer one came"
                )
            self.out += b"\x8a%c" % len(raw) + raw

    def value(self, x: bool | int | float | str | None) -> None:
        if x is None or type(x) is bool:
            self.out += {None: b"N", True: b"\x88", False: b"\x89"}[x]
        elif type(x) is int:
            self.number(x)
        elif type(x) is float:
            self.out += b"G" + struct.pack(">d", x)
        else:
            raw = str(x).encode("utf-8", "surrogatepass")
            self.out += b"X" + struct.pack("<I", len(raw)) + raw

    def name(self, module: str, name: str) -> None:
        """A global; repeated ones come from the memo."""
        if not self.recall((module, name)):
            self.out += f"c{module}\n{name}\n".encode()
            self.remember((module, name))

    def sequence(self, parts: list[Callable[[], None]]) -> None:
        """A tuple, each part written by its function."""
        self.out += b"("
        for part in parts:
            part()
        self.out += b"t"

    def numbers(self, shape: tuple[int, ...]) -> None:
        self.sequence([lambda n=n: self.number(n) for n in shape])  # type: ignore[misc]

    def recall(self, key: Any) -> bool:
        if key in self.memo:
            self.out += b"j" + struct.pack("<I", self.memo[key])
        return key in self.memo

    def remember(self, key: Any) -> None:
        self.memo[key] = len(self.memo)
        self.out += b"r" + struct.pack("<I", self.memo[key])
