"""Comparison of two ONNX files: ONNX Runtime with all optimisations off, on random and on real inputs.

Only one session is open at a time, and the number of inputs is limited by time, so the comparison of a large model
costs about two loads and two runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.common.ort_session import ort_session
from ..runtime.common.sizes import Sizes
from ..runtime.errors import ModelError
from .comparison_inputs import Array, Feeds, Refusal, more_feeds, random_feeds, real_feeds


@dataclass(frozen=True)
class Equivalence:
    """The comparison of the result with the source.

    Attributes:
        verdict: "equal", "different", "not run" (on request) or "cannot tell".
        detail: Why it is not "equal".
        worst_error: Largest absolute difference over all outputs, in the outputs' unit.
        worst_output: The output with this difference.
        scale: The largest magnitude of that output.
        rounding: The change of this output of the source by noise in the last digits of the input, if the error exceeds
            the usual tolerance and only this change explains it.
        runs: The number of inputs compared.
        seconds: The duration of the comparison.
    """

    verdict: str
    detail: str = ""
    worst_error: float = 0.0
    worst_output: str = ""
    runs: int = 0
    seconds: float = 0.0
    scale: float = 0.0
    rounding: float | None = None

    @property
    def error(self) -> str:
        """The worst error, with the magnitude of the values and the network's rounding noise."""
        if not self.worst_error:
            return "worst error 0"
        sentence = f"worst error {self.worst_error:.2g} of values up to {self.scale:.2g}"
        if self.rounding is None:
            return sentence
        return f"{sentence}; noise in the input's last digits changes the source's outputs by {self.rounding:.2g}"


# data type -> (relative to the largest magnitude of the output, absolute)
TOLERANCE = {"float64": (1e-6, 1e-9), "float32": (1e-4, 1e-6), "float16": (2e-2, 1e-3), "bfloat16": (6e-2, 1e-2)}
# 8-bit integers are outputs of quantisers, where float rounding may change a value between two steps.
STEP = {"uint8": 1, "int8": 1}
# Relative noise on the input, and the allowed multiple of the change that it causes in the original.
NOISE, AMPLE = 4, 8
# Sizes tried for dynamic axes: (the first axis, every other).
FREE = ((2, 64), (2, 224), (1, 32), (1, 8), (1, 1))
ENOUGH_S = 0.2


def compare(source: Path, result: Path, samples: Iterable[Any] | None = None) -> Equivalence:
    """Compare two files on the same inputs.

    Args:
        source: The original.
        result: The file that must have the same outputs.
        samples: Real inputs, if any: arrays for the first input, or dicts by input name. At most four are used.

    Returns:
        Verdict "equal", "different", or "cannot tell" if the original does not run here.
    """
    start = time.perf_counter()
    try:
        expected = reference(source, samples)
    except Refusal as refusal:
        return Equivalence(
            "cannot tell", f"the source does not run here: {refusal}", seconds=time.perf_counter() - start
        )
    check = against(expected, result)
    return replace(check, seconds=_since(start))


def _since(start: float) -> float:
    return time.perf_counter() - start


@dataclass(frozen=True)
class Expected:
    """Inputs with the outputs of the original (which takes them, unless it is None), and what opens a file."""

    source: Path | None
    pairs: list[tuple[Feeds, dict[str, Any]]]
    open: Callable[[Path], Any]

    def moved(self, feeds: Feeds, name: str) -> float:
        """Return the change of an output of the original by noise in the last digits of the input; 0 if unknown.

        Some networks are chaotic for some inputs: they amplify rounding errors ten thousand times.
        """
        if self.source is None:
            return 0.0
        rng, noisy = np.random.default_rng(1), dict(feeds)
        for key, array in feeds.items():
            if array.dtype.kind == "f" and array.ndim:
                noise = rng.choice([-1.0, 1.0], array.shape) * NOISE * float(np.finfo(array.dtype).eps)
                noisy[key] = (array * (1 + noise)).astype(array.dtype)
        before = next(outputs for inputs, outputs in self.pairs if inputs is feeds)[name]
        moved, _ = difference(before, _run(self.open(self.source), noisy)[name])
        return moved if np.isfinite(moved) else 0.0


def reference(
    source: Path, samples: Iterable[Any] | None = None, batch: int | None = None,
    sizes: Sizes | None = None,
) -> Expected:  # fmt: skip
    """Run the original on random and real inputs and return them with its outputs.

    If ONNX Runtime cannot run the original and it is small, ONNX's reference evaluator runs it.

    Args:
        source: The original.
        samples: As for `compare`.
        batch: The only size to try for dynamic first axes.
        sizes: Shapes of inputs with dynamic axes, by name.

    Raises:
        Refusal: It does not load, or accepts none of the inputs.
    """
    kept = None if samples is None else list(samples)
    try:
        return Expected(source, _pairs(_session(source), kept, batch, sizes or {}), _session)
    except Refusal as refusal:
        try:
            return Expected(source, _pairs(_evaluator(source), kept, batch, sizes or {}), _evaluator)
        except Refusal:
            raise refusal from None


