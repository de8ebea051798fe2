"""The graph's index, the checks before quantisation and the walk through the nodes, on graphs of a few nodes."""

import numpy as np
import onnx
import pytest
from onnx import helper

from edgesmith.optimize.calibration import batching as batch
from edgesmith.optimize.calibration.batching import with_batch_of, with_free_batch
from edgesmith.optimize.calibration.inputs import input_layout
from edgesmith.optimize.graph import spec_metadata
from edgesmith.optimize.graph.proto_graph import (
    ProtoGraph,
    ProtoIndex,
    all_inputs,
    attributes,
    constant_tensors,
    loaded,
    read_model,
    set_attributes,
    sort_nodes,
    write_model,
)
from edgesmith.optimize.graph.protobuf import copied
from edgesmith.optimize.quantize.layer_queries import layer_bias
from edgesmith.optimize.quantize.preconditions import check_model
from edgesmith.optimize.quantize.weights import layerwise
from edgesmith.optimize.quantize.weights.layerwise import LayerwiseRunner, images_that_fit
from edgesmith.runtime.errors import ModelError, UsageError
from edgesmith.runtime.spec import ModelSpec
from support.graphs import model
from support.quant_graphs import Graph, run

f32, i64 = np.float32, np.int64


def net(text, weights=None, **options):
    return ProtoGraph(model(text, weights, **options))


def test_nodes_without_a_name_of_their_own_get_one():
    made = model("(float[2] x) => (float[2] y) { a = Sin(x) b = Cos(a) c = Cos(b) d = Sin(c) y = Sin(d) }")
    for node, name in zip(made.graph.node, ["", "one", "one", "", "five"], strict=True):
        node.name = name
    assert [node.name for node in ProtoGraph(made).nodes] == ["Sin_0", "one", "one_2", "Sin_3", "five"]


def test_constants_become_arrays_unless_they_are_no_tensor_or_an_output():
    made = net(
        "(float[2] x) => (float[2] y, float[1] o)"
        " { k = Constant<value=float[1] {2}>() v = Constant<value_float=3.0>() o = Constant<value=float[1] {4}>()"
        " a = Mul(x, k) y = Mul(a, v) }",
        {"w": f32([5])},
    )
    assert [node.op_type for node in made.nodes] == ["Constant", "Constant", "Mul", "Mul"]
    assert {name: array.tolist() for name, array in made.arrays.items()} == {"w": [5], "k": [2]}
    assert sorted(tensor.name for tensor in made.graph.initializer) == ["k", "w"]


def test_who_makes_and_who_reads_each_tensor():
    made = net("(float[2] x, float[2] w) => (float[2] y) { a, m = Dropout(x) b = Add(a, a) y = Add(b, w) }",
               {"w": f32([1, 2])})  # fmt: skip
    assert (made.inputs, made.outputs, made.opset) == (["x"], ["y"], 18)
    assert {name: node.op_type for name, node in made.producer.items()} == {
        "a": "Dropout", "m": "Dropout", "b": "Add", "y": "Add"}  # fmt: skip
    assert {name: len(nodes) for name, nodes in made.readers.items()} == {"x": 1, "a": 1, "b": 1, "w": 1}
    made = net("(float[2] x) => (float[2] y) { a, = Dropout(x) y = Add(a, a) }")
    assert set(made.producer) == {"a", "y"}


@pytest.mark.parametrize(
    ("domains", "opset"),
    [([("", 13), ("com.other", 20)], 13), ([("ai.onnx", 17), ("", 14)], 17), ([("com.other", 20)], 0), ([], 0)],
)
def test_the_opset_is_that_of_the_standard_operators(domains, opset):
    made = model("(float[2] x) => (float[2] y) { y = Sin(x) }")
    del made.opset_import[:]
    made.opset_import.extend([helper.make_opsetid(*domain) for domain in domains])
    assert ProtoGraph(made).opset == opset


