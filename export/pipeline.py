"""The whole flow on one page: from a network's name to a verified bundle, with a check after each step.

module ─▶ raw.onnx ─▶ fp32.onnx ─┬▶ fp16.onnx ──────▶ engines per SM
  parity     passes, checked     ├▶ int8-trt.onnx ──▶ engines per SM
                                 └▶ int8-ort-x86.onnx
every artefact: accuracy on real images, agreement with FP32, latency here; then one bundle, verified
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .. import __version__
from ..models import weights
from ..optimize import embed_preprocessing, optimizer
from ..optimize.fp16 import convert
from ..optimize.graph.graph_file import GraphFile
from ..optimize.quantize.float_source import FloatSource
from ..optimize.trt.fold_passthrough_channels import fold_passthrough_channels
from ..runtime import datasets
from ..runtime.backends import ort
from ..runtime.bundle import bundle, requirements, writer
from ..runtime.common.durable import swap
from ..runtime.common.files import workplace
from ..runtime.common.packages import need, versions
from ..runtime.datasets.array_files import is_array_source
from ..runtime.outputs import claim
from ..runtime.selection.candidates import ARITHMETIC
from ..runtime.spec import ModelSpec
from ..runtime.tasks import find
from ..runtime.verify import replay, verify
from .answers import require_decodable
from .engines import ENGINE_FP16, attested, engine_target, make_engines
from .int8 import make_int8
from .measure import UNJUDGED_IMAGES, measure, not_judged
from .preconditions import require, require_input
from .raw_graph import write_raw
from .sbom import NAME as SBOM
from .sbom import bill_of_materials, raw_digests, source_digests
from .settings import (
    FLOATS,
    NORMALISED,
    PACKAGE,
    PIXELS,
    RANDOM_DATA,
    SPLITS,
    TRAINED,
    ExportedArtefact,
    ExportSettings,
    Flow,
    Say,
    StageCheck,
    Summary,
)
from .sources.load import load_network, load_zoo
from .sources.source import Network


def run(settings: ExportSettings, say: Say) -> Summary:
    """Make a verified bundle.

    Args:
        settings: The settings of the run.
        say: Called with one line after each stage.

    Raises:
        CheckFailed: The ONNX file differs from the module, or a rewrite from what it replaces.
        EdgesmithError: Any other reason why no bundle can be made; an earlier bundle is unchanged.
    """
    out = settings.place
    require(settings, out)
    flow = Flow(settings, say)
    with flow.stage("weights"):
        network = _load(flow)
    with flow.stage("data"):
        _gather(flow, network.spec)
    with workplace(out) as work:
        spec = make_files(flow, network, work)
        with flow.stage("engines"):
            make_engines(flow, spec, work)
        with flow.stage("measure"):
            measure(flow, spec)
        _leave_out(flow)
        summary = Summary(spec, out, [*flow.artefacts, *flow.bf16], flow.checks, flow.seconds)
        if summary.passed:
            with flow.stage("bundle"):
                write_files(flow, spec, work / "bundle")
            with flow.stage("verify"):
                _verify(flow, work / "bundle")
        if summary.passed:
            swap(work / "bundle", claim(out, "bundle", overwrite=settings.overwrite))
            summary.written = True
    return summary


def _load(flow: Flow) -> Network:
    settings, origin = flow.settings, flow.settings.weights
    if settings.source.is_ours:
        if origin == TRAINED:
            origin = str(weights.trained(settings.model, settings.data, settings.weights_folder))
            flow.say(f"the weights are trained on {settings.data}: {origin}")
        return load_zoo(settings.source, origin, settings.weights_folder, settings.describe.image_size)
    images = not is_array_source(settings.data)
    if settings.source.runs_code:
        flow.say(f"code of {settings.source.place} is run")
    network = load_network(settings.source, origin, settings.describe, images)
    for fact in network.facts:
        flow.say(str(fact))
    flow.records["facts"] = {fact.name: {"value": fact.value, "origin": fact.origin} for fact in network.facts}
    require_input(settings, network.spec)
    return network


def _gather(flow: Flow, spec: ModelSpec) -> None:
    settings, takes_images = flow.settings, len(spec.input_shape) == 3
    for split in ("calibration", *SPLITS):
        if settings.data == RANDOM_DATA or (settings.source.is_ours and not takes_images):
            count = settings.calibration if split == "calibration" else UNJUDGED_IMAGES
            flow.data[split] = datasets.Noise.draw(spec, split, count)
            continue
        if split == "hard" and is_array_source(settings.data):
            continue  # arrays have no known disturbance
        data = datasets.load(settings.data, split, calibration=settings.calibration)
        data.require_fit(spec)
        flow.data[split] = data
        if split == "calibration" and (text := datasets.held_back(settings.data, data, settings.calibration)):
            flow.say(text)
    _say_who_judges(flow, spec)
    flow.records["data"] = {split: {"images": len(data), "sha256": data.digest} for split, data in flow.data.items()}


def _say_who_judges(flow: Flow, spec: ModelSpec) -> None:
    """Say before the work why truths cannot judge, and require the package that the task's metric needs.

    Raises:
        NotAvailable: It is not installed.
    """
    task = find(spec.task)
    why_not = not_judged(flow, spec) if flow.settings.evaluate and task.truth else ""
    if why_not and flow.settings.weights != "random":
        flow.say(f"{why_not}, so similarity to FP32 decides")
    elif task.package and not why_not:
        need(task.package)


def make_files(flow: Flow, network: Network, work: Path) -> ModelSpec:
    """Export, optimise, and lower the precision; return the spec of the files, whose input may be pixels."""
    settings, stem = flow.settings, network.spec.name
    calibration = list(flow.data["calibration"].batches(network.spec, 1))
    raw, fp32 = work / f"{stem}-raw.onnx", work / f"{stem}-fp32.onnx"
    spec = write_raw(flow, network, raw, calibration)
    flow.records["sources"] = {**source_digests(settings), **raw_digests(raw)}
    with flow.stage("optimize"):
        sizes = {
            name: (None if settings.dynamic_batch else size, *rest) for name, (size, *rest) in network.sizes.items()
        }
        passes = optimizer.optimize(raw, fp32, samples=calibration[:2], sizes=sizes)
        flow.add("fp32", "fp32", "generic", GraphFile.read(fp32))
        require_decodable(flow.onnx("fp32"), spec, calibration[0])
        flow.records["optimize"] = {**passes.to_dict(), "source": raw.name, "target_path": fp32.name}
        for text in passes.notes:
            flow.say(text)
        equal = {"equal": True, "different": False}.get(passes.check.verdict)
        detail = f"{passes.before.nodes} -> {passes.after.nodes} nodes, {passes.check.error or passes.check.detail}"
        flow.checks.append(StageCheck("graph passes", equal, "; ".join([detail, *passes.notes])))
    if settings.input != NORMALISED:
        with flow.stage("preprocessing"):
            spec = _embed(flow, [fp32], spec, FLOATS)
            flow.graphs["fp32"] = GraphFile.read(fp32)
            calibration = list(flow.data["calibration"].batches(spec, 1))
    with flow.stage("precision"):
        _lower(flow, spec, calibration, work / stem)
    if settings.input == PIXELS:
        with flow.stage("pixels"):
            spec = _embed(flow, [artefact.path for artefact in flow.artefacts], spec, PIXELS)
            flow.graphs.clear()  # the files contain other graphs now
    return spec


def _embed(flow: Flow, paths: list[Path], spec: ModelSpec, kind: str) -> ModelSpec:
    """Embed the runtime's preprocessing into each file, compare the result, and return the spec of the new input."""
    reports = []
    for path in paths:
        pixels = path.with_name(f"pixels-{path.name}")
        reports.append(embed_preprocessing.embed(path, pixels, spec, kind))
        pixels.replace(path)
    verdicts = {{"equal": True, "different": False}.get(report.check.verdict) for report in reports}
    worst = max((report.check for report in reports), key=lambda check: check.worst_error).error
    passed = verdicts.pop() if len(verdicts) == 1 else (None if False not in verdicts else False)
    flow.checks.append(StageCheck(f"input {kind}", passed, f"{worst}, in {len(paths)} files"))
    flow.records[f"input {kind}"] = [report.to_dict() for report in reports]
    return embed_preprocessing.raw_spec(spec, kind)


