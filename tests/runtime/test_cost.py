"""What the runtime itself costs, held loosely: other work on the machine must not fail a test."""

import os

import pytest

from support import cost
from support.bundles import colour_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours").folder


def test_the_runtime_is_small():
    assert cost.installed() < 1_000_000


def test_the_import_is_quick():
    found = cost.imports(5)
    assert found["import_cpu_s"] < 0.1
    assert found["import_and_load_cpu_s"] < 0.3


def test_a_call_costs_little_over_the_backends_own(folder):
    found = cost.overhead(folder, 2000)
    assert found["bare_run_wall_s"] > 0
    assert found["overhead_finite_wall_s"] < 15e-6
    assert found["overhead_checked_wall_s"] < 40e-6


@pytest.mark.slow
def test_the_first_answer_costs_little_over_a_bare_session(folder):
    found = cost.first_answer(folder, 5)
    assert found["first_answer_cpu_s"] < found["bare_first_answer_cpu_s"] + 0.4


def test_processor_time_is_really_measured():
    _, busy = cost.seconds("sum(range(10**7))")
    _, idle = cost.seconds("pass")
    assert busy > idle + 0.05
    assert os.times().children_user > 0
