"""A detector from its ONNX file and a YOLO folder to a bundle: mAP per form, right boxes, figures as by hand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.bench import suite
from edgesmith.bench.gate import thresholds
from edgesmith.bench.metrics import accuracy
from edgesmith.bench.report import tables
from edgesmith.bench.result import Result
from edgesmith.cli import main
from edgesmith.export.api import describe, export
from edgesmith.runtime import datasets, load
from edgesmith.runtime.errors import UsageError
from support.detector import NAMES, SIDE, scene, write_detector, write_yolo_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with yolo.onnx, scenes/ and the bundle made of them; what was said."""
    folder = tmp_path_factory.mktemp("detector")
    write_yolo_folder(folder / "scenes", train=4, val=6)
    write_detector(folder / "yolo.onnx")
    said: list[str] = []
    summary = export(
        str(folder / "yolo.onnx"), data=str(folder / "scenes"), precision="fp32,fp16", target="ort-x86",
        out=folder / "bundle", say=said.append,
    )  # fmt: skip
    return folder, summary, said


def test_the_metadata_choose_the_head_and_the_table_has_map(place):
    _, summary, said = place
    spec = summary.spec
    assert (spec.task, spec.labels, spec.decoder) == ("detect", NAMES, {"head": "yolo"})
    assert (spec.preprocess.fit, spec.preprocess.interpolation) == ("letterbox", "opencv-linear")
    assert not [line for line in said if "similarity" in line]
    assert summary.written
    by_name = {one.name: one.results for one in summary.artefacts}
    assert by_name["fp32"]["test"]["map"] == pytest.approx(100)  # the squares are where the kernels fit
    assert 30 < by_name["fp32"]["hard"]["map"] < 99
    assert abs(by_name["fp16"]["hard"]["map"] - by_name["fp32"]["hard"]["map"]) < 3
    assert by_name["fp16"]["test"]["agreement"] == 100
    check = next(one for one in summary.checks if one.name == "accuracy fp16")
    assert check.detail.startswith("mAP against FP32: test +0.00, hard ")
    assert "points (allowed -0.5)" in check.detail


