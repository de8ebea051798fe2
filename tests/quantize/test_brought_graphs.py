"""Graphs as people bring them: the batch is not axis 0, channels are not axis 1, inputs are several or no floats."""

import pkgutil

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.axis_roles import AxisRoles, axis_roles, grown
from edgesmith.optimize.calibration.batching import free_graph
from edgesmith.optimize.calibration.inputs import input_layout
from edgesmith.optimize.calibration.ort_runs import answers, session
from edgesmith.optimize.calibration.samples import AugmentedSamples, Samples, repeatable
from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.fp16.convert import to_fp16
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.layer_queries import (
    channel_axes,
    output_channels,
    output_first,
    row_bias,
    weight_axis,
)
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.targets import find_target
from edgesmith.runtime.errors import DataError, UsageError
from support.graphs import model
from support.quant_graphs import images, small_cnn

f32, i64 = np.float32, lambda *values: np.array(values, np.int64)
COUNT = 36
IMAGES = images(COUNT, size=16)
CONV = "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b) r = Relu(c)"
W = {"w": (8, 3, 3, 3), "b": (8,), "v": (6, 8, 3, 3), "m": (8, 12), "n": (12, 8), "o": (8, 5), "h": (5,)}


def small(weights):
    rng = np.random.default_rng(3)
    return {name: (rng.standard_normal(value) / np.sqrt(np.prod(value[1:]) or 1)).astype(f32)
            if isinstance(value, tuple) else value for name, value in weights.items()}  # fmt: skip


def each(**inputs):
    """Return samples one by one: an array for one input, dicts for several."""
    batches = [{name: value[at : at + 1] for name, value in inputs.items()} for at in range(COUNT)]
    return batches if len(inputs) > 1 else [next(iter(batch.values())) for batch in batches]


