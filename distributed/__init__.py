"""Process groups, collectives and data-parallel training."""

from typing import TYPE_CHECKING

from .errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from .group import Group
from .process_group import *  # noqa: F403
from .process_group import __all__ as _functions
from .work import Work

if TYPE_CHECKING:
    from .ddp import DistributedDataParallel

ProcessGroup = Group


def __getattr__(name: str) -> object:
    # Late: collectives alone need no layers.
    if name == "DistributedDataParallel":
        from .ddp import DistributedDataParallel

        return DistributedDataParallel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    *_functions,
    "CollectiveMismatch",
    "CollectiveTimeout",
    "DistributedDataParallel",
    "DistributedError",
    "Group",
    "PeerFailure",
    "ProcessGroup",
    "Work",
]
