"""Where scripts write pictures, nothing is written."""

from typing import Any

import torch


def save_image(*_: Any, **__: Any) -> None:
    pass


def make_grid(tensor: Any, *_: Any, **__: Any) -> Any:
    """The pictures beside each other, three channels each."""
    row = torch.cat(list(tensor), dim=-1)
    return row.expand(3, *row.shape[1:])


def _log_api_usage_once(what: Any) -> None:
    pass


def _make_ntuple(x: Any, n: int) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,) * n
