"""Records round-trip through JSON, carry units, and refuse what is not theirs."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.bench import result
from edgesmith.bench.measure import environment
from edgesmith.bench.result import Reading, Result, Run, Subject
from edgesmith.runtime.errors import DataError, UsageError
from support.results import run as made_run

finite = st.floats(allow_nan=False, allow_infinity=False)
readings = st.builds(
    Reading,
    metric=st.text(min_size=1),
    values=st.dictionaries(st.text().map(lambda name: name + "_s"), finite, min_size=1, max_size=3),
    intervals=st.dictionaries(st.text(), st.tuples(finite, finite), max_size=2),
    samples=st.lists(st.lists(finite, max_size=3).map(tuple), max_size=3).map(tuple),
    notes=st.lists(st.text(), max_size=2).map(tuple),
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(), readings, max_size=3))
def test_a_run_is_equal_after_a_round_trip(found):
    subject = Subject("net", "net.onnx", input_shape=(1, 3, 4, 4), params=7)
    run = Run("2026-01-01T00:00:00+00:00", "edgesmith bench", environment.here(), (Result(subject, found),))
    assert result.run_from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_a_written_run_is_read_again(tmp_path):
    run = Run("now", "bench", environment.here(), ())
    assert result.read_run(result.write_run(run, tmp_path / "deep" / "run.json")) == run
    assert json.loads((tmp_path / "deep" / "run.json").read_text())["version"] == result.VERSION


WRONG_READINGS = {
    "no unit": ({"values": {"p50": 1.0}}, "the value 'p50' has no unit"),
    "not a number": ({"values": {"p50_s": float("nan")}}, "p50_s is nan"),
    "nothing, for no reason": ({}, "no values and no reason"),
}


@pytest.mark.parametrize("case", WRONG_READINGS)
def test_a_wrong_reading_cannot_be_made(case):
    fields, message = WRONG_READINGS[case]
    with pytest.raises(ValueError, match=message):
        Reading("latency", **fields)


def test_records_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Reading("size", {"file_bytes": 1.0}).metric = "other"


GOOD = Run("now", "bench", environment.here(), ()).to_dict()
WRONG_FILES = {
    "no JSON": "{",
    "a list": "[]",
    "other format": json.dumps({**GOOD, "format": "pyperf"}),
    "newer version": json.dumps({**GOOD, "version": 99}),
    "no environment": json.dumps({key: value for key, value in GOOD.items() if key != "environment"}),
    "unknown field": json.dumps({**GOOD, "environment": {**GOOD["environment"], "zodiac": "leo"}}),
    "results that are no list": json.dumps({**GOOD, "results": 3}),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file_is_refused_in_one_line(case, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(WRONG_FILES[case])
    with pytest.raises(
        DataError, match=r"is not a result; got .*; expected edgesmith-bench JSON of version 1 to 3; do: "
    ):
        result.read_run(path)


def test_a_missing_file_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        result.read_run(tmp_path / "r.json")


def test_the_machine_is_the_hardware_not_the_software():
    here = environment.here()
    assert here.machine() == dataclasses.replace(here, python="9.9").machine()
    assert here.machine() != dataclasses.replace(here, cpu="Cortex-A78AE").machine()
    assert here.differences(dataclasses.replace(here, cores=99)) == [f"cores: {here.cores} -> 99"]


def test_a_file_of_the_first_format_still_reads(tmp_path):
    """Version 1 knew neither rows nor a reference workload."""
    made = made_run()
    path = result.write_run(made, tmp_path / "r.json")
    values = json.loads(path.read_text())
    del values["reference"]
    for one in values["results"]:
        for reading in one["readings"].values():
            del reading["rows"]
    path.write_text(json.dumps({**values, "version": 1}))
    plain = []
    for one in made.results:
        bare = {name: dataclasses.replace(reading, rows=()) for name, reading in one.readings.items()}
        plain.append(dataclasses.replace(one, readings=bare))
    assert result.read_run(path) == dataclasses.replace(made, results=tuple(plain))
