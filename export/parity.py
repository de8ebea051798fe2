"""Does the ONNX file compute what the module computes? Random and real inputs, batch 1 and 3, worst output named.

The measure is max |a - b| / max |b| for each output, b the module's in eval mode, in float64 arithmetic: it grows for a
scaled, negated, permuted or zero output alike, and NaN or Inf never passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.common.ort_session import ort_session
from ..runtime.common.packages import need
from ..runtime.errors import CheckFailed, ModelError
from ..runtime.spec import ModelSpec
from ..runtime.verify import relative_error
from .outputs import arranged

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

BATCHES = (1, 3)
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One comparison: where the input came from, its batch size, the output's name and its relative error."""

    inputs: str
    batch: int
    output: str
    error: float


@dataclass(frozen=True)
class ParityReport:
    """Every comparison made, and the relative error that was allowed."""

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
    images: NDArray[np.float32] | None = None,
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> ParityReport:
    """Compare an ONNX file with the module it came from, ONNX Runtime's own optimisations off.

    Args:
        module: The network; compared in eval mode, left in the mode it came in.
        path: The ONNX file, whose outputs are matched with the module's by their keys; see `outputs.arranged`. Where
            its batch is fixed to one, both are run image by image, whatever axis the outputs have for it.
        spec: Names and shapes.
        images: Real inputs, float32, (N >= 3, *spec.input_shape); without them only random inputs are compared.
        tolerance: Largest relative error that passes.
        seed: Of the random inputs, standard normal.

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
    images: NDArray[np.float32] | None = None,
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> ParityReport:
    """Like `check`, but return a report that failed instead of raising."""
    session = ort_session(path, level="DISABLE_ALL")
    cases = []
    random = np.random.default_rng(seed).standard_normal((max(BATCHES), *spec.input_shape)).astype(np.float32)
    for name, source in (("random", random), ("real", images)):
        for batch in BATCHES:
            if source is not None and len(source) >= batch:
                cases += _cases(module, session, spec, name, source[:batch], path)
    return ParityReport(tuple(cases), tolerance)


def _cases(
    module: torch.nn.Module, session: Any, spec: ModelSpec, name: str, batch: NDArray[np.float32], path: str | Path
) -> list[Case]:
    names: Sequence[str] = [output.name for output in session.get_outputs()]
    argument = session.get_inputs()[0]
    step = 1 if argument.shape[0] == 1 else len(batch)
    errors = dict.fromkeys(names, 0.0)
    for start in range(0, len(batch), step):
        part = batch[start : start + step]
        expected = _eager(module, part, names)
        try:
            got = session.run(names, {argument.name: part})
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run {path}", got=" ".join(str(error).split())[:300]) from error
        for out, a, b in zip(names, got, expected, strict=True):
            errors[out] = max(errors[out], relative_error(a, b))
    return [Case(name, len(batch), out, error) for out, error in errors.items()]


def _eager(module: torch.nn.Module, batch: NDArray[np.float32], names: Sequence[str]) -> list[NDArray[Any]]:
    torch = need("torch")
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            outputs = module(torch.from_numpy(batch))
    finally:
        module.train(was_training)
    return [output.numpy() for output in arranged(outputs, names)]
