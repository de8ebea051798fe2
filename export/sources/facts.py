"""The facts about a network's input and output, each with its source; they make the ModelSpec.

The sources, by decreasing priority: `--spec FILE`, an option, metadata that we wrote, metadata of the tool that
exported the file, the configuration of timm or torchvision, a guess from the graph. A guess is marked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.common.size_range import SizeRange
from ...runtime.errors import ModelError, UsageError
from ...runtime.images.preprocess import CHANNELS
from ...runtime.spec import FILLED, GREY, InputSpec, ModelSpec, Preprocess
from ...runtime.tasks import find

GUESS = "a guess"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CROP_RATIO = 0.875  # of the resized shorter side, as in the evaluation of torchvision's first weights
FITTING = ("fit", "fill", "enlarge", "resize")
COLOURS = {1: "GRAY", 3: "RGB"}
# Fact -> its title in the table.
KNOWN = {
    "name": "name", "task": "task", "input_name": "input", "output_names": "outputs", "shape": "shape of one sample",
    "layout": "layout", "dtype": "type", "size": "height, width", "channels": "colours", "fit": "fit",
    "resize": "shorter side", "fill": "fill", "enlarge": "enlarge", "interpolation": "interpolation", "mean": "mean",
    "std": "standard deviation", "labels": "labels", "num_classes": "classes", "scores": "scores",
    "weights": "weights", "other_inputs": "other inputs", "batch": "batch",
    "height": "height", "width": "width", "ranges": "ranges", "decoder": "decoder",
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One fact and its source."""

    name: str
    value: Any
    origin: str

    @property
    def is_guess(self) -> bool:
        """Whether the fact is a guess."""
        return self.origin.startswith(GUESS)

    @property
    def title(self) -> str:
        """The fact's title."""
        return KNOWN[self.name]

    @property
    def shown(self) -> str:
        """The value as short text."""
        return _short(self.value)

    def __str__(self) -> str:
        """Return the fact as one short line."""
        return f"{self.title}: {self.shown} ({self.origin})"


