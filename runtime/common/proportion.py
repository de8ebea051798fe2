"""Confidence intervals of a proportion: Wilson's."""

from __future__ import annotations

import math
from statistics import NormalDist

# With fewer the interval is wider than any difference that is looked for.
LEAST_IMAGES = 8


def wilson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson, 1927), which is also valid near 0 and 1."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, square = hits / count, z * z / count
    reach = z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    centre = share + square / 2
    low = (centre - reach) / (1 + square) if hits else 0.0
    return low, (centre + reach) / (1 + square) if hits < count else 1.0


def share_text(hits: int, count: int) -> str:
    """Return a share of images in per cent with its 95 % interval, or "cannot tell" for too few images."""
    if count < LEAST_IMAGES:
        return f"cannot tell from {count} images"
    low, high = wilson(hits, count)
    return f"{100 * hits / count:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {count} images"
