"""Checkpoints that all ranks write together: each its share, whole or not at all, read on any number of ranks.

`Checkpointer` keeps a folder of them by step; `save`, `async_save` and `load` are torch.distributed.checkpoint's names
for one alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ...autograd.engine import Variable
from ...autograd.mode import no_grad
from ..group import Group
from .checkpointer import Checkpointer, group_of
from .loading import read
from .saving import Saving

__all__ = ["Checkpointer", "Saving", "async_save", "load", "save"]

_under_way: dict[str, Saving] = {}  # by folder


def save(
    state_dict: Any, checkpoint_id: str | os.PathLike[str], process_group: Group | None = None, **_: Any
) -> None:
    """Saves a nested state into the folder `checkpoint_id`; all ranks call it, each writes a share.

    What ranks hold under the same keys must be the same and is written once; what one rank holds alone is added. The
    folder keeps the checkpoint that it held until the new one is whole on disk.
    Raises on all ranks: ValueError for states that contradict each other, CheckpointError or OSError for what failed
    on one of them. Further arguments of torch.distributed.checkpoint.save are accepted and change nothing.
    """
    _start(state_dict, checkpoint_id, process_group, snapshot=False).wait()


def async_save(
    state_dict: Any,
    checkpoint_id: str | os.PathLike[str],
    process_group: Group | None = None,
    steady: Iterable[Any] = (),
    **_: Any,
) -> Saving:
    """As `save`, but returns once the tensors are copied; `wait()` of the result ends it, on all ranks.

    steady: optimizers and tensors that nobody writes until `copied()` of the result, and that are copied beside.

    A second save into the folder waits for the first. `Checkpointer` also keeps the copies' memory from save to save.
    """
    return _start(state_dict, checkpoint_id, process_group, True, steady)


def _start(
    state_dict: Any,
    checkpoint_id: str | os.PathLike[str],
    group: Group | None,
    snapshot: bool,
    steady: Iterable[Any] = (),
) -> Saving:
    folder = os.path.abspath(checkpoint_id)
    if (before := _under_way.pop(folder, None)) is not None:
        before.wait()
    saving = Saving(state_dict, folder, group_of(group), {} if snapshot else None, steady)
    if snapshot:
        _under_way[folder] = saving
    return saving


def load(
    state_dict: dict[str, Any] | None = None,
    checkpoint_id: str | os.PathLike[str] | None = None,
    process_group: Group | None = None,
    **_: Any,
) -> Any:
    """The state in the folder `checkpoint_id`, on any number of ranks; each reads all of it.

    state_dict: where given, its tensors are overwritten in place and its other values replaced, as PyTorch does; keys
    that the checkpoint lacks are a KeyError that lists them, and nothing is changed then.
    Raises FileNotFoundError where no save was completed, CheckpointError naming what is damaged.
    """
    if checkpoint_id is None:
        raise TypeError("[checkpoint] load needs checkpoint_id, the folder that save was given")
    state = read(os.path.abspath(checkpoint_id))
    if state_dict is not None:
        if missing := list(_missing(state_dict, state, "")):
            raise KeyError(f"[checkpoint] {checkpoint_id} must hold {', '.join(missing)}, and does not")
        _fill(state_dict, state)
    return state


def _missing(wanted: Any, found: Any, path: str) -> Any:
    for key, value in wanted.items():
        inner = f"{path}[{key!r}]"
        if not isinstance(found, dict) or key not in found:
            yield inner
        elif isinstance(value, dict):
            yield from _missing(value, found[key], inner)
        elif isinstance(value, Variable) and getattr(found[key], "shape", None) != value.shape:
            yield f"{inner} of shape {list(value.shape)}"


@no_grad()
def _fill(wanted: dict[Any, Any], found: dict[Any, Any]) -> None:
    for key, value in wanted.items():
        if isinstance(value, dict):
            _fill(value, found[key])
        elif isinstance(value, Variable):
            value.copy_(found[key])
        else:
            wanted[key] = found[key]