def _lower(flow: Flow, spec: ModelSpec, calibration: list[NDArray[Any]], stem: Path) -> None:
    """Make FP16 and INT8 from the optimised FP32 graph."""
    fp32 = flow.graphs["fp32"]
    if "fp16" in flow.settings.precisions:
        _make_half(flow, "fp16", "generic", fp32, calibration[:8], stem)
        folded_path = Path(f"{stem}-carried.onnx")
        if (target := engine_target(flow.settings)) and fold_passthrough_channels(fp32, folded_path):
            name = ENGINE_FP16.format(target)
            _make_half(flow, name, target, GraphFile.read(folded_path), calibration[:8], stem)
    if "int8" in flow.settings.precisions:
        make_int8(flow, spec, FloatSource(fp32), calibration, stem)


def _make_half(flow: Flow, name: str, target: str, source: GraphFile, samples: list[NDArray[Any]], stem: Path) -> None:
    report, graph = convert.convert_graph(source, Path(f"{stem}-{name}.onnx"), samples)
    flow.records[name] = report.to_dict()
    flow.add(name, "fp16", target, graph)


def write_files(flow: Flow, spec: ModelSpec, out: Path) -> None:
    """Write the bundle, with the outputs of each ONNX file on the first test images."""
    feeds = spec.feeds(datasets.join_batches(list(flow.data["test"].head(4).batches(spec))))
    golden: dict[str, dict[str, NDArray[Any]]] = {}
    for artefact in flow.artefacts:
        if artefact.backend == "ort":
            with ort.open(artefact.path, **artefact.options) as session:
                golden[artefact.name] = replay(session, feeds)
    items = [_item(one, golden) for one in flow.artefacts if not one.left_out and (not flow.quick or one.timed)]
    provenance = {
        **flow.records,
        "settings": flow.settings.to_dict(),
        "versions": versions(),
    }
    results = {artefact.name: artefact.results for artefact in (*flow.artefacts, *flow.bf16)}
    writer.write_bundle(
        out, spec, items, golden_inputs=feeds, provenance=provenance,
        results={"artefacts": results, "checks": [dataclasses.asdict(check) for check in flow.checks]},
        made_by=f"edgesmith {__version__}", documents={SBOM: bill_of_materials(spec, flow.records["sources"])},
    )  # fmt: skip


