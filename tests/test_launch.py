"""ringrun: what it starts, what it says, and that nothing stays behind."""

import ast
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import pytest

import ringgrad.launch.guard
from ringgrad.launch.environment import Environment
from ringgrad.launch.failure import install_excepthook, read_failures, report_failure
from ringgrad.launch.host import MemoryKills, usable_cores
from ringgrad.launch.output import Sink, Stream, prefix_of
from ringgrad.launch.spawn import Job, worker_variables
from ringgrad.launch.verdict import died, verdict

DEADLINE = 20  # s; only a hang reaches it


def wait_for(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"still waiting for {what}"
        time.sleep(0.01)


def hear():
    """A job started here ignores no signal, also where pytest runs under nohup or in a shell's background."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


class Started(subprocess.Popen):
    """Killed, not waited for, when the test that started it fails."""

    def __exit__(self, kind, *rest):
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


class Launcher:
    """Runs ringrun with a directory and an environment variable of its own, to find leftovers by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cookie = f"RINGGRAD_TEST={uuid.uuid4().hex}"
        self.runtime = Path(tempfile.mkdtemp(prefix="rg", dir="/tmp"))
        name, value = self.cookie.split("=")
        drop = ("RINGGRAD_", "OMP_", "OPENBLAS_", "MKL_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
        self.env |= {name: value, "XDG_RUNTIME_DIR": str(self.runtime)}

    def script(self, text: str, name: str = "script.py") -> str:
        (self.folder / name).write_text("import os, sys, time\n" + textwrap.dedent(text))
        return name

    def start(self, *args: str, **options) -> subprocess.Popen:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "ringgrad.launch", *args]
        env = self.env | options.pop("env", {})
        return Started(command, cwd=self.folder, env=env, text=True, preexec_fn=hear, **(pipes | options))

    def run(self, *args: str, input: str | None = None, **options) -> subprocess.CompletedProcess:
        if input is not None:
            options["stdin"] = subprocess.PIPE
        with self.start(*args, **options) as process:
            out, err = process.communicate(input, timeout=DEADLINE)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def processes(self, named: str = "") -> list[int]:
        """Every process of this test's jobs, their guards too; with `named` in its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                ours = entry.name.isdecimal() and self.cookie.encode() in (entry / "environ").read_bytes()
                if ours and named.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


@pytest.fixture
def launcher(tmp_path):
    launcher = Launcher(tmp_path)
    yield launcher
    left, files = launcher.processes(), list(launcher.runtime.iterdir())
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(launcher.runtime)
    assert (left, files) == ([], [])


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


# How a job ends.


@pytest.mark.parametrize(
    "action, code, words",
    [
        ("sys.exit(3)", 3, ["SystemExit: 3", "script.py", "line 3"]),
        ("sys.exit('no data')", 1, ["SystemExit: no data"]),
        ("os._exit(4)", 4, ["exited with code 4", "os._exit"]),
        ("1 / 0", 1, ["ZeroDivisionError: division by zero", "line 3, in <module>"]),
        ("os.kill(os.getpid(), 11)", 139, ["killed by SIGSEGV", "Segmentation fault"]),
        ("os.kill(os.getpid(), 9)", 137, ["killed by SIGKILL"]),
        ("os.abort()", 134, ["killed by SIGABRT"]),
        ("raise KeyboardInterrupt", 130, ["KeyboardInterrupt", "line 3"]),
        ("import nowhere_to_be_found", 1, ["ModuleNotFoundError: No module named 'nowhere_to_be_found'"]),
        ("exec('f(')", 1, ["SyntaxError"]),
    ],
)
def test_the_exit_code_is_the_first_failures(launcher, action, code, words):
    script = launcher.script(f"if os.environ['RANK'] == '1':\n    {action}\nelse: time.sleep(60)")
    done = launcher.run("-n", "2", script)
    assert done.returncode == code, done.stderr
    assert all(word in done.stderr for word in [*words, "rank 1 failed first", "1 other rank was then ended"])


def test_a_script_that_does_not_compile(launcher):
    done = launcher.run("-n", "2", launcher.script("def f(:\n"))
    assert done.returncode == 1
    assert done.stderr.count("SyntaxError") == 2  # in the headline and in the one traceback
    assert "1 other rank" in done.stderr


def test_a_rank_may_finish_early(launcher):
    script = launcher.script("""
        if os.environ["RANK"] == "1":
            sys.exit(0)
        while os.path.exists(f"/proc/{os.getppid()}/task") and len(open(
                f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split()) > 2:
            time.sleep(0.01)
        print("went on")
    """)
    done = launcher.run("-n", "2", script)
    assert (done.returncode, done.stdout) == (0, "[0] went on\n")


def test_the_root_causes_traceback_comes_once_and_first(launcher):
    # Ranks 0 and 2 notice the loss of rank 1 and fail too, loudly; rank 3 never notices.
    script = launcher.script("""
        class PeerLost(Exception):
            ringgrad_consequence = True

        def train(rank):
            if rank == 1:
                raise RuntimeError("the real reason")
            if rank == 3:
                time.sleep(60)
            while not os.path.exists(os.environ["RINGGRAD_RUN_DIR"] + "/errors/rank1.json"):
                time.sleep(0.01)
            try:
                raise PeerLost("rank 1 is gone")
            except PeerLost:
                if rank == 2:
                    raise ValueError("clean-up failed after that")
                raise

        train(int(os.environ["RANK"]))
    """)
    done = launcher.run("-n", "4", script)
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith(
        "[ringrun] rank 1 failed first: RuntimeError: the real reason (exit code 1, pid "
    )
    assert lines[1] == "Traceback (most recent call last):"
    assert "worker.py" not in done.stderr and "runpy" not in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert lines[-1] == "[ringrun] 3 other ranks were then ended"


TORCH_SCRIPT = """
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp
    from torch.nn.parallel import DistributedDataParallel as DDP

    assert torch.__name__ == "ringgrad" and sys.argv[1:] == ["--lr", "1"]
    dist.init_process_group("gloo", init_method="env://")
    rank = dist.get_rank()
    torch.manual_seed(rank)
    net = DDP(torch.nn.Linear(2, 1, bias=False))
    net.module.weight.data.fill_(0)
    net(torch.tensor([[1.0, 2.0]]) * (rank + 1)).sum().backward()
    print("gradient", net.module.weight.grad.tolist(), flush=True)
    dist.destroy_process_group()
    if rank == 1:
        raise ValueError("from the script")
"""


def test_a_torch_script_on_two_workers(launcher):
    done = launcher.run("-n", "2", "--torch", launcher.script(TORCH_SCRIPT), "--lr", "1")
    assert sorted(done.stdout.splitlines()) == [f"[{r}] gradient [[1.5, 3.0]]" for r in (0, 1)], done.stderr
    assert done.returncode == 1 and "ValueError: from the script (exit code 1" in done.stderr
    assert 'script.py", line' in done.stderr and "worker.py" not in done.stderr


def test_a_torch_module_on_one_worker(launcher):
    launcher.script("import torch.nn\nprint(torch.nn.__name__, __name__)", "net.py")
    done = launcher.run("--torch", "-m", "net")
    assert (done.returncode, done.stdout) == (0, "ringgrad.nn __main__\n"), done.stderr


def test_a_consequence_is_not_the_root_even_if_it_reports_first(launcher):
    script = launcher.script("""
        class PeerLost(Exception):
            ringgrad_consequence = True

        if os.environ["RANK"] == "0":
            raise PeerLost("rank 1 hung up")
        while not os.path.exists(os.environ["RINGGRAD_RUN_DIR"] + "/errors/rank0.json"):
            time.sleep(0.01)
        sys.exit(5)
    """)
    done = launcher.run("-n", "2", script)
    assert done.returncode == 5
    assert done.stderr.startswith("[ringrun] rank 1 failed first: SystemExit: 5")
    assert "PeerLost" not in done.stderr


def test_a_failed_rank_that_does_not_end_is_ended(launcher):
    script = launcher.script("""
        import signal, threading
        signal.signal(signal.SIGTERM, lambda *_: None)
        if os.environ["RANK"] == "0":
            threading.Thread(target=time.sleep, args=(60,)).start()
            raise KeyError("lost")
        while True:
            time.sleep(60)
    """)
    done = launcher.run("-n", "2", script)
    assert done.returncode == 1
    assert (
        "rank 0 failed first: KeyError: 'lost'" in done.stderr
        and "1 other rank was then ended" in done.stderr
    )


def test_a_hook_installed_by_the_script_still_runs(launcher):
    script = launcher.script("""
        from ringgrad.launch.failure import install_excepthook
        install_excepthook(lambda exc: print("telling peers of", repr(exc)))
        remove = install_excepthook(lambda exc: print("must not run"))
        remove()
        raise ValueError("x")
    """)
    done = launcher.run(script)
    assert done.stdout == "telling peers of ValueError('x')\n"
    assert done.stderr.count("Traceback") == 1
    plain = subprocess.run(
        [sys.executable, script],
        cwd=launcher.folder,
        env=launcher.env,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert plain.stdout == done.stdout and plain.returncode == 1
    assert plain.stderr.count("Traceback") == 1


def test_excepthook_goes_out_again():
    before = sys.excepthook
    install_excepthook(lambda exc: None)()
    assert sys.excepthook is before


# Signals, and what is left behind (the fixture looks).

ENDLESS = """
    import signal, subprocess
    print("ready", os.getpid(), flush=True)
    while True:
        time.sleep(60)
"""


def until_ready(process, workers):
    return [int(process.stdout.readline().split()[-1]) for _ in range(workers)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_job(launcher, signum):
    with launcher.start("-n", "2", launcher.script(ENDLESS)) as process:
        until_ready(process, 2)
        process.send_signal(signum)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + signum
    assert err == f"[ringrun] stopped by {signum.name}\n"


def test_the_time_to_finish_is_an_option(launcher):
    script = launcher.script("""
        import signal
        signal.signal(signal.SIGTERM, lambda *_: None)
        print("ready 0", flush=True)
        while True:
            time.sleep(60)
    """)
    with launcher.start("-n", "2", "--grace", "2", script) as process:
        until_ready(process, 2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 143
    assert "waiting up to 2 s for 2 to finish" in err


def test_workers_may_finish_after_ctrl_c(launcher):
    script = launcher.script("""
        try:
            print("ready 0", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("saved")
    """)
    with launcher.start("-n", "2", script) as process:
        until_ready(process, 2)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert sorted(out.splitlines()) == ["[0] saved", "[1] saved"]


def test_an_error_while_finishing_is_shown(launcher):
    script = launcher.script("""
        try:
            print("ready 0", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            raise OSError("disk full") from None
    """)
    with launcher.start(script) as process:
        until_ready(process, 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert "rank 0 failed: OSError: disk full" in err and err.endswith("[ringrun] stopped by SIGINT\n")


def test_a_second_ctrl_c_kills(launcher):
    script = launcher.script("""
        import signal
        signal.signal(signal.SIGINT, lambda *_: print("not yet", flush=True))
        print("ready 0", flush=True)
        while True:
            time.sleep(60)
    """)
    with launcher.start(script) as process:
        until_ready(process, 1)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "not yet\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=DEADLINE) == 130


def test_user_signals_reach_the_workers(launcher):
    script = launcher.script("""
        import signal
        signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
        print("ready 0", flush=True)
        while True:
            time.sleep(60)
    """)
    with launcher.start("-n", "2", script) as process:
        until_ready(process, 2)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=DEADLINE) == 0


def test_ctrl_z_stops_the_workers_too(launcher):
    def state(pid):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    with launcher.start("-n", "2", launcher.script(ENDLESS)) as process:
        pids = [process.pid, *until_ready(process, 2)]
        process.send_signal(signal.SIGTSTP)
        wait_for(lambda: [state(pid) for pid in pids] == ["T"] * 3, "all to stop")
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: "T" not in [state(pid) for pid in pids], "all to go on")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=DEADLINE) == 143


FAMILY = """
    import subprocess
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, start_new_session=True)
    print("ready", os.getpid(), flush=True)
"""


def test_children_that_outlive_their_worker_end_with_the_job(launcher):
    assert launcher.run("-n", "2", launcher.script(FAMILY)).returncode == 0


def test_kill_9_of_ringrun_leaves_nothing(launcher):
    with launcher.start("-n", "2", launcher.script(FAMILY + "    time.sleep(600)\n")) as process:
        until_ready(process, 2)
        assert len(launcher.processes()) == 8  # ringrun and its guard, two workers with two children each
        process.kill()
        wait_for(lambda: not launcher.processes(), "the job to end")
        wait_for(lambda: not list(launcher.runtime.iterdir()), "its directory to go")


def test_kill_9_of_ringrun_ends_a_ringrun_inside(launcher):
    launcher.script(FAMILY + "    time.sleep(600)\n", "inner.py")
    script = launcher.script("""
        import subprocess
        subprocess.run([sys.executable, "-m", "ringgrad.launch", "inner.py"])
    """)
    with launcher.start(script) as process:
        until_ready(process, 1)
        process.kill()
        wait_for(lambda: not launcher.processes(), "the job to end")
        wait_for(lambda: not list(launcher.runtime.iterdir()), "its directory to go")


def test_kill_9_of_ringrun_reaches_a_worker_that_never_runs_python(launcher):
    # It holds the interpreter lock and is stopped besides.
    script = launcher.script("""
        import ctypes, signal
        print("ready", os.getpid(), flush=True)
        ctypes.PyDLL(None).sleep(600)
    """)
    with launcher.start("-n", "2", script) as process:
        os.kill(until_ready(process, 2)[0], signal.SIGSTOP)
        process.kill()
        wait_for(lambda: not launcher.processes(), "the job to end")
        wait_for(lambda: not list(launcher.runtime.iterdir()), "its directory to go")


def test_kill_9_of_ringrun_and_its_guard(launcher):
    with launcher.start("-n", "2", launcher.script(ENDLESS)) as process:
        until_ready(process, 2)
        (guard,) = launcher.processes("guard.py")
        os.kill(guard, signal.SIGKILL)
        process.kill()
        wait_for(lambda: not launcher.processes(), "the workers' death signal")
    assert len(list(launcher.runtime.iterdir())) == 1
    assert launcher.run(launcher.script("print('next')")).stdout == "next\n"  # and it has cleared that up


def test_a_live_jobs_directory_is_not_taken_for_abandoned(tmp_path):
    live = tmp_path / "ringgrad-live"
    live.mkdir()
    lock = ringgrad.launch.guard.lock_run_dir(str(live))
    starting = tmp_path / "ringgrad-starting"
    starting.mkdir()
    ringgrad.launch.guard._remove_abandoned(str(tmp_path))
    assert live.exists() and starting.exists()
    os.close(lock)
    ringgrad.launch.guard._remove_abandoned(str(tmp_path))
    assert not live.exists() and starting.exists()


def test_a_reader_that_leaves_ends_the_job(launcher):
    script = launcher.script(FAMILY + "    while True: print('line')\n")
    with launcher.start("-n", "2", script) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=DEADLINE) == 141
        assert process.stderr.read() == ""


# Output.


def piped(rank=0, sink=None, log=None):
    read_end, write_end = os.pipe()
    out_read, out_write = os.pipe()
    sink = sink or Sink(out_write)
    return write_end, Stream(read_end, sink, prefix_of(rank, 3, False), log), out_read


def test_lines_are_whole_and_prefixed():
    one_in, one, shown = piped(1)
    two_in, two, _ = piped(2, one.sink)
    os.write(one_in, b"first\nsec")
    assert one.read()
    os.write(two_in, b"\xff\xfe raw\r\n\n")
    assert two.read()
    os.write(one_in, b"ond\nold\rnew\nlast")
    assert one.read()
    one.drain()
    assert os.read(shown, 4096) == b"[1] first\n[2] \xff\xfe raw\n[2] \n[1] second\n[1] new\n[1] last\n"


def test_a_prompt_is_shown_before_its_line_ends():
    one_in, one, shown = piped(1)
    two_in, two, _ = piped(2, one.sink)
    os.write(one_in, b"name? ")
    one.read()
    assert one.show_at is not None
    one.show_open_line()
    assert os.read(shown, 99) == b"[1] name? "
    os.write(one_in, b"Ada")
    one.read()
    one.show_open_line()
    assert os.read(shown, 99) == b"Ada"  # goes on where it was
    os.write(two_in, b"x\n")
    two.read()
    assert os.read(shown, 99) == b"\n[2] x\n"  # not torn
    os.write(one_in, b"!\n")
    one.read()
    assert os.read(shown, 99) == b"[1] !\n"
    assert one.show_at is None


def test_a_progress_bar_in_a_file_keeps_its_last_state():
    one_in, one, shown = piped(1)
    os.write(one_in, b"\r 10%\r 20%")
    one.read()
    one.show_open_line()
    assert os.read(shown, 99) == b"[1]  20%"
    os.write(one_in, b"\r 30%\r100%\n")
    one.read()
    assert os.read(shown, 99) == b"\n[1] 100%\n"


def test_a_progress_bar_on_a_terminal_stays_on_its_line():
    one_in, one, shown = piped(1)
    one.sink.tty = True
    for text in (b" 10%\r", b" 20%\r"):
        os.write(one_in, text)
        one.read()
        one.show_open_line()
    os.write(one_in, b"done\n")
    one.read()
    assert os.read(shown, 99) == b"[1]  10%" + b"\r\033[K[1]  20%" + b"\r\033[K[1] done\n"


def test_a_line_without_end_does_not_fill_memory(tmp_path):
    one_in, one, _ = piped(1, Sink(os.open(tmp_path / "shown", os.O_RDWR | os.O_CREAT)))
    for _ in range(3):
        os.write(one_in, b"x" * 40000)
        one.read()
    assert (tmp_path / "shown").read_bytes() == b"[1] " + b"x" * 80000
    assert len(one.pending) == 40000


def test_prefixes_are_of_one_width():
    assert [prefix_of(rank, 11, False) for rank in (3, 10)] == [b"[ 3] ", b"[10] "]
    assert prefix_of(1, 2, True) == b"\033[33m[1]\033[0m "


def test_stdout_and_stderr_keep_their_order_in_one_file(launcher):
    script = launcher.script("""
        for i in range(20):
            print("out", i, file=(sys.stdout, sys.stderr)[i % 2])
    """)
    done = launcher.run("-n", "2", script, stderr=subprocess.STDOUT)
    for rank in "01":
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"[{rank}]")]
        assert lines == [f"[{rank}] out {i}" for i in range(20)]


def test_stdout_and_stderr_go_their_ways(launcher):
    done = launcher.run("-n", "2", launcher.script("print('o'); print('e', file=sys.stderr)"))
    assert sorted(done.stdout.splitlines()) == ["[0] o", "[1] o"]
    assert sorted(done.stderr.splitlines()) == ["[0] e", "[1] e"]


@pytest.mark.parametrize("options, expected", [((), "x\n"), (("--prefix", "always"), "[0] x\n")])
def test_a_single_worker_has_no_prefix_unless_asked(launcher, options, expected):
    assert launcher.run(*options, launcher.script("print('x')")).stdout == expected


@pytest.mark.parametrize("options, rank0", [((), "True"), (("--prefix", "always"), "False")])
def test_on_a_terminal_rank_zero_writes_there_itself(launcher, options, rank0):
    # One write a line: rank 0 writes to the terminal itself, and another rank's line may come between two.
    script = launcher.script('print(f"tty {os.environ[\'RANK\']} {sys.stdout.isatty()}\\n", end="")')
    master, terminal = pty.openpty()
    with launcher.start("-n", "2", *options, script, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(master, 4096):
                shown += chunk
        except OSError:  # how a terminal says that its other side is closed
            pass
        assert process.wait(timeout=DEADLINE) == 0
    os.close(master)
    text = shown.decode()
    assert f"tty 0 {rank0}" in text
    assert "[1]\033[0m tty 1 False" in text
    assert ("[0]\033[0m tty 0" in text) == bool(options)


def test_logs_hold_each_ranks_output_and_its_traceback(launcher):
    script = launcher.script("""
        print("I am", os.environ["RANK"])
        if os.environ["RANK"] == "1":
            raise ValueError("broken")
    """)
    done = launcher.run("-n", "2", "--log-dir", "logs", script)
    assert done.returncode == 1
    logs = launcher.folder / "logs"
    assert (logs / "rank0.log").read_text() == "I am 0\n"
    text = (logs / "rank1.log").read_text()
    assert text.startswith("I am 1\nTraceback") and text.endswith("ValueError: broken\n")
    assert "its output: logs/rank1.log" in done.stderr


# What it says.


class Lost(Exception):
    ringgrad_consequence = True


def failures(folder, *errors):
    for rank, error in enumerate(errors):
        assert report_failure(error, str(folder), rank)
    return read_failures(str(folder))


def test_reports_come_back_root_first(tmp_path):
    (tmp_path / "errors").mkdir()
    (tmp_path / "errors" / "rank9.json").write_text("{")
    (tmp_path / "errors" / "rank8.json").write_text('{"rank": "x"}')
    found = failures(tmp_path, Lost("peer"), ValueError("x\ud800"), KeyError("k"))
    assert [(f.rank, f.kind, f.is_consequence) for f in found] == [
        (1, "ValueError", False),
        (2, "KeyError", False),
        (0, "Lost", True),
    ]
    assert found[0].pid == os.getpid() and found[0].exit_code == 1


def test_a_report_without_a_place_to_go(tmp_path):
    (tmp_path / "file").write_text("")
    assert not report_failure(ValueError("x"), str(tmp_path / "file"), 0)


def test_long_tracebacks_keep_both_ends(tmp_path):
    (found,) = failures(tmp_path, ValueError("begin" + "x" * 200_000 + "end"))
    assert len(found.traceback) <= 64 * 1024
    assert "begin" in found.traceback and found.traceback.endswith("end\n") and "left out" in found.traceback


def test_an_exception_that_can_not_be_shown(tmp_path):
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    (found,) = failures(tmp_path, Broken())
    assert "RuntimeError" in found.message


def test_the_verdict_folds_what_followed(tmp_path):
    errors = [Lost("a"), ValueError("root"), KeyError("own"), ValueError("root"), Lost("b")]
    text = verdict(failures(tmp_path, *errors), ended=2, logs={})
    lines = text.splitlines()
    assert lines[0].startswith("[ringrun] rank 1 failed first: ValueError: root")
    assert lines[-3].startswith("[ringrun] rank 2 failed too: KeyError: 'own'")
    assert lines[-2:] == [
        "[ringrun] 1 other rank failed in the same way",
        "[ringrun] 4 other ranks were then ended",
    ]


def test_the_verdict_says_if_the_cause_is_elsewhere(tmp_path):
    assert "consequence of a failure elsewhere" in verdict(
        failures(tmp_path, Lost("node 1")), ended=0, logs={}
    )


def test_sigkill_is_explained_by_evidence_alone():
    before = MemoryKills(2, 5)
    assert "control group" in MemoryKills(3, 6).explain_since(before)
    assert "on this host" in MemoryKills(2, 6).explain_since(before)
    assert "sender unknown" in MemoryKills(2, 5).explain_since(before)
    assert died(0, 1, -9, 0.0, 0.0, "the evidence").message == "killed by SIGKILL: the evidence"
    assert died(0, 1, -15, 0.0, 0.0, "the evidence").message == "killed by SIGTERM"


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
def test_wrong_use_is_explained(launcher, args, words):
    launcher.script("print('ran')", "s.py")
    for name, mode in (("open.token", 0o644), ("short.token", 0o600)):
        (launcher.folder / name).write_text("abc")
        (launcher.folder / name).chmod(mode)
    done = launcher.run(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(word in done.stderr for word in words), done.stderr
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


# ---- restarts


def test_a_failed_job_is_started_again_until_it_succeeds(launcher):
    script = launcher.script(
        """
        count = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        print(f"try {count} of {os.environ['TORCHELASTIC_MAX_RESTARTS']} in {os.environ['RINGGRAD_RUN_DIR']}")
        if count < 2 and os.environ["RANK"] == "1":
            raise OSError(f"flaky {count}")
        """
    )
    done = launcher.run("-n", "2", "--max-restarts", "3", "--log-dir", "logs", script)
    assert done.returncode == 0, done.stderr
    assert [f"flaky {n}" in done.stderr for n in range(3)] == [True, True, False]
    assert "restart 1 of 3" in done.stderr and "restart 2 of 3" in done.stderr
    log = (launcher.folder / "logs/rank1.log").read_text()
    assert log.index("try 0 of 3") < log.index("[ringrun] restart 2") < log.index("try 2 of 3")
    rooms = {line.split(" in ")[1] for line in log.splitlines() if line.startswith("try")}
    assert len(rooms) == 3 and not launcher.processes()


def test_restarts_end_with_their_number(launcher):
    script = launcher.script("sys.exit(3 + int(os.environ['TORCHELASTIC_RESTART_COUNT']))")
    done = launcher.run("--max_restarts", "1", script)
    assert done.returncode == 4 and done.stderr.count("starting all workers again") == 1


@pytest.mark.parametrize(
    ("text", "tries", "words"),
    [
        ("import no_such_module", 1, "the code must change to mend ModuleNotFoundError"),
        ("sys.exit(2)", 1, "that of wrong arguments"),
        ("raise ValueError('again')", 3, "3 times in a row"),
        ("os.kill(os.getpid(), 9)", 3, "3 times in a row"),
    ],
)
def test_a_restart_that_can_not_help_is_not_made(launcher, text, tries, words):
    script = launcher.script("print('here I am')\n" + text)
    done = launcher.run("--max-restarts", "9", script)
    assert done.returncode != 0 and done.stdout.count("here I am") == tries and words in done.stderr


def test_ctrl_c_is_no_reason_to_start_again(launcher):
    script = launcher.script("print('ready', flush=True); time.sleep(60)")
    with launcher.start("--max-restarts", "9", script) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130 and "again in" not in err


def test_training_goes_on_after_a_killed_worker(launcher):
    """The whole of it: a rank is killed in mid-training, all are started again and end with the same weights."""
    script = launcher.script(
        """
        import signal
        import ringgrad as rg
        from ringgrad import distributed as dist
        from ringgrad.nn.parallel import DistributedDataParallel

        dist.init_process_group()
        rg.manual_seed(1)
        model = DistributedDataParallel(rg.nn.Linear(4, 2))
        optimizer = rg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        step = 0
        if os.path.exists("state"):
            state = rg.load("state")
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            step = state["step"]
        while step < 6:
            if step == 4 and dist.get_rank() == 1 and "--kill" in sys.argv and not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            x = rg.full((3, 4), float(step + dist.get_rank()))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            step += 1
            if dist.get_rank() == 0:
                rg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, "state")
        if dist.get_rank() == 0:
            print(os.environ["TORCHELASTIC_RESTART_COUNT"], model.module.weight.tolist())
        dist.destroy_process_group()
        """
    )
    whole = launcher.run("-n", "2", "--prefix", "never", script)
    (launcher.folder / "state").unlink()
    broken = launcher.run("-n", "2", "--prefix", "never", "--max-restarts", "1", script, "--kill")
    assert broken.returncode == 0, broken.stderr
    assert "killed by SIGKILL" in broken.stderr
    assert whole.stdout == broken.stdout.replace("1 [[", "0 [[") != ""
