"""ringrun: what its workers find, on one node and several, and how wrong use is explained."""

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ringrun_job import DEADLINE, ENDLESS, until_ready

import ringgrad.launch.guard
from ringgrad.launch.cli import main
from ringgrad.launch.environment import Environment
from ringgrad.launch.host import usable_cores
from ringgrad.launch.spawn import Job, worker_variables

# What a worker finds.


def test_every_worker_knows_its_place(launcher):
    script = launcher.script("""
        from ringgrad.launch.environment import detect
        place = detect()
        names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK MASTER_ADDR".split()
        print(place[:6], *[os.environ[name] for name in names], oct(os.stat(place.run_dir).st_mode & 0o777))
        assert len(place.run_dir) < 60 and int(os.environ["MASTER_PORT"]) > 0 and place.job_id
        assert len(os.environ["RINGGRAD_TOKEN"]) == 64
    """)
    done = launcher.run("-n", "2", script)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "[0] (0, 2, 0, 2, 0, 'ringrun') 0 2 0 2 0 127.0.0.1 0o700",
        "[1] (1, 2, 1, 2, 0, 'ringrun') 1 2 1 2 0 127.0.0.1 0o700",
    ]


def test_the_script_is_main_as_under_plain_python(launcher):
    launcher.script("VALUE = 7", "neighbour.py")
    script = launcher.script("""
        import multiprocessing, pickle, neighbour

        class Thing: pass

        def work(x):
            return x + neighbour.VALUE

        if __name__ == "__main__":
            assert sys.path[0] == os.getcwd() and __file__ == sys.argv[0] == "script.py" and __spec__ is None
            assert isinstance(pickle.loads(pickle.dumps(Thing())), Thing)
            assert not [name for name in os.environ if "_RINGGRAD" in name]
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(sys.argv[1:], pool.map(work, [1, 2]))
    """)
    done = launcher.run("-n", "2", "--no-prefix", script, "--steps", "3", "-n", "9")
    assert done.stdout.splitlines() == ["['--steps', '3', '-n', '9'] [8, 9]"] * 2, done.stderr


def test_modules_and_directories_run_too(launcher):
    (launcher.folder / "package").mkdir()
    launcher.script(
        "from . import other; print(__name__, __package__, sys.argv[1:], other.X)", "package/__main__.py"
    )
    launcher.script("X = 1", "package/other.py")
    launcher.script("", "package/__init__.py")
    assert launcher.run("-m", "package", "--x").stdout == "__main__ package ['--x'] 1\n"
    (launcher.folder / "folder").mkdir()
    launcher.script("import inside; print(__name__, sys.argv, inside.X)", "folder/__main__.py")
    launcher.script("X = 2", "folder/inside.py")
    assert launcher.run("folder", "--y").stdout == "__main__ ['folder', '--y'] 2\n"


def test_rank_zero_alone_reads_stdin(launcher):
    script = launcher.script("print(repr(sys.stdin.read()))")
    done = launcher.run("-n", "2", script, input="hello")
    assert sorted(done.stdout.splitlines()) == ["[0] 'hello'", "[1] ''"]


