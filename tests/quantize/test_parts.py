"""A head that joins pixels and logits: layers and Concat at the end stay float, and each part is judged by itself."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.quantize import quantize
from edgesmith.optimize.quantize.output_parts import Parts
from edgesmith.optimize.quantize.report import judge
from support.graphs import model
from support.quant_graphs import Graph, batches, images, run

f32, i64 = np.float32, np.int64
HEAD = "(float[N,4,6,6] x) => (float y)"
ARRAYS = {"w": (4, 4, 1, 1), "v": (3, 4, 1, 1), "cut": i64([4, 3]), "flat": i64([0, 7, -1]), "s": f32(8),
          "from": i64([1]), "to": i64([6]), "on": i64([1])}  # fmt: skip
TWO = "a = Conv(x, w) b = Conv(x, v) "
# the end of a graph -> its parts: those that a Concat joins, on whatever axis and however moved afterwards
PARTS = {
    "no Concat": ("y = Conv(x, w)", ["y"]),
    "two branches": (TWO + "y = Concat<axis=1>(a, b)", ["y[:, 0:4]", "y[:, 4:7]"]),
    "reshaped": (TWO + "c = Concat<axis=1>(a, b) y = Reshape(c, flat)", ["y[:, 0:4]", "y[:, 4:7]"]),
    "transposed": (
        TWO + "c = Concat<axis=1>(a, b) y = Transpose<perm=[0,2,3,1]>(c)", ["y[:, :, :, 0:4]", "y[:, :, :, 4:7]"],
    ),
    "each behind a function": (
        TWO + "c = Mul(a, s) d = Sigmoid(b) y = Concat<axis=1>(c, d)", ["y[:, 0:4]", "y[:, 4:7]"],
    ),
    "sliced": (TWO + "c = Concat<axis=1>(a, b) y = Slice(c, from, to, on)", ["y[:, 0:3]", "y[:, 3:5]"]),
    "split, and one half alone": (TWO + "c = Concat<axis=1>(a, b) y, d = Split<axis=1>(c, cut)", ["y"]),
    "of levels": (
        TWO + "c = Concat<axis=1>(a, b) d = Concat<axis=1>(b, a) e = Flatten<axis=2>(c) y = Concat<axis=2>(c, d)",
        ["y[:, 0:4, 0:6]", "y[:, 4:7, 0:6]"],
    ),
    "on the last axis": ("a = Conv(x, w) b = Sin(a) y = Concat<axis=3>(a, b)", ["y[:, :, :, 0:6]", "y[:, :, :, 6:12]"]),
    "what computes behind a Concat mixes its parts": (TWO + "c = Concat<axis=1>(a, b) y = Sin(c)", ["y"]),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_what_a_concat_joins_is_a_part(case):
    text, expected = PARTS[case]
    made = model(f"{HEAD} {{ {text} }}", ARRAYS)
    titles = judge(made, made, [images(2)[:, :1, :6, :6].repeat(4, axis=1)]).sqnr_db
    if case == "of levels":  # one tensor at two places is not a range
        assert set(titles) == {"y from a", "y from b"}
        return
    assert list(titles) == expected


@pytest.mark.parametrize("seed", range(8))
def test_random_heads_are_told_apart_to_the_value(seed):
    """Each part is damaged alone: its own SQNR falls, no other one's does."""
    rng = np.random.default_rng(seed)
    count, axis = int(rng.integers(2, 5)), int(rng.choice([1, 2, 3]))
    names = [f"t{at}" for at in range(count)]
    text = " ".join(f"{name} = Mul(x, k{at})" for at, name in enumerate(names))
    order = [0, *(1 + rng.permutation(3)).tolist()]
    text += f" c = Concat<axis={axis}>({', '.join(names)}) y = Transpose<perm={order}>(c)"
    arrays = {f"k{at}": f32(10.0**at) for at in range(count)}
    damaged = int(rng.integers(count))
    one, two = model(f"{HEAD} {{ {text} }}", arrays), model(f"{HEAD} {{ {text} }}", arrays)
    tensor = next(item for item in two.graph.initializer if item.name == f"k{damaged}")
    tensor.CopyFrom(numpy_helper.from_array(f32(10.0**damaged * 1.1), tensor.name))
    found = judge(one, two, [rng.normal(0, 1, (3, 4, 6, 6)).astype(f32) for _ in range(2)])
    worst, *others = found.sqnr_db.values()
    assert worst == pytest.approx(20, abs=0.01)
    assert others == [np.inf] * (count - 1)
    assert len(found.sqnr_db) == count


def boxes_and_logits():
    """Boxes of some hundred pixels beside logits of a few units, on one axis; (N, 9, 256)."""
    graph = Graph(0)
    graph.conv("input", "c0", (16, 3, 3, 3))
    graph.node("Relu", ["c0"], "r0")
    graph.conv("r0", "boxes", (4, 16, 1, 1))
    graph.conv("r0", "logits", (5, 16, 1, 1))
    for tensor in graph.arrays:
        if tensor.name.startswith("boxes"):
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(f32(300 * value + (320 if value.ndim == 1 else 0)), tensor.name))
    graph.node("Concat", ["boxes", "logits"], "all", axis=1)
    graph.node("Flatten", ["all"], "output", axis=1)
    return graph.model({"output": ["N", 9 * 256]})


@pytest.mark.parametrize("target", ["ort-x86", "ort-arm", "openvino", "trt"])
def test_boxes_and_logits_are_both_kept(target, tmp_path):
    onnx.save(boxes_and_logits(), tmp_path / "m.onnx")
    report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target=target)
    assert len(report.sqnr_db) == 2
    assert min(report.sqnr_db.values()) > 25
    seen = images(32, seed=5)
    before, after = (run(onnx.load(tmp_path / f"{name}.onnx"), seen).reshape(32, 9, -1) for name in "mq")
    assert min(sqnr_db(before[:, at], after[:, at]) for at in (slice(4), slice(4, 9))) > 25


def test_one_scale_for_both_is_found_out():
    """What the form was: a quantiser over the whole output, in which the logits are nearly one number."""
    one = boxes_and_logits()
    two = onnx.ModelProto()
    two.CopyFrom(one)
    last = two.graph.node[-1]
    last.output[0] = "plain"
    for name, value in (("s", f32(16)), ("z", np.uint8(128))):
        two.graph.initializer.append(numpy_helper.from_array(value, name))
    two.graph.node.append(onnx.helper.make_node("QuantizeLinear", ["plain", "s", "z"], ["q"]))
    two.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["output"]))
    found = judge(one, two, [images(8)])
    (worst, low), (_, high) = found.sqnr_db.items()
    assert worst == "output[:, 1024:2304]"
    assert low < 8 < 25 < high
    assert len(Parts(one).leaves) == 2