def _pairs(
    session: Any, samples: list[Any] | None, batch: int | None, sizes: Sizes
) -> list[tuple[Feeds, dict[str, Any]]]:
    try:
        pairs = _first_that_runs(session, batch, sizes)
    except Refusal:  # random inputs may be invalid: indices out of range, invalid boxes
        pairs = [(feeds, _run(session, feeds)) for feeds in real_feeds(session, samples, batch, sizes)]
        if not pairs:
            raise
        return pairs
    start = time.perf_counter()
    for feeds in [*more_feeds(pairs[0][0]), *real_feeds(session, samples, batch, sizes)]:
        if time.perf_counter() - start > ENOUGH_S and samples is None:
            break
        pairs.append((feeds, _run(session, feeds)))
    return pairs


def against(expected: Expected, result: Path) -> Equivalence:
    """Run a file on the inputs of `reference` and compare."""
    worst, where, scale = 0.0, "", 0.0
    rounding: float | None = None
    try:
        session = expected.open(result)
        for runs, (feeds, outputs) in enumerate(expected.pairs, 1):
            results = _run(session, feeds)
            if list(results) != list(outputs):
                return Equivalence("different", f"outputs {list(results)} instead of {list(outputs)}", runs=runs)
            for name, output in outputs.items():
                error, problem = difference(output, results[name])
                moved = expected.moved(feeds, name) if problem and np.isfinite(error) else None
                if problem and not (moved and error <= AMPLE * moved):
                    return Equivalence("different", f"output {name!r}: {problem}", error, name, runs)
                if error >= worst:
                    worst, where, scale, rounding = error, name, _largest(output), moved
    except Refusal as refusal:
        return Equivalence("different", f"the result does not run: {refusal}")
    return Equivalence("equal", "", worst, where, len(expected.pairs), scale=scale, rounding=rounding)


def _largest(output: Any) -> float:
    """Return the largest finite magnitude of an output; 0 if it has none."""
    value = np.asarray(output) if isinstance(output, np.ndarray) else np.zeros(0)
    if value.dtype.kind in "OUSb":
        return 0.0
    value = value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)
    return float(np.abs(value[np.isfinite(value)]).max(initial=0))


def difference(expected: Any, got: Any) -> tuple[float, str]:
    """Compare two outputs: arrays, or sequences of arrays.

    Returns:
        The largest absolute difference, and the problem (empty if it is within the tolerance of the data type).
    """
    if isinstance(expected, (list, dict)) or expected is None or isinstance(got, (list, dict)):
        return _sequences(expected, got)
    expected, got = np.asarray(expected), np.asarray(got)
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return np.inf, f"{got.dtype}{list(got.shape)} instead of {expected.dtype}{list(expected.shape)}"
    if expected.dtype.kind in "OUSb" or expected.size == 0:
        same = bool(np.array_equal(expected, got))
        return (0.0, "") if same else (1.0, "other values")
    return _numbers(expected, got)


def _sequences(expected: Any, got: Any) -> tuple[float, str]:
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        differences = [difference(one, other) for one, other in zip(expected, got, strict=True)]
        worst = max((error for error, _ in differences), default=0.0)
        return worst, next((problem for _, problem in differences if problem), "")
    return (0.0, "") if expected == got else (1.0, "another sequence")


def _numbers(expected: Array, got: Array) -> tuple[float, str]:
    relative, absolute = TOLERANCE.get(str(expected.dtype), (0.0, STEP.get(str(expected.dtype), 0)))
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    one, other = expected.astype(wide), got.astype(wide)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)) or not np.array_equal(one[~finite], other[~finite], True):
        return np.inf, "NaN or infinity at other positions"
    if not finite.any():
        return 0.0, ""
    one, other = one[finite], other[finite]
    error = float(np.abs(one - other).max())
    allowed = relative * float(np.abs(one).max()) + absolute
    return error, "" if error <= allowed else f"differs by {error:.3g}, allowed {allowed:.3g}"


# -- running ----------------------------------------------------------------------------------------------------------


def _session(path: Path) -> Any:
    try:  # for a few runs an arena and packed weights bring no gain
        return ort_session(path, level="DISABLE_ALL", arena=False, entries={"session.disable_prepacking": "1"})
    except ModelError as error:
        raise Refusal(error.got) from error


def _evaluator(path: Path) -> Any:
    from .reference_evaluator import Evaluator

    try:
        return Evaluator(path)
    except Exception as error:
        raise Refusal(_line(error)) from error


def _run(session: Any, feeds: Feeds) -> dict[str, Any]:
    names = [value.name for value in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:
        raise Refusal(_line(error)) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _first_that_runs(session: Any, batch: int | None, sizes: Sizes) -> list[tuple[Feeds, dict[str, Any]]]:
    fixed = all(isinstance(dim, int) and dim >= 0 for value in session.get_inputs() for dim in value.shape)
    refusal = Refusal("it has inputs of a type that cannot be generated")
    for first, other in FREE[:1] if fixed else FREE:
        feeds = random_feeds(session, batch or first, other, sizes)
        if feeds is None:
            break
        try:
            return [(feeds, _run(session, feeds))]
        except Refusal as error:
            refusal = error
    raise refusal
