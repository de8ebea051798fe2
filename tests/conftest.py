"""What every test stands on: nothing of a test is remembered in the user's own folders."""

import os
import tempfile

import pytest
from hypothesis import HealthCheck, settings

import edgesmith.runtime  # noqa: F401  before a test imports onnxruntime, which reports itself otherwise

# A busy machine is slow: no verdict is taken from a clock.
settings.register_profile("edgesmith", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgesmith")

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and tables would leave columns out

# The longest first: whatever is begun last keeps one core waiting for the other.
LONGEST = (
    "test_pipeline", "test_faults", "test_zoo_pipeline", "test_zoo", "test_how_to", "test_tasks", "test_corpus",
    "test_bring_anything", "test_sweep", "test_sweep_targets", "test_fuzz", "test_pipeline_int8",
)  # fmt: skip

# Tracing doubles the time of each start of Python, so it is done where a child runs what no test runs here.
SPAWNING = ("test_build", "test_process", "test_inside", "test_suite", "test_package_weights")
TRACE, trace = "COVERAGE_PROCESS_CONFIG", pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if TRACE in os.environ:
        item.config.stash[trace] = os.environ.pop(TRACE)
    if item.path.stem in SPAWNING and trace in item.config.stash:
        os.environ[TRACE] = item.config.stash[trace]


def pytest_collection_modifyitems(config, items):
    """Leave out the repeats, unless asked for (`-m nightly`); begin with the longest files; trace nothing slow."""
    repeats = [item for item in items if item.get_closest_marker("nightly")]
    if repeats and "nightly" not in config.option.markexpr:
        config.hook.pytest_deselected(items=repeats)
        items[:] = [item for item in items if item not in repeats]
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
    if config.pluginmanager.hasplugin("_cov"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker("no_cover")  # the quick tests reach nearly all of it, and tracing would cost minutes


@pytest.fixture(scope="session", autouse=True)
def _own_folders():
    with tempfile.TemporaryDirectory(prefix="edgesmith-tests-") as folder, pytest.MonkeyPatch.context() as patched:
        for name in ("EDGESMITH_CACHE", "EDGESMITH_STATE"):
            patched.setenv(name, f"{folder}/{name.lower()}")
        yield
