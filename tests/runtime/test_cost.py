"""What the runtime itself costs, and that the benchmark of it measures."""

import os

import pytest

from support import cost
from support.bundles import colour_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours").folder


def test_the_runtime_is_small():
    assert cost.installed() < 1_000_000


def test_the_benchmark_measures_every_part(folder):
    """That it measures, not how fast: `python tests/support/cost.py BUNDLE` prints the figures."""
    found = {**cost.imports(1), **cost.overhead(folder, 200), **cost.first_answer(folder, 1)}
    assert min(found["first_answer_cpu_s"], found["bare_run_wall_s"]) > 0
    assert {"import_cpu_s", "first_answer_cpu_s", "bare_run_wall_s", "overhead_finite_wall_s"} <= set(found)


def test_processor_time_is_really_measured():
    _, busy = cost.seconds("sum(range(10**7))")
    _, idle = cost.seconds("pass")
    assert busy > idle + 0.05
    assert os.times().children_user > 0