BYTES = (40 * IMAGES + 128).clip(0, 255).astype(np.uint8)
SCALE = np.linspace(0.5, 2, 2 * COUNT, dtype=f32).reshape(COUNT, 2)
# situation -> graph, weights besides W, samples, targets, the least SQNR of an output
CASES = {
    "time first, the batch folded into rows": (
        f"(float[1,3,16,16] x) => (float[8,1,5] y) {{ {CONV} p = MaxPool<kernel_shape=[8,1]>(c) s = Squeeze(p, two)"
        " t = Transpose<perm=[2,0,1]>(s) q = Reshape(t, rows) g = Gemm(q, o, h) y = Reshape(g, back) }",
        {"two": i64(2), "rows": i64(8, 8), "back": i64(8, 1, 5)}, each(x=IMAGES), ("ort-x86", "trt"), 30,
    ),
    "time first, a free batch": (
        f"(float[n,3,16,16] x) => (float[8,n,5] y) {{ {CONV} p = MaxPool<kernel_shape=[8,1]>(c) s = Squeeze(p, two)"
        " t = Transpose<perm=[2,0,1]>(s) g = MatMul(t, o) y = Add(g, h) }",
        {"two": i64(2)}, each(x=IMAGES), ("ort-x86",), 30,
    ),
    "windows in the first axis": (
        f"(float[1,3,16,16] x) => (float[1,6,8,8] y) {{ {CONV} a = Reshape(r, cut) t = Transpose<perm=[0,2,4,3,5,1]>(a)"
        " k = Reshape(t, tokens) g = MatMul(k, m) u = Gelu(g) e = MatMul(u, n) l = Add(e, k) z = Reshape(l, grid)"
        " j = Transpose<perm=[0,5,1,3,2,4]>(z) i = Reshape(j, whole) y = Conv<pads=[1,1,1,1]>(i, v) }",
        {"cut": i64(1, 8, 2, 4, 2, 4), "tokens": i64(4, 16, 8), "grid": i64(1, 2, 2, 4, 4, 8),
         "whole": i64(1, 8, 8, 8)}, each(x=IMAGES), ("ort-x86", "openvino"), 25,
    ),
    "frames in the first axis": (
        f"(float[1,2,3,16,16] f) => (float[1,5] y) {{ x = Reshape(f, join) {CONV} p = GlobalAveragePool(r)"
        " k = Reshape(p, split) a = ReduceMean<keepdims=0>(k, one) y = Gemm(a, o, h) }",
        {"join": i64(2, 3, 16, 16), "split": i64(1, 2, 8), "one": i64(1)},
        each(f=np.stack([IMAGES, IMAGES[::-1]], 1)), ("ort-x86",), 25,
    ),
    "tokens": (
        f"(float[n,3,16,16] x) => (float[n,64,5] y) {{ {CONV} f = Reshape(r, flat) t = Transpose<perm=[0,2,1]>(f)"
        " g = MatMul(t, m) a = Relu(g) e = MatMul(a, n) s = Add(e, t) y = MatMul(s, o) }",
        {"flat": i64(0, 8, -1)}, each(x=IMAGES), ("ort-x86", "trt"), 25,
    ),
    "an image and a scale": (
        f"(float[1,2] k, float[1,3,16,16] x) => (float[1,6,8,8] y) {{ {CONV} d = Conv<pads=[1,1,1,1]>(r, v)"
        " s = ReduceMax<keepdims=1>(k, one) u = Reshape(s, point) y = Div(d, u) }",
        {"one": i64(1), "point": i64(1, 1, 1, 1)}, each(k=SCALE, x=IMAGES), ("ort-x86", "trt"), 30,
    ),
    "two images": (
        f"(float[n,3,16,16] x, float[n,3,16,16] z) => (float[n,8,1,1] y) {{ {CONV} p = GlobalAveragePool(r)"
        " d = Conv<pads=[1,1,1,1], strides=[2,2]>(z, w, b) s = Relu(d) q = GlobalAveragePool(s) y = Mul(p, q) }",
        {}, each(x=IMAGES, z=IMAGES[::-1].copy()), ("ort-x86",), 30,
    ),
    "anchors that all share": (
        f"(float[1,3,16,16] x, float[4] a, int64 t) => (float[1,6,8,8] y, float[4] e, int64 u) {{ {CONV}"
        " y = Conv<pads=[1,1,1,1]>(r, v) e = Exp(a) u = Neg(t) }",
        {}, [{"x": IMAGES[at : at + 1], "a": f32([0, 1, 2, 3]), "t": np.int64(7)} for at in range(COUNT)],
        ("ort-x86",), 30,
    ),
    "a camera's bytes": (
        f"(uint8[1,3,16,16] i) => (float[1,6,8,8] y) {{ f = Cast<to=1>(i) x = Div(f, most) {CONV}"
        " y = Conv<pads=[1,1,1,1]>(r, v) }",
        {"most": f32(255)}, each(i=BYTES), ("ort-x86", "trt"), 30,
    ),
    "a camera's bytes, channels last": (
        f"(uint8[n,16,16,3] i) => (float[n,6,8,8] y) {{ t = Transpose<perm=[0,3,1,2]>(i) f = Cast<to=1>(t)"
        f" x = Div(f, most) {CONV} y = Conv<pads=[1,1,1,1]>(r, v) }}",
        {"most": f32(255)}, each(i=np.ascontiguousarray(BYTES.transpose(0, 2, 3, 1))), ("ort-x86",), 30,
    ),
    "floats, channels last": (
        f"(float[1,16,16,3] i) => (float[1,6,8,8] y) {{ x = Transpose<perm=[0,3,1,2]>(i) {CONV}"
        " y = Conv<pads=[1,1,1,1]>(r, v) }",
        {}, each(i=np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))), ("openvino",), 30,
    ),
    "the best places behind the last layer": (
        f"(float[1,3,16,16] x) => (float[20] y, int64[20] k) {{ {CONV} d = Conv<pads=[1,1,1,1]>(r, v)"
        " f = Reshape(d, all) y, k = TopK(f, most) g = Gather<axis=0>(f, k) }",
        {"all": i64(-1), "most": i64(20)}, each(x=IMAGES), ("ort-x86", "trt"), 20,
    ),
    "indices of a pool": (
        f"(float[1,3,16,16] x) => (float[1,6,4,4] y, int64[1,8,4,4] k) {{ {CONV}"
        " p, k = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) y = Conv<pads=[1,1,1,1]>(p, v) }",
        {}, each(x=IMAGES), ("ort-x86",), 30,
    ),
    "a transposed convolution": (
        f"(float[1,3,16,16] x) => (float[1,6,16,16] y) {{ {CONV} u = ConvTranspose<strides=[2,2]>(r, up) a = Relu(u)"
        " y = Conv<pads=[1,1,1,1]>(a, v) }",
        {"up": (8, 8, 2, 2)}, each(x=IMAGES), ("ort-x86", "trt", "openvino"), 30,
    ),
    "matrices in every way": (
        f"(float[1,3,16,16] x) => (float[1,5] y, float[5,1] z) {{ {CONV} p = GlobalAveragePool(r) q = Flatten(p)"
        " e = Gemm<transB=1>(q, t, row) d = Relu(e) y = MatMul(d, o)"
        " k = Transpose<perm=[1,0]>(d) z = Gemm<transA=1, transB=1>(o, d, column) }",
        {"t": (8, 8), "row": (1, 8), "column": (5, 1)}, each(x=IMAGES), ("ort-x86", "trt"), 25,
    ),
    "numbers of words": (
        "(int64[n,6] i) => (float[n,6,5] y, float[n,8,6,1] z) { e = Gather(t, i) g = MatMul(e, m) a = Relu(g)"
        " d = MatMul(a, n) y = MatMul(d, o) s = Transpose<perm=[0,2,1]>(d) q = Unsqueeze(s, end) z = Conv(q, k) }",
        {"t": (20, 8), "k": (8, 8, 1, 1), "end": i64(3)},
        each(i=np.random.default_rng(0).integers(0, 20, (COUNT, 6))), ("ort-x86", "trt"), 22,
    ),
    "one image without a batch": (
        f"(float[3,16,16] i) => (float[1,6,8,8] y) {{ x = Unsqueeze(i, first) {CONV} y = Conv<pads=[1,1,1,1]>(r, v) }}",
        {"first": i64(0)}, list(IMAGES), ("ort-x86", "trt"), 30,
    ),
    "steps of time first, as many as there are": (
        "(float[t,n,8] i) => (float[t,n,5] y) { g = MatMul(i, m) a = Relu(g) y = MatMul(a, l) }",
        {"l": (12, 5)}, [IMAGES[at, :, : 5 + at % 3, :8].swapaxes(0, 1).copy() for at in range(COUNT)],
        ("ort-x86", "trt"), 25,
    ),
    "a sound": (
        "(float[1,3,16] x) => (float[1,5,16] y) { c = Conv<pads=[1,1]>(x, k) a = HardSwish(c) d = Conv(a, l)"
        " s = HardSwish(d) y = Conv(s, u) }",
        {"k": (8, 3, 3), "l": (6, 8, 1), "u": (5, 6, 1)}, each(x=IMAGES[:, :, 0]), ("ort-x86", "trt", "openvino"), 30,
    ),
    "a body that reads what a layer writes": (
        f"(float[1,3,16,16] x) => (float[1,6,8,8] y) {{ {CONV} s = ReduceMean<keepdims=0>(x) h0 = Greater(s, zero)"
        " i = If<then_branch = g1 () => (float[1,8,8,8] t) { t = Add(r, r) },"
        " else_branch = g2 () => (float[1,8,8,8] e) { e = Neg(c) }>(h0) y = Conv<pads=[1,1,1,1]>(i, v) }",
        {"zero": f32(0)}, each(x=IMAGES), ("ort-x86",), 25,
    ),
}  # fmt: skip


