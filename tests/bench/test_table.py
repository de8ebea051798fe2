"""The long table: a bundle made as quickly as can be, measured, joined, drawn; what is there is not measured again."""

import dataclasses
import json

import pytest

from edgesmith.bench import result
from edgesmith.bench.measure import environment
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.interleave import SamplingPlan
from edgesmith.bench.measure.workload import BenchTarget
from edgesmith.bench.metrics import engines
from edgesmith.bench.report import network_table, tables
from edgesmith.bench.result import Reading, Subject
from edgesmith.cli import _bench_table
from edgesmith.export import untrained
from edgesmith.runtime.bundle.bundle import read_bundle
from edgesmith.runtime.bundle.writer import Item, write_bundle
from edgesmith.runtime.errors import EdgesmithError
from support import results
from support.bundles import colour_bundle

QUICK = SamplingPlan(processes=1, slice_s=0.02, least_s=0.05, least=10, warm_up_s=0.2)


def forms(name, seconds):
    """FP32 and INT8 of one network on two backends, with made-up figures."""
    base = results.run(names=("resnet50",)).results[0]
    made = []
    for backend in ("ort", "openvino"):
        for form, factor in (("fp32", 1.0), ("int8", 0.5)):
            subject = Subject(
                name, f"{name}.onnx", form, "ort-x86" if form == "int8" else "", backend, params=3_500_000
            )
            value = seconds * factor * (1.1 if backend == "openvino" else 1.0)
            latency = Reading("latency", {"p50_s": value}, {"p50_s": (value * 0.98, value * 1.02)})
            made.append(dataclasses.replace(base, subject=subject, readings={**base.readings, "latency": latency}))
    return made


def test_one_row_for_each_network():
    kernels = Reading("engines", {"fp16_sm86_kernels_count": 56.0, "int8_sm86_kernels_count": 53.0})
    first = forms("mobilenetv2", 0.010)
    first[0] = dataclasses.replace(first[0], readings={**first[0].readings, "engines": kernels})
    run = dataclasses.replace(results.run(), results=(*first, *forms("resnet18", 0.040)))
    heads, rows = network_table.network_rows(run)
    told = [dict(zip(heads, row, strict=True)) for row in rows]
    assert [one["network"] for one in told] == ["mobilenetv2", "resnet18"]
    assert told[0]["ort FP32 ms"] == "10.00 ±0.20"
    assert told[0]["openvino INT8 ms"] == "5.50 ±0.11"
    assert [one["FP16 sm86 kernels"] for one in told] == ["56", "–"]
    assert told[0]["file MB FP32 / INT8"] == "102.0 / 102.0"
    assert "digits % FP32 / INT8" not in heads
    text = tables.runs_markdown(run, "Title", before=network_table.network_markdown(run))
    assert text.index("| network |") < text.index("## Every form") < text.index("| model |")


def test_the_kernels_are_those_of_the_engines_in_the_bundle(tmp_path):
    made = colour_bundle(tmp_path / "colours")
    target = BenchTarget(str(tmp_path / "colours"), "colours-fp32")
    assert "has no engines" in engines.measure(MetricContext(Subject("c", "c"), target, "c")).missing
    engine = tmp_path / "c.engine"
    engine.write_bytes(b"engine")
    items = [Item(made.folder / made.artefacts[0].path),
             Item(engine, "engine", "fp16", "sm86", requires={"sm": "8.6"}, facts={"kernels": 17})]  # fmt: skip
    write_bundle(
        tmp_path / "two", made.spec, items, golden_inputs={made.spec.input_name: results.np.zeros((1, 3, 8, 8))}
    )
    target = BenchTarget(str(tmp_path / "two"), "colours-fp32")
    assert engines.measure(MetricContext(Subject("c", "c"), target, "c")).values == {
        "fp16_sm86_kernels_count": 17.0, "fp16_sm86_file_bytes": 6.0,
    }  # fmt: skip


def test_boards_are_modelled_with_their_range():
    reading = _bench_table.modelled("shufflenetv2")
    assert len(reading.values) == len(_bench_table.BOARDS)
    for name, value in reading.values.items():
        low, high = reading.intervals[name]
        assert low < value < high
    assert reading.values["agx_orin_64gb_int8_s"] < reading.values["nano_4gb_fp16_s"]
    assert "modelled, not measured" in reading.notes[0]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    place = tmp_path_factory.mktemp("long")
    names = ["lenet5"]
    first = _bench_table.measure_table(names, place / "bundles", place / "parts", QUICK, 10, 1)
    return place, names, first


@pytest.mark.slow
def test_what_is_there_is_not_measured_again(measured, monkeypatch):
    place, names, first = measured
    assert {one.subject.form for one in first.results} == {"fp32", "int8-ort-x86"}
    assert first.reference
    again = _bench_table.measure_table(names, place / "bundles", place / "parts", QUICK, 10, 1)
    assert again == first
    other = dataclasses.replace(environment.here(), cpu="another one")
    monkeypatch.setattr(environment, "here", lambda: other)
    anew = _bench_table.measure_table(names, place / "bundles", place / "parts", QUICK, 10, 1)
    assert anew.environment.cpu == "another one"
    assert anew.created != first.created or anew.results != first.results


@pytest.mark.slow
def test_a_changed_bundle_is_measured_again_and_time_that_is_up_ends_it(measured, capsys):
    place, names, first = measured
    part = place / "parts" / "lenet5.json"
    told = json.loads(part.read_text())
    told["results"][0]["subject"]["sha256"] = "0" * 64
    part.write_text(json.dumps(told))
    with pytest.raises(EdgesmithError, match="no network could be measured"):
        _bench_table.measure_table(names, place / "bundles", place / "parts", QUICK, -1, 1)
    assert "no time was left for lenet5" in capsys.readouterr().err
    anew = _bench_table.measure_table(names, place / "bundles", place / "parts", QUICK, 10, 1)
    assert anew.results[0].subject.sha256 == first.results[0].subject.sha256
    assert result.read_run(part).results[0].subject.sha256 == first.results[0].subject.sha256


@pytest.mark.slow
def test_the_bundle_to_time_holds_both_forms(measured):
    place, _, _ = measured
    made = read_bundle(untrained.place("lenet5", place / "bundles"))
    onnx = [(one.precision, one.target) for one in made.artefacts if one.role == "onnx"]
    assert onnx == [("fp32", "generic"), ("int8", "ort-x86")]
    assert all(one.facts["kernels"] > 0 for one in made.artefacts if one.role == "engine")


@pytest.mark.slow
def test_an_engine_that_fails_is_said_and_the_other_files_are_there(tmp_path, monkeypatch, capsys):
    def failing(flow, spec, work, precisions):
        raise EdgesmithError("the builder stopped")

    monkeypatch.setattr("edgesmith.export.engines.make_engines", failing)
    bundle = read_bundle(untrained.ensure("lenet5", tmp_path))
    assert [(one.precision, one.target) for one in bundle.artefacts] == [("fp32", "generic"), ("int8", "ort-x86")]
    said = capsys.readouterr().err
    assert "no fp16 engine of lenet5: the builder stopped" in said
    assert "no int8 engine of lenet5: the builder stopped" in said