def test_a_name_is_fresh_beside_tensors_and_constants():
    made = net("(float[2] x) => (float[2] y) { t = Mul(x, k) y = Sin(t) }", {"k": f32([1]), "unread": f32([1])})
    names = [made.fresh(name) for name in ("x", "t", "y", "k", "unread", "new", "new", "new")]
    assert names == ["x_1", "t_1", "y_1", "k_1", "unread_1", "new", "new_1", "new_2"]
    assert made.add_array("k", np.arange(2)) == "k_2"
    assert made.arrays["k_2"].tolist() == [0, 1]


def test_a_constant_is_replaced_in_the_graph_too():
    made = net("(float[2] x) => (float[2] y) { a = Mul(x, k) y = Mul(a, l) }", {"k": f32([1]), "l": f32([9])})
    made.set_array("k", np.asfortranarray(np.arange(6, dtype=f32).reshape(2, 3)))
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in made.graph.initializer}
    assert stored == {"k": [[0, 1, 2], [3, 4, 5]], "l": [9]}
    assert made.arrays["k"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [tensor.name for tensor in made.graph.initializer] == ["k", "l"]


# text, weights, how wide the bias is
BIASES = {
    "Conv": ("(float[1,3,8,8] x) => (float[1,4,6,6] y) { y = Conv(x, w) }", (4, 3, 3, 3), 4),
    "an empty name": ("(float[1,3,8,8] x) => (float[1,4,6,6] y) { y = Conv(x, w) }", (4, 3, 3, 3), 4),
    "Gemm": ("(float[1,3] x) => (float[1,5] y) { y = Gemm(x, w) }", (3, 5), 5),
    "Gemm with transB=0": ("(float[1,3] x) => (float[1,5] y) { y = Gemm<transB=0>(x, w) }", (3, 5), 5),
    "Gemm turned": ("(float[1,3] x) => (float[1,5] y) { y = Gemm<transB=1>(x, w) }", (5, 3), 5),
}


@pytest.mark.parametrize("case", BIASES)
def test_a_layer_without_a_bias_gets_zeros(case):
    text, shape, width = BIASES[case]
    made = net(text, {"w": shape})
    if case == "an empty name":
        made.nodes[0].input.append("")
    bias = layer_bias(made, made.nodes[0])
    assert (bias.tolist(), bias.dtype) == ([0] * width, f32)
    assert list(made.nodes[0].input) == ["x", "w", f"{made.nodes[0].name}_bias"]
    assert layer_bias(made, made.nodes[0]) is bias


def test_a_bias_that_is_there_is_returned():
    made = net("(float[1,3] x) => (float[1,5] y) { y = Gemm(x, w, b) }", {"w": (3, 5), "b": f32(range(5))})
    assert layer_bias(made, made.nodes[0]).tolist() == [0, 1, 2, 3, 4]
    assert list(made.nodes[0].input) == ["x", "w", "b"]


BRANCHES = (
    "(float[2] x, bool c) => (float[2] y) { s = Sin(x) y = If<"
    "then_branch = g1 () => (float[2] t) { t = Add(s, k) }, else_branch = g2 () => (float[2] e) {}>(c) }"
)


def branched():
    made = model(BRANCHES, {"k": f32([1, 2]), "e": f32([3, 4]), "unread": f32([5])})
    made.graph.value_info.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("s", "gone")
    )
    return made


def test_what_the_bodies_of_branches_read_is_read():
    made = ProtoGraph(branched())
    assert all_inputs(made.nodes[1]) == {"c", "s", "k", "e", "t"}
    made.prune()
    assert sorted(made.arrays) == sorted(tensor.name for tensor in made.graph.initializer) == ["e", "k"]
    assert [info.name for info in made.graph.value_info] == ["s"]


def test_a_constant_that_is_an_output_is_kept():
    made = net("(float[2] x) => (float[2] y, float[1] k) { y = Sin(x) }", {"k": f32([1]), "l": f32([1])})
    made.prune()
    assert list(made.arrays) == ["k"]


