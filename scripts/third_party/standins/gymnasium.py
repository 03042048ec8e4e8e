"""gymnasium by its other name."""

from gym import *  # noqa: F403
