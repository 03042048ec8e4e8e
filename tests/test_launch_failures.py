"""How a job ends, and what ringrun says about it."""

import os
import subprocess
import sys

import pytest
from ringrun_job import DEADLINE

from ringgrad.launch.failure import install_excepthook, read_failures, report_failure
from ringgrad.launch.host import MemoryKills
from ringgrad.launch.verdict import died, verdict


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
def test_the_exit_code_is_the_failures(launcher, action, code, words):
    done = launcher.run(launcher.script(f"if True:\n    {action}"))
    assert done.returncode == code, done.stderr
    assert all(word in done.stderr for word in [*words, "rank 0 failed: "])


@pytest.mark.parametrize("action, code", [("1 / 0", 1), ("os.kill(os.getpid(), 9)", 137)])
def test_the_others_are_ended_after_a_failure(launcher, action, code):
    script = launcher.script(f"if os.environ['RANK'] == '1':\n    {action}\nelse: time.sleep(60)")
    done = launcher.run("-n", "2", script)
    assert done.returncode == code, done.stderr
    assert "rank 1 failed first" in done.stderr and "1 other rank was then ended" in done.stderr


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
            while not os.path.exists("started"):  # a rank 1 still starting would have to do so within the second
                time.sleep(0.01)
            raise PeerLost("rank 1 hung up")
        open("started", "w").close()
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
