"""What a task learns from: the truths of a batch as one tensor, and the loss; one class for each kind of truth.

class    cross entropy of each image, auxiliary classifiers at 0.3
boxes    SSD's: smooth L1 of the deltas, and cross entropy with three background boxes for each that has an object
masks    cross entropy of each pixel
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...runtime.errors import UsageError
from ...runtime.images.geometry import placement
from ...runtime.spec import ModelSpec
from ...runtime.tasks import CLASS, find
from ...runtime.tasks._formulas import IGNORED
from ...runtime.tasks._head_settings import complete
from ...runtime.tasks._heads import anchor_boxes
from . import multibox

HEAD = ("anchors", "softmax", 0)  # a detector's that is learnt: its name, the scores' activation, the background
AUX_WEIGHT = 0.3  # of each auxiliary classifier's loss (GoogLeNet, Inception)


@dataclass(frozen=True)
class Objective:
    """What a network learns; the subclasses are the kinds of truth.

    Attributes:
        spec: The network's.
        spatial: The truth is about places, which an augmentation must not move.
        one_size: Images of another size than the spec's cannot be learnt from.
    """

    spec: ModelSpec
    spatial = False
    one_size = False

    def batch(self, truths: Any, chosen: Sequence[int]) -> torch.Tensor:
        """Return the truths of some images as one tensor (N, ...); `truths` are those of `Dataset.truths_for`."""
        raise NotImplementedError

    def loss(self, out: Any, truth: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Return the mean loss of a module's outputs; `smoothing` of the classes as in cross entropy."""
        raise NotImplementedError


class ClassObjective(Objective):
    """One class for each image: int64 (N,)."""

    def batch(self, truths: Any, chosen: Sequence[int]) -> torch.Tensor:
        """Return the classes, int64 (N,)."""
        return torch.from_numpy(np.asarray(truths)[list(chosen)])

    def loss(self, out: Any, truth: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Return the cross entropy; of several outputs the others are auxiliary classifiers."""
        main, *others = out if isinstance(out, tuple) else (out,)
        loss = F.cross_entropy(main, truth, label_smoothing=smoothing)
        for other in others:
            loss = loss + AUX_WEIGHT * F.cross_entropy(other, truth, label_smoothing=smoothing)
        return loss


class MaskObjective(Objective):
    """A class for each pixel: uint8 (N, H, W), IGNORED where nobody judges or the image does not reach."""

    spatial = True

    def batch(self, truths: Any, chosen: Sequence[int]) -> torch.Tensor:
        """Return the classes of the input's pixels, uint8 (N, H, W)."""
        return torch.from_numpy(np.stack([self._mask(truths[at]) for at in chosen]))

    def _mask(self, truth: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        place = placement(truth.size, self.spec.preprocess)
        index, outside = [], []
        for whole, resized, offset, count in zip(place.image, place.resized, place.offset, place.input, strict=True):
            at = np.floor((np.arange(count) + 0.5 - offset) * whole / resized).astype(np.int64)
            outside.append((at < 0) | (at >= whole))
            index.append(np.clip(at, 0, whole - 1))
        mask = truth.pixels()[index[0][:, None], index[1]].astype(np.uint8)
        mask[outside[0][:, None] | outside[1]] = IGNORED
        return mask

    def loss(self, out: Any, truth: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Return the cross entropy of the judged pixels, at the size of the output."""
        if truth.shape[1:] != out.shape[2:]:
            truth = F.interpolate(truth[:, None], out.shape[2:])[:, 0]
        return F.cross_entropy(out, truth.long(), label_smoothing=smoothing, ignore_index=IGNORED)


class BoxObjective(Objective):
    """The boxes of an image as x1, y1, x2, y2 in pixels of the input and the class: float32 (N, most boxes, 5).

    A class of -1 fills the rows of images with fewer boxes.
    """

    spatial = one_size = True

    def batch(self, truths: Any, chosen: Sequence[int]) -> torch.Tensor:
        """Return the boxes that have an area and are not crowds, float32 (N, M, 5)."""
        rows = [self._rows(truths[at]) for at in chosen]
        table = torch.full((len(rows), max(1, *map(len, rows)), 5), -1.0)
        for place, own in zip(table, rows, strict=True):
            place[: len(own)] = torch.from_numpy(own)
        return table

    def _rows(self, truth: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        place = placement(truth.size, self.spec.preprocess)
        height, width = place.input
        boxes = np.clip(place.boxes_to_input(truth.boxes), 0, [width, height, width, height])
        real = ~truth.crowd & (boxes[:, 2:] > boxes[:, :2]).all(1)
        return np.concatenate([boxes, truth.labels[:, None]], 1)[real].astype(np.float32)

    def loss(self, out: Any, truth: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Return the sum of both losses for each box that has an object."""
        settings = complete(self.spec.decoder)
        anchors = torch.from_numpy(anchor_boxes(settings, self.spec.preprocess.crop)).to(truth)
        deltas, scores = (out[name] for name in self.spec.output_names)
        return multibox.loss(deltas, scores, truth, anchors, settings["variances"], smoothing)


OBJECTIVES: dict[str, Callable[[ModelSpec], Objective]] = {
    CLASS: ClassObjective, "boxes": BoxObjective, "masks": MaskObjective
}  # fmt: skip


def find_objective(spec: ModelSpec) -> Objective:
    """Return what a network learns.

    Raises:
        UsageError: Nothing here can train its task, or its head.
    """
    truth, settings = find(spec.task).truth, complete(spec.decoder)
    head = tuple(settings[word] for word in ("head", "activation", "background"))
    if truth not in OBJECTIVES or len(spec.input_shape) != 3 or (truth == "boxes" and head != HEAD):
        got = f"input {spec.input_shape}, task {spec.task}" + f", head {head}" * (truth == "boxes")
        expected = f"images, and classes, masks, or boxes by the head {HEAD}"
        raise UsageError(f"{spec.name} cannot be trained", got=got, expected=expected,
                         do="give --weights random or a file")  # fmt: skip
    return OBJECTIVES[truth](spec)
