"""The table of an ONNX file is that of the module it was exported from."""

import onnx
import pytest
import torch

from edgesmith.models import complexity as of_module
from edgesmith.optimize import complexity as of_onnx
from edgesmith.runtime.errors import ModelError, UsageError
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
    first = of_module.analyse(module, spec.input_shape)
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
    with pytest.raises(ModelError, match="is no ONNX file"):
        of_onnx.describe(path)
