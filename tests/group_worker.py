"""One worker of a job that runs all cases of a group: `group_worker.py KIND FOLDER [RANK WORLD]`."""

import json
import sys
from pathlib import Path

from group_cases import CASES, every_plan_is_exact, run_all, run_case

from ringgrad.distributed.group import Group


def main(kind: str, folder: str, *place: str) -> None:
    from ringgrad.distributed.transport import Transport

    transport: Transport
    if kind != "mpi":
        from ringgrad.distributed.transport.shm import ShmTransport

        transport = ShmTransport(folder, int(place[0]), int(place[1]))
    else:
        from ringgrad.distributed.transport.mpi import MpiTransport

        transport = MpiTransport()
    group = Group(transport, timeout=60)
    if kind == "plans":
        CASES["plans"] = every_plan_is_exact
        Path(folder, f"rank{group.rank}.json").write_text(json.dumps(run_case("plans", group)))
    else:
        run_all(group, Path(folder))
    group.close()
    transport.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
