"""The boxes of the zoo's detectors: their specs' decoders give what the formulas of the libraries they are from give.

The formulas are written here in float64, without ours: anchors, deltas and distances as torchvision has them, the
grid as YOLOX has it. The networks are asked only for the shapes of their outputs; the numbers in them are noise.
"""

import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgesmith.export.outputs import named_leaves
from edgesmith.models import catalog
from edgesmith.models.checkpoints import load_checkpoint
from edgesmith.runtime.errors import ModelError
from edgesmith.runtime.spec import ModelSpec
from edgesmith.runtime.tasks._heads import read

STRIDES = (8, 16, 32, 64, 128)


def cells(size, counts, offset):
    """Points x, y of each cell of a map, `offset` of a step into it; torchvision's step is the size over the cells."""
    steps = [side // count for side, count in zip(size, counts, strict=True)]
    rows, columns = ((np.arange(count) + offset) * step for count, step in zip(counts, steps, strict=True))
    return [(x, y) for y, x in itertools.product(rows, columns)]


def map_sizes(size, strides):
    """Rows and columns of each map of convolutions of stride 2 that keep the sides."""
    return [tuple(int(np.ceil(side / stride)) for side in size) for stride in strides]


def shifted(anchors, deltas, weights):
    """Torchvision's BoxCoder: anchors as corners, deltas of centre and logarithm of size, divided by the weights."""
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    dx, dy, dw, dh = (deltas[:, at] / weights[at] for at in range(4))
    x, y = anchors[:, 0] + width / 2 + dx * width, anchors[:, 1] + height / 2 + dy * height
    limit = np.log(1000 / 16)
    width, height = width * np.exp(np.minimum(dw, limit)), height * np.exp(np.minimum(dh, limit))
    return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def retinanet(outputs, size):
    anchors = []
    for stride, counts in zip(STRIDES, map_sizes(size, STRIDES), strict=True):
        sides = [int(4 * stride * 2 ** (step / 3)) for step in range(3)]
        shapes = [(side / np.sqrt(ratio), side * np.sqrt(ratio)) for ratio in (0.5, 1, 2) for side in sides]
        base = np.round(np.array([(-w, -h, w, h) for w, h in shapes]) / 2)
        anchors += [base + np.array([x, y, x, y]) for x, y in cells(size, counts, 0)]
    boxes = shifted(np.concatenate(anchors), outputs["boxes"], (1, 1, 1, 1))
    return boxes, sigmoid(outputs["scores"]).T


def fcos(outputs, size):
    points, sides = [], []
    for stride, counts in zip(STRIDES, map_sizes(size, STRIDES), strict=True):
        points += cells(size, counts, 0)
        sides += [stride] * (counts[0] * counts[1])
    points, far = np.array(points), outputs["boxes"] * np.array(sides)[:, None]
    boxes = np.concatenate([points - far[:, :2], points + far[:, 2:]], 1)
    return boxes, np.sqrt(sigmoid(outputs["scores"]) * sigmoid(outputs["centres"])).T


def default_boxes(size, scales, ratios, maps, steps):
    """Torchvision's DefaultBoxGenerator: cells' centres by step, shapes by scale and ratio, cut off at the image."""
    boxes, image = [], np.array(size[::-1])
    for at, (counts, step) in enumerate(zip(maps, steps, strict=True)):
        shapes = [(scales[at],) * 2, (np.sqrt(scales[at] * scales[at + 1]),) * 2]
        for ratio in ratios[at]:
            wide, narrow = scales[at] * np.sqrt(ratio), scales[at] / np.sqrt(ratio)
            shapes += [(wide, narrow), (narrow, wide)]
        half = np.minimum(shapes, 1) * image / 2
        for row, column in itertools.product(*map(range, counts)):
            centre = (np.array([column, row]) + 0.5) * step
            boxes.append(np.concatenate([centre - half, centre + half], 1))
    return np.concatenate(boxes)


def beside_background(anchors, outputs):
    shares = np.exp(outputs["scores"] - outputs["scores"].max(1, keepdims=True))
    scores = (shares / shares.sum(1, keepdims=True))[:, 1:].T
    return shifted(anchors, outputs["boxes"], (10, 10, 5, 5)), scores


def ssd(outputs, size):
    scales, steps = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), (8, 16, 32, 64, 100, 300)
    maps, ratios = [(side, side) for side in (38, 19, 10, 5, 3, 1)], [(2,), (2, 3), (2, 3), (2, 3), (2,), (2,)]
    return beside_background(default_boxes(size, scales, ratios, maps, steps), outputs)


def ssdlite(outputs, size):
    scales = [0.2 + 0.75 * level / 5 for level in range(6)] + [1.0]
    maps = map_sizes(size, (16, 32, 64, 128, 256, 512))
    steps = [np.array(size[::-1]) / counts[::-1] for counts in maps]
    return beside_background(default_boxes(size, scales, [(2, 3)] * 6, maps, steps), outputs)