def _item(artefact: ExportedArtefact, golden: dict[str, dict[str, NDArray[Any]]]) -> writer.Item:
    if artefact.sidecar is None:
        facts = {key: artefact.results[key] for key in (ARITHMETIC,) if key in artefact.results}
        form = artefact.precision, artefact.target
        return writer.Item(artefact.path, "onnx", *form, golden[artefact.name], facts=facts)
    source = artefact.results["source"]
    return writer.Item(
        artefact.path, "engine", artefact.precision, artefact.target, golden[source],
        requires=requirements.engine_requirements(artefact.sidecar),
        facts={"kernels": artefact.nodes, "attestation": attested(artefact)}
        | {key: artefact.results[key] for key in ("estimated_s", "estimated_on") if key in artefact.results},
    )  # fmt: skip


def _leave_out(flow: Flow) -> None:
    """Leave the lower precisions that failed a check out of the bundle where weights are not ours, and say so.

    Whoever brings a network or weights wants what works of it; for those that are trained here a form that fails is a
    fault to be mended.
    """
    if flow.settings.source.is_ours and flow.settings.weights != PACKAGE:
        return
    for at, check in enumerate(flow.checks):
        kind, _, name = check.name.partition(" ")
        if check.passed is False and kind in ("accuracy", "engine") and name.partition(" ")[0] != "fp32":
            flow.checks[at] = dataclasses.replace(check, passed=None, left_out=True)
            for artefact in flow.artefacts:
                sources = (artefact.results.get("source"), artefact.results.get("form"))
                artefact.left_out |= name in (artefact.name, *sources)


def _verify(flow: Flow, out: Path) -> None:
    report = verify(out)
    passed = {"passed": True, "failed": False}.get(report.verdict)
    replayed = {entry.artefact for entry in report.replays if entry.status == "passed"}
    waiting = {artefact.name for artefact in bundle.read_bundle(out).artefacts} - replayed
    detail = f"digests recomputed; golden outputs replayed here for {len(replayed)} artefacts"
    detail += f", {len(waiting)} cannot run here" if waiting else ""
    wrong = [f"{name}: {problem}" for name, problem in report.problems.items()]
    wrong += [f"{one.artefact} on {one.backend}: {one.reason}" for one in report.replays if one.status == "failed"]
    detail = "; ".join([detail, *wrong])
    flow.checks.append(StageCheck("bundle", passed, detail))
