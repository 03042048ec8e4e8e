"""The page around the charts."""

from __future__ import annotations

from html import escape
from typing import Any

from .chart import Points, chart, number

STYLE = """
:root { --back: #ffffff; --card: #f6f7f9; --ink: #1c2128; --soft: #59636e; --line: #d9dee4;
  --c0: #0b62c4; --c1: #c2410c; --c2: #15803d; --c3: #7c3aed; --c4: #0e7490; --c5: #be185d; }
@media (prefers-color-scheme: dark) { :root { --back: #12161c; --card: #1b2129; --ink: #e8ecf1; --soft: #9aa5b1;
  --line: #333c47; --c0: #6cb2ff; --c1: #ff9f6b; --c2: #6bd58c; --c3: #b79cff; --c4: #5fd3e6; --c5: #ff8ac2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1400px; padding: 28px 20px 48px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 16px; margin: 0 0 8px; }
header p { color: var(--soft); margin: 2px 0 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 12px; margin-bottom: 16px; }
.tiles div, section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.tiles div { padding: 10px 12px; }
.tiles span { color: var(--soft); font-size: 12px; display: block; overflow-wrap: anywhere; }
.tiles b { font-size: 20px; font-variant-numeric: tabular-nums; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); } svg .axis { fill: var(--ink); }
.grid { stroke: var(--line); fill: none; } polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0;
  margin: 8px 0 0; font-size: 13px; }
.legend i { display: inline-block; width: 12px; height: 3px; margin: 0 6px 3px 0; }
.none { color: var(--soft); } table { border-collapse: collapse; width: 100%; font-size: 13px; }
td, th { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td:last-child { font-variant-numeric: tabular-nums; }
""" + "".join(
    f"polyline.c{i} {{ stroke: var(--c{i}); }} circle.c{i} {{ fill: var(--c{i}); }} "
    f".legend i.c{i} {{ background: var(--c{i}); }}\n"
    for i in range(6)
)


def page(
    title: str, subtitle: str, series: dict[str, Points], facts: dict[str, Any], hparams: dict[str, Any]
) -> str:
    """The whole file. series: name -> (step, value) of all that was logged; facts: shown as tiles."""
    tiles = "".join(f"<div><span>{escape(k)}</span><b>{escape(_text(v))}</b></div>" for k, v in facts.items())
    charts = "".join(
        f"<section><h2>{escape(name)}</h2>{picture}</section>" for name, picture in _charts(series)
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{STYLE}</style></head><body>'
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>"
        f'<div class="tiles">{tiles}</div><main>{charts}{_table("Hyperparameters", hparams)}'
        f"{_table('Last values', {k: p[-1][1] for k, p in sorted(series.items()) if p})}</main></body></html>\n"
    )


def _charts(series: dict[str, Points]) -> list[tuple[str, str]]:
    left = {name: points for name, points in series.items() if name != "epoch"}

    def take(wanted: Any) -> dict[str, Points]:
        return {name: left.pop(name) for name in list(left) if wanted(name)}

    groups: list[tuple[str, dict[str, Points], bool]] = [
        ("Loss", take(lambda n: "loss" in n.lower()), False),
        ("Learning rate", take(lambda n: n.startswith("lr-") and not n.endswith("-momentum")), False),
        ("Throughput, samples/s", take(lambda n: n == "throughput/samples_per_s"), False),
        ("Throughput, items/s", take(lambda n: n == "throughput/items_per_s"), False),
        ("Time of a step, ms", take(lambda n: n == "throughput/step_ms"), False),
        ("Where the time goes", take(lambda n: n.startswith("share/")), True),
    ]
    take(lambda n: n == "throughput/straggler")
    # The rest by the part of the name that says what it is: val_accuracy and train_accuracy in one picture.
    rest: dict[str, dict[str, Points]] = {}
    for name, points in left.items():
        what = _what(name)
        rest.setdefault(what, {})[name] = points
    groups += [(what, lines, False) for what, lines in rest.items()]
    return [(name, _picture(lines, share)) for name, lines, share in groups if lines]


def _what(name: str) -> str:
    if "/" in name:
        return name.split("/")[0] + (", MB" if name.endswith("_mb") else "")
    return name.removesuffix("_step").removesuffix("_epoch").split("_", 1)[-1]


def _picture(lines: dict[str, Points], share: bool) -> str:
    ys = [y for points in lines.values() for _, y in points]
    # A loss that falls by orders of magnitude shows its end on a logarithmic axis only.
    log = bool(ys) and not share and min(ys) > 0 and max(ys) > 50 * min(ys)
    return chart(lines, percent=share, log=log, zero=all(n.startswith("throughput/") for n in lines))


def _table(title: str, values: dict[str, Any]) -> str:
    if not values:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(k))}</td><td>{escape(_text(v))}</td></tr>" for k, v in values.items()
    )
    return f"<section><h2>{escape(title)}</h2><table>{rows}</table></section>"


def _text(value: Any) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
