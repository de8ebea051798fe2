"""What tasks learn from: SSD's loss beside the paper's formula in plain Python, matching, truths in pixels."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from edgesmith.models import anchors, catalog, weights
from edgesmith.models.training import multibox, train, transfer
from edgesmith.models.training.batches import Batches
from edgesmith.models.training.objectives import find_objective
from edgesmith.models.training.recipes import RECIPES, Recipe
from edgesmith.runtime import datasets
from edgesmith.runtime.datasets.truths import Instances
from edgesmith.runtime.errors import DataError, UsageError
from edgesmith.runtime.tasks import find

torch.set_num_threads(1)
VARIANCES = (0.1, 0.1, 0.2, 0.2)


def overlap(one, two):
    wide = min(one[2], two[2]) - max(one[0], two[0])
    tall = min(one[3], two[3]) - max(one[1], two[1])
    shared = max(wide, 0) * max(tall, 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return shared / (area(one) + area(two) - shared)


def matched(boxes, priors):
    """Return the index of the object of each default box, or None, as the paper says it."""
    corners = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in priors]
    table = [[overlap(corner, box) for box in boxes] for corner in corners]
    result = [None] * len(priors)
    for at, row in enumerate(table):
        if row and max(row) >= 0.5:
            result[at] = row.index(max(row))
    for number in range(len(boxes)):
        column = [row[number] for row in table]
        result[column.index(max(column))] = number
    return result


def formula(deltas, scores, boxes, labels, priors):
    """Return the sums of both losses, and the number of positives, of one image."""
    pairs = matched(boxes, priors)
    total, hard, positives = 0.0, [], 0
    for at, number in enumerate(pairs):
        log_sum = math.log(sum(math.exp(score) for score in scores[at]))
        if number is None:
            hard.append(log_sum - scores[at][0])
            continue
        positives += 1
        total += log_sum - scores[at][labels[number] + 1]
        (x1, y1, x2, y2), (x, y, w, h) = boxes[number], priors[at]
        wanted = [((x1 + x2) / 2 - x) / w / 0.1, ((y1 + y2) / 2 - y) / h / 0.1,
                  math.log((x2 - x1) / w) / 0.2, math.log((y2 - y1) / h) / 0.2]  # fmt: skip
        for one, other in zip(deltas[at], wanted, strict=True):
            gap = abs(one - other)
            total += 0.5 * gap**2 if gap < 1 else gap - 0.5
    return total + sum(sorted(hard, reverse=True)[: 3 * positives]), positives


def example(seed, images=3, objects=(2, 0, 4), count=40):
    rng = np.random.default_rng(seed)
    priors = np.concatenate([rng.uniform(10, 90, (count, 2)), rng.uniform(10, 40, (count, 2))], 1)
    truth = np.full((images, max(objects), 5), -1.0)
    for at, number in enumerate(objects):
        corner, size = rng.uniform(0, 60, (number, 2)), rng.uniform(10, 40, (number, 2))
        truth[at, :number] = np.concatenate([corner, corner + size, rng.integers(0, 3, (number, 1))], 1)
    return rng.normal(size=(images, count, 4)), rng.normal(size=(images, count, 4)), truth, priors


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_the_paper_s(seed):
    deltas, scores, truth, priors = example(seed)
    parts = []
    for at in range(len(truth)):
        real = truth[at][truth[at][:, 4] >= 0]
        parts.append(formula(deltas[at], scores[at], real[:, :4].tolist(), real[:, 4].astype(int).tolist(), priors))
    expected = sum(part for part, _ in parts) / sum(count for _, count in parts)
    got = multibox.loss(*map(torch.from_numpy, (deltas, scores, truth, priors)), VARIANCES).item()
    assert got == pytest.approx(expected, rel=1e-12)


def test_without_any_object_the_loss_is_zero_and_has_gradients():
    deltas, scores, truth, priors = map(torch.from_numpy, example(0, objects=(0, 0, 0)))
    truth = torch.full((3, 1, 5), -1.0, dtype=torch.float64)
    deltas.requires_grad_()
    loss = multibox.loss(deltas, scores, truth, priors, VARIANCES)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(deltas.grad).all()


PRIORS = [[10, 10, 20, 20], [30, 10, 20, 20], [50, 10, 20, 20], [12, 10, 20, 20]]
MATCHES = {
    "the best and those that overlap enough": ([[0, 0, 20, 20, 0]], [0, -1, -1, 0]),
    "a small object gets one in any case": ([[44, 4, 48, 8, 0]], [-1, -1, 0, -1]),
    "two objects": ([[0, 0, 20, 20, 0], [40, 0, 60, 20, 1]], [0, -1, 1, 0]),
    "two objects whose best is the same: the later": ([[21, 1, 39, 19, 0], [20, 0, 40, 20, 1]], [-1, 1, -1, -1]),
    "a row that is no object": ([[0, 0, 20, 20, -1]], [-1, -1, -1, -1]),
    "no object, then one": ([[-1, -1, -1, -1, -1], [20, 0, 40, 20, 1]], [-1, 1, -1, -1]),
}


@pytest.mark.parametrize("case", MATCHES)
def test_matching(case):
    rows, expected = MATCHES[case]
    truth = torch.tensor([rows], dtype=torch.float32)
    assert multibox.match(truth, torch.tensor(PRIORS, dtype=torch.float32))[0].tolist() == expected


def test_what_is_encoded_is_what_the_decoder_of_the_bundle_decodes():
    spec = catalog.network_spec("ssdlite_mobilenetv2", "scenes")
    data = datasets.load("scenes", "test").head(4)
    objective = find_objective(spec)
    truth = objective.batch(data.truths_for(spec, "boxes"), range(4))
    priors = torch.tensor(train_anchors(spec))
    index = multibox.match(truth, priors)
    own = truth.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, 5))
    deltas = multibox.encode(own[..., :4], priors, VARIANCES).float().numpy()
    scores = torch.nn.functional.one_hot(torch.where(index >= 0, own[..., 4].long() + 1, 0), 11).numpy() * 20.0
    answers = [find("detect").reduce({"boxes": one, "scores": two.astype(np.float32)}, spec.context())
               for one, two in zip(deltas, scores, strict=True)]  # fmt: skip
    batch = {name: [answer[name] for answer in answers] for name in answers[0]}
    score = find("detect").score(batch, data.truths_for(spec, "boxes"), spec.context())
    assert score.values["map_ratio"] > 0.97


def train_anchors(spec):
    rows = []
    for height, width, sizes in spec.decoder["levels"]:
        for y in range(height):
            for x in range(width):
                rows += [[(x + 0.5) * 96 / width, (y + 0.5) * 96 / height, *size] for size in sizes]
    return rows


def test_default_boxes_are_those_of_the_paper():
    levels = anchors.default_boxes((320, 320), 16, 6, (0.2, 0.95), (2, 3))
    assert [level[:2] for level in levels] == [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    first, last = levels[0][2], levels[-1][2]
    np.testing.assert_allclose(first[0], (64, 64))
    np.testing.assert_allclose(first[1], (320 * math.sqrt(0.2 * 0.35),) * 2)
    np.testing.assert_allclose(first[2:4], [(64 * 2**0.5, 64 / 2**0.5), (64 / 2**0.5, 64 * 2**0.5)])
    np.testing.assert_allclose(last[4], (320, 0.95 * 320 / 3**0.5))
    wide = anchors.default_boxes((96, 160), 16, 6, (0.2, 0.95), (2, 3))
    assert [level[:2] for level in wide] == [(6, 10), (3, 5), (2, 3), (1, 2), (1, 1), (1, 1)]
    np.testing.assert_allclose(wide[0][2][0], (32, 19.2))


class Boxes:
    """An image of 20x10 pixels with boxes: one, one without an area, and a crowd."""

    @staticmethod
    def truth():
        boxes = np.array([[2.0, 1, 10, 5], [3, 3, 3, 9], [0, 0, 20, 10]])
        return Instances((10, 20), boxes, np.array([1, 0, 0]), np.array([False, False, True]), np.ones(3))


def test_boxes_are_learnt_in_pixels_of_the_input():
    spec = catalog.network_spec("ssdlite_mobilenetv2", "scenes")
    table = find_objective(spec).batch(
        [Boxes.truth(), dataclasses.replace(Boxes.truth(), crowd=np.ones(3, bool))], [0, 1]
    )
    np.testing.assert_allclose(table, [[[9.6, 9.6, 48, 48, 1]], [[-1] * 5]])


class Pixels:
    """A mask of 4x2 pixels."""

    size = (2, 4)

    def pixels(self):
        return np.array([[0, 1, 2, 255], [3, 4, 5, 6]])


def test_masks_are_learnt_at_the_size_of_the_input():
    spec = catalog.network_spec("lraspp_mobilenetv3", "scenes")
    whole = find_objective(spec).batch([Pixels()], [0])
    assert (whole.dtype, tuple(whole.shape)) == (torch.uint8, (1, 96, 96))
    assert whole[0, ::48, ::24].tolist() == [[0, 1, 2, 255], [3, 4, 5, 6]]
    assert whole[0, 47, 23::24].tolist() == [0, 1, 2, 255]
    padded = dataclasses.replace(spec, preprocess=dataclasses.replace(spec.preprocess, fit="letterbox"))
    boxed = find_objective(padded).batch([Pixels()], [0])[0]
    assert (boxed[:24] == 255).all()
    assert (boxed[72:] == 255).all()
    assert boxed[24:72:24, ::24].tolist() == [[0, 1, 2, 255], [3, 4, 5, 6]]


def test_the_loss_of_maps_leaves_out_pixels_that_nobody_judges():
    objective = find_objective(catalog.network_spec("lraspp_mobilenetv3", "scenes"))
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 11, 4, 6)))
    truth = torch.from_numpy(np.random.default_rng(1).integers(0, 11, (2, 4, 6))).to(torch.uint8)
    truth[0, 0] = 255
    table, own = torch.log_softmax(scores, 1), truth.long()
    places = [place for place in np.ndindex(2, 4, 6) if own[place] < 255]
    parts = [-table[n, own[n, y, x], y, x] for n, y, x in places]
    assert objective.loss(scores, truth, 0.0).item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-12)
    fine = truth.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert objective.loss(scores, fine, 0.0).item() == pytest.approx(objective.loss(scores, truth, 0.0).item())


REFUSED = {
    "no task that is learnt": ("autoencoder", "scenes", "detect", UsageError, "autoencoder cannot be trained"),
    "sounds": ("tdnn", "digits", "onecycle", UsageError, "cannot be trained"),
    "a recipe that moves things": ("lraspp_mobilenetv3", "scenes", "onecycle", UsageError, "moves what"),
    "digits for a detector": ("ssdlite_mobilenetv2", "digits", "detect", DataError, "training needs boxes"),
    "scenes for a classifier": ("lenet5", "scenes", "onecycle", DataError, "training needs labels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_training_is_refused_before_it_begins(case, monkeypatch):
    name, data, recipe, kind, words = REFUSED[case]
    monkeypatch.setattr(train, "fit_module", lambda *_, **__: pytest.fail("training began"))
    few = datasets.load("scenes" if data == "scenes" else "digits", "test").head(4)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: few)
    with pytest.raises(kind, match=words):
        train.train(name, data, recipe=recipe)


@pytest.mark.parametrize("name", ["ssdlite_mobilenetv2", "lraspp_mobilenetv3"])
def test_one_step_after_another_lowers_the_loss_and_the_score_is_the_task_s(name):
    spec = catalog.network_spec(name, "scenes")
    feed = Batches.of(datasets.load("scenes", "test").head(4), spec)
    torch.manual_seed(0)
    module = catalog.build_network(name, spec.num_classes)
    own = RECIPES[catalog.find_network(name).row["recipe"]]
    recipe = Recipe(schedule="constant", epochs=6, batch=2, lr=1e-3, augment=own.augment)
    history = train.fit_module(module, feed, recipe, say=lambda row: None)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    score = train.score(module, feed)
    assert 0 <= score <= 100


def test_the_package_s_weights_of_the_backbone_begin_the_training():
    start = weights.usual_start("ssdlite_mobilenetv2")
    assert weights.usual_start("lraspp_mobilenetv3") == "random"
    classifier = catalog.build_network("mobilenetv2", 10)
    weights.load_into(classifier, catalog.network_spec("mobilenetv2", "digits"), "digits")
    module = transfer.start_from(catalog.build_network("ssdlite_mobilenetv2", 10), start, "mobilenetv2").eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(module.backbone.features(x), classifier.features(x))
