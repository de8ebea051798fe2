"""Accuracy on labelled images: top-1, top-5, by class, agreement with FP32 and SQNR of the logits.

SQNR = 10·log10(Σ reference² / Σ (reference - output)²), in dB (Gray & Neuhoff, «Quantization», 1998), over all logits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import DataError, EdgesmithError
from ..measure.context import MetricContext
from ..result import Reading
from ..stats import wilson

Array = NDArray[np.float32]
Values = dict[str, float]
Intervals = dict[str, tuple[float, float]]


def measure(context: MetricContext) -> Reading:
    """Return `top1_ratio` and `top5_ratio`, and against the FP32 artefact `agreement_ratio` and `sqnr_db`.

    The names on other splits than "test" begin with the split: `hard_top1_ratio`. Each class that the images show is
    a row (split, class, images_count, top1_ratio), and the least of its split is `worst_class_top1_ratio`.
    """
    if not context.evaluations:
        return Reading("accuracy", missing=context.no_evaluation or "no labelled images were given")
    values: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    rows: list[dict[str, Any]] = []
    for split, evaluate in context.evaluations.items():
        try:
            logits, labels, reference = evaluate()
            scores, bounds = _one(logits, labels, reference)
        except EdgesmithError as error:
            return Reading("accuracy", missing=str(error))
        prefix = "" if split == "test" else f"{split}_"
        by_class = per_class(logits, labels)
        scores["worst_class_top1_ratio"] = min(row["top1_ratio"] for row in by_class)
        rows += [{"split": split, **row} for row in by_class]
        values |= {prefix + name: value for name, value in scores.items()}
        intervals |= {prefix + name: bound for name, bound in bounds.items()}
    return Reading("accuracy", values, intervals, rows=tuple(rows))


def per_class(logits: Array, labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return for each class in labels (N,) its number, its images and the share that logits (N, classes) have right."""
    right = logits.argmax(1) == labels
    return [
        {
            "class": int(one),
            "images_count": int((labels == one).sum()),
            "top1_ratio": float(right[labels == one].mean()),
        }
        for one in np.unique(labels)
    ]


def _one(logits: Array, labels: NDArray[np.int64], reference: Array | None) -> tuple[Values, Intervals]:
    values, intervals = score(logits, labels)
    if reference is not None:
        values["agreement_ratio"] = float((logits.argmax(1) == reference.argmax(1)).mean())
        if (db := sqnr_db(reference, logits)) is not None:
            values["sqnr_db"] = db
    return values, intervals


def score(logits: Array, labels: NDArray[np.int64]) -> tuple[Values, Intervals]:
    """Return the accuracies of logits (N, classes) against labels (N,), with Wilson intervals.

    Raises:
        DataError: The shapes do not fit, there is nothing, or a logit is not finite.
    """
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise DataError("accuracy cannot be told", got=f"logits {logits.shape}, labels {labels.shape}")
    if not np.isfinite(logits).all():
        raise DataError(
            "accuracy cannot be told", got=f"{int((~np.isfinite(logits)).sum())} logits that are not finite"
        )
    count = len(labels)
    right = {1: int((logits.argmax(1) == labels).sum())}
    if logits.shape[1] > 5:
        top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        right[5] = int((top == labels[:, None]).any(1).sum())
    values = {f"top{k}_ratio": hits / count for k, hits in right.items()}
    return {**values, "images_count": float(count)}, {f"top{k}_ratio": wilson(hits, count) for k, hits in right.items()}


def sqnr_db(reference: Array, output: Array) -> float | None:
    """Return the signal-to-quantisation-noise ratio in dB; None when the outputs are equal (it is infinite)."""
    noise = float(np.square(reference.astype(np.float64) - output).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return 10 * math.log10(signal / noise) if noise and signal else None
