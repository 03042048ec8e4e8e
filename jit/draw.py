"""Graphs as pictures: SVG without any tool. `Graph.to_dot()` is for graphviz, which lays large graphs out better."""

from __future__ import annotations

from html import escape

from .graph import Graph, title

WIDTH, HEIGHT, GAP_X, GAP_Y = 150, 34, 16, 26
COLOURS = {
    "kernel": "#d6f5d6",
    "gradient": "#ffe9c7",
    "optimizer": "#ffd6d6",
    "op": "#ffffff",
    "backward": "#e8e3ff",
}


def to_svg(graph: Graph) -> str:
    """The nodes in layers: each below all that it reads. Green: kernels; violet: fused backward; red: optimizer."""
    makers = graph.makers()
    layer: dict[int, int] = {}
    rows: list[list[int]] = []
    index = {id(node): i for i, node in enumerate(graph.nodes)}
    for i, node in enumerate(graph.nodes):
        above = [layer[index[id(makers[k])]] for k in node.inputs() if k in makers]
        layer[i] = max(above, default=-1) + 1
        while len(rows) <= layer[i]:
            rows.append([])
        rows[layer[i]].append(i)
    place = {}
    for y, row in enumerate(rows):
        for x, i in enumerate(row):
            place[i] = (10 + x * (WIDTH + GAP_X), 10 + y * (HEIGHT + GAP_Y))
    wide = 20 + max(map(len, rows), default=1) * (WIDTH + GAP_X)
    high = 20 + len(rows) * (HEIGHT + GAP_Y)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" font-family="sans-serif">'
    ]
    for i, node in enumerate(graph.nodes):
        for source in {index[id(makers[k])] for k in node.inputs() if k in makers}:
            (a, b), (c, d) = place[source], place[i]
            ends = f'x1="{a + WIDTH // 2}" y1="{b + HEIGHT}" x2="{c + WIDTH // 2}" y2="{d}"'
            lines.append(f'<line {ends} stroke="#99a"/>')
    for i, node in enumerate(graph.nodes):
        x, y = place[i]
        colour = COLOURS.get(node.kind, "#eeeeee")
        lines.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="4" fill="{colour}" stroke="#667"/>'
        )
        made = graph.values[node.outputs[0]].type() if node.outputs else ""
        for text, down, size in ((title(node), 14, 11), (made, 28, 9)):
            lines.append(f'<text x="{x + 6}" y="{y + down}" font-size="{size}">{escape(text)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


__all__ = ["to_svg"]
