"""The rule on made-up intervals, on simulated runs with a known change, and everything that must not be compared."""

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

from edgesmith.bench import result
from edgesmith.bench.gate import compare
from edgesmith.bench.measure import environment
from edgesmith.bench.result import Reading, Result, Run, Subject
from edgesmith.bench.stats import Interval
from edgesmith.cli.compare import compare_command
from edgesmith.runtime.errors import DataError

HERE = environment.here()
RULE = {
    "no change, narrow": ((0.99, 1.01), "same"),
    "no change, wide": ((0.90, 1.10), "cannot tell"),
    "a change that nobody minds": ((1.018, 1.029), "same"),
    "a clear slowdown": ((1.04, 1.06), "slower"),
    "a slowdown at the threshold": ((1.02, 1.04), "slower"),
    "a slowdown or nothing": ((1.005, 1.05), "cannot tell"),
    "a clear speed-up": ((0.90, 0.95), "faster"),
    "not a number": ((float("nan"), float("nan")), "cannot tell"),
}


@pytest.mark.parametrize("case", RULE)
def test_the_rule(case):
    (low, high), answer = RULE[case]
    assert compare.decide_ratio(Interval((low + high) / 2, low, high)) == answer


def run(seed, level=1.0, *, processes=8, spread=0.004, machine=HERE, **subject):
    rng = np.random.default_rng(seed)
    groups = [
        tuple(0.004 * level * np.exp(rng.normal(0, spread)) * (1 + rng.exponential(0.01, 60)))
        for _ in range(processes)
    ]  # fmt: skip
    reading = Reading("latency", {"p50_s": float(np.median(groups))}, samples=tuple(groups))
    return Run("now", "bench", machine, (Result(Subject("net", "net.onnx", **subject), {"latency": reading}),))


@pytest.mark.parametrize(("level", "allowed"), [(1.0, {"same"}), (1.05, {"slower"}), (0.95, {"faster"})])
def test_a_known_change_is_named(level, allowed):
    answers = [compare.compare_runs(run(2 * seed), run(2 * seed + 1, level))[0].answer for seed in range(10)]
    assert sum(answer in allowed for answer in answers) >= 9
    assert set(answers) <= allowed | {"cannot tell"}


def test_a_noisy_machine_cannot_tell():
    assert compare.compare_runs(run(1, spread=0.2), run(2, spread=0.2))[0].answer == "cannot tell"


OTHER = dataclasses.replace(HERE, cpu="Cortex-A78AE", cores=6)


def test_two_machines_are_not_mixed():
    with pytest.raises(DataError, match=r"different machines; got .*cpu: .* -> Cortex-A78AE.*do: measure both on one"):
        compare.compare_runs(run(1), run(2, machine=OTHER))
    marked = compare.compare_runs(run(1), run(2, machine=OTHER), other_machine=True)
    assert "different machines: this is weak evidence" in marked[0].why


def test_two_models_are_not_compared():
    with pytest.raises(DataError, match="no subject in common"):
        compare.compare_runs(run(1), run(2, precision="int8"))


INCOMPARABLE = {
    "one process": (run(1, processes=1), "base has one process only"),
    "another input": (run(1, input_shape=(3, 96, 96)), "the input shapes differ"),
    "no latency": (
        Run("now", "b", HERE, (Result(Subject("net", "n"), {"latency": Reading("latency", missing="it crashed")}),)),
        "base has no latency: it crashed",
    ),
}


@pytest.mark.parametrize("case", INCOMPARABLE)
def test_what_cannot_be_compared_cannot_be_told(case):
    base, why = INCOMPARABLE[case]
    answer = compare.compare_runs(base, run(2))[0]
    assert (answer.answer, answer.ratio) == ("cannot tell", None)
    assert answer.why.startswith(why)


EXITS = {"same": (1.0, 0.004, 0), "slower": (1.1, 0.004, 1), "faster": (0.9, 0.004, 0), "cannot tell": (1.0, 0.2, 3)}


@pytest.mark.parametrize("answer", EXITS)
def test_the_command_ends_in_the_answers_exit_code(answer, tmp_path):
    level, spread, code = EXITS[answer]
    base = result.write_run(run(1, spread=spread), tmp_path / "base.json")
    new = result.write_run(run(4, level, spread=spread), tmp_path / "new.json")
    done = CliRunner().invoke(compare_command, [str(base), str(new)])
    assert done.exit_code == code, done.output
    assert answer in done.output


def with_reference(seed, level, pace=1.0, **more):
    """A run whose machine takes `pace` times as long for everything, its reference workload too."""
    rng = np.random.default_rng(1000 + seed)
    beside = tuple(tuple(0.001 * pace * np.exp(rng.normal(0, 0.004, 40))) for _ in range(8))
    return dataclasses.replace(run(seed, level * pace, **more), reference=beside)


CALIBRATED = {
    "a slower machine alone": (1.0, 1.5, "same"),
    "a slower network on a faster machine": (1.3, 0.5, "slower"),
    "a faster network on a slower machine": (0.7, 1.4, "faster"),
    "too small a change to count": (1.04, 1.0, "same"),
}


@pytest.mark.parametrize("case", CALIBRATED)
def test_the_machine_is_divided_out(case):
    level, machine, answer = CALIBRATED[case]
    base, new = with_reference(1, 1.0), with_reference(2, level, machine, machine=OTHER)
    (told,) = compare.compare_runs(base, new, other_machine=True, calibrate=True)
    assert told.answer == answer
    assert "were not interleaved" in told.why


def test_what_has_no_reference_is_not_calibrated():
    with pytest.raises(DataError, match="the new result cannot be calibrated.*do: measure again"):
        compare.compare_runs(with_reference(1, 1.0), run(2), calibrate=True)
