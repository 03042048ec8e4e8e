"""How the workers' output comes together."""

import os
import pty
import subprocess

import pytest
from ringrun_job import DEADLINE

from ringgrad.launch.output import Sink, Stream, prefix_of


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
