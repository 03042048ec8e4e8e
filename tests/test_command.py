"""The command `ringgrad` and its table."""

import importlib
import os
import signal
import subprocess
import sys

import pytest

from ringgrad import command


@pytest.mark.parametrize("name", command.COMMANDS)
def test_each_command_is_there_and_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, function = command.COMMANDS[name][0].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    with pytest.raises(SystemExit) as done:
        command.main([name, "--help"])
    assert done.value.code in (0, None) and "usage:" in capsys.readouterr().out


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text and says in text for name, (_, says) in command.COMMANDS.items())
    assert command.main([]) == 2


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["dance"]) == 2
    assert "the command must be one of " in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ringgrad", "run", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "ringrun")


@pytest.mark.parametrize("arguments", [["doctor", "--no-join"], ["--help"]])
def test_a_command_whose_reader_has_gone_ends_without_a_word(arguments: list[str]) -> None:
    """As of `ringgrad doctor | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ringgrad", *arguments], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
