"""torch.distributed's functions. Tensors and NumPy arrays are both taken; single-process scripts need no
`if`.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.engine import array_namespace
from ..launch.environment import settle
from . import failure
from .bootstrap import join_time, open_transport, place
from .group import DEFAULT_TIMEOUT, Group
from .meeting import meet_through
from .reduction import ReduceOp
from .work import Work

if TYPE_CHECKING:
    from .store import Store

__all__ = [
    "ReduceOp",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "destroy_process_group",
    "gather",
    "gather_object",
    "get_backend",
    "get_global_rank",
    "get_group_rank",
    "get_process_group_ranks",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "is_available",
    "is_gloo_available",
    "is_initialized",
    "is_mpi_available",
    "is_nccl_available",
    "is_torchelastic_launched",
    "new_group",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "scatter_object_list",
]

_world: Group | None = None


def is_available() -> bool:
    """True: this package needs nothing that could be missing."""
    return True


def is_gloo_available() -> bool:
    """True: backend="gloo" is taken as "the best transport for CPU tensors"."""
    return True


def is_mpi_available() -> bool:
    """Whether mpi4py is installed."""
    from importlib.util import find_spec

    return find_spec("mpi4py") is not None


def is_nccl_available() -> bool:
    """Whether GPU tensors can go between GPUs by NCCL."""
    from ..tensor.backend.cuda import runtime

    if not runtime.device_count():
        return False
    from .transport import nccl

    return nccl.library() is not None


def is_torchelastic_launched() -> bool:
    """Whether torchrun started this process."""
    import os

    return "TORCHELASTIC_RUN_ID" in os.environ


def is_initialized() -> bool:
    """Whether init_process_group has been called, and destroy_process_group has not."""
    return _world is not None


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: Any = None,
    world_size: int = -1,
    rank: int = -1,
    store: Store | None = None,
    group_name: str = "",
    pg_options: None = None,
    device_id: Any = None,
) -> None:
    """Join the job's other workers; alone, a group of one.

    Finds its place under mpirun, srun, ringrun and torchrun by itself. backend: None (choose), "shm" or
    "mpi"; the variable RINGGRAD_TRANSPORT overrules it. PyTorch's names ("gloo", "nccl") mean None. timeout:
    seconds or a timedelta that a rank may be late for a collective (default 600 s); a dead one is noticed
    within a second. store: where workers with rank and world_size given meet; over several hosts a TCPStore, with
    RINGGRAD_TOKEN set. group_name, pg_options and device_id are accepted for PyTorch's sake and change nothing.

    Raises RuntimeError when called twice or when launcher and MPI library do not match, ImportError naming
    the extra to install, ValueError for contradicting arguments, CollectiveTimeout naming ranks that do not
    come.
    """
    global _world
    if _world is not None:
        raise RuntimeError(
            "[init_process_group] must be called once; call destroy_process_group before another time"
        )
    if store is not None and (init_method is not None or rank < 0):
        raise ValueError(
            "[init_process_group] store goes with rank and world_size, and without init_method, got "
            f"rank={rank}, init_method={init_method!r}"
        )
    limit = seconds(timeout)
    here = place(init_method, rank, world_size)
    if store is not None:
        here, init_method = meet_through(store, here, join_time(limit))
    settle(here)
    if here.world_size == 1:
        _world = Group(timeout=limit or DEFAULT_TIMEOUT)
        return
    try:
        transport = open_transport(here, backend, init_method, limit)
    except BaseException:
        settle(None)
        raise
    _world = Group(transport, timeout=limit or DEFAULT_TIMEOUT)
    if not transport.one_host:
        _world.tune()
    failure.watch_over(_world, ends_job="mpi" in (here.launcher, transport.name))
    atexit.register(_leave)


def destroy_process_group(group: Group | None = None) -> None:
    """Leave `group`, or with None the job. Ranks that still wait for this one raise PeerFailure."""
    if group is not None and group is not _world:
        group.close()
        return
    _initialized("destroy_process_group")
    _leave()
    atexit.unregister(_leave)


def _leave() -> None:
    global _world
    world, _world = _world, None
    settle(None)
    if world is not None:
        failure.stop_watching()
        world.close()
        if world.transport is not None:
            world.transport.close()


def seconds(timeout: Any) -> float | None:
    """A number or timedelta as seconds; None stays None. Raises ValueError unless positive."""
    if timeout is None:
        return None
    limit = float(timeout.total_seconds() if hasattr(timeout, "total_seconds") else timeout)
    if not limit > 0:
        raise ValueError(f"[init_process_group] timeout must be positive, got {timeout!r}")
    return limit


def _initialized(who: str) -> Group:
    if _world is None:
        raise ValueError(f"[{who}] the process group must be initialised: call init_process_group() first")
    return _world


def world_group(group: Group | None = None, who: str = "distributed") -> Group:
    """`group`, or that of all workers. Raises ValueError before init_process_group."""
    return _initialized(who) if group is None else group


def get_rank(group: Group | None = None) -> int:
    """This process's rank in `group`; -1 if it is not a member."""
    group = world_group(group, "get_rank")
    return -1 if group is NON_MEMBER else group.rank


