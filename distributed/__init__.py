"""Process groups, collectives and data-parallel training."""

from .errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from .group import Group
from .process_group import *  # noqa: F403
from .process_group import __all__ as _functions
from .work import Work

ProcessGroup = Group

__all__ = [
    *_functions,
    "CollectiveMismatch",
    "CollectiveTimeout",
    "DistributedError",
    "Group",
    "PeerFailure",
    "ProcessGroup",
    "Work",
]
