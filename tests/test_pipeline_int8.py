"""Which layers stay in float where INT8 loses more than is allowed: the loop, and the whole flow with it."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from edgesmith.export import int8, measure
from edgesmith.export.measure import _accuracy_check, _tried, kept
from edgesmith.export.settings import ExportedArtefact, ExportSettings, Flow, Kept
from edgesmith.optimize.graph.graph_file import GraphFile
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings, post_training
from edgesmith.optimize.quantize.float_source import FloatSource
from edgesmith.runtime import datasets
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support import quant_graphs

WEIGHTS = str(Path(__file__).parent / "data" / "shufflenetv2_x0_5-digits.safetensors")


@pytest.fixture
def flow(tmp_path):
    onnx.save(quant_graphs.small_cnn(), tmp_path / "fp32.onnx")
    made = Flow(ExportSettings("lenet5", targets=("ort-x86",)), lambda line: None)
    made.data["calibration"] = datasets.load("digits", "calibration", calibration=64)
    return made


# Whether the chosen recipe walks, the points lost by each form that is judged, in turn (0.5 are allowed), and the forms
# that are converted: layers in float, and "whole" recipe or "estimate". The last is written, unless nothing helps.
WHOLE = (0, "whole")
CASES = {
    "nothing lost": (True, [0.0], [WHOLE]),
    "just what is allowed": (True, [0.5], [WHOLE]),
    "two are enough": (True, [0.6, 0.4, 0.4], [WHOLE, (2, "estimate"), (2, "whole")]),
    "the estimate is near": (True, [0.6, 0.55, 0.4], [WHOLE, (2, "estimate"), (2, "whole")]),
    "the estimate is too good": (
        True, [0.6, 0.4, 0.6, 0.4, 0.5], [WHOLE, (2, "estimate"), (2, "whole"), (3, "estimate"), (3, "whole")]
    ),
    "two are worse": (True, [0.6, 0.9, 0.1, 0.1], [WHOLE, (2, "estimate"), (3, "estimate"), (3, "whole")]),
    "no estimate is near": (True, [2.0, 2.0, 2.0], [WHOLE, (2, "estimate"), (3, "estimate")]),
    "the walk does not help": (True, [2.0, 2.0, 0.5, 0.7], [WHOLE, (2, "estimate"), (3, "estimate"), (3, "whole")]),
    "no walk: two are enough": (False, [0.6, 0.4], [WHOLE, (2, "whole")]),
    "no walk: nothing helps": (False, [2.0, 2.0, 2.0], [WHOLE, (2, "whole"), (3, "whole")]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_layers_go_back_to_float_until_the_loss_is_allowed(case, flow, tmp_path, monkeypatch):
    walks, losses, forms = CASES[case]
    turn, converted = iter(losses), []

    def judged(flow, spec, artefact):
        lost = next(turn)
        return Kept(lost <= 0.5, lost, near=lost <= 0.56)

    def counted(source, path, samples, *, settings, **options):
        converted.append(settings)
        plain = QuantSettings(equalize=None, noise=0.0, refine=settings.refine and walks, keep=settings.keep)
        report, graph = post_training.quantize_graph(source, path, samples, settings=plain, **options)
        return report, graph

    monkeypatch.setattr(int8, "kept", judged)
    monkeypatch.setattr(int8, "quantize_graph", counted)
    batches = [image[None] for image in quant_graphs.images(64)]
    source = FloatSource(GraphFile.read(tmp_path / "fp32.onnx"))
    int8.make_int8(flow, SimpleNamespace(), source, batches, tmp_path / "net")
    (artefact,) = flow.artefacts
    trials = artefact.results["tried"]
    assert next(turn, None) is None
    assert [(len(one["floats"]), "estimate" if one["estimate"] else "whole") for one in trials] == forms
    assert [len(one.keep) for one in converted] == [count for count, _ in forms]
    # The recipe is chosen once; an estimate differs from the form in nothing but the walk.
    assert [bool(one.choose) for one in converted] == [True] + [False] * (len(forms) - 1)
    assert [one.refine for one in converted[1:]] == [walks and kind == "whole" for _, kind in forms[1:]]
    assert all(("estimate" in one["said"]) is one["estimate"] for one in trials)
    _matches_what_was_tried(flow, trials, tmp_path)


def _matches_what_was_tried(flow, trials, folder):
    """The file has the layers in float that the last trial says; none where that lost too much."""
    weighted = {node.name for node in onnx.load(folder / "fp32.onnx").graph.node if node.op_type in ("Conv", "Gemm")}
    floats = set(trials[-1]["floats"]) if trials[-1]["enough"] else set()
    assert floats <= weighted
    record = flow.records["int8-ort-x86"]
    assert sum(record["quantised"].get(kind, 0) for kind in ("Conv", "Gemm")) == len(weighted) - len(floats)
    net = ProtoGraph(onnx.load(folder / "net-int8-ort-x86.onnx"))
    layers = [node for node in net.nodes if node.op_type in ("Conv", "Gemm")]
    quantised = {node.name for node in layers if node.input[1] in net.producer}
    assert quantised == weighted - floats
    assert sorted(path.name for path in folder.iterdir()) == ["fp32.onnx", "net-int8-ort-x86.onnx"]


# What was tried after all in INT8 -> what the check says.
SAID = {
    "none": ([], ""),
    "kept": ([(5, True, False)], "5 layers stay in float: with all layers in INT8 2.00 points are lost"),
    "nothing helps": ([(2, False, False), (5, False, False)], "up to 5 layers in float did not help"),
    "estimated": (
        [(5, False, True)],
        "up to 5 layers in float did not help (estimated without the walk layer by layer)",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_the_check_says_what_was_tried_and_what_was_estimated(case, tmp_path):
    trials, text = SAID[case]
    first = {"floats": [], "enough": not trials, "estimate": False, "said": str(Kept(enough=False, lost_points=2.0))}
    others = [{"floats": ["a"] * count, "enough": enough, "estimate": guess} for count, enough, guess in trials]
    artefact = ExportedArtefact("int8", "int8", "ort-x86", tmp_path, 1, results={"tried": [first, *others]})
    assert _tried(artefact).removeprefix("; ") == text


# points allowed, lost -> enough, near (1 dB of amplitude is 12.2 %)
NEAR = {
    "enough": (0.5, 0.5, True, True), "near": (0.5, 0.56, False, True), "far": (0.5, 0.57, False, False),
    "a gain is asked for": (-1.0, -0.9, False, True), "far from a gain": (-1.0, -0.8, False, False),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR)
def test_a_form_is_near_within_a_decibel(case, unlabelled, tmp_path, monkeypatch):
    most, lost, enough, near = NEAR[case]
    unlabelled.settings = dataclasses.replace(unlabelled.settings, max_drop=most)
    monkeypatch.setattr(measure, "not_judged", lambda flow, spec: "")
    monkeypatch.setattr(measure, "_lost", lambda flow, spec, artefact: lost)
    kept_share = kept(unlabelled, SPEC, damaged(tmp_path, 0.0))
    assert (kept_share.enough, kept_share.near) == (enough, near)


SPEC = ModelSpec("net", (3, 16, 16), 10, input_name="input", preprocess=Preprocess((16, 16), 0))


@pytest.fixture
def unlabelled(flow, tmp_path):
    """A network of ten classes on pictures of three kinds, which are none of its classes."""
    flow.settings = dataclasses.replace(flow.settings, weights="mine.safetensors")
    for split in ("test", "hard"):
        images = np.random.default_rng(len(split)).integers(0, 256, (64, 4, 4, 3), np.uint8).repeat(4, 1).repeat(4, 2)
        flow.data[split] = datasets.Dataset("kinds", split, images, np.arange(64) % 3, ("cat", "dog", "fox"))
    flow.add("fp32", "fp32", "generic", GraphFile.read(tmp_path / "fp32.onnx"))
    return flow


def damaged(folder, shift):
    """The same network, one class's logit shifted: the SQNR falls a little, top-1 as far as is wanted."""
    model = onnx.load(folder / "fp32.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc_b")
    value = onnx.numpy_helper.to_array(bias).copy()
    value[0] += shift
    bias.CopyFrom(onnx.numpy_helper.from_array(value, "fc_b"))
    onnx.save(model, folder / "other.onnx")
    return ExportedArtefact("int8-ort-x86", "int8", "ort-x86", folder / "other.onnx", 1)


