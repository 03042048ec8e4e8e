"""Signals to ringrun, and that nothing is left behind (the fixture looks)."""

import os
import signal
from pathlib import Path

import pytest
from ringrun_job import DEADLINE, ENDLESS, until_ready, wait_for

import ringgrad.launch.guard


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_job(launcher, signum):
    with launcher.start("-n", "2", launcher.script(ENDLESS)) as process:
        until_ready(process, 2)
        process.send_signal(signum)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + signum
    lines = [line for line in err.splitlines() if "waiting up to" not in line]  # said after a second
    assert lines == [f"[ringrun] stopped by {signum.name}"]


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
        launcher.wait_for_processes(8)  # ringrun and its guard, two workers with two children each
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
        (guard,) = launcher.wait_for_processes(1, "guard.py")
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
