"""What graphs are compared on behind a selection: what is chosen from, since a choice turns on a last digit."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.fp16.cast_graph import cast_graph
from edgesmith.optimize.quantize import quantize
from edgesmith.optimize.quantize.judged_tensors import judged_tensors
from support.graphs import model

HEAD = "c = Conv<pads=[1,1,1,1]>(x, w) b = Reshape(c, s) "
NMS = "k = NonMaxSuppression(t, q, most, iou, low) "
IN = "(float[1,3,8,8] x) => "
CASES = {  # text -> what each output is judged by
    "no selection": (f"{IN}(float[1,8,64] y) {{ {HEAD} y = Relu(b) }}", {"y": ("y",)}),
    "the values of a TopK are values": (
        f"{IN}(float[1,8,4] y, int64[1,8,4] i) {{ {HEAD} y, i = TopK(b, four) }}", {"y": ("y",), "i": ("b",)},
    ),
    "what is gathered by chosen indices": (
        f"{IN}(float[1,8,4] y) {{ {HEAD} v, i = TopK(b, four) r = Relu(b) y = GatherElements<axis=2>(r, i) }}",
        {"y": ("b",)},
    ),
    "boxes and scores": (
        f"{IN}(float[n,4] y, int64[n,3] k) {{ {HEAD} t = Transpose<perm=[0,2,1]>(z) z = Slice(b, zero, fourth, one)"
        f" q = Slice(b, fourth, eighth, one) {NMS} i = Gather<axis=1>(k, two) f = Squeeze(t, zero)"
        " y = Gather<axis=0>(f, i) }", {"y": ("t", "q"), "k": ("t", "q")},
    ),
    "a selection of a constant": (
        f"{IN}(float[1,8,64] y, int64[1,n] k) {{ {HEAD} y = Relu(b) k = NonZero(four) }}", {"y": ("y",), "k": ("k",)},
    ),
}  # fmt: skip


def graph(text):
    weights = {
        "w": (8, 3, 3, 3), "s": np.array([1, 8, 64]), "four": np.array([4]), "most": np.array([5]),
        "iou": np.array([0.5], np.float32), "low": np.array([0.0], np.float32), "zero": np.array([0]),
        "one": np.array([1]), "two": np.array(2), "fourth": np.array([4]), "eighth": np.array([8]),
    }  # fmt: skip
    return model(text, weights)


@pytest.mark.parametrize("case", CASES)
def test_an_output_is_judged_by_itself_or_by_what_it_is_chosen_from(case):
    text, expected = CASES[case]
    assert judged_tensors(graph(text)) == expected


def test_what_the_other_graph_lacks_is_judged_by_the_output():
    text, _ = CASES["what is gathered by chosen indices"]
    other = graph(text)
    for node in other.graph.node:
        node.input[:] = ["z" if name == "b" else name for name in node.input]
        node.output[:] = ["z" if name == "b" else name for name in node.output]
    assert judged_tensors(graph(text), other) == {"y": ("y",)}


def images(count=40):
    rng = np.random.default_rng(0)
    return [np.cumsum(rng.standard_normal((1, 3, 8, 8)), -1).astype(np.float32) for _ in range(count)]


def test_the_report_says_what_was_judged_in_place_of_a_choice(tmp_path):
    text, _ = CASES["what is gathered by chosen indices"]
    onnx.save(graph(text), tmp_path / "n.onnx")
    report = quantize(tmp_path / "n.onnx", tmp_path / "q.onnx", images(), target="ort-x86", allow_random=True)
    assert report.sqnr_db["b"] > 25
    assert "output 'y' is a selection: what it is chosen from is judged" in report.warnings


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_pairs_in_an_older_opset_are_raised_before_they_are_cast(opset, tmp_path):
    mean = "m = ReduceMean<axes=[2, 3]>(r)" if opset < 18 else "m = ReduceMean(r, axes)"
    text = f"{IN}(float[1,8,1,1] y) {{ c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c) {mean} y = Neg(m) }}"
    onnx.save(model(text, {"w": (8, 3, 3, 3), "axes": np.array([2, 3])} if opset > 17 else {"w": (8, 3, 3, 3)}, opset),
              tmp_path / "n.onnx")  # fmt: skip
    quantize(tmp_path / "n.onnx", tmp_path / "q.onnx", images(), target="trt", allow_random=True)
    half = cast_graph(onnx.load(tmp_path / "q.onnx")).model
    onnx.checker.check_model(half, full_check=True)
    assert max(entry.version for entry in half.opset_import if not entry.domain) == 19
