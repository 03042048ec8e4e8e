"""What was compiled, in words."""

from __future__ import annotations

from typing import Any

from .compiled import Compiled
from .door import OptimizedModule


def explain(fn: Any) -> str:
    """What became of a compiled function or module: recordings, what each pass did, why something runs eagerly."""
    compiled = fn._call if isinstance(fn, OptimizedModule) else getattr(fn, "__func__", fn)
    if not isinstance(compiled, Compiled):
        raise TypeError(f"[explain] must be given what compile() returned, came {type(fn).__name__}")
    name = getattr(compiled.fn, "__qualname__", type(compiled.fn).__name__)
    calls = ", ".join(f"{n} {kind}" for kind, n in compiled.calls.items())
    lines = [f"{name}: calls: {calls}"]
    for entry in compiled.table.values():
        for i, recording in enumerate(entry.recordings):
            g = recording.optimized
            lines.append(
                f"recording {i + 1}: {len(recording.graph.nodes)} operations traced, {len(g.nodes)} left;"
                f" compiled in {recording.seconds * 1e3:.0f} ms"
            )
            lines += [f"  {line}" for line in recording.report]
            plan = recording.program.plan
            lines.append(f"  memory: values of {plan.asked:,} bytes in an arena of {plan.peak:,}")
        if entry.eager is not None:
            lines.append(f"runs eagerly: {entry.eager}")
        elif not entry.recordings:
            lines.append(f"not yet recorded: {entry.why or 'two calls alike are needed'}")
    if compiled.full:
        lines.append(f"other calls run eagerly: {compiled.full}")
    return "\n".join(lines)


__all__ = ["explain"]