def made(case):
    text, weights, samples, targets, least = CASES[case]
    graph = model(text, small(W | weights), opset=20)
    used = {name for node in graph.graph.node for name in node.input}
    used |= {name for node in graph.graph.node for item in node.attribute for one in item.g.node for name in one.input}
    for tensor in [one for one in graph.graph.initializer if one.name not in used]:
        graph.graph.initializer.remove(tensor)
    return graph, samples, targets, least


def outputs(graph, samples):
    run = session(graph)
    feeds = [one if isinstance(one, dict) else {run.get_inputs()[0].name: one} for one in samples]
    feeds = [{name: np.asarray(value) for name, value in feed.items()} for feed in feeds]
    return [answers(run, feed) for feed in feeds]


@pytest.mark.parametrize("case", CASES)
def test_int8_answers_as_the_float_graph_does(case, tmp_path):
    graph, samples, targets, least = made(case)
    onnx.save(graph, tmp_path / "m.onnx")
    expected = outputs(graph, samples[:8])
    for target in targets:
        report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", samples, target=target)
        assert not [text for text in report.warnings if "could not" in text]
        assert not [why for why in report.floats.values() if "cannot" in why]
        assert sum(report.quantised.get(name, 0) for name in ("Conv", "MatMul")) >= 1
        assert report.images == COUNT
        quantised = onnx.load(tmp_path / "q.onnx")
        answered = outputs(quantised, samples[:8])
        for at, item in enumerate(graph.graph.output):
            if item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                one, two = (np.concatenate([run[at].ravel() for run in runs]) for runs in (expected, answered))
                assert sqnr_db(one, two) > least, (target, item.name)
        for one, two in zip(graph.graph.input, quantised.graph.input, strict=True):
            assert one == two


