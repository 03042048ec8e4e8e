"""torch.distributed's names for how ranks are joined."""

from __future__ import annotations

from typing import Any, ClassVar


class Backend(str):
    """The name of a backend in small letters: Backend("GLOO") == "gloo". Unknown names are taken as they are."""

    UNDEFINED, GLOO, NCCL, UCC, MPI = "undefined", "gloo", "nccl", "ucc", "mpi"
    SHM, TCP = "shm", "tcp"  # ours

    backend_list: ClassVar[list[str]] = [UNDEFINED, GLOO, NCCL, UCC, MPI, SHM, TCP]
    default_device_backend_map: ClassVar[dict[str, str]] = {"cpu": GLOO, "cuda": NCCL}

    def __new__(cls, name: str) -> Backend:
        if not isinstance(name, str):
            raise ValueError(f"[Backend] the name must be a string, got {name!r}")
        return super().__new__(cls, name.lower())


def get_default_backend_for_device(device: Any) -> str:
    """What init_process_group takes for tensors there: "gloo", which stands for the best transport, and "nccl".

    device: a name as "cuda:0", or a device. Raises ValueError for one that has none.
    """
    kind = getattr(device, "type", None) or str(device).partition(":")[0]
    found = Backend.default_device_backend_map.get(kind)
    if found is None:
        raise ValueError(
            f"[get_default_backend_for_device] the device must be one of "
            f"{', '.join(Backend.default_device_backend_map)}, got {device!r}"
        )
    return found
