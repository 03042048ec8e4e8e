"""The environment contract: each launcher's variables, as that launcher really sets them."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from ringgrad.launch.environment import Environment, detect

RINGRUN = Environment(3, 4, 1, 2, 1, "ringrun", "/tmp/ringgrad-x", "job", "10.0.0.1", 29500).variables()
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_NODE_RANK": "1",
    "PMIX_RANK": "5",
    "PMIX_NAMESPACE": "prterun-host-1@1",
}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", "PMI_FD": "11"}
# `srun -N2 -n3`, third task; from a listing of a real step, cut to what matters.
SLURM = {
    "SLURM_JOB_ID": "901593",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "9",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_STEP_NODELIST": "t-cn[0117,0203]",
}
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RUN_ID": "abc",
}


def test_a_process_of_its_own_is_a_world_of_one():
    assert detect({}) == Environment(0, 1, 0, 1, 0, "single")


def test_ringrun_variables_come_back_as_they_went_in():
    place = detect(RINGRUN)
    assert place == Environment(3, 4, 1, 2, 1, "ringrun", "/tmp/ringgrad-x", "job", "10.0.0.1", 29500)


def test_ringrun_also_speaks_torchruns_language():
    ours = {name: value for name, value in RINGRUN.items() if not name.startswith("RINGGRAD_")}
    place = detect(ours)
    assert place[:5] == (3, 4, 1, 2, 1)
    assert (place.launcher, place.master_addr, place.master_port) == ("torchrun", "10.0.0.1", 29500)


def test_openmpi():
    place = detect(OPENMPI)
    assert place[:6] == (5, 8, 1, 4, 1, "mpi")
    assert (place.mpi, place.job_id, place.run_dir) == ("openmpi", "prterun-host-1@1", None)


def test_mpich():
    place = detect(MPICH)
    assert place[:6] == (1, 2, 1, 2, 0, "mpi")
    assert place.mpi == "mpich"


def test_slurm_step():
    place = detect(SLURM)
    assert place[:6] == (2, 3, 0, 1, 1, "slurm")
    assert (place.job_id, place.master_addr, place.master_port) == ("901593.2", "t-cn0117", 21593)


@pytest.mark.parametrize(
    "nodes, first", [("a1", "a1"), ("a1,b2", "a1"), ("gpu[07-09,12],cpu1", "gpu07"), ("x,gpu[1-2]", "x")]
)
def test_slurm_master_is_the_first_host(nodes, first):
    assert detect({**SLURM, "SLURM_STEP_NODELIST": nodes}).master_addr == first


@pytest.mark.parametrize("node, count", [(0, 4), (1, 4), (2, 3)])
def test_slurm_tasks_of_each_host(node, count):
    env = {
        **SLURM,
        "SLURM_NODEID": str(node),
        "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
        "SLURM_STEP_NUM_TASKS": "11",
    }
    assert detect(env).local_world_size == count


def test_slurm_explicit_master_wins():
    place = detect({**SLURM, "MASTER_ADDR": "10.0.0.9", "MASTER_PORT": "1234"})
    assert (place.master_addr, place.master_port) == ("10.0.0.9", 1234)


def test_a_batch_script_is_not_a_step():
    # Taken for rank 0 of 4 it would wait for ranks that nobody starts.
    batch = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}
    assert detect(batch) == Environment()


def test_a_step_of_one_task_is_a_world_of_one():
    assert detect({**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}).launcher == "single"


def test_srun_with_an_mpi_plugin_knows_the_mpi():
    assert detect({**SLURM, "PMIX_RANK": "2"}).mpi == "openmpi"
    pmi2 = detect({**SLURM, "PMI_RANK": "2", "PMI_SIZE": "3"})
    assert (pmi2.launcher, pmi2.mpi, pmi2.local_world_size) == ("slurm", "mpich", 1)


def test_torchrun():
    place = detect(TORCHRUN)
    assert place[:6] == (3, 4, 1, 2, 1, "torchrun")
    assert (place.master_addr, place.master_port, place.job_id) == ("node0", 29400, "abc")


def test_rank_and_world_size_set_by_hand():
    one_host = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert detect(one_host)[:5] == (1, 2, 1, 2, 0)
    assert detect({**one_host, "MASTER_ADDR": "node0"})[:5] == (1, 2, 0, 1, 1)


def test_order_ringrun_mpi_slurm_torchrun():
    env = {**TORCHRUN}
    assert detect(env).launcher == "torchrun"
    env |= SLURM
    assert detect(env).launcher == "slurm"
    env |= MPICH
    assert detect(env).launcher == "mpi"
    env |= RINGRUN
    assert detect(env).launcher == "ringrun"


@pytest.mark.parametrize(
    "change, words",
    [
        ({**MPICH, "PMI_RANK": "2"}, ["PMI_RANK=2", "PMI_SIZE", "2"]),
        ({**MPICH, "MPI_LOCALRANKID": "3"}, ["MPI_LOCALRANKID=3", "MPI_LOCALNRANKS"]),
        ({**MPICH, "PMI_SIZE": "many"}, ["PMI_SIZE", "'many'"]),
        ({**MPICH, "PMI_SIZE": "0"}, ["PMI_SIZE", "'0'"]),
        ({**MPICH, "PMI_RANK": "-1"}, ["PMI_RANK", "'-1'"]),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, ["MPI_LOCALRANKID"]),
        ({"RANK": "0"}, ["WORLD_SIZE", "unset"]),
        ({"WORLD_SIZE": "2"}, ["RANK"]),
        ({**TORCHRUN, "LOCAL_RANK": ""}, ["LOCAL_RANK"]),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "5"}, ["LOCAL_WORLD_SIZE", "WORLD_SIZE", "5", "4"]),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, ["MASTER_PORT", "70000"]),
        ({**SLURM, "SLURM_PROCID": "3"}, ["SLURM_PROCID=3", "SLURM_STEP_NUM_TASKS", "3"]),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2"}, ["SLURM_STEP_TASKS_PER_NODE", "'2'", "srun"]),
        ({"RINGGRAD_RANK": "0"}, ["RINGGRAD_WORLD_SIZE", "ringrun"]),
        ({"PMIX_RANK": "1"}, ["PMIX_RANK=1", "mpirun"]),
    ],
)
def test_contradictions_name_variables_and_values(change, words):
    with pytest.raises(ValueError) as caught:
        detect(change)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("workers", [2, 3])
def test_under_a_real_mpirun(workers, tmp_path):
    mpirun = shutil.which("mpirun", path=os.path.dirname(sys.executable)) or shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("mpirun is not installed")
    # A file each: mpirun may tear the ranks' output lines.
    probe = (
        "import json, os; from ringgrad.launch.environment import detect; "
        "json.dump(detect(), open(f'place{os.getpid()}.json', 'x'))"
    )
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    env = os.environ | root | {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    command = [mpirun, "-n", str(workers), sys.executable, "-c", probe]
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True}
    done = subprocess.run(command, env=env, cwd=tmp_path, timeout=60, text=True, **pipes)
    assert done.returncode == 0, done.stderr
    places = [Environment(*json.loads(path.read_text())) for path in tmp_path.glob("place*.json")]
    places.sort(key=lambda place: place.rank)
    assert [p.rank for p in places] == [p.local_rank for p in places] == list(range(workers))
    assert {(p.world_size, p.local_world_size) for p in places} == {(workers, workers)}
    assert {(p.launcher, p.node_rank, p.run_dir) for p in places} == {("mpi", 0, None)}
    assert {p.mpi for p in places} <= {"openmpi", "mpich"}
