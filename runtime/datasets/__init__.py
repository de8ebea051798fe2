"""Images or arrays by source and split: embedded digits and scenes, photographs, your own folder or files. No torch.

train        for training
calibration  a stratified sample of train for quantisation, 128 images by default
test         held out
hard         the test images, four disturbed copies of each (rotation, occlusion, noise); harder scenes; not of arrays

Images without labels and arrays have no classes: nothing says which answer is right, only which answers are alike.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.plugins import did_you_mean
from ..errors import DataError, UsageError
from ..images.preprocess import apply
from ..tasks import CLASS
from . import annotation_files, array_files, class_truths, digits, image_folder, layouts, photos, scenes
from .truths import KINDS, Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..spec import InputSpec, ModelSpec

IDENTITY, IMAGE = "identity", "image"  # truths that follow from class folders, and from the images themselves
DIGITS, EMBEDDED = "digits", ("digits", scenes.NAME)  # data that come with the package
SPLITS = ("train", "calibration", "test", "hard")
CALIBRATION = 128


@dataclass(frozen=True)
class Dataset:
    """Images with what is known of them.

    `images` is a sequence of uint8 arrays (H, W, 3) in RGB: one array (N, H, W, 3) for the digits, decoded on access
    for files. `labels` is int64 (N,), an index into `classes`; zeros where an image has no class of its own. `truths`
    has another truth of each image, such as its boxes, and `kinds` are its kinds, keys of `truths.KINDS`.
    """

    name: str
    split: str
    images: image_folder.Images
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    truths: tuple[Truth, ...] = ()
    kinds: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether somebody says which class each image has."""
        return bool(self.classes) and not self.truths

    def knows(self, kind: str) -> bool:
        """Return whether the truth of each image is known, of a kind out of `truths.KINDS`."""
        if kind == IMAGE:
            return bool(len(self.images))
        return kind in self.kinds or (self.labelled and kind in (CLASS, IDENTITY))

    def require_truth(self, kind: str, purpose: str) -> None:
        """Refuse images whose truth is not known.

        Raises:
            DataError: It is not; `purpose` is what it was wanted for.
        """
        if not self.knows(kind):
            name, expected = KINDS[kind]
            raise DataError(
                f"{purpose} needs {name}", got=f"{self.name}: {len(self)} samples without {name}",
                expected=expected, do="see docs/data.md",
            )  # fmt: skip

    def truths_for(self, spec: ModelSpec, kind: str) -> Any:
        """Return the truth of each image, with the classes of the network: for "class" int64 (N,), else Truths.

        Where the network has each class of the data by name, names decide, otherwise the order.

        Raises:
            UsageError: The classes of the data are not those of the network.
        """
        if kind == IMAGE:
            return tuple(class_truths.OwnImage(self.images, at, spec.preprocess) for at in range(len(self)))
        if kind == IDENTITY:
            return self.truths or class_truths.identities(self.images, self.labels.tolist(), self.split)
        order = self._order(spec, kind)
        if kind == CLASS:
            return self.labels if order is None else order[self.labels]
        return self.truths if order is None else tuple(truth.relabelled(order) for truth in self.truths)

    def _order(self, spec: ModelSpec, kind: str) -> NDArray[np.int64] | None:
        """Return the network's class for each class of the data; None if they are the same."""
        if not self.classes and kind != CLASS:
            return None
        names = set(self.classes)
        if spec.labels and (names == set(spec.labels) or (kind != CLASS and names < set(spec.labels))):
            return np.array([spec.labels.index(name) for name in self.classes])
        if len(self.classes) != spec.num_classes:
            got = f"{len(self.classes)} classes in {self.name}, {spec.num_classes} in {spec.name}"
            do = "give images of the classes that it was trained on (--data)"
            raise UsageError("the images do not match the network", got=got, do=do)
        return None

    def require_fit(self, spec: ModelSpec) -> None:
        """Refuse data that are not what a network takes.

        Raises:
            DataError: The network takes no images; or the arrays are not those of its inputs.
        """
        spec.require_images()

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the classes, the labels and every image (files: name and bytes), which identifies the data."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        for truth in self.truths:
            for chunk in truth.raw():
                digest.update(chunk)
        for chunk in image_folder.raw(self.images):
            digest.update(chunk)
        return digest.hexdigest()

    def batches(self, spec: ModelSpec, size: int = 32) -> Iterator[Any]:
        """Yield preprocessed batches, at most `size` images each: an array as the spec's input, NCHW float32."""
        for start in range(0, len(self), size):
            yield apply([self.images[at] for at in range(start, min(start + size, len(self)))], spec)

    def head(self, count: int) -> Dataset:
        """Return `count` samples, spread evenly over the split so that all classes are included."""
        if count >= len(self):
            return self
        return self.pick(np.linspace(0, len(self) - 1, count).astype(np.int64).tolist())

    def pick(self, chosen: list[int]) -> Dataset:
        """Return the samples at these indices, without decoding any."""
        truths = tuple(self.truths[at] for at in chosen) if self.truths else ()
        images = image_folder.pick_images(self.images, chosen)
        return replace(self, images=images, labels=self.labels[chosen], truths=truths)


