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
    "pages": {"calibration": ("skimage/data/page.png",), "held-out": ("skimage/data/page.png",)},
}  # fmt: skip
# Shares of a picture's shorter side that a crop takes. Text is read in strips of one or two lines; it is found on
# squares of a page, of which calibration sees the left half.
SHARES, STRIPS = (0.35, 1.0), (0.12, 0.3)


def folder(root: Path, data: str, split: str) -> Path:
    """Return the folder of crops of one kind and split."""
    return root / "images" / data / split


def write_crops(files: Path, root: Path, data: str) -> None:
    """Write the crops of every split of one kind as PNG files, the same ones each time.

    Args:
        files: The folder of unpacked packages.
        root: The corpus's folder.
        data: The kind, of PICTURES.
    """
    for split, names in PICTURES[data].items():
        place, rng = folder(root, data, split), np.random.default_rng(0)
        place.mkdir(parents=True, exist_ok=True)
        pictures = [Image.open(files / name).convert("RGB") for name in names]
        if data == "pages":
            pictures = [_half(picture, left=split == "calibration") for picture in pictures]
        for number in range(CALIBRATION if split == "calibration" else HELD_OUT):
            crop(pictures[number % len(pictures)], data, rng).save(place / f"{number:03d}.png")


def _half(picture: Image.Image, left: bool) -> Image.Image:
    middle = picture.width // 2
    return picture.crop((0, 0, middle, picture.height) if left else (middle, 0, picture.width, picture.height))


def crop(picture: Image.Image, data: str, rng: np.random.Generator) -> Image.Image:
    """Return one random crop: a square, or for text a strip six times as wide as high."""
    low, high = STRIPS if data == "text" else SHARES
    height = int(rng.uniform(low, high) * min(picture.size))
    width = min(6 * height, picture.width) if data == "text" else height
    left, top = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
    size = (6 * 48, 48) if data == "text" else (SIDE, SIDE)
    return picture.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
