"""Networks of others on the whole road: exporters that fail over, files, unlabelled images, arrays, several inputs."""

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

import edgesmith as es
from edgesmith.cli import main
from edgesmith.export import pipeline
from edgesmith.export.raw_graph import write_raw
from edgesmith.export.settings import ExportedArtefact, ExportSettings, Flow, StageCheck
from edgesmith.export.sources.source import Network
from edgesmith.runtime import datasets
from edgesmith.runtime.bundle.bundle import read_bundle
from edgesmith.runtime.errors import DataError, ModelError
from edgesmith.runtime.spec import InputSpec, ModelSpec, Preprocess
from support.graphs import model

SPEC = ModelSpec("net", (3, 16, 16), 4, task="features", preprocess=Preprocess((16, 16), 0))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.body(x)


class Branching(Plain):
    """Asks a tensor for its value: torch.export refuses that, a trace holds the branch that it took."""

    def forward(self, x):
        return self.body(x) if float(x.abs().max()) < 1e6 else x.flatten(1)[:, :4]


class Deceiving(Plain):
    """Takes another branch for the zeros that it is traced on than for images."""

    def forward(self, x):
        return self.body(x) if float(x.abs().max()) > 0 else self.body(x) + 1


class Pair(Plain):
    def forward(self, left, right):
        return {"near": self.body(left) * self.body(right), "scale": self.body(left).sum(1)}


def raw(module, spec, tmp_path, batch, **settings):
    flow, lines = Flow(ExportSettings(module, **settings), lambda line: None), []
    flow.say = lines.append
    spec = write_raw(flow, Network(spec, module.eval()), tmp_path / "raw.onnx", batch)
    return spec, flow, lines, onnx.load(tmp_path / "raw.onnx")


def images(count=3):
    return [np.random.default_rng(at).random((1, 3, 16, 16), np.float32) for at in range(count)]


