"""For all tests: what they measure stays out of the user's cache."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("RINGGRAD_CACHE")
    os.environ["RINGGRAD_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["RINGGRAD_CACHE"]
    else:
        os.environ["RINGGRAD_CACHE"] = before
