"""Detection: each head reads the same objects, boxes lie in the image, selection and metric are what loops say."""

import dataclasses
import json

import numpy as np
import pytest

from edgesmith.runtime import tasks
from edgesmith.runtime.answer import Answer
from edgesmith.runtime.datasets.truths import Instances
from edgesmith.runtime.errors import DataError, ModelError
from edgesmith.runtime.images.boxes import iou, nms
from edgesmith.runtime.images.geometry import placement
from edgesmith.runtime.images.settings import Preprocess
from edgesmith.runtime.spec import ModelSpec
from edgesmith.runtime.tasks import DecodeContext
from edgesmith.runtime.tasks._head_settings import SETTINGS, complete
from edgesmith.runtime.tasks._heads import anchor_boxes

DETECT = tasks.find("detect")
SIDE = 64
STRETCH = Preprocess((SIDE, SIDE), 0, mean=(0.0,) * 3, std=(1.0,) * 3)
# Two objects of three classes, x1, y1, x2, y2 in pixels of the input, whose centres are those of cells of 8 pixels.
BOXES = np.array([[8.0, 12.0, 32.0, 28.0], [32.0, 32.0, 40.0, 56.0]])
SCORES, LABELS = np.array([0.9, 0.6]), np.array([2, 0])
CENTRES, SIZES = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
CLASSES = 3


def class_scores(count=10, low=0.001):
    """Scores (count, classes) whose first two rows are the objects."""
    table = np.full((count, CLASSES), low)
    table[[0, 1], LABELS] = SCORES
    return table


def padded(rows, count=10, value=1.0):
    return np.concatenate([rows, np.full((count - len(rows), rows.shape[1]), value)])


def logit(share):
    return np.log(share / (1 - share))


def yolo():
    return {"head": "yolo"}, [np.concatenate([padded(np.hstack([CENTRES, SIZES])).T, class_scores().T])]


def yolo_by_rows():
    settings, (table,) = yolo()
    return settings, [table.T]


def yolo_v5():
    table = np.hstack([padded(np.hstack([CENTRES, SIZES])), np.full((10, 1), 0.5), class_scores() * 2])
    table[:, 5:] = np.minimum(class_scores() / 0.5, 2)
    return {"head": "yolo-objectness"}, [table]


