"""Every layer is INT8 or stands in the report with its reason, those in the bodies of If, Loop and Scan too."""

import pytest
from quantize import test_brought_graphs, test_brought_random, test_placement_exact

from edgesmith.optimize.graph.proto_graph import ProtoGraph, all_nodes, with_names
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.targets import WEIGHTED, find_target, quantized_targets
from support.graphs import model

BODY = (
    "(float[1,4,6,6] x, bool q) => (float[1,4,6,6] y) {{ a = Conv(x, w) "
    "b = If<then_branch = g () => (float[1,4,6,6] t) {{ {} }}, else_branch = h () => (float[1,4,6,6] e) {{ {} }}>(q)"
    " y = Conv(b, w) }}"
)
IN_BODY = "it is in a body of If, which stays in float"
INNER = {
    "a layer": ("t = Conv(a, w)", "e = Neg(a)", ["If1/Conv[0]"]),
    "two layers of one name": ("t = Conv(a, w)", "e = Conv(a, w)", ["If1/Conv[0]", "If1/Conv[1]"]),
    "a body in a body": (
        "t = If<then_branch = i () => (float[1,4,6,6] s) { s = ConvTranspose(a, w) },"
        " else_branch = j () => (float[1,4,6,6] r) { r = Neg(a) }>(q)", "e = Neg(a)", ["If1/ConvTranspose[0]"],
    ),
    "none": ("t = Abs(a)", "e = Neg(a)", []),
}  # fmt: skip


@pytest.mark.parametrize("case", INNER)
@pytest.mark.parametrize("target", ["ort-x86", "trt"])
def test_layers_in_bodies_stay_float_and_are_listed(case, target):
    then, other, names = INNER[case]
    graph = model(BODY.format(then, other), {"w": (4, 4, 1, 1)})
    plan = place(ProtoGraph(graph), find_target(target))
    assert plan.kept_float == dict.fromkeys(names, IN_BODY)
    assert len(plan.layers) == 2


def missing(net, plan):
    """Return the layers of which a plan says nothing."""
    known = {node.name for node in plan.layers} | set(plan.kept_float)
    outer = [node.name for node in net.nodes if node.op_type in WEIGHTED and node.name not in known]
    inner = sum(one.op_type in WEIGHTED for node in net.nodes for one in all_nodes(node))
    listed = sum("in a body of" in why for why in plan.kept_float.values())
    return [*outer, *["in a body"] * (inner - listed)]


def graphs():
    """Yield the graphs of the tests, by what they show."""
    for case in test_brought_graphs.CASES:
        yield case, test_brought_graphs.made(case)[0]
    for table in ("TRT", "ORT"):
        for case, row in getattr(test_placement_exact, table).items():
            yield case, test_placement_exact.net(row[0]).model
    for seed in range(20):
        yield f"drawn {seed}", with_names(test_brought_random.Drawn(seed).build())


def test_every_layer_of_the_tests_graphs_is_int8_or_listed():
    count = 0
    for case, graph in graphs():
        for target in quantized_targets():
            net = ProtoGraph(graph)
            assert missing(net, place(net, find_target(target))) == [], (case, target)
            count += 1
    assert count > 100


def test_a_layer_that_is_not_listed_is_missed():
    net = ProtoGraph(model(BODY.format("t = Conv(a, w)", "e = Neg(a)"), {"w": (4, 4, 1, 1)}))
    plan = place(net, find_target("trt"))
    plan.layers.pop()
    plan.kept_float.clear()
    assert missing(net, plan) == ["Conv2", "in a body"]