def yolox(outputs, size):
    """YOLOX's decode_outputs: (xy + cell) * stride, exp(wh) * stride; the objectness times the class."""
    table, rows = outputs["output"], []
    for stride in (8, 16, 32):
        rows += [(x, y, stride) for y in range(size[0] // stride) for x in range(size[1] // stride)]
    grid = np.array(rows)
    centre, half = (table[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(table[:, 2:4]) * grid[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1), (table[:, 4:5] * table[:, 5:]).T


FORMULAS = {
    "yolox_nano": (yolox, (None,)),
    "yolox_tiny": (yolox, ((96, 160),)),
    "yolox_s": (yolox, ((64, 96),)),
    "ssd300_vgg16": (ssd, (None,)),
    "ssdlite_mobilenetv2": (ssdlite, (None,)),
    "ssdlite_mobilenetv3": (ssdlite, (None, (96, 160))),
    "retinanet_resnet50": (retinanet, ((400, 400), (96, 160))),
    "retinanet_resnet50_v2": (retinanet, ((64, 72),)),
    "retinanet_resnet18": (retinanet, ((200, 136),)),
    "fcos_resnet50": (fcos, ((400, 400), (96, 160))),
    "fcos_resnet18": (fcos, ((200, 136),)),
}


def noisy_outputs(spec):
    """Outputs of one image, float64, of the shapes that the network has."""
    entry = catalog.find_network(spec.name)
    with torch.device("meta"), torch.no_grad():
        module = catalog.build_network(spec.name, entry.classes).eval()
        leaves = named_leaves(module(torch.zeros(1, *spec.input_shape)))
    rng = np.random.default_rng(0)
    assert tuple(leaves) == spec.output_names or (len(leaves), spec.output_names) == (1, ("output",))
    return {
        name: rng.normal(0, 2, leaf.shape[1:]) for name, leaf in zip(spec.output_names, leaves.values(), strict=True)
    }


CASES = [(name, size) for name, (_, sizes) in FORMULAS.items() for size in sizes]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_boxes_and_scores_are_those_of_the_library_s_formula(name, size):
    spec = catalog.network_spec(name)
    spec = ModelSpec.from_json((catalog.resized(spec, size) if size else spec).to_json())
    outputs = noisy_outputs(spec)
    boxes, scores = FORMULAS[name][0](outputs, spec.preprocess.crop)
    candidates = read(outputs, spec.context())
    assert np.allclose(candidates.boxes(np.arange(len(boxes))), boxes, rtol=1e-6, atol=2e-3)
    assert np.allclose(candidates.scores, scores, rtol=1e-5, atol=1e-7)
    assert candidates.scores.shape == (spec.num_classes, len(boxes))


@pytest.mark.parametrize(("name", "published"), [("yolox_nano", 1.08), ("yolox_tiny", 6.45), ("yolox_s", 26.8)])
def test_operations_of_yolox_are_those_of_the_published_table(name, published):
    """In G: two for each multiply-add, and for each value of batch norm four, as the library counts that it is from."""
    entry, values = catalog.find_network(name), []
    with torch.device("meta"), torch.no_grad():
        module = catalog.build_network(name, entry.classes).eval()
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.register_forward_hook(lambda layer, inputs, out: values.append(out.numel()))
        with FlopCounterMode(display=False) as counter:
            module(torch.zeros(1, *entry.input_shape))
    assert round((counter.get_total_flops() + 4 * sum(values)) / 1e9, 2) == published


EARLIER = {
    "retinanet_resnet18": [
        (r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1."),
        *((rf"conv\.{at}\.0\.", f"conv.{2 * at}.") for at in (3, 2, 1, 0)),
    ],
    "fcos_resnet18": [(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.")],
}


@pytest.mark.parametrize("name", EARLIER)
def test_weights_in_torchvision_s_first_layout_are_taken(name):
    """Its first files have a convolution itself where later ones have it in a block of its own."""
    one, two = (catalog.build_network(name, 3) for _ in range(2))
    state = {}
    for key, value in one.state_dict().items():
        for new, old in EARLIER[name]:
            key = re.sub(new, old, key)
        state[key] = value
    assert state.keys() != one.state_dict().keys()
    assert len(state) == len(one.state_dict())
    load_checkpoint(two, state, "a file")
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    state["head.of.another"] = state.popitem()[1]
    with pytest.raises(ModelError, match="head.of.another"):
        load_checkpoint(two, state, "a file")


def test_the_formula_tells_other_anchors_apart():
    spec = catalog.resized(catalog.network_spec("retinanet_resnet50"), (200, 136))
    outputs = noisy_outputs(spec)
    boxes, _ = retinanet(outputs, spec.preprocess.crop)
    for change in ({"offset": 0.5}, {"spread": False}):
        other = dataclasses.replace(spec, decoder={**spec.decoder, **change})
        assert not np.allclose(read(outputs, other.context()).boxes(np.arange(len(boxes))), boxes, atol=1e-2)


def test_every_detector_of_the_zoo_has_a_formula_here():
    names = {name for name in catalog.network_names() if catalog.find_network(name).row.get("task") == "detect"}
    assert names == set(FORMULAS)
