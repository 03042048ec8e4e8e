"""For all tests: a cache of their own, drawn examples that do not depend on chance or time, jobs of ringrun."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from ringrun_job import Launcher

settings.register_profile(
    "the same everywhere",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("the same everywhere")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RINGGRAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Fails a test whose jobs leave a process or a file behind."""
    launcher = Launcher(tmp_path)
    yield launcher
    left, files = launcher.processes(), list(launcher.runtime.iterdir())
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(launcher.runtime)
    assert (left, files) == ([], [])