# shift of a logit, floors -> enough
LIKENESS = {
    "equal": (0.0, {}, True),
    "one class takes all": (50.0, {}, False),
    "top-1 changes, and may": (50.0, {"min_agreement": 0.0, "min_sqnr": -100.0}, True),
    "noise that no top-1 shows": (-0.01, {"min_agreement": 0.0, "min_sqnr": 90.0}, False),
}


@pytest.mark.parametrize("case", LIKENESS)
def test_where_no_label_can_judge_likeness_does(case, unlabelled, tmp_path):
    shift, floors, enough = LIKENESS[case]
    unlabelled.settings = dataclasses.replace(unlabelled.settings, **floors)
    made = damaged(tmp_path, shift)
    found = kept(unlabelled, SPEC, made)
    assert (found.enough, found.lost_points) == (enough, None)
    assert (found.sqnr_db is None) is (shift == 0)
    made.results = {split: {"agreement": found.agreement} for split in ("test", "hard")}
    check = _accuracy_check(unlabelled, SPEC, made, unlabelled.onnx("fp32"), "the data has 3 classes, the network 10")
    assert check.passed is enough
    assert "so similarity decides" in check.detail


def test_a_near_tie_of_fp32_is_no_disagreement(unlabelled, tmp_path):
    """Every image is a near tie if all logits are almost 0; the same flips count where FP32 was sure."""
    verdicts = {}
    for name, scale in (("undecided", 1e-4), ("sure", 1e4)):
        model = onnx.load(tmp_path / "fp32.onnx")
        for tensor in model.graph.initializer:
            if tensor.name.startswith("fc_"):
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * scale, tensor.name))
        (tmp_path / name).mkdir()
        onnx.save(model, tmp_path / name / "fp32.onnx")
        unlabelled.artefacts[0].path = tmp_path / name / "fp32.onnx"
        unlabelled.likeness.clear()
        unlabelled.graphs.clear()
        verdicts[name] = kept(unlabelled, SPEC, damaged(tmp_path / name, 50.0 * scale))
    assert verdicts["undecided"].agreement == 100
    assert verdicts["undecided"].near_ties > 0
    assert f"with {verdicts['undecided'].near_ties} near ties" in str(verdicts["undecided"])
    assert verdicts["sure"].agreement < 95
    assert verdicts["sure"].near_ties == 0


