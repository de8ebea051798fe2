"""Each task from a folder to its metric, on a network of a few nodes that is right, and on one that is not."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from PIL import Image

from edgesmith.bench.measure.evaluation import AnswerCollector
from edgesmith.runtime import datasets, tasks
from edgesmith.runtime.backends import ort
from edgesmith.runtime.spec import ModelSpec, Preprocess

SIDE, COUNT = 12, 30
COLOURS = np.array([(250, 10, 10), (10, 250, 10), (10, 10, 250)], np.uint8)
PLAIN = Preprocess((SIDE, SIDE), 0, "nearest", (0.0,) * 3, (1.0,) * 3)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def noise(at, shape=(SIDE, SIDE, 3)):
    return np.random.default_rng(at).integers(0, 256, shape)


def blocks(at):
    return np.kron(np.random.default_rng(at).integers(0, 3, (3, 3)), np.ones((4, 4), np.int64))


def segment(folder):
    for at in range(COUNT):
        save(folder / "images" / f"{at}.png", COLOURS[blocks(at)])
        save(folder / "masks" / f"{at}.png", blocks(at))


def classes(folder):
    """Pictures of three colours, and between them."""
    for at in range(COUNT):
        colour = COLOURS[at % 3].astype(int) + np.random.default_rng(at).integers(-10, 11, 3)
        save(
            folder / ("good", "green", "blue")[at % 3] / f"{at}.png", np.tile(np.clip(colour, 0, 255), (SIDE, SIDE, 1))
        )


def pairs(folder):
    classes(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    rows = [f"{one}\t{two}\t{int(one[:2] == two[:2])}\n" for one in files for two in files if one < two]
    (folder / "pairs.txt").write_text("".join(rows))


def anomaly(folder):
    classes(folder)
    np.save(folder / "bank.npy", np.array([[1, 0.04, 0.04]], np.float32))


def regress(folder):
    rows = []
    for at in range(COUNT):
        save(folder / f"{at}.png", np.full((SIDE, SIDE, 3), 8 * at))
        rows.append(f"{at}.png,{8 * at / 255}\n")
    (folder / "values.csv").write_text("".join(rows))


def multi_label(folder):
    rows = ["file,red,green,blue"]
    for at in range(COUNT):
        labels = np.array([at & 1, at >> 1 & 1, at >> 2 & 1])
        save(folder / f"{at}.png", np.tile(40 + 200 * labels, (SIDE, SIDE, 1)))
        rows.append(f"{at}.png," + ",".join(map(str, labels)))
    (folder / "multilabel.csv").write_text("\n".join(rows))


def text(folder):
    rows = []
    for at in range(COUNT):
        steps = np.random.default_rng(at).integers(0, 3, 2 * SIDE // 3)
        path = np.repeat(steps, 2)[:SIDE]
        save(folder / f"{at}.png", np.tile(COLOURS[path][None], (SIDE, 1, 1)))
        kept = [one for one, before in zip(path, [-1, *path], strict=False) if one != before and one]
        rows.append(f"{at}.png\t{''.join('-xy'[one] for one in kept) or '-'}\n")
    (folder / "texts.txt").write_text("".join(rows))


def depth(folder):
    (folder / "depth").mkdir(parents=True)
    for at in range(COUNT):
        save(folder / "images" / f"{at}.png", noise(at))
        np.save(folder / "depth" / f"{at}.npy", noise(at)[..., 0] / 25.5)


def keypoints(folder):
    """Three channels, each with one bright pixel: the heatmaps of three keypoints."""
    rows = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    for at in range(COUNT):
        points, image = np.random.default_rng(at).integers(1, SIDE - 1, (3, 2)), np.zeros((SIDE, SIDE, 3))
        image[points[:, 1], points[:, 0], range(3)] = 250
        save(folder / f"{at}.png", image)
        flat = np.column_stack([points, [2, 2, 2]]).ravel().tolist()
        rows["images"].append({"id": at, "file_name": f"{at}.png"})
        rows["annotations"].append(
            {"image_id": at, "category_id": 1, "keypoints": flat, "bbox": [0, 0, SIDE, SIDE], "area": SIDE**2}
        )
    (folder / "keypoints.json").write_text(json.dumps(rows))


def targets(folder):
    for at in range(COUNT):
        save(folder / "images" / f"{at}.png", noise(at))
        save(folder / "targets" / f"{at}.png", noise(at).repeat(2, axis=0).repeat(2, axis=1))


def pictures(folder):
    for at in range(COUNT):
        save(folder / f"{at}.png", noise(at))


@dataclasses.dataclass
class Case:
    """A task's data, the nodes of a network x -> y that answers rightly, and what it scores."""

    write: object
    nodes: str
    score: float
    task: str = ""
    labels: tuple = ()
    shape: str = f"N, 3, {SIDE}, {SIDE}"
    wrong: str = "Mul(x, minus)"  # what the wrong network makes of the image first
    classes: int = 3


