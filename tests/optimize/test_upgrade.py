"""Files of old opsets, with wrong declared outputs, with free sizes: raised, corrected, fixed; and each is said."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgesmith.cli import main
from edgesmith.optimize import optimizer
from edgesmith.optimize.equivalence import compare
from edgesmith.optimize.graph.graph_file import GraphFile
from edgesmith.optimize.graph.upgrade import upgraded
from edgesmith.optimize.optimizer import optimize
from edgesmith.optimize.quantize import quantize
from edgesmith.runtime.errors import CheckFailed, ModelError, UsageError
from support.graphs import model

RANDOM = np.random.default_rng(0)
W = {"w": (RANDOM.standard_normal((8, 3, 3, 3)) / 5).astype(np.float32), "b": np.zeros(8, np.float32)}
HEAD = "(float[N,3,8,8] x) => (float[N,8,H,W] y) { c = Conv(x, w, b) r = Relu(c) "
NETS = {  # name -> (text behind the first layers, further weights, opsets)
    "Dropout and Identity": ("d = Dropout(r) y = Identity(d) }", {}, range(7, 13)),
    "Clip with attributes": ("y = Clip<min=0.0, max=6.0>(r) }", {}, range(7, 11)),
    "BatchNormalization": (
        "y = BatchNormalization(r, s, b, b, v) }",
        {"s": np.ones(8, np.float32), "v": np.full(8, 2, np.float32)}, range(9, 13),
    ),
    "Upsample by attribute": ("y = Upsample<scales=[1.0, 1.0, 2.0, 2.0]>(r) }", {}, range(7, 9)),
    "Upsample by input": ("y = Upsample(r, k) }", {"k": np.array([1, 1, 2, 2], np.float32)}, [9]),
    "Pad with attributes": ("y = Pad<pads=[0, 0, 1, 1, 0, 0, 1, 1]>(r) }", {}, range(7, 11)),
    "ReduceMean": ("y = ReduceMean<axes=[2, 3]>(r) }", {}, range(7, 13)),
    "Squeeze and Unsqueeze": (
        "g = GlobalAveragePool(r) s = Squeeze<axes=[2, 3]>(g) y = Unsqueeze<axes=[2, 3]>(s) }", {}, range(7, 13),
    ),
    "Softmax over the rest": ("g = GlobalAveragePool(r) y = Softmax<axis=1>(g) }", {}, range(7, 13)),
}  # fmt: skip
CASES = [(name, opset) for name, (_, _, opsets) in NETS.items() for opset in opsets]


def images(count=40):
    return [np.cumsum(RANDOM.standard_normal((1, 3, 8, 8)), -1).astype(np.float32) for _ in range(count)]


def saved(folder, name, opset):
    text, weights, _ = NETS[name]
    path = folder / "old.onnx"
    made = model(HEAD + text, W | weights, opset)
    made.metadata_props.add(key="author", value="somebody")
    onnx.save(made, path)
    return path


@pytest.mark.parametrize(("name", "opset"), CASES)
def test_an_old_file_is_raised_and_computes_the_same(name, opset, tmp_path):
    path = saved(tmp_path, name, opset)
    graph = GraphFile.read(path)
    assert graph.notes[0] == f"opset {opset} was converted to 17"
    assert [(entry.key, entry.value) for entry in graph.model.metadata_props] == [("author", "somebody")]
    onnx.save(graph.model, tmp_path / "raised.onnx")
    assert compare(path, tmp_path / "raised.onnx").verdict == "equal"
    report = optimize(path, tmp_path / "result.onnx")
    assert (report.check.verdict, report.notes[0]) == ("equal", graph.notes[0])
    assert onnx.load(tmp_path / "result.onnx").opset_import[0].version == 17


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_an_old_file_is_quantised_and_the_report_says_that_it_was_raised(opset, tmp_path):
    path = saved(tmp_path, "Dropout and Identity", opset)
    optimize(path, tmp_path / "new.onnx", raise_opset=False)
    report = quantize(tmp_path / "new.onnx", tmp_path / "q.onnx", images(), target="ort-x86", allow_random=True)
    assert report.warnings[0] == f"opset {opset} was converted to 17"
    assert report.sqnr_db["y"] > 30


def test_what_the_converter_spoils_is_noticed(tmp_path, monkeypatch):
    def spoilt(given, must=True):
        other, notes = upgraded(given, must)
        weight = next(one for one in other.graph.initializer if one.name == "w")
        weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), "w"))
        return other, notes

    path = saved(tmp_path, "Dropout and Identity", 11)
    monkeypatch.setattr("edgesmith.optimize.graph.reader.upgraded", spoilt)
    monkeypatch.setattr("edgesmith.optimize.graph.proto_graph.upgraded", spoilt)
    report = optimize(path, tmp_path / "result.onnx")
    assert report.notes == ("the opset is unchanged: the converted graph computes something else",)
    assert onnx.load(tmp_path / "result.onnx").opset_import[0].version == 11
    with pytest.raises(CheckFailed, match="computes something else once opset 11 was converted to 17"):
        quantize(path, tmp_path / "q.onnx", images(), target="ort-x86", allow_random=True)
    assert not (tmp_path / "q.onnx").exists()


def test_what_cannot_be_raised_is_refused_where_a_newer_opset_is_needed(tmp_path):
    onnx.save(model("(float[1,4] x) => (float[1,4] y) { y = Affine<alpha=2.0>(x) }", {}, 7), tmp_path / "old.onnx")
    said = "operators that opset 17 does not have: Affine"
    with pytest.raises(
        ModelError, match=f"has opset 7 and cannot be converted; got {said}; expected opset 13 or later"
    ):
        GraphFile.read(tmp_path / "old.onnx")
    report = optimize(tmp_path / "old.onnx", tmp_path / "new.onnx", verify=False)
    assert report.notes == (f"opset 7 is unchanged: {said}",)


WRONG = {  # what is declared of the output that is (1, 8, 36) -> what is said
    "another rank": ([1, 36], "output 'y' was declared 1x36; the graph gives 1x8x36"),
    "another size": ([1, 9, 36], "output 'y' was declared 1x9x36; the graph gives 1x8x36"),
    "free where it is fixed": (["n", 8, "w"], None),
    "right": ([1, 8, 36], None),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_declared_output_that_the_graph_contradicts_is_corrected(case, tmp_path):
    shape, said = WRONG[case]
    weights = [numpy_helper.from_array(value, name) for name, value in W.items()]
    weights.append(numpy_helper.from_array(np.array([1, 8, -1], np.int64), "s"))
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv"), helper.make_node("Reshape", ["c", "s"], ["y"])]
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    made = helper.make_model(
        helper.make_graph(nodes, "g", *ends, weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(made, tmp_path / "net.onnx")
    assert optimize(tmp_path / "net.onnx", tmp_path / "o.onnx").notes == ((said,) if said else ())
    for name in ("net", "o"):
        report = quantize(tmp_path / f"{name}.onnx", tmp_path / "q.onnx", images(), target="ort-x86", allow_random=True)
        assert (said in report.warnings) is bool(said and name == "net")
        onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"), full_check=True)


FREE = "(float[{}] x, float[{}] z) => (float[{}] y) {{ y = Add(x, z) }}"
SIZES = {  # inputs, asked -> the input shapes after
    "all of one input": ("N,3,H,W", "N,3,H,W", {"x": (2, 3, 8, 8)}, [[2, 3, 8, 8], [2, 3, 8, 8]]),
    "a number that is fixed already": ("1,3,H,W", "1,3,H,V", {"x": (1, 3, 8, 9)}, [[1, 3, 8, 9], [1, 3, 8, "V"]]),
    "both": ("N,A", "N,B", {"x": (2, 4), "z": (2, 4)}, [[2, 4], [2, 4]]),
    "none": ("N,A", "N,B", {}, [["N", "A"], ["N", "B"]]),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_are_fixed_with_all_that_has_their_name(case, tmp_path):
    one, two, asked, left = SIZES[case]
    onnx.save(model(FREE.format(one, two, one), {}, 17), tmp_path / "net.onnx")
    optimize(tmp_path / "net.onnx", tmp_path / "o.onnx", sizes=asked)
    dims = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.load(tmp_path / "o.onnx").graph.input
    ]
    assert dims == left


WRONG_SIZES = {
    "no such input": ({"q": (1,)}, "there is no such input; got 'q'"),
    "another rank": ({"x": (1, 2, 3)}, "the sizes do not match the input 'x'; got 1x2x3"),
    "what is fixed": ({"x": (1, 5)}, "the sizes do not match the input 'x'; got 1x5; expected \\?x4"),
    "two for one name": ({"x": (1, 4), "z": (2, 4)}, "the dynamic axis 'N' is set to both 1 and 2"),
}


@pytest.mark.parametrize("case", WRONG_SIZES)
def test_sizes_that_cannot_be_are_refused(case, tmp_path):
    sizes, said = WRONG_SIZES[case]
    onnx.save(model(FREE.format("N,4", "N,4", "N,4"), {}, 17), tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=said):
        optimize(tmp_path / "net.onnx", tmp_path / "o.onnx", sizes=sizes)
    assert not (tmp_path / "o.onnx").exists()


def test_every_way_to_write_free_is_free(tmp_path):
    made = model(FREE.format("N,4", "N,4", "N,4"), {}, 17)
    for value, dim in zip((*made.graph.input, *made.graph.output), (0, -1, None), strict=True):
        first = value.type.tensor_type.shape.dim[0]
        first.ClearField("dim_param")
        if dim is not None:
            first.dim_value = dim
    onnx.save(made, tmp_path / "net.onnx")
    report = optimize(tmp_path / "net.onnx", tmp_path / "o.onnx", sizes={"x": (2, 4), "z": (2, 4)})
    assert report.check.verdict == "equal"


def test_samples_stand_in_where_drawn_inputs_make_no_sense(tmp_path):
    text = "(int64[2] i, float[3,4] x) => (float[A,B] y) { g = Gather(x, i) n = Neg(g) y = Identity(n) }"
    made = model(text, {}, 17)
    made.graph.node[0].attribute.add(name="axis", i=0, type=onnx.AttributeProto.INT)
    onnx.save(made, tmp_path / "net.onnx")
    good = {"i": np.array([0, 2]), "x": RANDOM.random((3, 4), np.float32)}
    np.savez(tmp_path / "good.npz", **{name: value[:2] for name, value in good.items()} | {"x": good["x"]})
    assert optimizer.optimize(tmp_path / "net.onnx", tmp_path / "o.onnx", samples=[good]).check.verdict == "equal"


def test_the_command_takes_sizes_and_samples(tmp_path):
    onnx.save(model("(float[N,A] x) => (float[N,A] y) { n = Neg(x) y = Identity(n) }", {}, 11), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", RANDOM.random((3, 4), np.float32))
    command = ["optimize", tmp_path / "net.onnx", "-o", tmp_path / "o.onnx", "--shape", "2x4", "--sample"]
    result = CliRunner().invoke(main, [*map(str, command), str(tmp_path / "x.npy")])
    assert result.exit_code == 0, result.output
    assert "opset 11 was converted to 17" in result.output
    assert [dim.dim_value for dim in onnx.load(tmp_path / "o.onnx").graph.input[0].type.tensor_type.shape.dim] == [2, 4]
    assert CliRunner().invoke(main, [*map(str, command), str(tmp_path / "nothing.npy")]).exit_code == 2


@pytest.mark.parametrize("name", ["?", "-1", "None"])
def test_sizes_without_a_name_of_their_own_are_not_one_size(name, tmp_path):
    made = model("(float[a,3,b,c] x) => (float[a,8,d,e] y) { c = Conv(x, w, k) y = Relu(c) }", {**W, "k": W["b"]}, 11)
    for value in (*made.graph.input, *made.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_param = name if dim.dim_param else ""
            if not dim.dim_param:
                dim.dim_value = 3 if value.name == "x" else 8
    onnx.save(made, tmp_path / "net.onnx")
    report = optimize(tmp_path / "net.onnx", tmp_path / "o.onnx", sizes={"x": (1, 3, 12, 48)})
    assert report.check.verdict == "equal"
    dims = onnx.load(tmp_path / "o.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 3, 12, 48]
    free = optimize(tmp_path / "net.onnx", tmp_path / "f.onnx")
    assert free.check.verdict == "equal"
    after = onnx.load(tmp_path / "f.onnx").graph.input[0].type.tensor_type.shape.dim
    assert {dim.dim_param for dim in after} == {""}