def test_nodes_are_sorted_and_stay_where_they_may():
    made = branched()
    nodes = list(made.graph.node)
    extra = [helper.make_node("Cos", ["x"], ["z0"]), helper.make_node("Cos", ["x"], ["z1"])]
    order = [copied_node(node) for node in (nodes[1], extra[0], nodes[0], extra[1])]
    del made.graph.node[:]
    made.graph.node.extend(order)
    sort_nodes(made.graph)
    assert [node.output[0] for node in made.graph.node] == ["z0", "s", "y", "z1"]


def copied_node(node):
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def test_of_many_free_nodes_the_first_is_first():
    made = model("(float[2] x) => (float[2] y) { a = Sin(x) b = Add(a, a) c = Add(a, b) d = Cos(x) e = Add(c, d)"
                 " y = Add(e, b) }")  # fmt: skip
    sort_nodes(made.graph)
    assert [node.output[0] for node in made.graph.node] == ["a", "b", "c", "d", "e", "y"]
    order = [copied_node(node) for node in reversed(made.graph.node)]
    del made.graph.node[:]
    made.graph.node.extend(order)
    sort_nodes(made.graph)
    assert [node.output[0] for node in made.graph.node] == ["d", "a", "b", "c", "e", "y"]


def test_a_cycle_is_refused():
    made = model("(float[2] x) => (float[2] y) { a = Sin(x) b = Add(a, c) c = Sin(b) y = Sin(x) }")
    with pytest.raises(ModelError, match="the graph has a cycle; expected a directed acyclic graph; do: report it"):
        sort_nodes(made.graph)


def test_attributes_and_copies_are_plain():
    made = model("(float[1,3] x) => (float[1,5] y) { y = Gemm<alpha=0.5, transB=1>(x, w) }", {"w": (5, 3)})
    assert attributes(made.graph.node[0]) == {"alpha": 0.5, "transB": 1}
    copy = copied(made)
    copy.graph.node[0].name = "other"
    assert made.graph.node[0].name == "Gemm0"


