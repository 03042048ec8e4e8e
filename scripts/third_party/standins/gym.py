"""CartPole's interface over its equations of motion (Barto, Sutton and Anderson, 1983), Euler steps of 0.02 s."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class Space:
    def __init__(self, n: int) -> None:
        self.n, self.shape = n, (n,)

    def sample(self) -> int:
        return int(np.random.randint(self.n))


class CartPole:
    action_space, observation_space = Space(2), Space(4)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None or not hasattr(self, "rng"):
            self.rng = np.random.default_rng(0 if seed is None else seed)
        self.state, self.time = self.rng.uniform(-0.05, 0.05, 4), 0
        return self.state.astype(np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        speed, angle, turn = self.state[1:]
        force = 10.0 if action == 1 else -10.0
        part = (force + 0.05 * turn**2 * math.sin(angle)) / 1.1
        pull = 9.8 * math.sin(angle) - math.cos(angle) * part
        twist = pull / (0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / 1.1))
        push = part - 0.05 * twist * math.cos(angle) / 1.1
        self.state = self.state + 0.02 * np.array([speed, push, turn, twist])
        self.time += 1
        fell = bool(abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.2095)
        return self.state.astype(np.float32), 1.0, fell, self.time >= 200, {}

    def close(self) -> None:
        pass

    render = close

    @property
    def unwrapped(self) -> CartPole:
        return self

    x_threshold, theta_threshold_radians = 2.4, 0.2095


def make(name: str, **_: Any) -> CartPole:
    env = CartPole()
    env.spec = type("Spec", (), {"reward_threshold": 195.0})()  # type: ignore[attr-defined]
    return env
