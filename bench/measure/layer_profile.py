"""Seconds of each operator in one inference, from the profiler of ONNX Runtime or TensorRT.

The operators are those that run after ONNX Runtime's fusions, under its names. The multiply-accumulates follow from the
shapes that the profiler records; a blocked layout pads channels, and padded channels are computed and counted.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.backends._base import random_feeds
from ...runtime.backends.ort import SIMULATED, OrtSession
from ...runtime.bundle.bundle import Bundle, read_bundle
from ...runtime.bundle.companions import checked_files, sidecar_content
from ...runtime.bundle.manifest import Artefact
from ...runtime.common.files import scratch
from ...runtime.common.ort_session import ort_session
from ...runtime.engines import sidecar
from ...runtime.engines.kernels import Kernel
from ...runtime.errors import NotAvailable
from ...runtime.targets import is_simulated
from .workload import BenchTarget, spec_in_session

if TYPE_CHECKING:
    from ...runtime.spec import ModelSpec

CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger", "NhwcFusedConv", "ConvTranspose")
PRODUCTS = ("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "QLinearMatMul", "MatMulIntegerToFloat")
Row = dict[str, Any]


def profile(target: BenchTarget, count: int, optimise: bool = True, spec: ModelSpec | None = None) -> list[Row]:
    """Run an ONNX file or a bundle's ONNX artefact `count` times under the profiler, after one warm run.

    Args:
        target: The artefact to run.
        count: Number of runs.
        optimise: Let ONNX Runtime fuse operators; if false, the operators are those of the file.
        spec: What the bundle says of the inputs; None reads the file's metadata.

    Returns:
        One row for each operator in the order of execution: layer, op, dtype, shape, seconds (mean of the runs), and
        macs, None where the profiler does not report it (weights of fused INT8 operators were repacked).

    Raises:
        NotAvailable: The target does not run on ONNX Runtime.
    """
    profilable(target)
    level = "ENABLE_ALL" if optimise else "DISABLE_ALL"
    with scratch("layers") as folder, _source(target) as (source, entries):
        session = ort_session(
            source, level=level, threads=target.threads, entries=entries, log_level=3, profile=f"{folder}/profile"
        )
        inputs = OrtSession(session).inputs
        feeds = random_feeds(inputs, spec or spec_in_session(session), target.batch, target.shape)
        for _ in range(count + 1):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return layer_rows(events, count)


def profile_engine(session: Any, target: BenchTarget, count: int, spec: ModelSpec | None = None) -> list[Row]:
    """Return one row per kernel of an engine, timed by TensorRT's profiler, with the names of the sidecar.

    Args:
        session: An open engine.
        target: The artefact of this engine.
        count: Number of calls to average over.
        spec: What the bundle says of the inputs.

    Returns:
        As `profile`; `macs` is None, and `op` is "kernel" if the sidecar does not list the name.
    """
    known = {kernel["name"]: Kernel.from_dict(kernel) for kernel in _kernels(target)}
    feeds = random_feeds(session.inputs, spec, target.batch, target.shape)
    return [_kernel_row(name, spent, known.get(name)) for name, spent in session.layers(feeds, count).items()]


def _kernels(target: BenchTarget) -> tuple[Row, ...]:
    """Return the kernels of an engine's sidecar, for a bundle's artefact from the checked bytes; () without one."""
    if not target.artefact:
        there = sidecar.path_of(target.path).is_file()
        return sidecar.read_sidecar(target.path).kernels if there else ()
    bundle, artefact = _artefact(target)
    content = sidecar_content(bundle, artefact)
    return () if content is None else sidecar.read_sidecar(artefact.path, content).kernels


def _kernel_row(name: str, spent: float, kernel: Kernel | None) -> Row:
    out = kernel.outputs[0] if kernel and kernel.outputs else None
    return {
        "layer": name, "op": kernel.kind if kernel else "kernel", "dtype": kernel.precision if kernel else "",
        "shape": "x".join(map(str, out.dims)) if out else "", "seconds": spent, "macs": None,
    }  # fmt: skip


def tells_layers(target: BenchTarget) -> None:
    """Refuse a target whose layers cannot be timed.

    Raises:
        NotAvailable: It runs neither on ONNX Runtime nor as an engine.
    """
    if target.backend != "trt":
        profilable(target)


def profilable(target: BenchTarget) -> None:
    """Refuse a target that `profile` cannot run.

    Raises:
        NotAvailable: The target does not run on ONNX Runtime.
    """
    if target.backend != "ort" or Path(target.path).suffix == ".py":
        raise NotAvailable(
            "only ONNX Runtime and engines report the time of each layer", got=f"backend {target.backend}"
        )


@contextlib.contextmanager
def _source(target: BenchTarget) -> Iterator[tuple[Path | bytes, dict[str, str]]]:
    """Yield the ONNX file, or the checked bytes of an artefact, and the entries of its session."""
    if not target.artefact:
        yield Path(target.path), {}
        return
    bundle, artefact = _artefact(target)
    with checked_files(bundle, artefact) as (path, content):
        yield content or path, dict(SIMULATED) if is_simulated(artefact.target) else {}


def _artefact(target: BenchTarget) -> tuple[Bundle, Artefact]:
    bundle = read_bundle(target.path)
    return bundle, next(item for item in bundle.artefacts if item.name == target.artefact)


def layer_rows(events: list[Row], count: int) -> list[Row]:
    """Convert the profiler's events to rows, without the first run, which is cold."""
    seen: dict[str, list[Row]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen[event["name"].removesuffix("_kernel_time")].append(event)
    return [_row(name, runs) for name, runs in seen.items() if len(runs) > count]


def _row(name: str, runs: list[Row]) -> Row:
    warm = runs[1:]
    about = warm[0]["args"]
    dtype, shape = _tensor(about["output_type_shape"][0]) if about["output_type_shape"] else ("", [])
    return {
        "layer": name, "op": about["op_name"], "dtype": dtype, "shape": "x".join(map(str, shape)),
        "seconds": sum(event["dur"] for event in warm) / len(warm) * 1e-6, "macs": _macs(about),
    }  # fmt: skip


def _tensor(entry: dict[str, list[int]]) -> tuple[str, list[int]]:
    return next(iter(entry.items()))


def _macs(about: Row) -> int | None:
    """Places times the weights that each needs; the weights are the second tensor with two axes or more.

    A product's weights may have been repacked, and then have no shape: its input's last axis says the same.
    """
    inputs = [shape for _, shape in map(_tensor, about["input_type_shape"]) if len(shape) >= 2]
    if not inputs or not about["output_type_shape"]:
        return 0
    outputs = math.prod(_tensor(about["output_type_shape"][0])[1])
    if about["op_name"] in PRODUCTS:
        return outputs * inputs[0][-1]
    if about["op_name"] not in CONVOLUTIONS:
        return 0
    if len(inputs) < 2:
        return None
    places = math.prod(inputs[0]) if about["op_name"] == "ConvTranspose" else outputs
    return places * math.prod(inputs[1][1:])
