"""What is seen of a tensor, and how a graph answers it, on values small enough to count by hand."""

import numpy as np
import onnxruntime as ort
import pytest

from edgesmith.optimize.calibration import statistics
from edgesmith.optimize.calibration.ort_runs import answers, session, stream, with_outputs
from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.calibration.statistics import InGraphExtremes, Stats, collect, with_extremes
from edgesmith.runtime.common.machine import cores
from edgesmith.runtime.errors import DataError, ModelError
from support.graphs import model
from support.quant_graphs import run

f32 = np.float32
VALUE = np.arange(24, dtype=f32).reshape(2, 3, 2, 2) - 10


def test_statistics_are_extremes_of_the_tensor_and_of_its_channels():
    stats = Stats()
    assert (stats.lows().tolist(), stats.highs().tolist()) == ([np.inf], [-np.inf])
    stats.add("t", VALUE)
    assert (stats.low, stats.high) == (-10, 13)
    assert (stats.lows().tolist(), stats.highs().tolist()) == ([-10, -6, -2], [5, 9, 13])
    stats.add("t", 2 * VALUE[:1])
    assert (stats.low, stats.high) == (-20, 13)
    assert (stats.lows().tolist(), stats.highs().tolist()) == ([-20, -12, -4], [5, 9, 13])
    assert type(stats.low) is type(stats.high) is float


def test_without_channels_only_the_tensor_counts():
    stats = Stats()
    stats.add("t", VALUE, None)
    assert (stats.channel_low, stats.channel_high) == (None, None)
    assert (stats.lows().tolist(), stats.highs().tolist()) == ([-10], [13])
    stats.widen("t", np.float32(-11), np.float32(12), channels=False)
    assert (stats.low, stats.high) == (-11, 13)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 1])
def test_extremes_that_are_not_finite_are_refused(wrong, at):
    ends = [np.array([-1.0, 0.0]), np.array([1.0, 2.0])]
    ends[at][1] = wrong
    with pytest.raises(DataError, match="tensor 't' holds NaN or infinity on the calibration images; expected finite"):
        Stats().widen("t", *ends)


def test_scaled_and_shifted_statistics_belong_to_the_scaled_tensor():
    stats = Stats()
    stats.add("t", VALUE)
    stats.count_values(VALUE)
    stats.rescale(np.array([1.0, 2.0, 0.5]), np.array([0.0, 1.0, -1.0]))
    assert (stats.lows().tolist(), stats.highs().tolist()) == ([-10, -14, -0.5], [5, 16, 7])
    assert (stats.low, stats.high, stats.histogram) == (-14, 16, None)


def test_the_average_starts_at_the_first_image_and_moves_by_a_hundredth():
    stats = Stats()
    images = np.array([[-1.0, 3.0], [-2.0, 4.0], [0.0, 103.0]])[:, None]
    stats.count_values(images[:2])
    assert stats.average == pytest.approx((-1.01, 3.01))
    stats.count_values(images[2:])
    assert stats.average == pytest.approx((0.99 * -1.01, 0.99 * 3.01 + 1.03))
    assert stats.histogram.counts.sum() == 6


@pytest.mark.parametrize(
    ("reference", "value", "expected"),
    [([3, 4], [3, 4], np.inf), ([3, 4], [3, 3.5], 20), ([3, 4], [0, 0], 0), ([3, 4], [6, 8], 0), ([0], [1], -3000)],
)
def test_the_sqnr_is_that_of_its_formula(reference, value, expected):
    assert sqnr_db(np.array(reference, f32), np.array(value, f32)) == pytest.approx(expected)


def test_the_sqnr_is_summed_in_double_precision():
    assert sqnr_db(np.array([1e30], f32), np.array([1.01e30], f32)) == pytest.approx(40, abs=1e-3)


def test_a_session_is_what_was_asked_for():
    made = model("(float[2] x) => (float[2] y) { y = Sin(x) }")
    level = ort.GraphOptimizationLevel
    plain = session(made).get_session_options()
    assert (plain.graph_optimization_level, plain.intra_op_num_threads) == (level.ORT_DISABLE_ALL, cores())
    fast = session(made, optimise=True, threads=1)
    options = fast.get_session_options()
    assert (options.graph_optimization_level, options.intra_op_num_threads) == (level.ORT_ENABLE_ALL, 1)
    assert (options.log_severity_level, fast.get_providers()) == (4, ["CPUExecutionProvider"])


