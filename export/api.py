"""`es.export(...)`: the flow as a function, with the words of `edgesmith export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtime.common.progress import silent
from ..runtime.errors import UsageError
from .pipeline import run
from .settings import ExportSettings, Say, Summary


def export(
    model: str, *, precision: str = "fp32,fp16,int8", target: str = "ort-x86,trt", sm: str = "8.6,8.9",
    out: str | Path | None = None, say: Say = silent, **options: Any,
) -> Summary:  # fmt: skip
    """Take a network from PyTorch to a verified bundle: ONNX, FP16, INT8, TensorRT engines, golden outputs.

    Args:
        model: A name of `edgesmith models`.
        precision: Precisions, comma-separated.
        target: Targets, comma-separated; trt builds engines.
        sm: Compute capabilities to build engines for, comma-separated.
        out: The bundle's folder; None for bundles/MODEL.
        say: Called with one line after each stage; nothing is said without it.
        options: Any other field of `ExportSettings`: weights, data, calibration, dynamic_batch, input, opset, threads,
            weights_folder, max_drop, min_agreement, min_sqnr, overwrite.

    Returns:
        What was made and found; no bundle is written where a check failed (`summary.passed` is False then).

    Raises:
        UsageError: An unknown word, or what cannot be made as asked; before any work.
        CheckFailed: The ONNX file differs from the module, or a rewrite from what it replaces.
        EdgesmithError: Any other reason why no bundle can be made; an earlier bundle is as it was.
    """
    settings = ExportSettings(
        model, precisions=words(precision), targets=words(target), sms=words(sm),
        out=None if out is None else Path(out), **options,
    )  # fmt: skip
    return run(settings, say)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a comma-separated list, in lower case.

    Raises:
        UsageError: There is none.
    """
    parts = tuple(word.strip().lower() for word in text.split(",") if word.strip())
    if not parts:
        raise UsageError(
            f"{text!r} names nothing", expected="words separated by commas", do="see `edgesmith export --help`"
        )
    return parts
