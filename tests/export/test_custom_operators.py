"""Operators that ONNX Runtime does not have: one line names them and their nodes before any work."""

import numpy as np
import onnx
import pytest
from onnx import helper

from edgesmith.export.api import describe
from edgesmith.optimize.fp16.convert import to_fp16
from edgesmith.optimize.graph.schema_check import require_known_operators
from edgesmith.optimize.quantize import quantize
from edgesmith.runtime.errors import ModelError, UsageError
from support.graphs import model


def value(name):
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8])


def graph(*nodes, opset=17, functions=()):
    ids = [helper.make_opsetid("", opset), helper.make_opsetid("com.acme", 1), helper.make_opsetid("com.microsoft", 1)]
    body = helper.make_graph(nodes, "net", [value("x")], [value("y")])
    return helper.make_model(body, opset_imports=ids, ir_version=9, functions=functions)


def acme(*names):
    return [helper.make_node("Fold", ["x"], ["y"], name=name, domain="com.acme") for name in names]


def nested():
    branch = helper.make_graph(acme("inner"), "branch", [], [value("y")])
    truth = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True]))
    return graph(truth, helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


def defined():
    ids = [helper.make_opsetid("", 17)]
    fold = helper.make_function("com.acme", "Fold", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], ids)
    return graph(*acme("f"), functions=[fold])


REFUSED = {
    "a domain of others": (graph(*acme("f", "g", "h", "i", "j")), r"com.acme:Fold \(f, g, h and 2 more\); expected"),
    "a node without a name": (graph(*acme("")), r"com.acme:Fold \(of y\)"),
    "in a body": (nested(), r"com.acme:Fold \(inner, inner\)"),
    "unknown in this opset": (graph(helper.make_node("Gelu", ["x"], ["y"], name="g")), r"Gelu \(g\); .* opset 17"),
    "two kinds": (
        graph(*acme("f"), helper.make_node("Nothing", ["x"], ["z"], name="n")), r"com.acme:Fold \(f\); Nothing \(n\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_unknown_operators_are_named_with_their_nodes(case):
    network, said = REFUSED[case]
    with pytest.raises(ModelError, match=f"net has operators that ONNX Runtime does not have; got {said}.*; do: "):
        require_known_operators(network, "net")


@pytest.mark.parametrize(
    "network",
    [
        defined(), graph(helper.make_node("Gelu", ["x"], ["y"]), opset=20),
        graph(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")),
        graph(helper.make_node("Upsample", ["x", "s"], ["y"]), opset=9),
    ],
    ids=["a function of the file", "a later opset", "ONNX Runtime's own", "one that later opsets lack"],
)  # fmt: skip
def test_known_operators_pass(network):
    require_known_operators(network, "net")


@pytest.mark.parametrize("road", ["export and spec", "int8", "fp16"])
def test_every_road_refuses_them_before_it_works(road, tmp_path):
    onnx.save(graph(*acme("f")), tmp_path / "net.onnx")

    def samples():
        pytest.fail("work began")
        yield np.zeros((1, 3, 8, 8), np.float32)

    roads = {
        "export and spec": lambda: describe(tmp_path / "net.onnx"),
        "int8": lambda: quantize(tmp_path / "net.onnx", tmp_path / "o.onnx", samples(), target="ort-x86"),
        "fp16": lambda: to_fp16(tmp_path / "net.onnx", tmp_path / "o.onnx", samples()),
    }
    with pytest.raises(ModelError, match=r"got com.acme:Fold \(f\)"):
        roads[road]()
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    ("shape", "layout", "right"),
    [("1,3,8,8", "NHWC", "NCHW"), ("1,8,8,3", "NCHW", "NHWC"), ("1,1,8,8", "NHWC", "NCHW")],
)
def test_a_layout_that_contradicts_the_graph_is_refused(shape, layout, right, tmp_path):
    onnx.save(model(f"(float[{shape}] x) => (float[{shape}] y) {{ y = Neg(x) }}"), tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=rf"layout does not fit .*; got {layout} \(--layout\) .*; expected {right}"):
        describe(tmp_path / "net.onnx", layout=layout)
    assert describe(tmp_path / "net.onnx", layout=right).spec.layout == right