def test_interpreter_options_reach_the_workers(launcher):
    script = launcher.script("print(sys.flags.optimize, sys.warnoptions)")
    command = [sys.executable, "-O", "-W", "error", "-m", "ringgrad.launch", script]
    done = subprocess.run(
        command, cwd=launcher.folder, env=launcher.env, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.stdout == "1 ['error']\n"


def variables(job=None, outer=None, cores=8):
    job = job or Job("x.py", [], 2)
    return worker_variables(job, job.place(1, "/tmp/ringgrad-x"), outer or {}, cores)


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.mark.parametrize(
    "workers, threads, outer, expected",
    [
        (2, None, {}, ["4", "4", "4"]),
        (3, None, {}, ["2", "2", "2"]),
        (9, None, {}, ["1", "1", "1"]),
        (2, None, {"MKL_NUM_THREADS": "7"}, ["4", "4", "7"]),
        (2, None, {"OMP_NUM_THREADS": "3"}, ["3", None, None]),
        (2, 5, {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "7"}, ["5", "5", "5"]),
    ],
)
def test_workers_share_the_cores(workers, threads, outer, expected):
    env = variables(Job("x.py", [], workers, threads=threads), outer)
    assert [env.get(name) for name in THREADS] == expected
    assert (env["OPENBLAS_THREAD_TIMEOUT"], env["PYTHONUNBUFFERED"]) == ("4", "1")


def test_the_users_thread_timeout_stays():
    assert variables(outer={"OPENBLAS_THREAD_TIMEOUT": "9"})["OPENBLAS_THREAD_TIMEOUT"] == "9"


def test_threads_arrive(launcher):
    script = launcher.script("print(os.environ['OMP_NUM_THREADS'])")
    assert launcher.run("-n", "1", script).stdout == f"{usable_cores()}\n"
    assert launcher.run("--threads", "3", script).stdout == "3\n"


def test_a_worker_does_not_take_itself_for_the_outer_job():
    outer = {
        "PMI_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "2",
        "PMIX_RANK": "1",
        "OMPI_MCA_btl": "self",
        "PATH": "/bin",
    }
    env = variables(outer=outer)
    assert (env["OMPI_MCA_btl"], env["PATH"]) == ("self", "/bin")
    assert not {"PMI_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK"} & set(env)


# Wrong use.


@pytest.mark.parametrize(
    "args, words",
    [
        (["-n", "0", "s.py"], ["-n", "at least 1", "'0'"]),
        (["-n", "two", "s.py"], ["-n", "'two'"]),
        (["--threads", "0", "s.py"], ["--threads"]),
        ([], ["SCRIPT"]),
        (["missing.py"], ["no script 'missing.py'"]),
        (["-m", "missing_module"], ["no module 'missing_module'"]),
        (["-m", "folder/s.py"], ["no module 'folder/s.py'"]),
        (["--wrong", "s.py"], ["--wrong"]),
        (["--prefix", "maybe", "s.py"], ["--prefix", "maybe"]),
        (["--node-rank", "1", "s.py"], ["--node-rank", "--nnodes"]),
        (["--nnodes", "2", "s.py"], ["--master-addr"]),
        (["--nnodes", "2", "--master-addr", "h", "s.py"], ["token", "token_hex", "RINGGRAD_TOKEN"]),
        (["--master-port", "70000", "s.py"], ["--master-port", "65535"]),
        (["--token-file", "missing", "s.py"], ["token file", "missing"]),
        (["--token-file", "open.token", "s.py"], ["0644", "chmod 600"]),
        (["--token-file", "short.token", "s.py"], ["at least 16"]),
        (["--log-dir", "s.py/x", "s.py"], ["--log-dir"]),
        (["."], ["__main__.py"]),
    ],
)
def test_wrong_use_is_explained(tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # -m puts the folder in front
    monkeypatch.delenv("RINGGRAD_TOKEN", raising=False)
    (tmp_path / "s.py").write_text("print('ran')")
    for name, mode in (("open.token", 0o644), ("short.token", 0o600)):
        (tmp_path / name).write_text("abc")
        (tmp_path / name).chmod(mode)
    try:
        code = main(args)
    except SystemExit as leave:  # argparse's
        code = leave.code
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert all(word in shown.err for word in words), shown.err


def test_wrong_use_is_the_exit_code(launcher):
    done = launcher.run("missing.py")
    assert (done.returncode, done.stdout) == (2, "") and "no script 'missing.py'" in done.stderr
    assert "Traceback" not in done.stderr


def test_too_many_workers_is_a_warning(launcher):
    many = 4 * usable_cores() + 1
    done = launcher.run("-n", str(many), launcher.script("pass"), env={"PYTHONNOUSERSITE": "1"})
    assert done.returncode == 0
    assert f"{many} workers on {usable_cores()} usable cores" in done.stderr


def test_help_and_version(launcher):
    assert "examples:" in launcher.run("--help").stdout
    assert launcher.run("--version").stdout.startswith("ringrun ")


# Several nodes: two ringruns on this host play them.


def test_two_nodes_number_their_ranks_through(launcher):
    script = launcher.script("""
        from ringgrad.launch.environment import detect
        place = detect()
        print(place[:5], place.master_addr, place.master_port, place.job_id, os.environ["RINGGRAD_TOKEN"])
        assert os.environ["RINGGRAD_TOKEN"] not in open("/proc/self/cmdline").read()
    """)
    secret = launcher.folder / "secret"
    secret.write_text("0123456789abcdef\n")
    secret.chmod(0o600)
    common = ["--nnodes", "2", "--master-addr", "127.0.0.1", "-n", "2"]
    env = {"RINGGRAD_TOKEN": "0123456789abcdef"}
    first = launcher.run(*common, "--node-rank", "0", script, env=env)
    second = launcher.run(*common, "--node-rank", "1", "--token-file", "secret", script)
    lines = sorted((first.stdout + second.stdout).splitlines())
    job = lines[0].split()[-2]
    assert lines == [
        f"[{rank}] ({rank}, 4, {rank % 2}, 2, {rank // 2}) 127.0.0.1 29500 {job} 0123456789abcdef"
        for rank in range(4)
    ]


def test_one_node_failing_leaves_the_other_ringrun_to_its_own_workers(launcher):
    common = ["--nnodes", "2", "--master-addr", "127.0.0.1"]
    env = {"RINGGRAD_TOKEN": "0123456789abcdef"}
    with launcher.start(*common, "--node-rank", "0", launcher.script(ENDLESS), env=env) as other:
        (worker,) = until_ready(other, 1)
        failed = launcher.run(*common, "--node-rank", "1", launcher.script("sys.exit(9)", "bad.py"), env=env)
        assert failed.returncode == 9
        assert worker in launcher.processes()
        other.send_signal(signal.SIGTERM)
        assert other.wait(timeout=DEADLINE) == 143


# The launcher starts in milliseconds: it may load nothing that does not.


def test_launch_imports_the_standard_library_alone():
    folder = Path(ringgrad.launch.guard.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path
                names = [node.module or ""] if node.level == 0 else []
            else:
                continue
            assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names, path


def test_ranks_keep_their_place_in_a_job_of_several_nodes():
    job = Job("x.py", [], workers=3, nodes=2, node_rank=1, master_addr="a", master_port=5, token="t")
    place = job.place(2, "/tmp/ringgrad-x")
    assert place[:6] == (5, 6, 2, 3, 1, "ringrun")
    assert place == Environment(*place)
