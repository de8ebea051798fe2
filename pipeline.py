"""The whole flow on one page: a network's name in, a verified bundle out, and a check after each step.

module ─▶ raw.onnx ─▶ fp32.onnx ─┬▶ fp16.onnx ──────▶ engines per SM
  parity     passes, checked     ├▶ int8-trt.onnx ──▶ engines per SM
                                 └▶ int8-ort-x86.onnx
every artefact: accuracy on real images, agreement with FP32, latency here; then one bundle, verified
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .export import parity, to_onnx
from .models import catalog, weights
from .optimize import mixed_trt, precision, preflight, quantize, runner
from .pipeline_measure import measure
from .pipeline_types import SPLITS, Artefact, Check, Flow, Say, Settings, Summary
from .runtime import bundle, datasets
from .runtime.backends import ort
from .runtime.engines import build
from .runtime.errors import CheckFailed, NotAvailable
from .runtime.files import workplace
from .runtime.packages import versions
from .runtime.spec import ModelSpec
from .runtime.verify import replay

# What INT8 engines are built from where networks are strongly typed: the float remainder of int8-trt cast to FP16.
# int8-trt itself, FP32 beside INT8, is for builders with weak typing (TensorRT 8), which choose FP16 by a flag.
ENGINE_INT8 = "int8-trt-fp16"


def run(settings: Settings, say: Say) -> Summary:
    """Make a verified bundle.

    Args:
        settings: What to make.
        say: Called with one line after each stage.

    Raises:
        CheckFailed: The ONNX file differs from the module, or a rewrite from what it replaces.
        EdgesmithError: Any other reason why no bundle can be made; an earlier bundle is as it was.
    """
    out = settings.out or Path("bundles") / catalog.find(settings.model).name
    flow = Flow(settings, say)
    with flow.stage("weights"):
        module, spec = _module(flow)
    with flow.stage("data"):
        _gather(flow, spec)
    with workplace(out) as work:
        _make_files(flow, module, spec, work)
        with flow.stage("engines"):
            _make_engines(flow, spec, work)
        with flow.stage("measure"):
            measure(flow, spec)
        summary = Summary(spec, out, flow.artefacts, flow.checks, flow.seconds)
        if summary.passed:
            with flow.stage("bundle"):
                _write(flow, spec, out)
            summary.written = True
    if summary.written:
        with flow.stage("verify"):
            _verify(flow, out)
    return summary


def _module(flow: Flow) -> tuple[Any, ModelSpec]:
    settings = flow.settings
    spec = catalog.spec(settings.model, settings.weights)
    module = catalog.build(settings.model, spec.num_classes)
    spec = weights.load_into(module, spec, settings.weights, folder=settings.weights_folder)
    return module.eval(), spec


def _gather(flow: Flow, spec: ModelSpec) -> None:
    settings = flow.settings
    for split in ("calibration", *SPLITS):
        flow.data[split] = datasets.load(settings.data, split, calibration=settings.calibration)
    flow.records["data"] = {split: {"images": len(data), "sha256": data.digest} for split, data in flow.data.items()}


def _make_files(flow: Flow, module: Any, spec: ModelSpec, work: Path) -> None:
    settings, stem = flow.settings, spec.name
    calibration = list(flow.data["calibration"].batches(spec, 1))
    with flow.stage("export"):
        raw = to_onnx.export(
            module, spec, work / f"{stem}-raw.onnx", dynamic_batch=settings.dynamic_batch, opset=settings.opset
        )
    with flow.stage("parity"):
        report = parity.check(module, raw, spec, np.concatenate(calibration[:3]))
        flow.records["parity"] = report.to_dict()
        flow.checks.append(
            Check("export parity", True, f"worst relative error {report.worst.error:.1e}, {len(report.cases)} cases")
        )
    with flow.stage("optimize"):
        fp32 = work / f"{stem}-fp32.onnx"
        passes = runner.optimize(raw, fp32, samples=calibration[:2])
        flow.add("fp32", "fp32", "generic", fp32)
        flow.records["optimize"] = passes.to_dict()
        equal = {"equal": True, "different": False}.get(passes.check.verdict)
        detail = f"{passes.before.nodes} -> {passes.after.nodes} nodes, worst error {passes.check.worst_error:.1e}"
        flow.checks.append(Check("graph passes", equal, detail))
    with flow.stage("precision"):
        _lower(flow, fp32, calibration, work / stem)


def _lower(flow: Flow, fp32: Path, calibration: list[NDArray[np.float32]], stem: Path) -> None:
    """FP16 and INT8 from the optimised FP32 file."""
    if "fp16" in flow.settings.precisions:
        path = Path(f"{stem}-fp16.onnx")
        flow.records["fp16"] = precision.to_fp16(fp32, path, calibration[:8]).to_dict()
        flow.add("fp16", "fp16", "generic", path)
    if "int8" in flow.settings.precisions:
        for target in flow.settings.targets:
            path = Path(f"{stem}-int8-{target}.onnx")
            flow.records[f"int8-{target}"] = quantize.quantize(fp32, path, calibration, target=target).to_dict()
            flow.add(f"int8-{target}", "int8", target, path)
        if "trt" in flow.settings.targets:
            path = Path(f"{stem}-{ENGINE_INT8}.onnx")
            mixed_trt.mix(fp32, flow.onnx("int8-trt").path, [], path)
            flow.add(ENGINE_INT8, "int8", "trt", path)


def _make_engines(flow: Flow, spec: ModelSpec, work: Path) -> None:
    """Build one engine for each precision and SM, two at a time; without TensorRT say so and go on."""
    if "trt" not in flow.settings.targets:
        return
    jobs = [(name, sm) for name in flow.settings.precisions for sm in flow.settings.sms]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        futures = [pool.submit(_engine, flow, spec, work, name, sm) for name, sm in jobs]
        try:
            for (name, sm), future in zip(jobs, futures, strict=True):
                _take_engine(flow, f"engine {name} SM {sm}", future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _engine(flow: Flow, spec: ModelSpec, work: Path, name: str, sm: str) -> Artefact:
    source = flow.onnx(ENGINE_INT8 if name == "int8" else name)
    preflight.require(preflight.check(source.path, name, [sm]), source.path)
    path = work / f"{spec.name}-{name}-sm{sm.replace('.', '')}.engine"
    batch = (1, 1, 8) if flow.settings.dynamic_batch else None
    sidecar = build.build_engine(source.path, path, sm=sm, precision=name, batch=batch)
    kernels = sidecar.attestation.kernels
    return Artefact(f"{name} SM {sm}", name, f"sm{sm.replace('.', '')}", path, kernels, "trt", sidecar.to_dict())


def _take_engine(flow: Flow, name: str, future: concurrent.futures.Future[Artefact]) -> None:
    try:
        made = future.result()
    except NotAvailable as error:
        flow.checks.append(Check(name, None, str(error)))
        return
    except CheckFailed as error:
        flow.checks.append(Check(name, False, str(error)))
        return
    flow.artefacts.append(made)
    flow.checks.append(Check(name, True, _attested(made)))


def _attested(made: Artefact) -> str:
    attestation = (made.sidecar or {})["attestation"]
    ran = attestation["counts"].get(made.precision, 0)
    return f"{ran} of {len(attestation['got'])} convolutions {made.precision.upper()}, {attestation['kernels']} kernels"


def _write(flow: Flow, spec: ModelSpec, out: Path) -> None:
    inputs = np.concatenate(list(flow.data["test"].head(4).batches(spec)))
    feeds = {spec.input_name: inputs}
    golden: dict[str, dict[str, NDArray[Any]]] = {}
    for made in flow.artefacts:
        if made.backend == "ort":
            with ort.open(made.path, **made.options) as session:
                golden[made.name] = replay(session, feeds)
    items = [_item(made, golden) for made in flow.artefacts]
    provenance = {
        **flow.records,
        "settings": {key: str(value) for key, value in dataclasses.asdict(flow.settings).items()},
        "versions": versions(),
    }
    results = {made.name: made.results for made in flow.artefacts}
    bundle.write(
        out, spec, items, golden_inputs=feeds, provenance=provenance,
        results={"artefacts": results, "checks": [dataclasses.asdict(check) for check in flow.checks]},
        made_by=f"edgesmith {__version__}",
    )  # fmt: skip


def _item(made: Artefact, golden: dict[str, dict[str, NDArray[Any]]]) -> bundle.Item:
    if made.sidecar is None:
        return bundle.Item(made.path, "onnx", made.precision, made.target, golden[made.name])
    source = ENGINE_INT8 if made.precision == "int8" else made.precision
    return bundle.Item(
        made.path, "engine", made.precision, made.target, golden[source],
        requires={"sm": made.sidecar["sm"], "tensorrt": made.sidecar["version"], "flavour": made.sidecar["flavour"]},
        facts={"kernels": made.nodes, "attestation": _attested(made)},
    )  # fmt: skip


def _verify(flow: Flow, out: Path) -> None:
    report = bundle.verify(out)
    passed = {"passed": True, "failed": False}.get(report.verdict)
    replayed = {entry.artefact for entry in report.replays if entry.status == "passed"}
    waiting = {made.name for made in bundle.read(out).artefacts} - replayed
    detail = f"digests recomputed; golden outputs replayed here for {len(replayed)} artefacts"
    detail += f", {len(waiting)} wait for their device" if waiting else ""
    flow.checks.append(Check("bundle", passed, detail))
