"""Costs, the search for a budget, what is reported, printed and drawn: every number against its definition."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli import _noise_plot, _quantize_tables
from edgesmith.cli.quantize import _random, _settings, _warn, parse_budget, quantize_command
from edgesmith.optimize.calibration.samples import Samples
from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.graph.protobuf import copied
from edgesmith.optimize.quantize import QuantSettings, post_training, quantize, report
from edgesmith.optimize.quantize.class_likeness import ClassLikeness
from edgesmith.optimize.quantize.mixed_precision import search
from edgesmith.optimize.quantize.mixed_precision.latency_model import (
    CPU,
    Costs,
    latencies,
    layer_work,
    model_costs,
)
from edgesmith.optimize.quantize.mixed_precision.points_judge import PointsJudge
from edgesmith.optimize.quantize.mixed_precision.search import (
    Budget,
    Configuration,
    _named,
    _nothing,
    _Searcher,
    _with_front,
    within_budget,
)
from edgesmith.optimize.quantize.report import STEPS, QuantReport, compare
from edgesmith.optimize.quantize.targets import find_target
from edgesmith.runtime import targets
from edgesmith.runtime.engines.cost import COEFFICIENTS, find_gpu
from edgesmith.runtime.errors import CheckFailed, UsageError
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.graphs import model
from support.quant_graphs import batches, images, run, small_cnn

f32 = np.float32
LAYERS = (
    "(float[N,4,6,8] x) => (float[N,5] y) { a = Conv<pads=[1,1,1,1]>(x, w) b = Conv<group=4, strides=[2,2]>(a, d)"
    " p = GlobalAveragePool(b) f = Flatten(p) c = MatMul(f, m) y = Gemm<transB=1>(c, g) }"
)
WEIGHTS = {"w": (4, 4, 3, 3), "d": (4, 1, 3, 3), "m": (4, 6), "g": (5, 6)}
# layer -> multiply-adds, activations moved, weights, dense
COUNTED = {
    "Conv0": (4 * 48 * 36, 4 * 48 + 4 * 48, 144, True),
    "Conv1": (4 * 2 * 3 * 9, 4 * 48 + 4 * 2 * 3, 36, False),
    "MatMul4": (6 * 4, 4 + 6, 24, True),
    "Gemm5": (5 * 6, 6 + 5, 30, True),
}


def test_the_work_of_each_layer_is_counted_at_batch_one():
    made = layer_work(model(LAYERS, WEIGHTS))
    found = {
        name: (one.operations // 2, one.activation_bytes, one.constant_bytes, one.dense) for name, one in made.items()
    }
    assert found == COUNTED
    assert {one.precision for one in made.values()} == {"fp32"}
    assert [one.kind for one in made.values()] == ["Conv", "Conv", "MatMul", "Gemm"]
    fixed = LAYERS.replace("[N,4,6,8]", "[7,4,6,8]").replace("[N,5]", "[7,5]")
    assert layer_work(model(fixed, WEIGHTS)) == made
    computed = model("(float[1,4,6,8] x) => (float[1,4,4,6] y) { q = Sin(w) y = Conv(x, q) }", WEIGHTS)
    assert layer_work(computed) == {}


def roofline(count, moved, weights, dense, width, kind, where):
    rate = {"int8": where.int8_tops, "fp16": where.fp16_tops if hasattr(where, "fp16_tops") else where.fp16_tflops,
            "fp32": where.fp32_tflops}[kind]  # fmt: skip
    if not dense:
        rate = where.fp32_tflops * {"int8": 4, "fp16": 2, "fp32": 1}[kind]
    cached = moved * width < where.l2_mb * 1e6
    return max(
        2 * count / (rate * 1e12),
        (moved * width / (4 if cached else 1) + weights * width) / (where.bandwidth_gbs * 1e9),
    )


@pytest.mark.parametrize("scale", [1, 400])
def test_the_costs_are_those_of_the_roofline(scale):
    """Once so small that launching counts, once so large that rates do."""
    text = LAYERS.replace("[N,4,6,8]", f"[N,4,{6 * scale},{8 * scale}]")
    made = model(text, WEIGHTS)
    works = layer_work(made)
    costs = model_costs(made, "ort-x86")
    assert (costs.target, costs.float_name, costs.measured) == ("ort-x86", "FP32", False)
    engine = model_costs(made, "trt")
    assert (engine.target, engine.float_name) == ("trt", "FP16")
    orin = find_gpu("Orin Nano 8GB")
    a, b = COEFFICIENTS["orin"]
    for name, work in works.items():
        given = (work.operations // 2, work.activation_bytes, work.constant_bytes, work.dense)
        assert costs.float_s[name] == pytest.approx(roofline(*given, 4, "fp32", CPU) + 2e-6)
        assert costs.int8_s[name] == pytest.approx(roofline(*given, 1, "int8", CPU) + 2e-6)
        assert engine.float_s[name] == pytest.approx(a * roofline(*given, 2, "fp16", orin) + b)
        moved = roofline(0, 3 * work.activation_bytes, 0, False, 1, "fp16", orin)
        assert engine.int8_s[name] == pytest.approx(a * (roofline(*given, 1, "int8", orin) + moved) + 2 * b)
    with pytest.raises(UsageError, match="unknown GPU"):
        model_costs(made, "trt", "no such")


def test_totals_and_anchors():
    costs = Costs("trt", {"a": 4.0, "b": 2.0}, {"a": 1.0, "b": 1.0}, "FP16")
    assert [costs.total(floats) for floats in ((), ("a",), ("b",), ("a", "b"), ("z",))] == [2, 5, 3, 6, 2]
    fixed = costs.anchored(3.0, 4.0)
    assert (fixed.float_s, fixed.int8_s, fixed.measured) == ({"a": 2, "b": 1}, {"a": 2, "b": 2}, True)
    assert costs.measured is False


@pytest.mark.parametrize(
    ("machine", "here"),
    [("x86_64", {"ort-x86", "openvino"}), ("AMD64", {"ort-x86", "openvino"}), ("aarch64", {"ort-arm"}),
     ("arm64", {"ort-arm"}), ("riscv64", set())],
)  # fmt: skip
def test_which_targets_are_this_machine(machine, here, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert {target for target in (*targets.names(), "fp16") if targets.is_here(target)} == here


def test_latencies_are_the_least_of_each_model_in_turns(monkeypatch):
    ticks = iter([0, 5, 10, 12, 20, 23, 30, 39])
    monkeypatch.setattr(
        "edgesmith.optimize.quantize.mixed_precision.latency_model.time.perf_counter", lambda: next(ticks)
    )
    small = model("(float[N,2] x) => (float[N,2] y) { y = Sin(x) }")
    assert latencies([small, small], np.zeros((1, 2), f32), runs=2) == [3, 2]
    assert next(ticks, None) is None


def test_a_budget_is_printed_as_it_is_written():
    assert [str(one) for one in (Budget(35.0), Budget(None, 0.5), Budget(0.0), Budget(32.5, 1.0))] == [
        "35 dB", "0.5 points", "0 dB", "32.5 dB"]  # fmt: skip


def tried(floats=0, seconds=1.0, sqnr=20.0, points=1.0, meets=False):
    return Configuration(tuple("abcdefgh"[:floats]), seconds, sqnr, points, meets)


def test_what_was_tried_is_plain():
    assert tried(2, sqnr=np.inf).to_dict() == {
        "floats": ("a", "b"), "seconds": 1.0, "sqnr_db": None, "points": 1.0, "meets": False, "best": False,
        "layers_in_float": 2,
    }  # fmt: skip
    assert tried(sqnr=20.0).to_dict()["sqnr_db"] == 20.0


def test_the_front_is_of_those_that_none_beats():
    given = [
        tried(seconds=1, sqnr=20),
        tried(seconds=1, sqnr=21),
        tried(seconds=2, sqnr=21),
        tried(seconds=0.5, sqnr=1),
    ]
    assert [one.best for one in _with_front(given)] == [False, True, False, True]
    assert [one.best for one in _with_front([tried(), tried()])] == [False, False]
    assert [one.best for one in _with_front([tried()])] == [True]


def searcher(names, meets, wanted=None):
    """A search over layers a, b, … of which everything was tried already: with n in float it meets or not."""
    samples = Samples(batches(), (None, 3, 16, 16))
    made = _Searcher(small_cnn(), find_target("ort-x86"), samples, QuantSettings.quick(), wanted or Budget(30.0))
    made.names = list(names)
    made.tried = {
        count: tried(count, sqnr=20.0 + count, points=9.0 - count, meets=good) for count, good in enumerate(meets)
    }
    return made


@pytest.mark.parametrize("layers", [1, 2, 3, 6, 7])
def test_bisection_finds_the_fewest_layers(layers):
    names = "abcdefgh"[:layers]
    for fewest in range(layers):
        assert searcher(names, [count >= fewest for count in range(layers)]).fewest() == fewest
    assert searcher(names, [False] * layers).fewest() is None


def test_a_network_without_layers_meets_it_or_not():
    assert searcher("", [True]).fewest() == 0
    assert searcher("", [False]).fewest() is None


NAMED = {
    "none": ("", "abcd", ""),
    "fewer": ("ab", "abcdef", " (a, b)"),
    "most": ("abcd", "abcdef", " (all but e, f)"),
    "half": ("abc", "abcdef", " (a, b, c)"),
    "five": ("abcde", "abcdefghijk", " (a, b, c, d, e)"),
    "six": ("abcdef", "abcdefghijklm", " (a, b, c, d, e and 1 more)"),
    "all but seven": ("abcdefgh", "abcdefghijklmno", " (all but i, j, k, l, m and 2 more)"),
}


@pytest.mark.parametrize("case", NAMED)
def test_layers_are_named_by_whichever_are_fewer(case):
    floats, names, text = NAMED[case]
    assert _named(tuple(floats), list(names)) == text


def test_a_refusal_names_the_closest():
    made = searcher("abc", [False] * 3)
    error = _nothing(made, Budget(30.0))
    assert str(error) == (
        "no configuration reaches 30 dB; got at best 22.0 dB, 7.0 points lost, with 2 of 3 layers in float "
        "(all but c); expected 30 dB; do: ask for 22 dB, or use FP16"
    )
    assert _nothing(made, Budget(None, 0.5)).do == "ask for 7.0 points, or use FP16"


def test_layers_are_ranked_by_noise_for_a_second(monkeypatch):
    """Noise is chosen so that each layer takes 1.2 times as much away for each second as the next one."""
    costs = model_costs(small_cnn(), "ort-x86")
    price = {name: costs.float_s[name] - costs.int8_s[name] for name in costs.float_s}
    assert max(price.values()) > 3 * min(price.values())
    wanted = ["n_c2", "n_c0", "n_output", "n_c4", "n_c1", "n_c5"]
    noise = {name: -10 * np.log10(price[name] * 1e3 / 1.2**place) for place, name in enumerate(wanted)}
    noise |= {"other": 1.0, "n_c3": 1.0}
    monkeypatch.setattr(search, "is_here", lambda target: False)
    monkeypatch.setattr(search, "sensitivity", lambda *given: dict(sorted(noise.items(), key=lambda item: item[1])))
    made = searcher("", [])
    made.settings = dataclasses.replace(made.settings, keep=frozenset({"n_c3"}))
    made.order()
    assert made.costs == costs
    assert made.names == wanted
    assert list(made.made) == [0]
    assert made._convert(0) is made.made[0]
    assert set(made._convert(2).plan.kept_float) == {"n_c3", *made.names[:2]}


def test_measured_latencies_are_what_the_costs_are_set_to(monkeypatch):
    met = []

    def measured(models, image):
        met.append((models, image.shape))
        return [3e-3, 1e-3]

    monkeypatch.setattr(search, "is_here", lambda target: target == "ort-x86")
    monkeypatch.setattr(search, "latencies", measured)
    monkeypatch.setattr(search, "sensitivity", lambda *given: {"n_c0": 20.0})
    made = searcher("", [])
    made.order()
    assert made.costs.total(()) == pytest.approx(1e-3)
    assert made.costs.total(made.costs.float_s) == pytest.approx(3e-3)
    assert [(models[0] is made.model, models[1] is made.made[0].model, shape) for models, shape in met] == [
        (True, True, (1, 3, 16, 16))]  # fmt: skip


JUDGED = {
    "enough dB": (lambda db, points: Budget(db), True),
    "not enough": (lambda db, points: Budget(db + 1e-6), False),
    "few points": (lambda db, points: Budget(None, points), True),
    "more than allowed": (lambda db, points: Budget(None, points - 1e-6), False),
    "no points at all": (lambda db, points: Budget(None, None), False),
}


@pytest.mark.parametrize("case", JUDGED)
def test_a_configuration_meets_its_budget_at_the_edge(case):
    made = searcher("", [])
    made.model = noisy()
    made.costs = model_costs(made.model, "ort-x86")
    made.names = ["n_c4", "n_c0"]
    made.tried = {}
    other = made._convert(1).model
    db = min(compare(made.model, other, made.samples)[0].values())
    reference, answer = (run(one, np.concatenate(batches())).argmax(1) for one in (made.model, other))
    points = search.points_lost(made.model, other, made.samples, PointsJudge())
    assert points == pytest.approx(100 * (reference != answer).mean())
    assert 0 < points < 100
    wanted, meets = JUDGED[case]
    made.budget = wanted(db, points)
    found = made.judge(1)
    assert (found.meets, found.floats, found.sqnr_db) == (meets, ("n_c4",), pytest.approx(db))
    assert (found.points, found.seconds) == (pytest.approx(points), made.costs.total(("n_c4",)))
    assert made.judge(1) is found


def noisy():
    """A network whose INT8 form answers otherwise on some images: all classes nearly alike."""
    made = small_cnn()
    for tensor in made.graph.initializer:
        if tensor.name == "fc_w":
            weight = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight[:1] + 0.02 * weight, "fc_w"))
        if tensor.name == "fc_b":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(10, f32), "fc_b"))
    return made


def test_points_lost_count_labels_for_as_many_images_as_there_are():
    made, worse = noisy(), copied(noisy())
    for tensor in worse.graph.initializer:
        if tensor.name == "fc_w":
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), "fc_w"))
    samples = Samples(batches(48), (None, 3, 16, 16))
    answers = run(made, np.concatenate(batches(48))).argmax(1)
    other = run(worse, np.concatenate(batches(48))).argmax(1)
    labels = np.append(answers, [0] * 16)
    labels[::3] = (labels[::3] + 1) % 10
    expected = 100 * ((answers == labels[:48]).mean() - (other == labels[:48]).mean())
    assert search.points_lost(made, worse, samples, PointsJudge(truths=labels)) == pytest.approx(max(0.0, expected))
    assert expected > 1


@pytest.mark.parametrize(
    ("seconds", "chosen"), [((3e-3, 1e-3), "int8"), ((1e-3, 1e-3), "float"), ((1e-3, 1.5e-3), "float")]
)
def test_the_quicker_of_int8_and_float_is_chosen(seconds, chosen, monkeypatch):
    monkeypatch.setattr(search, "is_here", lambda target: True)
    monkeypatch.setattr(search, "latencies", lambda models, image: seconds)
    samples = Samples(batches(), (None, 3, 16, 16))
    found = within_budget(small_cnn(), find_target("ort-x86"), samples, QuantSettings.quick(), Budget(10.0))
    assert found.measured
    assert len(found.sensitivity_db) == 7
    assert [one.floats for one in found.tried] == [(), tuple(model_costs(small_cnn(), "ort-x86").float_s)]
    last = found.tried[-1]
    assert (last.sqnr_db, last.points, last.meets, last.seconds) == (np.inf, 0.0, True, pytest.approx(seconds[0]))
    if chosen == "int8":
        assert found.reason == (
            "0 of 7 layers in float meet 10 dB: 3.00 times as fast as FP32, all INT8 3.00 (measured here)"
        )
        assert (found.chosen.floats, found.made is not None) == ((), True)
        assert [one.best for one in found.tried] == [True, True]
    else:
        slower = round(100 * (seconds[1] / seconds[0] - 1))
        assert found.reason == f"INT8 is {slower} % slower than FP32 (measured here): FP32 chosen"
        assert (found.chosen is last, found.made) == (True, None)


def test_a_budget_that_cannot_be_met_names_points(monkeypatch):
    monkeypatch.setattr(search, "is_here", lambda target: False)
    samples = Samples(batches(), (None, 3, 16, 16))
    with pytest.raises(CheckFailed, match=r"no configuration reaches 200 dB; got at best .* 6 of 7 layers"):
        within_budget(small_cnn(), find_target("ort-x86"), samples, QuantSettings.quick(), Budget(200.0))


def two_outputs(classes=5):
    return model(f"(float[N,5] x) => (float[N,{classes}] y, float[N,5] z) {{ z = Mul(x, k) y = MatMul(x, m) }}",
                 {"k": f32(2), "m": np.eye(5, dtype=f32)[:, :classes]})  # fmt: skip


def test_two_graphs_are_compared_output_by_output():
    one, two = two_outputs(), two_outputs()
    two.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(f32(2.02), "k"))
    mixed = np.eye(5, dtype=f32)
    mixed[:, 0] += 2
    two.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(mixed, "m"))
    given = [np.random.default_rng(at).normal(0, 1, (7, 5)).astype(f32) for at in range(3)]
    found, same = compare(one, two, given)
    x = np.concatenate(given)
    assert found == {"y": pytest.approx(sqnr_db(x, x @ mixed)), "z": pytest.approx(40, abs=0.01)}
    assert same == (x.argmax(1) == (x @ mixed).argmax(1)).mean()
    assert 0 < same < 1
    assert compare(two_outputs(1), two_outputs(1), given)[1] is None
    assert compare(two_outputs(2), two_outputs(2), given)[1] == 1
    maps = model("(float[N,4,2,2] x) => (float[N,4,2,2] y) { y = Sin(x) }")
    assert compare(maps, maps, [np.zeros((3, 4, 2, 2), f32)]) == ({"y": np.inf}, None)


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (3, 3), (4, 2), (5, 3)])
def test_pixels_are_counted_once_for_all_channels(count, kept):
    quarter = np.zeros((1, 3, 512, 512), f32)  # four of them are twice as many pixels as are compared
    assert 4 * quarter[:, 0].size == 2 * report.COMPARED
    assert len(report.spread([quarter] * count)) == kept


BUDGETS = {
    "35dB": (35.0, None), "35 dB": (35.0, None), " 32.5 db ": (32.5, None), "0.5": (None, 0.5), "2": (None, 2.0),
    None: (None, None),
}  # fmt: skip


@pytest.mark.parametrize("text", BUDGETS)
def test_a_budget_in_decibels_or_points(text):
    assert parse_budget(text) == BUDGETS[text]


@pytest.mark.parametrize("text", ["", "dB", "-1", "0.5%", "35dBm", "1 2"])
def test_a_budget_that_is_neither(text):
    with pytest.raises(UsageError, match="cannot read the budget"):
        parse_budget(text)


def test_settings_of_the_command():
    assert _settings("mse", False, False) == QuantSettings.measured(method="mse", adaround=False)
    assert _settings("mse", True, False) == QuantSettings.measured(method="mse", adaround=True)
    assert _settings(None, False, False).choose == STEPS
    assert _settings("mse", False, True) == QuantSettings.quick("mse")
    with pytest.raises(UsageError, match="--quick skips the step that --adaround asks for; do: give one of the two"):
        _settings("mse", True, True)


def test_random_images_are_normal_and_the_same_each_time(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    made = _random(tmp_path / "m.onnx", 3)
    assert [(one.shape, one.dtype) for one in made] == [((1, 3, 16, 16), f32)] * 3
    assert np.concatenate(made).std() == pytest.approx(1, abs=0.1)
    assert len({one.tobytes() for one in made}) == 3
    assert [one.tolist() for one in made] == [one.tolist() for one in _random(tmp_path / "m.onnx", 3)]
    for size in ("C,4,4", "3,H,4", "3,4,W"):
        onnx.save(model(f"(float[N,{size}] x) => (float[N,{size}] y) {{ y = Relu(x) }}"), tmp_path / "m.onnx")
        with pytest.raises(UsageError, match="the input has dynamic axes; got .*None"):
            _random(tmp_path / "m.onnx", 3)


SPEC = ModelSpec("small", (3, 16, 16), 10, preprocess=Preprocess(crop=(16, 16), resize=0))


def test_the_command_hands_on_all_that_it_is_told(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    onnx.save(small_cnn(metadata={"edgesmith.spec": SPEC.to_json()}), tmp_path / "m.onnx")
    met = []

    def watched(source, output, samples, **options):
        met.append(options)
        return quantize(source, output, samples, **options)

    monkeypatch.setattr("edgesmith.optimize.quantize.quantize", watched)
    monkeypatch.setattr(search, "is_here", lambda target: False)
    words = ["--data", "digits", "--target", "ort-x86", "--images", "64", "--quick", "--method", "mse", "--explain",
             "--cache", str(tmp_path / "cache"), "--plot", str(tmp_path / "noise.svg"), "--budget", "10dB"]  # fmt: skip
    done = CliRunner().invoke(
        quantize_command, [str(tmp_path / "m.onnx"), "-o", str(tmp_path / "q.onnx"), *words, "--json"]
    )
    assert done.exit_code == 0, done.output
    options = met[0]
    assert len(options.pop("points_judge").truths) == 64
    assert sum(len(batch) for batch in options.pop("judges")) == 64
    assert options.pop("timed") is True
    assert options == {
        "target": "ort-x86", "allow_random": False, "settings": QuantSettings.quick("mse"), "budget_db": 10.0,
        "budget_points": None, "cache": tmp_path / "cache", "explain": True,
    }  # fmt: skip
    said = json.loads(done.stdout)
    assert (said["images"], said["judged"], said["held_out"]) == (64, 64, True)
    assert len(said["layer_sqnr_db"]) == 7
    assert "SQNR of the output" in (tmp_path / "noise.svg").read_text()
    assert list((tmp_path / "cache").iterdir())
    for line in (line for line in said["warnings"]):
        assert f"warning: {line}" in done.stderr
    words = ["--allow-random", "--images", "32", "--quick"]
    done = CliRunner().invoke(quantize_command, [str(tmp_path / "m.onnx"), "-o", str(tmp_path / "q.onnx"), *words])
    assert done.exit_code == 0, done.output
    assert (met[1]["points_judge"], met[1]["target"], met[1]["allow_random"]) == (None, "trt", True)
    assert "32 images" in done.stdout
    assert not (tmp_path / "other.svg").exists()


def test_the_report_is_of_the_file_that_was_written(tmp_path):
    for size in ("N", 1):
        onnx.save(small_cnn(batch=size), tmp_path / "m.onnx")
        made = quantize(
            tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="ort-x86", settings=QuantSettings.quick()
        )
        written = onnx.load(tmp_path / "q.onnx")
        dims = [item.type.tensor_type.shape.dim[0] for item in (*written.graph.input, *written.graph.output)]
        assert [dim.dim_param or dim.dim_value for dim in dims] == [size] * 2
        assert (made.bytes_before, made.bytes_after) == tuple(
            (tmp_path / f"{name}.onnx").stat().st_size for name in "mq"
        )
        assert 20 < made.sqnr_db["output"] < 60
        assert made.agreement >= 0.8
        assert (made.target, made.images, made.reason, made.tried, made.layer_sqnr_db) == ("ort-x86", 64, "", (), {})
        assert sum(made.quantised.values()) == len(small_cnn().graph.node) - len(made.folded)
        assert made.quantised["Conv"] == 6
        assert list(made.ranges) == sorted(made.ranges)
        assert all(low <= 0 <= high for low, high in made.ranges.values())
    free = copied(onnx.load(tmp_path / "q.onnx"))
    for item in (*free.graph.input, *free.graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "N"
    quality = compare(small_cnn(), free, batches())
    assert (made.sqnr_db["output"], made.agreement) == (pytest.approx(quality[0]["output"], abs=0.1), quality[1])
    assert made.to_dict()["sqnr_db"] == made.sqnr_db
    assert dataclasses.replace(made, sqnr_db={"y": np.inf}).to_dict()["sqnr_db"] == {"y": None}


def test_limits_are_counted_by_channel(tmp_path):
    made = quantize_small(tmp_path, "ort-x86")
    net = onnx.load(tmp_path / "q.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in net.graph.initializer}
    for name, count in made.limited.items():
        integers = stored[f"{name}/weight_q"]
        largest = np.abs(integers.astype(int)).reshape(len(integers), -1).max(1)
        assert 0 < count <= len(integers)
        assert (largest < 127).sum() >= count - 1
    assert quantize_small(tmp_path, "ort-arm").limited == {}


def quantize_small(folder, target, **options):
    onnx.save(small_cnn(), folder / "m.onnx")
    return quantize(
        folder / "m.onnx", folder / "q.onnx", batches(), target=target, settings=QuantSettings.quick(), **options
    )


def test_the_float_network_is_written_where_nothing_quicker_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "is_here", lambda target: True)
    monkeypatch.setattr(search, "latencies", lambda models, image: [1e-3, 2e-3])
    made = quantize_small(tmp_path, "ort-x86", budget_db=10.0)
    assert (made.quantised, made.ranges, made.folded, made.limited, made.fitted) == ({}, {}, (), {}, {})
    assert (made.sqnr_db, made.agreement) == ({"output": np.inf}, 1.0)
    assert made.reason == "INT8 is 100 % slower than FP32 (measured here): FP32 chosen"
    assert len(made.layer_sqnr_db) == 7
    assert [one["layers_in_float"] for one in made.tried] == [0, 7]
    assert run(tmp_path / "q.onnx", images(4)).tolist() == run(small_cnn(), images(4)).tolist()


def test_explaining_measures_each_layer_alone(tmp_path):
    made = quantize_small(tmp_path, "trt", explain=True)
    assert set(made.layer_sqnr_db) == {"n_c0", "n_c1", "n_c2", "n_c3", "n_c4", "n_c5", "n_output"}
    assert list(made.layer_sqnr_db.values()) == sorted(made.layer_sqnr_db.values())
    assert min(made.layer_sqnr_db.values()) > made.sqnr_db["output"] - 3


def test_a_budget_of_zero_is_a_budget(tmp_path, monkeypatch):
    met = []
    monkeypatch.setattr(post_training, "_search", lambda *given: met.append(given[5]) or 1 / 0)
    for options in ({}, {"budget_db": 0.0}, {"budget_points": 0.0}):
        with pytest.raises(ZeroDivisionError):
            quantize_small(tmp_path, "trt", **options)
    assert [one and (one.least_db, one.points) for one in met] == [None, (0.0, None), (None, 0.0)]


REPORT = QuantReport(
    target="trt", images=64, data_sha256="", warnings=(), quantised={"Conv": 3, "Add": 1}, floats={"n1": "too old"},
    folded=("r0", "r1"), limited={}, ranges={}, reason="", tried=(), tensor_sqnr_db={name: 10.0 + at for at, name in
    enumerate("gfedcba")}, layer_sqnr_db={}, fitted={}, bytes_before=2_000_000, bytes_after=510_000,
    sqnr_db={"y": 31.26, "z": np.inf}, agreement=0.9875, judged=80,
)  # fmt: skip


def said(capsys, made):
    _quantize_tables.int8(made, Path("q.onnx"))
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_what_is_printed_to_the_letter(capsys):
    lines = [line for line in said(capsys, REPORT) if "─" not in line]
    assert lines == [
        "Computed in INT8", "operator nodes", "Conv 3", "Add 1", "Relu/Clip folded into Q/DQ 2",
        "Left in float", "node reason", "n1 too old",
        "Noisiest tensors", "tensor SQNR, dB", "g 10.0", "f 11.0", "e 12.0", "d 13.0", "c 14.0",
        "q.onnx: trt, 64 images, 2.00 -> 0.51 MB; 1 layers left in float",
        "on 80 of the calibration images: y 31.3 dB, z inf dB; "
        "same top-1: cannot tell, no other images were given",
    ]  # fmt: skip


# what judged -> the end of the line
JUDGES = {
    "other images": ({"held_out": True}, "80 images that calibration did not use: y 31.3 dB, z inf dB; "
                     "same top-1: 98.8 % [93.3, 99.8] of 80 images"),
    "few": ({"held_out": True, "judged": 7, "agreement": 1.0}, "same top-1: cannot tell from 7 images"),
    "classes": ({"held_out": True, "classes": ClassLikeness(80, 79, 70, 70, 80, 0.8)}, "same class: 70 of 70 with a "
                "margin above 0.1, 80 of 80 among the five best, 1 of 1 flips near ties; KL divergence 0.01 nats"),
    "no classes": ({"held_out": True, "agreement": None}, "calibration did not use: y 31.3 dB, z inf dB"),
}  # fmt: skip


@pytest.mark.parametrize("case", JUDGES)
def test_an_agreement_says_on_how_many_images_and_how_sure(case, capsys):
    changes, end = JUDGES[case]
    made = dataclasses.replace(REPORT, **changes)
    assert said(capsys, made)[-1].endswith(end)
    assert (made.to_dict()["agreement_interval"] is None) is (case not in ("other images", "classes"))
    assert REPORT.interval is None


def test_with_layers_every_tensor_is_printed(capsys):
    one = tried(2, 1.5e-3, 30.24, 0.5, meets=True).to_dict()
    more = [one, {**tried(0, 1e-3, np.inf, 0.125).to_dict(), "best": True}]
    full = dataclasses.replace(REPORT, layer_sqnr_db={"l1": 20.04}, tried=tuple(more), reason="why")
    lines = [line for line in said(capsys, full) if "─" not in line]
    assert "SQNR of the output with only this layer" in " ".join(lines)
    assert "l1 20.0" in lines
    assert lines.index("g 10.0") + 6 == lines.index("a 16.0")
    at = lines.index("Tried for the accuracy budget")
    assert lines[at + 1 : at + 5] == [
        "layers in float ms SQNR, dB points lost meets it on the Pareto front",
        "0 1.000 float 0.12 no yes", "2 1.500 30.2 0.50 yes", "why",
    ]  # fmt: skip


def test_what_became_half_is_printed(capsys):
    from edgesmith.optimize.fp16.convert import PrecisionReport

    made = PrecisionReport(10, 8, {"n1": "no FP16"}, 2, 0.0, 2_000_000, 1_010_000, {"y": 1.24e-3, "z": 3e-4})
    _quantize_tables.half(made, Path("h.onnx"))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line for line in lines if "─" not in line] == [
        "Stayed FP32", "node reason", "n1 no FP16",
        "h.onnx: 8 of 10 nodes in FP16, 2.00 -> 1.01 MB, largest relative error 1.2e-03",
    ]  # fmt: skip
    _quantize_tables.half(dataclasses.replace(made, kept={}), Path("h.onnx"))
    assert "Stayed" not in capsys.readouterr().out


def drawn(report):
    """Title, names and lengths of the bars of each part of the plot, from the top down."""
    pytest.importorskip("matplotlib")
    figure = _noise_plot.bars(report)
    parts = [
        (axes.get_title(loc="left"), [label.get_text() for label in axes.get_yticklabels()],
         [bar.get_width() for bar in axes.patches], [text.get_text() for text in axes.texts])
        for axes in figure.axes
    ]  # fmt: skip
    _noise_plot.pyplot().close(figure)
    return parts


def test_the_plot_has_the_noisiest_on_top_and_no_bar_below_zero():
    noisy = {"quiet": 40.0, "x" * 60: 10.0, "wrong": -5.0}
    assert drawn(dataclasses.replace(REPORT, tensor_sqnr_db=noisy)) == [
        ("SQNR of each quantised tensor, dB", ["wrong", "x" * 52, "quiet"], [0.0, 10.0, 40.0], ["-5.0", "10.0", "40.0"])
    ]


def test_the_plot_has_a_part_for_what_is_known(tmp_path):
    ((title, names, _, _),) = drawn(REPORT)
    assert (title, len(names)) == ("SQNR of each quantised tensor, dB", len(REPORT.tensor_sqnr_db))
    assert drawn(dataclasses.replace(REPORT, tensor_sqnr_db={})) == [("nothing was quantised", [], [], [])]
    _noise_plot.draw_noise(REPORT, tmp_path / "p.svg")
    assert "made by edgesmith" in (tmp_path / "p.svg").read_text()


def test_warnings_are_printed_line_by_line(capsys):
    _warn(dataclasses.replace(REPORT, warnings=("too dark", "too few")))
    assert capsys.readouterr().err == "warning: too dark\nwarning: too few\n"


@pytest.mark.parametrize("batch", [4, 5, 16])
def test_layers_of_a_fixed_batch_are_measured_on_whole_batches(batch):
    samples = Samples(batches(), (batch, 3, 16, 16))
    found = search.sensitivity(small_cnn(batch=batch), find_target("ort-x86"), samples)
    free = search.sensitivity(small_cnn(), find_target("ort-x86"), Samples(batches(), (None, 3, 16, 16)))
    assert set(found) == set(free)
    assert all(abs(found[name] - free[name]) < 6 for name in free)