class Facts:
    """Facts by decreasing priority of their sources: a later source does not change an earlier fact."""

    def __init__(self) -> None:
        self._facts: dict[str, Fact] = {}
        self.ranges: tuple[SizeRange, ...] = ()  # of the spec: those of the facts that the network has

    def add(self, origin: str, **values: Any) -> None:
        """Add the facts of one source; None adds nothing.

        The facts about fitting an image belong together: `fill`, `enlarge` and the shorter side are used only with the
        fit of the same source; a source with a shorter side implies "crop", or "stretch" if the side is 0.

        Raises:
            KeyError: An unknown fact.
        """
        if (resize := values.get("resize")) is not None and values.get("fit") is None:
            values["fit"] = "crop" if resize else "stretch"
        if values.get("fit") not in (None, self.get("fit", values.get("fit"))):
            values = {name: value for name, value in values.items() if name not in FITTING}
        elif not resize:
            values.pop("resize", None)
        for name, value in values.items():
            if name not in KNOWN:
                raise KeyError(name)
            if value is not None and name not in self._facts:
                self._facts[name] = Fact(name, value, origin)

    def confirm(self, origin: str, **values: Any) -> None:
        """Add a certain fact, and refuse an earlier fact that differs.

        Raises:
            UsageError: An earlier fact differs.
        """
        for name, value in values.items():
            fact = self._facts.get(name)
            if fact is not None and fact.value != value:
                raise UsageError(
                    f"{KNOWN[name]}: what was said does not fit {origin}", got=f"{fact.shown} ({fact.origin})",
                    expected=_short(value), do="correct it, or leave it out",
                )  # fmt: skip
        self.add(origin, **values)

    def add_spec(self, origin: str, spec: ModelSpec) -> None:
        """Add all facts of a spec."""
        preprocess = spec.preprocess
        image = len(spec.input_shape) == 3
        self.add(
            origin, name=spec.name, task=spec.task, input_name=spec.input_name, output_names=spec.output_names,
            shape=spec.input_shape, layout=spec.layout, dtype=spec.dtype, num_classes=spec.num_classes,
            labels=spec.labels or None, scores=spec.scores or None, weights=spec.weights,
            other_inputs=spec.other_inputs or None, ranges=spec.ranges or None, decoder=spec.decoder or None,
        )  # fmt: skip
        if image:
            fills = {} if preprocess.fits not in FILLED else {"fill": preprocess.fill, "enlarge": preprocess.enlarge}
            self.add(
                origin, size=preprocess.crop, channels=preprocess.channels, fit=preprocess.fits, **fills,
                resize=preprocess.resize if preprocess.fits == "crop" else 0,
                interpolation=preprocess.interpolation, mean=preprocess.mean, std=preprocess.std,
            )  # fmt: skip

    def get(self, name: str, default: Any = None) -> Any:
        """Return a fact's value."""
        return self._facts[name].value if name in self._facts else default

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts.values())

    def spec(self, images: bool = True) -> ModelSpec:
        """Return the spec of the facts; unknown preprocessing is guessed, and the guess becomes a fact.

        Args:
            images: The data are images; for arrays, which need no preprocessing, no preprocessing is guessed.

        Raises:
            UsageError: Contradictory facts.
        """
        shape = tuple(self.get("shape", ()))
        self._check_layout(shape)
        image = self.has_image and (images or "mean" in self or "channels" in self)
        if image:
            self._guess_preprocessing(shape)
        preprocess = self._preprocess() if image else Preprocess(crop=(1, 1), resize=0)
        labels = tuple(self.get("labels", ()))
        classes = int(self.get("num_classes") or len(labels) or 1)
        if labels and len(labels) != classes:
            raise UsageError(
                "the labels do not fit the network", got=f"{len(labels)} labels", expected=f"{classes}, one a class"
            )
        try:
            spec = ModelSpec(
                name=self.get("name", "network"), input_shape=shape, num_classes=classes,
                task=self.get("task", "features"), layout=self.get("layout", ""), dtype=self.get("dtype", "float32"),
                input_name=self.get("input_name", "input"), output_names=tuple(self.get("output_names", ("output",))),
                preprocess=preprocess, labels=labels, weights=self.get("weights", "own"),
                scores=self.get("scores", ""), other_inputs=tuple(self.get("other_inputs", ())),
                ranges=self.ranges, decoder=self.get("decoder", {}),
            )  # fmt: skip
            return ModelSpec.from_dict(dataclasses.asdict(spec))
        except (TypeError, ModelError) as error:
            raise UsageError("the network cannot be described so", got=str(error)[:300]) from error

    @property
    def has_image(self) -> bool:
        """Whether the first input is an image: three axes besides the batch, one of them with one or three colours."""
        shape, layout = tuple(self.get("shape", ())), self.get("layout", "")
        alone = not self.get("other_inputs")
        return alone and len(shape) == 3 and layout in ("NCHW", "NHWC") and self.colours in COLOURS

    @property
    def colours(self) -> int:
        """The number of colours of the first input; 0 if it is not an image."""
        shape = tuple(self.get("shape", ()))
        return 0 if len(shape) != 3 else int(shape[-1] if self.get("layout") == "NHWC" else shape[0])

    def _check_layout(self, shape: Sequence[int]) -> None:
        """Refuse a user's layout under which an image has no axis of colours, where the other layout has one."""
        fact = self._facts.get("layout")
        if fact is None or not fact.origin.startswith("--") or len(shape) != 3 or self.get("other_inputs"):
            return
        if fact.value not in ("NCHW", "NHWC") or (shape[0] in COLOURS) != (fact.value == "NHWC"):
            return
        if (shape[2] in COLOURS) != (fact.value == "NHWC"):
            other = {"NCHW": "NHWC", "NHWC": "NCHW"}[fact.value]
            got = f"{fact.shown} ({fact.origin}) for {_short(shape)}"
            raise UsageError("the layout does not fit the network's input", got=got, expected=other)

    def _guess_preprocessing(self, shape: Sequence[int]) -> None:
        size = shape[:2] if self.get("layout") == "NHWC" else shape[1:]
        if "size" in self and tuple(self.get("size")) != tuple(size):
            got = f"{_short(self.get('size'))} ({self._facts['size'].origin})"
            raise UsageError("the size does not fit the network's input", got=got, expected=_short(size))
        self.add("the graph", size=tuple(size))
        self.add(GUESS, channels=COLOURS[self.colours])
        if self.get("dtype") != "uint8":
            grey = self.colours == 1
            kind = f"{GUESS}: as for ImageNet"
            self.add(kind, **{name: (value[:1] if grey else value) for name, value in IMAGENET.items()})
        classifies = self.get("task") == "classify"
        crops = self.get("fit", "crop" if classifies else "stretch") == "crop"
        self.add(GUESS, interpolation="bilinear", fit="crop" if crops else self.get("fit", "stretch"))
        if crops:
            self.add(GUESS, resize=round(min(size) / CROP_RATIO))
        elif self.get("fit") in FILLED:
            self.add(GUESS, fill=GREY)

    def _preprocess(self) -> Preprocess:
        if CHANNELS[self.get("channels")] != self.colours:
            got = f"{self.get('channels')} ({self._facts['channels'].origin})"
            raise UsageError("the colours do not fit the network's input", got=got, expected=f"{self.colours} of them")
        fit = self.get("fit")
        return Preprocess(
            crop=tuple(self.get("size")), resize=int(self.get("resize", 0)), interpolation=self.get("interpolation"),
            mean=self._for_each_colour("mean"), std=self._for_each_colour("std"), channels=self.get("channels"),
            fit=fit if fit in FILLED else "", fill=self._fill(fit), enlarge=self.get("enlarge", True),
        )  # fmt: skip

    def _fill(self, fit: str) -> float | tuple[float, ...]:
        """Return the padding's pixel value; one number, or one per colour."""
        fill: float | tuple[float, ...] = self.get("fill", GREY)
        if fit not in FILLED and (useless := [self._facts[name] for name in ("fill", "enlarge") if name in self]):
            got = f"{useless[0].name} ({useless[0].origin}), fit {fit} ({self._facts['fit'].origin})"
            expected = f"{useless[0].name} with {' or '.join(FILLED)} alone"
            raise UsageError(
                "nothing is filled", got=got, expected=expected, do="give --fit letterbox, or leave it out"
            )
        if isinstance(fill, tuple) and len(fill) != self.colours:
            got = f"{_short(fill)} ({self._facts['fill'].origin})"
            raise UsageError(
                "the fill does not fit the network's input", got=got, expected=f"{self.colours} numbers, or one"
            )
        return fill

    def _for_each_colour(self, name: str) -> tuple[float, ...]:
        """Return one number per colour; a single number is used for all."""
        numbers = tuple(map(float, self.get(name, IMAGENET[name][: self.colours])))
        numbers = numbers * self.colours if len(numbers) == 1 else numbers
        if len(numbers) != self.colours or (name == "std" and not all(number > 0 for number in numbers)):
            expected = (
                f"{self.colours} numbers{' above 0' if name == 'std' else ''}, one for each colour, or one for all"
            )
            raise UsageError(
                f"the {KNOWN[name]} does not fit the network's input", got=_short(numbers), expected=expected
            )
        return numbers


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(one)}" for key, one in value.items())
    if isinstance(value, (tuple, list)):
        shown = ", ".join(_short(item) for item in value[:4])
        return f"{shown}, ... ({len(value)})" if len(value) > 4 else shown
    if isinstance(value, InputSpec):
        return f"{value.name} {value.dtype} {value.shape}"
    if isinstance(value, SizeRange) and value.input:
        return f"{value.input} axis {value.axis}: {value}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def add_decoder(facts: Facts, shapes: Mapping[str, Sequence[int | None]]) -> None:
    """Add how the outputs are decoded, and into how many classes, if the task can tell it from their shapes.

    Args:
        facts: What is known so far.
        shapes: Of each output, by name, with the batch; None for free sizes.
    """
    task = find(facts.get("task", "features"))
    if not shapes or not task.truth:
        return
    known = int(facts.get("num_classes") or len(facts.get("labels", ())))
    settings, classes = task.guess_decoder({name: tuple(shape[1:]) for name, shape in shapes.items()}, known)
    if "decoder" not in facts:
        origin = f"{GUESS}: the shapes of the outputs"
        facts.add(origin, decoder=settings or None, num_classes=classes if classes != known else None)
