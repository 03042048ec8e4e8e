"""Collectives drawn by number: each is begun, and its result compared with NumPy's."""

from collections.abc import Callable, Sequence

import numpy as np

from ringgrad.distributed.group import Group


def values(rank: int, count: int, dtype: type) -> np.ndarray:
    """Small whole numbers, so that sums are exact in every order and dtype."""
    return (np.arange(count) * 7 + rank * 3).astype(np.int64).__mod__(5).astype(dtype)


def per_rank(group: Group, count: int, dtype: type) -> list[np.ndarray]:
    return [values(r, count, dtype) for r in range(group.size)]


Step = tuple[str, int, int, int, bool]  # verb, elements a rank, which op or root, which dtype, async?
VERBS = (
    "all_reduce",
    "broadcast",
    "all_gather",
    "reduce_scatter",
    "reduce",
    "all_to_all",
    "gather",
    "scatter",
    "barrier",
)


def begin(group: Group, step: Step) -> Callable[[], None]:
    """Start one collective, and give back what waits for it and compares with NumPy."""
    verb, count, pick, kind, async_op = step
    dtype = (np.int64, np.float32, np.uint8)[kind]
    w, r, root = group.size, group.rank, pick % group.size
    op = ("sum", "max", "min")[pick % 3]
    reduced = {"sum": np.add, "max": np.maximum, "min": np.minimum}[op]
    if verb == "barrier":
        work = group.barrier(async_op=async_op)
        return lambda: work.wait() and None  # type: ignore[return-value]
    wide = count * (w if verb in ("reduce_scatter", "all_to_all", "scatter") else 1)
    parts = per_rank(group, wide, dtype)  # type: ignore[arg-type]
    mine, out = parts[r].copy(), np.zeros(count * w, dtype)
    total = parts[0].copy()
    for part in parts[1:]:
        total = reduced(total, part)
    blocks = [part.reshape(w, -1)[r] for part in parts] if verb == "all_to_all" else []
    if verb == "all_reduce":
        work, result, expected = group.all_reduce(mine, op, async_op=async_op), mine, total
    elif verb == "reduce":
        work, result = group.reduce(mine, root, op, async_op=async_op), mine
        expected = total if r == root else parts[r]
    elif verb == "broadcast":
        work, result, expected = group.broadcast(mine, root, async_op=async_op), mine, parts[root]
    elif verb == "all_gather":
        work, result, expected = group.all_gather(out, mine, async_op=async_op), out, np.concatenate(parts)
    elif verb == "reduce_scatter":
        result = out[:count]
        work, expected = group.reduce_scatter(result, mine, op, async_op=async_op), total.reshape(w, -1)[r]
    elif verb == "all_to_all":
        work, result, expected = group.all_to_all(out, mine, async_op=async_op), out, np.concatenate(blocks)
    elif verb == "gather":
        at_root = r == root
        work, result = group.gather(mine, out if at_root else None, root, async_op=async_op), out
        expected = np.concatenate(parts) if at_root else np.zeros_like(out)
    else:
        result = out[:count]
        work = group.scatter(result, mine if r == root else None, root, async_op=async_op)
        expected = parts[root].reshape(w, -1)[r]

    def check() -> None:
        assert work.wait() and (result == expected).all(), (step, result, expected)

    return check


def run_sequence(group: Group, steps: Sequence[Step]) -> None:
    for check in [begin(group, step) for step in steps]:
        check()
