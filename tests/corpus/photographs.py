"""Crops of photographs and of printed text that ship in packages; calibration and judging see different pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE, CALIBRATION, HELD_OUT = 256, 96, 32
PICTURES = {
    "photos": {
        "calibration": ("skimage/data/astronaut.png", "skimage/data/coffee.png", "skimage/data/motorcycle_left.png",
                        "sklearn/datasets/images/china.jpg", "skimage/data/rocket.jpg", "skimage/data/brick.png"),
        "held-out": ("skimage/data/chelsea.png", "sklearn/datasets/images/flower.jpg", "skimage/data/camera.png",
                     "skimage/data/ihc.png"),
    },
    "text": {"calibration": ("skimage/data/page.png",), "held-out": ("skimage/data/text.png",)},
}  # fmt: skip
# Shares of a picture's shorter side that a crop takes; text is read in strips of one or two lines.
SHARES, STRIPS = (0.35, 1.0), (0.12, 0.3)


def folder(root: Path, data: str, split: str) -> Path:
    """Return the folder of crops of one kind and split."""
    return root / "images" / data / split


def write_crops(files: Path, root: Path) -> None:
    """Write the crops of every kind and split as PNG files, the same ones each time.

    Args:
        files: The folder of unpacked packages.
        root: The corpus's folder.
    """
    for data, splits in PICTURES.items():
        for split, names in splits.items():
            place, rng = folder(root, data, split), np.random.default_rng(0)
            place.mkdir(parents=True, exist_ok=True)
            pictures = [Image.open(files / name).convert("RGB") for name in names]
            for number in range(CALIBRATION if split == "calibration" else HELD_OUT):
                picture = pictures[number % len(pictures)]
                _crop(picture, data, rng).save(place / f"{number:03d}.png")


def _crop(picture: Image.Image, data: str, rng: np.random.Generator) -> Image.Image:
    """Return one random crop: a square, or for text a strip six times as wide as high."""
    low, high = SHARES if data == "photos" else STRIPS
    height = int(rng.uniform(low, high) * min(picture.size))
    width = height if data == "photos" else min(6 * height, picture.width)
    left, top = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
    size = (SIDE, SIDE) if data == "photos" else (6 * 48, 48)
    return picture.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