def yolox():
    """A raw grid of strides 8 and 16, cell by cell."""
    cells = [(x, y, stride) for stride in (8, 16) for y in range(SIDE // stride) for x in range(SIDE // stride)]
    table = np.full((len(cells), 5 + CLASSES), 1e-4)
    for at, cell in enumerate(((2, 1, 8), (2, 3, 16))):
        row, (x, y, stride) = table[cells.index(cell)], cell
        row[:2] = CENTRES[at] / stride - (x, y)
        row[2:4] = np.log(SIZES[at] / stride)
        row[4], row[5 + LABELS[at]] = 1, SCORES[at]
    return {"head": "yolo-objectness", "strides": (8, 16)}, [table]


def end_to_end():
    rows = np.hstack([BOXES, SCORES[:, None], LABELS[:, None]])
    return {"head": "end-to-end"}, [padded(rows, value=0.0)]


def paddle():
    rows = np.hstack([LABELS[:, None] + 1, SCORES[:, None], BOXES])
    columns = ("label", "score", "x1", "y1", "x2", "y2")
    return {"head": "end-to-end", "columns": columns, "first_label": 1}, [rows]


def tensorrt_plugin():
    parts = [padded(BOXES), padded(SCORES[:, None])[:, 0], padded(LABELS[:, None])[:, 0], np.array([2])]
    return {"head": "selected", "count": ("o3",)}, parts


def tensorflow():
    boxes = BOXES[:, [1, 0, 3, 2]] / SIDE
    return {"head": "selected", "form": "yxyx", "unit": "shares", "first_label": 1}, [boxes, SCORES, LABELS + 1.0]


def decoded():
    return {"head": "boxes", "form": "xywh"}, [padded(np.hstack([BOXES[:, :2], SIZES])), class_scores()]


LEVELS = ((4, 4, ((16.0, 16.0), (24.0, 12.0))), (2, 2, ((40.0, 40.0),)))


def ssd():
    """Softmax with the background first, deltas to anchors; torchvision's variances."""
    anchors = anchor_boxes(complete({"levels": LEVELS}), (SIDE, SIDE))
    rows = np.zeros((len(anchors), 4))
    chances = np.full((len(anchors), CLASSES + 1), 0.01)
    chances[:, 0] = 1 - 0.03
    for at, place in enumerate((11, 26)):
        anchor = anchors[place]
        rows[place] = [*((CENTRES[at] - anchor[:2]) / anchor[2:] / 0.1), *(np.log(SIZES[at] / anchor[2:]) / 0.2)]
        chances[place] = (1 - SCORES[at]) / CLASSES
        chances[place, 1 + LABELS[at]] = SCORES[at]
    return {"head": "anchors", "levels": LEVELS}, [rows, np.log(chances)]


def ssd_by_strides():
    """The same anchors without the number of cells, so that the settings fit any size of input."""
    return {"head": "anchors", "strides": (16, 32), "sizes": tuple(sizes for _, _, sizes in LEVELS)}, ssd()[1]


def retinanet():
    rows = ssd()[1][0]
    scores = np.full((len(rows), CLASSES), 0.001)
    scores[[11, 26], LABELS] = SCORES
    listed = tuple(map(tuple, anchor_boxes(complete({"levels": LEVELS}), (SIDE, SIDE)).tolist()))
    return {"head": "anchors", "anchors": listed, "activation": "sigmoid", "background": -1}, [rows, logit(scores)]


def sides(bins=1, offset=0.5):
    """Distances from the cell's point to the four sides, in strides, and the cells' numbers."""
    rows, places = np.zeros((64, 4)), []
    for at in range(2):
        x, y = (CENTRES[at] // 8).astype(int)
        point = (np.array([x, y]) + offset) * 8
        rows[8 * y + x] = np.concatenate([point - BOXES[at, :2], BOXES[at, 2:] - point]) / 8
        places.append(8 * y + x)
    return rows, places


def fcos():
    """One map for each of scores, sides and centredness; a score is the root of the product."""
    rows, places = sides()
    scores = np.full((64, CLASSES), 1e-6)
    scores[places, LABELS] = SCORES**2 / 0.95
    centred = np.full(64, 0.95)
    parts = [rows.T.reshape(4, 8, 8), logit(scores).T.reshape(CLASSES, 8, 8), logit(centred).reshape(1, 8, 8)]
    return {"head": "distances", "strides": (8,), "centres": ("o2",)}, parts


def nanodet():
    """Scores and 8 bins of each distance in one table, points at the cells' corners."""
    rows, places = sides(offset=0.0)
    bins = np.zeros((64, 4, 8))
    for row, side in np.ndindex(64, 4):
        low = min(int(rows[row, side]), 6)
        share = rows[row, side] - low
        bins[row, side] = np.log(np.maximum(np.bincount([low, low + 1], [1 - share, share], 8), 1e-12))
    scores = np.full((64, CLASSES), 0.001)
    scores[places, LABELS] = SCORES
    settings = {"head": "distances", "strides": (8,), "bins": 8, "offset": 0.0, "scores_first": True}
    return {**settings, "activation": "none"}, [np.hstack([scores, bins.reshape(64, 32)])]


HEADS = [yolo, yolo_by_rows, yolo_v5, yolox, end_to_end, paddle, tensorrt_plugin, tensorflow, decoded, ssd,
         ssd_by_strides, retinanet, fcos, nanodet]  # fmt: skip


def context(settings, preprocess=STRETCH, size=None, **more):
    return DecodeContext(("a", "b", "c"), "", CLASSES, settings, preprocess, size, **more)


def outputs_of(parts):
    return {f"o{at}": np.asarray(part, np.float32) for at, part in enumerate(parts)}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_reads_the_same_objects(head):
    settings, parts = head()
    DETECT.check_decoder(settings)
    outputs = outputs_of(parts)
    assert DETECT.fits(outputs, context(settings))
    answer = DETECT.decode(outputs, context(settings))
    assert np.allclose(answer.boxes, BOXES, atol=2e-4)
    assert np.allclose(answer.scores, SCORES, atol=1e-5)
    assert (answer.labels.tolist(), answer.names) == (LABELS.tolist(), ("c", "a"))
    counted = DETECT.reduce(outputs, context(settings))
    assert np.allclose(counted["boxes"][:2], BOXES, atol=2e-4)
    assert len(DETECT.decode(outputs, context({**settings, "score_threshold": 0.7}))) == 1
    assert len(DETECT.decode(outputs, context(settings, most=1))) == 1


FITS = {
    "stretch": (STRETCH, (30, 50)),
    "letterbox": (dataclasses.replace(STRETCH, fit="letterbox"), (47, 31)),
    "wide letterbox": (dataclasses.replace(STRETCH, fit="letterbox"), (33, 201)),
    "pad": (dataclasses.replace(STRETCH, fit="pad"), (50, 91)),
    "crop": (dataclasses.replace(STRETCH, resize=80), (60, 100)),
}


@pytest.mark.parametrize("fit", FITS)
def test_boxes_lie_in_the_image(fit):
    preprocess, size = FITS[fit]
    boxes = np.array([[20.0, 12.0, 29.0, 25.0]])
    placed = placement(size, preprocess).boxes_to_input(boxes)
    row = np.concatenate([placed[0], [0.8, 1]])
    answer = DETECT.decode(outputs_of([row[None]]), context({"head": "end-to-end"}, preprocess, size))
    assert np.allclose(answer.boxes, boxes, atol=1e-4)
    over = DETECT.decode(
        outputs_of([np.array([[-500, -500, 900, 900, 0.8, 1]])]), context({"head": "end-to-end"}, preprocess, size)
    )
    assert over.boxes[0, 0] >= 0
    assert over.boxes[0, 2] <= size[1]


def slow_nms(boxes, scores, threshold, classes):
    kept = []
    for at in sorted(range(len(scores)), key=lambda at: (-scores[at], at)):
        rivals = [other for other in kept if classes is None or classes[other] == classes[at]]
        if all(iou(boxes[[other]], boxes[[at]])[0, 0] <= threshold for other in rivals):
            kept.append(at)
    return kept


@pytest.mark.parametrize("seed", range(12))
def test_suppression_is_that_of_a_loop(seed):
    """Class-wise and agnostic, over several blocks, with ties and empty boxes."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 200))
    low = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(-2, 40, (count, 2))], 1)
    scores = np.round(rng.random(count), 1)
    classes = rng.integers(0, 3, count)
    for by in (None, classes):
        expected = slow_nms(boxes, scores, 0.4, by)
        assert nms(boxes, scores, 0.4, by).tolist() == expected
        assert nms(boxes, scores, 0.4, by, most=7).tolist() == expected[:7]


def agreement(one, two):
    """Of boxes (N, 4) with score 0.8 and class 1, unless there are more columns."""

    def rows(boxes):
        table = np.zeros((20, 6))
        table[: len(boxes), 4:] = 0.8, 1
        for at, box in enumerate(boxes):
            table[at, : len(box)] = box
        return {"o": table}

    settings = context({"head": "end-to-end"})
    batches = []
    for side in (one, two):
        part = DETECT.reduce(rows(side), settings)
        batches.append({name: [value] for name, value in part.items()})
    return DETECT.agreement(*batches, settings)


A, B = (0, 0, 10, 10), (20, 20, 40, 40)
AGREEMENTS = {
    "the same": ([A, B], [A, B], 1.0), "in another order": ([B, A], [A, B], 1.0),
    "moved a little": ([(1, 0, 11, 10), B], [A, B], 1.0), "moved too far": ([(6, 0, 16, 10), B], [A, B], 0.5),
    "one is lost": ([A], [A, B], 0.5), "one too many": ([A, B], [A], 0.5), "another class": ([(*A, 0.8, 2)], [A], 0.0),
    "below the threshold": ([(*A, 0.2, 1)], [A], 0.0), "twice": ([A, A], [A], 0.5), "nothing": ([], [], None),
    "all is lost": ([], [A], 0.0), "an unsure one is lost": ([A], [A, (*B, 0.3, 1)], 1.0),
    "an unsure one is new": ([A, (*B, 0.3, 1)], [A], 1.0), "a sure one is new": ([A, (*B, 0.4, 1)], [A], 0.5),
}  # fmt: skip


@pytest.mark.parametrize("case", AGREEMENTS)
def test_agreement_is_the_share_of_objects_found_again(case):
    one, two, expected = AGREEMENTS[case]
    assert agreement(one, two) == expected


def scenes(count=8, noise=2.0, seed=0):
    """Outputs of a made-up network, and the truth: most objects found, some badly, some twice, some that are none."""
    rng = np.random.default_rng(seed)
    outputs, truths = [], []
    for _ in range(count):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        objects = int(rng.integers(0, 5))
        low = rng.uniform(0, 25, (objects, 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 15, (objects, 2))], 1)
        labels = rng.integers(0, CLASSES - 1, objects)
        crowd = rng.random(objects) < 0.1
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
        truths.append(Instances(size, boxes, labels.astype(np.int64), crowd, areas))
        placed = placement(size, STRETCH).boxes_to_input(boxes)
        rows = np.zeros((12, 6))
        for at in range(objects):
            label = labels[at] if rng.random() < 0.8 else (labels[at] + 1) % CLASSES
            rows[at] = [*(placed[at] + rng.normal(0, noise, 4)), rng.uniform(0.3, 1), label]
        rows[10] = [5, 5, 30, 30, 0.2, 0]
        outputs.append(rows.astype(np.float32))
    return np.stack(outputs), truths


def counted(outputs, settings):
    parts = [DETECT.reduce({"o": one}, settings) for one in outputs]
    return {name: [part[name] for part in parts] for name in parts[0]}


@pytest.mark.parametrize("seed", range(3))
def test_the_metric_is_the_library_s_on_raw_outputs(seed):
    """COCO's records are written here by hand, in pixels of the images, from the raw rows."""
    from faster_coco_eval import COCO, COCOeval_faster

    outputs, truths = scenes(seed=seed)
    settings = context({"head": "end-to-end"})
    score = DETECT.score(counted(outputs, settings), truths, settings)
    known, results = [], []
    for number, (rows, truth) in enumerate(zip(outputs, truths, strict=True), 1):
        for box, label, crowd in zip(truth.boxes, truth.labels, truth.crowd, strict=True):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            known.append({"id": len(known) + 1, "image_id": number, "category_id": int(label) + 1, "area": w * h,
                          "bbox": [x, y, w, h], "iscrowd": int(crowd)})  # fmt: skip
        scale = np.array([truth.size[1] / SIDE, truth.size[0] / SIDE] * 2)
        limit = np.array([truth.size[1], truth.size[0]] * 2)
        for row in rows[rows[:, 4] > 0]:
            x1, y1, x2, y2 = np.clip(row[:4].astype(np.float64) * scale, 0, limit)
            results.append({"image_id": number, "category_id": int(row[5]) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
                            "score": float(row[4])})  # fmt: skip
    images = [{"id": at, "height": one.size[0], "width": one.size[1]} for at, one in enumerate(truths, 1)]
    categories = [{"id": at + 1, "name": "abc"[at]} for at in range(CLASSES)]
    library = COCO({"images": images, "annotations": known, "categories": categories})
    judge = COCOeval_faster(library, library.loadRes(results), "bbox", print_function=lambda *words: None)
    judge.run()
    assert score.values["map_ratio"] == pytest.approx(judge.stats[0], abs=1e-12)
    assert score.values["map50_ratio"] == pytest.approx(judge.stats[1], abs=1e-12)
    assert score.values["images_count"] == 8
    assert 0.05 < score.values["map_ratio"] < score.values["map50_ratio"] < 1
    assert {row["class"] for row in score.by_class} == {int(one) for truth in truths for one in truth.labels}
    mean = np.mean([row["map_ratio"] for row in score.by_class])
    assert mean == pytest.approx(score.values["map_ratio"], abs=0.02)  # a class of crowds alone counts only there


def test_worse_answers_have_a_lower_map_and_none_have_0():
    settings = context({"head": "end-to-end"})
    values = []
    for noise in (0.3, 2.0, 6.0):
        outputs, truths = scenes(noise=noise)
        values.append(DETECT.score(counted(outputs, settings), truths, settings).values["map_ratio"])
    assert values == sorted(values, reverse=True)
    nothing = counted(outputs * 0, settings)
    assert DETECT.score(nothing, truths, settings).values["map_ratio"] == 0
    with pytest.raises(DataError, match="8 answers, 7 truths"):
        DETECT.score(nothing, truths[1:], settings)


WRONG = {
    "an unknown head": ({"head": "yolo9000"}, "decoder.head 'yolo9000' is not one of"),
    "no head": ({"iou_threshold": 0.5}, "decoder.head '' is not one of"),
    "an unknown setting": ({"head": "yolo", "threshold": 0.5}, "decoder.threshold is not one of"),
    "a threshold of 50": ({"head": "yolo", "iou_threshold": 50}, "decoder.iou_threshold 50 cannot be used"),
    "NaN": ({"head": "yolo", "score_threshold": float("nan")}, "decoder.score_threshold nan cannot be used"),
    "a word": ({"head": "yolo", "most": "all"}, "decoder.most all cannot be used"),
    "a form": ({"head": "yolo", "form": "corners"}, "decoder.form 'corners' is not one of"),
    "strides of 0": ({"head": "distances", "strides": (8, 0)}, "decoder.strides"),
    "three variances": ({"head": "anchors", "variances": (1.0, 1.0, 1.0)}, "decoder.variances"),
    "no list": ({"head": "anchors", "variances": 3}, "decoder.variances 3 cannot"),
    "anchors of three": ({"head": "anchors", "anchors": ((1.0, 2.0, 3.0),)}, "decoder.anchors"),
    "a level": ({"head": "anchors", "levels": ((4, 4),)}, "decoder.levels"),
    "sizes of another number of levels": (
        {"head": "anchors", "strides": (8, 16), "sizes": (((9.0, 9.0),),)},
        "decoder.sizes",
    ),
    "a spread of 2": ({"head": "distances", "spread": 2}, "decoder.spread 2 cannot be used"),
    "columns": ({"head": "end-to-end", "columns": ("x1", "y1")}, "decoder.columns"),
    "a name alone": ({"head": "selected", "boxes": "boxes"}, "decoder.boxes boxes cannot"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_refused_where_a_spec_is_read(case):
    settings, message = WRONG[case]
    spec = ModelSpec("net", (3, SIDE, SIDE), CLASSES, task="detect", preprocess=STRETCH, decoder=settings)
    with pytest.raises(ModelError, match=message.replace("(", "\\(")):
        ModelSpec.from_json(json.dumps(spec.to_dict()))


@pytest.mark.parametrize("head", HEADS)
def test_a_spec_keeps_the_settings(head):
    settings, _ = head()
    spec = ModelSpec("net", (3, SIDE, SIDE), CLASSES, task="detect", preprocess=STRETCH, decoder=settings)
    again = ModelSpec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.context((9, 9)).decoder == settings
    assert set(settings) <= set(SETTINGS)


def test_settings_of_a_task_without_a_decoder_are_refused():
    values = ModelSpec("net", (3, 8, 8), 10).to_dict()
    assert "decoder" not in values
    with pytest.raises(ModelError, match="the task decodes without settings"):
        ModelSpec.from_json(json.dumps({**values, "decoder": {"head": "yolo"}}))


UNFIT = {
    "another number of classes": ({"head": "yolo"}, [np.zeros((9, 100))]),
    "four axes": ({"head": "yolo"}, [np.zeros((1, 7, 100, 1))]),
    "no head": ({}, [np.zeros((7, 100))]),
    "another grid": ({"head": "distances", "strides": (8, 16)}, [np.zeros((64, 7))]),
    "other anchors": ({"head": "anchors", "levels": LEVELS}, [np.zeros((9, 4)), np.zeros((9, 4))]),
    "an output is missing": ({"head": "selected"}, [np.zeros((9, 4)), np.zeros(9)]),
    "a name is missing": ({"head": "selected", "boxes": ("b",)}, [np.zeros((9, 4)), np.zeros(9), np.zeros(9)]),
    "fewer scores": ({"head": "selected"}, [np.zeros((9, 4)), np.zeros(8), np.zeros(9)]),
}


@pytest.mark.parametrize("case", UNFIT)
def test_outputs_that_do_not_fit_are_shown_by_their_shapes(case):
    settings, parts = UNFIT[case]
    answer = Answer(outputs_of(parts), "detect", context(settings))
    assert set(answer.show()["outputs"]) == set(outputs_of(parts))
    with pytest.raises(DataError):
        answer.decode()


GUESSES = {
    "v8": ({"output0": (84, 8400)}, 80, "yolo", 80), "v8 without names": ({"output0": (84, 8400)}, 0, "yolo", 80),
    "v5": ({"output0": (25200, 85)}, 80, "yolo-objectness", 80),
    "v5, one class": ({"o": (25200, 6)}, 1, "yolo-objectness", 1),
    "end to end": ({"output0": (300, 6)}, 80, "end-to-end", 80),
    "end to end, free": ({"o": (None, 6)}, 0, "end-to-end", 0),
    "plugin": ({"num_dets": (1,), "det_boxes": (100, 4), "det_scores": (100,), "det_classes": (100,)}, 3, "selected",
               3),
    "torchvision": ({"boxes": (None, 4)[:2], "labels": (None,), "scores": (None,)}, 91, "selected", 91),
    "decoded": ({"boxes": (3000, 4), "scores": (3000, 21)}, 0, "boxes", 21),
    "features": ({"p3": (64, 80, 80), "p4": (64, 40, 40)}, 0, None, 0), "a classifier": ({"o": (10,)}, 10, None, 10),
}  # fmt: skip


@pytest.mark.parametrize("case", GUESSES)
def test_a_head_is_guessed_from_names_and_shapes(case):
    shapes, classes, head, expected = GUESSES[case]
    settings, count = DETECT.guess_decoder(shapes, classes)
    assert (settings.get("head"), count) == (head, expected)
    DETECT.check_decoder(settings)


def test_what_is_shown_is_coco_s_and_the_drawing_shows_it():
    settings, parts = yolo()
    answer = Answer(outputs_of(parts), "detect", context(settings, size=(SIDE, SIDE)))
    objects = answer.show()["objects"]
    assert objects[0] == {"category_id": 2, "category": "c", "bbox": [8.0, 12.0, 24.0, 16.0], "score": 0.9}
    assert DETECT.line(answer.show()) == "2 objects: c 90 %, a 60 %"
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    drawn = answer.draw(image)
    assert (image == 90).all()
    changed = (drawn != 90).any(2)
    assert changed[12, 8:32].all()  # its upper edge
    assert changed[12:28, 8].all()
    assert not changed[20:26, 12:28].any()  # not what is inside
