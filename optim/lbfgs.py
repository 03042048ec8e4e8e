"""L-BFGS with a strong Wolfe line search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import enable_grad
from ..autograd.engine import Variable, array_namespace, wrap
from .optimizer import Optimizer, Params, not_negative, number

Evaluate = Callable[[Any], tuple[float, Any]]  # a step size: loss and gradient there


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last `history_size` changes of the gradient (Nocedal & Wright, chapter 7).

    `step` calls its closure several times: at most max_eval times (default 1.25 max_iter) in max_iter iterations.
    Ends early at a gradient below tolerance_grad or a change below tolerance_change.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        not_negative("LBFGS", lr=lr)
        if line_search_fn not in (None, "strong_wolfe"):
            raise RuntimeError(
                f"[LBFGS] line_search_fn must be None or 'strong_wolfe', came {line_search_fn!r}"
            )
        max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
        defaults = dict(lr=lr, max_iter=max_iter, max_eval=max_eval, tolerance_grad=tolerance_grad)
        defaults |= dict(
            tolerance_change=tolerance_change, history_size=history_size, line_search_fn=line_search_fn
        )
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError(
                f"[LBFGS] all parameters must be in one group, came {len(self.param_groups)} groups"
            )

    @property
    def _params(self) -> list[Any]:
        return list(dict.fromkeys(self.param_groups[0]["params"]))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Minimizes for up to max_iter iterations; returns the loss that `closure` gave at first."""
        if closure is None:
            raise TypeError(
                "[LBFGS] step needs a closure that computes the gradients and returns the loss, came None"
            )
        group = self.param_groups[0]
        held = self.state[self._params[0]]
        s = {name: _arrays(value) for name, value in held.items()}
        s.setdefault("func_evals", 0)
        s.setdefault("n_iter", 0)
        with enable_grad():
            first = closure()
        s["func_evals"] += 1
        g = self._gradient()
        if abs(g).max() > group["tolerance_grad"]:
            self._minimize(group, s, closure, float(first), g)
        held.update((name, _tensors(value)) for name, value in s.items())
        return first

    def _minimize(self, group: dict[str, Any], s: dict[str, Any], closure: Any, loss: float, g: Any) -> None:
        evaluations, least = 1, group["tolerance_change"]
        for i in range(1, group["max_iter"] + 1):
            s["n_iter"] += 1
            begun = s["n_iter"] > 1
            direction(s, g, group["history_size"])
            s["prev_flat_grad"], s["prev_loss"] = g, loss
            s["t"] = number(group["lr"]) * (1 if begun else min(1.0, 1.0 / abs(g).sum()))
            d, slope = s["d"], g.dot(s["d"])
            if slope > -least:
                return
            calls, last = 0, i == group["max_iter"]
            if group["line_search_fn"]:
                start = [p.array.copy() for p in self._params]

                def at(t: Any, start: Any = start, d: Any = d) -> tuple[float, Any]:
                    self._move(t, d)
                    found = self._evaluate(closure)
                    for p, before in zip(self._params, start):
                        p.array[...] = before
                        p._version[0] += 1
                    return found

                loss, g, s["t"], calls = strong_wolfe(
                    at, s["t"], d, loss, g, slope, group["max_eval"] - evaluations
                )
                self._move(s["t"], d)
            else:
                self._move(s["t"], d)
                if not last:  # nothing would look at it
                    loss, g = self._evaluate(closure)
                    calls = 1
            evaluations += calls
            s["func_evals"] += calls
            small = abs(g).max() <= group["tolerance_grad"] or abs(d * s["t"]).max() <= least
            if last or evaluations >= group["max_eval"] or small or abs(loss - s["prev_loss"]) < least:
                return

    def _evaluate(self, closure: Any) -> tuple[float, Any]:
        with enable_grad():
            loss = float(closure())
        return loss, self._gradient()

    def _gradient(self) -> Any:
        parts = []
        for p in self._params:
            xp = array_namespace[type(p.array)]
            g = xp.zeros_like(p.array) if p._grad is None else p._grad.array
            parts.append(_real(g.reshape(-1)))
        return xp.concatenate(parts)

    def _move(self, t: Any, d: Any) -> None:
        at = 0
        for p in self._params:
            array = p.array
            n = array.size * (2 if array.dtype.kind == "c" else 1)
            array += (d[at : at + n] * t).view(array.dtype).reshape(array.shape)
            p._version[0] += 1
            at += n


