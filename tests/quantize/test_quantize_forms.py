"""Each form of Q/DQ is what its target needs, computes what the float graph does, and is exact on any x86 CPU."""

import platform
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import quantize
from support.quant_graphs import batches, images, run, small_cnn

TYPES = {"trt": np.int8, "ort-x86": np.uint8, "ort-arm": np.int8, "openvino": np.uint8}
TARGETS = tuple(TYPES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    onnx.save(small_cnn(), folder / "float.onnx")
    reports = {
        name: quantize(folder / "float.onnx", folder / f"{name}.onnx", batches(), target=name) for name in TARGETS
    }
    return folder, reports


def pairs(net):
    """Yield (Q or DQ node, scale, zero point, whether its input is a constant)."""
    for node in net.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield node, net.arrays[node.input[1]], net.arrays[node.input[2]], node.input[0] in net.arrays


@pytest.mark.parametrize("target", TARGETS)
def test_scales_have_the_shapes_that_runtimes_take(made, target):
    net = ProtoGraph(onnx.load(made[0] / f"{target}.onnx"))
    for node, scale, zero, constant in pairs(net):
        assert (scale > 0).all()
        assert np.isfinite(scale).all()
        assert scale.shape == zero.shape == ((len(net.arrays[node.input[0]]),) if constant else ())
        assert zero.dtype == TYPES[target] or constant


def test_the_trt_form(made):
    net = ProtoGraph(onnx.load(made[0] / "trt.onnx"))
    assert not any(zero.any() for _, _, zero, _ in pairs(net))
    assert {zero.dtype for _, _, zero, _ in pairs(net)} == {np.dtype(np.int8)}
    convs = [node for node in net.nodes if node.op_type in ("Conv", "Gemm")]
    assert len(convs) == 7
    for node in convs:
        assert {net.producer[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}
        assert net.arrays[node.input[2]].dtype == np.float32
    assert sum(array.dtype == np.int8 and array.ndim > 1 for array in net.arrays.values()) == 7


def test_the_trt_form_quantises_the_residual_and_not_the_branch_it_fuses_with(made):
    net = ProtoGraph(onnx.load(made[0] / "trt.onnx"))
    (add,) = (node for node in net.nodes if node.op_type == "Add" and node.input[1] in net.producer)
    assert [net.producer[name].op_type for name in add.input] == ["DequantizeLinear", "Conv"]


NATIVE = "ort-arm" if platform.machine() in ("aarch64", "arm64") else "ort-x86"


@pytest.mark.parametrize("target", [NATIVE])
def test_onnxruntime_computes_its_forms_in_integers_throughout(made, tmp_path, target):
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "seen.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(made[0] / f"{target}.onnx"), options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node)
    assert counts["QLinearConv"] == 6
    assert counts["QGemm"] == counts["QLinearAdd"] == counts["QLinearConcat"] == 1
    assert not counts.keys() & {"Conv", "Gemm", "Relu", "Clip"}


@pytest.mark.parametrize("target", ["ort-x86", "ort-arm"])
def test_relus_become_the_range_of_the_quantiser(made, target):
    report = made[1][target]
    assert sorted(report.folded) == ["n_r0", "n_r1", "n_r2", "n_r4", "n_r5"]
    for name in ("r1", "r2"):
        low, high = report.ranges[name]
        assert low == 0
        assert 0 < high <= 6 * (1 + 1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_it_computes_what_the_float_graph_does(made, target):
    fresh = images(64, seed=1)
    reference = run(made[0] / "float.onnx", fresh)
    assert sqnr_db(reference, run(made[0] / f"{target}.onnx", fresh)) > 25
    assert made[1][target].sqnr_db["output"] > 25
    assert made[1][target].agreement > 0.9


def test_each_tensor_says_how_noisy_it_is(made):
    noise = made[1]["ort-x86"].tensor_sqnr_db
    assert {"input", "r1", "r2", "a0"} <= noise.keys()
    assert all(30 < value < 60 for value in noise.values())


def test_the_sqnr_rejects_a_wrong_answer(made):
    reference = run(made[0] / "float.onnx", images(64, seed=1))
    for wrong in (2 * reference, -reference, 0 * reference, np.roll(reference, 1, axis=1)):
        assert sqnr_db(reference, wrong) < 6.1
    assert np.isnan(sqnr_db(reference, reference * np.nan))


def test_the_arm_form_is_the_x86_form_shifted_by_128_without_its_limit(made):
    """S8 with a zero point holds the same values as U8; weights need no limit where 32 bits are added up."""
    assert made[1]["ort-arm"].limited == {}
    net = ProtoGraph(onnx.load(made[0] / "ort-arm.onnx"))
    assert {zero.dtype for _, _, zero, _ in pairs(net)} == {np.dtype(np.int8), np.dtype(np.int32)}
    assert any(zero.any() for _, _, zero, constant in pairs(net) if not constant)
    for name, (low, high) in made[1]["ort-arm"].ranges.items():
        assert (low, high) == pytest.approx(made[1]["ort-x86"].ranges[name], rel=0.2, abs=0.05), name


def test_openvino_computes_its_form_in_integers(made):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(made[0] / "openvino.onnx"), "CPU", {"INFERENCE_NUM_THREADS": 1})
    kinds = [
        (node.get_rt_info()["layerType"].get(), node.get_rt_info()["runtimePrecision"].get())
        for node in compiled.get_runtime_model().get_ordered_ops()
    ]
    layers = [precision for kind, precision in kinds if kind in ("Convolution", "FullyConnected")]
    assert len(layers) == 7
    assert set(layers) <= {"u8", "i8"}
    fresh = images(16, seed=2)
    answer = compiled.create_infer_request().infer({0: fresh})[0]
    assert sqnr_db(run(made[0] / "openvino.onnx", fresh), answer) > 20


def test_optimised_kernels_answer_as_the_graph_is_written(made):
    fresh = images(64, seed=2)
    exact = run(made[0] / "ort-x86.onnx", fresh)
    step = np.abs(exact).max() / 100
    assert np.abs(run(made[0] / "ort-x86.onnx", fresh, optimise=True) - exact).max() < step


def test_the_same_bytes_from_batches_of_any_size_and_from_a_generator(made, tmp_path):
    for name, given_batches in {"7": batches(batch=7), "generator": iter(batches())}.items():
        quantize(made[0] / "float.onnx", tmp_path / f"{name}.onnx", given_batches, target="ort-x86")
        assert (tmp_path / f"{name}.onnx").read_bytes() == (made[0] / "ort-x86.onnx").read_bytes()


def test_a_fixed_batch_is_calibrated_too(made, tmp_path):
    onnx.save(small_cnn(batch=1), tmp_path / "one.onnx")
    report = quantize(tmp_path / "one.onnx", tmp_path / "q.onnx", batches(), target="ort-x86")
    assert report.images == 64
    assert report.ranges == made[1]["ort-x86"].ranges


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([(8, 6, 1, 1), (4, 3, 3, 3), (5, 7), (6, 2, 3, 3)]))
def test_no_pair_of_products_leaves_16_bits(seed, shape):
    from edgesmith.optimize.quantize.weights.int16_saturation import largest_integers
    from edgesmith.optimize.quantize.weights.quantize_weights import quantise, scales

    draw = np.random.default_rng(seed)
    groups = 3 if shape[0] == 6 else 1
    weight = draw.standard_normal(shape) ** 3
    peaks = draw.integers(0, 256, shape[1] * groups).astype(float)
    limit = largest_integers(weight, groups, peaks)
    assert ((limit >= 1) & (limit <= 127)).all()
    packed = quantise(weight, scales(weight, 0, limit), 0).integers.astype(int)
    for channel, row in enumerate(packed):
        group = channel // (len(packed) // groups)
        inputs = peaks[group * shape[1] : (group + 1) * shape[1]]
        flat = np.moveaxis(row, 0, -1).reshape(-1)
        products = flat * np.tile(inputs, flat.size // len(inputs))
        products = np.append(products, 0)[: 2 * ((products.size + 1) // 2)].reshape(-1, 2)
        assert np.maximum(products, 0).sum(1).max() <= 32767
        assert np.minimum(products, 0).sum(1).min() >= -32768


def test_a_pair_that_would_saturate_is_found_and_a_depthwise_kernel_is_left_alone():
    from edgesmith.optimize.quantize.weights.int16_saturation import largest_integers

    full = np.full(4, 255.0)
    assert largest_integers(np.ones((1, 4, 1, 1)), 1, full).tolist() == [63]
    assert largest_integers(np.array([[[[1.0]], [[-1.0]], [[1.0]], [[-1.0]]]]), 1, full).tolist() == [127]
    assert largest_integers(np.ones((4, 1, 3, 3)), 4, full).tolist() == [127] * 4
