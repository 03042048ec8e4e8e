"""The state of an optimizer over slices, as one over whole parameters has it, and back; for any number of ranks.

A piece is a run of parameters, of all whose elements each rank has a slice of equal length (sharded.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.engine import wrap

Shapes = Sequence[Sequence[int]]


def held(model: Any) -> dict[str, Any]:
    """What this rank holds, under keys with its rank in them; the ranks' together are what `whole` takes."""
    slices = [dict(model.optimizer.state.get(piece.shard, {})) for piece in model._pieces]
    return {
        "state": {},
        "param_groups": groups(model),
        "pieces": [
            {
                "params": [model.numbers[id(p)] for _, p in piece.parameters],
                "shapes": [list(p.array.shape) for _, p in piece.parameters],
                "length": piece.length,
            }
            for piece in model._pieces
        ],
        "slices": {model.process_group.rank: dict(enumerate(slices))},
    }


def groups(model: Any) -> list[dict[str, Any]]:
    """The optimizer's groups, with the numbers of parameters instead of those of slices."""
    own = model.optimizer.state_dict()["param_groups"]
    return [
        {**group, "params": [model.numbers[id(p)] for p in given["params"]]}
        for group, given in zip(own, model.param_groups)
    ]


def whole(saved: dict[str, Any]) -> dict[str, Any]:
    """An ordinary state_dict from what all ranks held; an ordinary one stays."""
    if "slices" not in saved:
        return saved
    ranks = [saved["slices"][rank] for rank in sorted(saved["slices"])]
    state: dict[int, dict[str, Any]] = {}
    for index, piece in enumerate(saved["pieces"]):
        for name in ranks[0][index]:
            values = joined([rank[index][name] for rank in ranks], piece["length"], piece["shapes"])
            for number, value in zip(piece["params"], values):
                state.setdefault(number, {})[name] = value
    return {"state": dict(sorted(state.items())), "param_groups": saved["param_groups"]}


def gathered(model: Any) -> dict[str, Any]:
    """The same from the ranks themselves; all of them call it."""
    group = model.process_group
    state: dict[int, dict[str, Any]] = {}
    for piece in model._pieces:
        shapes = [p.array.shape for _, p in piece.parameters]
        for name, value in model.optimizer.state.get(piece.shard, {}).items():
            values = [value] * len(shapes)
            if _is_slice(value, piece.length):
                flat = np.empty(piece.length * group.size, value.array.dtype)
                group.all_gather(flat, value.array)
                values = [wrap(part.copy()) for part in cut(flat, shapes)]
            for (_, p), part in zip(piece.parameters, values):
                state.setdefault(model.numbers[id(p)], {})[name] = part
    return {"state": dict(sorted(state.items())), "param_groups": groups(model)}


def take(model: Any, state_dict: dict[str, Any]) -> None:
    """Gives this rank's optimizer its slices of a whole state."""
    state_dict = whole(state_dict)
    state: dict[int, dict[str, Any]] = {}
    own = model.optimizer.state_dict()["param_groups"]
    if len(own) != len(state_dict["param_groups"]):
        raise ValueError(
            f"[load_state_dict] there must be {len(own)} parameter groups, came {len(state_dict['param_groups'])}"
        )
    places = {id(p): i for i, p in enumerate(p for g in model.optimizer.param_groups for p in g["params"])}
    for piece in model._pieces:
        rows = [state_dict["state"].get(model.numbers[id(p)], {}) for _, p in piece.parameters]
        names = set(rows[0]).intersection(*rows[1:])
        state[places[id(piece.shard)]] = {n: _slice(model, piece, [row[n] for row in rows]) for n in names}
    loaded = [{**saved, "params": mine["params"]} for saved, mine in zip(state_dict["param_groups"], own)]
    model.optimizer.load_state_dict({"state": state, "param_groups": loaded})


def joined(slices: Sequence[Any], length: int, shapes: Shapes) -> list[Any]:
    """Each parameter's part of one value of the state, from all ranks' slices of it."""
    if not _is_slice(slices[0], length):
        return [slices[0]] * len(shapes)
    flat = np.concatenate([value.array for value in slices])
    return [wrap(part.copy()) for part in cut(flat, shapes)]


def cut(flat: Any, shapes: Shapes) -> list[Any]:
    """The parts of a flat array, one after another, in their shapes."""
    offsets = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)]).tolist()
    return [flat[a:b].reshape(shape) for a, b, shape in zip(offsets, offsets[1:], shapes)]


def _is_slice(value: Any, length: int) -> bool:
    return getattr(getattr(value, "array", None), "shape", None) == (length,)


def _slice(model: Any, piece: Any, values: list[Any]) -> Any:
    shapes = [p.array.shape for _, p in piece.parameters]
    arrays: list[Any] = [getattr(v, "array", None) for v in values]
    if any(a is None or a.shape != shape or not shape for a, shape in zip(arrays, shapes)):
        return values[0]
    flat = np.zeros(piece.length * model.process_group.size, arrays[0].dtype)
    for part, array in zip(cut(flat, shapes), arrays):
        part[...] = array
    return wrap(flat[model.process_group.rank * piece.length :][: piece.length].copy())