def test_the_figures_are_the_library_s_by_hand_on_raw_outputs(place):
    """From `model.run` on, nothing of ours: boxes, selection (none is needed here) and COCO's records by hand."""
    from faster_coco_eval import COCO, COCOeval_faster

    folder, summary, _ = place
    data = datasets.load(folder / "scenes", "hard")
    results, known, images = [], [], []
    with load(folder / "bundle", device="ort", precision="fp32") as model:
        for number, (image, truth) in enumerate(zip(data.images, data.truths, strict=True), 1):
            (output,) = model.run(model.preprocess([image])).values()
            images.append({"id": number, "height": SIDE, "width": SIDE})
            for x, y, w, h, *scores in output[0].T.astype(float):
                x1, y1, x2, y2 = (min(max(edge, 0), SIDE) for edge in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
                results += [
                    {"image_id": number, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
                    for label, score in enumerate(scores) if score >= 0.001
                ]  # fmt: skip
            for box, label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
                size = [box[2] - box[0], box[3] - box[1]]
                known.append({"id": len(known) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0,
                              "bbox": [*box[:2], *size], "area": size[0] * size[1]})  # fmt: skip
    categories = [{"id": at + 1, "name": name} for at, name in enumerate(NAMES)]
    library = COCO({"images": images, "annotations": known, "categories": categories})
    judge = COCOeval_faster(library, library.loadRes(_selected(results)), "bbox", print_function=lambda *words: None)
    judge.run()
    fp32 = next(one for one in summary.artefacts if one.name == "fp32")
    assert fp32.results["hard"]["map"] == pytest.approx(100 * judge.stats[0], abs=1e-6)


def _selected(results):
    """Greedy suppression by image and class at an IoU of 0.7, of boxes as COCO writes them; COCO counts 100 of each."""
    kept: dict[tuple[int, int], list[dict]] = {}
    for one in sorted(results, key=lambda one: -one["score"]):
        rivals = kept.setdefault((one["image_id"], one["category_id"]), [])
        if len(rivals) < 100 and all(_overlap(one["bbox"], other["bbox"]) <= 0.7 for other in rivals):
            rivals.append(one)
    return [one for rivals in kept.values() for one in rivals]


def _overlap(one, other):
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(wide, 0) * max(high, 0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared) if shared else 0.0


def test_run_writes_a_coco_file_that_coco_reads_and_scores(place, tmp_path):
    """The boxes of `run` on the test images, scored by COCO's library against the truth of the YOLO folder."""
    from faster_coco_eval import COCO, COCOeval_faster

    folder, _, _ = place
    out, images = tmp_path / "found.json", folder / "scenes" / "images" / "val"
    words = ["run", str(folder / "bundle"), str(images), "--device", "ort", "--precision", "fp32", "--coco", str(out)]
    assert CliRunner().invoke(main, words).exit_code == 0
    written = json.loads(out.read_text())
    assert [one["name"] for one in written["categories"]] == list(NAMES)
    assert [Path(one["file_name"]).name for one in written["images"]] == sorted(one.name for one in images.iterdir())
    data = datasets.load(folder / "scenes", "test")
    boxes = [
        (number + 1, int(label), [float(x1), float(y1), float(x2 - x1), float(y2 - y1)])
        for number, truth in enumerate(data.truths)
        for label, (x1, y1, x2, y2) in zip(truth.labels, truth.boxes, strict=True)
    ]
    truth = {**written, "annotations": [
        {"id": at + 1, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for at, (image, label, box) in enumerate(boxes)
    ]}  # fmt: skip
    reference = COCO(truth)
    judge = COCOeval_faster(reference, reference.loadRes(written["annotations"]), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[0] == pytest.approx(1)  # as the table of `export` says of FP32 on the test split
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 0  # its own file is replaced, anybody else's is not
    out.write_text("{}")
    assert CliRunner().invoke(main, words).exit_code == 2
    assert out.read_text() == "{}"


def test_run_says_and_draws_the_boxes(place, tmp_path):
    """On an image of twice the size and another shape: the boxes are those of its own pixels."""
    folder, _, _ = place
    image, objects = scene(1000)
    wide = np.full((2 * SIDE, 2 * SIDE + 40, 3), 114, np.uint8)
    wide[:, 20:-20] = image.repeat(2, 0).repeat(2, 1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(image.repeat(3, 0).repeat(3, 1)).save(tmp_path / "big.png")
    words = ["run", str(folder / "bundle"), str(tmp_path / "big.png"), "--device", "ort", "--precision", "fp32"]
    done = CliRunner().invoke(main, [*words, "--json", "--out", str(tmp_path / "drawn")])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["images"]
    expected = sorted((NAMES[label], 3 * x1, 3 * y1, 3 * (x2 - x1), 3 * (y2 - y1)) for label, x1, y1, x2, y2 in objects)
    assert sorted((one["category"], *one["bbox"]) for one in row["objects"]) == [
        pytest.approx(one, abs=0.5) if not isinstance(one[0], str) else (one[0], *map(pytest.approx, one[1:]))
        for one in expected
    ]
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "big.png"))
    assert (drawn != image.repeat(3, 0).repeat(3, 1)).any()
    assert row["picture"] == str(tmp_path / "drawn" / "big.png")
    plain = CliRunner().invoke(main, words)
    assert f"{len(objects)} objects: " in plain.output
    with load(folder / "bundle", device="ort", precision="fp32") as model:
        answer = model(tmp_path / "wide.png").decode()
    assert ((answer.boxes[:, 0] >= 0) & (answer.boxes[:, 2] <= wide.shape[1])).all()


def test_bench_and_gate_measure_map(place, monkeypatch):
    folder, summary, _ = place
    fp32, fp16 = (one for one in suite.contexts(folder / "bundle", data=str(folder / "scenes"))
                  if one.subject.backend == "ort")  # fmt: skip
    readings = [accuracy.measure(one) for one in (fp32, fp16)]
    assert [one.missing for one in readings] == ["", ""]
    values = readings[0].values
    assert 100 * values["hard_map_ratio"] == pytest.approx(summary.artefacts[0].results["hard"]["map"])
    assert values["worst_class_map_ratio"] == min(
        row["map_ratio"] for row in readings[0].rows if row["split"] == "test"
    )
    assert 0.9 < readings[1].values["hard_agreement_ratio"] <= 1
    base, new = (Result(fp32.subject, {"accuracy": one}) for one in readings)
    assert thresholds.check_limit("accuracy", base, new).answer == "same"
    worse = dataclasses.replace(readings[1], values={**readings[1].values, "map_ratio": values["map_ratio"] - 0.006})
    limited = thresholds.check_limit("accuracy", base, Result(fp32.subject, {"accuracy": worse}))
    assert limited.answer == "slower"
    assert "map_ratio 1 -> 0.994, +0.60 points worse; allowed 0.50" in limited.why
    heads = [column.head for column in tables.used([base])]
    assert {"mAP %", "mAP hard %", "mAP worst class %"} <= set(heads)
    assert "top-1 %" not in heads


def test_truths_that_do_not_fit_are_said_before_the_work(place, tmp_path):
    """Other classes: similarity decides, and the share of objects that are found again."""
    folder, _, _ = place
    (folder / "scenes" / "data.yaml").rename(tmp_path / "kept.yaml")
    text = (tmp_path / "kept.yaml").read_text()
    try:
        (folder / "scenes" / "data.yaml").write_text(text + "  3: white\n")
        said: list[str] = []
        summary = export(
            str(folder / "yolo.onnx"), data=str(folder / "scenes"), precision="fp32,fp16", target="ort-x86",
            out=tmp_path / "bundle", say=said.append,
        )  # fmt: skip
    finally:
        (folder / "scenes" / "data.yaml").write_text(text)
    line = "the data has 4 classes, the network 3, so similarity to FP32 decides"
    assert line in said
    assert said.index(line) < next(at for at, one in enumerate(said) if one.startswith("optimize"))
    check = next(one for one in summary.checks if one.name == "accuracy fp16")
    assert check.passed
    assert "so similarity decides: the agreement is" in check.detail
    assert "map" not in summary.artefacts[0].results["test"]


def test_a_detector_without_a_head_is_refused_and_a_wrong_one_too(place, tmp_path):
    folder, _, _ = place
    write_detector(tmp_path / "bare.onnx", metadata=False)
    options = {"data": str(folder / "scenes"), "precision": "fp32", "out": tmp_path / "b", "say": lambda line: None}
    network = describe(str(tmp_path / "bare.onnx"), task="detect")
    facts = {fact.name: fact for fact in network.facts}
    assert (facts["decoder"].value, facts["decoder"].is_guess) == ({"head": "yolo"}, True)
    assert facts["num_classes"].value == 3
    (tmp_path / "spec.toml").write_text('[network]\ntask = "detect"\nclasses = 5\n[decoder]\nhead = "yolo"\n')
    with pytest.raises(UsageError, match=r"do not fit the decoder .*expected \(9, N\).*correct \[decoder\]"):
        export(str(tmp_path / "bare.onnx"), **options, spec=tmp_path / "spec.toml")
    model = onnx.load(tmp_path / "bare.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info("map", 1, [1, 3, SIDE, SIDE]))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(UsageError, match="nothing says how the outputs of two are decoded"):
        export(str(tmp_path / "two.onnx"), **options, task="detect")
    assert not (tmp_path / "b").exists()


def test_spec_writes_the_decoder_as_a_table_that_export_reads(place, tmp_path):
    folder, _, _ = place
    done = CliRunner().invoke(main, ["spec", str(folder / "yolo.onnx"), "-o", str(tmp_path / "spec.toml")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "spec.toml").read_text()
    assert '[decoder]  # a guess: the shapes of the outputs\nhead = "yolo"' in text
    (tmp_path / "spec.toml").write_text(
        text.replace('head = "yolo"', 'head = "yolo"\niou_threshold = 0.4\nstrides = [8]')
    )
    spec = describe(str(folder / "yolo.onnx"), spec=tmp_path / "spec.toml").spec
    assert spec.decoder == {"head": "yolo", "iou_threshold": 0.4, "strides": (8,)}
    (tmp_path / "spec.toml").write_text(text.replace('head = "yolo"', 'head = "yolo"\niou = 0.4'))
    with pytest.raises(UsageError, match=r"decoder.iou is not one of"):
        describe(str(folder / "yolo.onnx"), spec=tmp_path / "spec.toml")


@pytest.mark.slow
def test_int8_has_a_budget_in_points_of_map(tmp_path):
    """The budget decides: what loses more than it stays in float or is left out."""
    write_yolo_folder(tmp_path / "scenes", train=32, val=12)
    summary = export(
        str(write_detector(tmp_path / "yolo.onnx")), data=str(tmp_path / "scenes"), precision="fp32,int8",
        target="ort-x86", out=tmp_path / "bundle", max_drop=2.0, calibration=32, say=lambda line: None,
    )  # fmt: skip
    fp32, int8 = summary.artefacts
    check = next(one for one in summary.checks if one.name == "accuracy int8-ort-x86")
    lost = max(fp32.results[split]["map"] - int8.results[split]["map"] for split in ("test", "hard"))
    assert (lost <= 2.0 + 1e-9) == (check.passed is True)
    assert "points (allowed -2.0)" in check.detail
    assert Path(summary.bundle).is_dir()