# settings -> why nothing is judged
NOT_JUDGED = {
    "random weights": ({"weights": "random"}, "not judged: random weights: top-1 means nothing"),
    "no evaluation": ({"evaluate": False}, "not judged: the settings disable it"),
}


@pytest.mark.parametrize("case", NOT_JUDGED)
def test_what_is_not_judged_says_so_and_why(case, unlabelled, tmp_path):
    changes, text = NOT_JUDGED[case]
    unlabelled.settings = dataclasses.replace(unlabelled.settings, **changes)
    share = kept(unlabelled, SPEC, damaged(tmp_path, 50.0))
    assert (share.enough, str(share)) == (True, text)
    assert str(Kept()) == "all is equal"


def test_likeness_too_sends_layers_back_to_float(unlabelled, tmp_path):
    unlabelled.settings = dataclasses.replace(unlabelled.settings, min_sqnr=200.0)
    batches = [image[None] for image in quant_graphs.images(64)]
    int8.make_int8(unlabelled, SPEC, FloatSource(unlabelled.graphs["fp32"]), batches, tmp_path / "net")
    trials = unlabelled.artefacts[-1].results["tried"]
    assert [len(one["floats"]) for one in trials] == [0, 2, 3]
    assert trials[0]["sqnr_db"] < trials[-1]["sqnr_db"]
    assert not any(one["near"] for one in trials)
    assert all("SQNR" in one["said"] for one in trials)
    record = unlabelled.records["int8-ort-x86"]
    assert record["recipe"]
    assert record["settings"]["choose"] == []
    json.dumps(record)
