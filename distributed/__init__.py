"""Process groups, collectives and data-parallel training."""

from typing import TYPE_CHECKING

from .errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from .group import Group
from .point_to_point import *  # noqa: F403
from .point_to_point import __all__ as _messages
from .process_group import *  # noqa: F403
from .process_group import __all__ as _functions
from .work import Work

if TYPE_CHECKING:
    from .ddp import DistributedDataParallel
    from .hooks import GradBucket
    from .join import Join, Joinable, JoinHook
    from .reproducible import KeyedDataset, ShardSampler
    from .sharded import ShardedDataParallel
    from .sync_batch_norm import SyncBatchNorm
    from .zero import ZeroRedundancyOptimizer

ProcessGroup = Group


LATE = {  # collectives alone need no layers
    "DistributedDataParallel": "ddp",
    "GradBucket": "hooks",
    "Join": "join",
    "JoinHook": "join",
    "Joinable": "join",
    "KeyedDataset": "reproducible",
    "ShardSampler": "reproducible",
    "ShardedDataParallel": "sharded",
    "SyncBatchNorm": "sync_batch_norm",
    "ZeroRedundancyOptimizer": "zero",
}


def __getattr__(name: str) -> object:
    import importlib

    if name in LATE:
        return getattr(importlib.import_module(f".{LATE[name]}", __name__), name)
    if name in ("functional", "hooks"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    *_functions,
    *_messages,
    "CollectiveMismatch",
    "CollectiveTimeout",
    "DistributedDataParallel",
    "DistributedError",
    "GradBucket",
    "Group",
    "Join",
    "JoinHook",
    "Joinable",
    "KeyedDataset",
    "PeerFailure",
    "ProcessGroup",
    "ShardSampler",
    "ShardedDataParallel",
    "SyncBatchNorm",
    "Work",
    "ZeroRedundancyOptimizer",
]
