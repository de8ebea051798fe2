"""The default boxes of SSD for an input of any size, in plain Python: a spec is made without torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Level = tuple[int, int, tuple[tuple[float, float], ...]]


def default_boxes(
    size: tuple[int, int], stride: int, levels: int, scales: Sequence[float], ratios: Sequence[float]
) -> tuple[Level, ...]:
    """Return rows, columns and the sizes (width, height) of the boxes of each level, in pixels of the input.

    Each level has half of the rows and columns of the one before, rounded up, and larger boxes: a square of its scale,
    one of the geometric mean with the next scale, and for each ratio a wide and a tall one (Liu et al., SSD, 2015,
    arXiv:1512.02325, section 2.2, as torchvision has it).

    Args:
        size: Height and width of the input.
        stride: Pixels between the boxes of the first level.
        levels: Number of levels.
        scales: The first and the last level's scale, as shares of the sides.
        ratios: Of the longer to the shorter side.
    """
    low, high = scales
    steps = [low + (high - low) * at / (levels - 1) for at in range(levels)] + [1.0]
    result: list[Level] = []
    rows, columns = (-(-side // stride) for side in size)
    for scale, following in itertools.pairwise(steps):
        shares = [(scale, scale), (math.sqrt(scale * following),) * 2]
        for ratio in ratios:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shares += [(long, short), (short, long)]
        sizes = tuple((min(wide, 1.0) * size[1], min(tall, 1.0) * size[0]) for wide, tall in shares)
        result.append((rows, columns, sizes))
        rows, columns = -(-rows // 2), -(-columns // 2)
    return tuple(result)
