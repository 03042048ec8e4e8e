"""Random numbers: one seed for all sources, and their states for checkpoints."""

from __future__ import annotations

import os
import random
import secrets
from typing import Any

import numpy as np

from ..tensor.generator import default_generator


def seed_everything(seed: int | None = None, workers: bool = False, verbose: bool = True) -> int:
    """Seeds ringgrad, NumPy and Python; returns the seed. None: PL_GLOBAL_SEED of the environment, else one at random.

    All ranks get the same seed, so that they build the same model. workers: changes nothing, as the loader's
    workers are seeded from the one generator anyway. Raises ValueError outside 0 ... 2**32 - 1.
    """
    if seed is None:
        seed = int(os.environ.get("PL_GLOBAL_SEED") or secrets.randbelow(1 << 32))
    seed = int(seed)
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"[seed_everything] seed must be in 0 ... 4294967295, came {seed}")
    os.environ["PL_GLOBAL_SEED"] = str(seed)
    random.seed(seed)
    np.random.seed(seed)
    default_generator.manual_seed(seed)
    if verbose and os.environ.get("RANK", "0") == "0":
        print(f"Seed set to {seed}")
    return seed


def rng_state() -> dict[str, Any]:
    """The states of the three sources, of plain values only."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, following = random.getstate()
    return {
        "ringgrad": default_generator.get_state().tobytes(),
        "numpy": [str(name), keys.tobytes(), int(position), int(has_gauss), float(gauss)],  # type: ignore[union-attr]
        "python": [version, np.array(internal, np.uint64).tobytes(), following],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts the three sources into states from `rng_state`."""
    default_generator.set_state(np.frombuffer(state["ringgrad"], np.uint8).copy())
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.frombuffer(keys, np.uint32), position, has_gauss, gauss))
    version, internal, following = state["python"]
    random.setstate((version, tuple(np.frombuffer(internal, np.uint64).tolist()), following))
