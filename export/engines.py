"""TensorRT engines: built two at a time, checked against the requested precision, and ranked by the cost model."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from pathlib import Path

from ..optimize.graph import spec_metadata
from ..optimize.graph.graph_file import GraphFile
from ..optimize.graph.proto_graph import with_names
from ..optimize.trt import mixed_precision, preflight
from ..optimize.trt.profile import Profile, settle_profile
from ..runtime import targets
from ..runtime.engines import build, cost, flavour
from ..runtime.engines.kernels import Attestation
from ..runtime.errors import CheckFailed, EdgesmithError, NotAvailable
from ..runtime.spec import ModelSpec
from .settings import ExportedArtefact, ExportSettings, Flow, StageCheck

# The source of INT8 engines for strongly typed networks: the float remainder of int8-trt cast to FP16.
# int8-trt itself, FP32 beside INT8, is for builders with weak typing (TensorRT 8), which choose FP16 by a flag.
ENGINE_INT8 = "int8-{}-fp16"
# FP16 with fewer kernels but more arithmetic: see optimize/trt/fold_passthrough_channels.py.
ENGINE_FP16 = "fp16-{}"
# Of an INT8 file's convolutions one in so many may run in float; the engine is then built with these in FP16.
MOST_IN_FLOAT = 4
BATCHES = (1, 1, 8)  # least, usual and greatest where the batch is free


def engine_target(settings: ExportSettings) -> str:
    """Return the target whose files become engines, "" for none; of several, that with an installed TensorRT."""
    names = {targets.row(name).engine: name for name in settings.targets if targets.row(name).engine}
    here = [names[kind] for kind in flavour.MODULES if kind in names and flavour.installed_module(kind)]
    return next(iter([*here, *names.values()]), "")


def make_engines(flow: Flow, spec: ModelSpec, work: Path, precisions: Sequence[str] = ()) -> None:
    """Build one engine for each precision and SM, two at a time; without TensorRT report it and continue.

    Args:
        flow: The run; the engines and a check for each are added to it.
        spec: The spec whose name the files get.
        work: The folder for them.
        precisions: Only these; all of the settings by default.
    """
    target = engine_target(flow.settings)
    if not target:
        return
    wanted = precisions or flow.settings.precisions
    supported = [name for name in wanted if name in targets.row(target).precisions]
    supported = _preflight(flow, supported, target)
    jobs = [(name, sm) for name in supported for sm in flow.settings.sms]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        futures = [pool.submit(_engine, flow, spec, work, name, sm) for name, sm in jobs]
        try:
            for (name, sm), future in zip(jobs, futures, strict=True):
                _take_engine(flow, f"engine {name} SM {sm}", future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    flow.checks += [check for sm in flow.settings.sms if (check := _choice(flow, sm))]


def _preflight(flow: Flow, precisions: list[str], target: str) -> list[str]:
    """Look once at each file that engines are built from; the graphs are then no longer kept.

    Returns:
        The precisions that can be built. For a network that is not ours the others are named in a check, and the bundle
        goes without their engines.

    Raises:
        BuildError: TensorRT cannot use a file of a network of ours.
    """
    able = []
    for name in precisions:
        try:
            for stem in _sources(flow, name, target):
                path = flow.onnx(stem).path
                preflight.require(preflight.check(
                    flow.graphs.get(stem, path), name, flow.settings.sms, _profile(flow, path)), path)  # fmt: skip
            able.append(name)
        except EdgesmithError as error:
            if flow.settings.source.is_ours:
                raise
            flow.checks.append(StageCheck(f"engines {name}", None, f"none: {error}"))
    flow.graphs.clear()
    return able


def _sources(flow: Flow, precision: str, target: str) -> list[str]:
    """Return the artefacts that engines of a precision are built from."""
    names = {"int8": [ENGINE_INT8.format(target)], "fp16": ["fp16", ENGINE_FP16.format(target)]}
    return [name for name in names.get(precision, [precision]) if any(one.name == name for one in flow.artefacts)]


def _engine(flow: Flow, spec: ModelSpec, work: Path, name: str, sm: str) -> list[ExportedArtefact]:
    """Build one engine; if two files have this precision, keep the engine with the lower estimate.

    Where some layers of an INT8 file run in float, the engine is built once more from a file with these in FP16: that
    file comes first.
    """
    engines = []
    for stem in _sources(flow, name, engine_target(flow.settings)):
        engine, attestation = _build(flow, spec, work, name, sm, flow.onnx(stem), allow_float=name == "int8")
        floats = [layer for layer in attestation.missed if attestation.asked[layer] == name]
        mixed = None
        if 0 < MOST_IN_FLOAT * len(floats) <= len(attestation.got):
            mixed = _mixed(flow, work / f"{spec.name}-{stem}-{_target(sm)}.onnx", stem, floats)
        if mixed is None:
            build.check_precision(attestation, name)
        else:
            engine, _ = _build(flow, spec, work, name, sm, mixed)
            engine.results["form"] = stem
        engines.append([*filter(None, [mixed]), engine])
    return min(engines, key=lambda each: (each[-1].results.get("estimated_s", 0.0), each[-1].nodes))


def _mixed(flow: Flow, path: Path, stem: str, floats: list[str]) -> ExportedArtefact | None:
    """Return an INT8 engine's file with some more layers in FP16, None where the FP32 file has not these layers."""
    target = engine_target(flow.settings)
    fp32, int8 = (GraphFile.read(flow.onnx(name).path) for name in ("fp32", f"int8-{target}"))
    fp32 = GraphFile(with_names(fp32.model), fp32.path)
    if not set(floats) <= {node.name for node in fp32.model.graph.node}:
        return None
    graph = mixed_precision.restore_in_graph(fp32, int8, floats, path)
    name = f"{stem}-{path.stem.rpartition('-')[2]}"
    return ExportedArtefact(name, "int8", target, path, graph.nodes, results={"form": stem, "floats": floats})


