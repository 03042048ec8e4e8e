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
    from .backend import Backend, get_default_backend_for_device
    from .ddp import DistributedDataParallel
    from .hooks import GradBucket
    from .join import Join, Joinable, JoinHook
    from .reproducible import KeyedDataset, ShardSampler
    from .sharded import ShardedDataParallel
    from .store import DistStoreError, FileStore, HashStore, PrefixStore, Store
    from .sync_batch_norm import SyncBatchNorm
    from .tcp_store import TCPStore
    from .zero import ZeroRedundancyOptimizer

ProcessGroup = Group


LATE = {  # collectives alone need no layers, and no stores
    "Backend": "backend",
    "DistStoreError": "store",
    "DistributedDataParallel": "ddp",
    "FileStore": "store",
    "GradBucket": "hooks",
    "HashStore": "store",
    "Join": "join",
    "JoinHook": "join",
    "Joinable": "join",
    "KeyedDataset": "reproducible",
    "PrefixStore": "store",
    "ShardSampler": "reproducible",
    "ShardedDataParallel": "sharded",
    "Store": "store",
    "SyncBatchNorm": "sync_batch_norm",
    "TCPStore": "tcp_store",
    "ZeroRedundancyOptimizer": "zero",
    "get_default_backend_for_device": "backend",
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
    "Backend",
    "CollectiveMismatch",
    "CollectiveTimeout",
    "DistStoreError",
    "DistributedDataParallel",
    "DistributedError",
    "FileStore",
    "GradBucket",
    "Group",
    "HashStore",
    "Join",
    "JoinHook",
    "Joinable",
    "KeyedDataset",
    "PeerFailure",
    "PrefixStore",
    "ProcessGroup",
    "ShardSampler",
    "ShardedDataParallel",
    "Store",
    "SyncBatchNorm",
    "TCPStore",
    "Work",
    "ZeroRedundancyOptimizer",
    "get_default_backend_for_device",
]