@dataclass(frozen=True)
class Arrays(Dataset):
    """Samples of a network's own inputs, as they are: `inputs` has an array (N, ...) for each, by its name.

    The name "" is that of the only input. They have no classes.
    """

    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, split: str, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Return a data set of these arrays."""
        count = len(next(iter(inputs.values())))
        return cls(name, split, [], np.zeros(count, np.int64), (), inputs=inputs)

    def require_fit(self, spec: ModelSpec) -> None:
        """Refuse arrays that are not those of a network's inputs."""
        self._fitted(spec)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over every array's name, type, shape and values."""
        digest = hashlib.sha256()
        for name, array in sorted(self.inputs.items()):
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def batches(self, spec: ModelSpec, size: int = 32) -> Iterator[Any]:
        """Yield at most `size` samples at a time: an array for one input, a dict by name for several.

        Raises:
            DataError: The arrays are not those of the network's inputs.
        """
        for part in replace(self, inputs=self._fitted(spec)).parts(size):
            yield part if len(part) > 1 else next(iter(part.values()))

    def parts(self, size: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield at most `size` samples at a time, by the names that the files have."""
        for start in range(0, len(self), size):
            yield {name: array[start : start + size] for name, array in self.inputs.items()}

    def pick(self, chosen: list[int]) -> Arrays:
        """Return the samples at these indices."""
        return self.of(self.name, self.split, {name: array[chosen] for name, array in self.inputs.items()})

    def _fitted(self, spec: ModelSpec) -> dict[str, NDArray[Any]]:
        inputs = dict(self.inputs)
        if array_files.ONLY_INPUT in inputs and len(spec.inputs) == 1:
            inputs = {spec.input_name: inputs[array_files.ONLY_INPUT]}
        misfits = [one for one in spec.inputs if not _fits(inputs.get(one.name), one)]
        if misfits or len(inputs) != len(spec.inputs):
            expected = ", ".join(f"{one.name} {one.dtype} {('N', *one.shape)}" for one in spec.inputs)
            raise DataError(
                f"the arrays in {self.name} are not what {spec.name} takes", got=array_files.describe(inputs),
                expected=expected.replace("'N'", "N"),
                do="save them with numpy.savez(FILE, NAME=array, ...), ready to be fed",
            )  # fmt: skip
        return {one.name: inputs[one.name] for one in spec.inputs}


def _fits(array: NDArray[Any] | None, one: InputSpec) -> bool:
    return array is not None and array.dtype == one.dtype and array.shape[1:] == one.shape


@dataclass(frozen=True)
class Noise(Arrays):
    """Seeded inputs of a network's own shapes, for what has no images: sounds, videos, or a try without data.

    Standard normal where the type is floating point, else whole numbers from 0 to 126, or truth values.
    """

    @classmethod
    def draw(cls, spec: ModelSpec, split: str, count: int) -> Noise:
        """Draw `count` inputs; a split's are always the same ones."""
        rng, inputs = np.random.default_rng(SPLITS.index(split)), {}
        for one in spec.inputs:
            kind, shape = np.dtype(one.dtype), (count, *one.shape)
            if kind.kind == "f":
                inputs[one.name] = rng.standard_normal(shape, dtype=np.float32).astype(kind)
            else:
                inputs[one.name] = rng.integers(0, 2 if kind.kind == "b" else 127, shape).astype(kind)
        noise = cls.of("noise", split, inputs)
        assert isinstance(noise, Noise)
        return noise


def join_batches(batches: Sequence[Any]) -> Any:
    """Return several batches as one: arrays, or dicts of arrays by the inputs' names."""
    if isinstance(batches[0], dict):
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return np.concatenate(batches)


def held_back(source: str | Path, data: Dataset, wanted: int) -> str:
    """Return why a calibration split has fewer images than requested; an empty string if it has enough."""
    if len(data) >= wanted:
        return ""
    start = f"{len(data)} calibration images, {wanted} requested: "
    try:
        test = len(load(source, "test"))
    except DataError:
        return f"{start}the data has no more"
    return f"{start}of all {len(load(source, 'train')) + test}, {test} are held out to evaluate the result"


def load(source: str | Path, split: str, *, calibration: int = CALIBRATION) -> Dataset:
    """Load one split.

    Args:
        source: "digits", "scenes"; "photos", unless a folder is called so (see `photos`); a folder of images, COCO's
            JSON, a YOLO folder or its data.yaml, VOC XML; a `.npy` or `.npz` file, or a folder of these: docs/data.md.
        split: "train", "calibration", "test" or "hard".
        calibration: Number of images that "calibration" draws from "train".

    Raises:
        UsageError: No such split or source.
        DataError: The folder has no images, an empty class, or a label file that is not valid.
        NotAvailable: The photographs cannot be fetched.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", expected=", ".join(SPLITS), do=did_you_mean(split, SPLITS))
    if str(source) == DIGITS:
        return Dataset(DIGITS, split, *digits.load_digits(split, calibration), digits.CLASSES)
    if str(source) == scenes.NAME:
        return Dataset(scenes.NAME, split, *scenes.load_scenes(split, calibration), scenes.KINDS)
    folder = Path(source)
    if str(source) == photos.NAME and not folder.exists():
        folder = photos.crops_folder()
    layout = layouts.find_layout(folder) if folder.is_dir() else None
    objects = annotation_files.find_annotations(folder) if folder.exists() else None
    if layout and objects:
        got, do = f"{' and '.join(layout.marks)}, and files of boxes", "give each a folder of its own"
        raise DataError(f"{folder} says in two ways what its images show", got=got, do=do)
    if objects:
        files, truths, classes = annotation_files.load_annotations(objects, split, calibration)
        nobody = np.zeros(len(files), np.int64)
        return Dataset(folder.stem, split, files, nobody, tuple(classes), tuple(truths), objects.kinds)
    if layout:
        files, truths, classes = layouts.load_layout(folder, layout, split, calibration)
        nobody = np.zeros(len(files), np.int64)
        return Dataset(folder.name, split, files, nobody, tuple(classes), tuple(truths), frozenset({layout.kind}))
    if array_files.is_array_source(folder):
        return Arrays.of(folder.name, split, array_files.load_arrays(folder, split, calibration))
    if not folder.is_dir():
        expected = "digits, scenes, photos, a folder of images, COCO's FILE.json, data.yaml, or a .npy or .npz file"
        raise UsageError(f"unknown data {str(source)!r}", expected=expected, do="check the path")
    images, labels, names = image_folder.load_folder(folder, split, calibration)
    return Dataset(Path(source).name, split, images, labels, names)
