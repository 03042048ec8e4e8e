"""Tables for the terminal."""

from __future__ import annotations

from typing import Any, NamedTuple


def results_table(stage: str, logged: list[dict[str, float]]) -> None:
    """Prints what a validation or test round has logged, a column for each loader."""
    from rich.console import Console
    from rich.table import Table

    names = sorted({name for part in logged for name in part})
    table = Table()
    table.add_column(f"{stage} metric")
    for i in range(len(logged)):
        table.add_column("value" if len(logged) == 1 else f"loader {i}", justify="right")
    for name in names:
        table.add_row(name, *(f"{part[name]:.6g}" if name in part else "" for part in logged))
    if names:
        Console().print(table)


class Row(NamedTuple):
    """A part of a module; flops: of its forward, -1 where it did not run."""

    name: str
    kind: str
    parameters: int
    training: bool
    inputs: str = ""
    outputs: str = ""
    flops: int = -1


def summary_table(rows: list[Row], total: int, trainable: int, n_bytes: int) -> None:
    """Prints a module's parts with their parameters and, where they are known, shapes and operations."""
    from rich.console import Console
    from rich.table import Table

    shapes = any(row.flops >= 0 for row in rows)
    table = Table()
    for name in ("name", "type", "parameters", "mode", *(("in", "out", "FLOPs") if shapes else ())):
        table.add_column(name, justify="right" if name in ("parameters", "FLOPs") else "left")
    for row in rows:
        more = (row.inputs, row.outputs, f"{row.flops:,}" if row.flops >= 0 else "")
        mode = "train" if row.training else "eval"
        table.add_row(row.name, row.kind, f"{row.parameters:,}", mode, *(more if shapes else ()))
    console: Any = Console()
    console.print(table)
    console.print(f"{trainable:,} of {total:,} parameters are trainable; they take {n_bytes / 1e6:.3g} MB")
