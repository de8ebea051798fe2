"""What a model is besides its nodes survives: bodies, functions, defaults, metadata, names, external weights."""

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from edgesmith.optimize.equivalence import compare
from edgesmith.optimize.optimizer import optimize
from edgesmith.runtime.errors import ModelError, UsageError
from support.graphs import batchnorm, model, ops

f32, i64 = np.float32, np.int64
BN = batchnorm(4)
W = {"w": (4, 3, 3, 3)}
CONV_BN = "(float[1,3,8,8] x) => (float[1,4,6,6] y) { c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }"

# Each body captures tensors of the graph around it.
CAPTURES = {
    "what lies between Conv and BN": (
        "(float[1,3,8,8] x, bool p) => (float[1,4,6,6] y, float[1,4,6,6] z) {"
        " c = Conv(x, w) y = BatchNormalization(c, g, b, m, v)"
        " z = If(p)<then_branch = t () => (float[1,4,6,6] o) { o = Identity(c) },"
        " else_branch = e () => (float[1,4,6,6] q) { q = Neg(c) }> }",
        ["BatchNormalization", "Conv", "If"],
    ),
    "a constant and an Identity": (
        "(float[1,3,8,8] x, bool p) => (float[1,4,6,6] z) {"
        " c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) k = Constant<value = float[1] {2.0}>() i = Identity(d)"
        " z = If(p)<then_branch = t () => (float[1,4,6,6] o) { o = Mul(i, k) },"
        " else_branch = e () => (float[1,4,6,6] q) { q = Mul(i, g1) }> }",
        ["Constant", "Conv", "If"],
    ),
    "through two bodies": (
        "(float[4] x, bool p) => (float[4] z) { r = Relu(x) a = Clip(r, , h)"
        " z = If(p)<then_branch = t () => (float[4] o) {"
        " o = If(p)<then_branch = u () => (float[4] s) { s = Add(r, a) },"
        " else_branch = f () => (float[4] q) { q = Neg(a) }> },"
        " else_branch = e () => (float[4] n) { n = Neg(x) }> }",
        ["Clip", "If", "Relu"],
    ),
}


def saved(tmp_path, made):
    source = tmp_path / "source.onnx"
    onnx.save(made, source)
    return source, tmp_path / "result.onnx"


def optimised(tmp_path, made, **options):
    source, result = saved(tmp_path, made)
    report = optimize(source, result, **options)
    assert report.check.verdict == "equal", report.check
    assert not any(entry.rolled_back for entry in report.passes), report.passes
    return onnx.load(result), report


@pytest.mark.parametrize("name", CAPTURES)
def test_a_body_keeps_what_it_captures(name, tmp_path):
    text, expected = CAPTURES[name]
    weights = W | BN | {"g1": (1,), "h": f32(0.5)}
    after, _ = optimised(tmp_path, model(text, weights, ir=9))
    assert ops(after) == expected
    onnx.checker.check_model(after, full_check=True)


def test_a_default_that_may_be_fed_stays_an_input(tmp_path):
    made = model("(float[4] x, float[4] k) => (float[4] y) { a = Neg(k) y = Add(x, a) }", {"k": (4,)})
    after, _ = optimised(tmp_path, made)
    assert [value.name for value in after.graph.input] == ["x", "k"]
    assert [tensor.name for tensor in after.graph.initializer] == ["k"]
    assert ops(after) == ["Add", "Neg"]
    folded, _ = optimised(tmp_path, made, fold_inputs=True)
    assert [value.name for value in folded.graph.input] == ["x"]
    assert ops(folded) == ["Add"]


def test_before_ir_4_initialisers_are_constants(tmp_path):
    made = model(CONV_BN, W | BN, opset=8, ir=3)
    for tensor in made.graph.initializer:
        made.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    after, _ = optimised(tmp_path, made)
    assert ops(after) == ["Conv"]
    onnx.checker.check_model(after, full_check=True)


@pytest.mark.parametrize("opset", range(7, 25))
def test_every_opset(opset, tmp_path):
    # The textual form of Dropout and Clip differs: bounds and ratio are attributes before 11 and 12.
    clip = "d = Clip<min=0.0, max=0.7>(r)" if opset < 11 else "d = Clip(r, l, h)"
    text = (
        "(float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv(x, w) n = BatchNormalization(c, g, b, m, v)"
        f" r = Relu(n) {clip} e = Dropout(d) y = Identity(e) }}"
    )
    bounds = {} if opset < 11 else {"l": f32(0), "h": f32(0.7)}
    for raised in (False, True):
        after, report = optimised(tmp_path, model(text, W | BN | bounds, opset=opset), raise_opset=raised)
        assert ops(after) == ["Clip", "Conv"]
        old = raised and opset < 13
        assert after.opset_import[0].version == (17 if old else opset)
        assert report.notes == ((f"opset {opset} was converted to 17",) if old else ())
    onnx.checker.check_model(after, full_check=True)


