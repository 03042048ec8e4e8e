"""ZeroRedundancyOptimizer: each rank keeps the optimizer state of its share of the parameters, and updates these.

Stage 1 of S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC 2020.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..autograd.engine import Variable, wrap
from ..optim.optimizer import Optimizer
from ..tensor.dtypes import bfloat16, to_numpy
from .buckets import broadcast_coalesced
from .group import Group
from .join import Join, Joinable, JoinHook
from .process_group import world_group

WHO = "[ZeroRedundancyOptimizer]"


class ZeroRedundancyOptimizer(Optimizer, Joinable):
    """`optimizer_class` over all ranks: memory for its state is shared out, results are the same.

    Gradients must be equal on all ranks, as DistributedDataParallel leaves them. A step updates this rank's share
    and broadcasts it. To save, call consolidate_state_dict on all ranks, then state_dict on the rank it names;
    load_state_dict takes the whole on every rank, saved with any number of ranks. Arguments as in
    torch.distributed.optim.ZeroRedundancyOptimizer; defaults are those of optimizer_class.
    """

    def __init__(
        self,
        params: Iterable[Any],
        optimizer_class: type[Optimizer],
        process_group: Group | None = None,
        parameters_as_bucket_view: bool = False,
        overlap_with_ddp: bool = False,
        **defaults: Any,
    ) -> None:
        if overlap_with_ddp or parameters_as_bucket_view:
            warnings.warn(
                f"{WHO} parameters_as_bucket_view and overlap_with_ddp change nothing: a share is broadcast in few "
                "messages after it is updated",
                stacklevel=2,
            )
        self.process_group = world_group(process_group, "ZeroRedundancyOptimizer")
        self.optim: Optimizer | None = None
        self._loads = [0] * self.process_group.size  # elements of each rank's share
        self._owner: dict[Any, int] = {}
        self._whole: dict[int, dict[str, Any]] | None = None  # consolidated state, by number of parameter
        super().__init__(params, defaults)
        shares = [self._share(group) for group in self.param_groups]
        self.optim = optimizer_class(shares, **defaults)
        self.state = self.optim.state
        for group, share in zip(self.param_groups, self.optim.param_groups):
            _take_options(group, share)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; its parameters are shared out too."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        # Largest first to whoever has least: shares differ by less than one parameter.
        for p in sorted(dict.fromkeys(group["params"]), key=lambda p: -p.array.size):
            self._owner[p] = self._loads.index(min(self._loads))
            self._loads[self._owner[p]] += p.array.size
        if self.optim is not None:
            self.optim.add_param_group(self._share(group))
            _take_options(group, self.optim.param_groups[-1])

    def _share(self, group: dict[str, Any]) -> dict[str, Any]:
        """This rank's part of a group, with its options."""
        names = group.get("param_names")
        own = [i for i, p in enumerate(group["params"]) if self._owner[p] == self.process_group.rank]
        share = {k: v for k, v in group.items() if k not in ("params", "param_names")}
        params = group["params"]
        share["params"] = [(names[i], params[i]) if names else params[i] for i in own]
        return share

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Update this rank's share and give all ranks all of it; returns what `closure` returns."""
        assert self.optim is not None
        Join.notify_join_context(self)
        for group, share in zip(self.param_groups, self.optim.param_groups):
            _take_options(share, group)  # a scheduler has changed the learning rate
        loss = self.optim.step(closure, **kwargs)
        for group, share in zip(self.param_groups, self.optim.param_groups):
            _take_options(group, share)
        self._whole = None
        self._exchange()
        return loss

    def _exchange(self) -> None:
        params = self._numbered()
        for rank in range(self.process_group.size):
            broadcast_coalesced(self.process_group, [p for p in params if self._owner[p] == rank], rank)

    def _numbered(self) -> list[Any]:
        return list(dict.fromkeys(p for group in self.param_groups for p in group["params"]))

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Bring the state of all ranks to rank `to` of the group, for state_dict there. All ranks call it."""
        assert self.optim is not None
        group, numbers = self.process_group, {p: i for i, p in enumerate(self._numbered())}
        own = {numbers[p]: state for p, state in self.optim.state.items() if p in numbers}
        tables = group.gather_object([[n, _described(state)] for n, state in own.items()], to)
        if group.rank != to:
            data = _packed(own)
            if data.size:
                group.send(data, to)
            return
        assert tables is not None
        self._whole = dict(own)
        for rank, table in enumerate(tables):
            if rank != to:
                data = np.empty(sum(_bytes(what) for _, what in table), np.uint8)
                if data.size:
                    group.recv(data, rank)
                self._whole.update(_unpacked(table, data))

    def state_dict(self) -> dict[str, Any]:
        """The state of all ranks, as optimizer_class on one process has it.

        Raises RuntimeError on ranks to which consolidate_state_dict has not brought it since the last step.
        """
        if self._whole is None and self.process_group.size == 1:
            self.consolidate_state_dict()
        if self._whole is None:
            raise RuntimeError(
                f"{WHO} state_dict needs consolidate_state_dict(to={self.process_group.rank}) on all ranks after the "
                "last step; this rank holds its share only"
            )
        found = super().state_dict()
        found["state"] = dict(sorted(self._whole.items()))
        return found

    def local_state_dict(self) -> dict[str, Any]:
        """What this rank holds of the whole state, numbered as there: the ranks' together are the whole.

        For `ringgrad.distributed.checkpoint.save`, to which every rank gives its own; no exchange is needed.
        """
        assert self.optim is not None
        numbers = {p: i for i, p in enumerate(self._numbered())}
        found = super().state_dict()
        found["state"] = {numbers[p]: state for p, state in self.optim.state.items() if p in numbers}
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the whole state on every rank, and keeps this rank's share."""
        assert self.optim is not None
        have = [len(group["params"]) for group in self.param_groups]
        came = [len(group["params"]) for group in state_dict["param_groups"]]
        if have != came:
            raise ValueError(
                f"[load_state_dict] the parameter groups must have {have} parameters, came groups with {came}"
            )
        groups, states, count = [], {}, 0
        for group, saved in zip(self.param_groups, state_dict["param_groups"]):
            own = []
            for p, number in zip(group["params"], saved["params"]):
                if self._owner[p] != self.process_group.rank:
                    continue
                if number in state_dict["state"]:
                    states[count] = state_dict["state"][number]
                own.append(count)
                count += 1
            groups.append({**{k: v for k, v in saved.items() if k != "param_names"}, "params": own})
        self.optim.load_state_dict({"state": states, "param_groups": groups})
        self.state, self._whole = self.optim.state, None
        for group, share in zip(self.param_groups, self.optim.param_groups):
            _take_options(group, share)

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """A rank that has left its loop still updates its share; see Join."""
        return _JoinHook(self)

    @property
    def join_device(self) -> str:
        return "cpu"

    @property
    def join_process_group(self) -> Group:
        return self.process_group


