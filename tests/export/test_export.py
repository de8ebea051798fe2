"""A module becomes an ONNX file that computes the same, keeps its spec, and leaves nothing half-written."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgesmith.export import parity, to_onnx
from edgesmith.optimize.graph import spec_metadata
from edgesmith.runtime.errors import CheckFailed, ModelError, UsageError
from edgesmith.runtime.spec import ModelSpec

SPEC = ModelSpec("tiny", input_shape=(3, 16, 16), num_classes=5, labels=("a", "b", "c", "d", "e"))


def tiny(seed=0):
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    norm = nn.BatchNorm2d(8)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        norm,
        nn.ReLU6(),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return to_onnx.export(tiny(), SPEC, tmp_path_factory.mktemp("export") / "tiny.onnx")


def images(count=3):
    return np.random.default_rng(1).random((count, 3, 16, 16), dtype=np.float32)


def test_batchnorm_stays_and_the_file_is_valid(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 1
    assert model.opset_import[0].version == to_onnx.DEFAULT_OPSET
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "output"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_the_spec_travels(exported):
    assert spec_metadata.read(exported) == replace(SPEC, scores="logits")


def test_no_path_of_this_machine_is_left(exported):
    data = exported.read_bytes()
    assert b"site-packages" not in data
    assert b"/test_export.py" not in data


def test_parity_on_random_and_real_inputs(exported):
    report = parity.check(tiny(), exported, SPEC, images())
    assert {(case.inputs, case.batch) for case in report.cases} == {(n, b) for n in ("random", "real") for b in (1, 3)}
    assert report.worst.error < 1e-6


def test_parity_leaves_the_training_mode_alone(exported):
    module = tiny().train()
    parity.check(module, exported, SPEC)
    assert module.training


def test_parity_finds_other_weights(exported):
    with pytest.raises(CheckFailed, match="output 'output' is worst; got relative error"):
        parity.check(tiny(seed=1), exported, SPEC)


def test_dynamic_batch(tmp_path):
    path = to_onnx.export(tiny(), SPEC, tmp_path / "dynamic.onnx", dynamic_batch=True)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert parity.check(tiny(), path, SPEC, images()).passed


def test_an_unknown_opset_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match=r"^opset 9 is not supported; expected 18 to 23; do: leave it at 18$"):
        to_onnx.export(tiny(), SPEC, tmp_path / "x.onnx", opset=9)


def test_what_torch_cannot_capture_is_said_and_nothing_is_written(tmp_path):
    class Loop(nn.Module):
        def forward(self, x):
            while x.sum() > 0:
                x = x - 1
            return x

    with pytest.raises(ModelError, match="torch cannot export tiny"):
        to_onnx.export(Loop(), SPEC, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "doubled": lambda x: 2 * x,
    "negated": lambda x: -x,
    "zeros": np.zeros_like,
    "nan": lambda x: np.full_like(x, np.nan),
    "one nan": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, np.nan, x),
    "inf": lambda x: np.full_like(x, np.inf),
    "other shape": lambda x: x[:1],
    "rows swapped": lambda x: x[::-1],
    "one value off": lambda x: x + 1e-3 * (np.arange(x.size).reshape(x.shape) == 0),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_comparer_rejects(name):
    right = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    assert parity.relative_error(right, right) == 0
    assert parity.relative_error(WRONG[name](right), right) > parity.TOLERANCE


def test_the_comparer_accepts_rounding():
    right = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    assert parity.relative_error(right * np.float32(1 + 1e-6), right) < parity.TOLERANCE


def test_a_report_with_nan_is_not_passed():
    report = parity.ParityReport((parity.Case("random", 1, "output", float("nan")),), 1e-4)
    assert not report.passed


BAD_FILES = {"text": b"hello", "empty": b"", "truncated": None}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_corrupt_file_is_a_model_error(name, exported, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(exported.read_bytes()[:300] if BAD_FILES[name] is None else BAD_FILES[name])
    with pytest.raises(ModelError):
        parity.check(tiny(), path, SPEC)
    with pytest.raises(ModelError):
        spec_metadata.read(path)


def test_metadata_is_replaced_not_added_twice(exported):
    model = onnx.load(exported)
    spec_metadata.write(model, SPEC)
    assert [entry.key for entry in model.metadata_props].count(spec_metadata.SPEC_KEY) == 1


def test_a_convolution_over_time_and_space_needs_no_bias(tmp_path):
    spec = ModelSpec("video", input_shape=(3, 4, 8, 8), num_classes=2, layout="NCDHW")
    module = nn.Sequential(nn.Conv3d(3, 6, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    path = to_onnx.export(module, spec, tmp_path / "video.onnx")
    assert parity.check(module, path, spec).passed
    (conv,) = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert len(conv.input) == 2
