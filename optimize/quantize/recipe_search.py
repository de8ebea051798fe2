"""The recipe of a network: each step of the quantiser is kept only where it gains on images that nothing was fitted to.

A quarter of the calibration images judges. Plain ranges come first; then each step is added to what was best so far,
the cheap ones first, on some of the images where these are large: other ranges, equalisation, disturbed images, gains
of channels, the noisiest layers in float where an engine is no slower for it; last the walks layer by layer, each of
which costs more than all others together. The result is never below plain ranges on the judging images, and the same
each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.common.files import scratch
from ...runtime.targets import row
from ..calibration.samples import AugmentedSamples, Samples
from .judged_tensors import float_values
from .mixed_precision.latency_model import model_costs
from .mixed_precision.search import sensitivity
from .pipeline import NEED_DB, Converted, convert
from .report import COMPARED, STEPS, QuantSettings, judge, pixels, spread

if TYPE_CHECKING:
    import onnx

    from ..calibration.axis_roles import AxisRoles
    from .targets import Target

# Every fourth image judges, where these are at least so many; below that the images that were fitted to do.
EVERY, LEAST = 4, 8
# A step that gains less is noise of the judging images.
GAIN_DB = 0.1
# What all usual steps need to gain over those that each gained: pictures unlike these lose more by a step too many.
SURE_DB = 0.5
# At most so many layers return to float for their noise, at most one of so many, if that gains so many dB and an engine
# takes at most so many times as long.
NOISY, ONE_OF, NOISY_DB, SLOWER = 3, 10, 0.5, 1.02
NOISY_IMAGES = 4  # on which the noise of each layer alone is measured
WEAKER = 0.25  # the other strength of equalisation
FITTED = 1 << 20  # pixels that cheap trials are fitted to, at least: 21 images of 224x224
WHOLE = "all steps, layer by layer"
DRAWS = 4  # disturbed copies of each judging image, at most: one image can decide the SQNR of all
DISTURBED = QuantSettings()  # what the judging images are disturbed with


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried.

    Attributes:
        step: What it adds to the best one before it.
        sqnr_db: SQNR of the worst output on the judging images, in dB; infinite for equal outputs.
        disturbed_db: The same on these images with sensor noise and covered parts, where the inputs take noise.
        kept: Whether it became the best one.
    """

    step: str
    sqnr_db: float
    disturbed_db: float
    kept: bool

    @property
    def score(self) -> float:
        """What recipes are ordered by: the mean of both."""
        return (self.sqnr_db + self.disturbed_db) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {
            key: value if np.isfinite(value := getattr(self, key)) else None for key in ("sqnr_db", "disturbed_db")
        }


@dataclass(frozen=True)
class QuantRecipe:
    """The best recipe: its graph, its settings (nothing is left to choose in them), and all trials in their order."""

    conversion: Converted
    settings: QuantSettings
    trials: tuple[Trial, ...]


