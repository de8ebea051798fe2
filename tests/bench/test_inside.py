"""Streams, the way from a file to the answer, operators, ceilings: on real sessions, with counts that must agree."""

import threading

import numpy as np
import onnx
import pytest

from edgesmith.bench import suite
from edgesmith.bench.measure import in_process, layer_profile, machine_peaks
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.interleave import SamplingPlan
from edgesmith.bench.measure.machine_peaks import Ceilings
from edgesmith.bench.measure.workload import BenchTarget, open_workload
from edgesmith.bench.metrics import layers as layer_times
from edgesmith.bench.metrics import roofline_share
from edgesmith.bench.result import Subject
from edgesmith.runtime.errors import NotAvailable, UsageError
from support.bundles import colour_bundle
from support.dense import dense

QUICK = SamplingPlan(processes=1, slice_s=0.02, least_s=0.05, least=10, warm_up_s=0.2)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """One convolution with 16 x 16 x 3 x 3 weights on 10x10, a grouped one, a product with 1600 x 5 weights.

    16 channels fill the blocks of every processor: fewer would be padded, and what is padded is counted.
    """
    rng = np.random.default_rng(0)
    weights = {"w": (16, 16, 3, 3), "g": (16, 4, 1, 1), "m": (1600, 5)}
    made = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], "dense", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Conv", ["a", "g"], ["b"], "grouped", group=4),
        onnx.helper.make_node("Flatten", ["b"], ["c"], "flat"),
        onnx.helper.make_node("MatMul", ["c", "m"], ["y"], "product"),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 16, 10, 10]), ("y", [1, 5]))
    ]
    graph = onnx.helper.make_graph(nodes, "net", ends[:1], ends[1:], made)
    path = tmp_path_factory.mktemp("inside") / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def quantised_conv(path):
    """Write Conv with 8 x 4 x 3 x 3 weights on 10x10 between U8 activations, S8 weights per tensor."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        q (float[1, 4, 10, 10] x) => (float[1, 8, 10, 10] y)
        <float s = {0.05}, uint8 z = {128}, float t = {0.01}, int8 n = {0}> {
            a = QuantizeLinear(x, s, z)
            b = DequantizeLinear(a, s, z)
            v = DequantizeLinear(w, t, n)
            c = Conv<pads = [1, 1, 1, 1]>(b, v)
            d = QuantizeLinear(c, s, z)
            y = DequantizeLinear(d, s, z)
        }""")
    weights = np.random.default_rng(0).integers(-60, 60, (8, 4, 3, 3)).astype(np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("colours") / "colours").source


def test_every_call_of_every_stream_is_counted():
    lock, count = threading.Lock(), [0]

    def call():
        with lock:
            count[0] += 1

    told = in_process.streams(call, 3, 0.05)
    assert told["calls"] == count[0] > 0
    assert told["seconds"] >= 0.05


def test_a_stream_that_fails_ends_all():
    def call():
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        in_process.streams(call, 2, 30.0)


def test_the_way_from_a_file_to_the_answer(colours):
    told = in_process.end_to_end(open_workload(BenchTarget(str(colours), "colours-fp32")), 4)
    assert set(told) == {"decode_s", "preprocess_s", "compute_s", "postprocess_s"}
    assert all(len(series) == 4 and min(series) > 0 for series in told.values())


def test_a_bare_file_has_no_images(net):
    with pytest.raises(UsageError, match="does not describe its images"):
        in_process.end_to_end(open_workload(BenchTarget(str(net))), 1)


@pytest.mark.parametrize("optimise", [True, False])
def test_the_operators_and_their_arithmetic(net, optimise):
    rows = layer_profile.profile(BenchTarget(str(net)), 2, optimise)
    macs = {row["op"]: 0 for row in rows}
    for row in rows:
        macs[row["op"]] += row["macs"]
        assert row["seconds"] >= 0
    assert sum(macs.values()) == 16 * 100 * 16 * 9 + 16 * 100 * 4 + 1600 * 5
    assert {row["dtype"] for row in rows if row["macs"]} == {"float"}