def test_old_opsets_are_only_swept(tmp_path):
    made = model("(float[1,4] x) => (float[1,4] y) { a = Neg(x) y = Add<axis=1, broadcast=1>(x, k) }", {"k": (4,)}, 6)
    source, result = saved(tmp_path, made)
    report = optimize(source, result, verify=False)
    assert ops(result) == ["Add"]
    assert report.rewrites == 1


def test_metadata_names_and_documentation(tmp_path):
    made = model(CONV_BN, W | BN)
    made.metadata_props.add(key="edgesmith.spec", value="{}")
    made.producer_name, made.model_version, made.doc_string, made.domain = "somebody", 7, "about", "net.example"
    made.graph.doc_string = "graph"
    made.graph.node[0].metadata_props.add(key="origin", value="layer1")
    after, _ = optimised(tmp_path, made)
    for field in ("metadata_props", "producer_name", "model_version", "doc_string", "domain", "ir_version"):
        assert getattr(after, field) == getattr(made, field), field
    assert (after.graph.name, after.graph.doc_string) == (made.graph.name, "graph")
    assert after.graph.node[0].metadata_props[0].value == "layer1"


@pytest.mark.parametrize("above", [0, 1 << 20])
def test_weights_outside_the_file(above, tmp_path, monkeypatch):
    made = model(CONV_BN, W | BN)
    source, result = tmp_path / "source.onnx", tmp_path / "out" / "result.onnx"
    onnx.save(made, source, save_as_external_data=True, location="weights.bin", size_threshold=16)
    monkeypatch.setattr("edgesmith.optimize.graph.writer.EXTERNAL_ABOVE", above)
    report = optimize(source, result)
    assert report.check.verdict == "equal"
    assert (
        sorted(path.name for path in result.parent.iterdir()) == ["result.onnx", "result.onnx.data"][: 1 + (not above)]
    )
    assert ops(result) == ["Conv"]


def test_the_batch_is_fixed_where_asked(tmp_path):
    text = "(float[N,3,8,8] x) => (float[N,4,6,6] y, int64[4] s) { c = Conv(x, w) y = Relu(c) s = Shape(y) }"
    source, result = saved(tmp_path, model(text, W))
    report = optimize(source, result, batch=3)
    assert report.check.verdict == "equal"
    after = onnx.load(result)
    dims = [value.type.tensor_type.shape.dim[0] for value in (after.graph.input[0], after.graph.output[0])]
    assert [(dim.dim_value, dim.dim_param) for dim in dims] == [(3, ""), (3, "")]
    with pytest.raises(UsageError, match="expected a dynamic batch"):
        optimize(result, source, batch=2)


def test_an_unsorted_graph_is_sorted(tmp_path):
    made = model(CONV_BN, W | BN)
    turned = [made.graph.node[1], made.graph.node[0]]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in turned]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    source, result = saved(tmp_path, made)
    optimize(source, result, verify=False)
    onnx.checker.check_model(onnx.load(result), full_check=True)
    assert ops(result) == ["Conv"]


def test_other_domains_and_functions_are_opaque(tmp_path):
    made = model(
        "(float[4] x) => (float[4] y) { a = Identity(x) b = custom.Twice(a) c = Relu(b) y = Clip(c, , h) }",
        {"h": f32(6)},
    )
    body = onnx.parser.parse_function(
        '<domain: "custom", opset_import: ["" : 18]> Twice (i) => (o) { k = Identity(i) o = Add(k, i) }'
    )
    made.functions.append(body)
    after, _ = optimised(tmp_path, made)
    assert ops(after) == ["Clip", "Twice"]
    assert after.functions[0] == body


def test_an_unknown_operator_is_kept_and_cannot_be_compared(tmp_path):
    made = model("(float[4] x) => (float[4] y) { a = Identity(x) b = custom.Mystery<z=[1]>(a) y = Identity(b) }")
    source, result = saved(tmp_path, made)
    report = optimize(source, result)
    assert report.check.verdict == "cannot tell"
    assert "Mystery" in report.check.detail
    assert ops(result) == ["Mystery"]
    assert onnx.load(result).graph.node[0].attribute[0].ints == [1]