def _build(
    flow: Flow, spec: ModelSpec, work: Path, name: str, sm: str, source: ExportedArtefact, *, allow_float: bool = False
) -> tuple[ExportedArtefact, Attestation]:
    stem = source.results.get("form", source.name)
    path = work / f"{spec.name}-{stem if name == 'fp16' else name}-{_target(sm)}.engine"
    batch = BATCHES if flow.settings.dynamic_batch else None
    # The standard form runs in both TensorRT flavours; the form for TensorRT-RTX would be slow in standard TensorRT.
    kind = "rtx" if targets.row(engine_target(flow.settings)).engine == "rtx" else "auto"
    sidecar = build.build_engine(source.path, path, sm=sm, precision=name, flavour=kind, batch=batch,
                                 shapes=_profile(flow, source.path), allow_float=allow_float)  # fmt: skip
    kernels = sidecar.attestation.kernels
    artefact = ExportedArtefact(f"{name} SM {sm}", name, _target(sm), path, kernels, "trt", sidecar.to_dict())
    artefact.results["source"] = source.name
    if chip := cost.of_sm(sm):
        artefact.results |= {"estimated_s": cost.sidecar_s(sidecar.kernels, chip), "estimated_on": chip.name}
    return artefact, sidecar.attestation


def _profile(flow: Flow, path: Path) -> Profile | None:
    """Return the shapes to build for where the file's spec has ranges of sizes."""
    spec = spec_metadata.read(path)
    return settle_profile(path, BATCHES if flow.settings.dynamic_batch else None) if spec.ranges else None


def _take_engine(flow: Flow, name: str, future: concurrent.futures.Future[list[ExportedArtefact]]) -> None:
    try:
        artefacts = future.result()
    except NotAvailable as error:
        flow.checks.append(StageCheck(name, None, str(error)))
        return
    except CheckFailed as error:
        flow.checks.append(StageCheck(name, False, str(error)))
        return
    flow.artefacts += artefacts
    flow.checks.append(StageCheck(name, True, attested(artefacts[-1])))


def attested(artefact: ExportedArtefact) -> str:
    """Describe the precisions that an engine's layers run in."""
    attestation = (artefact.sidecar or {})["attestation"]
    ran = attestation["counts"].get(artefact.precision, 0)
    kernels = f"{attestation['kernels']} kernels"
    others = {layer: got for layer, got in attestation["got"].items() if got != artefact.precision}
    rest = "".join(f", {layer} {got.upper()}" for layer, got in others.items()) if "form" in artefact.results else ""
    return f"{ran} of {len(attestation['got'])} convolutions {artefact.precision.upper()}{rest}, {kernels}"


def _target(sm: str) -> str:
    return f"sm{sm.replace('.', '')}"


def _choice(flow: Flow, sm: str) -> StageCheck | None:
    """Report which engine for one SM the runtime will choose, and the cost model's estimate of each."""
    known = [one for one in flow.artefacts if one.target == _target(sm) and "estimated_s" in one.results]
    if len(known) < 2:
        return None
    best = min(known, key=lambda artefact: float(artefact.results["estimated_s"]))
    estimates = ", ".join(
        f"{artefact.precision.upper()} {1e3 * artefact.results['estimated_s']:.3f} ms with {artefact.nodes} kernels"
        for artefact in known
    )
    on = best.results["estimated_on"]
    return StageCheck(
        f"choice SM {sm}", True, f"{best.precision.upper()}: estimated on {on}, batch 1: {estimates}; not measured"
    )
