"""A line chart as SVG. Colours are CSS variables of the page, so that one picture fits light and dark."""

from __future__ import annotations

import math
from html import escape

Points = list[tuple[float, float]]

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 40
MOST_POINTS = 600  # more than a picture of this width can show


def chart(
    lines: dict[str, Points],
    x_label: str = "step",
    percent: bool = False,
    log: bool = False,
    zero: bool = False,
) -> str:
    """lines: name -> (x, y) by rising x. log: the y axis is logarithmic (values above 0); zero: it begins at 0."""
    kept = {name: thin([p for p in points if math.isfinite(p[1])]) for name, points in lines.items()}
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    if not xs:
        return '<p class="none">nothing was logged</p>'
    y_ticks = (
        log_ticks(min(ys), max(ys)) if log else ticks(min(0.0, *ys) if percent or zero else min(ys), max(ys))
    )
    low, high = min(*ys, y_ticks[0]), max(*ys, y_ticks[-1])
    first, last = min(xs), max(max(xs), min(xs) + 1)
    if 0 < first < last / 10:
        first = 0

    x_ticks = ticks(first, last, whole=True)

    def at_x(x: float) -> float:
        return LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        share = math.log(y / low) / math.log(high / low) if log else (y - low) / ((high - low) or 1)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(kept))}">']
    for y in y_ticks:
        label = f"{100 * y:.3g} %" if percent else number(y)
        parts.append(f'<path class="grid" d="M{LEFT} {at_y(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at_y(y) + 4:.1f}" text-anchor="end">{label}</text>')
    for x in x_ticks:
        if first <= x <= last:
            anchor = "end" if at_x(x) > WIDTH - RIGHT - 20 else "middle"
            parts.append(
                f'<text x="{at_x(x):.1f}" y="{HEIGHT - 22}" text-anchor="{anchor}">{number(x)}</text>'
            )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle" class="axis">{escape(x_label)}</text>'
    )
    for i, (name, points) in enumerate(kept.items()):
        place = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        if len(points) < 40:  # few enough to be told apart
            parts += [
                f'<circle class="c{i % 6}" cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="2.5"/>' for x, y in points
            ]
        parts.append(f'<polyline class="c{i % 6}" points="{place}"><title>{escape(name)}</title></polyline>')
    return "".join([*parts, "</svg>", legend(kept, percent)])


def legend(lines: dict[str, Points], percent: bool) -> str:
    """Names with their colours and last values."""
    items = []
    for i, (name, points) in enumerate(lines.items()):
        value = (
            (f"{100 * points[-1][1]:.3g} %" if percent else number(points[-1][1])) if points else "nothing"
        )
        items.append(f'<li><i class="c{i % 6}"></i>{escape(name)} <b>{value}</b></li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def thin(points: Points) -> Points:
    """At most MOST_POINTS: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = -(-2 * len(points) // MOST_POINTS)
    kept: Points = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to eight round numbers that span low to high."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
    step = max(1.0, step) if whole else step
    first = math.floor(low / step + 1e-9)
    count = math.ceil((high - first * step) / step - 1e-9)
    return [(first + i) * step for i in range(count + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and within a few decades 2 and 5 times them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first < 3 else (1,)
    found = [m * 10.0**e for e in range(first, last + 1) for m in steps]
    below = [t for t in found if t <= low]
    return [t for t in found if (below[-1] if below else low) <= t <= high] or [low, high]


def number(value: float) -> str:
    """Short: 1,234, 0.0123, 1.2e-05."""
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
