"""Whether an INT8 file is faster than the float one on this machine: both run in turns, one thread, for a second.

Where the kernels have no INT8 for what a network consists of, or quantising between its layers costs more than it
gains, INT8 is slower; only measuring tells.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime import backends, targets
from ...runtime.common.plugins import load_plugin
from ...runtime.errors import CANNOT
from ...runtime.targets import is_here

if TYPE_CHECKING:
    from ...runtime.backends._base import Session

# A turn is as many runs as take TURN_S; pairs of turns are taken for BUDGET_S, and at least LEAST of them.
TURN_S, BUDGET_S, LEAST, MOST, WARM_UPS = 0.004, 1.0, 9, 101, 3


@dataclass(frozen=True)
class Speed:
    """INT8's speed as a share of FP32's (2.0: it takes half of the time), with its 95 % interval.

    `backend` is what ran them; the seconds are the medians of one run.
    """

    ratio: float
    low: float
    high: float
    backend: str = ""
    float_s: float = 0.0
    int8_s: float = 0.0

    def __str__(self) -> str:
        """Say it, and what follows from it."""
        sentence = f"INT8 {self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}] of FP32's speed here: "
        if self.high < 1:
            return f"{sentence}slower than FP32; ship FP32 on this kind of machine"
        return sentence + ("faster than FP32" if self.low > 1 else "as fast as FP32, as far as can be told")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the sentence."""
        return asdict(self) | {"said": str(self)}


def from_pairs(pairs: Sequence[tuple[float, float]], backend: str = "") -> Speed:
    """Return the median of float_s / int8_s over pairs of turns, and its distribution-free 95 % interval.

    The bounds are order statistics: between them lies the median with that probability, whatever the distribution.
    """
    ratios = sorted(one / two for one, two in pairs)
    reach = 0.98 * math.sqrt(len(ratios))
    low, high = math.floor(len(ratios) / 2 - reach), math.ceil(len(ratios) / 2 + reach)
    seconds = np.median(np.asarray(pairs, np.float64), axis=0).tolist()
    bounds = ratios[max(low, 0)], ratios[min(high, len(ratios) - 1)]
    return Speed(float(np.median(ratios)), *bounds, backend, *seconds)


def race(
    source: Path, result: Path, target: str, image: np.ndarray | dict[str, np.ndarray]
) -> tuple[Speed | None, str]:
    """Run a float file and the INT8 one made of it in turns.

    Args:
        source: The float file.
        result: The INT8 file.
        target: The form's name: it says which backend runs it.
        image: One input of the graph, or all by name, of its own batch.

    Returns:
        The speed, or None and why both cannot be timed here.
    """
    if not is_here(target):
        return None, f"{target} is not this kind of machine"
    name = targets.row(target).backends[0]
    backend = load_plugin(backends, name, "backend")
    usable, reason = backend.available()
    if not usable:
        return None, reason
    try:
        with backend.open(source, threads=1) as one, backend.open(result, threads=1) as two:
            return from_pairs(_pairs((one, two), image), name), ""
    except CANNOT as error:
        return None, str(error)


def _pairs(sessions: tuple[Session, Session], image: np.ndarray | dict[str, np.ndarray]) -> list[tuple[float, float]]:
    feeds = image if isinstance(image, dict) else {sessions[0].inputs[0].name: image}
    runs = [max(1, round(TURN_S / min(_turn(session, feeds, 1) for _ in range(WARM_UPS)))) for session in sessions]
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + BUDGET_S
    while len(pairs) < LEAST or (len(pairs) < MOST and time.perf_counter() < end):
        order = (0, 1) if len(pairs) % 2 else (1, 0)  # what follows another kind of work is slower: each in turn
        seconds = {at: _turn(sessions[at], feeds, runs[at]) for at in order}
        pairs.append((seconds[0], seconds[1]))
    return pairs


def _turn(session: Session, feeds: dict[str, np.ndarray], runs: int) -> float:
    """Return the seconds of one run, the mean of several."""
    started = time.perf_counter()
    for _ in range(runs):
        session.run(feeds, finite=True)
    return (time.perf_counter() - started) / runs
