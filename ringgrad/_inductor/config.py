"""Settings of a compiler that is not here: scripts may write any name, and nothing reads it."""

from types import SimpleNamespace

triton = SimpleNamespace()
cpp = SimpleNamespace()