COLOUR = "mean = GlobalAveragePool(x1)  y = Flatten(mean)"
CASES = {
    "segment": Case(segment, "y = Identity(x1)", 1.0),
    "embed": Case(classes, COLOUR, 1.0, shape="N, 3", wrong="Mul(x, zero)"),
    "embed, pairs": Case(pairs, COLOUR, 1.0, "embed", shape="N, 3", wrong="Mul(x, zero)"),
    "anomaly": Case(anomaly, COLOUR, 1.0, shape="N, 3"),
    "regress": Case(regress, "red = Slice(x1, zeros, ones, ones)  mean = GlobalAveragePool(red)  y = Flatten(mean)",
                    1.0, shape="N, 1"),
    "multi_label": Case(multi_label, COLOUR, 1.0, labels=("red", "green", "blue"), shape="N, 3"),
    "text": Case(text, "row = ReduceMean<axes = [2], keepdims = 0>(x1)  y = Transpose<perm = [2, 0, 1]>(row)", 0.0,
                 labels=("x", "y"), shape=f"{SIDE}, N, 3"),
    "depth": Case(depth, "ten = Mul(x1, tens)  y = Slice(ten, zeros, ones, ones)", 0.0, shape=f"N, 1, {SIDE}, {SIDE}",
                  wrong="Mul(x, zero)"),
    "keypoints": Case(keypoints, "y = Identity(x1)", 1.0, wrong="Transpose<perm = [0, 1, 3, 2]>(x)", classes=1),
    "super_resolve": Case(targets, 'y = Resize<mode = "nearest">(x1, , scales)', 100.0,
                          shape=f"N, 3, {2 * SIDE}, {2 * SIDE}"),
    "reconstruct": Case(pictures, "y = Identity(x1)", 100.0),
}  # fmt: skip


def network(path, case, right):
    first = "Identity(x)" if right else case.wrong
    onnx.save(
        onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[N, 3, {SIDE}, {SIDE}] x) => (float[{case.shape}] y)
        <float minus = {{-1.0}}, float zero = {{0.0}}, float tens = {{10.0}},
         int64[1] zeros = {{0}}, int64[1] ones = {{1}}, float[4] scales = {{1.0, 1.0, 2.0, 2.0}}>
        {{ x1 = {first}  {case.nodes} }}"""),
        path,
    )
    return path


def scored(name, tmp_path, right):
    case = CASES[name]
    spec = ModelSpec("net", (3, SIDE, SIDE), case.classes, case.task or name, input_name="x", output_names=("y",),
                     preprocess=PLAIN, labels=case.labels)  # fmt: skip
    data, task = datasets.load(tmp_path / "data", "test"), tasks.find(spec.task)
    with ort.open(network(tmp_path / "net.onnx", case, right), threads=1) as session:
        collector = AnswerCollector(spec, [session])
        collector.run(data.batches(spec, 4))
    (answers,) = collector.results()
    assert answers.count == len(data) > 2
    assert task.agreement(answers.reduced, answers.reduced, spec.context()) == 1.0 or not right
    score = task.score(answers.reduced, data.truths_for(spec, task.truth), spec.context())
    assert score.values["images_count"] == len(data)
    return score.values[task.metric], task


@pytest.mark.parametrize("name", CASES)
def test_a_right_network_scores_and_a_wrong_one_does_not(name, tmp_path):
    CASES[name].write(tmp_path / "data")
    right, task = scored(name, tmp_path, right=True)
    assert right == pytest.approx(CASES[name].score, abs=2e-3)
    wrong, _ = scored(name, tmp_path, right=False)
    assert task.lost(right, wrong) > (20 if task.scale == 100 else 3)