def test_integers_can_be_left_out():
    pairs = "a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z)"
    made = model(
        f"(float[1,4,5,5] x) => (float[1,4,3,3] y) {{ {pairs} w = DequantizeLinear(k, t, o) c = Conv(b, w)"
        " d = QuantizeLinear(c, s, z) y = DequantizeLinear(d, s, z) }",
        {"s": f32(0.1), "z": np.uint8(128), "t": f32(0.01), "o": np.int8(0), "k": np.ones((4, 4, 3, 3), np.int8)},
    )
    for integers, key in ((True, ""), (False, "1")):
        made_session = session(made, optimise=True, integers=integers)
        options = made_session.get_session_options()
        try:
            found = options.get_session_config_entry("session.disable_quant_qdq")
        except RuntimeError:  # no such entry
            found = ""
        assert found == key


def test_what_the_runtime_refuses_is_said_in_one_line(capfd):
    made = model("(float[2] x) => (float[2] y) { y = Sin(x) }")
    made.graph.node[0].op_type = "NoSuch" + "Operator" * 60
    for optimise in (False, True):
        with pytest.raises(ModelError) as caught:
            session(made, optimise=optimise)
        assert caught.value.what == "ONNX Runtime refuses the graph"
        assert "NoSuchOperator" in caught.value.got
        assert len(caught.value.got) == 300
    good = session(model("(float[2] x) => (float[2] y) { y = Sin(x) }"))
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run the graph; got .*; do: export it again") as caught:
        answers(good, {"x": np.zeros((3, 3), f32)})
    assert 50 < len(caught.value.got) <= 300
    assert answers(good, {"x": np.zeros(2, f32)}, ["y"])[0].tolist() == [0, 0]


TWO = "(float[N,2] x) => (float[N,2] y, float[N,2] z) { a = Sin(x) y = Cos(a) z = Add(a, y) }"


def test_the_outputs_are_those_that_are_watched():
    made = model(TWO)
    seen = with_outputs(made, ["a", "z"])
    assert [(item.name, len(item.type.tensor_type.shape.dim)) for item in seen.graph.output] == [("a", 0), ("z", 2)]
    assert [item.name for item in made.graph.output] == ["y", "z"]


@pytest.mark.parametrize("optimise", [True, False])
def test_a_stream_has_every_tensor_of_every_batch(optimise):
    given = [np.ones((1, 2), f32), np.zeros((3, 2), f32)]
    for names in (["x", "a", "z"], ["a"], ["x"]):
        seen = list(stream(model(TWO), names, given, optimise=optimise))
        assert [set(values) for values in seen] == [{*names, "x"}] * 2
        for values, batch in zip(seen, given, strict=True):
            assert values["x"] is batch
            if "a" in names:
                assert values["a"] == pytest.approx(np.sin(batch))


# a node that makes t, its constants, whether t starts at 0
STARTS = {
    "Relu": ("t = Relu(x)", {}, True),
    "Clip from 0": ("t = Clip(x, z, s)", {}, True),
    "Clip from 0 on": ("t = Clip(x, z)", {}, True),
    "Clip from 1": ("t = Clip(x, s)", {}, False),
    "Clip without a bound": ("t = Clip(x)", {}, False),
    "Clip to 6": ("t = Clip(x, , s)", {}, False),
    "MaxPool of Relu": ("a = Relu(x) t = MaxPool<kernel_shape=[1,1]>(a)", {}, True),
    "MaxPool": ("t = MaxPool<kernel_shape=[1,1]>(x)", {}, False),
    "Concat of both": ("a = Relu(x) t = Concat<axis=1>(a, a)", {}, True),
    "Concat of one": ("a = Relu(x) t = Concat<axis=1>(a, x)", {}, False),
    "AveragePool": ("a = Relu(x) t = AveragePool<kernel_shape=[1,1]>(a)", {}, False),
}


@pytest.mark.parametrize("case", STARTS)
def test_what_starts_at_zero(case):
    text, _, starts = STARTS[case]
    made = model(f"(float[1,2,3,3] x) => (float[1,2,3,3] y) {{ {text} y = Sin(x) }}", {"z": f32(0), "s": f32(6)})
    assert ("t" in statistics._from_zero(made)) is starts


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 20])
def test_the_extremes_of_each_channel_are_answered_in_every_opset(opset):
    text = "(float[N,3,2,2] x) => (float[N,3,2,2] y) { a = Relu(x) b = Sub(x, two) c = Flatten(x) y = Add(a, b) }"
    made = model(text, {"two": f32(2)}, opset=opset)
    inside = with_extremes(made, ["b", "a", "c", "nowhere"])
    assert (inside.tensors, inside.from_zero & {"a", "b"}) == ({"b": 3, "a": 3}, {"a"})
    assert inside.lows() == {"b": 3}
    assert [item.name for item in made.graph.output] == ["y"]
    names = [item.name for item in inside.model.graph.output]
    high, low, whole = session(inside.model).run(["seen/high", "seen/low", "seen/whole"], {"x": VALUE})
    assert sorted(names) == ["seen/high", "seen/low", "seen/whole"]
    others = (0, 2, 3)
    assert high.reshape(-1).tolist() == [*(VALUE - 2).max(others), *VALUE.clip(0).max(others)]
    assert low.reshape(-1).tolist() == (VALUE - 2).min(others).tolist()
    assert whole.reshape(-1)[:3].tolist() == (VALUE - 2).sum(others).tolist()
    assert whole.reshape(-1)[3:].tolist() == VALUE.clip(0).mean((2, 3)).sum(0).tolist()


