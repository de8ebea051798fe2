"""Parity check: compare the ONNX file's outputs with the module's, on random and real inputs, with batch 1 and 3.

The error of each output is max |a - b| / max |b|, where b is the module's output in eval mode, in float64 arithmetic:
it is large for a scaled, negated, permuted or zero output, and NaN or Inf never passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.common.ort_session import ort_session
from ..runtime.common.packages import need
from ..runtime.errors import CheckFailed, ModelError
from ..runtime.spec import InputSpec, ModelSpec
from ..runtime.verify import relative_error
from .outputs import arranged

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Batch = Any  # an array (N, ...) for the only input, or a dict of arrays by the inputs' names
BATCHES = (1, 3)
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One comparison: the source of the input, its batch size, the output's name and its relative error."""

    inputs: str
    batch: int
    output: str
    error: float


@dataclass(frozen=True)
class ParityReport:
    """All comparisons, and the tolerance of the relative error."""

    cases: tuple[Case, ...]
    tolerance: float

    @property
    def worst(self) -> Case:
        """The case with the largest error; NaN counts as the largest."""
        return max(self.cases, key=lambda case: math.inf if math.isnan(case.error) else case.error)

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance."""
        return all(case.error <= self.tolerance for case in self.cases)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "tolerance": self.tolerance,
            "passed": self.passed,
            "worst": asdict(self.worst),
            "cases": [asdict(case) for case in self.cases],
        }


def check(
    module: torch.nn.Module,
    path: str | Path,
    spec: ModelSpec,
    images: Batch | None = None,
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> ParityReport:
    """Compare an ONNX file with its source module, with ONNX Runtime's optimisations off.

    Args:
        module: The network; compared in eval mode; its mode is restored.
        path: The ONNX file, whose outputs are matched with the module's by their keys; see `outputs.arranged`. If
            its batch is fixed to one, both are run image by image, for any batch axis of the outputs.
        spec: Names and shapes.
        images: Real inputs, float32, (N >= 3, *spec.input_shape), or a dict of such for several inputs; without them
            only random inputs are compared.
        tolerance: Largest relative error that passes.
        seed: Seed of the random inputs, which are standard normal.

    Raises:
        CheckFailed: An output differs by more than the tolerance; the message names the worst one.
        ModelError: ONNX Runtime cannot load or run the file, or its outputs are not those of the module.
    """
    report = compare(module, path, spec, images, tolerance=tolerance, seed=seed)
    if not report.passed:
        worst = report.worst
        raise CheckFailed(
            f"the ONNX file {path} differs from the PyTorch module: output {worst.output!r} is worst",
            got=f"relative error {worst.error:.2e} on {worst.inputs} input at batch {worst.batch}",
            expected=f"at most {report.tolerance:.0e}",
            do="look for a layer that behaves differently in eval mode, or a custom operator",
        )
    return report


def compare(
    module: torch.nn.Module,
    path: str | Path,
    spec: ModelSpec,
    images: Batch | None = None,
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> ParityReport:
    """Like `check`, but return a report that failed instead of raising."""
    session = ort_session(path, level="DISABLE_ALL")
    cases = []
    rng = np.random.default_rng(seed)
    random = {one.name: _random(rng, one) for one in spec.inputs}
    bounds = {f"{bound} size": _bound(rng, spec, bound) for bound in ("least", "most") if spec.ranges}
    for name, source in (("random", random), ("real", images), *bounds.items()):
        feeds = {} if source is None else spec.feeds(source)
        for batch in BATCHES:
            if feeds and len(feeds[spec.input_name]) >= batch:
                part = {one.name: feeds[one.name][:batch] for one in spec.inputs}
                cases += _cases(module, session, spec, name, part, path)
    return ParityReport(tuple(cases), tolerance)


def _bound(rng: np.random.Generator, spec: ModelSpec, bound: str) -> dict[str, NDArray[Any]]:
    """Draw one sample of each input with the bound, "least" or "most", of every range of sizes."""
    sizes = {(one.input, one.axis): getattr(one, bound) for one in spec.ranges}
    shapes = {
        one.name: tuple(sizes.get((one.name, axis), size) for axis, size in enumerate(one.shape, 1))
        for one in spec.inputs
    }
    return {one.name: _random(rng, replace(one, shape=shapes[one.name]), 1) for one in spec.inputs}


def _random(rng: np.random.Generator, one: InputSpec, count: int = max(BATCHES)) -> NDArray[Any]:
    """Draw samples of an input: standard normal, or whole numbers of 0 and 1."""
    shape, kind = (count, *one.shape), np.dtype(one.dtype)
    return rng.standard_normal(shape).astype(kind) if kind.kind == "f" else rng.integers(0, 2, shape).astype(kind)


def _cases(
    module: torch.nn.Module, session: Any, spec: ModelSpec, name: str, feeds: dict[str, NDArray[Any]], path: str | Path
) -> list[Case]:
    names: Sequence[str] = [output.name for output in session.get_outputs()]
    count = len(feeds[spec.input_name])
    step = 1 if session.get_inputs()[0].shape[:1] == [1] else count
    errors = dict.fromkeys(names, 0.0)
    for start in range(0, count, step):
        part = {key: value[start : start + step] for key, value in feeds.items()}
        expected = _eager(module, part, names)
        try:
            got = session.run(names, part)
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run {path}", got=" ".join(str(error).split())[:300]) from error
        for out, a, b in zip(names, got, expected, strict=True):
            errors[out] = max(errors[out], relative_error(a, b))
    return [Case(name, count, out, error) for out, error in errors.items()]


def _eager(module: torch.nn.Module, feeds: dict[str, NDArray[Any]], names: Sequence[str]) -> list[NDArray[Any]]:
    torch = need("torch")
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(array) for array in feeds.values()))
    finally:
        module.train(was_training)
    return [output.numpy() for output in arranged(outputs, names)]
