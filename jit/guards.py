"""What a function's result depends on beside its arguments: the Python state in its reach.

Before a call is traced, everything in reach of the function is looked at once: closures, globals that its code names,
attributes of modules and objects, containers. Each becomes a check. Where the checks hold, a recorded call may be
repeated; where one fails right after the traced call, the call itself has side effects.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..autograd.engine import Variable
from ..nn.module import Module
from ..optim.optimizer import Optimizer

PACKAGE = __name__.split(".")[0]
SCALARS = (bool, int, float, complex, str, bytes, type(None))
LONGEST = 1000  # containers beyond this are known by identity and length alone
LARGEST = 4096  # elements of a NumPy array that is compared at each call
MOST = 200_000
MISSING = object()


def library(name: str | None) -> bool:
    """Whether code of this module is not the user's: it has no state that a call depends on, or none to be seen."""
    root = (name or "").partition(".")[0]
    return root in (PACKAGE, "numpy", "builtins") or root in sys.stdlib_module_names


class Check:
    """One condition, as an expression over `h` (what holds the thing), `k` (its name in there), `o` (what it was)."""

    __slots__ = ("holder", "key", "kind", "label", "was")

    def __init__(self, kind: str, holder: Any, key: Any, was: Any, label: str) -> None:
        self.kind, self.holder, self.key, self.was, self.label = kind, holder, key, was, label

    def now(self) -> Any:
        try:
            if self.kind == "cell":
                return self.holder.cell_contents
            if self.kind == "length":
                return len(self.holder)
            if self.kind == "content":
                return self.holder.tobytes()
            if self.kind == "attribute":
                return getattr(self.holder, self.key, MISSING)
            return self.holder[self.key]
        except (KeyError, IndexError, ValueError):
            return MISSING

    def holds(self) -> bool:
        now = self.now()
        return now is self.was or same(now, self.was)

    def describe(self) -> str:
        now = self.now()
        gone = "nothing" if now is MISSING else repr(now)[:60]
        return f"{self.label} was {self.was!r:.60}, is {gone}"


def same(a: Any, b: Any) -> bool:
    """Equal plain values of one type."""
    return type(a) is type(b) and isinstance(b, SCALARS) and (a == b or (a != a and b != b))