def test_a_tensor_of_an_unknown_number_of_channels_is_looked_at_whole():
    made = model("(float[N,C,2,2] x) => (float[N,C,2,2] y) { a = Sin(x) y = Cos(a) }")
    assert with_extremes(made, ["a"]).tensors == {}
    assert [item.name for item in with_extremes(made, ["a"]).model.graph.output] == []
    assert collect(made, ["a"], [VALUE])["a"].highs() == pytest.approx(np.sin(VALUE).max((0, 2, 3)), abs=1e-6)


@pytest.mark.parametrize("histograms", [True, False])
def test_statistics_are_those_of_all_batches(histograms):
    text = "(float[N,3,2,2] x) => (float[N,3,2,2] y) { a = Relu(x) b = Sub(x, two) c = Flatten(x) y = Add(a, b) }"
    given = [VALUE, 2 * VALUE[:1], -VALUE]
    found = collect(model(text, {"two": f32(2)}), ["a", "b", "c", "x"], given, histograms=histograms)
    every = np.concatenate(given)
    for name, value in {"a": every.clip(0), "b": every - 2, "c": every.reshape(5, 12), "x": every}.items():
        axes = tuple(axis for axis in range(value.ndim) if axis != 1)
        assert found[name].lows().tolist() == value.min(axis=axes).tolist()
        assert found[name].highs().tolist() == value.max(axis=axes).tolist()
        assert (found[name].histogram is not None) == histograms
        if histograms:
            assert found[name].histogram.counts.sum() == value.size
    whole = collect(model(text, {"two": f32(2)}), ["b"], given, channels=False, histograms=True)["b"]
    assert (whole.channel_low, whole.low, whole.high) == (None, every.min() - 2, every.max() - 2)


def test_no_batches_have_no_extremes():
    found = collect(model("(float[N,3,2,2] x) => (float[N,3,2,2] y) { a = Relu(x) y = Sin(a) }"), ["a"], [])
    assert (found["a"].low, found["a"].high) == (np.inf, -np.inf)


def test_the_first_tensor_that_is_not_finite_is_named():
    inside = InGraphExtremes(None, {"a": 1, "b": 2, "c": 1}, frozenset({"c"}))

    def seen(high, whole):
        shape = (1, 4, 1, 1)
        return {"seen/high": np.reshape(np.array(high, f32), shape), "seen/low": np.zeros((1, 3, 1, 1), f32),
                "seen/whole": np.reshape(np.array(whole, f32), shape)}  # fmt: skip

    ends = {}
    statistics._widen(ends, seen([1, 2, 3, 4], [1, 1, 1, 1]), inside)
    statistics._widen(ends, seen([0, 9, 3, 1], [1, 1, 1, 1]), inside)
    assert ends["seen/high"].tolist() == [1, 9, 3, 4]
    for high, whole, name in (
        ([1, 2, np.inf, np.inf], [1, 1, 1, 1], "b"),
        ([1, 2, 3, 4], [1, 1, 1, np.nan], "c"),
        ([1, 2, 3, 4], [1, np.inf, 1, np.nan], "b"),
        ([-np.inf, 2, 3, 4], [1, 1, 1, 1], "a"),
    ):
        with pytest.raises(DataError, match=f"tensor '{name}' holds NaN"):
            statistics._widen({}, seen(high, whole), inside)


def test_joined_channels_come_apart():
    made = statistics._apart(np.arange(6), {"a": 1, "b": 3, "c": 2})
    assert {name: part.tolist() for name, part in made.items()} == {"a": [0], "b": [1, 2, 3], "c": [4, 5]}
    assert statistics._apart(np.zeros(0), {}) == {}


def test_the_optimised_answer_is_the_plain_one():
    made = model(TWO)
    for name, value in zip("yz", session(made, optimise=True).run(None, {"x": VALUE.reshape(-1, 2)}), strict=True):
        plain = run(with_outputs(made, [name]), VALUE.reshape(-1, 2))
        assert value == pytest.approx(plain, abs=1e-6)