def direction(s: dict[str, Any], g: Any, history_size: int) -> None:
    """Notes the last step and sets s["d"], the direction to go (Nocedal & Wright, algorithm 7.4)."""
    if s["n_iter"] == 1:
        s.update(d=-g, old_dirs=[], old_stps=[], ro=[], H_diag=1)
        return
    y, step = g - s["prev_flat_grad"], s["d"] * s["t"]
    product = y.dot(step)
    if product > 1e-10:
        for name, value in (("old_dirs", y), ("old_stps", step), ("ro", 1.0 / product)):
            s[name].append(value)
            del s[name][:-history_size]
        s["H_diag"] = product / y.dot(y)
    d = -g
    weights = []
    for y, step, ro in zip(reversed(s["old_dirs"]), reversed(s["old_stps"]), reversed(s["ro"])):
        weights.append(step.dot(d) * ro)
        d -= y * weights[-1]
    d *= s["H_diag"]
    for y, step, ro, weight in zip(s["old_dirs"], s["old_stps"], s["ro"], reversed(weights)):
        d += step * (weight - y.dot(d) * ro)
    s["d"] = d
    s["al"] = [*reversed(weights), *[None] * (history_size - len(weights))]


def strong_wolfe(
    at: Evaluate, t: Any, d: Any, f: float, g: Any, slope: Any, max_ls: int, c1: float = 1e-4, c2: float = 0.9
) -> tuple[float, Any, Any, int]:
    """A step size with enough decrease and a flat enough slope: (loss, gradient, step size, evaluations).

    Nocedal & Wright, algorithms 3.5 and 3.6, with cubic interpolation and the safeguards of minFunc.
    """
    calls, width = 1, abs(d).max()
    before = (0, f, g, slope)
    f_new, g_new = at(t)
    new = (t, f_new, g_new, g_new.dot(d))
    ends: list[Any] = []
    done = False
    for i in range(max_ls):
        t, f_new, _, slope_new = new
        if f_new > f + c1 * t * slope or (i > 1 and f_new >= before[1]):
            ends = [before, new]
        elif abs(slope_new) <= -c2 * slope:
            ends, done = [new], True
        elif slope_new >= 0:
            ends = [before, new]
        if ends:
            break
        further = interpolate(before, new, (t + 0.01 * (t - before[0]), t * 10))
        before = new
        f_new, g_new = at(further)
        new = (further, f_new, g_new, g_new.dot(d))
        calls += 1
    if not ends:
        ends = [(0, f, g, slope), new]
    low, high = (0, 1) if ends[0][1] <= ends[-1][1] else (1, 0)
    stalled = False
    while not done and calls - 1 < max_ls and abs(ends[1][0] - ends[0][0]) * width >= 1e-9:
        least, most = sorted((ends[0][0], ends[1][0]))
        t = interpolate(ends[0], ends[1], (least, most))
        margin = 0.1 * (most - least)
        if min(most - t, t - least) < margin:  # too near an end of the bracket
            if stalled or t >= most or t <= least:
                t = most - margin if abs(t - most) < abs(t - least) else least + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        f_new, g_new = at(t)
        calls += 1
        new = (t, f_new, g_new, g_new.dot(d))
        if f_new > f + c1 * t * slope or f_new >= ends[low][1]:
            ends[high] = new
            low, high = (0, 1) if ends[0][1] <= ends[1][1] else (1, 0)
        else:
            if abs(new[3]) <= -c2 * slope:
                done = True
            elif new[3] * (ends[high][0] - ends[low][0]) >= 0:
                ends[high] = ends[low]
            ends[low] = new
    t, f_new, g_new, _ = ends[low]
    return f_new, g_new, t, calls


def interpolate(a: Any, b: Any, bounds: tuple[Any, Any]) -> Any:
    """The minimum of the cubic through two points (place, value, _, slope), kept inside of the bounds."""
    (x1, f1, _, g1), (x2, f2, _, g2) = (a, b) if a[0] <= b[0] else (b, a)
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1**2 - g1 * g2
    if not square >= 0:
        return (bounds[0] + bounds[1]) / 2.0
    d2 = square**0.5
    place = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    return min(max(place, bounds[0]), bounds[1])


def _real(a: Any) -> Any:
    return a.view(f"f{a.itemsize // 2}") if a.dtype.kind == "c" else a


def _arrays(value: Any) -> Any:
    """State without tensors around it; 0-d ones become NumPy scalars."""
    if isinstance(value, list):
        return [_arrays(v) for v in value]
    if isinstance(value, Variable):
        return value.array if value.array.ndim else value.array[()]
    return value


def _tensors(value: Any) -> Any:
    if isinstance(value, list):
        return [_tensors(v) for v in value]
    if isinstance(value, np.generic):
        return wrap(np.asarray(value))
    return wrap(value) if type(value) in array_namespace else value