def get_world_size(group: Group | None = None) -> int:
    """The number of ranks in `group`; -1 if this process is not a member."""
    group = world_group(group, "get_world_size")
    return -1 if group is NON_MEMBER else group.size


def get_backend(group: Group | None = None) -> str:
    """The transport's name: "shm", "mpi", or "local" for a world of one."""
    transport = world_group(group, "get_backend").transport
    return "local" if transport is None else transport.name


def get_process_group_ranks(group: Group | None) -> list[int]:
    """The global ranks in `group`, by group rank."""
    return list(world_group(group, "get_process_group_ranks").members)


def get_global_rank(group: Group, group_rank: int) -> int:
    """The global rank of a group's rank."""
    return group.members[group_rank]


def get_group_rank(group: Group, global_rank: int) -> int:
    """The rank in `group` of a global rank. Raises ValueError for a rank that is not a member."""
    if global_rank not in group.members:
        raise ValueError(f"[get_group_rank] rank must be one of {group.members}, got {global_rank}")
    return group.members.index(global_rank)


NON_MEMBER: Group = Group()  # what new_group gives to ranks that are not in it


def new_group(ranks: Sequence[int] | None = None, timeout: Any = None, backend: str | None = None) -> Group:
    """A group of some of the ranks. All ranks of the job must call it, in the same order."""
    world = _initialized("new_group")
    chosen = list(range(world.size)) if ranks is None else sorted(ranks)
    if len(set(chosen)) != len(chosen) or not chosen or chosen[0] < 0 or chosen[-1] >= world.size:
        raise ValueError(
            f"[new_group] ranks must be different and in 0..{world.size - 1}, got {list(ranks or [])}"
        )
    made = world.split(0 if world.rank in chosen else None, key=world.rank)
    if made is None:
        return NON_MEMBER
    made.timeout = seconds(timeout) or world.timeout
    return made


def array_of(value: Any, who: str) -> np.ndarray:
    """The array under a Tensor, or the array itself. Raises TypeError for anything else."""
    array = getattr(value, "array", value)
    if type(array) not in array_namespace and not isinstance(array, np.ndarray):
        raise TypeError(f"[{who}] needs a Tensor or a NumPy array, got {type(value).__name__}")
    return array


def wrote(*values: Any) -> None:
    """Tell autograd that memory it may have saved has changed."""
    for value in values:
        version = getattr(value, "_version", None)
        if version is not None:
            version[0] += 1


def peer_of(group: Group, rank: int | None, group_rank: int | None, who: str) -> int:
    """A group rank from PyTorch's pair of arguments: a global rank, or group_src / group_dst."""
    if (rank is None) == (group_rank is None):
        raise ValueError(
            f"[{who}] one of the global rank and the group rank must be given, got {rank} and {group_rank}"
        )
    if rank is not None and rank not in group.members:
        raise ValueError(f"[{who}] the other rank must be one of the group's, {group.members}, got {rank}")
    return group_rank if group_rank is not None else get_group_rank(group, rank)  # type: ignore[arg-type]


def finish(
    work: Work, async_op: bool, after: Callable[[], None] | None = None, outputs: Sequence[Any] = ()
) -> Work | None:
    """What a function gives back: the Work if it was asked for. outputs: the tensors that it fills."""
    if not async_op:
        if after is not None:
            after()
        return None
    work.outputs = list(outputs)
    return work if after is None else work.then(after)


def all_reduce(
    tensor: Any, op: str = ReduceOp.SUM, group: Group | None = None, async_op: bool = False, *, name: str = ""
) -> Work | None:
    """tensor = reduction over all ranks. With async_op returns a Work to wait for."""
    group, array = world_group(group, "all_reduce"), array_of(tensor, "all_reduce")
    wrote(tensor)
    return finish(group.all_reduce(array, op, async_op=async_op, name=name), async_op, outputs=[tensor])