@pytest.mark.parametrize("free", [False, True])
def test_where_the_dynamo_exporter_fails_the_tracing_one_is_taken_and_that_is_said(free, tmp_path):
    spec, flow, lines, graph = raw(Branching(), SPEC, tmp_path, images(), dynamic_batch=free)
    assert spec.output_names == ("output",)
    assert flow.records["exporter"]["taken"] == "tracing"
    assert any("dynamo exporter failed" in line for line in lines)
    (check,) = flow.checks
    assert check.passed
    assert check.detail.endswith("by torch's tracing exporter")
    assert ModelSpec.from_metadata({entry.key: entry.value for entry in graph.metadata_props}) == spec
    first = graph.graph.input[0].type.tensor_type.shape.dim[0]
    assert (first.dim_param, first.dim_value) == (("batch", 0) if free else ("", 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.onnx"]


def test_what_neither_exporter_gets_right_is_an_error_that_names_the_first_reason(tmp_path):
    with pytest.raises(ModelError, match="torch cannot export net"):
        raw(Deceiving(), SPEC, tmp_path, images())


def test_a_plain_module_is_exported_by_the_dynamo_exporter(tmp_path):
    _, flow, lines, _ = raw(Plain(), SPEC, tmp_path, images())
    assert "exporter" not in flow.records
    assert not [line for line in lines if "failed" in line]


@pytest.mark.parametrize("free", [False, True])
def test_several_inputs_and_outputs_by_key_are_exported_and_compared(free, tmp_path):
    spec = ModelSpec(
        "pair", (3, 16, 16), 1, task="features", input_name="left", output_names=("near", "scale"),
        other_inputs=(InputSpec("right", (3, 16, 16)),),
    )  # fmt: skip
    batch = [{"left": one, "right": two} for one, two in zip(images(), images()[::-1], strict=True)]
    _, flow, _, graph = raw(Pair(), spec, tmp_path, batch, dynamic_batch=free)
    assert [value.name for value in graph.graph.input] == ["left", "right"]
    assert [value.name for value in graph.graph.output] == ["near", "scale"]
    assert {case["output"] for case in flow.records["parity"]["cases"]} == {"near", "scale"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Digits as pictures, as somebody would have photographs: 120 without labels, and the same by class."""
    folder, data = tmp_path_factory.mktemp("photos"), datasets.load("digits", "train")
    for at in range(0, 1200, 10):
        image, label = Image.fromarray(data.images[at]), data.labels[at]
        for place in (folder / "plain", folder / "classes" / str(label)):
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{at}.png")
    return folder


NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.AdaptiveAvgPool2d(5),
                         nn.Flatten(), nn.Linear(200, 10))
"""


def two_inputs():
    text = (
        "(float[N,3,16,16] image, float[N,2] scale) => (float[N,8,14,14] maps, float[N,2] boxes) "
        "{ c = Conv(image, w) maps = Relu(c) boxes = Div(scale, k) }"
    )
    return model(text, {"w": (8, 3, 3, 3), "k": np.array([2, 4], np.float32)})


@pytest.mark.slow
def test_a_factory_with_unlabelled_photographs_ends_in_a_bundle(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_net.py").write_text(NET)
    words = ["export", "user_net.py:net", "--data", photos / "plain", "--size", "32", "--target", "ort-x86", "--json"]
    result = CliRunner().invoke(main, [*map(str, words), "--resize", "stretch"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["written"], summary["bundle"]) == (True, "bundles/net")
    checks = {check["name"]: check for check in summary["checks"]}
    assert "the data have no labels, so similarity decides" in checks["accuracy int8-ort-x86"]["detail"]
    assert "mean: 0.485, 0.456, 0.406 (a guess: as for ImageNet)" in result.stderr
    with es.load("bundles/net", device="cpu") as network:
        assert len(network(str(photos / "plain" / "0.png")).top(3)) == 3
    assert es.verify("bundles/net").passed


@pytest.mark.slow
def test_a_file_with_labelled_images_is_judged_by_its_labels(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module: dict = {}
    exec(NET, module)
    network = module["net"]().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, torch.zeros(1, 3, 32, 32), "user.onnx", dynamo=False, opset_version=12)
    options = {"data": str(photos / "classes"), "precision": "fp32,fp16", "target": "ort-x86"}
    summary = es.export("user.onnx", **options, labels=tuple("0123456789"), max_drop=20.0)
    assert summary.written
    assert 0 <= summary.artefacts[0].results["test"]["top1"] <= 100
    assert any("opset 12 was converted to 17" in check.detail for check in summary.checks)
    assert summary.spec.labels == tuple("0123456789")


@pytest.mark.slow
def test_two_inputs_go_the_whole_road_with_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(two_inputs(), "two.onnx")
    rng = np.random.default_rng(0)
    pictures = np.cumsum(rng.standard_normal((60, 3, 16, 16)), -1).astype(np.float32)
    np.savez("inputs.npz", image=pictures, scale=rng.random((60, 2), np.float32))
    summary = es.export("two.onnx", data="inputs.npz", target="ort-x86")
    assert summary.written, summary
    assert [one.name for one in summary.spec.inputs] == ["image", "scale"]
    assert {one.precision for one in summary.artefacts} == {"fp32", "fp16", "int8"}
    with es.load("bundles/two", device="cpu") as network:
        outputs = network.run({"image": pictures[:2], "scale": np.ones((2, 2), np.float32)})
    assert outputs["boxes"] == pytest.approx(np.array([[0.5, 0.25]] * 2), abs=0.02)


def test_images_for_a_network_that_takes_none_are_refused_before_it_is_optimised(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(two_inputs(), "two.onnx")
    with pytest.raises(DataError, match=r"two takes no images; expected arrays: image float32 \(N, 3, 16, 16\), scale"):
        es.export("two.onnx", data=str(photos / "plain"))
    np.savez("wrong.npz", image=np.zeros((60, 3, 16, 17), np.float32), scale=np.zeros((60, 2), np.float32))
    with pytest.raises(DataError, match="the arrays in wrong.npz are not what two takes; got image float32"):
        es.export("two.onnx", data="wrong.npz")


def test_what_fails_is_left_out_of_the_bundle_of_a_network_that_is_not_ours():
    def flow_of(source, **options):
        flow = Flow(ExportSettings(source, data="digits", **options), lambda line: None)
        names = ("fp32", "fp16", "int8-ort-x86", "int8-trt", "int8 SM 8.6", "fp32 SM 8.6")
        flow.artefacts = [ExportedArtefact(name, name.split("-")[0], "", Path(name), 1) for name in names]
        flow.artefacts[4].results["source"] = "int8-trt"
        failed = ("accuracy int8-trt", "engine fp16 SM 8.6")
        flow.checks = [StageCheck(name, False, "it lost too much") for name in failed]
        flow.checks.append(StageCheck("graph passes", True, "equal"))
        return flow

    flow = flow_of(Plain())
    pipeline._leave_out(flow)
    assert [one.name for one in flow.artefacts if one.left_out] == ["int8-trt", "int8 SM 8.6"]
    assert [(check.passed, check.left_out) for check in flow.checks] == [(None, True), (None, True), (True, False)]
    for name in ("graph passes", "engine fp32 SM 8.6"):  # without these nothing is worth a bundle
        flow.checks = [StageCheck(name, False, "different")]
        pipeline._leave_out(flow)
        assert flow.checks[0].passed is False
    ours = flow_of("lenet5")
    pipeline._leave_out(ours)
    assert not any(one.left_out for one in ours.artefacts)
    assert [check.passed for check in ours.checks] == [False, False, True]
    others_weights = flow_of("mobilenetv2", weights="package")
    pipeline._leave_out(others_weights)
    assert [one.name for one in others_weights.artefacts if one.left_out] == ["int8-trt", "int8 SM 8.6"]


@pytest.mark.slow
def test_a_bundle_without_the_forms_that_lose_too_much(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_net.py").write_text(NET)
    options = {"data": str(photos / "plain"), "size": 32, "target": "ort-x86", "min_sqnr": 60.0}
    summary = es.export("user_net.py:net", **options)
    assert summary.written
    assert "left out: accuracy int8-ort-x86" in summary.headline()
    assert [one.precision for one in read_bundle("bundles/net").artefacts] == ["fp32", "fp16"]
