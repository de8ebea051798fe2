"""What is known of the images of a data set besides the class of each: one `Truth` for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Kind of truth -> what it is called, and the data that have it.
KINDS = {
    "class": ("labels", "one folder of images per class, or images and labels.txt"),
    "boxes": ("boxes", "COCO JSON, a YOLO folder with data.yaml, or VOC XML"),
    "masks": ("masks", "images/, and masks/ with PNG files of the same names"),
    "targets": ("targets", "images/, and targets/ with images of the same names"),
    "depth": ("depths", "images/, and depth/ with .npy or 16-bit PNG files of the same names"),
    "values": ("values", "images and values.csv: file,number"),
    "label sets": ("sets of labels", "images and multilabel.csv or multilabel.json"),
    "text": ("texts", "images and texts.txt: file<TAB>text"),
    "identity": ("identities", "one folder of images per class, or images and pairs.txt"),
    "anomalies": ("normal and anomalous images", "class folders, one of them `good`, and bank.npy"),
    "keypoints": ("keypoints", "COCO JSON with keypoints"),
    "image": ("images", "a folder of images"),
}


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one image; `size` is its height and width in pixels."""

    size: tuple[int, int]

    def relabelled(self, order: NDArray[np.int64]) -> Truth:
        """Return it with class i called `order[i]`."""
        return self

    def raw(self) -> Iterator[bytes]:
        """Yield the identity of what is known, for a digest."""
        for one in fields(self):
            yield one.name.encode()
            yield from _raw(getattr(self, one.name))


@dataclass(frozen=True, eq=False)
class Instances(Truth):
    """The objects in one image.

    Attributes:
        boxes: float64 (M, 4): x1, y1, x2, y2 in pixels of the image.
        labels: int64 (M,): classes.
        crowd: bool (M,): the box holds several objects; finding it counts neither as right nor as wrong.
        areas: float64 (M,): of the object in pixels, by which sizes are told apart.
        keypoints: float64 (M, K, 3): x, y, and 0 where a keypoint is not labelled; None if there are none.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    keypoints: NDArray[np.float64] | None = None

    def relabelled(self, order: NDArray[np.int64]) -> Instances:
        """Return it with class i called `order[i]`."""
        return replace(self, labels=order[self.labels])


def _raw(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray):
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield f"[{len(value)}]".encode()
        for one in value:
            yield from _raw(one)
    else:
        yield repr(value).encode()
