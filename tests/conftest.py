"""What every test stands on: nothing of a test is remembered in the user's own folders."""

import tempfile

import pytest
from hypothesis import HealthCheck, settings

import edgesmith.runtime  # noqa: F401  before a test imports onnxruntime, which reports itself otherwise

# A busy machine is slow: no verdict is taken from a clock.
settings.register_profile("edgesmith", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgesmith")


@pytest.fixture(scope="session", autouse=True)
def _own_folders():
    with tempfile.TemporaryDirectory(prefix="edgesmith-tests-") as folder, pytest.MonkeyPatch.context() as patched:
        for name in ("EDGESMITH_CACHE", "EDGESMITH_STATE"):
            patched.setenv(name, f"{folder}/{name.lower()}")
        yield
