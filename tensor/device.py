"""Devices: `cpu`, and `cuda:N` where a GPU backend is loaded."""

from __future__ import annotations

from typing import Any


class device:
    """`device("cuda:1")`, `device("cuda", 1)`, `device(1)`; compares equal by type and index."""

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: Any, index: int | None = None) -> None:
        if isinstance(type, device):
            type, index = type.type, type.index if index is None else index
        elif isinstance(type, int):
            type, index = "cuda", type
        name, _, number = str(type).partition(":")
        if name not in ("cpu", "cuda", "meta", "mps", "xpu"):
            raise RuntimeError(f"[device] must be 'cpu' or 'cuda', with ':N' if wanted, came {type!r}")
        if number:
            if index is not None or not number.isdigit():
                raise RuntimeError(f"[device] must be of the form 'cuda:N', came {type!r} with index {index}")
            index = int(number)
        self.type, self.index = name, index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        return (
            f"device(type={self.type!r})"
            if self.index is None
            else f"device(type={self.type!r}, index={self.index})"
        )

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


cpu = device("cpu")


def check(d: Any) -> device:
    """The device asked for, if this process can use it."""
    found = cpu if d is None else d if isinstance(d, device) else device(d)
    if found.type == "cpu":
        return cpu
    if found.type == "cuda":
        raise RuntimeError(
            f"[device] {found} needs the CUDA backend, which is not part of this build: use device 'cpu'"
        )
    raise RuntimeError(f"[device] this build computes on 'cpu', came {str(found)!r}")
