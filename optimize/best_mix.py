"""Which of FP16, INT8 and their mix is estimated fastest on a GPU: three real builds, judged by their kernel lists."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.engines import cost
from ..runtime.engines.build import build_engine
from ..runtime.errors import CheckFailed
from .mixed_trt import mix
from .placement_trt import Placement, kernels_of, place, weighted_nodes

if TYPE_CHECKING:
    from ..runtime.engines.sidecar import Sidecar

Note = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """One built engine: kernels as listed by the builder, weighted nodes in INT8, estimated seconds, file size."""

    name: str
    kernels: int
    int8: int
    estimate_s: float
    bytes: int


@dataclass(frozen=True)
class MixReport:
    """What was built and compared; `winner` is the name of the candidate with the lowest estimate."""

    gpu: str
    batch: int
    candidates: tuple[Candidate, ...]
    placement: Placement

    @property
    def winner(self) -> str:
        """The name of the candidate that is estimated fastest; FP16 where it is a tie."""
        return min(self.candidates, key=lambda item: item.estimate_s).name

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "winner": self.winner, "placement": self.placement.to_dict()}

    def refuse_slower(self) -> None:
        """Stop where INT8 brings nothing.

        Raises:
            CheckFailed: FP16 is estimated at least as fast as INT8 and as the mix.
        """
        if self.winner == "fp16":
            times = ", ".join(f"{c.name} {c.estimate_s * 1e3:.3f} ms, {c.kernels} kernels" for c in self.candidates)
            raise CheckFailed(f"INT8 is estimated to lose to FP16 on {self.gpu} at batch {self.batch}", got=times,
                              do="build the FP16 file, or keep INT8 for its size with a plain build")  # fmt: skip


def best_mix(
    float_path: str | Path, int8_path: str | Path, target_path: str | Path, gpu: cost.Gpu, *,
    batch: int = 1, per_tensor: bool = False, note: Note = lambda text: None, timeout_s: float = 600,
) -> MixReport:  # fmt: skip
    """Find the mix for a GPU, confirm it by building it, and write its ONNX file.

    Args:
        float_path: The float32 file, batch 1.
        int8_path: What `quantize(..., target="trt")` made of it.
        target_path: Where the ONNX file of the winner goes; nothing is written where that is FP16.
        gpu: The GPU (see `cost.gpus()`), one whose SM TensorRT-RTX builds for.
        batch: The batch it is to run at.
        per_tensor: Give INT8 weights one scale each: fewer kernels, and an accuracy that has to be checked.
        note: Called with a line about each step.
        timeout_s: Seconds for each build.

    Raises:
        EdgesmithError: As `mix` and `build_engine`.
    """
    names = weighted_nodes(int8_path)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)

        def built(name: str, floats: list[str], wide: bool = False) -> tuple[Path, Candidate, Sidecar]:
            onnx = work / f"{name}.onnx"
            mix(float_path, int8_path, floats, onnx, per_tensor=wide)
            precision = "fp16" if len(floats) == len(names) else "int8"
            made = build_engine(onnx, work / f"{name}.engine", sm=gpu.sm, precision=precision, timeout_s=timeout_s)
            seconds = cost.estimate_s(cost.works(kernels_of(made.kernels)), gpu, batch)
            found = Candidate(name, made.attestation.kernels, len(names) - len(floats), seconds, made.bytes)
            note(f"{name}: {found.kernels} kernels, estimated {seconds * 1e3:.3f} ms on {gpu.name} at batch {batch}")
            return onnx, found, made

        files = {"fp16": built("fp16", names), "int8": built("int8", [])}
        chosen = place(kernels_of(files["fp16"][2].kernels), names, gpu, batch=batch, per_tensor=per_tensor)
        note(chosen.verdict)
        if chosen.int8:
            files["mixed"] = built("mixed", list(chosen.floats), per_tensor)
        report = MixReport(gpu.name, batch, tuple(item[1] for item in files.values()), chosen)
        if report.winner != "fp16":
            _publish(files[report.winner][0], Path(target_path))
    return report


def _publish(source: Path, target: Path) -> None:
    from ..runtime.files import atomic_file

    with atomic_file(target) as temporary:
        temporary.write_bytes(source.read_bytes())
