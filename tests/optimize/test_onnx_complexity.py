"""The table of an ONNX file is that of the module it was exported from."""

import onnx
import pytest
import torch
from onnx import numpy_helper

from edgesmith.models import complexity as of_module
from edgesmith.optimize.graph import complexity as of_onnx
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.runtime.errors import ModelError, UsageError
from support.quant_graphs import batches, small_cnn
from support.trained import trained, trained_onnx

torch.set_num_threads(1)


def heavy(report):
    return [
        (layer.output, layer.kernel, layer.stride, layer.pad, layer.groups, layer.macs, layer.receptive_field)
        for layer in report.layers
        if layer.kind in ("conv", "linear", "pool")
    ]


def test_a_file_and_its_module_agree(tmp_path):
    module, spec = trained()
    first = of_module.analyse_module(module, spec.input_shape)
    second = of_onnx.describe(trained_onnx(tmp_path))
    assert heavy(first) == heavy(second)
    assert (first.macs, first.params) == (second.macs, second.params)
    assert second.peak_bytes == pytest.approx(first.peak_bytes, rel=0.01)


def test_a_file_by_hand(tmp_path):
    text = """<ir_version: 10, opset_import: ["" : 18]> g (float[1, 2, 8, 8] x) => (float[1, 4, 17, 17] y)
    <float[6, 1, 3, 3] w = {0.0}, float[6, 4, 3, 3] v = {0.0}> {
        a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2, strides = [1, 1]>(x, w)
        b = Relu(a)
        y = ConvTranspose<kernel_shape = [3, 3], strides = [2, 2]>(b, v)
    }"""
    model = onnx.parser.parse_model(text)
    for item, count in zip(model.graph.initializer, (54, 216), strict=True):
        del item.float_data[:]
        item.raw_data = bytes(4 * count)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    found = of_onnx.describe(path)
    assert [layer.kind for layer in found.layers] == ["conv", "act", "deconv"]
    assert found.macs == 64 * 6 * 9 + 64 * 6 * 4 * 9
    assert found.params == 54 + 216


def test_a_bad_file_is_one_line(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(UsageError, match="no such file"):
        of_onnx.describe(path)
    path.write_text("hello")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        of_onnx.describe(path)


def in_nodes(model):
    """The same graph with its weights in Constant nodes, as some exporters write them."""
    for tensor in reversed(model.graph.initializer):
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    return model


def through(model, op, **attributes):
    """The same graph, each weight of two axes or more read through an operator that computes it from the weight."""
    for tensor in list(model.graph.initializer):
        if len(tensor.dims) >= 2:
            for node in model.graph.node:
                node.input[:] = [f"{name}_c" if name == tensor.name else name for name in node.input]
            model.graph.node.insert(0, onnx.helper.make_node(op, [tensor.name], [f"{tensor.name}_c"], **attributes))
    return model


STORED = {
    "in Constant nodes": in_nodes,
    "behind Identity": lambda model: through(model, "Identity"),
    "behind a Cast, in Constant nodes": lambda model: in_nodes(through(model, "Cast", to=1)),
}


@pytest.mark.parametrize("case", STORED)
def test_weights_count_wherever_they_are_stored(case, tmp_path):
    onnx.save(small_cnn(batch=1), tmp_path / "plain.onnx")
    onnx.save(STORED[case](small_cnn(batch=1)), tmp_path / "other.onnx")
    plain, other = (of_onnx.describe(tmp_path / f"{name}.onnx") for name in ("plain", "other"))
    assert plain.params == sum(numpy_helper.to_array(one).size for one in small_cnn().graph.initializer
                               if one.name.endswith(("_w", "_b")))  # fmt: skip
    assert (other.params, other.macs) == (plain.params, plain.macs)
    assert heavy(other) == heavy(plain)


def test_a_quantised_file_has_the_parameters_of_the_float_one(tmp_path):
    onnx.save(small_cnn(batch=1), tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="trt", settings=QuantSettings.quick())
    one, two = (of_onnx.describe(tmp_path / f"{name}.onnx") for name in "mq")
    assert (two.params, two.macs) == (one.params, one.macs)
