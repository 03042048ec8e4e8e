"""`ringrun --max-restarts`: when all workers are started anew, and when not."""

import signal

import pytest
from ringrun_job import DEADLINE


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
