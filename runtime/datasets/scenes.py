"""`scenes`: signs with handwritten digits on cluttered ground, with the box, the class and the pixels of each sign.

A scene is drawn back to front: coloured ground, clutter (bars, empty signs, signs with a scrambled digit), then signs,
which may cover each other in part, noise at last; on the hard split also bars in front of them. Boxes hold the visible
pixels of a sign. Digits of the test part appear on the splits test and hard alone. All arithmetic is on integers and
all randomness is the raw PCG64 stream of a scene's number, so that the arrays are bit-exact on every machine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from . import digits
from .scene_drawing import SIDE, Drawing
from .truths import Instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "scenes"
KINDS = frozenset({"boxes", "masks", "label sets"})
BAR_LENGTH, BAR_WIDTH, FRONT_WIDTH = (16, 64), (2, 8), (2, 4)  # pixels
SHIFT = 4  # pixels by which a digit is rolled to scramble it
BACKGROUND = "background"  # class 0 of a map of classes
COUNTS = {"train": 3072, "test": 512, "hard": 512}
FIRST = {"train": 0, "test": 1 << 20, "hard": 1 << 21}  # number of a split's first scene


@dataclass(frozen=True)
class Difficulty:
    """Ranges, both ends included, from which a scene is drawn.

    Attributes:
        signs: Number of signs with a digit.
        sides: Pixels of a sign's longer side.
        contrast: Grey levels between a digit and its sign.
        clutter: Number of bars and empty signs behind.
        scrambled: Number of signs with a scrambled digit.
        bars: Number of bars in front.
        noise: Standard deviation of the noise in grey levels.
        visible: Per cent of a sign that others must leave uncovered.
    """

    signs: tuple[int, int] = (2, 4)
    sides: tuple[int, int] = (32, 52)
    contrast: tuple[int, int] = (130, 190)
    clutter: tuple[int, int] = (2, 6)
    scrambled: tuple[int, int] = (0, 1)
    bars: tuple[int, int] = (0, 0)
    noise: tuple[int, int] = (0, 8)
    visible: int = 80


USUAL = Difficulty()
HARD = Difficulty(
    signs=(3, 5), contrast=(90, 160), clutter=(3, 8), scrambled=(0, 2), bars=(1, 2), noise=(8, 20), visible=70
)


@dataclass(frozen=True, eq=False)
class SceneTruth(Instances):
    """The signs of one scene, and which of them each pixel shows.

    Attributes:
        members: uint8 (H, W): 0 for the ground, and one more than the index of the sign.
        background: The class of the ground in `pixels`.
    """

    members: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((SIDE, SIDE), np.uint8))
    background: int = len(digits.CLASSES)

    def relabelled(self, order: NDArray[np.int64]) -> SceneTruth:
        """Return it with class i called `order[i]`; the ground has the lowest number that is free."""
        free = next(at for at in range(len(order) + 1) if at not in order)
        return replace(self, labels=order[self.labels], background=free)

    def pixels(self) -> NDArray[np.int64]:
        """Return the class of each pixel, int64 (H, W)."""
        return np.concatenate([[self.background], self.labels])[self.members]


Loaded = tuple["NDArray[np.uint8]", "NDArray[np.int64]", tuple[str, ...], tuple[SceneTruth, ...]]


def load_scenes(split: str, calibration: int) -> Loaded:
    """Return the images, uint8 (N, 96, 96, 3), zeros as labels, the classes and the truths of a split; read-only.

    "calibration" draws its scenes evenly from those of "train"; no more than there are.
    """
    if split == "calibration":
        places = np.linspace(0, COUNTS["train"] - 1, min(calibration, COUNTS["train"])).astype(np.int64)
        images, truths = _scenes("train", tuple(places.tolist()))
    else:
        images, truths = _scenes(split, tuple(range(COUNTS[split])))
    return images, np.zeros(len(truths), np.int64), digits.CLASSES, truths


@functools.lru_cache(maxsize=4)
def _scenes(split: str, places: tuple[int, ...]) -> tuple[NDArray[np.uint8], tuple[SceneTruth, ...]]:
    hard, chosen = HARD if split == "hard" else USUAL, digits.parts()[split != "train"]
    images, truths = np.empty((len(places), SIDE, SIDE, 3), np.uint8), []
    for at, place in enumerate(places):
        images[at], truth = draw_scene(FIRST[split] + place, hard, chosen)
        truths.append(truth)
    images.flags.writeable = False
    return images, tuple(truths)


def draw_scene(seed: int, hard: Difficulty, chosen: tuple[int, ...]) -> tuple[NDArray[np.uint8], SceneTruth]:
    """Return one scene, uint8 (96, 96, 3), and its truth.

    Args:
        seed: Number of the scene; equal numbers give equal scenes.
        hard: The ranges that it is drawn from.
        chosen: Indices of the embedded digits that may appear.
    """
    scene, (images, labels) = Drawing(seed), digits.originals()
    for _ in range(scene.between(*hard.clutter)):
        if scene.between(0, 1):
            scene.add_bar(BAR_LENGTH, BAR_WIDTH)
        else:
            scene.add_sign((hard.sides[0] // 3, hard.sides[1]), hard.contrast)
    scrambled = scene.between(*hard.scrambled)
    for number in range(scrambled + scene.between(*hard.signs)):
        at = chosen[scene.between(0, len(chosen) - 1)]
        if number < scrambled:
            scene.add_sign(hard.sides, hard.contrast, np.roll(images[at], (SHIFT, SHIFT), (0, 1)))
        else:
            scene.add_sign(hard.sides, hard.contrast, images[at], int(labels[at]), hard.visible)
    for _ in range(scene.between(*hard.bars)):
        scene.add_bar(BAR_LENGTH, FRONT_WIDTH)
    return scene.image(hard.noise), _truth(scene)


def _truth(scene: Drawing) -> SceneTruth:
    """Return the signs of a scene that can be seen."""
    boxes, areas, labels = [], [], []
    members = np.zeros_like(scene.members)
    for number, label in enumerate(scene.labels, 1):
        shown = scene.members == number
        if not shown.any():
            continue
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        areas.append(int(shown.sum()))
        labels.append(label)
        members[shown] = len(labels)
    return SceneTruth(
        members.shape, np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64),
        np.zeros(len(labels), bool), np.array(areas, np.float64), None, members,
    )  # fmt: skip
