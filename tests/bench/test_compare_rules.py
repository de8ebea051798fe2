"""The edges of the rule, what is divided out, and each reason that an answer gives."""

import dataclasses
import math

import pytest

from edgesmith.bench.gate import compare
from edgesmith.bench.gate.compare import Comparison
from edgesmith.bench.measure import environment
from edgesmith.bench.result import Reading, Result, Run, Subject
from edgesmith.bench.stats import Interval
from edgesmith.runtime.errors import DataError

HERE = environment.here()
OTHER = dataclasses.replace(HERE, cpu="Cortex-A78AE", cores=6)
T = compare.THRESHOLD
EDGES = {
    "low on its bound": ((1 / (1 + T), 1.0), "cannot tell"),
    "low inside": ((1 / (1 + T) + 1e-9, 1.0), "same"),
    "high on its bound": ((1.0, 1 + T), "cannot tell"),
    "high inside": ((1.0, 1 + T - 1e-9), "same"),
    "slower on its bound": ((1 + 0.5 * T, 1.2), "cannot tell"),
    "slower beyond": ((1 + 0.5 * T + 1e-9, 1.2), "slower"),
    "faster on its bound": ((0.8, 1 / (1 + 0.5 * T)), "cannot tell"),
    "faster beyond": ((0.8, 1 / (1 + 0.5 * T) - 1e-9), "faster"),
}


@pytest.mark.parametrize("case", EDGES)
def test_the_edges_of_the_rule(case):
    (low, high), answer = EDGES[case]
    assert compare.decide_ratio(Interval(1.0, low, high)) == answer


def test_doubt_is_the_share_of_the_threshold_to_be_beyond():
    ratio = Interval(1.1, 1.08, 1.15)
    assert compare.decide_ratio(ratio, 0.10, 0.5) == "slower"
    assert compare.decide_ratio(ratio, 0.10, 1.0) == "cannot tell"
    assert compare.decide_ratio(Interval(0.9, 0.85, 0.92), 0.10, 1.0) == "cannot tell"


def run(level, *, reference=(), machine=HERE, latency=None, **subject):
    """A run of one network whose samples are all the same: its interval has no width."""
    samples = ((0.004 * level,) * 5,) * 4
    latency = latency or Reading("latency", {"p50_s": 0.004 * level}, samples=samples)
    return Run(
        "now", "bench", machine, (Result(Subject("net", "net.onnx", **subject), {"latency": latency}),), reference
    )


def told(base, new, **options):
    (found,) = compare.compare_runs(base, new, **options)
    return found


@pytest.mark.parametrize(("level", "answer"), [(1.02, "same"), (1.04, "slower"), (0.96, "faster")])
def test_the_ratio_is_new_over_base(level, answer):
    found = told(run(1.0), run(level))
    assert (found.answer, found.key) == (answer, "net/fp32/ort/t1/b1")
    assert found.ratio.estimate == pytest.approx(level)
    assert found.to_dict()["ratio"]["estimate"] == found.ratio.estimate
    assert found.to_dict()["answer"] == answer


def test_the_threshold_may_be_given():
    assert told(run(1.0), run(1.04), threshold=0.05).answer == "same"


def test_every_subject_that_both_have_is_compared():
    base, new = (
        dataclasses.replace(run(1.0), results=run(1.0, batch=2).results + run(1.0, batch=number).results)
        for number in (3, 4)
    )  # fmt: skip
    assert [one.key for one in compare.compare_runs(base, new)] == ["net/fp32/ort/t1/b2"]


def test_runs_without_a_common_subject_are_named():
    with pytest.raises(DataError, match=r"got net/int8/ort/t1/b1 against nothing; "):
        compare.compare_runs(run(1.0, precision="int8"), dataclasses.replace(run(1.0), results=()))


def test_one_machine_needs_no_caveat():
    assert told(run(1.0), run(1.0)).why == "a change of +0.0% to +0.0% is below 3%"
    assert "different machines" not in told(run(1.0), run(1.0), other_machine=True).why


SLOW, FAST = ((0.002,) * 4,) * 3, ((0.001,) * 4,) * 3


@pytest.mark.parametrize(
    ("level", "answer"), [(2.0, "same"), (2.16, "same"), (2.22, "slower"), (1.81, "faster"), (1.87, "same")]
)
def test_a_slower_machine_is_divided_out_and_ten_percent_count(level, answer):
    """The reference took twice as long: a network that did so too is as quick as before."""
    found = told(run(1.0, reference=FAST), run(level, reference=SLOW), calibrate=True)
    assert found.answer == answer
    assert found.ratio.estimate == pytest.approx(level / 2)
    assert "took 2.00 times as long" in found.why
    assert "the threshold is 10%" in found.why


def test_a_wider_threshold_than_ten_percent_is_kept_when_calibrated():
    found = told(run(1.0, reference=FAST), run(2.5, reference=SLOW), calibrate=True, threshold=0.3)
    assert found.answer == "same"


def spread(low, high, **more):
    """A run with processes on two levels: the interval of its ratio to a steady run has these bounds."""
    samples = ((low,) * 5,) * 4 + ((high,) * 5,) * 4
    return run(1.0, latency=Reading("latency", {"p50_s": low}, samples=samples), **more)