PLAIN = {
    "an initialiser is an output": ("(float[4] x) => (float[4] y, float[4] k) { y = Add(x, k) }", {"k": (4,)}, ["Add"]),
    "an input is an output": ("(float[4] x) => (float[4] x) { y = Neg(x) }", {}, []),
    "a constant is an output": (
        "(float[4] x) => (float[4] y, float[1] k) { y = Neg(x) k = Constant<value = float[1] {2.0}>() }",
        {},
        ["Constant", "Neg"],
    ),
    "an output in the middle, behind an Identity": (
        "(float[4] x) => (float[4] y, float[4] z) { a = Neg(x) y = Identity(a) z = Exp(a) }",
        {},
        ["Exp", "Neg"],
    ),
    "two names for one output": (
        "(float[4] x) => (float[4] y, float[4] z) { a = Neg(x) y = Identity(a) z = Identity(a) }",
        {},
        ["Identity", "Neg"],
    ),
    "inputs left out": (
        '(float[1,3,8,8] x) => (float[1,3,16,16] y) { a = Identity(x) y = Resize<mode="nearest">(a, , s) }',
        {"s": f32([1, 1, 2, 2])},
        ["Resize"],
    ),
    "a sequence as output": (
        "(float[N,4] x) => (seq(float[N,2]) y) { a = Identity(x) y = SplitToSequence<axis=1>(a, two) }",
        {"two": i64(2)},
        ["SplitToSequence"],
    ),
    "NaN and infinity as constants": (
        "(float[4] x) => (float[4] y) { a = Max(x, n) b = Min(a, i) c = Relu(b) y = Mul(c, j) }",
        {"n": f32(np.nan), "i": f32(np.inf), "j": f32([1, 1, np.inf, np.nan])},
        None,
    ),
    "a free dimension without a name": ("(float[?,4] x) => (float[?,4] y) { a = Identity(x) y = Neg(a) }", {}, ["Neg"]),
    "no dimension at all": ("(float x) => (float y) { a = Relu(x) y = Clip(a, , h) }", {"h": f32(6)}, ["Clip"]),
    "an empty tensor": (
        "(float[2,0] x) => (float[2,3] y) { y = Concat<axis=1>(x, k) }",
        {"k": (2, 3)},
        ["Concat"],
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_odd_graphs(name, tmp_path):
    text, weights, expected = PLAIN[name]
    after, _ = optimised(tmp_path, model(text, weights))
    assert expected is None or ops(after) == expected
    assert [value.name for value in after.graph.output] == [
        value.name for value in onnx.load(tmp_path / "source.onnx").graph.output
    ]


BROKEN = {
    "no ONNX": (lambda path: path.write_bytes(b"\xff\x00 not a model"), ModelError, "is not an ONNX"),
    "an empty file": (lambda path: path.write_bytes(b""), ModelError, "is not an ONNX model"),
    "cut off": (
        lambda path: path.write_bytes(model(CONV_BN, W | BN).SerializeToString()[:-100]), ModelError, "is not an ONNX"
    ),
    "nothing makes a tensor": (
        lambda path: onnx.save(model("(float[4] x) => (float[4] y) { y = Add(x, k) }"), path),
        ModelError, "no node produces",
    ),
    "made twice": (
        lambda path: onnx.save(model("(float[4] x) => (float[4] y) { y = Neg(x) y = Exp(x) }"), path),
        ModelError, "two producers",
    ),
    "a cycle": (
        lambda path: onnx.save(model("(float[4] x) => (float[4] y) { a = Add(x, y) y = Neg(a) }"), path),
        ModelError, "has a cycle",
    ),
    "not there": (lambda path: None, UsageError, "no such file"),
    "a folder": (lambda path: path.mkdir(), UsageError, "a folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_leaves_nothing(name, tmp_path):
    make, kind, message = BROKEN[name]
    make(tmp_path / "source.onnx")
    with pytest.raises(kind, match=message):
        optimize(tmp_path / "source.onnx", tmp_path / "out" / "result.onnx")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_external_weights_that_are_missing(tmp_path):
    source = tmp_path / "source.onnx"
    onnx.save(model(CONV_BN, W | BN), source, save_as_external_data=True, location="weights.bin", size_threshold=16)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        optimize(source, tmp_path / "result.onnx")
    assert not (tmp_path / "result.onnx").exists()


def test_what_onnx_runtime_cannot_run_goes_to_the_reference_evaluator(tmp_path):
    weights = {name: array.astype(np.float64) for name, array in (BN | {"w": np.ones((4, 3, 3, 3))}).items()}
    after, report = optimised(tmp_path, model(CONV_BN.replace("float[", "double["), weights))
    assert ops(after) == ["Conv"]
    assert report.check.worst_error < 1e-9


def test_result_over_source(tmp_path):
    source, _ = saved(tmp_path, model(CONV_BN, W | BN))
    before = onnx.load(source)
    report = optimize(source, source)
    assert report.check.verdict == "equal"
    assert ops(source) == ["Conv"] != ops(before)
    assert compare(source, source).verdict == "equal"


REPEATED = {
    "operator sets": lambda made: made.opset_import.extend([onnx.helper.make_opsetid("com.other", 1)]),
    "metadata": lambda made: [made.metadata_props.add(key=key, value="x") for key in "abc"],
    "neither": lambda made: None,
}


@pytest.mark.parametrize("case", REPEATED)
def test_a_file_with_repeated_fields_is_read_by_every_reader(case, tmp_path):
    made = model("(float[1,3,8,8] x) => (float[1,4,6,6] y) { c = Conv(x, w) y = Identity(c) }", W)
    REPEATED[case](made)
    after, _ = optimised(tmp_path, made)
    assert list(after.opset_import) == list(made.opset_import)
    assert list(after.metadata_props) == list(made.metadata_props)
    openvino = pytest.importorskip("openvino")
    openvino.Core().read_model((tmp_path / "result.onnx").read_bytes())
