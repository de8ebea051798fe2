"""FP16 is judged as FP16 computes: every half value rounded, whatever this machine's kernels keep."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli.quantize import quantize_command
from edgesmith.optimize.fp16.cast_graph import cast_graph
from edgesmith.optimize.fp16.convert import FIRST, relative_error, to_fp16
from edgesmith.optimize.fp16.simulate import simulate_half
from edgesmith.optimize.quantize import QuantSettings, quantize
from support.quant_graphs import Graph, batches, images, run, small_cnn

f16, f32 = np.float16, np.float32
SHAPE = ("N", 3, 16, 16)


def half(values):
    return np.asarray(values, f16).astype(f32)


def offset(size):
    """(x + size) - size: constants that FP16 holds exactly, and a sum that loses digits there."""
    graph = Graph()
    graph.node("Add", ["input", graph.array("up", size)], "a0")
    graph.node("Sub", ["a0", "up"], "output")
    return graph.model({"output": ["N", 3, 16, 16]}, SHAPE)


@pytest.mark.parametrize("optimise", [False, True])
def test_every_step_is_rounded(optimise):
    graph = Graph()
    graph.node("Sigmoid", ["input"], "s0")
    graph.node("MaxPool", ["s0"], "p0", kernel_shape=[2, 2], strides=[2, 2])
    graph.node("Mul", ["p0", graph.array("third", 1 / 3)], "m0")
    graph.node("Concat", ["m0", "p0"], "output", axis=1)
    made = simulate_half(cast_graph(graph.model({"output": ["N", 6, 8, 8]}, SHAPE)).model)
    onnx.checker.check_model(made, full_check=True)
    sigmoid = half(1 / (1 + np.exp(-half(images(4)).astype(np.float64))))
    pooled = sigmoid.reshape(4, 3, 8, 2, 8, 2).max(axis=(3, 5))
    np.testing.assert_array_equal(
        run(made, images(4), optimise), np.concatenate([half(pooled * half(1 / 3)), pooled], axis=1)
    )


def test_a_product_behind_a_transpose_can_be_opened_with_everything_fused():
    """ONNX Runtime crashes where only a Cast stands between the two, as behind a recurrent layer."""
    graph = Graph()
    graph.node("Transpose", ["input"], "t0", perm=[1, 0, 2])
    weight = np.linspace(-1, 1, 24).reshape(8, 3)
    graph.node("MatMul", ["t0", graph.array("w", weight)], "output")
    x = np.linspace(0, 1, 32, dtype=f32).reshape(4, 1, 8)
    made = simulate_half(cast_graph(graph.model({"output": [1, 4, 3]}, x.shape)).model)
    assert run(made, x, True) == pytest.approx(half(half(x.transpose(1, 0, 2)) @ half(weight)), abs=1e-3)


@pytest.mark.parametrize("size", [64.0, 1024.0, 16384.0])
def test_what_activations_lose_is_seen(size):
    model, given = offset(size), batches(16)
    x = np.concatenate(given)
    expected = np.abs(half(half(half(x) + f32(size)) - f32(size)) - run(model, x)).max() / np.abs(run(model, x)).max()
    found = relative_error(model, cast_graph(model).model, given)["output"]
    assert found == pytest.approx(expected, rel=1e-4)
    assert found > 2e-3
    assert relative_error(model, model, given)["output"] == 0


def test_a_network_keeps_its_interface_and_computes_about_the_same():
    model, given = small_cnn(), images(16)
    made = simulate_half(cast_graph(model).model)
    assert [item.name for item in (*made.graph.input, *made.graph.output)] == ["input", "output"]
    reference = run(model, given)
    apart = np.abs(run(made, given) - reference).max() / np.abs(reference).max()
    assert 1e-5 < apart < 5e-3


def test_a_float_graph_stays_as_it_is():
    assert simulate_half(small_cnn()).graph.node == small_cnn().graph.node


def test_what_is_half_beside_int8_is_rounded_too(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="trt", settings=QuantSettings.quick())
    model = onnx.load(tmp_path / "q.onnx")
    mixed = cast_graph(model)
    assert mixed.half
    made = simulate_half(mixed.model)
    onnx.checker.check_model(made, full_check=True)
    reference = run(model, images(16))
    assert np.abs(run(made, images(16)) - reference).max() < 0.1 * np.abs(reference).max()


def deep(layers=12):
    """A chaotic map, 3 sin(x): an error grows with each layer and the signal does not."""
    graph = Graph()
    last, three = "input", graph.array("three", 3.0)
    for at in range(layers):
        graph.node("Sin", [last], f"s{at}")
        last = graph.node("Mul", [f"s{at}", three], "output" if at == layers - 1 else f"m{at}")
    return graph.model({"output": ["N", 3, 16, 16]}, SHAPE)


def limited(folder, limit, given):
    onnx.save(deep(), folder / "m.onnx")
    return to_fp16(folder / "m.onnx", folder / "h.onnx", given, limit=limit)


def test_the_first_layers_stay_float_until_the_error_is_under_half_of_the_limit(tmp_path):
    free = limited(tmp_path, None, batches(16))
    (all_half,) = free.relative_error.values()
    assert not free.kept
    assert limited(tmp_path, 3 * all_half, batches(16)).kept == {}
    found = limited(tmp_path, all_half, batches(16))
    names = [node.name for node in deep().graph.node]
    assert 0 < len(found.kept) <= len(names) / 2
    assert list(found.kept) == names[: len(found.kept)]
    assert all("the error grows from here" in reason for reason in found.kept.values())
    assert found.relative_error["output"] < all_half / 2
    assert found.half == len(names) - len(found.kept)
    onnx.checker.check_model(onnx.load(tmp_path / "h.onnx"), full_check=True)


def test_no_more_stays_float_than_the_limit_asks(tmp_path):
    free = limited(tmp_path, None, batches(16)).relative_error["output"]
    kept = {factor: len(limited(tmp_path, factor * free, batches(16)).kept) for factor in (3, 1, 0.3, 1e-6)}
    assert list(kept.values()) == sorted(kept.values())
    assert kept[3] == 0
    assert kept[1e-6] == round(FIRST[-1] * len(deep().graph.node))


def test_a_limit_of_fp16_is_refused_for_int8(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    given = ["quantize", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "q.onnx"), "--allow-random", "--limit", "2e-3"]
    refused = CliRunner().invoke(quantize_command, given[1:])
    assert refused.exit_code == 2
    assert "--limit is for FP16; got an INT8 target; do: give --budget" in refused.output
    made = CliRunner().invoke(quantize_command, [*given[1:], "--target", "fp16", "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["relative_error"]["output"] < 2e-3
