"""The cost model's constants, fitted on published latencies, and its error on devices that the fit has not seen.

Least squares of the relative error of `a * roofline + b * kernels` (`runtime/engines/cost.py`), a and b of each family
of GPUs. Families have few points, so each `a` is held near one of all families, as strongly as by one point (`SHARED`).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from ...runtime.engines.cost import Gpu, Work, rooflines_s

# Weight of the common `a` beside one point. At 0 devices left out are predicted worse, at 3 the Orins that are known.
SHARED = 1.0
COMMON = ""  # the family of a device that is the only one of its own


@dataclass(frozen=True)
class PublishedLatency:
    """One published latency, in seconds for the whole batch."""

    device: str
    precision: str
    network: str
    batch: int
    seconds: float
    source: str


@dataclass(frozen=True)
class Point:
    """A published latency with the kernels at batch 1 that it was of, and the GPU's rates."""

    works: Sequence[Work]
    gpu: Gpu
    batch: int
    seconds: float

    def shares(self) -> tuple[float, float]:
        """Return roofline and number of kernels, both over the published seconds."""
        return sum(rooflines_s(self.works, self.gpu, self.batch)) / self.seconds, len(self.works) / self.seconds


def published_latencies() -> list[PublishedLatency]:
    """Return the published latencies."""
    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return [
        PublishedLatency(
            row["device"], row["precision"], row["network"], int(row["batch"]), float(row["ms"]) * 1e-3, row["source"]
        )
        for row in csv.DictReader(text.splitlines())
    ]


def fit_coefficients(points: Sequence[Point]) -> dict[str, tuple[float, float]]:
    """Fit (a, b in seconds) of each family of GPUs, and of COMMON: the common `a`, the geometric mean of the `b`."""
    import numpy as np

    families = sorted({point.gpu.family for point in points})
    count = len(families)
    # Unknowns: the common a; each family's distance from it; each family's b.
    rows = np.zeros((len(points) + count, 1 + 2 * count))
    for row, point in zip(rows, points, strict=False):
        at = families.index(point.gpu.family)
        row[0], row[1 + count + at] = point.shares()
        row[1 + at] = row[0]
    rows[len(points) :, 1 : 1 + count] = SHARED * np.eye(count)
    wanted = np.repeat([1.0, 0.0], [len(points), count])
    common, *rest = (float(value) for value in np.linalg.lstsq(rows, wanted, rcond=None)[0])
    solved = {name: (common + rest[at], rest[count + at]) for at, name in enumerate(families)}
    return {**solved, COMMON: (common, float(np.exp(np.mean(np.log(rest[count:])))))}


def leave_one_out(points: Sequence[Point]) -> list[float]:
    """Predict the points of each device from those of all others; return predicted / published in the order given."""
    ratios = []
    for point in points:
        solved = fit_coefficients([other for other in points if other.gpu.name != point.gpu.name])
        a, b = solved.get(point.gpu.family, solved[COMMON])
        roofline, kernels = point.shares()
        ratios.append(a * roofline + b * kernels)
    return ratios