def reduce(
    tensor: Any,
    dst: int | None = None,
    op: str = ReduceOp.SUM,
    group: Group | None = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """On rank dst, tensor = reduction over all ranks."""
    group, array = world_group(group, "reduce"), array_of(tensor, "reduce")
    root = peer_of(group, dst, group_dst, "reduce")
    wrote(tensor)
    return finish(group.reduce(array, root, op, async_op=async_op), async_op, outputs=[tensor])


def broadcast(
    tensor: Any,
    src: int | None = None,
    group: Group | None = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """tensor = that of rank src."""
    group, array = world_group(group, "broadcast"), array_of(tensor, "broadcast")
    root = peer_of(group, src, group_src, "broadcast")
    wrote(tensor)
    return finish(group.broadcast(array, root, async_op=async_op), async_op, outputs=[tensor])


def all_gather_into_tensor(
    output_tensor: Any, input_tensor: Any, group: Group | None = None, async_op: bool = False
) -> Work | None:
    """output_tensor [world * n, ...] = the inputs [n, ...] of all ranks."""
    group, who = world_group(group, "all_gather_into_tensor"), "all_gather_into_tensor"
    wrote(output_tensor)
    work = group.all_gather(array_of(output_tensor, who), array_of(input_tensor, who), async_op=async_op)
    return finish(work, async_op, outputs=[output_tensor])


def all_gather(
    tensor_list: Sequence[Any], tensor: Any, group: Group | None = None, async_op: bool = False
) -> Work | None:
    """tensor_list[r] = the tensor of rank r; all have one shape."""
    group, array = world_group(group, "all_gather"), array_of(tensor, "all_gather")
    outs = _list_of("all_gather", tensor_list, group.size, array)
    rows = np.empty((group.size, *array.shape), array.dtype)
    wrote(*tensor_list)
    return finish(
        group.all_gather(rows, array, async_op=async_op), async_op, lambda: _deal(rows, outs), tensor_list
    )


def reduce_scatter_tensor(
    output: Any, input: Any, op: str = ReduceOp.SUM, group: Group | None = None, async_op: bool = False
) -> Work | None:
    """output [n, ...] = reduction over ranks of block `rank` of input [world * n, ...]."""
    group, who = world_group(group, "reduce_scatter_tensor"), "reduce_scatter_tensor"
    wrote(output)
    return finish(
        group.reduce_scatter(array_of(output, who), array_of(input, who), op, async_op=async_op), async_op
    )


def reduce_scatter(
    output: Any,
    input_list: Sequence[Any],
    op: str = ReduceOp.SUM,
    group: Group | None = None,
    async_op: bool = False,
) -> Work | None:
    """output = reduction over ranks of their input_list[rank]."""
    group, out = world_group(group, "reduce_scatter"), array_of(output, "reduce_scatter")
    rows = np.stack(_list_of("reduce_scatter", input_list, group.size, out))
    wrote(output)
    return finish(group.reduce_scatter(out, rows, op, async_op=async_op), async_op)


def gather(
    tensor: Any,
    gather_list: Sequence[Any] | None = None,
    dst: int | None = None,
    group: Group | None = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """On rank dst (default 0), gather_list[r] = the tensor of rank r; elsewhere gather_list is None."""
    group, array = world_group(group, "gather"), array_of(tensor, "gather")
    root = 0 if dst is None and group_dst is None else peer_of(group, dst, group_dst, "gather")
    if gather_list is None:
        return finish(group.gather(array, None, root, async_op=async_op), async_op)
    outs = _list_of("gather", gather_list, group.size, array)
    rows = np.empty((group.size, *array.shape), array.dtype)
    wrote(*gather_list)
    return finish(group.gather(array, rows, root, async_op=async_op), async_op, lambda: _deal(rows, outs))


def scatter(
    tensor: Any,
    scatter_list: Sequence[Any] | None = None,
    src: int | None = None,
    group: Group | None = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """tensor = scatter_list[rank] of rank src (default 0); elsewhere scatter_list is None."""
    group, out = world_group(group, "scatter"), array_of(tensor, "scatter")
    root = 0 if src is None and group_src is None else peer_of(group, src, group_src, "scatter")
    rows = None if scatter_list is None else np.stack(_list_of("scatter", scatter_list, group.size, out))
    wrote(tensor)
    return finish(group.scatter(out, rows, root, async_op=async_op), async_op)


def all_to_all_single(
    output: Any,
    input: Any,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: Group | None = None,
    async_op: bool = False,
) -> Work | None:
    """Rows (dimension 0) of input go to the ranks in turn; output's rows come from them in turn."""
    group, who = world_group(group, "all_to_all_single"), "all_to_all_single"
    wrote(output)
    work = group.all_to_all(
        array_of(output, who), array_of(input, who), output_split_sizes, input_split_sizes, async_op=async_op
    )
    return finish(work, async_op)


def all_to_all(
    output_tensor_list: Sequence[Any],
    input_tensor_list: Sequence[Any],
    group: Group | None = None,
    async_op: bool = False,
) -> Work | None:
    """output_tensor_list[r] = rank r's input_tensor_list[this rank]; sizes may differ."""
    group, who = world_group(group, "all_to_all"), "all_to_all"
    ins = [array_of(t, who).reshape(-1) for t in input_tensor_list]
    outs = [array_of(t, who) for t in output_tensor_list]
    if len(ins) != group.size or len(outs) != group.size:
        raise ValueError(f"[{who}] both lists must have {group.size} tensors, got {len(outs)} and {len(ins)}")
    sizes = [a.size for a in outs]
    flat = np.empty(sum(sizes), outs[0].dtype)
    wrote(*output_tensor_list)
    work = group.all_to_all(flat, np.concatenate(ins), sizes, [a.size for a in ins], async_op=async_op)

    def deal() -> None:
        at = 0
        for out in outs:
            out[...] = flat[at : at + out.size].reshape(out.shape)
            at += out.size

    return finish(work, async_op, deal)


def barrier(group: Group | None = None, async_op: bool = False, device_ids: Any = None) -> Work | None:
    """Return when all ranks have called it."""
    return finish(world_group(group, "barrier").barrier(async_op=async_op), async_op)


def all_gather_object(object_list: list[Any], obj: Any, group: Group | None = None) -> None:
    """object_list[r] = the object of rank r. Objects are what msgpack knows: no pickle is sent."""
    group = world_group(group, "all_gather_object")
    _fill("all_gather_object", object_list, group.all_gather_object(obj))


def gather_object(
    obj: Any, object_gather_list: list[Any] | None = None, dst: int = 0, group: Group | None = None
) -> None:
    """On rank dst, object_gather_list[r] = the object of rank r."""
    group = world_group(group, "gather_object")
    values = group.gather_object(obj, get_group_rank(group, dst))
    if values is not None:
        if object_gather_list is None:
            raise ValueError("[gather_object] rank dst must give object_gather_list, got None")
        _fill("gather_object", object_gather_list, values)


def broadcast_object_list(
    object_list: list[Any], src: int = 0, group: Group | None = None, device: Any = None
) -> None:
    """object_list = that of rank src, item by item."""
    group = world_group(group, "broadcast_object_list")
    _fill(
        "broadcast_object_list", object_list, group.broadcast_object(object_list, get_group_rank(group, src))
    )


def scatter_object_list(
    scatter_object_output_list: list[Any],
    scatter_object_input_list: Sequence[Any] | None = None,
    src: int = 0,
    group: Group | None = None,
) -> None:
    """scatter_object_output_list[0] = item `rank` of rank src's scatter_object_input_list."""
    group = world_group(group, "scatter_object_list")
    root = get_group_rank(group, src)
    given = scatter_object_input_list if group.rank == root else None
    scatter_object_output_list[0] = group.scatter_object(given, root)


def _fill(who: str, target: list[Any], values: Sequence[Any]) -> None:
    if len(target) != len(values):
        raise ValueError(f"[{who}] the list must have {len(values)} places, got {len(target)}")
    target[:] = values


def _list_of(who: str, tensors: Sequence[Any], world: int, like: np.ndarray) -> list[np.ndarray]:
    arrays = [array_of(t, who) for t in tensors]
    if len(arrays) != world:
        raise ValueError(f"[{who}] the list must have {world} tensors, one a rank, got {len(arrays)}")
    for a in arrays:
        if a.shape != like.shape or a.dtype != like.dtype:
            raise ValueError(
                f"[{who}] all tensors must be {like.dtype} of shape {like.shape}, got {a.dtype} of shape "
                f"{a.shape}"
            )
    return arrays


def _deal(rows: np.ndarray, outs: list[np.ndarray]) -> None:
    for out, row in zip(outs, rows):
        out[...] = row