def test_what_was_not_interleaved_must_be_beyond_the_threshold_with_all_of_its_interval():
    steady = spread(1.0, 1.0, reference=FAST)
    found = told(steady, spread(1.02, 1.05))
    assert (found.ratio.low, found.ratio.high) == (1.02, 1.05)
    assert found.answer == "slower"
    assert told(steady, spread(1.07, 1.15, reference=FAST), calibrate=True).answer == "cannot tell"


@pytest.mark.parametrize("missing", ["base", "new"])
def test_both_runs_need_the_reference(missing):
    base, new = (run(1.0, reference=() if name == missing else FAST) for name in ("base", "new"))
    with pytest.raises(DataError, match=f"the {missing} result cannot be calibrated"):
        compare.compare_runs(base, new, calibrate=True)


def test_independent_ratios_are_divided_in_logarithms():
    """exp(1 ± 3) over exp(0 ± 4): the half widths add in quadrature, to 5; each bound meets the other's far one."""
    ratio = Interval(math.e, math.exp(1 - 3), math.exp(1 + 5), 0.9)
    speed = Interval(1.0, math.exp(-12), math.exp(4))
    found = compare._over(ratio, speed)
    assert (found.estimate, found.level) == (pytest.approx(math.e), 0.9)
    assert math.log(found.low) == pytest.approx(1 - 5)
    assert math.log(found.high) == pytest.approx(1 + 13)


INCOMPARABLE = {
    "new is missing": (
        (run(1.0), run(1.0, latency=Reading("latency", missing="it hung"))), "new has no latency: it hung",
    ),
    "no samples": (
        (run(1.0, latency=Reading("latency", {"p50_s": 1.0})), run(1.0)), "base has no latency: ",
    ),
    "another metric": (
        (run(1.0), Run("now", "b", HERE, (Result(Subject("net", "n"), {}),))), "new has no latency: not measured",
    ),
    "one process": (
        (run(1.0), run(1.0, latency=Reading("latency", {"p50_s": 1.0}, samples=((1.0, 1.0),)))),
        "new has one process only; measure at least 2 (--processes)",
    ),
    "another input": (
        (run(1.0, input_shape=(3, 8, 8)), run(1.0, input_shape=(3, 9, 9))),
        "the input shapes differ: (3, 8, 8) against (3, 9, 9)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INCOMPARABLE)
def test_the_reason_why_nothing_can_be_told(case):
    runs, why = INCOMPARABLE[case]
    assert told(*runs) == Comparison("net/fp32/ort/t1/b1", "cannot tell", None, why)


def test_two_processes_are_enough():
    two = Reading("latency", {"p50_s": 1.0}, samples=((1.0, 1.0), (1.0, 1.0)))
    assert told(run(1.0, latency=two), run(1.0, latency=two)).answer == "same"


def test_the_notes_of_both_readings_are_in_the_reason_once_and_those_on_p99_are_not():
    samples = ((1.0,) * 3,) * 2
    base = Reading("latency", {"p50_s": 1.0}, samples=samples, notes=("swapping", "p99 of 30 samples", "hot"))
    new = dataclasses.replace(base, notes=("swapping", "busy"))
    why = told(run(1.0, latency=base), run(1.0, latency=new), other_machine=True).why
    assert why == "a change of +0.0% to +0.0% is below 3%; busy; hot; swapping"


def test_each_answer_says_what_changed():
    why = {name: compare._why(name, Interval(1.0, 0.95, 1.1), 0.03, [], ["beware"]) for name in compare.EXIT}
    span = "a change of -5.0% to +10.0%"
    assert why == {
        "faster": f"{span}; beware",
        "slower": f"{span}; beware",
        "same": f"{span} is below 3%; beware",
        "cannot tell": f"{span} leaves it open; measure more processes, or use `edgesmith gate`; beware",
    }


@pytest.mark.parametrize(
    ("answers", "code"),
    [(["same"], 0), (["faster", "same"], 0), (["cannot tell", "same"], 3), (["cannot tell", "slower", "same"], 1)],
)
def test_the_worst_answer_is_the_exit_code(answers, code):
    assert compare.worst_code([Comparison("k", answer, None, "") for answer in answers]) == code


def pair(*variants):
    """A run of one network in TensorRT's INT8 form, once for each variant, the second 8.85 times as slow."""
    levels = zip((1.0, 8.85), variants, strict=True)
    runs = [run(level, precision="int8", target="trt", variant=name) for level, name in levels]
    return dataclasses.replace(runs[0], results=tuple(one.results[0] for one in runs))


def test_a_run_compared_with_itself_is_the_same_throughout():
    """Both forms are INT8 for TensorRT: what tells them apart is in the key."""
    both = pair("", "fp16")
    answers = compare.compare_runs(both, both)
    assert {one.key: one.answer for one in answers} == {
        "net/int8-trt/ort/t1/b1": "same",
        "net/int8-trt-fp16/ort/t1/b1": "same",
    }


@pytest.mark.parametrize("which", ["base", "new"])
def test_two_results_under_one_name_are_refused(which):
    sides = {"base": pair("", "fp16"), "new": pair("", "fp16"), which: pair("", "")}
    with pytest.raises(DataError, match=f"the {which} result has several figures under one name; got net/int8-trt/"):
        compare.compare_runs(sides["base"], sides["new"])