class Reach:
    """What is in reach of a function: `checks`, and the `tensors`."""

    def __init__(self, fn: Any, arguments: Any = ()) -> None:
        self.checks: list[Check] = []
        self.tensors: list[Any] = []
        self.modules: list[Any] = []
        self.too_large: str | None = None
        self._seen: dict[int, Any] = {}
        self._names: set[str] = set()
        self._codes: set[CodeType] = set()
        self._later: list[tuple[Any, str]] = []  # objects whose attributes are looked at
        self._looked_at: set[tuple[int, str]] = set()
        self._visit(fn, getattr(fn, "__name__", type(fn).__name__))
        self._arguments(arguments)
        before = -1
        while before != len(self._names) + len(self._later):  # code that is found names further attributes
            before = len(self._names) + len(self._later)
            for value, label in list(self._later):
                self._attributes(value, label)

    def broken(self) -> Check | None:
        """The first check that does not hold."""
        return next((check for check in self.checks if not check.holds()), None)

    def compiled(self) -> Callable[[], bool]:
        """All checks as one function."""
        space: dict[str, Any] = {"same": same, "MISSING": MISSING}
        lines = ["def check():", " try:"]
        for i, check in enumerate(self.checks):
            space[f"h{i}"], space[f"o{i}"] = check.holder, check.was
            if check.kind == "length":
                lines.append(f"  if len(h{i}) != {check.was}: return False")
                continue
            if check.kind == "cell":
                get = f"h{i}.cell_contents"
            elif check.kind == "content":
                get = f"h{i}.tobytes()"
            elif isinstance(check.holder, list):
                get = f"h{i}[{check.key}]"
            else:
                space[f"k{i}"] = check.key
                get = (
                    f"getattr(h{i}, k{i}, MISSING)"
                    if check.kind == "attribute"
                    else f"h{i}.get(k{i}, MISSING)"
                )
            scalar = isinstance(check.was, SCALARS) and check.was is not None
            lines.append(f"  x = {get}")
            lines.append(
                f"  if x is not o{i}" + (f" and not same(x, o{i})" if scalar else "") + ": return False"
            )
        lines += ["  return True", " except (ValueError, IndexError): return False"]
        exec("\n".join(lines), space)
        return space["check"]

    # ---- the walk

    def _arguments(self, value: Any) -> None:
        """Objects among the arguments; Tensors, numbers and containers are part of the key."""
        if type(value) in (tuple, list):
            for part in value:
                self._arguments(part)
        elif type(value) is dict:
            for part in value.values():
                self._arguments(part)
        elif not isinstance(value, Variable):
            self._visit(value, type(value).__name__)

    def _check(self, kind: str, holder: Any, key: Any, value: Any, label: str) -> None:
        self.checks.append(Check(kind, holder, key, value, label))
        if len(self.checks) > MOST:
            self.too_large = f"more than {MOST} Python values are in reach of the function"
            return
        self._visit(value, label)

    def _visit(self, value: Any, label: str) -> None:
        if isinstance(value, SCALARS) or id(value) in self._seen or self.too_large:
            return
        self._seen[id(value)] = value
        if isinstance(value, Variable):
            self.tensors.append(value)
        elif isinstance(value, FunctionType):
            self._function(value, label)
        elif isinstance(value, MethodType):
            self._visit(value.__func__, label)
            self._visit(value.__self__, "self")
        elif isinstance(value, partial):
            for part in (value.func, value.args, value.keywords):
                self._visit(part, label)
        elif isinstance(value, Optimizer):
            for i, group in enumerate(value.param_groups):
                self._check("item", group, "params", group["params"], f"{label}.param_groups[{i}]['params']")
        elif isinstance(value, list | tuple):
            self._sequence(value, label)
        elif isinstance(value, dict):
            self._dict(value, label)
        elif isinstance(value, np.ndarray):
            if value.size > LARGEST:
                what = f"{label} is a NumPy array of {value.size} elements"
                self.too_large = f"{what}, which may change unseen: pass it as a Tensor"
            else:
                self._check("content", value, None, value.tobytes(), label)
        elif isinstance(value, type):
            self._class(value, label)
        elif not isinstance(value, BuiltinFunctionType):
            self._object(value, label)

    def _sequence(self, value: Any, label: str) -> None:
        if isinstance(value, list):
            self.checks.append(Check("length", value, None, len(value), f"len({label})"))
        for i, part in enumerate(value[:LONGEST]):
            if isinstance(value, list):
                self._check("item", value, i, part, f"{label}[{i}]")
            else:
                self._visit(part, f"{label}[{i}]")

    def _dict(self, value: dict[Any, Any], label: str) -> None:
        self.checks.append(Check("length", value, None, len(value), f"len({label})"))
        for key in list(value)[:LONGEST]:
            self._check("item", value, key, value[key], f"{label}[{key!r}]")

    def _function(self, fn: FunctionType, label: str) -> None:
        if library(fn.__module__):
            for cell in fn.__closure__ or ():  # decorators such as no_grad() hold the user's function
                with contextlib.suppress(ValueError):
                    self._visit(cell.cell_contents, label)
            return
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ()):
            self._cell(cell, name)
        for holder in (fn.__defaults__ or (), fn.__kwdefaults__ or {}):
            self._visit(holder, f"{label}'s defaults")
        self._code(fn.__code__, fn.__globals__)

    def _cell(self, cell: CellType, name: str) -> None:
        try:
            value = cell.cell_contents
        except ValueError:
            value = MISSING
        self._check("cell", cell, None, value, name)

    def _code(self, code: CodeType, space: dict[str, Any]) -> None:
        if code in self._codes:
            return
        self._codes.add(code)
        self._names.update(code.co_names)
        self._names.update(c for c in code.co_consts if isinstance(c, str))
        for name in code.co_names:
            if name in space:
                value = space[name]
                if isinstance(value, ModuleType):
                    self._module(value, name)
                else:
                    self._check("item", space, name, value, name)
        for part in code.co_consts:
            if isinstance(part, CodeType):
                self._code(part, space)

    def _module(self, module: ModuleType, label: str) -> None:
        if not library(module.__name__):
            self._later.append((module, label))

    def _class(self, cls: type, label: str) -> None:
        for base in cls.__mro__:
            if not library(base.__module__):
                for name, member in vars(base).items():
                    member = getattr(member, "__func__", getattr(member, "fget", member))
                    if isinstance(member, FunctionType):
                        self._visit(member, f"{label}.{name}")
                self._later.append((base, base.__name__))

    def _object(self, value: Any, label: str) -> None:
        if isinstance(value, Module):
            self.modules.append(value)
        self._visit(type(value), type(value).__name__)
        if hasattr(value, "__dict__") and (isinstance(value, Module) or not library(type(value).__module__)):
            self._later.append((value, label))

    def _attributes(self, value: Any, label: str) -> None:
        """An object's attributes that code names; all those of ringgrad's own modules."""
        held = vars(value)
        everything = isinstance(value, Module) and library(type(value).__module__)
        inner = isinstance(value, Module)
        for name, member in list(held.items()):
            if everything or name in self._names or (inner and (name[:1] == "_" or name == "training")):
                if (id(value), name) in self._looked_at:
                    continue
                self._looked_at.add((id(value), name))
                if isinstance(value, type) and isinstance(
                    member, FunctionType | staticmethod | classmethod | property
                ):
                    continue
                if isinstance(member, ModuleType):
                    self._module(member, name)
                elif inner and isinstance(member, dict) and not member:
                    self.checks.append(Check("length", member, None, 0, f"len({label}.{name})"))
                else:
                    self._check("item", held, name, member, f"{label}.{name}")
        for name in getattr(type(value), "__slots__", ()) if not isinstance(value, type | ModuleType) else ():
            if hasattr(value, name) and (id(value), name) not in self._looked_at:
                self._looked_at.add((id(value), name))
                self._check("attribute", value, name, getattr(value, name), f"{label}.{name}")


__all__ = ["Check", "Reach", "library", "same"]
