"""`edgesmith build`: build one TensorRT engine per compute capability from an ONNX file, each with a sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..runtime.common import progress
from ..runtime.common.files import existing_file
from ..runtime.common.packages import require_package
from ..runtime.engines.flavour import PRECISIONS, choose_flavour, normal_sm
from ..runtime.errors import ModelError, NotAvailable, UsageError
from ..runtime.outputs import claim
from . import console


@console.command("build")
@click.argument("onnx", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The engine file; with several SMs -smXY is added.  [default: here]",
)
@click.option("--sm", default="8.6", show_default=True, help="Compute capabilities: 8.6,8.9 or current.")
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(PRECISIONS), help="Precision.")
@click.option("--fp16", "precision", flag_value="fp16", help="The same as --precision fp16.")
@click.option("--int8", "precision", flag_value="int8", help="The same as --precision int8.")
@click.option("--flavour", default="auto", type=click.Choice(("auto", "rtx", "standard")), help="Which TensorRT.")
@click.option("--batch", help="Profile of a dynamic batch: MIN,OPT,MAX, or one size.  [default: 1]")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="[NAME=]MIN:OPT:MAX",
    help="Profile, as x=1x3x64x64:…:…, or one shape.  [default: the sizes in the file's ModelSpec]",
)
@click.option("--workspace", type=click.IntRange(min=1), help="Scratch memory in MiB.")
@click.option("--level", type=click.IntRange(0, 5), help="Builder optimisation level.")
@click.option("--refit", is_flag=True, help="The weights can be replaced later.")
@click.option("--strip", is_flag=True, help="Leave the weights out; refit on the device.")
@click.option("--version-compatible", is_flag=True, help="Later TensorRT releases of this major version can run it.")
@click.option(
    "--hardware", type=click.Choice(("ampere_plus", "same_compute_capability")), help="Other GPUs run it too."
)
@click.option("--dla", type=click.IntRange(0), help="The DLA core of a Jetson.")
@click.option("--gpu-fallback", is_flag=True, help="Run layers that the DLA lacks on the GPU, and list them.")
@click.option("--timing-cache", type=click.Path(), help="Folder of the timing cache, which later builds reuse.")
@click.option("--timeout", "timeout_s", default=600.0, show_default=True, help="Seconds per engine.")
@click.option("--allow-float", is_flag=True, help="Keep an engine that runs in a higher precision than requested.")
@click.option("--best-for", "gpu", metavar="GPU", help="Build the fastest by estimate on this GPU, such as L4.")
@click.option("--int8-from", type=click.Path(path_type=Path), help="With --best-for: the file quantised for trt.")
@click.option(
    "--at-batch", default=1, show_default=True, type=click.IntRange(1), help="Batch size that --best-for assumes."
)
@click.option("--per-tensor", is_flag=True, help="With --best-for: one scale per INT8 weight; check accuracy.")
@click.option("--check-only", is_flag=True, help="Only check the file against TensorRT's rules; do not build.")
@console.overwrite
def build_command(
    onnx: Path, out: Path | None, sm: str, precision: str, flavour: str, batch: str | None, shapes: tuple[str, ...],
    workspace: int | None, level: int | None, timeout_s: float, allow_float: bool, gpu: str | None,
    int8_from: Path | None, at_batch: int, per_tensor: bool, check_only: bool, overwrite: bool, as_json: bool,
    **options: Any,
) -> int:  # fmt: skip
    """Build TensorRT engines from ONNX, one per SM, each in a process of its own."""
    from ..optimize.trt import preflight

    if gpu or int8_from:
        return _best(onnx, int8_from, out, gpu, at_batch, per_tensor, overwrite, as_json)

    sms = list(dict.fromkeys(normal_sm(part) for part in sm.split(",")))
    targets = _targets(onnx, out, sms, precision)
    if not check_only:
        _before(onnx, targets, flavour, overwrite)
    profile = _profile(onnx, batch, shapes, check_only)
    settings = {
        "precision": precision, "flavour": flavour, "shapes": profile, "workspace": workspace and workspace << 20,
        "level": level, "timeout_s": timeout_s, "allow_float": allow_float, "options": _options(options),
        "overwrite": overwrite,
    }  # fmt: skip
    rules = _flavour(flavour, sms[0])
    findings = preflight.check(onnx, precision, sms, profile, rules)
    if not check_only and any(item.code == "sm75-gemm" for item in findings):
        onnx = _for_turing(onnx, targets[0][1], overwrite)
        findings = preflight.check(onnx, precision, sms, profile, rules)
    if allow_float:
        findings = [item for item in findings if item.code != "half-file"]
    if check_only:
        _show_findings(findings, as_json)
        return int(any(item.severity == "error" for item in findings))
    _note_findings(findings)
    preflight.require(findings, onnx)
    sidecars = [_build(onnx, target, one, settings) for one, target in targets]
    console.emit([item.to_dict() for item in sidecars], as_json, lambda: _show(sidecars))
    return 0


def _profile(onnx: Path, batch: str | None, shapes: tuple[str, ...], check_only: bool) -> dict[str, Any]:
    """Settle the shapes to build for, and say which; a file that only is checked may leave them open."""
    from ..optimize.trt.profile import settle_profile
    from ..runtime.engines.build import batch_profile

    counts = batch_profile(_numbers(batch, ",") if batch else None)
    try:
        profile: dict[str, Any] = dict(settle_profile(onnx, counts, dict(_shape(text) for text in shapes)))
    except (ModelError, UsageError):
        if check_only and not shapes:
            return {}
        raise
    if profile and not (batch or shapes):
        sizes = ", ".join(f"{name} {'x'.join(map(str, three[1]))}" for name, three in profile.items())
        progress.note(f"built for {sizes}; --batch or --shape gives other sizes")
    return profile


def _flavour(flavour: str, sm: str) -> str:
    """Return the TensorRT whose rules hold, TensorRT-RTX where none is installed."""
    try:
        return choose_flavour(flavour, sm)[0]
    except NotAvailable:
        return "rtx" if flavour == "auto" else flavour


def _before(onnx: Path, targets: list[tuple[str, Path]], flavour: str, overwrite: bool) -> None:
    """Before the first engine, check for everything that would stop a later one."""
    existing_file(onnx, "ONNX file")
    require_package("onnx")
    for sm, target in targets:
        claim(target, "engine", overwrite=overwrite)
        choose_flavour(flavour, sm)


def _for_turing(onnx: Path, engine: Path, overwrite: bool) -> Path:
    """Write the graph with Gemm as Conv beside the engine and return this file; the given file if it has no Gemm."""
    from ..optimize.trt.gemm_to_conv import gemm_to_conv

    target = claim(engine.with_name(f"{engine.stem}-conv.onnx"), "onnx", overwrite=overwrite)
    if not (count := gemm_to_conv(onnx, target)):
        return onnx
    progress.note(f"SM 7.5 has no FP32 Gemm: {count} became 1x1 convolutions in {target}, which is built")
    return target


def _best(
    onnx: Path, int8: Path | None, out: Path | None, gpu: str | None, batch: int, per_tensor: bool, overwrite: bool,
    as_json: bool,
) -> int:  # fmt: skip
    from ..optimize.trt.autotune import autotune
    from ..runtime.engines import cost

    if gpu is None:
        raise UsageError("--int8-from needs --best-for GPU", do="see `edgesmith build --help`")
    engine = (out or Path(f"{onnx.stem}-best.engine")).with_suffix(".engine")
    target = claim(engine.with_suffix(".onnx"), "onnx", overwrite=overwrite)
    chip = cost.find_gpu(gpu)
    _before(onnx, [(chip.sm, engine)], "auto", overwrite)
    report = autotune(onnx, int8, target, chip, batch=batch, per_tensor=per_tensor, note=progress.note)
    rows = [(c.name, c.kernels, c.int8, f"{c.estimate_s * 1e3:.3f}", f"{c.bytes / 1e6:.1f}") for c in report.candidates]
    columns = ("candidate", "kernels", "nodes in INT8", f"estimated ms, {chip.name}, batch {batch}", "MB")
    console.emit(report.to_dict(), as_json, lambda: console.table("", columns, rows))
    report.refuse_slower()
    precision = "int8" if report.best.int8 else "fp16"
    _build(target, engine, chip.sm, {"precision": precision, "overwrite": overwrite})
    progress.note(f"written: {target} and {engine}, the {report.best.name} one")
    return 0


def _note_findings(findings: list[Any]) -> None:
    """Print each kind of finding once, with the number of further ones."""
    kinds: dict[tuple[str, str], list[Any]] = {}
    for item in findings:
        kinds.setdefault((item.severity, item.code), []).append(item)
    for (severity, _), items in kinds.items():
        progress.note(f"{severity}: {items[0]}" + (f" (and {len(items) - 1} more like it)" if len(items) > 1 else ""))


def _targets(onnx: Path, out: Path | None, sms: list[str], precision: str) -> list[tuple[str, Path]]:
    base = out or Path(f"{onnx.stem}-{precision}.engine")
    if out and len(sms) == 1:
        return [(sms[0], out)]
    return [(sm, base.with_name(f"{base.stem}-sm{sm.replace('.', '')}{base.suffix or '.engine'}")) for sm in sms]


def _build(onnx: Path, target: Path, sm: str, settings: dict[str, Any]) -> Any:
    from ..runtime.engines.build import build_engine
    from ..runtime.engines.progress import Percent

    with progress.progress(f"{target.name} (SM {sm}), %", 100) as advance:
        percent = Percent(advance)
        sidecar = build_engine(onnx, target, sm=sm, progress=percent, **settings)
        percent.finish()
    return sidecar


def _options(values: dict[str, Any]) -> Any:
    from ..runtime.engines.build import Options

    return Options(**{**values, "hardware": values["hardware"] or "", "timing_cache": values["timing_cache"] or ""})


def _numbers(text: str, separator: str) -> list[int]:
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError:
        raise UsageError(
            f"{text!r} is not a list of whole numbers", expected=f"such as 1{separator}4{separator}16"
        ) from None


def _shape(text: str) -> tuple[str, tuple[list[int], ...]]:
    name, _, three = text.rpartition("=")
    shapes = tuple(_numbers(part, "x") for part in three.split(":"))
    if len(shapes) not in (1, 3) or len({len(shape) for shape in shapes}) > 1:
        raise UsageError(
            f"{text!r} is not a profile",
            expected="NAME=MIN:OPT:MAX, such as x=1x3x64x64:1x3x224x224:8x3x512x512, or one shape",
        )
    return name, shapes * (3 // len(shapes))


def _show(sidecars: list[Any]) -> None:
    rows = [
        (item.engine, item.sm, f"{item.bytes / 1e6:.1f}", item.attestation.kernels, item.attestation.requantisations,
         f"{item.weights_bytes / 1e6:.1f}", f"{item.activation_bytes / 1e6:.1f}", f"{item.build_s:.1f}")
        for item in sidecars
    ]  # fmt: skip
    columns = ("engine", "SM", "MB", "kernels", "requantise", "weights MB", "activations MB", "build s")
    console.table("", columns, rows, spare=("weights MB", "activations MB", "requantise"))
    for note in dict.fromkeys(note for item in sidecars for note in item.notes):
        progress.note(f"note: {note}")
    for item in sidecars:
        console.say(f"SM {item.sm}: {item.attestation.sentence(item.precision)}")


def _show_findings(findings: list[Any], as_json: bool) -> None:
    rows = [(item.severity, item.code, item.node, item.what, item.do) for item in findings]
    columns = ("", "rule", "node", "problem", "what to do")
    draw = (lambda: console.table("", columns, rows, left=5)) if rows else (lambda: console.say("nothing found"))
    console.emit([item.to_dict() for item in findings], as_json, draw)
