"""Stacks: folded, as flame graph tools read them, and as a picture of their own."""

from __future__ import annotations

import zlib
from html import escape

from .events import Event, own_times, parents

WIDTH, ROW = 1200, 18
KINDS = {"op": (28, 90), "backward": (205, 70), "user": (100, 45), "": (45, 60)}  # hue and saturation


def paths(events: list[Event]) -> list[tuple[str, ...]]:
    """Where each call was: Python's frames, where they were recorded, else the ranges and calls around it."""
    found: list[tuple[str, ...]] = [()] * len(events)
    around = parents(events)
    order = sorted(range(len(events)), key=lambda i: (events[i].start, -events[i].length, -i))
    for i in order:
        event, parent = events[i], around[i]
        inside = parent >= 0 and (not event.stack or events[parent].stack == event.stack)
        found[i] = (*(found[parent] if inside else event.stack), event.name)
    return found


def folded(events: list[Event]) -> dict[tuple[str, ...], int]:
    """Nanoseconds of their own by path."""
    sums: dict[tuple[str, ...], int] = {}
    for event, path, own in zip(events, paths(events), own_times(events)):
        if event.kind != "communication":
            sums[path] = sums.get(path, 0) + max(own, 0)
    return sums


def write_stacks(path: str, events: list[Event]) -> None:
    """Lines `frame;frame;op microseconds`."""
    with open(path, "w") as file:
        for frames, time in folded(events).items():
            text = ";".join(frame.replace(";", ",") for frame in frames)
            file.write(f"{text} {time // 1000}\n")


def write_picture(path: str, events: list[Event]) -> None:
    """A flame graph as SVG: width is time, what stands above was called by what is below."""
    sums = folded(events)
    kinds = {event.name: event.kind for event in events}
    boxes: list[str] = []
    total = sum(sums.values()) or 1
    depth = _draw(sums, 0, 0.0, WIDTH / total, total, kinds, boxes)
    height = (depth + 2) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="11">\n<text x="4" y="13">{total / 1e6:.3f} ms in ops and named ranges</text>\n'
    )
    with open(path, "w") as file:
        file.write(
            f'{head}<g transform="matrix(1 0 0 -1 0 {height})">\n' + "\n".join(boxes) + "\n</g></svg>\n"
        )


def _draw(
    sums: dict[tuple[str, ...], int],
    level: int,
    x: float,
    scale: float,
    total: int,
    kinds: dict[str, str],
    boxes: list[str],
) -> int:
    """Boxes of all paths with the same first `level` frames, from `x` on; returns how deep it goes."""
    children: dict[str, dict[tuple[str, ...], int]] = {}
    for path, time in sums.items():
        if len(path) > level:
            children.setdefault(path[level], {})[path] = time
    deepest = level
    for name, inside in children.items():
        time = sum(inside.values())
        if time * scale >= 0.1:  # a tenth of a pixel
            boxes.append(
                _box(name, level, x, time * scale, f"{time / 1e3:.1f} us, {100 * time / total:.1f} %", kinds)
            )
            deepest = max(deepest, _draw(inside, level + 1, x, scale, total, kinds, boxes))
        x += time * scale
    return deepest


def _box(name: str, level: int, x: float, width: float, what: str, kinds: dict[str, str]) -> str:
    hue, saturation = KINDS.get(kinds.get(name, ""), KINDS[""])
    light = 62 + zlib.crc32(name.encode()) % 16
    label = escape(name[: int(width / 6)]) if width > 20 else ""
    return (
        f'<g transform="translate({x:.2f} {level * ROW})"><title>{escape(name)}: {what}</title>'
        f'<rect width="{max(width - 0.4, 0.1):.2f}" height="{ROW - 1}" fill="hsl({hue},{saturation}%,{light}%)"/>'
        f'<text transform="matrix(1 0 0 -1 3 5)">{label}</text></g>'
    )