class _JoinHook(JoinHook):
    def __init__(self, optimizer: ZeroRedundancyOptimizer) -> None:
        self.optimizer = optimizer

    def main_hook(self) -> None:
        self.optimizer.step()


def _take_options(target: dict[str, Any], source: dict[str, Any]) -> None:
    target.update({k: v for k, v in source.items() if k not in ("params", "param_names")})


def _described(state: dict[str, Any]) -> list[list[Any]]:
    """What arrays a parameter's state has, and its other values: what msgpack knows."""
    return [
        [name, v.array.dtype.name, list(v.array.shape)] if isinstance(v, Variable) else [name, None, v]
        for name, v in state.items()
    ]


def _packed(states: dict[int, dict[str, Any]]) -> np.ndarray:
    arrays = [v.array for state in states.values() for v in state.values() if isinstance(v, Variable)]
    parts = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in arrays]
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def _bytes(described: list[list[Any]]) -> int:
    return sum(
        int(np.prod(what, dtype=np.int64)) * _dtype(dtype).itemsize for _, dtype, what in described if dtype
    )


def _unpacked(table: list[Any], data: np.ndarray) -> dict[int, dict[str, Any]]:
    states: dict[int, dict[str, Any]] = {}
    at = 0
    for number, described in table:
        state = states[number] = {}
        for name, dtype, what in described:
            if dtype is None:
                state[name] = what
                continue
            size = _bytes([[name, dtype, what]])
            state[name] = wrap(data[at : at + size].copy().view(_dtype(dtype)).reshape(what))
            at += size
    return states


def _dtype(name: str) -> np.dtype:
    return to_numpy(bfloat16) if name == "bfloat16" else np.dtype(name)
