"""Channels carried through convolutions: units of ShuffleNet v2 become three convolutions and compute the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgesmith.optimize import optimizer
from edgesmith.optimize.trt.fold_passthrough_channels import fold_passthrough_channels
from edgesmith.runtime.errors import UsageError
from support.engine_graphs import saved, small_net


class Shuffle:
    """Build a small ShuffleNet v2: a stem, a unit with stride, units without, a last Conv."""

    def __init__(self, seed=0, stem_relu=True, units=2, outside=False):
        self.random, self.nodes, self.weights = np.random.default_rng(seed), [], []
        x = self.conv("x", 3, 8, 3, "stem")
        x = self.node("Relu", [x], "stem_relu") if stem_relu else x
        left = self.relu(self.conv(self.conv(x, 8, 8, 3, "la", 8, 2), 8, 6, 1, "lb"))
        x = self.shuffle(self.node("Concat", [left, self.right(x, 8, "r0", 2)], "cat0", axis=1), 12, 8)
        for unit in range(1, units + 1):
            self.const("sizes", np.array([6, 6], np.int64)) if unit == 1 else None
            self.nodes.append(helper.make_node("Split", [x, "sizes"], [f"a{unit}", f"b{unit}"], f"split{unit}", axis=1))
            joined = self.node("Concat", [f"a{unit}", self.right(f"b{unit}", 6, f"r{unit}")], f"cat{unit}", axis=1)
            x = self.shuffle(joined, 12, 8)
        if outside:
            x = self.node("Sigmoid", [x], "outside")
        self.node("Identity", [self.conv(x, 12, 5, 1, "last")], "y")

    def const(self, name, array):
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind, inputs, name, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def conv(self, x, into, out, kernel, name, group=1, stride=1):
        weight = self.random.normal(size=(out, into // group, kernel, kernel)).astype(np.float32) * 0.3
        names = [
            self.const(f"{name}_w", weight),
            self.const(f"{name}_b", self.random.normal(size=out).astype(np.float32)),
        ]
        return self.node("Conv", [x, *names], name, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, group=group,
                         strides=[stride] * 2)  # fmt: skip

    def relu(self, x):
        return self.node("Relu", [x], f"{x}_relu")

    def right(self, x, into, name, stride=1):
        inner = self.relu(self.conv(x, into, 6, 1, f"{name}a"))
        return self.relu(self.conv(self.conv(inner, 6, 6, 3, f"{name}b", 6, stride), 6, 6, 1, f"{name}c"))

    def shuffle(self, x, channels, size):
        to = self.const(f"{x}_to", np.array([1, 2, channels // 2, size, size], np.int64))
        back = self.const(f"{x}_back", np.array([1, channels, size, size], np.int64))
        turned = self.node("Transpose", [self.node("Reshape", [x, to], f"{x}_5")], f"{x}_t", perm=[0, 2, 1, 3, 4])
        return self.node("Reshape", [turned, back], f"{x}_4")

    def model(self):
        made = helper.make_tensor_value_info
        graph = helper.make_graph(self.nodes, "shuffle", [made("x", TensorProto.FLOAT, [1, 3, 16, 16])],
                                  [made("y", TensorProto.FLOAT, [1, 5, 8, 8])], self.weights)  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(1).normal(size=(1, 3, 16, 16)).astype(np.float32)})[0]


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("before", ["with shuffles", "shuffles eliminated"])
@pytest.mark.parametrize("units", [1, 2, 4])
def test_it_computes_the_same_in_three_convolutions_a_unit(units, before, tmp_path):
    source = saved(Shuffle(units=units).model(), tmp_path / "s.onnx")
    if before == "shuffles eliminated":
        optimizer.optimize(source, tmp_path / "o.onnx")
        source = tmp_path / "o.onnx"
    assert fold_passthrough_channels(source, tmp_path / "c.onnx") == units + 1
    assert kinds(tmp_path / "c.onnx").count("Conv") == 2 + 3 * (units + 1)
    assert not {"Concat", "Split", "Transpose", "Reshape"} & set(kinds(tmp_path / "c.onnx"))
    np.testing.assert_allclose(run(tmp_path / "c.onnx"), run(source), atol=1e-4, rtol=1e-4)


LEFT_ALONE = {
    "what may be negative": Shuffle(stem_relu=False).model(),
    "a reader that wants its own order": Shuffle(outside=True).model(),
    "a network without units": small_net(),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_it_leaves_alone(case, tmp_path):
    assert fold_passthrough_channels(saved(LEFT_ALONE[case], tmp_path / "s.onnx"), tmp_path / "c.onnx") == 0
    assert not (tmp_path / "c.onnx").exists()


def test_a_second_run_finds_nothing(tmp_path):
    fold_passthrough_channels(saved(Shuffle().model(), tmp_path / "s.onnx"), tmp_path / "c.onnx")
    assert fold_passthrough_channels(tmp_path / "c.onnx", tmp_path / "d.onnx") == 0


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        fold_passthrough_channels(tmp_path / "none.onnx", tmp_path / "c.onnx")


def test_fewer_kernels(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    from edgesmith.runtime.engines.build import build_engine

    source = saved(Shuffle(units=4).model(), tmp_path / "s.onnx")
    fold_passthrough_channels(source, tmp_path / "c.onnx")
    before, after = (build_engine(path, tmp_path / "e.engine") for path in (source, tmp_path / "c.onnx"))
    assert after.attestation.kernels < 0.8 * before.attestation.kernels
