"""What `edgesmith quantize` prints for a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.common import proportion
from .console import say, table

if TYPE_CHECKING:
    from ..optimize.fp16.convert import PrecisionReport
    from ..optimize.quantize.report import QuantReport

PARTS = 5


def half(report: PrecisionReport, output: Path) -> None:
    """Print what became FP16 or BF16."""
    if report.kept:
        table("Stayed FP32", ["node", "reason"], report.kept.items(), left=2)
    say(f"{output}: {report.headline()}")


def int8(report: QuantReport, output: Path) -> None:
    """Print what became INT8, what did not and why, and where the noise comes from."""
    rows: list[tuple[Any, ...]] = [*report.quantised.items(), ("Relu/Clip folded into Q/DQ", len(report.folded))]
    table("Computed in INT8", ["operator", "nodes"], rows)
    if report.floats:
        table("Left in float", ["node", "reason"], report.floats.items(), left=2)
    _noise(report)
    _recipe(report)
    _tried(report)
    say(
        f"{output}: {report.target}, {report.images} images, {report.bytes_before / 1e6:.2f} -> "
        f"{report.bytes_after / 1e6:.2f} MB; {len(report.floats)} layers left in float"
    )
    say(_likeness(report))
    if report.classes and report.held_out:
        say(str(report.classes))
    if report.speed:
        say(str(report.speed))


def _likeness(report: QuantReport) -> str:
    """Say how like the float network's the answers are, on which images, the worst part of an output first."""
    fitted = "images that calibration did not use" if report.held_out else "of the calibration images"
    parts = list(report.sqnr_db.items())
    more = f" and {len(parts) - PARTS} more" if len(parts) > PARTS else ""
    text = (
        f"on {report.judged} {fitted}: " + ", ".join(f"{name} {value:.1f} dB" for name, value in parts[:PARTS]) + more
    )
    if report.agreement is None:
        return text
    if not report.held_out:
        return f"{text}; same top-1: cannot tell, no other images were given"
    return f"{text}; same top-1: {proportion.share_text(round(report.agreement * report.judged), report.judged)}"


def _noise(report: QuantReport) -> None:
    if report.layer_sqnr_db:
        rows = [(name, f"{value:.1f}") for name, value in report.layer_sqnr_db.items()]
        table("SQNR of the output with only this layer quantised", ["layer", "dB"], rows)
    if report.tensor_sqnr_db:
        worst = sorted(report.tensor_sqnr_db.items(), key=lambda item: item[1])
        shown = worst if report.layer_sqnr_db else worst[:5]
        table("Noisiest tensors", ["tensor", "SQNR, dB"], [(name, f"{value:.1f}") for name, value in shown])


def _recipe(report: QuantReport) -> None:
    if report.recipe:
        rows = [
            (one["step"], _db(one["sqnr_db"]), _db(one["disturbed_db"]), "kept" if one["kept"] else "left out")
            for one in report.recipe
        ]
        columns = ["step, added to what was kept before", "SQNR, dB", "disturbed, dB", ""]
        table("Recipe, judged on calibration images that are held back", columns, rows)


def _tried(report: QuantReport) -> None:
    if not report.tried:
        return
    rows = [
        (one["layers_in_float"], f"{1e3 * one['seconds']:.3f}", _db(one["sqnr_db"]), f"{one['points']:.2f}",
         "yes" if one["meets"] else "no", "yes" if one["best"] else "")
        for one in sorted(report.tried, key=lambda one: one["layers_in_float"])
    ]  # fmt: skip
    table(
        "Tried for the accuracy budget",
        ["layers in float", "ms", "SQNR, dB", "points lost", "meets it", "on the Pareto front"],
        rows,
    )
    say(report.reason)


def _db(value: float | None) -> str:
    return "float" if value is None else f"{value:.1f}"
