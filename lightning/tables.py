"""Tables for the terminal."""

from __future__ import annotations

from typing import Any


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


def summary_table(rows: list[tuple[str, str, int, bool]], total: int, trainable: int, n_bytes: int) -> None:
    """Prints a module's parts with their parameters."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("name", "type", "parameters", "mode"):
        table.add_column(name, justify="right" if name == "parameters" else "left")
    for name, kind, count, training in rows:
        table.add_row(name, kind, f"{count:,}", "train" if training else "eval")
    console: Any = Console()
    console.print(table)
    console.print(f"{trainable:,} of {total:,} parameters are trainable; they take {n_bytes / 1e6:.3g} MB")
