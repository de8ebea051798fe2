"""What every test stands on: nothing of a test is remembered in the user's own cache."""

import os
import tempfile

import pytest

import edgesmith.runtime  # noqa: F401  before a test imports onnxruntime, which reports itself otherwise


@pytest.fixture(scope="session", autouse=True)
def _own_cache():
    with tempfile.TemporaryDirectory(prefix="edgesmith-cache-") as folder:
        before = os.environ.get("EDGESMITH_CACHE")
        os.environ["EDGESMITH_CACHE"] = folder
        yield
        if before is None:
            del os.environ["EDGESMITH_CACHE"]
        else:
            os.environ["EDGESMITH_CACHE"] = before
