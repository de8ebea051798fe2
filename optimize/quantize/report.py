"""What is asked of a quantisation, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.common.display import Displayed, Table
from ...runtime.common.proportion import LEAST_IMAGES, wilson
from .class_likeness import ClassLikeness

if TYPE_CHECKING:
    import onnx

    from ..calibration.inputs import Batch, InputLayout
    from .output_parts import Parts
    from .speed import Speed


COMPARED = 1 << 19
STEPS = frozenset({"method", "equalize", "noise", "noisy", "refine"})


@dataclass(frozen=True)
class QuantSettings:
    """What is done to keep the accuracy.

    Attributes:
        equalize: Strength of cross-layer equalisation, 0 to 1; None leaves the weights alone.
        through_clips: Equalise channels in front of a Clip too; images unlike those seen are then cut off earlier.
        method: How ranges are chosen (`ranges.METHODS`, or "auto": for each tensor the one with the least error).
        refine: Choose ranges by measured error and correct biases, layer by layer.
        reconstruct: With `refine`, fit weights to the quantised input and round them together.
        adaround: Learn the rounding by gradient descent too: minutes instead of seconds.
        noise: Calibrate on each image with sensor noise too, of this share of its standard deviation; 0 for none.
        cover: Half of the noisy images are covered by an even rectangle with sides of this share; 0 for none.
        keep: Names of nodes that stay float.
        noisy: Names of layers that stay float because they alone make most of the noise (`recipe_search`).
        per_tensor: One scale for all output channels of a weight (fuses better on some GPUs, costs accuracy).
        ranges: Tensor -> (low, high) that training gave it; others are calibrated.
        choose: Steps, of STEPS, that are done only where they gain (`recipe_search`); empty: all as said here.
        gains: Whether channels are scaled by a product of their own where no weight can take the scale; None: where the
            target computes them for nothing, or where they gain.
    """

    equalize: float | None = 0.5
    through_clips: bool = True
    method: str = "min-max"
    refine: bool = True
    reconstruct: bool = True
    adaround: bool = False
    noise: float = 0.25
    cover: float = 0.3
    keep: frozenset[str] = frozenset()
    noisy: frozenset[str] = frozenset()
    per_tensor: bool = False
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    choose: frozenset[str] = frozenset()
    gains: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {name: sorted(getattr(self, name)) for name in ("keep", "noisy", "choose")}

    @classmethod
    def measured(cls, **options: Any) -> QuantSettings:
        """Return settings in which every step that is not named here has to gain on the network at hand."""
        return cls(**options, choose=STEPS - set(options))

    @classmethod
    def quick(cls, method: str = "min-max") -> QuantSettings:
        """Return the plainest calibration: ranges of the clean images, and nothing else."""
        return cls(method=method, equalize=None, refine=False, noise=0.0)


@dataclass(frozen=True, repr=False)
class QuantReport(Displayed):
    """What one quantisation did.

    Attributes:
        target: The form's name.
        images: Calibration images used.
        data_sha256: Digest of the preprocessed images, in their order.
        warnings: What the images look wrong in.
        quantised: Operator type -> how many compute in INT8.
        floats: Weighted operators left in float -> the reason.
        folded: Relu and Clip nodes that became a quantiser's range.
        limited: Nodes with weights under 8 bits, so that no product pair saturates 16 bits -> channels limited.
        ranges: Quantised tensor -> (low, high) of its grid.
        reason: With a budget: why this configuration was chosen.
        recipe: Every recipe that was tried (`recipe_search.Trial`), where steps were chosen.
        settings: What was done, with nothing left to choose: the same settings make the same form again.
        tried: With a budget: every configuration that was tried (`budget.Tried`), those on the Pareto front marked.
        tensor_sqnr_db: Quantised tensor -> signal to rounding and clipping noise of its own grid, in dB, on what the
            quantised network feeds it (empty without `refine`; tensors with one scale: the first of them).
        layer_sqnr_db: Layer -> SQNR of the first output when it alone is quantised, in dB (with a budget or `explain`).
        fitted: Layer -> share of its output's error left by fitting its weights, on images the fit had not seen.
        bytes_before: Size of the float file.
        bytes_after: Size of the quantised file.
        sqnr_db: Signal to quantisation noise in dB of each part of each output (`Quality`), the worst first, on images
            that nothing was fitted to where there are some (`held_out`), else on calibration images.
        agreement: Share of these images with the same top-1 in float and INT8 (None: no (N, classes) output).
        judged: How many images these are.
        held_out: Whether nothing was fitted to them. Where something was, the agreement is too good to be told.
        agreed: Part of an output (N, classes) -> how many of them have the same largest value in it.
        classes: How alike the first output's classes are on these images (None: no (N, classes) output).
        speed: INT8's speed beside the float file's on this machine (`speed.Speed`), or None.
        not_timed: Why there is none.
    """

    target: str
    images: int
    data_sha256: str
    warnings: tuple[str, ...]
    quantised: dict[str, int]
    floats: dict[str, str]
    folded: tuple[str, ...]
    limited: dict[str, int]
    ranges: dict[str, tuple[float, float]]
    reason: str
    tried: tuple[dict[str, Any], ...]
    tensor_sqnr_db: dict[str, float]
    layer_sqnr_db: dict[str, float]
    fitted: dict[str, float]
    bytes_before: int
    bytes_after: int
    sqnr_db: dict[str, float]
    agreement: float | None
    judged: int = 0
    held_out: bool = False
    agreed: dict[str, int] = field(default_factory=dict)
    classes: ClassLikeness | None = None
    recipe: tuple[dict[str, Any], ...] = ()
    settings: QuantSettings = field(default_factory=QuantSettings)
    speed: Speed | None = None
    not_timed: str = "not asked for"

    def headline(self) -> str:
        """Return target, images, sizes, and the SQNR of the worst part of an output."""
        worst = f", worst output {min(self.sqnr_db.values()):.1f} dB" if self.sqnr_db else ""
        sizes = f"{self.bytes_before / 1e6:.2f} -> {self.bytes_after / 1e6:.2f} MB"
        return f"{self.target}, {self.images} images, {sizes}{worst}; {len(self.floats)} layers left in float"

    def table(self) -> Table:
        """Return the SQNR of each part of each output, then each layer that stayed in float with its reason."""
        rows = [(name, f"{value:.1f} dB") for name, value in self.sqnr_db.items()]
        return ("output or layer", "SQNR, or why it stayed in float"), [*rows, *self.floats.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; an SQNR without noise (infinite) is None."""
        finite = {name: value if np.isfinite(value) else None for name, value in self.sqnr_db.items()}
        speed = self.speed.to_dict() if self.speed else None
        classes = self.classes.to_dict() if self.classes else None
        return asdict(self) | {
            "sqnr_db": finite, "speed": speed, "agreement_interval": self.interval, "classes": classes,
            "settings": self.settings.to_dict(),
        }  # fmt: skip

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the agreement; None where it cannot be told: too few images, or all fitted to."""
        if self.agreement is None or not self.held_out or self.judged < LEAST_IMAGES:
            return None
        return wilson(round(self.agreement * self.judged), self.judged)


@dataclass(frozen=True)
class Quality:
    """How like the float network's a graph's answers are, part by part of each output, the worst first.

    Attributes:
        sqnr_db: Part -> signal to quantisation noise in dB (infinite where equal). A part is an output, or what one of
            the inputs of the Concat behind it contributes to it: `output[:, 0:4]`.
        likeness: Part of an output (N, classes) -> how alike its classes are.
        images: How many images were looked at.
        first: The first output's name.
        selected: Outputs that a selection chooses (NonMaxSuppression, TopK): judged by what is chosen from.
    """

    sqnr_db: dict[str, float]
    likeness: dict[str, ClassLikeness]
    images: int
    first: str
    selected: tuple[str, ...] = ()

    @property
    def agreed(self) -> dict[str, int]:
        """Part of an output (N, classes) -> how many images have the same largest value in it."""
        return {part: one.agreed for part, one in self.likeness.items()}

    @property
    def classes(self) -> ClassLikeness | None:
        """How alike the classes of the first output are, of its worst part; None without classes."""
        parts = [one for part, one in self.likeness.items() if part.split("[")[0] == self.first]
        return min(parts, key=lambda one: (one.agreed, -one.divergence), default=None)

    @property
    def agreement(self) -> float | None:
        """The share of images with the same top-1 in the first output, of its worst part; None without classes."""
        return self.classes.agreed / self.images if self.classes else None


def compare(
    before: onnx.ModelProto, after: onnx.ModelProto, samples: Iterable[Batch]
) -> tuple[dict[str, float], float | None]:
    """Return the SQNR of each part of each output in dB, and the share of images with the same top-1.

    Of more than COMPARED pixels, batches taken evenly with at least so many: 16 images of 224x224 among 128.
    """
    from ..calibration.inputs import input_layout

    quality = judge(before, after, spread(samples, input_layout(before)))
    return quality.sqnr_db, quality.agreement


def judge(
    before: onnx.ModelProto, after: onnx.ModelProto, samples: Sequence[Batch], layout: InputLayout | None = None,
    floats: Sequence[dict[str, np.ndarray]] | None = None,
) -> Quality:  # fmt: skip
    """Compare the answers of two graphs of one interface, in the memory of one batch.

    Args:
        before: The float graph.
        after: The other one; Q/DQ are computed as they are written.
        samples: Batches of its inputs.
        layout: Those inputs, where they are known.
        floats: The float graph's `float_values` of these batches, where they are known.
    """
    from ..calibration.inputs import as_feeds, input_layout
    from ..calibration.ort_runs import stream
    from .judged_tensors import judged_tensors
    from .output_parts import Parts

    layout = layout or input_layout(before)
    judged = judged_tensors(before, after)
    names = list(dict.fromkeys(name for sources in judged.values() for name in sources))
    parts = Parts(before, names)
    power: dict[str, np.ndarray] = {}
    likeness: dict[str, ClassLikeness] = {}
    values = stream(before, names, samples, optimise=True) if floats is None else floats
    written = stream(after, names, samples, optimise=True, integers=False)
    for batch, one, two in zip(samples, values, written, strict=True):
        count = layout.length(batch)
        for name in names:
            if one[name].shape != two[name].shape:  # other boxes were found, say: all of it is error
                signal = np.square(one[name], dtype=np.float64).sum()
                power[name] = power.get(name, 0) + np.array([signal, signal])
                continue
            numbers = parts.of(name, one[name].shape, as_feeds(before, batch))
            for title, inside in _split(parts, name, one[name], numbers):
                first, second = (values[name][inside].astype(np.float64) for values in (one, two))
                sums = np.array([np.square(first).sum(), np.square(first - second).sum()])
                power[title] = power.get(title, 0) + sums
                by_image = one[name].ndim == 2 and len(one[name]) == count
                if by_image and first.size > count and first.size % count == 0:
                    alike = ClassLikeness.of(first.reshape(count, -1), second.reshape(count, -1))
                    likeness[title] = likeness[title] + alike if title in likeness else alike
    each = {title: _db(*sums.tolist()) for title, sums in power.items()}
    images = sum(map(layout.length, samples))
    selected = tuple(name for name, sources in judged.items() if sources != (name,))
    return Quality(dict(sorted(each.items(), key=lambda item: item[1])), likeness, images, names[0], selected)


def _split(parts: Parts, name: str, value: np.ndarray, numbers: np.ndarray | None) -> Iterator[tuple[str, Any]]:
    """Yield each part of an output: how it is called, and the mask of its values."""
    if numbers is None:
        yield name, ...
        return
    for part in np.unique(numbers).tolist():
        yield parts.title(name, numbers, part), numbers == part


def _db(signal: float, noise: float) -> float:
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))


def spread(samples: Iterable[Batch], layout: InputLayout | None = None, least: int = COMPARED) -> list[Batch]:
    """Return every batch, or every second, fourth, ... one: at least so many pixels, or all, and below twice that."""
    batches: list[Batch] = []
    every = 1
    for number, batch in enumerate(samples):
        if number % every == 0:
            batches.append(batch)
        if pixels(batches, layout) >= 2 * least and len(batches) > 1:
            batches, every = batches[::2], 2 * every
    return batches


def pixels(batches: Iterable[Batch], layout: InputLayout | None = None) -> int:
    """Return how many pixels batches have."""
    images = (layout.images(batch) if layout else batch for batch in batches)
    return sum(int(one[:, :1].size) if isinstance(one, np.ndarray) else 1 for one in images)
