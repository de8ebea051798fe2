"""The recipe of a network: each step of the quantiser is kept only where it gains on images that nothing was fitted to.

A quarter of the calibration images judges. Plain ranges come first; then each step is added to what was best so far, the
cheap ones first: other ranges, equalisation, disturbed images, gains of channels; last the walk layer by layer, which
costs more than all others together. The result is never below plain ranges, and the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.samples import AugmentedSamples, Samples
from .pipeline import NEED_DB, Converted, convert
from .report import STEPS, QuantSettings, judge

if TYPE_CHECKING:
    import onnx

    from ..calibration.axis_roles import AxisRoles
    from .targets import Target

# Every fourth image judges, where these are at least so many; below that the images that were fitted to do.
EVERY, LEAST = 4, 8
# A step that gains less is noise of the judging images.
GAIN_DB = 0.1
WEAKER = 0.25  # the other strength of equalisation


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried.

    Attributes:
        step: What it adds to the best one before it.
        sqnr_db: SQNR of the worst output on the judging images, in dB; infinite for equal outputs.
        disturbed_db: The same on these images with sensor noise and covered parts.
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
        self.model, self.form, self.roles, self.usual = model, form, roles, settings
        count = samples.count()
        enough = count // EVERY >= max(LEAST, samples.size or 1)
        self.fit, judges = samples.split(EVERY) if enough else (samples, samples)
        seen = AugmentedSamples(judges, QuantSettings.noise, QuantSettings.cover)
        both = list(seen)
        self.clean, self.disturbed = (both[::2], both[1::2]) if seen.noisy else (both, both)
        self.trials: list[Trial] = []
        self.conversion: Converted | None = None

    @property
    def best(self) -> Trial:
        """The trial that is kept."""
        return next(trial for trial in reversed(self.trials) if trial.kept)

    def attempt(self, step: str, settings: QuantSettings, gains: bool | None = None) -> bool:
        """Convert by a recipe and keep it if it gains; return whether it does."""
        gains = self.form.free_channel_scales if gains is None else gains
        conversion = convert(self.model, self.form, self.fit, settings, self.roles, gains)
        clean, disturbed = (
            min(judge(self.model, conversion.model, batches, self.fit.layout).sqnr_db.values())
            for batches in (self.clean, self.disturbed)
        )
        trial = Trial(step, clean, disturbed, kept=False)
        floor = self.trials[0].sqnr_db if self.trials else -np.inf
        kept = not self.trials or (trial.score >= self.best.score + GAIN_DB and trial.sqnr_db >= floor)
        self.trials.append(replace(trial, kept=kept))
        if kept:
            self.conversion, self.settings, self.gains = conversion, settings, gains
        return kept

    def run(self) -> None:
        """Try every step that is free to be chosen."""
        usual, free = self.usual, self.usual.choose
        plain = replace(usual, choose=frozenset(), refine=False)
        plain = replace(plain, equalize=None if "equalize" in free else usual.equalize)
        plain = replace(plain, noise=0.0 if "noise" in free else usual.noise)
        self.attempt(f"{plain.method} ranges", plain)
        if "method" in free:
            self.attempt("percentile ranges", replace(self.settings, method="percentile"))
        if "equalize" in free and usual.equalize is not None:
            for strength in (usual.equalize, WEAKER):
                if self.attempt(f"equalisation {strength:g}", replace(self.settings, equalize=strength)):
                    break
        if "noise" in free and self.clean is not self.disturbed:
            self.attempt("disturbed images", replace(self.settings, noise=usual.noise))
        equalised = self.settings.equalize is not None
        if equalised and not self.form.free_channel_scales and self.best.score < NEED_DB:
            self.attempt("gains of channels", self.settings, gains=True)
        for name, settings in self._refinements():
            if self.attempt(name, settings, self.gains):
                break

    def _refinements(self) -> Iterator[tuple[str, QuantSettings]]:
        if self.usual.refine:
            if self.usual.reconstruct:
                yield "layer by layer", replace(self.settings, refine=True)
            yield "ranges and biases layer by layer", replace(self.settings, refine=True, reconstruct=False)


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
    recipes = _Recipes(model, form, samples, settings, roles)
    recipes.run()
    assert recipes.conversion is not None  # the first trial is kept
    return QuantRecipe(recipes.conversion, replace(recipes.settings, gains=recipes.gains), tuple(recipes.trials))