def test_a_file_is_read_checked_with_its_functions_inlined(tmp_path):
    path = tmp_path / "m.onnx"
    made = model("(float[2] x) => (float[2] y) { y = custom.twice(x) }")
    twice = helper.make_function(
        "custom", "twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    made.functions.append(twice)
    onnx.save(made, path)
    assert [node.op_type for node in read_model(path).graph.node] == ["Add"]
    assert [node.op_type for node in loaded(path).graph.node] == ["twice"]
    wrong = model("(float[2] x) => (float[2] y) { y = Sin(nowhere) }")
    onnx.save(wrong, path)
    with pytest.raises(ModelError, match=r"m\.onnx is not a usable ONNX file; got .*nowhere.*; do: export it again"):
        read_model(path)
    assert loaded(path).graph.node[0].input[0] == "nowhere"
    with pytest.raises(UsageError, match=r"no\.onnx"):
        read_model(tmp_path / "no.onnx")
    with pytest.raises(ModelError, match=r"the graph made for .*q\.onnx is invalid; got .*; do: report it") as caught:
        write_model(wrong, tmp_path / "q.onnx")
    assert 20 < len(caught.value.got) <= 300
    assert not (tmp_path / "q.onnx").exists()
    write_model(read_model_of(tmp_path), tmp_path / "q.onnx")
    assert onnx.load(tmp_path / "q.onnx").graph.node[0].op_type == "Sin"


def read_model_of(folder):
    onnx.save(model("(float[2] x) => (float[2] y) { y = Sin(x) }"), folder / "m.onnx")
    return read_model(folder / "m.onnx")


SHAPES = {
    "free and fixed": ("(float[N,3,4] x) => (float[N,3,4] y) { y = Sin(x) }", (None, 3, 4)),
    "two dimensions": ("(float[2,1] x) => (float[2,1] y) { y = Sin(x) }", (2, 1)),
    "an initializer besides": ("(float[2,1] x, float[1] w) => (float[2,1] y) { y = Add(x, w) }", (2, 1)),
    "one dimension": ("(float[2] x) => (float[2] y) { y = Sin(x) }", (2,)),
    "doubles": ("(double[2,1] x) => (double[2,1] y) { y = Sin(x) }", (2, 1)),
    "two inputs": ("(float[2,1] x, float[2,1] z) => (float[2,1] y) { y = Add(x, z) }", (2, 1)),
    "an image second": ("(float[2] x, float[2,1,3,4] z) => (float[2,1,3,4] y) { y = Sin(z) }", (2, 1, 3, 4)),
    "no input": ("() => (float[1] y) { y = Sin(w) }", None),
}


@pytest.mark.parametrize("case", SHAPES)
def test_the_main_input_is_the_first_image_or_the_first_of_floats(case):
    text, shape = SHAPES[case]
    made = model(text, {"w": f32([1])})
    if shape is not None:
        assert input_layout(made).main.shape == shape
        return
    with pytest.raises(ModelError, match="calibration needs a graph whose inputs are tensors; got inputs .*; expected"):
        input_layout(made)


CONV = "(float[1,3,8,8] x) => (float[1,4,6,6] y) { c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }"
NORM = {"w": (4, 3, 3, 3), **{name: f32([1] * 4) for name in "gbmv"}}
LINEAR = {
    "Conv": (CONV, NORM, 1),
    "ConvTranspose": (CONV.replace("Conv", "ConvTranspose").replace("6,6", "10,10"), NORM | {"w": (3, 4, 3, 3)}, 1),
    "Gemm": (
        "(float[1,3] x) => (float[1,4] y) { c = Gemm(x, w) y = BatchNormalization(c, g, b, m, v) }",
        NORM | {"w": (3, 4)}, 1,
    ),
    "MatMul": (
        "(float[1,3] x) => (float[1,4] y) { c = MatMul(x, w) y = BatchNormalization(c, g, b, m, v) }",
        NORM | {"w": (3, 4)}, 1,
    ),
    "after Relu": (
        "(float[1,4] x) => (float[1,4] y) { c = Relu(x) y = BatchNormalization(c, g, b, m, v) }", NORM, 0,
    ),
    "of the input": ("(float[1,4] x) => (float[1,4] y) { y = BatchNormalization(x, g, b, m, v) }", NORM, 0),
    "two readers": (CONV.replace("y)", "y, float[1,4,6,6] z)").replace("y =", "z = Relu(c) y ="), NORM, 0),
    "an output too": (CONV.replace("y)", "y, float[1,4,6,6] c)"), NORM, 0),
    "another operator": (CONV.replace("BatchNormalization(c, g, b, m, v)", "Relu(c)"), NORM, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", LINEAR)
def test_a_norm_that_could_be_folded_is_refused(case):
    text, weights, count = LINEAR[case]
    made = model(text, weights)
    if not count:
        check_model(made, "m.onnx")
        return
    with pytest.raises(ModelError) as caught:
        check_model(made, "m.onnx")
    assert caught.value.what == "m.onnx still has BatchNormalization after convolutions"
    assert caught.value.got == "1 nodes, first 'BatchNormalization1'"


@pytest.mark.parametrize(
    ("domains", "refused"),
    [([("", 13)], None), ([("", 12)], 12), ([("", 14), ("com.other", 1)], None), ([("", 12), ("com.other", 13)], 12),
     ([("com.other", 13)], 0), ([("ai.onnx", 13)], None)],
)  # fmt: skip
def test_thirteen_is_the_oldest_opset(domains, refused):
    made = model("(float[2] x) => (float[2] y) { y = Sin(x) }")
    del made.opset_import[:]
    made.opset_import.extend([helper.make_opsetid(*domain) for domain in domains])
    if refused is None:
        check_model(made, "m.onnx")
        return
    with pytest.raises(ModelError, match=f"m.onnx is of opset {refused}; expected opset 13 or later"):
        check_model(made, "m.onnx")


@pytest.mark.parametrize("kind", ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger",
                                  "QLinearMatMul"])  # fmt: skip
def test_a_quantised_operator_is_refused(kind):
    made = model("(float[2] x) => (float[2] y) { a = Cos(x) y = Sin(a) }")
    made.graph.node[0].op_type = kind
    with pytest.raises(ModelError, match="m.onnx is quantised already; expected a float32 graph; do: quantise the"):
        check_model(made, "m.onnx")


def test_the_spec_is_read_from_the_metadata():
    made = model("(float[2] x) => (float[2] y) { y = Sin(x) }")
    assert spec_metadata.embedded(made) is None
    spec = ModelSpec("small", (3, 16, 16), 10)
    helper.set_model_props(made, {"other": "{}", "edgesmith.spec": spec.to_json()})
    assert spec_metadata.embedded(made) == spec


FREE = "(float[2,3] x) => (float[2,3] y) { y = Mul(x, k) }"
# a graph of batch 2 -> whether it answers the same for any batch
BATCHES = {
    "by image": (FREE, True),
    "a mean over the batch": ("(float[2,3] x) => (float[2,3] y) { m = ReduceMean(x, z) y = Sub(x, m) }", False),
    "a fixed reshape": ("(float[2,3] x) => (float[2,3] y) { a = Reshape(x, s) y = Reshape(a, t) }", True),
    "a reshape that fails": ("(float[2,3] x) => (float[3,2] y) { y = Reshape(x, s) }", False),
    "a value for each image": ("(float[2,3] x) => (float[2,3] y) { y = Mul(x, each) }", False),
}


@pytest.mark.parametrize("case", BATCHES)
def test_a_batch_is_freed_where_the_answer_does_not_depend_on_it(case):
    text, works = BATCHES[case]
    weights = {"k": f32([1, 2, 3]), "z": i64([0]), "s": i64([3, 2]), "t": i64([-1, 3]), "each": f32([[1], [2]])}
    if case == "a fixed reshape":
        weights["s"] = i64([-1])
    made = model(text, weights)
    made.graph.value_info.append(helper.make_tensor_value_info("m", onnx.TensorProto.FLOAT, [1, 3]))
    image = np.random.default_rng(0).normal(0, 1, (2, 3)).astype(f32)
    free = with_free_batch(made, image)
    assert (free is not None) == works
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    if free is not None:
        assert len(free.graph.value_info) == 0
        for item in (free.graph.input[0], free.graph.output[0]):
            assert item.type.tensor_type.shape.dim[0].dim_param == "N"
        assert len(run(free, np.tile(image, (4, 1)))) == 8


def test_another_batch_than_the_graphs_own_frees_nothing():
    made = model(FREE, {"k": f32([1, 2, 3])})
    assert with_free_batch(made, np.zeros((4, 3), f32)) is None
    twice = model("(float[2,3] x, float[3] k) => (float[2,3] y) { y = Mul(x, k) }", {"k": np.ones(3, f32)})
    assert with_free_batch(twice, np.ones((2, 3), f32)) is not None


def test_small_answers_are_compared_with_the_largest(monkeypatch):
    given = {}

    def close(one, two, rtol, atol):
        given.update(rtol=rtol, atol=atol)
        return True

    monkeypatch.setattr(batch.np, "allclose", close)
    assert with_free_batch(model(FREE, {"k": f32([1, 2, -30])}), np.ones((2, 3), f32)) is not None
    assert given == {"rtol": 1e-3, "atol": pytest.approx(0.03)}


def test_shapes_are_given_back():
    free = with_free_batch(model(FREE, {"k": f32([1, 2, 3])}), np.ones((2, 3), f32))
    free.graph.value_info.append(helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, [1]))
    assert with_batch_of(free, model(FREE)) is free
    for item in (free.graph.input[0], free.graph.output[0]):
        assert [dim.dim_value for dim in item.type.tensor_type.shape.dim] == [2, 3]
    assert len(free.graph.value_info) == 0


def chain():
    graph = Graph()
    graph.node("Mul", ["input", graph.array("k", 2.0)], "a")
    graph.node("Mul", ["one", graph.array("l", [3.0])], "c")
    graph.array("one", [1.0])
    graph.node("Add", ["a", "c"], "b")
    graph.node("Split", ["b"], ["s", "t"], axis=1, num_outputs=2)
    graph.node("Add", ["s", "t"], "output")
    return ProtoGraph(graph.model({"output": ["N", 2]}, ("N", 4)))


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_a_walk_holds_what_is_still_read_and_takes_what_is_replaced(batch):
    images = np.arange(16, dtype=f32).reshape(4, 4)
    held, met = {}, []
    batches = [images[at : at + (batch or 4)] for at in range(0, 4, batch or 4)]
    made = LayerwiseRunner(chain(), batches)

    def before(node):
        met.append(node.output[0])
        held[node.output[0]] = (sorted(made.values), sorted(made.constants))
        if node.output[0] == "b":
            made.constants["c"] = f32([10])

    def after(node):
        if node.output[0] == "b":
            assert [value.tolist() for value in made.values["b"]] == [(2 * part + 10).tolist() for part in batches]
            made.values["b"] = [part.copy() for part in batches]
        if node.output[0] == "output":
            sums = np.concatenate(made.values["output"])
            assert sums.tolist() == (images[:, :2] + images[:, 2:]).tolist()

    made.run(before, after)
    assert met == ["a", "c", "b", "s", "output"]
    assert held == {
        "a": (["input"], []), "c": (["a"], []), "b": (["a"], ["c"]), "s": (["b"], []), "output": (["s", "t"], []),
    }  # fmt: skip
    assert (made.values, made.constants) == ({}, {})


def test_a_tensor_is_held_until_it_is_asked_for():
    images = np.arange(8, dtype=f32).reshape(2, 4)
    made = LayerwiseRunner(chain(), [images], hold=frozenset({"a", "s"}))
    assert made.run_to("s")[0].tolist() == (2 * images[:, :2] + 3).tolist()
    assert made.at == 4
    assert sorted(made.held) == ["a"]
    assert made.run_to("a")[0].tolist() == (2 * images).tolist()
    assert made.held == {}


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ([], 192 << 16),
        ([1 << 20], 12),
        ([(1 << 20) + 1], 11),
        ([1, 1 << 20, 5], 12),
        ([1 << 30], 1),
        ([12 << 17], 8),
        ([6 << 20], 8),
        ([12 << 20], 4),
        ([33 << 20], 1),
    ],
)
def test_as_many_images_as_the_memory_holds(sizes, count):
    assert layerwise.BUDGET_BYTES == 192 << 20
    assert images_that_fit(sizes) == count


def test_attributes_are_set_replaced_and_taken_away():
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=1, strides=[2, 2])
    set_attributes(node, group=4)
    assert (attributes(node), [item.name for item in node.attribute]) == (
        {"strides": [2, 2], "group": 4}, ["strides", "group"])  # fmt: skip
    set_attributes(node, strides=None, dilations=[1, 1])
    assert attributes(node) == {"group": 4, "dilations": [1, 1]}


def test_an_index_changes_nothing_and_knows_constants_of_both_kinds():
    text = (
        "(float[2] x) => (float[2] y) { k = Constant<value_float=1.0>() c = Constant<value = float[2] {1, 2}>()"
        " a = Add(x, w) b = Add(a, a) d = Mul(b, k) y = Add(d, c) }"
    )
    made = model(text, {"w": f32([1, 2])})
    before = made.SerializeToString()
    index = ProtoIndex(made)
    assert [len(index.readers[name]) for name in ("x", "a", "c")] == [1, 1, 1]
    assert index.producer["a"].op_type == "Add"
    assert sorted(constant_tensors(made.graph)) == ["c", "w"]
    assert made.SerializeToString() == before