def test_int8_has_the_arithmetic_of_its_file(net, tmp_path):
    """Q/DQ around the first convolution: as written it tells 28,800 MACs; fused, with repacked weights, it may not."""
    path = quantised_conv(tmp_path / "q.onnx")
    written = [
        row["macs"] for row in layer_profile.profile(BenchTarget(str(path)), 1, optimise=False) if row["op"] == "Conv"
    ]
    assert written == [8 * 100 * 4 * 9]
    fused = [
        row["macs"]
        for row in layer_profile.profile(BenchTarget(str(path)), 1)
        if row["op"] in layer_profile.CONVOLUTIONS
    ]
    assert fused in ([None], written)


def test_only_onnxruntime_tells_its_operators(tmp_path):
    with pytest.raises(NotAvailable, match="only ONNX Runtime and engines"):
        layer_profile.profile(BenchTarget(str(tmp_path / "work.py"), backend="python"), 1)


@pytest.mark.parametrize("metric", [roofline_share, layer_times])
def test_no_process_is_started_to_learn_that_a_backend_tells_no_layers(metric, tmp_path):
    """The file is not there: a process that opened it would say so instead."""
    target = BenchTarget(str(tmp_path / "gone"), "net", "openvino")
    with pytest.raises(NotAvailable, match="only ONNX Runtime and engines"):
        metric.measure(MetricContext(Subject("net", "net"), target, "net"))


def test_the_metrics_on_request(colours):
    found = [one for one in suite.contexts(colours, precisions=["fp32"]) if one.subject.backend == "ort"]
    run = suite.run_suite(found, QUICK, only=["layers", "end_to_end", "roofline_share"], reference=True)
    readings = run.results[0].readings
    assert readings["layers"].values["operators_count"] == len(readings["layers"].rows) > 0
    assert readings["end_to_end"].values["total_s"] > readings["end_to_end"].values["compute_s"] > 0
    assert readings["roofline_share"].values["limit_s"] > 0
    assert len(run.reference) == 1
    assert min(run.reference[0]) > 0


def test_ceilings_are_rates_and_the_larger_bound_counts():
    found = machine_peaks.measure_peaks(1)
    assert min(*found.macs_per_s.values(), found.bytes_per_s) > 1e8
    made = Ceilings({"fp32": 100.0, "int8": 400.0}, 10.0)
    assert made.limit_s(1000, 10, "fp32") == 10
    assert made.limit_s(1000, 10, "int8") == 2.5
    assert made.limit_s(1000, 400, "int8") == 40
    assert made.limit_s(1000, 10, "fp16") == 10


@pytest.mark.parametrize(("peak", "share", "notes"), [(1e30, 0.0, 0), (1.0, 1.0, 1)])
def test_a_network_is_never_faster_than_its_limit(peak, share, notes, monkeypatch, colours):
    """A ceiling of one multiply-add a second is wrong: what was seen to be faster counts, and a note says so."""
    monkeypatch.setattr(
        roofline_share.machine_peaks, "measure_peaks", lambda threads: Ceilings({"fp32": peak, "int8": peak}, peak)
    )
    run = suite.run_suite(
        [one for one in suite.contexts(colours, precisions=["fp32"]) if one.subject.backend == "ort"],
        QUICK,
        only=["roofline_share"],
    )
    reading = run.results[0].readings["roofline_share"]
    assert (reading.values["share_ratio"], len(reading.notes)) == (pytest.approx(share, abs=1e-6), notes)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("shape", machine_peaks.DENSE)
def test_the_dense_operators_are_those_that_the_script_writes(shape, precision):
    assert onnx.load_from_string(machine_peaks._dense(shape, precision)) == dense(shape, precision)
