"""Optimizers that treat all elements alike: state in flat buffers, updates in cache-sized blocks.

A subclass says what state an element has (`slots`), how the numbers of a parameter go on from step to step
(`advance`), and the update of one block (`update`). Here everything else is done once: a buffer for each kind of
state, of which `state[p][name]` are views; blocks that gather many small parameters or are a part of a large one,
so that NumPy's price per call is paid per block and not per parameter; 16-bit parameters computed in float32;
weight decay, maximize, parameters without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..autograd.engine import array_namespace, wrap
from . import fused
from .optimizer import Optimizer, Params, number, scalar

BLOCK_BYTES = 1 << 18  # of each operand: measured flat from 128 KiB to 1 MiB, half as fast at 16 KiB
ALONE_BYTES = (
    1 << 15
)  # a parameter this large is cheaper in a block of its own than copied into one with others


class Block:
    """A stretch of a flat buffer, with the arrays that its update reads and writes."""

    __slots__ = ("gathered", "p", "pieces", "scratch", "states")

    def __init__(self, pieces: list[tuple[int, int, int]]) -> None:
        self.pieces = pieces  # (which parameter, first element, end)
        self.gathered = len(pieces) > 1
        self.p: Any = None
        self.states: list[Any] = []
        self.scratch: list[Any] = []


class Flat:
    """A group's parameters of one dtype, and the buffers that hold their state."""

    def __init__(self, params: list[Any]) -> None:
        first = params[0].array
        self.params = params
        self.xp = array_namespace[type(first)]
        self.dtype = first.dtype
        # complex elements are pairs of real ones, as PyTorch counts them here
        self.real = np.dtype(f"f{first.itemsize // 2}") if first.dtype.kind == "c" else first.dtype
        self.work = np.dtype("float32") if self.real.itemsize == 2 else self.real
        self.shapes = [p.array.shape for p in params]
        per_element = first.itemsize // self.real.itemsize
        self.sizes = [p.array.size * per_element for p in params]
        self.starts = [0]
        for n in self.sizes:  # on a GPU each begins at a multiple of 16 bytes
            self.starts.append(self.starts[-1] + (n if self.xp is np else -(-n // 8) * 8))
        self.tables: dict[
            Any, Any
        ] = {}  # of kernels that take many parameters (fused.py), and their coefficients
        self.coefficients: dict[Any, Any] = {}
        self.buffers: dict[str, Any] = {}
        self.homes: dict[str, list[Any]] = {}
        self.arrays: list[Any] = [None] * len(params)
        self.views: list[Any] = [None] * len(params)
        self.loose: set[int] = set()  # parameters whose memory is no plain stretch: updated in a copy
        self._blocks: dict[Any, list[Block]] = {}
        self._scratch: list[Any] | None = None

    def look_at(self, i: int, array: Any) -> bool:
        """Takes another array of parameter i; False when it is of another kind, and this layout is no longer right."""
        if (
            array.shape != self.shapes[i]
            or array.dtype != self.dtype
            or array_namespace[type(array)] is not self.xp
        ):
            return False
        self.arrays[i] = array
        self.loose.discard(i)
        if not array.flags.c_contiguous:
            self.loose.add(i)
            array = array.copy(order="C")
        self.views[i] = array.reshape(-1).view(self.real)
        self._blocks.clear()
        return True

    def adopt(self, name: str, i: int, held: Any, initial: float) -> Any:
        """Moves state into its buffer (`held`: a tensor, or None to begin with `initial`): the tensor over it."""
        if name not in self.buffers:
            self.buffers[name] = self.xp.zeros(self.starts[-1], self.real)
            self.homes[name] = [None] * len(self.params)
        part = self.buffers[name][self.starts[i] : self.starts[i] + self.sizes[i]]
        home = part.view(self.dtype).reshape(self.shapes[i])
        if held is None:
            part.fill(initial)
        elif held.array.shape != home.shape:
            raise RuntimeError(
                f"[optim] state {name!r} must have its parameter's shape {list(home.shape)},"
                f" came {list(held.array.shape)}"
            )
        else:
            home[...] = held.array if self.xp is np else self.xp.asarray(held.array)
        self.homes[name][i] = home
        return wrap(home)

    def adopt_scalar(self, name: str, i: int, held: Any, initial: float) -> Any:
        made = scalar(initial) if held is None else held
        if name not in self.buffers:
            self.buffers[name] = np.zeros(len(self.params), made.array.dtype)
            self.homes[name] = [None] * len(self.params)
        home = self.buffers[name][i : i + 1].reshape(())
        home[...] = made.array
        self.homes[name][i] = home
        return wrap(home)

    def blocks(self, members: tuple[int, ...], slots: Sequence[str]) -> list[Block]:
        """The blocks of these parameters; kept while the parameters keep their memory."""
        key = (members, tuple(slots))
        found = self._blocks.get(key)
        if found is None:
            found = self._blocks[key] = [self._prepare(Block(pieces), slots) for pieces in self._cut(members)]
        return found

    def _cut(self, members: tuple[int, ...]) -> list[list[tuple[int, int, int]]]:
        # on a GPU parameters are blocks of their own, a CPU wants blocks that stay in its cache
        room = BLOCK_BYTES // self.work.itemsize if self.xp is np else max(self.starts[-1], 1)
        alone = ALONE_BYTES // self.work.itemsize if self.xp is np else 1
        cut: list[list[tuple[int, int, int]]] = []
        filled, before = room, -1
        for i in members:
            size = self.sizes[i]
            if size >= alone:
                parts = -(-size // room)
                ends = [size * k // parts for k in range(parts + 1)]
                cut += [[(i, at, end)] for at, end in pairwise(ends)]
                filled = room
            elif size:
                if i != before + 1 or filled + size > room:
                    cut.append([])
                    filled = 0
                cut[-1].append((i, 0, size))
                filled += size
            before = i
        return cut

    def _prepare(self, block: Block, slots: Sequence[str]) -> Block:
        i, at, _ = block.pieces[0]
        start = self.starts[i] + at
        n = sum(end - at for _, at, end in block.pieces)
        block.scratch = [s[:n] for s in self.scratch(n)]
        block.states = [self.buffers[name][start : start + n] for name in slots]
        block.gathered = block.gathered or self.work != self.real
        block.p = block.scratch[3] if block.gathered else self.views[i][at : at + n]
        return block

    def scratch(self, n: int) -> list[Any]:
        """Work space: the gradient, two for the update, and the parameters where they are gathered."""
        if self._scratch is None or self._scratch[0].size < n:
            size = max(n, min(self.starts[-1], BLOCK_BYTES // self.work.itemsize))
            self._scratch = [self.xp.empty(size, self.work) for _ in range(4)]
        return self._scratch


class Elementwise(Optimizer):
    """Base of the optimizers whose update knows no shapes; see this file's head.

    `counters` are numbers of a parameter's own; `couples` says that weight_decay is added to the gradient.
    """

    couples = True

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        who = type(self).__name__
        if defaults.get("differentiable"):
            raise RuntimeError(
                f"[{who}] differentiable must be False, came True: the step is not recorded; write the update with"
                " tensor operations to differentiate through it"
            )
        if defaults.get("fused") and defaults.get("foreach"):
            raise RuntimeError(f"[{who}] fused and foreach must not both be True")
        self._flats: dict[int, tuple[list[Any], list[Flat]]] = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._flats = {}
        for held in self.state.values():
            for name in self.counters({"lr": 0.0}) if isinstance(held, dict) else ():
                if name in held and isinstance(
                    held[name], int | float
                ):  # as old versions of PyTorch saved it
                    held[name] = scalar(held[name])

    # ---- what subclasses write

    def counters(self, group: dict[str, Any]) -> dict[str, float]:
        """Names and first values of the numbers that belong to each parameter."""
        return {"step": 0.0}

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        """Names and first values of the state that each element has."""
        raise NotImplementedError

    def advance(self, group: dict[str, Any], now: dict[str, float], fresh: bool) -> Any:
        """Changes the counters to those of this step; returns the coefficients that `update` needs.

        now: "step" is that of this step already, other counters are NumPy scalars in the precision of the state.
        fresh: the state was made in this step.
        """
        raise NotImplementedError

    def update(self, xp: Any, c: Any, p: Any, g: Any, t: Any, u: Any, *states: Any) -> None:
        """Writes p and states. g is read-only; t and u are work space of the same size."""
        raise NotImplementedError

    # ---- the step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have gradients; returns what `closure`, called first if given, returns."""
        loss = self.evaluate(closure)
        for i, group in enumerate(self.param_groups):
            for flat in self._layout(i, group["params"]):
                self._step_flat(group, flat)
        return loss

    def _layout(self, index: int, params: list[Any]) -> list[Flat]:
        held = self._flats.get(index)
        if held is not None:
            before, flats = held
            if len(before) == len(params) and all(map(_same, before, params)) and _as_before(flats):
                return flats
        kinds: dict[Any, list[Any]] = {}
        for p in dict.fromkeys(params):
            kinds.setdefault((array_namespace[type(p.array)], p.array.dtype), []).append(p)
        # small ones first: neighbours share a block
        flats = [Flat(sorted(members, key=lambda p: p.array.size)) for members in kinds.values()]
        _as_before(flats)
        self._flats[index] = (list(params), flats)
        return flats

    def _step_flat(self, group: dict[str, Any], flat: Flat) -> None:
        grads: list[Any] = [None] * len(flat.params)
        members = []
        work = flat.work
        for i, p in enumerate(flat.params):
            grad = p._grad
            if grad is None:
                continue
            members.append(i)
            g = grad.array.reshape(-1)
            grads[i] = (
                g if g.dtype == work else g.view(flat.real) if g.dtype == flat.dtype else g.astype(flat.dtype)
            )
        if not members:
            return
        for i in flat.loose:
            flat.views[i].view(flat.dtype).reshape(flat.shapes[i])[...] = flat.arrays[i]
        slots = self.slots(group)
        fresh = self._adopt(group, flat, members, slots)
        for some, now, new in self._alike(flat, members, fresh, list(self.counters(group))):
            if "step" in now:
                now["step"] = float(now["step"]) + 1
            c = self.advance(group, now, new)
            where = slice(None) if len(some) == len(flat.params) else list(some)
            for name, value in now.items():
                flat.buffers[name][where] = value
            self._run(group, flat, some, grads, list(slots), c, now.get("step"))
        for i in flat.loose:
            flat.arrays[i][...] = flat.views[i].view(flat.dtype).reshape(flat.shapes[i])
        for i in members:
            flat.params[i]._version[0] += 1

    def _adopt(
        self, group: dict[str, Any], flat: Flat, members: list[int], slots: dict[str, float]
    ) -> set[int]:
        """Sees that all state stands in the buffers, also what was loaded or assigned; whose state is new."""
        fresh: set[int] = set()
        counters = self.counters(group)
        if not counters and not slots:
            return fresh
        states = [self.state[flat.params[i]] for i in members]
        for kinds, adopt in ((counters, flat.adopt_scalar), (slots, flat.adopt)):
            for name, initial in kinds.items():
                homes = flat.homes.get(name)
                for i, state in zip(members, states):
                    held = state.get(name)
                    if homes is None or held is None or held.array is not homes[i]:
                        state[name] = adopt(name, i, held, initial)
                        homes = flat.homes[name]
                        if held is None and name in slots:
                            fresh.add(i)
        return fresh

    def _alike(self, flat: Flat, members: list[int], fresh: set[int], counters: list[str]) -> list[Any]:
        """The parameters by equal counters: (their numbers, the counters, whether they are new)."""
        values = [flat.buffers[name] for name in counters]
        if not fresh and len(members) == len(flat.params) and all((v == v[0]).all() for v in values):
            return [(tuple(members), {n: v[0] for n, v in zip(counters, values)}, False)]
        sets: dict[Any, list[int]] = {}
        for i in members:
            sets.setdefault((i in fresh, *(v[i] for v in values)), []).append(i)
        return [(tuple(some), dict(zip(counters, key[1:])), key[0]) for key, some in sets.items()]

    def _run(
        self,
        group: dict[str, Any],
        flat: Flat,
        some: tuple[int, ...],
        grads: list[Any],
        slots: list[str],
        c: Any,
        step: float | None,
    ) -> None:
        xp, update = flat.xp, self.update
        if xp is not np and fused.run(self, group, flat, some, grads, slots, c, step):
            return
        maximize = group.get("maximize", False)
        decay = (
            number(group.get("weight_decay", 0))
            if self.couples and not group.get("decoupled_weight_decay")
            else 0
        )
        for block in flat.blocks(some, slots):
            p, states = block.p, block.states
            own, t, u, _ = block.scratch
            i, at, end = block.pieces[0]
            if block.gathered:
                xp.concatenate(
                    [flat.views[i][at:end] for i, at, end in block.pieces], out=p, casting="unsafe"
                )
                g = xp.concatenate(
                    [grads[i][at:end] for i, at, end in block.pieces], out=own, casting="unsafe"
                )
            else:
                g = grads[i][at:end]
            if maximize:
                g = xp.negative(g, out=own)
            if decay:
                xp.multiply(p, decay, out=t)
                g = xp.add(g, t, out=own)
            if flat.work != flat.real:
                wide = [s.astype(flat.work) for s in states]
                update(xp, c, p, g, t, u, *wide)
                for s, w in zip(states, wide):
                    s[...] = w
            else:
                update(xp, c, p, g, t, u, *states)
            if block.gathered:
                done = 0
                for i, at, end in block.pieces:
                    flat.views[i][at:end] = p[done : done + end - at]
                    done += end - at


def _same(a: Any, b: Any) -> bool:
    return a is b


def _as_before(flats: list[Flat]) -> bool:
    """Whether all parameters are of the shapes and dtypes that the layout was made for; notes where they stand."""
    for flat in flats:
        arrays = flat.arrays
        for i, p in enumerate(flat.params):
            if p.array is not arrays[i] and not flat.look_at(i, p.array):
                return False
    return True
