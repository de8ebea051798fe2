"""Engines: built two at a time, held against what was asked of them, and ranked by the cost model."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

from ..optimize.trt import preflight
from ..runtime.engines import build, cost
from ..runtime.errors import CheckFailed, NotAvailable
from ..runtime.spec import ModelSpec
from .settings import ExportedArtefact, Flow, StageCheck

# What INT8 engines are built from where networks are strongly typed: the float remainder of int8-trt cast to FP16.
# int8-trt itself, FP32 beside INT8, is for builders with weak typing (TensorRT 8), which choose FP16 by a flag.
ENGINE_INT8 = "int8-trt-fp16"
# FP16 with fewer kernels for more arithmetic: see optimize/trt/fold_passthrough_channels.py.
ENGINE_FP16 = "fp16-trt"


def make_engines(flow: Flow, spec: ModelSpec, work: Path) -> None:
    """Build one engine for each precision and SM, two at a time; without TensorRT say so and go on."""
    if "trt" not in flow.settings.targets:
        return
    _preflight(flow)
    jobs = [(name, sm) for name in flow.settings.precisions for sm in flow.settings.sms]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        futures = [pool.submit(_engine, flow, spec, work, name, sm) for name, sm in jobs]
        try:
            for (name, sm), future in zip(jobs, futures, strict=True):
                _take_engine(flow, f"engine {name} SM {sm}", future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    flow.checks += [check for sm in flow.settings.sms if (check := _choice(flow, sm))]


def _preflight(flow: Flow) -> None:
    """Look once at each file that engines are built from; the graphs are then no longer kept."""
    for name in flow.settings.precisions:
        for stem in _sources(flow, name):
            path = flow.onnx(stem).path
            preflight.require(preflight.check(flow.graphs.get(stem, path), name, flow.settings.sms), path)
    flow.graphs.clear()


def _sources(flow: Flow, precision: str) -> list[str]:
    """Return the artefacts that engines of a precision are built from."""
    names = {"int8": [ENGINE_INT8], "fp16": ["fp16", ENGINE_FP16]}.get(precision, [precision])
    return [name for name in names if any(made.name == name for made in flow.artefacts)]


def _engine(flow: Flow, spec: ModelSpec, work: Path, name: str, sm: str) -> ExportedArtefact:
    """Build one engine; where two files have this precision, keep the build that is estimated faster."""
    built = [_build(flow, spec, work, name, sm, source) for source in _sources(flow, name)]
    return min(built, key=lambda made: (made.results.get("estimated_s", 0.0), made.nodes))


def _build(flow: Flow, spec: ModelSpec, work: Path, name: str, sm: str, stem: str) -> ExportedArtefact:
    source = flow.onnx(stem)
    path = work / f"{spec.name}-{stem if name == 'fp16' else name}-{_target(sm)}.engine"
    batch = (1, 1, 8) if flow.settings.dynamic_batch else None
    sidecar = build.build_engine(source.path, path, sm=sm, precision=name, batch=batch)
    kernels = sidecar.attestation.kernels
    made = ExportedArtefact(f"{name} SM {sm}", name, _target(sm), path, kernels, "trt", sidecar.to_dict())
    made.results["source"] = stem
    if chip := cost.of_sm(sm):
        made.results |= {"estimated_s": cost.sidecar_s(sidecar.kernels, chip), "estimated_on": chip.name}
    return made


def _take_engine(flow: Flow, name: str, future: concurrent.futures.Future[ExportedArtefact]) -> None:
    try:
        made = future.result()
    except NotAvailable as error:
        flow.checks.append(StageCheck(name, None, str(error)))
        return
    except CheckFailed as error:
        flow.checks.append(StageCheck(name, False, str(error)))
        return
    flow.artefacts.append(made)
    flow.checks.append(StageCheck(name, True, attested(made)))


def attested(made: ExportedArtefact) -> str:
    """Say what an engine was found to run in."""
    attestation = (made.sidecar or {})["attestation"]
    ran = attestation["counts"].get(made.precision, 0)
    return f"{ran} of {len(attestation['got'])} convolutions {made.precision.upper()}, {attestation['kernels']} kernels"


def _target(sm: str) -> str:
    return f"sm{sm.replace('.', '')}"


def _choice(flow: Flow, sm: str) -> StageCheck | None:
    """Say which of the engines for one SM the runtime will take, and what the cost model expects of each."""
    known = [made for made in flow.artefacts if made.target == _target(sm) and "estimated_s" in made.results]
    if len(known) < 2:
        return None
    best = min(known, key=lambda made: float(made.results["estimated_s"]))
    told = ", ".join(
        f"{made.precision.upper()} {1e3 * made.results['estimated_s']:.3f} ms with {made.nodes} kernels"
        for made in known
    )
    on = best.results["estimated_on"]
    return StageCheck(
        f"choice SM {sm}", True, f"{best.precision.upper()}: estimated on {on}, batch 1: {told}; never measured"
    )