class _Recipes:
    """Tries recipes on one network, and remembers the best one."""

    def __init__(
        self, model: onnx.ModelProto, form: Target, samples: Samples, settings: QuantSettings, roles: AxisRoles | None
    ) -> None:
        self.model, self.form, self.roles, self.usual, self.samples = model, form, roles, settings, samples
        count = samples.count()
        enough = count // EVERY >= max(LEAST, samples.size or 1)
        self.fit, judges = samples.split(EVERY) if enough else (samples, samples)
        few = spread(self.fit, samples.layout, FITTED)
        self.few = Samples(few, samples.layout, samples.cache, f"{self.fit.digest}/few", samples.size)
        judged = spread(judges, samples.layout)
        draws = int(np.clip(COMPARED // max(pixels(judged, samples.layout), 1), 1, DRAWS))
        seen = AugmentedSamples(
            Samples(judged * draws, samples.layout, size=judges.size), DISTURBED.noise, DISTURBED.cover
        )
        both = list(seen)
        self.judges = [judged, both[1::2]] if seen.noisy else [judged]
        self.floats = [float_values(model, batches) for batches in self.judges]
        self.trials: list[Trial] = []
        self.conversion: Converted | None = None

    @property
    def best(self) -> Trial:
        """The trial that is kept."""
        return next(trial for trial in reversed(self.trials) if trial.kept)

    @property
    def changes_nothing(self) -> bool:
        """Whether the last trial answers what the best one answers: there was nothing that its step could do."""
        last, best = self.trials[-1], self.best
        return (last.sqnr_db, last.disturbed_db) == (best.sqnr_db, best.disturbed_db)

    def attempt(
        self, step: str, settings: QuantSettings, fit: Samples | None = None, needed_db: float = GAIN_DB
    ) -> None:
        """Convert by a recipe, and keep it if it gains as much as is needed."""
        conversion = convert(self.model, self.form, fit or self.few, settings, self.roles)
        each = [
            min(judge(self.model, conversion.model, batches, self.fit.layout, floats).sqnr_db.values())
            for batches, floats in zip(self.judges, self.floats, strict=True)
        ]
        trial = Trial(step, each[0], each[-1], kept=False)
        floor = self.trials[0].sqnr_db if self.trials else -np.inf
        kept = not self.trials or (trial.score >= self.best.score + needed_db and trial.sqnr_db >= floor)
        self.trials.append(replace(trial, kept=kept))
        if kept:
            self.conversion, self.settings = conversion, settings

    def run(self) -> None:
        """Try every step that is free to be chosen."""
        usual, free = self.usual, self.usual.choose
        plain = replace(
            usual, choose=frozenset(), gains=self.form.free_channel_scales, refine=usual.refine and "refine" not in free
        )
        plain = replace(plain, equalize=None if "equalize" in free else usual.equalize)
        plain = replace(plain, noise=0.0 if "noise" in free else usual.noise)
        self.attempt(f"{plain.method} ranges", plain)
        if "method" in free:
            self.attempt("percentile ranges", replace(self.settings, method="percentile"))
        if "equalize" in free and usual.equalize is not None:
            for name, strength, clips in (
                (f"equalisation {usual.equalize:g}", usual.equalize, False),
                (f"equalisation {WEAKER:g}", WEAKER, False),
                ("equalisation through clips", usual.equalize, True),
            ):
                if strength != WEAKER or not (self.trials[-1].kept or self.changes_nothing):
                    self.attempt(name, replace(self.settings, equalize=strength, through_clips=clips))
        if "noise" in free and len(self.judges) > 1:
            self.attempt("disturbed images", replace(self.settings, noise=usual.noise))
        equalised = self.settings.equalize is not None
        if equalised and not self.form.free_channel_scales and self.best.score < NEED_DB:
            self.attempt("gains of channels", replace(self.settings, gains=True))
        if "noisy" in free and row(self.form.name).engine and self.best.score < NEED_DB:
            self._leave_noisiest()
        walks = dict(self._refinements())
        for name, settings in walks.items():
            needed = SURE_DB if self.settings.refine else GAIN_DB
            self.attempt(name, settings, self.fit, needed)
            if self.settings.refine and (name == WHOLE or WHOLE not in walks):
                break
        if not self.settings.refine:
            # What is cheap is done again with the judging images too; a walk gains nothing by them.
            self.conversion = convert(self.model, self.form, self.samples, self.settings, self.roles)

    def _leave_noisiest(self) -> None:
        """Try the noisiest layers in float, those with which an engine takes no longer by the cost model."""
        costs, noisy = model_costs(self.model, self.form.name), list[str]()
        most = min(NOISY, len(costs.int8_s) // ONE_OF)
        for name in sensitivity(self.model, self.form, self.few, NOISY_IMAGES) if most else ():
            if len(noisy) < most and costs.total((*noisy, name)) <= SLOWER * costs.total(()):
                noisy.append(name)
        if noisy:
            title = f"noisiest layers in float: {len(noisy)}"
            self.attempt(title, replace(self.settings, noisy=frozenset(noisy)), needed_db=NOISY_DB)

    def _refinements(self) -> Iterator[tuple[str, QuantSettings]]:
        """Yield walks in the order they are tried; disturbed images matter more there than for plain ranges.

        First with the steps kept so far, then with all usual ones; the others only where neither gains.
        """
        usual, best = self.usual, self.settings
        if not usual.refine or best.refine:
            return
        clips = best.equalize is not None and best.through_clips
        whole = replace(usual, choose=frozenset(), through_clips=clips, gains=best.gains, noisy=best.noisy)
        differs = usual.choose >= STEPS and replace(best, refine=True, noise=usual.noise) != whole
        noise = dict.fromkeys((usual.noise, best.noise) if "noise" in usual.choose else (best.noise,))
        for level in noise:
            if usual.reconstruct:
                title = "layer by layer" + " on disturbed images" * bool(level)
                yield title, replace(best, refine=True, noise=level)
            if differs and level == usual.noise:
                yield WHOLE, whole
        yield "ranges and biases layer by layer", replace(best, refine=True, reconstruct=False)


def choose_recipe(
    model: onnx.ModelProto, form: Target, samples: Samples, settings: QuantSettings, roles: AxisRoles | None = None
) -> QuantRecipe:
    """Return the recipe that keeps most on images it was not fitted to.

    Args:
        model: The float graph.
        form: The target's form.
        samples: Calibration images; with fewer than 32 the images that it is fitted to judge it.
        settings: What may be done; `choose` names the steps that are done only where they gain.
        roles: Which axis of each tensor is the batch, as far as it is known.
    """
    if not settings.choose <= STEPS:
        raise ValueError(f"unknown steps {sorted(settings.choose - STEPS)}; there are {sorted(STEPS)}")
    with scratch("recipe") as folder:  # trials share what they count
        if samples.cache is None:
            samples = Samples(samples.batches, samples.layout, folder, samples.digest, samples.size)
        recipes = _Recipes(model, form, samples, settings, roles)
        recipes.run()
    assert recipes.conversion is not None  # the first trial is kept
    return QuantRecipe(recipes.conversion, recipes.settings, tuple(recipes.trials))
