"""An INT8 engine with a few convolutions in float is built once more, from a file with these in FP16."""

from types import SimpleNamespace

import onnx
import pytest

from edgesmith.export import engines
from edgesmith.export.settings import ExportSettings, Flow
from edgesmith.optimize.graph.graph_file import GraphFile
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings
from edgesmith.optimize.quantize.float_source import FloatSource
from edgesmith.optimize.quantize.post_training import quantize_graph
from edgesmith.optimize.trt import mixed_precision
from edgesmith.runtime.engines.kernels import Attestation
from support.quant_graphs import batches, small_cnn


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """FP32, INT8, and INT8 with the rest in FP16."""
    folder = tmp_path_factory.mktemp("files")
    onnx.save(small_cnn(batch=1), folder / "net-fp32.onnx")
    fp32 = GraphFile.read(folder / "net-fp32.onnx")
    samples = [image[None] for batch in batches() for image in batch]
    _, int8 = quantize_graph(FloatSource(fp32), folder / "net-int8-trt.onnx", samples, target="trt",
                             settings=QuantSettings.quick())  # fmt: skip
    mixed = mixed_precision.restore_in_graph(fp32, int8, [], folder / "net-int8-trt-fp16.onnx")
    return {"fp32": fp32, "int8-trt": int8, "int8-trt-fp16": mixed}


def quantised(path):
    """Return the convolutions that read integers."""
    net = ProtoGraph(onnx.load(path))
    pairs = {name for node in net.nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name for node in net.nodes if node.op_type == "Conv" and node.input[1] in pairs}


def builder(floats, record):
    """Return a build that runs some convolutions in float whatever is asked for."""

    def build(source, out, *, precision, allow_float, **options):
        convs = {node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"}
        integers = quantised(source)
        asked = {name: "int8" if name in integers else "float" for name in sorted(convs)}
        got = {name: "int8" if name in integers - floats else "fp16" for name in sorted(convs)}
        attestation = Attestation(9, {}, 0, asked=asked, got=got)
        record.append((source.name, integers))
        if not allow_float:
            engines.build.check_precision(attestation, precision)
        return SimpleNamespace(
            attestation=attestation, kernels=(), to_dict=lambda: {"attestation": attestation.to_dict()}
        )

    return build


# convolutions that run in float (of six) -> files that engines are built from, whether the check passes, what it says
MIXED = "net-int8-trt-fp16-sm86.onnx"
CASES = {
    "none": (set(), ["net-int8-trt-fp16.onnx"], True, "6 of 6 convolutions INT8, 9 kernels"),
    "one": ({"n_c3"}, ["net-int8-trt-fp16.onnx", MIXED], True, "5 of 6 convolutions INT8, n_c3 FP16, 9 kernels"),
    "more than a quarter": ({"n_c3", "n_c4"}, ["net-int8-trt-fp16.onnx"], False, "2 of 6 convolutions do not run in"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_few_layers_in_float_are_left_in_fp16(case, files, tmp_path, monkeypatch):
    floats, sources, passed, text = CASES[case]
    record = []
    monkeypatch.setattr(engines.build, "build_engine", builder(floats, record))
    monkeypatch.setattr(engines, "_profile", lambda flow, path: None)
    flow = Flow(ExportSettings("lenet5", targets=("trt",), sms=("8.6",)), lambda line: None)
    for name, graph in files.items():
        flow.add(name, name.partition("-")[0], "trt", graph)
    engines.make_engines(flow, SimpleNamespace(name="net"), tmp_path, ["int8"])
    (check,) = flow.checks
    assert (check.passed, text in check.detail) == (passed, True)
    assert [name for name, _ in record] == sources
    assert record[-1][1] == record[0][1] - (floats if passed else set())
    added = flow.artefacts[len(files) :]
    names = ["int8-trt-fp16-sm86"] * (len(sources) - 1) + ["int8 SM 8.6"] * passed
    assert [one.name for one in added] == names
    if passed:  # the engine is compared with the file that it was built from
        assert added[-1].results["source"] == (names[0] if len(names) > 1 else "int8-trt-fp16")
