"""Selection of the fastest build on a GPU: candidates are built, and their latency estimated from the kernel list.

`fp16` is the float file in FP16; `int8` the quantised file, the rest in FP16; `mixed` has INT8 only in the
nodes that `int8_placement` selects; `carried` is FP16 with Split and Concat folded into the convolutions
(`fold_passthrough_channels`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.common.files import atomic_file, scratch
from ...runtime.engines import cost
from ...runtime.engines.build import build_engine
from ...runtime.errors import CheckFailed
from .fold_passthrough_channels import fold_passthrough_channels
from .int8_placement import Placement, kernels_of, place, weighted_nodes
from .mixed_precision import restore_float_nodes

if TYPE_CHECKING:
    from ...runtime.engines.kernels import Kernel

Note = Callable[[str], None]
WORTH = 0.02  # a smaller share of the time is within the cost model's error


@dataclass(frozen=True)
class BuildCandidate:
    """One built engine: the builder's kernel list, number of INT8 nodes, estimated seconds, file size."""

    name: str
    kernels: int
    int8: int
    estimate_s: float
    bytes: int


@dataclass(frozen=True)
class MixReport:
    """The built candidates and their comparison; `placement` is None without a quantised file."""

    gpu: str
    batch: int
    candidates: tuple[BuildCandidate, ...]
    placement: Placement | None

    @property
    def best(self) -> BuildCandidate:
        """The candidate with the lowest estimate; FP16, the first, if the others gain less than `WORTH`."""
        fastest = min(self.candidates, key=lambda item: item.estimate_s)
        return fastest if fastest.estimate_s < (1 - WORTH) * self.candidates[0].estimate_s else self.candidates[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        placement = self.placement.to_dict() if self.placement else None
        return {**asdict(self), "winner": self.best.name, "placement": placement}

    def refuse_slower(self) -> None:
        """Raise an error if no build is faster than plain FP16.

        Raises:
            CheckFailed: FP16 is estimated to be at least as fast as all others.
        """
        if self.best.name == "fp16":
            times = ", ".join(f"{c.name} {c.estimate_s * 1e3:.3f} ms, {c.kernels} kernels" for c in self.candidates)
            raise CheckFailed(
                f"no build is estimated to be faster than FP16 on {self.gpu} at batch {self.batch}",
                got=times,
                do="build the FP16 file, or keep INT8 for its size with a normal build",
            )


class _Bench:
    """Builds candidates in a separate folder and keeps the results."""

    def __init__(self, folder: Path, gpu: cost.Gpu, batch: int, note: Note, timeout_s: float) -> None:
        self.folder, self.gpu, self.batch, self.note, self.timeout_s = folder, gpu, batch, note, timeout_s
        self.candidates: dict[str, BuildCandidate] = {}
        self.kernels: dict[str, list[Kernel]] = {}

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.onnx"

    def build(self, name: str, int8: int) -> None:
        engine = build_engine(self.file(name), self.folder / f"{name}.engine", sm=self.gpu.sm,
                            precision="int8" if int8 else "fp16", timeout_s=self.timeout_s)  # fmt: skip
        self.kernels[name] = kernels_of(engine.kernels)
        seconds = cost.estimate_s(cost.kernel_works(self.kernels[name]), self.gpu, self.batch)
        self.candidates[name] = BuildCandidate(name, engine.attestation.kernels, int8, seconds, engine.bytes)
        self.note(f"{name}: {engine.attestation.kernels} kernels, estimated {seconds * 1e3:.3f} ms on {self.gpu.name}")


def autotune(
    float_path: str | Path, int8_path: str | Path | None, target_path: str | Path, gpu: cost.Gpu, *,
    batch: int = 1, per_tensor: bool = False, note: Note = lambda text: None, timeout_s: float = 600,
) -> MixReport:  # fmt: skip
    """Build the candidates for a GPU and write the ONNX file of the one with the lowest estimate.

    Args:
        float_path: The float32 file, batch 1, BatchNormalization folded.
        int8_path: The result of `quantize(..., target="trt")`; None compares only FP16 forms.
        target_path: The ONNX file of the winner; it is not written if the winner is plain FP16.
        gpu: The GPU (see `cost.gpus()`), whose SM TensorRT-RTX supports.
        batch: The batch size at run time.
        per_tensor: Use per-tensor scales for INT8 weights: fewer kernels, but the accuracy must be checked.
        note: Called with one line per step.
        timeout_s: Time limit of each build in seconds.

    Raises:
        EdgesmithError: As `restore_float_nodes`, `fold_passthrough_channels` and `build_engine`.
    """
    with scratch("mix") as folder:
        bench = _Bench(folder, gpu, batch, note, timeout_s)
        _half(float_path, bench.file("fp16"))
        bench.build("fp16", 0)
        if fold_passthrough_channels(float_path, bench.folder / "carried32.onnx"):
            _half(bench.folder / "carried32.onnx", bench.file("carried"))
            bench.build("carried", 0)
        placement = _quantised(bench, float_path, int8_path, per_tensor) if int8_path else None
        report = MixReport(gpu.name, batch, tuple(bench.candidates.values()), placement)
        if report.best.name != "fp16":
            with atomic_file(target_path) as temporary:
                temporary.write_bytes(bench.file(report.best.name).read_bytes())
    return report


def _quantised(bench: _Bench, float_path: str | Path, int8_path: str | Path, per_tensor: bool) -> Placement:
    names = weighted_nodes(int8_path)
    restore_float_nodes(float_path, int8_path, [], bench.file("int8"))
    bench.build("int8", len(names))
    placement = place(bench.kernels["fp16"], names, bench.gpu, batch=bench.batch, per_tensor=per_tensor)
    bench.note(placement.verdict)
    if placement.int8:
        restore_float_nodes(float_path, int8_path, placement.floats, bench.file("mixed"), per_tensor=per_tensor)
        bench.build("mixed", len(placement.int8))
    return placement


def _half(source: str | Path, target: Path) -> None:
    import onnx

    from ..fp16.cast_graph import cast_graph

    onnx.save(cast_graph(onnx.load(str(source))).model, str(target))
