"""`PYTHONPATH=tests python -m experiments.nms`: selection of YOLO's 8,400 boxes of 80 classes beside a plain loop.

Seconds of one core by the thread's own clock, the median of REPEATS; both select the same boxes of the same outputs.
"""

from __future__ import annotations

import time

import click
import numpy as np

from edgesmith.runtime.images.boxes import corners, nms
from edgesmith.runtime.images.settings import Preprocess
from edgesmith.runtime.tasks import DecodeContext, find

BOXES, CLASSES, SIDE, REPEATS = 8400, 80, 640, 15
CONTEXT = DecodeContext((), "", CLASSES, {"head": "yolo"}, Preprocess((SIDE, SIDE), 0))


def outputs(objects: int, around: int = 12) -> dict[str, np.ndarray]:
    """Return what YOLO v8 answers for an image with so many objects: some boxes around each, the rest near 0."""
    rng = np.random.default_rng(objects)
    table = np.empty((4 + CLASSES, BOXES), np.float32)
    table[:4] = rng.uniform(0, SIDE, (4, BOXES))
    table[4:] = rng.uniform(0, 0.02, (CLASSES, BOXES))
    for _ in range(objects):
        at = rng.choice(BOXES, around, replace=False)
        box = np.concatenate([rng.uniform(50, SIDE - 50, 2), rng.uniform(20, 200, 2)])
        table[:4, at] = (box + rng.normal(0, 4, (around, 4))).T
        table[4 + rng.integers(CLASSES), at] = rng.uniform(0.3, 0.95, around)
    return {"output0": table}


def plain(table: list[list[float]], least: float, threshold: float) -> list[int]:
    """Return which boxes stay, by loops over boxes, classes and pairs."""
    candidates = []
    for at in range(BOXES):
        label, score = 0, -1.0
        for one in range(CLASSES):
            if table[4 + one][at] > score:
                label, score = one, table[4 + one][at]
        if score >= least:
            x, y, wide, high = (table[row][at] for row in range(4))
            candidates.append((-score, at, label, x - wide / 2, y - high / 2, x + wide / 2, y + high / 2))
    kept: list[tuple[float, ...]] = []
    for one in sorted(candidates):
        for other in kept:
            if other[2] == one[2]:
                shared = max(min(one[5], other[5]) - max(one[3], other[3]), 0.0)
                shared *= max(min(one[6], other[6]) - max(one[4], other[4]), 0.0)
                total = (one[5] - one[3]) * (one[6] - one[4]) + (other[5] - other[3]) * (other[6] - other[4]) - shared
                if shared > threshold * total:
                    break
        else:
            kept.append(one)
    return [int(one[1]) for one in kept]


def seconds(action: object, *arguments: object) -> float:
    """Return the median seconds of one core of a call."""
    spent = []
    for _ in range(REPEATS):
        start = time.thread_time()
        action(*arguments)  # type: ignore[operator]
        spent.append(time.thread_time() - start)
    return float(np.median(spent))


@click.command()
def main() -> None:
    """Print the milliseconds of both for images with few and many objects."""
    detect = find("detect")
    click.echo("objects  candidates  kept  outputs to answer ms  of which selection ms  plain loops ms  ratio")
    for objects in (5, 20, 60):
        table = outputs(objects)
        best, values = table["output0"][4:].max(0), table["output0"].tolist()
        at = np.flatnonzero(best >= 0.25)
        boxes = corners(table["output0"][:4, at].T, "cxcywh")
        labels = table["output0"][4:, at].argmax(0)
        kept = at[nms(boxes, best[at], 0.7, labels)]
        assert kept.tolist() == plain(values, 0.25, 0.7)
        whole, own = seconds(detect.decode, table, CONTEXT), seconds(nms, boxes, best[at], 0.7, labels)
        loop = seconds(plain, values, 0.25, 0.7)
        click.echo(
            f"{objects:7}  {len(at):10}  {len(kept):4}  {1e3 * whole:20.2f}  {1e3 * own:21.2f}  "
            f"{1e3 * loop:14.1f}  {loop / whole:5.0f}"
        )


if __name__ == "__main__":
    main()
