"""Graphs that travel between stages as values: the same files as from paths, without parsing or inferring again."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration import batching
from edgesmith.optimize.fp16.cast_graph import cast_graph
from edgesmith.optimize.fp16.convert import convert_graph, to_fp16
from edgesmith.optimize.fp16.formats import BF16, FP16
from edgesmith.optimize.fp16.simulate import simulate_half
from edgesmith.optimize.graph.graph_file import GraphFile
from edgesmith.optimize.graph.proto_graph import tensor_types
from edgesmith.optimize.graph.protobuf import copied
from edgesmith.optimize.quantize import QuantSettings, float_source, quantize
from edgesmith.optimize.quantize.float_source import FloatSource
from edgesmith.optimize.quantize.post_training import quantize_graph
from edgesmith.optimize.trt import preflight
from edgesmith.optimize.trt.fold_passthrough_channels import fold_passthrough_channels
from edgesmith.optimize.trt.mixed_precision import restore_float_nodes, restore_in_graph
from support.quant_graphs import Graph, batches, small_cnn

OPTIONS = {"allow_random": True, "settings": QuantSettings(reconstruct=False)}


@pytest.fixture(scope="module", params=[1, "N"])
def source(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("values") / "m.onnx"
    onnx.save(small_cnn(request.param), path)
    return path


@pytest.fixture
def no_parsing(monkeypatch):
    """Return a function after whose call no ONNX file can be parsed."""

    def refuse(*given, **options):
        raise AssertionError(f"a file is parsed again: {given[0]}")

    return lambda: monkeypatch.setattr(onnx, "load", refuse)


def test_graphs_in_memory_give_the_files_that_paths_give(source, tmp_path, monkeypatch, no_parsing):
    to_fp16(source, tmp_path / "half.onnx", batches(32))
    for target in ("ort-x86", "trt"):
        quantize(source, tmp_path / f"{target}.onnx", batches(32), target=target, **OPTIONS)
    restore_float_nodes(source, tmp_path / "trt.onnx", [], tmp_path / "mixed.onnx")
    paths = {name: (tmp_path / f"{name}.onnx").read_bytes() for name in ("half", "ort-x86", "trt", "mixed")}

    graph, freed = GraphFile.read(source), []
    no_parsing()
    monkeypatch.setattr(float_source, "free_graph", lambda *given: freed.append(1) or batching.free_graph(*given))
    before = graph.model.SerializeToString(deterministic=True)
    values = {"half": convert_graph(graph, tmp_path / "half.onnx", batches(32))[1]}
    quantised = FloatSource(graph)
    for target in ("ort-x86", "trt"):
        _, values[target] = quantize_graph(
            quantised, tmp_path / f"{target}.onnx", batches(32), target=target, **OPTIONS
        )
    int8 = values["trt"].model.SerializeToString(deterministic=True)
    values["mixed"] = restore_in_graph(graph, values["trt"], [], tmp_path / "mixed.onnx")

    assert {name: (tmp_path / f"{name}.onnx").read_bytes() for name in paths} == paths
    assert {name: value.model for name, value in values.items()} == {
        name: onnx.ModelProto.FromString(text) for name, text in paths.items()
    }
    assert all(value.path.read_bytes() == paths[name] for name, value in values.items())
    assert graph.model.SerializeToString(deterministic=True) == before
    assert values["trt"].model.SerializeToString(deterministic=True) == int8
    assert freed == [1]


def test_a_graph_in_memory_is_looked_at_like_its_file(source, no_parsing):
    graph = GraphFile.read(source)
    expected = preflight.check(source, "int8", ["7.5"])
    assert (graph.nodes, graph.bytes) == (len(graph.model.graph.node), source.stat().st_size)
    no_parsing()
    assert preflight.check(graph, "int8", ["7.5"]) == expected != []
    assert fold_passthrough_channels(graph, source.with_name("carried.onnx")) == 0


@pytest.mark.parametrize("kind", [FP16, BF16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("kept", [{}, {"c2": "", "Add_8": ""}, {"c0": ""}])
def test_what_the_caster_knows_of_its_graph_is_what_inference_finds(kind, kept):
    result = cast_graph(small_cnn(), kept, kind)
    kinds = {item.name: item.type.tensor_type.elem_type for item in tensor_types(result.model)}
    assert {name: result.kinds[name] for name in kinds} == kinds
    assert simulate_half(result.model, result.kinds) == simulate_half(result.model)


def counted(monkeypatch):
    calls, infer = [], onnx.shape_inference.infer_shapes
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", lambda *given, **o: calls.append(1) or infer(*given, **o))
    return calls


def test_types_are_inferred_only_where_the_model_does_not_say_them_all(monkeypatch):
    model, calls = small_cnn(), counted(monkeypatch)
    types = tensor_types(model)
    assert calls == [1]
    written = {name for node in model.graph.node for name in node.output}
    assert {item.name for item in types} >= written | {"input"}
    typed = copied(model)
    typed.graph.value_info.extend(item for item in types if item.name not in ("input", "output"))
    assert sorted(item.SerializeToString() for item in tensor_types(typed)) == sorted(
        item.SerializeToString() for item in types
    )
    assert calls == [1]
    lacking = {
        "a tensor": lambda info: info.pop(),
        "a shape": lambda info: info[3].type.tensor_type.ClearField("shape"),
        "a dimension": lambda info: info[3].type.tensor_type.shape.dim[1].Clear(),
        "a type": lambda info: info[3].type.tensor_type.ClearField("elem_type"),
    }
    for at, spoil in enumerate(lacking.values(), 2):
        less = copied(typed)
        spoil(less.graph.value_info)
        assert {item.name: item for item in tensor_types(less)} == {item.name: item for item in types}
        assert len(calls) == at


def test_the_types_of_a_graph_file_are_found_once(source, monkeypatch):
    graph, calls = GraphFile.read(source), counted(monkeypatch)
    assert {item.name for item in graph.types} == {item.name for item in graph.types} != set()
    assert calls == [1]


def test_means_become_pools_once_and_only_for_targets_that_want_it():
    graph = Graph()
    graph.conv("input", "a", (8, 3, 3, 3))
    graph.node("ReduceMean", ["a", graph.array("axes", [2, 3], np.int64)], "output", keepdims=0)
    model = graph.model({"output": ["N", 8]}, ("N", 3, 8, 8))
    source = FloatSource(GraphFile(model, "m.onnx"))
    assert source.model(pools=False) is model
    pooled = source.model(pools=True)
    assert pooled is source.model(pools=True)
    assert [node.op_type for node in pooled.graph.node] == ["Conv", "GlobalAveragePool", "Flatten"]
    image = np.zeros((2, 3, 8, 8), np.float32)
    assert [node.op_type for node in source.free(True, image).model.graph.node][1] == "GlobalAveragePool"
    assert source.free(False, image) is source.free(False, image)
    assert source.free(False, image).model is not model
    assert not model.graph.value_info
    plain = FloatSource(GraphFile(small_cnn(), "m.onnx"))
    image = np.zeros((2, 3, 16, 16), np.float32)
    assert plain.free(True, image) is plain.free(False, image)