@pytest.mark.parametrize("case", CASES)
def test_fp16_answers_as_the_float_graph_does(case, tmp_path):
    graph, samples, _, _ = made(case)
    onnx.save(graph, tmp_path / "m.onnx")
    report = to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", samples[:4])
    assert max(report.relative_error.values()) < 5e-3
    assert report.half >= 2


ROLES = {"time first, a free batch": {"t": 1, "c": 0}, "tokens": {"f": 0, "t": 0}, "windows in the first axis": None,
         "a camera's bytes": {"x": 0, "r": 0}, "two images": {"c": 0, "q": 0}}  # fmt: skip


@pytest.mark.parametrize("case", ROLES)
def test_each_tensors_batch_axis_is_known_or_nothing_is_joined(case):
    graph, samples, _, _ = made(case)
    free = free_graph(graph, samples[0], input_layout(graph))
    if ROLES[case] is None:
        assert (free.size, free.roles) == (1, AxisRoles())
        return
    assert free.size is None
    assert {name: free.roles.batch_axes[name] for name in ROLES[case]} == ROLES[case]
    together = free.layout.join(samples[:3])
    whole, apart = outputs(free.model, [together])[0], outputs(graph, samples[:3])
    for at, item in enumerate(graph.graph.output):
        expected = np.concatenate([run[at] for run in apart], axis=free.roles.batch_axes[item.name])
        np.testing.assert_allclose(whole[at], expected, rtol=1e-4, atol=1e-5)


MIXED = {
    "a mean over the batch": "a = ReduceMean<keepdims=1>(r, zero) y = Sub(r, a)",
    "samples in another order": "t = Transpose<perm=[1,0,2,3]>(r) y = Reshape(t, like)",
}


@pytest.mark.parametrize("case", MIXED)
def test_a_free_batch_that_mixes_samples_is_run_one_by_one(case):
    text = f"(float[n,3,16,16] x) => (float[n,8,8,8] y) {{ {CONV} {MIXED[case]} }}"
    graph = model(text, small(W) | {"zero": i64(0), "like": i64(-1, 8, 8, 8)}, opset=20)
    layout = input_layout(graph)
    assert free_graph(graph, IMAGES[:1], layout).size == 1
    assert axis_roles(graph, graph, [IMAGES[:1], IMAGES[1:2], IMAGES[2:3]], layout) is None


@pytest.mark.parametrize(
    ("one", "many", "axis"),
    [((1, 4), (3, 4), 0), ((7, 1, 4), (7, 3, 4), 1), ((4,), (4,), None), ((1, 2), (3, 6), None), ((1,), (2,), None),
     ((16, 4), (48, 4), 0), ((1,), (1, 3), None)],
)  # fmt: skip
def test_the_axis_that_grows_with_the_samples(one, many, axis):
    assert grown(one, many, 3) == axis


