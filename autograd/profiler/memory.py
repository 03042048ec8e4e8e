"""Memory as the ops see it: when the arrays that they take and make come, and when they go."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Iterable
from html import escape
from typing import Any

CATEGORIES = ("parameter", "input", "activation", "gradient")
COLOURS = ("#4878a8", "#8cb369", "#f4a259", "#bc4b51")


def owner(array: Any) -> Any:
    """The array whose memory this one shows."""
    while (
        getattr(array, "base", None) is not None
        and hasattr(array.base, "nbytes")
        and hasattr(array.base, "shape")
    ):
        array = array.base
    return array


class Tracker:
    """Notes (time, bytes that came or went, category); an array counts once, however many views there are."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, int, int]] = []
        self._live: dict[int, Any] = {}
        self._lock = threading.RLock()  # an array may go while another is noted

    def note(self, arrays: Iterable[Any], category: str, time: int) -> int:
        """Follows arrays from now on; returns the bytes of those that are new."""
        new, kind = 0, CATEGORIES.index(category)
        for array in arrays:
            root = owner(array)
            size = int(root.nbytes)
            with self._lock:
                if id(root) in self._live or not size:
                    continue
                try:
                    self._live[id(root)] = weakref.ref(root, self._forget(id(root), size, kind))
                except TypeError:  # a backend whose arrays cannot be followed
                    continue
                self.changes.append((time, size, kind))
            new += size
        return new

    def _forget(self, key: int, size: int, kind: int) -> Any:
        from .recorder import now

        def forget(_: Any) -> None:
            with self._lock:
                self._live.pop(key, None)
                self.changes.append((now(), -size, kind))

        return forget

    def timeline(self) -> tuple[list[int], list[list[int]]]:
        """Times in nanoseconds, and for each the bytes of each category (see CATEGORIES)."""
        with self._lock:
            changes = sorted(self.changes, key=lambda change: change[0])
        times: list[int] = []
        sizes: list[list[int]] = []
        now = [0] * len(CATEGORIES)
        for time, size, kind in changes:
            now[kind] += size
            if times and times[-1] == time:
                sizes[-1] = list(now)
            else:
                times.append(time)
                sizes.append(list(now))
        return times, sizes

    def peak(self) -> int:
        """The most bytes at one time."""
        return max((sum(row) for row in self.timeline()[1]), default=0)


def write_timeline(path: str, tracker: Tracker) -> None:
    """The timeline as a page with a picture, or for .json as [times in us, bytes by category]."""
    times, sizes = tracker.timeline()
    with open(path, "w") as file:
        if path.endswith(".json"):
            json.dump({"times_us": [t / 1e3 for t in times], "categories": CATEGORIES, "bytes": sizes}, file)
        else:
            file.write(_page(times, sizes, tracker.peak()))


def _page(times: list[int], sizes: list[list[int]], peak: int) -> str:
    legend = "".join(
        f'<tspan fill="{colour}" dx="12">&#9632; {escape(name)}</tspan>'
        for name, colour in zip(CATEGORIES, COLOURS)
    )
    title = f"Memory of tensors: at most {peak / 2**20:.2f} MiB"
    return (
        '<!DOCTYPE html><html><head><meta charset="utf-8"/><title>Memory timeline</title></head><body>\n'
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 440" font-family="sans-serif" font-size="13">\n'
        f'<text x="60" y="20">{title}</text><text x="560" y="20">{legend}</text>\n'
        f"{_areas(times, sizes, peak)}\n{_axes(times, peak)}\n</svg></body></html>\n"
    )


def _areas(times: list[int], sizes: list[list[int]], peak: int) -> str:
    """One polygon a category, stacked; memory stays as it is until it changes."""
    if not times:
        return ""
    span, height = max(times[-1] - times[0], 1), max(peak, 1)
    xs = [60 + 920 * (t - times[0]) / span for t in times]
    areas, below = [], [0] * len(times)
    for kind, colour in enumerate(COLOURS):
        above = [low + row[kind] for low, row in zip(below, sizes)]
        edges = [_stairs(xs, [400 - 370 * v / height for v in level]) for level in (above, below)]
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in edges[0] + edges[1][::-1])
        areas.append(
            f'<polygon fill="{colour}" points="{points}"><title>{CATEGORIES[kind]}</title></polygon>'
        )
        below = above
    return "\n".join(areas)


def _stairs(xs: list[float], ys: list[float]) -> list[tuple[float, float]]:
    points = [(xs[0], ys[0])]
    for i in range(1, len(xs)):
        points += [(xs[i], ys[i - 1]), (xs[i], ys[i])]
    return points


def _axes(times: list[int], peak: int) -> str:
    span = (times[-1] - times[0]) / 1e6 if times else 0.0
    marks = [
        f'<text x="{60 + 920 * i / 4:.0f}" y="418" text-anchor="middle">{span * i / 4:.2f} ms</text>'
        for i in range(5)
    ]
    marks += [
        f'<text x="55" y="{404 - 370 * i / 4:.0f}" text-anchor="end">{peak * i / 4 / 2**20:.1f} MiB</text>'
        for i in range(5)
    ]
    return '<path d="M60,30V400H980" fill="none" stroke="#444"/>' + "".join(marks)