LAYERS = {
    "Conv": ("y = Conv<group=2>(x, k)", (8, 4, 3, 3), "(float[1,8,6,6] x)", (0, 8, (8, 4, 3, 3), 1)),
    "ConvTranspose": ("y = ConvTranspose(x, k)", (8, 5, 3, 2), "(float[1,8,6,6] x)", (1, 5, (5, 8, 3, 2), 1)),
    "in groups": ("y = ConvTranspose<group=2>(x, k)", (8, 5, 3, 2), "(float[1,8,6,6] x)", (None, 10, (10, 4, 3, 2), 1)),
    "Gemm": ("y = Gemm(x, k)", (8, 5), "(float[1,8] x)", (1, 5, (5, 8), -1)),
    "Gemm turned": ("y = Gemm<transB=1>(x, k)", (5, 8), "(float[1,8] x)", (0, 5, (5, 8), -1)),
    "MatMul": ("y = MatMul(x, k)", (8, 5), "(float[1,4,8] x)", (1, 5, (5, 8), -1)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_where_the_channels_of_a_layer_stand(case):
    text, shape, head, (axis, count, first, channel) = LAYERS[case]
    net = ProtoGraph(model(f"{head} => (float y) {{ {text} }}", {"k": shape}))
    node = net.nodes[0]
    assert (weight_axis(node), output_channels(net, node)) == (axis, count)
    assert output_first(net, node).shape == first
    assert channel_axes([node]) == {"x": channel, "y": channel}
    (other,) = ProtoGraph(model("(float[1,8] x) => (float z) { z = MatMul(x, k) }", {"k": (8, 5)})).nodes
    assert channel_axes([node, other])["x"] == (channel if channel == -1 else None)


def test_the_weights_of_each_output_are_those_that_it_is_made_of():
    net = ProtoGraph(model("(float[1,4,1,1] x) => (float y) { y = ConvTranspose<group=2>(x, k) }", {"k": (4, 3, 1, 1)}))
    image = np.random.default_rng(0).standard_normal((1, 4, 1, 1)).astype(f32)
    weight = output_first(net, net.nodes[0])[:, :, 0, 0]
    halves = image.reshape(2, 2)
    expected = [weight[at] @ halves[at // 3] for at in range(6)]
    assert outputs(net.model, [image])[0][0].ravel().tolist() == pytest.approx(expected, abs=1e-5)


BIASES = [((5,), True), ((1, 5), True), ((1,), True), ((3, 5), False), ((3, 1), False)]


@pytest.mark.parametrize(("shape", "fits"), BIASES)
def test_a_bias_is_one_value_for_each_channel(shape, fits):
    net = ProtoGraph(model("(float[3,8] x) => (float[3,5] y) { y = Gemm(x, k, b) }", {"k": (8, 5), "b": shape}))
    assert row_bias(net, net.nodes[0]) == fits
    kept = place(net, find_target("trt")).kept_float
    assert kept == ({} if fits else {"Gemm0": "its bias differs from row to row"})


WRONG = {
    "not by name": (IMAGES[:1], "give a dict with an array for each input"),
    "one is missing": ({"x": IMAGES[:1]}, "give a dict"),
    "another type": ({"x": IMAGES[:1], "k": SCALE[:1].astype("f8")}, "give a dict"),
    "another size": ({"x": IMAGES[:1], "k": SCALE[:1, :1]}, "give a dict"),
    "more of one": ({"x": IMAGES[:2], "k": SCALE[:1]}, "give a dict"),
    "NaN": ({"x": IMAGES[:1], "k": f32([[np.nan, 1]])}, "NaN"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_batch_that_is_not_the_graphs_inputs_is_refused(case):
    graph = made("an image and a scale")[0]
    batch, text = WRONG[case]
    with pytest.raises(DataError, match=text):
        list(Samples([batch], input_layout(graph)))


def test_what_is_no_image_gets_no_noise():
    graph, samples, _, _ = made("an image and a scale")
    clean, noisy = list(AugmentedSamples(Samples(samples[:1], input_layout(graph)), 0.25))
    assert np.array_equal(clean["k"], noisy["k"])
    assert not np.array_equal(clean["x"], noisy["x"])
    graph, samples, _, _ = made("a camera's bytes")
    assert len(list(AugmentedSamples(Samples(samples[:1], input_layout(graph)), 0.25))) == 1


def test_samples_that_share_different_things_are_not_joined():
    graph = model("(float[n,3,16,16] x, float[4] a) => (float[n,3,16,16] y) { y = Relu(x) }")
    parts = [{"x": IMAGES[at : at + 1], "a": np.full(4, at // 3, f32)} for at in range(9)]
    joined = list(Samples(parts, input_layout(graph)))
    assert [(len(one["x"]), one["a"][0]) for one in joined] == [(3, 0), (3, 1), (3, 2)]
    stacked = {"x": IMAGES[:9], "a": np.repeat(np.arange(3, dtype=f32), 3)[:, None].repeat(4, 1)}
    again = list(Samples([stacked], input_layout(graph)))
    assert [(one["x"].tobytes(), one["a"].tobytes()) for one in again] == [
        (one["x"].tobytes(), one["a"].tobytes()) for one in joined
    ]


def test_batches_by_name_are_spooled():
    batches = [{"x": IMAGES[:2], "t": np.int64(at)} for at in range(3)]
    with repeatable(iter(batches)) as spool:
        for _ in range(2):
            for one, two in zip(batches, spool, strict=True):
                assert {name: (value.tobytes(), np.shape(value)) for name, value in one.items()} == {
                    name: (value.tobytes(), value.shape) for name, value in two.items()
                }


STEPS = {
    "edgesmith.optimize.quantize.qdq.insert._weights": "quantise its weights",
    "edgesmith.optimize.quantize.weights.reconstruction.LayerReconstruction._mend": "fit its weights",
    "edgesmith.optimize.quantize.weights.reconstruction.LayerReconstruction._correct": "correct its bias",
    "edgesmith.optimize.quantize.pipeline.output_first": "limit its weights",
}


CLEAN = QuantSettings(noise=0.0)


def two_layers():
    text = f"(float[n,3,16,16] x) => (float[n,6,8,8] y) {{ {CONV} y = Conv<pads=[1,1,1,1]>(r, v) }}"
    return model(text, {name: value for name, value in small(W).items() if name in "wbv"})


@pytest.mark.parametrize("step", STEPS)
def test_one_layer_that_fails_goes_to_float_with_its_reason(step, tmp_path, monkeypatch):
    path, _, name = step.rpartition(".")
    owner = pkgutil.resolve_name(path)
    real = getattr(owner, name)

    def planted(*given):
        if any(getattr(one, "name", "") == "Conv2" for one in given):
            raise IndexError("boolean index did not match")
        return real(*given)

    monkeypatch.setattr(owner, name, planted)
    onnx.save(two_layers(), tmp_path / "m.onnx")
    report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", [IMAGES], target="ort-x86", settings=CLEAN)
    assert report.floats == {"Conv2": f"cannot {STEPS[step]}: IndexError: boolean index did not match"}
    assert report.quantised["Conv"] == 1
    assert report.warnings == ()
    assert min(report.sqnr_db.values()) > 25


WHOLE = {"equalise": "could not equalise channels", "images_that_fit": "could not refine layer by layer"}


@pytest.mark.parametrize("step", WHOLE)
def test_a_step_over_the_whole_graph_that_fails_is_left_out_and_said(step, tmp_path, monkeypatch):
    def planted(*_, **__):
        raise ValueError("operands could not be broadcast")

    monkeypatch.setattr(f"edgesmith.optimize.quantize.pipeline.{step}", planted)
    onnx.save(two_layers(), tmp_path / "m.onnx")
    report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", [IMAGES], target="ort-x86", settings=CLEAN)
    assert report.warnings == (f"{WHOLE[step]}, so that was left out: ValueError: operands could not be broadcast",)
    assert report.floats == {}


KEPT = {"n_c3": ["n_c3"], "Gemm": ["n_output"], "n_c[12]": ["n_c1", "n_c2"], "*Pool": []}


@pytest.mark.parametrize("keep", KEPT)
def test_layers_stay_in_float_by_name_type_and_pattern(keep, tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    settings = QuantSettings(equalize=None, refine=False, noise=0.0, keep=frozenset({keep}))
    report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", [IMAGES], target="ort-x86", settings=settings)
    layers = [name for name in report.floats if name in ("n_c1", "n_c2", "n_c3", "n_output")]
    assert layers == KEPT[keep]
    assert set(report.floats.values()) == {"kept float on request"}
    assert f"{len(report.floats)} layers left in float" in report.headline()


def test_a_layer_that_is_not_there_cannot_be_kept(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    settings = QuantSettings(keep=frozenset({"n_c33"}))
    with pytest.raises(UsageError, match="no node is meant by 'n_c33'.*n_c3"):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", [IMAGES], target="ort-x86", settings=settings)
    assert not (tmp_path / "q.onnx").exists()
